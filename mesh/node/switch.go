package node

import (
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// What moves traffic from one path to another. The source decides for both directions and says so (USE); the other end
// follows, but where that path falls silent or loses data it takes another one of the peer's by itself, until told again.

// rank is what a path is good for, the best first.
type rank uint8

const (
	rankGood    rank = iota
	rankHeld         // in trouble lately: no reason to go there
	rankLeaving      // it works, but a relay is about to leave
	rankSuspect      // better than none
	rankNone
)

func (n *Core) rank(now time.Duration, p *path) rank {
	switch {
	case p.fp == nil || n.paths[p.id] != p:
		return rankNone
	case p.state == pathSuspected:
		return rankSuspect
	case p.state != pathUsable, !p.source && !n.permits(p.hops):
		return rankNone
	case p.leaving != 0 && now-p.leaving < leavingLasts:
		return rankLeaving
	case p.sess.held(now, p.hops):
		return rankHeld
	}
	return rankGood
}

// A path in trouble is held: it carries nothing while another one can, for holdFirst, twice that each time it happens again, at
// most holdLast; without trouble for holdForget it begins anew. While it is held it is probed often, and each lost probe holds it for
// holdFirst more: so traffic does not come back to a link that flaps.
const (
	holdFirst  = 5 * time.Second
	holdLast   = 2 * time.Minute
	holdForget = 10 * time.Minute
	maxHeld    = 16
)

// trouble is what is remembered of a path beyond its own life: the next one of the same hops is no better.
type trouble struct {
	hops      []key.Public
	count     int
	at, until time.Duration
}

func (s *peerSession) trouble(hops []key.Public) *trouble {
	for i := range s.troubles {
		if slices.Equal(s.troubles[i].hops, hops) {
			return &s.troubles[i]
		}
	}
	return nil
}

func (s *peerSession) held(now time.Duration, hops []key.Public) bool {
	t := s.trouble(hops)
	return t != nil && now < t.until
}

// hold notes that a path was in trouble.
func (s *peerSession) hold(now time.Duration, hops []key.Public) {
	t := s.trouble(hops)
	if t == nil {
		if len(s.troubles) >= maxHeld {
			s.troubles = s.troubles[1:]
		}
		s.troubles = append(s.troubles, trouble{hops: hops})
		t = &s.troubles[len(s.troubles)-1]
	}
	if now-t.at > holdForget {
		t.count = 0
	}
	if now >= t.until { // what happens while it is held is the same trouble
		t.count++
	}
	t.at = now
	t.until = max(t.until, now+min(holdFirst<<min(t.count-1, 8), holdLast))
}

// shakes notes a lost probe of a path that may be held.
func (s *peerSession) shakes(now time.Duration, hops []key.Public) {
	if t := s.trouble(hops); t != nil && now < t.until {
		t.until = max(t.until, now+holdFirst)
	}
}

// chooseActive decides which path carries what we send: of our own usable paths the best; without one, the path of the
// peer's that it named, or another of them. Nothing is lost by a move: the path that is left stays, and what is under way
// on it arrives.
func (n *Core) chooseActive(now time.Duration, s *peerSession) {
	var best *path
	for _, p := range s.paths {
		if n.rank(now, p) != rankNone && (best == nil || n.better(now, p, best)) {
			best = p
		}
	}
	defer n.applyWays(now, s)
	if best == s.active {
		return
	}
	cause := n.moveCause(now, s, best)
	s.active = best
	if best == nil {
		s.plane.SetActive(nil)
		return
	}
	s.plane.SetActive(best.fp)
	n.log.Info("path in use", "peer", s.peer.Short(), "path", best.String())
	n.notePath(EventPathUsed, best, cause)
	n.use(now, s)
	n.applyKeys(now, s)
	n.refreshRoutes()
	n.finish(s, nil)
	n.release(now, s)
}

// better reports whether a is the better one of two paths of a session to send on.
func (n *Core) better(now time.Duration, a, b *path) bool {
	s := a.sess
	ra, rb := n.rank(now, a), n.rank(now, b)
	switch {
	case ra != rb:
		return ra < rb
	case ra == rankSuspect:
		return a == s.active
	case a.source != b.source:
		return a.source
	case a.source:
		return n.preferred(now, a, b)
	case a == s.used || b == s.used:
		return a == s.used
	case a == s.active || b == s.active:
		return a == s.active
	}
	return a.lastReceived() > b.lastReceived()
}

// A USE is repeated, since nothing answers it: answers that go on over a dead path are lost.
const (
	useRetry = 40 * time.Millisecond // doubling
	useTries = 3
)

// use tells the peer on which of our paths to answer.
func (n *Core) use(now time.Duration, s *peerSession) {
	if s.active == nil || !s.active.source {
		return
	}
	s.useSent++
	s.useTries = 0
	n.sendUse(now, s)
}

func (n *Core) sendUse(now time.Duration, s *peerSession) {
	s.useAt = now + useRetry<<s.useTries
	s.useTries++
	n.control(now, s.active, wire.Use{Path: s.active.number, Number: s.useSent})
}

// tickUse repeats the last USE.
func (n *Core) tickUse(now time.Duration, s *peerSession) {
	if s.useTries > 0 && s.useTries < useTries && now >= s.useAt && s.active != nil && s.active.source {
		n.sendUse(now, s)
	}
}
