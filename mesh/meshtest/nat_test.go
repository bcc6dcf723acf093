package meshtest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// place is a kind of place in the internet that a node can have.
type place struct {
	name string
	put  func(n *Net, nd *Node, i int)
}

func behind(name string, kinds ...NATKind) place {
	return place{name, func(n *Net, nd *Node, i int) {
		var outer *NAT
		for _, k := range kinds { // the provider's first
			outer = n.NAT(k, outer)
		}
		nd.Place(outer, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(i), 10}), 24))
	}}
}

func places() []place {
	return []place{
		{"none", func(_ *Net, nd *Node, i int) {
			nd.Place(nil, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32))
		}},
		behind("full cone", FullCone),
		behind("restricted", RestrictedCone),
		behind("port restr.", PortRestrictedCone),
		behind("sym. seq.", SymmetricSequential),
		behind("sym. step -3", NATKind{Mapping: ByAddrPort, Filter: ByAddrPort, Ports: Sequential, Step: -3}),
		behind("sym. random", Symmetric),
		behind("CGNAT", PortRestrictedCone, PortRestrictedCone),
		behind("CGNAT sym.", Symmetric, PortRestrictedCone),
	}
}

// natPair is two nodes with two relays on the internet, all wires 10 ms long.
func natPair(t *testing.T, seed uint64, pa, pb place, more ...func(n *Net, a, b *Node)) (n *Net, a, b *Node) {
	t.Helper()
	n = New(seed, nil)
	r, s := n.Add("r", Options{}), n.Add("s", Options{})
	a, b = n.Add("a", Options{}), n.Add("b", Options{})
	open := places()[0]
	open.put(n, r, 1)
	open.put(n, s, 2)
	pa.put(n, a, 3)
	pb.put(n, b, 4)
	for _, f := range more {
		f(n, a, b)
	}
	all := []*Node{r, s, a, b}
	for i, x := range all {
		for _, y := range all[:i] {
			n.Connect(x, y, Wire{Delay: 10 * time.Millisecond, Jitter: time.Millisecond})
		}
	}
	for _, x := range []*Node{a, b} {
		x.Dial(r)
		x.Dial(s)
	}
	r.Dial(s)
	n.Run(2 * time.Second)
	return n, a, b
}

// direct pings from a to b and returns after how long a link of theirs stood, and how many pings were answered.
func direct(n *Net, a, b *Node, life time.Duration) (after time.Duration, answered, sent int) {
	begun := n.Now()
	for n.Now()-begun < life {
		sent++
		a.Ping(b.Key, func(_ time.Duration, err error) {
			if err == nil {
				answered++
			}
		})
		n.Run(100 * time.Millisecond)
		if l := a.Core.LinkTo(b.Key); after == 0 && l != nil && l.State() == link.Up {
			after = n.Now() - begun
		}
	}
	return after, answered, sent
}

// hopeless are the pairs that no timing brings together: one end can't be told the port that the other will have, and lets in
// nothing from another one.
func hopeless(a, b string) bool {
	random := func(s string) bool { return s == "sym. random" || s == "CGNAT sym." }
	strict := func(s string) bool { return s != "none" && s != "full cone" && s != "restricted" }
	return random(a) && strict(b) || random(b) && strict(a)
}

// Every pair of places gets a direct link within 5 s where theory allows one, and loses no ping otherwise.
func TestGridOfNATs(t *testing.T) {
	t.Parallel()
	var table strings.Builder
	kinds := places()
	fmt.Fprintf(&table, "%-13s", "")
	for _, b := range kinds {
		fmt.Fprintf(&table, "%-13s", b.name)
	}
	for i, pa := range kinds {
		fmt.Fprintf(&table, "\n%-13s", pa.name)
		for j, pb := range kinds {
			n, a, b := natPair(t, uint64(1+i*len(kinds)+j), pa, pb)
			after, answered, sent := direct(n, a, b, 6*time.Second)
			cell := "relay"
			if after != 0 {
				cell = after.String()
			}
			fmt.Fprintf(&table, "%-13s", cell)
			if want := !hopeless(pa.name, pb.name); want != (after != 0 && after <= 5*time.Second) {
				t.Errorf("%s to %s: direct after %v, want direct: %v; NATs %v and %v", pa.name, pb.name, after, want, a.Core.NAT(), b.Core.NAT())
			}
			if answered < sent-2 {
				t.Errorf("%s to %s: %d of %d pings answered", pa.name, pb.name, answered, sent)
			}
		}
	}
	t.Logf("a direct link after, by the place of either end (2 hops of 10 ms else):\n%s", table.String())
}

// Behind one NAT the shortest way that there is is taken: the LAN, else the NAT's own hairpin.
func TestBehindOneNAT(t *testing.T) {
	t.Parallel()
	hairpin := func(k NATKind) NATKind { k.Hairpin = true; return k }
	for _, c := range []struct {
		name   string
		put    func(n *Net, a, b *Node)
		direct string // prefix of the address that the link must have; empty: none can be
	}{
		{"one LAN", func(n *Net, a, b *Node) {
			home := n.NAT(Symmetric, nil)
			a.Place(home, netip.MustParsePrefix("192.168.7.10/24"))
			b.Place(home, netip.MustParsePrefix("192.168.7.11/24"))
		}, "192.168.7."},
		{"two LANs behind one NAT with hairpin", func(n *Net, a, b *Node) {
			home := n.NAT(hairpin(PortRestrictedCone), nil)
			a.Place(home, netip.MustParsePrefix("192.168.7.10/24"))
			b.Place(home, netip.MustParsePrefix("192.168.8.11/24"))
		}, "203.0."},
		{"two homes behind one provider with hairpin", func(n *Net, a, b *Node) {
			provider := n.NAT(hairpin(PortRestrictedCone), nil)
			a.Place(n.NAT(PortRestrictedCone, provider), netip.MustParsePrefix("192.168.7.10/24"))
			b.Place(n.NAT(PortRestrictedCone, provider), netip.MustParsePrefix("192.168.8.11/24"))
		}, "203.0."},
		{"two homes behind one provider without hairpin", func(n *Net, a, b *Node) {
			provider := n.NAT(PortRestrictedCone, nil)
			a.Place(n.NAT(PortRestrictedCone, provider), netip.MustParsePrefix("192.168.7.10/24"))
			b.Place(n.NAT(PortRestrictedCone, provider), netip.MustParsePrefix("192.168.8.11/24"))
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, a, b := natPair(t, 7, place{"", func(*Net, *Node, int) {}}, place{"", func(*Net, *Node, int) {}}, c.put)
			after, answered, sent := direct(n, a, b, 6*time.Second)
			if answered < sent-2 {
				t.Errorf("%d of %d pings answered", answered, sent)
			}
			if (after != 0) != (c.direct != "") {
				t.Fatalf("direct after %v, want an address in %q", after, c.direct)
			}
			if after != 0 && !strings.HasPrefix(a.Core.LinkTo(b.Key).Endpoint().Addr.String(), c.direct) {
				t.Errorf("the link runs over %v, want %s…", a.Core.LinkTo(b.Key).Endpoint().Addr, c.direct)
			}
		})
	}
}

// Nobody punches with whom nobody talks, and what was punched is let go when nobody has used it for long.
func TestIdlePairsDoNotPunch(t *testing.T) {
	t.Parallel()
	kind := behind("", PortRestrictedCone)
	n, a, b := natPair(t, 3, kind, kind)
	n.Run(time.Minute)
	if l := a.Core.LinkTo(b.Key); l != nil {
		t.Fatal("a link without traffic")
	}
	after, _, _ := direct(n, a, b, 3*time.Second)
	if after == 0 {
		t.Fatal("no link with traffic")
	}
	n.Run(25 * time.Minute)
	for _, x := range [][2]*Node{{a, b}, {b, a}} {
		if l := x[0].Core.LinkTo(x[1].Key); l != nil {
			t.Errorf("%v still holds a link %v that nobody used", x[0], l.State())
		}
	}
	if after, _, _ = direct(n, a, b, 3*time.Second); after == 0 {
		t.Error("no link when the traffic came back")
	}
}

// A punched link whose mappings died comes back, and meanwhile the path over a relay carries on.
func TestMappingsDie(t *testing.T) {
	t.Parallel()
	short := PortRestrictedCone
	short.Life = 90 * time.Second
	n, a, b := natPair(t, 5, behind("", short), behind("", short))
	if after, _, _ := direct(n, a, b, 3*time.Second); after == 0 {
		t.Fatal("no direct link")
	}
	for _, nat := range n.nats { // both routers restart
		nat.maps, nat.ports = map[natKey]*mapping{}, map[uint16]*mapping{}
	}
	if _, answered, sent := direct(n, a, b, 10*time.Second); answered < sent-15 {
		t.Errorf("%d of %d pings answered after both routers forgot all", answered, sent)
	}
	if l := a.Core.LinkTo(b.Key); l == nil || l.State() != link.Up {
		t.Error("the link did not come back")
	}
}

// A node that one neighbour alone has seen can't tell a cone from a sequential NAT, and gets through either.
func TestOneObserver(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]NATKind{{PortRestrictedCone, SymmetricSequential}, {SymmetricSequential, PortRestrictedCone}, {FullCone, Symmetric}} {
		n := New(9, nil)
		r, a, b := n.Add("r", Options{}), n.Add("a", Options{}), n.Add("b", Options{})
		r.Place(nil, netip.MustParsePrefix("198.51.100.1/32"))
		a.Place(n.NAT(c[0], nil), netip.MustParsePrefix("192.168.3.10/24"))
		b.Place(n.NAT(c[1], nil), netip.MustParsePrefix("192.168.4.10/24"))
		n.Connect(a, r, Wire{Delay: 10 * time.Millisecond})
		n.Connect(b, r, Wire{Delay: 10 * time.Millisecond})
		n.Connect(a, b, Wire{Delay: 10 * time.Millisecond})
		a.Dial(r)
		b.Dial(r)
		n.Run(2 * time.Second)
		if after, _, _ := direct(n, a, b, 6*time.Second); after == 0 {
			t.Errorf("%+v to %+v: no direct link; NATs %v and %v", c[0], c[1], a.Core.NAT(), b.Core.NAT())
		}
	}
}

// After failures the pauses grow, but another network is tried at once.
func TestAnotherNetworkIsTriedAtOnce(t *testing.T) {
	t.Parallel()
	n, a, b := natPair(t, 11, behind("", PortRestrictedCone), behind("", Symmetric))
	tries := 0
	n.Tap = func(from, to *Node, p []byte) {
		if from == b && to == a && p[0] == wire.TypeInit {
			tries++
		}
	}
	if after, _, _ := direct(n, a, b, 90*time.Second); after != 0 {
		t.Fatal("a direct link that can't be")
	}
	// 1, 5, 15 and 60 s after each other: five attempts at most, of five handshakes to at most eight addresses.
	if tries == 0 || tries > 5*5*wire.MaxCandidates {
		t.Errorf("%d handshakes in vain in 90 s", tries)
	}
	b.Place(nil, netip.MustParsePrefix("198.51.100.77/32"))
	if after, _, _ := direct(n, a, b, 10*time.Second); after == 0 || after > 5*time.Second {
		t.Errorf("direct after %v on an open network", after)
	}
}
