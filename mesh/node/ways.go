package node

import (
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
)

// WaysConfig says how paths beside the active one are used. Each node decides for what it sends; the zero value uses one path.
type WaysConfig struct {
	Spread int // flows are spread over up to so many paths; 0 or 1: they are not
	// Copies are the packets that travel twice, to peers that understand it; Size 0: none do.
	Copies forward.Copies
}

// A path that flows are spread over may cost spreadFactor times the best one, and spreadMore beyond that.
const (
	spreadFactor = 3
	spreadMore   = 20_000 // µs
)

// ways are the paths that carry data beside the active one.
type ways struct {
	spread []*path
	second *path
}

// carries says whether what we send may travel on a path.
func (s *peerSession) carries(p *path) bool {
	return s.active == p || s.ways.second == p || slices.Contains(s.ways.spread, p)
}

// wanted is how many paths a session has set up at least.
func (n *Core) wanted(*peerSession) int { return max(2, min(n.cfg.Ways.Spread, forward.MaxSpread)) }

// applyWays tells the data plane which paths to use beside the active one.
func (n *Core) applyWays(now time.Duration, s *peerSession) {
	c := &n.cfg.Ways
	if c.Spread < 2 && c.Copies.Size == 0 {
		return
	}
	had := s.ways
	s.ways = ways{}
	if a := s.active; a != nil && n.rank(now, a) <= rankHeld {
		apart := n.waysApart(now, s)
		if c.Spread >= 2 && len(apart) > 1 {
			s.ways.spread = apart[:min(len(apart), c.Spread, forward.MaxSpread)]
		}
		if c.Copies.Size > 0 && s.takesCopies && len(apart) > 1 {
			s.ways.second = apart[1]
		}
	}
	if slices.Equal(had.spread, s.ways.spread) && had.second == s.ways.second {
		return
	}
	var v *forward.Ways
	if s.ways.second != nil || s.ways.spread != nil {
		v = &forward.Ways{Copies: c.Copies}
		for _, p := range s.ways.spread {
			v.Spread = append(v.Spread, p.fp)
		}
		if s.ways.second != nil {
			v.Second = s.ways.second.fp
		}
	}
	s.plane.SetWays(now, v)
	n.log.Info("flows spread", "peer", s.peer.Short(), "paths", len(s.ways.spread))
	if s.ways.second != nil {
		n.log.Info("packets travel twice", "peer", s.peer.Short(), "path", s.ways.second.String())
	}
}

// waysApart returns the active path and those good ones that share no relay with it or each other, and cost not much more.
func (n *Core) waysApart(now time.Duration, s *peerSession) []*path {
	all := []*path{s.active}
	g := n.topology()
	best, known := g.Measure(s.active.hops)
	for _, p := range s.paths {
		if p == s.active || n.rank(now, p) != rankGood || slices.ContainsFunc(all, func(o *path) bool { return meet(o.hops, p.hops) }) {
			continue
		}
		m, ok := g.Measure(p.hops)
		if known && (!ok || m.Cost > spreadFactor*best.Cost+spreadMore) {
			continue
		}
		all = append(all, p)
	}
	return all
}

// meet says whether two paths between the same ends share a relay, or are both the direct link.
func meet(a, b []key.Public) bool {
	if len(a) == 2 && len(b) == 2 {
		return true
	}
	return slices.ContainsFunc(a[1:len(a)-1], func(k key.Public) bool { return slices.Contains(b[1:len(b)-1], k) })
}
