package vpn

import (
	"net/netip"
	"testing"
)

// TestHostileSubnets: what a server offers must not take over what this box has around it.
func TestHostileSubnets(t *testing.T) {
	t.Parallel()
	mesh := netip.MustParsePrefix("fd5c:1::/32")
	local := prefixes("192.168.1.0/24", "fd00:1::/64", "203.0.113.0/24", "100.64.0.0/12")
	for _, c := range []struct {
		offered string
		taken   bool
	}{
		{"0.0.0.0/0", false},
		{"::/0", false},
		{"127.0.0.0/8", false},
		{"127.0.0.1/32", false},
		{"169.254.169.254/32", false},
		{"224.0.0.0/4", false},
		{"8.8.8.8/32", false},
		{"fe80::/64", false},
		{"fd5c:1::/32", false},     // the mesh
		{"fd5c:1:2::1/128", false}, // of it
		{"fc00::/7", false},        // around it
		{"192.168.1.0/24", false},  // our own LAN
		{"192.168.1.1/32", false},  // its router
		{"192.168.1.128/25", false},
		{"fd00:1::1/128", false},
		{"203.0.113.1/32", false},
		{"192.168.0.0/16", true}, // around the LAN, whose route is closer
		{"192.168.9.0/24", true},
		{"10.0.0.0/8", true},
		{"192.168.7.0/28", true}, // --accept
	} {
		cl := client{c: &ClientConfig{Accept: prefixes("192.168.7.0/24")}}
		if c.offered == "192.168.7.0/28" {
			local = append(local, netip.MustParsePrefix("192.168.7.0/24"))
		}
		if err := cl.acceptable(netip.MustParsePrefix(c.offered), mesh, local); (err == nil) != c.taken {
			t.Errorf("%s: %v, want taken %v", c.offered, err, c.taken)
		}
	}
}

// TestHostileLease: nor may the addresses of a lease.
func TestHostileLease(t *testing.T) {
	t.Parallel()
	local := prefixes("192.168.1.0/24", "100.64.0.0/12")
	cl := client{c: &ClientConfig{}}
	for _, c := range []struct {
		addr     string
		intrudes bool
	}{
		{"192.168.1.1", true},
		{"192.168.1.77", true},
		{"192.168.2.1", false},
		{"10.0.0.1", false},
		{"100.64.3.4", false}, // a provider's shared range: leases lie there
	} {
		if _, got := cl.intrudes(host(netip.MustParseAddr(c.addr)), local); got != c.intrudes {
			t.Errorf("%s: intrudes %v, want %v", c.addr, got, c.intrudes)
		}
	}
}

// TestExitRefusesWhatItsCommentSays: the ranges of RFC 6890 that an exit never forwards to.
func TestExitRefusesWhatItsCommentSays(t *testing.T) {
	t.Parallel()
	for _, a := range []string{
		"0.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "192.0.0.8", "198.18.0.1", "198.19.255.255", "224.0.0.1",
		"255.255.255.255", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "fe80::1", "fd00::1", "ff02::1", "2002:a00:1::", "2001::1",
	} {
		addr := netip.MustParseAddr(a)
		if !overlapsAny(host(addr), special()) {
			t.Errorf("%s is not refused", a)
		}
	}
}
