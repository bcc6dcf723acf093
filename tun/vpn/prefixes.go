package vpn

import (
	"net/netip"
	"slices"
)

func prefixes(list ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// special are ranges that no exit forwards to: this host, link-local, shared (where other clients live), benchmarks and
// multicast (RFC 6890); of IPv6 all but global unicast, and there the transition forms that hide an IPv4 address.
func special() []netip.Prefix {
	return prefixes("0.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "198.18.0.0/15", "224.0.0.0/3",
		"::/3", "4000::/2", "8000::/1", "2001::/32", "2002::/16")
}

// private are ranges behind an exit that it refuses unless told otherwise.
func private() []netip.Prefix {
	return prefixes("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
}

// siteLocal are ranges that a server may offer as subnets without a word from the client.
func siteLocal() []netip.Prefix { return append(private(), netip.MustParsePrefix("fc00::/7")) }

// everything4 and everything6 are what an exit stands for; of IPv6 global unicast alone, so that a mesh address or a
// site's own never goes there.
func everything4() netip.Prefix { return netip.MustParsePrefix("0.0.0.0/0") }
func everything6() netip.Prefix { return netip.MustParsePrefix("2000::/3") }

// subtract returns prefixes that together cover from and nothing of minus.
func subtract(from netip.Prefix, minus []netip.Prefix) []netip.Prefix {
	i := slices.IndexFunc(minus, func(m netip.Prefix) bool { return m.Overlaps(from) })
	if i < 0 {
		return []netip.Prefix{from}
	}
	if minus[i].Bits() <= from.Bits() {
		return nil // covers all of it
	}
	low, high := halves(from)
	return append(subtract(low, minus), subtract(high, minus)...)
}

// halves cuts a prefix of fewer bits than its address has in two.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits() + 1
	b := p.Masked().Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(p.Masked().Addr(), bits), netip.PrefixFrom(a, bits)
}

// closer are the prefixes of list that lie in p.
func closer(p netip.Prefix, list []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(l netip.Prefix) bool { return !within(l, []netip.Prefix{p}) })
}

// within reports whether one of outer contains all of p.
func within(p netip.Prefix, outer []netip.Prefix) bool {
	return slices.ContainsFunc(outer, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Overlaps(p) })
}

func overlapsAny(p netip.Prefix, list []netip.Prefix) bool {
	return slices.ContainsFunc(list, p.Overlaps)
}

// host is the prefix of one address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
