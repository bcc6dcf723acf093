package netcfg_test

import (
	"net/netip"
	"slices"
	"testing"

	"skywire/tun/netcfg"
)

// TestWhatTheKernelHas reads back what iproute2 has set: two uplinks under one default route, routes in other tables, an
// address with a peer.
func TestWhatTheKernelHas(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		if v4, err := netcfg.HasDefault(false); v4 || err != nil {
			t.Errorf("HasDefault in an empty namespace: %v, %v", v4, err)
		}
		for _, line := range []string{
			"ip link set lo up", "ip link add wan type veth peer name peer", "ip link add lan type veth peer name host",
			"ip link add ppp type veth peer name far",
			"ip link set peer up", "ip link set wan up", "ip link set host up", "ip link set lan up", "ip link set far up", "ip link set ppp up",
			"ip addr add 192.0.2.2/24 dev wan", "ip addr add 198.51.100.7 peer 198.51.100.1 dev ppp", "ip addr add 10.1.2.3/24 dev lan",
			"ip -6 addr add 2001:db8::2/64 dev wan nodad",
			"ip route add default nexthop via 192.0.2.1 dev wan nexthop via 198.51.100.1 dev ppp",
			"ip route add 10.9.0.0/16 via 10.1.2.9", "ip route add 10.8.0.0/16 via 192.0.2.77 table 4711",
			"ip -6 route add default via 2001:db8::1",
		} {
			run(t, line)
		}
		for _, v6 := range []bool{false, true} {
			if has, err := netcfg.HasDefault(v6); !has || err != nil {
				t.Errorf("HasDefault(%v): %v, %v", v6, has, err)
			}
		}
		gateways, err := netcfg.Gateways()
		if want := addrs("10.1.2.9", "2001:db8::1"); err != nil || !slices.Equal(gateways, want) {
			t.Errorf("Gateways: %v, %v, want %v", gateways, err, want)
		}
		served, err := netcfg.ServedPrefixes("none")
		if want := prefixes("10.1.2.0/24", "2001:db8::/64"); err != nil || !slices.Equal(served, want) {
			t.Errorf("ServedPrefixes: %v, %v, want %v: both uplinks are ways to the internet", served, err, want)
		}
		local, err := netcfg.LocalPrefixes("wan")
		slices.SortFunc(local, netip.Prefix.Compare)
		if want := prefixes("10.1.2.0/24", "198.51.100.7/32"); err != nil || !slices.Equal(local, want) {
			t.Errorf("LocalPrefixes: %v, %v, want %v", local, err, want)
		}
		for a, want := range map[string]string{"10.9.1.1": "lan", "192.0.2.99": "wan", "198.51.100.1": "ppp", "2001:db8:1::1": "wan"} {
			if device, err := netcfg.RouteDevice(netip.MustParseAddr(a)); device != want || err != nil {
				t.Errorf("RouteDevice(%s): %q, %v, want %s", a, device, err, want)
			}
		}
	})
}

func addrs(all ...string) (out []netip.Addr) {
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func prefixes(all ...string) (out []netip.Prefix) {
	for _, p := range all {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
