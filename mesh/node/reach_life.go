package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// How long our NAT remembers an idle link is measured, so that links need not speak more often than that, and speak often enough
// where 25 s are too long. A link without data to a neighbour outside is made to be silent for longer and longer.

const (
	lifeFirst = 25 * time.Second // what is taken for granted until it is tested
	lifeLeast = 15 * time.Second
	lifeMost  = wire.MaxLater * time.Second
	lifeFine  = 10 * time.Second // the search ends where good and bad are so near
	lifeIdle  = time.Minute      // so long a link must have been without data
	lifePause = 10 * time.Second // between two tests
	lifeVoid  = time.Minute      // after one that was disturbed
	lifeOld   = time.Hour        // a result is tested again
	lifeTwice = 2                // failures that count: one may be a lost datagram
	lifeVoids = 4                // disturbances in a row, then it is left at that: links that are never silent so long need no more
)

// mappingTest is the search for the life of our NAT's mappings.
type mappingTest struct {
	good, bad time.Duration // known to live, known to have died; 0: unknown
	d         time.Duration // under test
	on        key.Public
	running   bool
	died      int
	voids     int
	next      time.Duration
}

// keep returns how long links may be silent, 0 while nothing is known.
func (t *mappingTest) keep() time.Duration {
	switch {
	case t.good == 0 && t.bad == 0:
		return 0
	case t.good == 0:
		return lifeLeast
	}
	return max(lifeLeast, t.good*4/5)
}

// choose returns the silence to test next, false if there is nothing to find out.
func (t *mappingTest) choose() (time.Duration, bool) {
	switch {
	case t.good == 0 && t.bad == 0:
		return lifeFirst, true
	case t.bad == 0:
		return min(t.good*3/2, lifeMost), t.good < lifeMost
	case t.good == 0:
		return lifeLeast, t.bad > lifeLeast
	}
	return (t.good + t.bad) / 2, t.bad-t.good > lifeFine
}

// tickMapping drives the search.
func (n *Core) tickMapping(now time.Duration) {
	t := &n.reach.mapping
	if n.reach.nat.Kind < wire.NATFullCone {
		return
	}
	if t.running {
		n.mappingTested(now, t)
		return
	}
	if now < t.next {
		return
	}
	t.next = now + lifePause
	d, ok := t.choose()
	if !ok || t.voids >= lifeVoids {
		*t = mappingTest{good: t.good, next: now + lifeOld} // what was bad may be good by then
		return
	}
	n.links.All(func(l *link.Link) {
		st := n.neighbour(l).plane.Stats()
		idle := l.State() == link.Up && now-max(st.LastReceived, st.LastSent, l.UpSince()) > lifeIdle
		if t.running || !idle || private(l.Endpoint().Addr.Addr()) || link.CarrierOf(l.Endpoint()) != link.UDP {
			return
		}
		t.running, t.d, t.on = true, d, l.Peer()
		n.links.TestLife(now, l, d, 0)
	})
}

// mappingTested looks whether the test under way has ended.
func (n *Core) mappingTested(now time.Duration, t *mappingTest) {
	result := link.LifeVoid
	if l := n.links.ByPeer(t.on); l != nil {
		result = l.Life()
	}
	was := t.keep()
	switch result {
	case link.LifeRunning:
		return
	case link.LifeLived:
		t.good, t.died = max(t.good, t.d), 0
	case link.LifeDied:
		if t.died++; t.died >= lifeTwice {
			t.bad, t.died = t.d, 0
		}
	default:
		t.next = now + lifeVoid
	}
	if t.voids++; result != link.LifeVoid {
		t.voids = 0
	}
	t.running = false
	if k := t.keep(); k != was {
		n.log.Info("life of mappings", "lives", k.String())
		n.keepAlive(now, k)
	}
}

// keepAlive has all links be silent so long, and tells the neighbours outside.
func (n *Core) keepAlive(now, keep time.Duration) {
	n.links.All(func(l *link.Link) {
		if l.State() != link.Up || private(l.Endpoint().Addr.Addr()) || link.CarrierOf(l.Endpoint()) != link.UDP {
			return
		}
		l.SetKeepAlive(keep)
		if err := n.links.Send(now, l, wire.Later{Keep: uint16(keep / time.Second)}); err != nil {
			n.log.Debug("message not sent", "peer", l.Peer().Short(), "type", wire.MessageLater, "err", err)
		}
	})
}
