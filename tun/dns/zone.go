package dns

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Zone is the zone of the mesh, without the root's dot.
const Zone = "mesh"

// hexDigits are the labels of ip6.arpa.
const hexDigits = "0123456789abcdef"

// ReverseZones are the zones of the names of addresses in p: of IPv6 cut at each half byte, of IPv4 at each byte, several
// where p ends in between.
func ReverseZones(p netip.Prefix) []string {
	p = p.Masked()
	step := 8
	if p.Addr().Is6() {
		step = 4
	}
	bits := (p.Bits() + step - 1) / step * step
	b := p.Addr().AsSlice()
	var all []string
	for range 1 << (bits - p.Bits()) {
		all = append(all, reverse(b, bits))
		for i, add := (bits-1)/8, byte(1)<<(7-(bits-1)%8); i >= 0 && bits > 0; i, add = i-1, 1 {
			if b[i] += add; b[i] >= add {
				break
			}
		}
	}
	return all
}

// reverse is the name under which the first bits of an address stand.
func reverse(b []byte, bits int) string {
	var s strings.Builder
	if len(b) == 4 {
		for i := bits/8 - 1; i >= 0; i-- {
			s.WriteString(strconv.Itoa(int(b[i])) + ".")
		}
		return s.String() + "in-addr.arpa"
	}
	for i := bits/4 - 1; i >= 0; i-- {
		s.WriteByte(hexDigits[b[i/2]>>(4*(1-i%2))&15])
		s.WriteByte('.')
	}
	return s.String() + "ip6.arpa"
}

// ParseReverse reads the name of an address, in lower case and without the root's dot. bits tells how much of the address it
// says: less than all is the name of a zone.
func ParseReverse(name string) (addr netip.Addr, bits int, ok bool) {
	rest, v6 := strings.CutSuffix(name, ".ip6.arpa")
	if !v6 {
		var v4 bool
		if rest, v4 = strings.CutSuffix(name, ".in-addr.arpa"); !v4 {
			return netip.Addr{}, 0, false
		}
	}
	labels := strings.Split(rest, ".")
	var b [16]byte
	if v6 {
		if len(labels) > 32 {
			return netip.Addr{}, 0, false
		}
		for i := range labels {
			l := labels[len(labels)-1-i]
			n := strings.Index(hexDigits, l)
			if len(l) != 1 || n < 0 {
				return netip.Addr{}, 0, false
			}
			b[i/2] |= byte(n) << (4 * (1 - i%2))
		}
		return netip.AddrFrom16(b), 4 * len(labels), true
	}
	if len(labels) > 4 {
		return netip.Addr{}, 0, false
	}
	for i := range labels {
		l := labels[len(labels)-1-i]
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil || strconv.Itoa(int(n)) != l {
			return netip.Addr{}, 0, false
		}
		b[i] = byte(n)
	}
	return netip.AddrFrom4([4]byte(b[:4])), 8 * len(labels), true
}

// Modes of Config of the vpn: who answers for names that are not of the mesh.
const (
	System = "system" // who answers without us
	Exit   = "exit"   // the exit's resolver, through the tunnel
	Off    = "off"    // the box's resolver is not touched, and no name server runs
)

// ParseMode reads a mode, or the resolvers to ask, separated by commas. Nothing is nothing.
func ParseMode(s string) (mode string, resolvers []netip.AddrPort, err error) {
	switch s {
	case "", System, Exit, Off:
		return s, nil, nil
	}
	for _, w := range strings.Split(s, ",") {
		a, err := netip.ParseAddr(strings.TrimSpace(w))
		if err != nil || !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return "", nil, fmt.Errorf("%q: %w", s, ErrMode)
		}
		resolvers = append(resolvers, netip.AddrPortFrom(a.Unmap(), 53))
	}
	return s, resolvers, nil
}
