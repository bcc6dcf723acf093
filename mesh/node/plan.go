package node

import (
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// topology returns the graph of the records held, with our own links as they are this moment.
func (n *Core) topology() *route.Graph {
	if n.graph == nil {
		n.graph = route.NewGraph(n.graphRecords())
	}
	return n.graph
}

// plan sees to it that a wanted session has its best path and a disjoint standby set up.
func (n *Core) plan(now time.Duration, s *peerSession) {
	if now-s.wantedAt >= sessionIdle || !n.current(s) || !n.mayWant(s.peer) {
		return // nobody needs it: what the peer lets go is not set up again
	}
	if now < s.planAt || s.active != nil && !s.active.source && s.active.state == pathUsable {
		return // not yet, or the peer is the source of a path that serves both ways: it keeps up standbys
	}
	s.planAt = now + n.replanPause(now, s)
	candidates := n.guided(now, s)
	if candidates == nil {
		candidates = n.standbys(now, s, n.candidates(now, s))
	}
	setups := 0
	for i, c := range candidates {
		if i >= n.wanted(s) {
			break
		}
		if !s.hasPath(c.Hops) {
			n.setUp(now, s, c.Hops)
			setups++
		}
	}
	if setups == 0 && len(candidates) > 0 {
		n.prune(now, s, candidates)
	}
	if s.active != nil {
		n.chooseActive(now, s)
	}
}

// candidates returns the paths to have, best first: disjoint ones from the graph and what managers proposed, without
// those that failed lately.
func (n *Core) candidates(now time.Duration, s *peerSession) []route.Path {
	g := n.topology()
	bad := func(hops []key.Public) bool {
		return slices.ContainsFunc(s.failed, func(f failedPath) bool { return now < f.until && slices.Equal(f.hops, hops) }) ||
			n.upLink(hops[1]) == nil
	}
	found := route.Paths(g, n.self, s.peer, 2, n.cfg.Paths)
	found = slices.DeleteFunc(found, func(p route.Path) bool { return bad(p.Hops) })
	if len(found) < 2 {
		var c route.Constraints
		for _, f := range s.failed {
			if now < f.until && len(f.hops) > 2 {
				c.Avoid = append(c.Avoid, f.hops[1:len(f.hops)-1]...)
			}
		}
		for _, p := range route.Paths(g, n.self, s.peer, 2, n.cfg.Paths.And(c)) {
			if !bad(p.Hops) && !hasHops(found, p.Hops) {
				found = append(found, p)
			}
		}
	}
	for _, hops := range n.proposals[s.peer].paths {
		if now >= n.proposals[s.peer].until {
			break
		}
		if p, ok := n.judged(hops); ok && n.permits(hops) && !bad(hops) && !hasHops(found, hops) {
			found = append(found, p)
		}
	}
	if len(found) == 0 && s.active == nil {
		found = n.secondChance(now, s)
	}
	sort.SliceStable(found, func(i, j int) bool { return found[i].Rank < found[j].Rank })
	return found
}

// secondChance returns paths that failed a moment ago, where there are no others: the relay may be back already.
func (n *Core) secondChance(now time.Duration, s *peerSession) []route.Path {
	fresh := func(hops []key.Public) bool {
		return n.upLink(hops[1]) == nil ||
			slices.ContainsFunc(s.failed, func(f failedPath) bool { return now-f.at < replanSoon && slices.Equal(f.hops, hops) })
	}
	found := route.Paths(n.topology(), n.self, s.peer, 1, n.cfg.Paths)
	return slices.DeleteFunc(found, func(p route.Path) bool { return fresh(p.Hops) })
}

func hasHops(paths []route.Path, hops []key.Public) bool {
	return slices.ContainsFunc(paths, func(p route.Path) bool { return slices.Equal(p.Hops, hops) })
}

func (s *peerSession) hasPath(hops []key.Public) bool {
	return slices.ContainsFunc(s.paths, func(p *path) bool { return p.source && slices.Equal(p.hops, hops) })
}

// prune lets usable paths go that are neither wanted nor in use, once the wanted ones stand.
func (n *Core) prune(now time.Duration, s *peerSession, wanted []route.Path) {
	usable := 0
	for _, p := range s.paths {
		if p.source && p.state == pathUsable {
			usable++
		}
	}
	for _, p := range slices.Clone(s.paths) {
		idle := now-p.dataAt > busyFor && now-p.created > busyFor // else something may be under way on it
		if usable > n.wanted(s) && idle && p.source && p != s.active && p.state == pathUsable && !hasHops(wanted[:min(n.wanted(s), len(wanted))], p.hops) {
			n.dropPath(now, p, "no longer among the best")
			usable--
		}
	}
}

// replan makes all wanted sessions look for paths again.
func (n *Core) replan(now time.Duration) {
	n.graph = nil
	for _, s := range n.sessions {
		if s.active == nil {
			s.planAt = min(s.planAt, now)
		} else {
			s.planAt = min(s.planAt, now+replanSoon)
		}
	}
	n.nextSession = min(n.nextSession, now)
}

// failedPath is a path that broke or was refused lately.
type failedPath struct {
	hops      []key.Public
	at, until time.Duration
}

func (s *peerSession) fail(now time.Duration, hops []key.Public) {
	s.failed = slices.DeleteFunc(s.failed, func(f failedPath) bool { return now >= f.until || slices.Equal(f.hops, hops) })
	s.failed = append(s.failed, failedPath{hops: hops, at: now, until: now + failedPause})
}
