package link

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// portPairs makes two boxes with so many ports and a link between them.
func portPairs(t *testing.T, ours, theirs int, before func(n *lab, a, b *box)) (*lab, *box, *box) {
	t.Helper()
	n := newLab(t)
	a, b := n.add(1, Config{Ports: ours}), n.add(2, Config{Ports: theirs})
	if before != nil {
		before(n, a, b)
	}
	a.dial(b, true)
	n.until(2*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
	return n, a, b
}

// wantLanes checks where the lanes of a's link to b go, as "socket>port" above the first ones.
func wantLanes(t *testing.T, a, b *box, want string) {
	t.Helper()
	got := ""
	for _, e := range a.link(b).Endpoints() {
		got += fmt.Sprintf(" %d>%d", e.Socket, e.Addr.Port()-b.addr.Port())
	}
	if got != " "+want {
		t.Errorf("lanes go%s, want %s", got, want)
	}
}

func TestPorts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		ours, theirs int
		there, back  string
	}{
		{1, 1, "0>0 0>0 0>0 0>0 0>0 0>0 0>0 0>0", "0>0 0>0 0>0 0>0 0>0 0>0 0>0 0>0"},
		{2, 2, "0>0 1>1 0>0 1>1 0>0 1>1 0>0 1>1", "0>0 1>1 0>0 1>1 0>0 1>1 0>0 1>1"},
		{1, 4, "0>0 0>1 0>2 0>3 0>0 0>1 0>2 0>3", "0>0 1>0 2>0 3>0 0>0 1>0 2>0 3>0"},
		{2, 3, "0>0 1>1 0>2 1>0 0>1 1>2 0>0 1>1", "0>0 1>1 2>0 0>1 1>0 2>1 0>0 1>1"},
		{8, 8, "0>0 1>1 2>2 3>3 4>4 5>5 6>6 7>7", "0>0 1>1 2>2 3>3 4>4 5>5 6>6 7>7"},
	} {
		t.Run(fmt.Sprint(tt.ours, tt.theirs), func(t *testing.T) {
			t.Parallel()
			n, a, b := portPairs(t, tt.ours, tt.theirs, nil)
			n.run(time.Second)
			wantLanes(t, a, b, tt.there)
			wantLanes(t, b, a, tt.back)
			if open, all := a.link(b).Ports(); open != all {
				t.Errorf("%d pairs of %d are open", open, all)
			}
			if a.link(b).Endpoint().Addr != b.addr || b.link(a).Endpoint().Addr != a.addr {
				t.Error("the link has moved")
			}
			// The other end comes back with fewer loops.
			b.start(Config{})
			n.until(20*time.Second, "link up again", func() bool { return a.restarts == 1 && b.up(a) })
			n.run(time.Second)
			for i, e := range a.link(b).Endpoints() {
				if e.Addr != b.addr || int(e.Socket) != i%tt.ours {
					t.Errorf("lane %d goes to %v by socket %d", i, e.Addr, e.Socket)
				}
			}
		})
	}
}

// TestPortFirewall lets one port through, then all, then one again.
func TestPortFirewall(t *testing.T) {
	t.Parallel()
	const base = "0>0 0>0 0>0 0>0 0>0 0>0 0>0 0>0"
	const open = "0>0 1>1 2>2 3>3 0>0 1>1 2>2 3>3"
	shut := true
	n, a, b := portPairs(t, 4, 4, func(n *lab, _, b *box) {
		n.fate = func(_, to netip.AddrPort, _ []byte) []time.Duration {
			if shut && to.Addr() == b.addr.Addr() && to != b.addr {
				return nil
			}
			return []time.Duration{labDelay}
		}
	})
	n.run(5 * time.Second)
	wantLanes(t, a, b, base)
	// What b sends to the open ports of a arrives, but the answer does not.
	wantLanes(t, b, a, base)
	shut = false
	n.run(21 * time.Second)
	wantLanes(t, a, b, open)
	wantLanes(t, b, a, open)
	a.dataTx = n.now
	n.run(time.Second)
	shut = true
	a.dataTx, b.dataRx = n.now, n.now
	n.run(1500 * time.Millisecond)
	wantLanes(t, a, b, base)
	if len(a.downs)+len(b.downs) > 0 {
		t.Errorf("the link went down: %v %v", a.downs, b.downs)
	}
}

// TestPortsBehindNAT has the strictest of NATs give each port another one: both ends find the way through.
func TestPortsBehindNAT(t *testing.T) {
	t.Parallel()
	n, a, b := portPairs(t, 2, 4, func(_ *lab, a, _ *box) { a.behind(netip.AddrFrom4([4]byte{192, 0, 2, 9})) })
	n.run(3 * time.Second)
	wantLanes(t, a, b, "0>0 1>1 0>2 1>3 0>0 1>1 0>2 1>3")
	for i, e := range b.link(a).Endpoints() {
		inner := a.nat.in[[2]netip.AddrPort{e.Addr, above(b.addr, int(e.Socket))}]
		if e.Socket != uint16(i%4) || inner != above(a.addr, i%2) {
			t.Errorf("lane %d goes by socket %d to %v, which is %v", i, e.Socket, e.Addr, inner)
		}
	}
	if got := b.link(a).Endpoint().Addr; got != a.nat.out[[2]netip.AddrPort{a.addr, b.addr}] || len(a.downs)+len(b.downs) > 0 {
		t.Errorf("the link moved to %v, went down %v %v", got, a.downs, b.downs)
	}
	// The NAT forgets everything.
	a.nat.out, a.nat.in = map[[2]netip.AddrPort]netip.AddrPort{}, map[[2]netip.AddrPort]netip.AddrPort{}
	a.behind(netip.AddrFrom4([4]byte{192, 0, 2, 77}))
	n.run(25 * time.Second)
	if open, all := b.link(a).Ports(); open != all || !b.up(a) {
		t.Errorf("after the NAT restarted %d of %d pairs are open", open, all)
	}
}

// TestPortLies shows what an unanswered, forged or stray answer opens: nothing.
func TestPortLies(t *testing.T) {
	t.Parallel()
	n, a, b := portPairs(t, 1, 2, func(n *lab, _, b *box) {
		n.fate = func(_, to netip.AddrPort, _ []byte) []time.Duration {
			if to == above(b.addr, 1) {
				return nil
			}
			return []time.Duration{labDelay}
		}
	})
	n.run(time.Second)
	l := a.link(b)
	w := &l.ports.lanes[1]
	victim := forward.Endpoint{Addr: netip.MustParseAddrPort("198.51.100.1:53")}
	for _, f := range []wire.PortOpen{{Lane: 1}, {Lane: 1, Random: w.random}, {Lane: 2, Random: w.random}, {Lane: 7, Random: w.random}} {
		a.links.receivePortOpen(n.now, l, victim, f.Append(nil))
		a.links.receivePortOpen(n.now, l, forward.Endpoint{Addr: b.addr}, f.Append(nil))
	}
	// Ports of the peer that an attacker sends on from the victim's address cost the victim no more than twice as much.
	before := a.bytesOut
	const times, size = 100, wire.LinkOverhead + wire.MessageHead + 9
	for range times {
		a.links.receivePort(n.now, l, victim, wire.Port{Lane: 1}.Append(nil))
	}
	if out := a.bytesOut - before; out > 2*times*size {
		t.Errorf("%d bytes for %d", out, times*size)
	}
	n.run(30 * time.Second)
	if open, _ := l.Ports(); open != 1 || l.Endpoint().Addr != b.addr {
		t.Errorf("%d ports open, link at %v", open, l.Endpoint())
	}
	for _, body := range [][]byte{nil, {1}, make([]byte, 8), make([]byte, 10), {9, 0, 0, 0, 0, 0, 0, 0, 0}} {
		a.links.receivePort(n.now, l, victim, body)
		a.links.receivePortOpen(n.now, l, victim, body)
	}
}
