package node

import (
	"strconv"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// judged is a path as it is compared with others: measured by the graph, weighed by our rules.
func (n *Core) judged(hops []key.Public) (route.Path, bool) {
	g := n.topology()
	p, ok := g.Measure(hops)
	if ok {
		p.Rank = n.cfg.Paths.Rank(g, p.Hops)
	}
	return p, ok
}

// permits tells whether our rules let us send over hops.
func (n *Core) permits(hops []key.Public) bool { return n.cfg.Paths.Permits(hops) }

// preferred reports whether a is a better choice than b, both ours and usable. What is in use stays unless the other is clearly
// better, has been for a while, and traffic did not move too often.
func (n *Core) preferred(now time.Duration, a, b *path) bool {
	s := a.sess
	ca, okA := n.judged(a.hops)
	cb, okB := n.judged(b.hops)
	switch {
	case !okA || !okB:
		return okA
	case a == s.active:
		return !n.improves(now, s, ca, cb)
	case b == s.active:
		return n.improves(now, s, cb, ca)
	}
	return ca.Rank < cb.Rank
}

// improves reports whether traffic should move from one good path to another one now. If it is only too early, it is asked again.
func (n *Core) improves(now time.Duration, s *peerSession, old, fresh route.Path) bool {
	switch s.mover.Judge(now, old, fresh) {
	case route.MoveNow:
		return true
	case route.MoveSettles:
		s.planAt = min(s.planAt, now+replanSoon)
		n.nextSession = min(n.nextSession, now+replanSoon)
	}
	return false
}

// moveCause notes that traffic goes to another path, and says why.
func (n *Core) moveCause(now time.Duration, s *peerSession, best *path) string {
	cause := ""
	switch old := s.active; {
	case best == nil:
	case old == nil && !best.source:
		cause = "the other side set it up and asks for answers on it"
	case old == nil:
		cause = "the best that is ready"
	case n.paths[old.id] != old:
		cause = "the one before is gone"
	case old.state == pathSuspected:
		cause = "the one before does not answer"
	case !old.source:
		cause = "it is our own"
	case !best.source:
		cause = "the other side set it up and asks for answers on it"
	default:
		s.mover.Moved(now)
		cause = "better: " + n.comparison(old.hops, best.hops)
	}
	s.usedAt, s.usedFor = now, cause
	return cause
}

// comparison says what two paths cost.
func (n *Core) comparison(old, fresh []key.Public) string {
	a, okA := n.judged(old)
	b, okB := n.judged(fresh)
	if !okA || !okB {
		return "the records no longer show the one before"
	}
	return costText(b.Rank) + " instead of " + costText(a.Rank)
}

// costText writes a cost for people: it is in ms of round trip, with what else counts weighed in.
func costText(rank uint64) string { return strconv.FormatFloat(float64(rank)/1000, 'f', 1, 64) }
