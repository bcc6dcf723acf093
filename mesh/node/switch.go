package node

import (
	"time"

	"skywire/mesh/route"
	"skywire/mesh/wire"
)

// chooseActive decides which path carries what we send: of our own usable paths the best; without one, the path of the
// peer's that it named.
func (n *Core) chooseActive(now time.Duration, s *peerSession) {
	var best *path
	for _, p := range s.paths {
		if p.state != pathUsable || p.fp == nil || !p.source {
			continue
		}
		if best == nil || n.prefer(p, best, s.active) {
			best = p
		}
	}
	if best == nil && s.used != nil && s.used.fp != nil && n.paths[s.used.id] == s.used && s.used.state == pathUsable {
		best = s.used
	}
	if best == nil {
		// Better a suspected path than none.
		for _, p := range s.paths {
			if p.fp != nil && p.state == pathSuspected && (best == nil || p == s.active) {
				best = p
			}
		}
	}
	if best == s.active {
		return
	}
	s.active = best
	s.plane.SetActive(nil)
	if best == nil {
		return
	}
	s.plane.SetActive(best.fp)
	n.log.Info("path in use", "peer", s.peer.Short(), "path", best.String())
	n.notePath(EventPathUsed, best, "")
	n.use(now, s)
	n.applyKeys(now, s)
	n.refreshRoutes()
	n.finish(s, nil)
	n.release(now, s)
}

// prefer reports whether a is a better choice than b. What is in use stays unless the other is clearly better.
func (n *Core) prefer(a, b, active *path) bool {
	g := n.topology()
	ca, okA := g.Measure(a.hops)
	cb, okB := g.Measure(b.hops)
	switch {
	case !okA || !okB:
		return okA
	case a == active:
		return !route.Better(ca, cb)
	case b == active:
		return route.Better(cb, ca)
	}
	return ca.Cost < cb.Cost
}

// use tells the peer on which of our paths to answer.
func (n *Core) use(now time.Duration, s *peerSession) {
	if s.active == nil || !s.active.source {
		return
	}
	s.useSent++
	n.control(now, s.active, wire.Use{Path: s.active.number, Number: s.useSent})
}
