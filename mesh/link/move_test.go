package link

import (
	"net/netip"
	"testing"
	"time"
)

// TestMoved: an end whose address changes is followed within three one-way delays and a ping's repeat, though no data and no
// timer of its own was due; the link neither goes down nor changes its keys.
func TestMoved(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		late  time.Duration // after the address, when the new one is good for sending
		limit time.Duration
	}{
		{"at once", 0, 3 * labDelay},
		{"not routed yet", 400 * time.Millisecond, 400*time.Millisecond + restlessPing + 3*labDelay},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, a, b := linked(t, Config{})
			n.run(5 * time.Second) // idle: the next ping is far
			fate, moved := n.fate, n.now
			n.fate = func(from, to netip.AddrPort, x []byte) []time.Duration {
				if n.now < moved+c.late {
					return nil
				}
				return fate(from, to, x)
			}
			a.move(addrPort(77))
			a.links.Moved(n.now)
			a.next = n.now
			n.until(c.limit, "b follows a", func() bool { return b.link(a).Endpoint().Addr == addrPort(77) })
			checkData(t, n, a, b)
			n.run(10 * time.Second)
			if len(a.downs)+len(b.downs) > 0 || a.ups != 1 || b.ups != 1 {
				t.Errorf("the link did not stand: %v %v", a.downs, b.downs)
			}
			if l := a.link(b); l.restless != 0 || l.Observed() != addrPort(77) {
				t.Errorf("restless %v, observed %v", l.restless, l.Observed())
			}
		})
	}
}

// TestMovedAway: where the new address leads nowhere, the link is given up no sooner than without the hint, and pings stay few.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration { return nil }
	sent := 0
	n.tap = func(netip.AddrPort, netip.AddrPort, []byte) { sent++ }
	start := n.now
	a.links.Moved(n.now)
	a.next = n.now
	n.until(10*time.Second, "the link goes down", func() bool { return !a.up(b) })
	if gone := n.now - start; gone < restlessFor+4*a.links.timers.PingLost || gone > 5*time.Second {
		t.Errorf("down after %v", gone)
	}
	if sent > 60 {
		t.Errorf("%d datagrams", sent)
	}
}

// TestMovedWhileDialling: a handshake whose retries have become rare begins anew at once.
func TestMovedWhileDialling(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	cut := true
	n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration {
		if cut {
			return nil
		}
		return []time.Duration{labDelay}
	}
	a.dial(b, true)
	n.run(30 * time.Second)
	cut = false
	a.links.Moved(n.now)
	a.next = n.now
	n.until(4*labDelay, "link up", func() bool { return a.up(b) && b.up(a) })
}
