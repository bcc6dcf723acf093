package node

import (
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// A session with traffic wants its standby in place before it is needed, and soon again after it was.
const (
	standbyRetry = time.Second      // a path that failed is tried again, where there is no other to stand by
	troubleLasts = 15 * time.Second // after trouble a session that lacks a standby looks for one as often
)

// replanPause is how long a session goes without looking for better paths.
func (n *Core) replanPause(now time.Duration, s *peerSession) time.Duration {
	if s.active == nil || n.rank(now, s.active) > rankHeld {
		return replanSoon
	}
	usable, recent := 0, false
	for _, p := range s.paths {
		if p.source && n.rank(now, p) <= rankHeld {
			usable++
		}
	}
	for _, t := range s.troubles {
		recent = recent || now-t.at < troubleLasts
	}
	if usable < n.wanted(s) && recent && now-s.wantedAt < busyFor {
		return standbyRetry
	}
	return replanEvery
}

// standbys adds to the candidates of a session what else may stand by, where there are too few: the path that has least in common
// with the best one, and such as failed a moment ago.
func (n *Core) standbys(now time.Duration, s *peerSession, found []route.Path) []route.Path {
	if len(found) == 0 && s.active == nil || len(found) >= n.wanted(s) {
		return found
	}
	usable := func(p route.Path) bool {
		return !hasHops(found, p.Hops) && n.upLink(p.Hops[1]) != nil &&
			!slices.ContainsFunc(s.failed, func(f failedPath) bool { return now-f.at < standbyRetry && slices.Equal(f.hops, p.Hops) })
	}
	if k := n.wanted(s); k > 2 { // spreading
		for _, p := range route.Paths(n.topology(), n.self, s.peer, k, n.cfg.Paths) {
			if len(found) < k && usable(p) {
				found = append(found, p)
			}
		}
		if len(found) > 1 {
			return found
		}
	}
	for _, c := range apart(n.fallback(s, found)) {
		for _, p := range route.Paths(n.topology(), n.self, s.peer, 1, n.cfg.Paths.And(c)) {
			if usable(p) {
				return append(found, p)
			}
		}
	}
	for _, p := range route.Paths(n.topology(), n.self, s.peer, 2, n.cfg.Paths) {
		if usable(p) {
			return append(found, p)
		}
	}
	return found
}

// fallback is the path that a standby should have little in common with.
func (n *Core) fallback(s *peerSession, found []route.Path) []key.Public {
	if len(found) > 0 {
		return found[0].Hops
	}
	return s.active.hops
}

// apart returns what a second path should keep off, the most first: all links of the path, all but those at the ends, which may be
// bridges, and each single one.
func apart(hops []key.Public) []route.Constraints {
	var links [][2]key.Public
	for i := range len(hops) - 1 {
		links = append(links, [2]key.Public{hops[i], hops[i+1]})
	}
	last := len(links) - 1
	all := []route.Constraints{{AvoidLinks: links}}
	if last < 1 {
		return all
	}
	all = append(all, route.Constraints{AvoidLinks: links[1:]}, route.Constraints{AvoidLinks: links[:last]})
	if last > 1 {
		all = append(all, route.Constraints{AvoidLinks: links[1:last]})
		for i := range links {
			all = append(all, route.Constraints{AvoidLinks: links[i : i+1]})
		}
	}
	return all
}
