package node

import (
	"net/netip"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func TestClassify(t *testing.T) {
	t.Parallel()
	own := at("192.168.1.2:7667")
	seen := func(ports ...string) []observation { // the newest first
		var all []observation
		for i, p := range ports {
			all = append(all, observation{by: at("198.51.100.1:1"), at: at(p), place: uint32(2 * (len(ports) - i))})
		}
		return all
	}
	for _, c := range []struct {
		name string
		all  []observation
		kind uint8
		step int
	}{
		{"nobody", nil, wire.NATUnknown, 0},
		{"our own address", seen("192.168.1.2:7667"), wire.NATOpen, 0},
		{"one observer", seen("203.0.113.1:7667"), wire.NATPortRestricted, 0},
		{"two agree", seen("203.0.113.1:7667", "203.0.113.1:7667"), wire.NATPortRestricted, 0},
		{"two ports, far apart", seen("203.0.113.1:7667", "203.0.113.1:9000"), wire.NATSymmetric, 0},
		{"two addresses", seen("203.0.113.1:7667", "203.0.113.2:7668"), wire.NATSymmetric, 0},
		{"one up each time", seen("203.0.113.1:7669", "203.0.113.1:7667"), wire.NATSequential, 1},
		{"two down each time", seen("203.0.113.1:7660", "203.0.113.1:7664", "203.0.113.1:7668"), wire.NATSequential, -2},
		{"others take ports, too", seen("203.0.113.1:7672", "203.0.113.1:7667"), wire.NATSequential, 2},
		{"one up in two places", seen("203.0.113.1:7668", "203.0.113.1:7667"), wire.NATSequential, 1},
		{"IPv6 says nothing of a NAT", append(seen("[2001:db8::1]:7667"), seen("203.0.113.1:7667")...), wire.NATPortRestricted, 0},
		{"IPv6 alone", seen("[2001:db8::1]:7667"), wire.NATPortRestricted, 0},
	} {
		got := classify(c.all, func(a netip.AddrPort) bool { return a == own })
		if got.Kind != c.kind || got.Step != c.step {
			t.Errorf("%s: %s, step %d; want %s, step %d", c.name, natName(got.Kind), got.Step, natName(c.kind), c.step)
		}
	}
}

func TestMayPunch(t *testing.T) {
	t.Parallel()
	n := &Core{cfg: CoreConfig{Network: key.Open()}}
	n.reach.locals = []Local{{at("192.168.1.2:7667"), 24}, {at("203.0.113.9:7667"), 29}, {at("[fd00:1::2]:7667"), 64}}
	mesh := n.cfg.Network.Address(key.Public{1})
	for a, want := range map[string]bool{
		"198.51.100.7:1":            true,
		"[2001:db8::1]:7667":        true,
		"192.168.1.77:7667":         true, // in a prefix of ours
		"[fd00:1::77]:7667":         true,
		"203.0.113.10:7667":         true,
		"198.51.100.7:0":            false,
		"0.0.0.0:1":                 false,
		"0.1.2.3:1":                 false,
		"[::]:1":                    false,
		"127.0.0.1:7667":            false,
		"[::1]:7667":                false,
		"[::ffff:127.0.0.1]:7667":   false,
		"224.0.0.1:1":               false,
		"[ff02::1]:1":               false,
		"255.255.255.255:1":         false,
		"250.1.1.1:1":               false,
		"169.254.1.1:1":             false,
		"[fe80::1]:1":               false,
		"10.0.0.1:1":                false, // in no prefix of ours
		"172.16.0.1:1":              false,
		"100.64.0.1:1":              false,
		"[fd00:2::1]:1":             false,
		"192.168.1.255:7667":        false, // everybody on the wire
		"203.0.113.15:7667":         false,
		"192.168.1.2:22":            false, // ourselves
		"[" + mesh.String() + "]:7": false,
	} {
		if got := n.mayPunch(at(a)); got != want {
			t.Errorf("%s: %v, want %v", a, got, want)
		}
	}
}

func TestPlacesAreBounded(t *testing.T) {
	t.Parallel()
	r := reach{locals: []Local{{at("192.168.1.2:7667"), 24}}}
	if r.wrote(0, at("192.168.1.9:7667")); r.written != 0 {
		t.Error("a neighbour on the LAN took a port of the NAT")
	}
	for i := range 3 * maxPlaces {
		r.wrote(0, netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), uint16(i+1)))
	}
	if len(r.places) != maxPlaces || r.written != 3*maxPlaces {
		t.Errorf("%d places, %d written", len(r.places), r.written)
	}
	last := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), 3*maxPlaces)
	if r.wrote(mappingLife, last); r.written != 3*maxPlaces {
		t.Error("a mapping in use got another place")
	}
	if r.wrote(2*mappingLife+1, last); r.written != 3*maxPlaces+1 {
		t.Error("a mapping that may have expired kept its place")
	}
}
