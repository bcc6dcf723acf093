package forward

import (
	"encoding/binary"
	"net/netip"
)

const (
	ecnMask = 3
	ecnECT1 = 1
	ecnECT0 = 2
	ecnCE   = 3

	protoHopByHop = 0
	protoIPv4     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoOptions  = 60

	// maxExtensions bounds the walk over IPv6 extension headers.
	maxExtensions = 8
)

// inner is what the plane reads of an inner packet.
type inner struct {
	src, dst netip.Addr
	ecn      uint8
}

// parseInner reads an inner packet whose addresses may be looked at. It refuses what no honest stack sends through a
// mesh: other versions, lengths that disagree, packets in packets, addresses that mean this host or everybody.
func parseInner(p []byte) (in inner, ok bool) {
	if len(p) < 20 {
		return in, false
	}
	switch p[0] >> 4 {
	case 4:
		header := int(p[0]&15) * 4
		if header < 20 || header > len(p) || int(binary.BigEndian.Uint16(p[2:])) != len(p) || nested(p[9]) ||
			sourceRouted(p[20:header]) {
			return in, false
		}
		in.src = netip.AddrFrom4([4]byte(p[12:16]))
		in.dst = netip.AddrFrom4([4]byte(p[16:20]))
		in.ecn = p[1] & ecnMask
		if plainly4(p[12]) && plainly4(p[16]) {
			return in, true
		}
	case 6:
		if len(p) < 40 || int(binary.BigEndian.Uint16(p[4:]))+40 != len(p) {
			return in, false
		}
		in.src = netip.AddrFrom16([16]byte(p[8:24]))
		in.dst = netip.AddrFrom16([16]byte(p[24:40]))
		in.ecn = p[1] >> 4 & ecnMask
		if _, _, ok := transport6(p); !ok || in.src.Is4In6() || in.dst.Is4In6() {
			return in, false
		}
		if plainly6(p[8]) && plainly6(p[24]) {
			return in, true
		}
	default:
		return in, false
	}
	return in, unicast(in.src) && unicast(in.dst)
}

// nested says whether a protocol is an IP packet again: its inner addresses would escape every check here.
func nested(proto byte) bool { return proto == protoIPv4 || proto == protoIPv6 }

// sourceRouted says whether IPv4 options name further hops: the destination that is checked here would not be the last.
func sourceRouted(options []byte) bool {
	const end, pad, loose, strict = 0, 1, 131, 137
	for len(options) > 0 {
		switch options[0] {
		case end:
			return false
		case pad:
			options = options[1:]
			continue
		case loose, strict:
			return true
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return true // nonsense is not passed on either
		}
		options = options[options[1]:]
	}
	return false
}

// plainly4 and plainly6 say of nearly all unicast addresses that they are, by the first byte alone.
func plainly4(first byte) bool { return first-1 < 223 && first != 127 && first != 169 }
func plainly6(first byte) bool { return first-1 < 0xfd }

// unicast refuses addresses that are no single other host: multicast, broadcast, loopback, link-local, none.
func unicast(a netip.Addr) bool {
	if a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() {
		return false
	}
	return !a.Is4() || a.As4() != [4]byte{255, 255, 255, 255}
}

// transport6 walks the extension headers of an IPv6 packet to its transport. ok is false where they run out of the packet,
// are too many, or lead to another IP packet. A fragment's walk ends at the fragment header.
func transport6(p []byte) (proto byte, at int, ok bool) {
	proto, at = p[6], 40
	for range maxExtensions {
		switch proto {
		case protoHopByHop, protoRouting, protoOptions:
			if at+8 > len(p) || proto == protoRouting && p[at+3] != 0 { // segments left: see sourceRouted
				return 0, 0, false
			}
			proto, at = p[at], at+8+int(p[at+1])*8
			if at > len(p) {
				return 0, 0, false
			}
		case protoFragment:
			return proto, at, at+8 <= len(p) && !nested(p[at])
		default:
			return proto, at, !nested(proto)
		}
	}
	return 0, 0, false
}

// sourceAllowed says whether the peer of s may speak as a: its mesh address, or what was granted. No grant covers another
// node's mesh address or ours, nor a subnet of ours that is named more closely than the grant.
func (p *Plane) sourceAllowed(s *Session, g *Grants, own *Own, a netip.Addr) bool {
	if a == s.Addr {
		return !g.Closed
	}
	if g.Closed || p.prefix.Contains(a) || p.ours(own, a) {
		return false
	}
	granted := longest(g.Sources, a)
	return granted >= 0 && granted >= longest(own.Subnets, a)
}

// destinationAllowed says whether the peer whose grants are g may reach a through us.
func (p *Plane) destinationAllowed(g *Grants, own *Own, a netip.Addr) bool {
	if p.ours(own, a) {
		return true
	}
	return !p.prefix.Contains(a) && longest(g.Serve, a) >= 0
}

func (p *Plane) ours(own *Own, a netip.Addr) bool {
	if a == p.address {
		return true
	}
	for _, o := range own.Addresses {
		if o == a {
			return true
		}
	}
	return false
}

// longest returns the bits of the longest prefix that holds a, or -1.
func longest(l []netip.Prefix, a netip.Addr) int {
	bits := -1
	for _, x := range l {
		if x.Bits() > bits && x.Contains(a) {
			bits = x.Bits()
		}
	}
	return bits
}

// inwardECN returns bits with the ECN field that a header gets which came under an outer one (RFC 6040, figure 4):
// congestion goes inwards, and ECT(1) over ECT(0). CE over Not-ECT stays visible as CE, for the end to drop the packet.
func inwardECN(bits, outer uint8) uint8 {
	if outer == ecnCE || outer == ecnECT1 && bits&ecnMask == ecnECT0 {
		return bits&^ecnMask | outer
	}
	return bits
}

// markECN gives an inner packet, whose field is in, what its frame says; false where that is congestion and the packet is
// not ECN-capable, and has to be dropped instead.
func markECN(p []byte, in, frame uint8) bool {
	ecn := inwardECN(in, frame)
	switch {
	case ecn == in:
		return true
	case in == 0:
		return false
	case p[0]>>4 == 6:
		p[1] = p[1]&^(ecnMask<<4) | ecn<<4
		return true
	}
	old := binary.BigEndian.Uint16(p)
	p[1] = p[1]&^ecnMask | ecn
	// RFC 1624: the header checksum moves by the difference.
	sum := uint32(^binary.BigEndian.Uint16(p[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(p))
	binary.BigEndian.PutUint16(p[10:], ^fold(sum))
	return true
}

// fillChecksum computes the TCP or UDP checksum of a packet whose field holds only the pseudo header's sum. A packet that
// is cut in pieces needs it, since a piece has no bit to say that it is missing.
func fillChecksum(p []byte) bool {
	var proto byte
	var at int
	var sum uint32
	switch p[0] >> 4 {
	case 4:
		proto, at = p[9], int(p[0]&15)*4
		sum = addWords(0, p[12:20])
	case 6:
		var ok bool
		if proto, at, ok = transport6(p); !ok {
			return false
		}
		sum = addWords(0, p[8:40])
	}
	field, header := at+16, 20
	if proto == protoUDP {
		field, header = at+6, 8
	} else if proto != protoTCP {
		return false
	}
	if at+header > len(p) {
		return false
	}
	sum += uint32(proto) + uint32(len(p)-at)
	p[field], p[field+1] = 0, 0
	c := ^fold(addWords(sum, p[at:]))
	if c == 0 && proto == protoUDP {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p[field:], c)
	return true
}

func addWords(sum uint32, b []byte) uint32 {
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
