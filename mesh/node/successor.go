package node

import (
	"slices"
	"time"
)

// A peer that restarted, or that lost the session, begins anew with a handshake. Its first message is not fresh: a relay may
// have kept it back, or whoever has stolen our key may have written it. So it makes a successor beside the session that
// stands, with keys, numbers and a data plane of its own; the first frame opened under its key, or an answer to a handshake of ours,
// puts it in the session's place, and what was before ends in that moment. Nothing is ever sealed on a path of
// one under a key of the other, so no nonce comes twice.
//
//	session ──setup of another boot, or with a used number──► session + successor ──proven──► the successor
//	                                                                  └──successorLife──► session

// successorLife is how long a successor waits for its proof: PendingLife of mesh/wire/SPEC.md.
const successorLife = 5 * time.Second

// current reports whether a session is the one with its peer, and no successor.
func (n *Core) current(s *peerSession) bool { return n.sessions[s.peer] == s }

// meant returns the session that a handshake of the peer's belongs to.
func (n *Core) meant(now time.Duration, s *peerSession, boot, number uint64) *peerSession {
	unused := func(o *peerSession) bool { w := o.numbered; return w.fresh(number) }
	switch {
	case s.next != nil && s.next.boot == boot && unused(s.next):
		return s.next
	case (s.boot == 0 || s.boot == boot) && unused(s):
		return s
	}
	return n.successor(now, s, boot)
}

// successor makes a new successor of s, in place of one that was not proven.
func (n *Core) successor(now time.Duration, s *peerSession, boot uint64) *peerSession {
	n.dropSuccessor(now, s)
	s.next = n.newSession(s.peer)
	s.next.boot, s.next.born = boot, now
	return s.next
}

func (n *Core) dropSuccessor(now time.Duration, s *peerSession) {
	if s.next == nil {
		return
	}
	next := s.next
	s.next = nil
	n.dropPaths(now, next, nil)
}

// dropPaths drops all paths of a session that ends but keep, without looking for the next best each time.
func (n *Core) dropPaths(now time.Duration, s *peerSession, keep *path) {
	s.active = nil
	s.plane.SetActive(nil)
	for _, p := range slices.Clone(s.paths) {
		if p != keep {
			n.dropPath(now, p, "")
		}
	}
}

// succeed puts the successor of a session in its place: the peer has proved that it knows nothing of before.
func (n *Core) succeed(now time.Duration, next *peerSession) {
	s := n.sessions[next.peer]
	if s == nil || s.next != next {
		return
	}
	s.next = nil
	n.dropPaths(now, s, nil)
	next.wantedAt, next.planAt = s.wantedAt, now
	next.failed, next.waiting, next.waiters = s.failed, s.waiting, s.waiters
	next.numbers = s.numbers // of our setups that are under way
	s.waiting, s.waiters = nil, nil
	n.sessions[next.peer] = next
	n.applyGrants(next)
	n.routesAt = true
	n.refreshRoutes()
	n.nextSession = min(n.nextSession, now)
	if s.boot == next.boot {
		n.log.Info("peer lost the session", "peer", next.peer.Short())
		return
	}
	n.log.Info("peer restarted", "peer", next.peer.Short())
	n.out.PeerRestarted(next.peer)
}

// otherBoot moves a path of ours to the successor of its session: its far end, which answered our handshake just now, has restarted.
func (n *Core) otherBoot(now time.Duration, p *path, boot uint64) {
	s := p.sess
	next := s.next
	if next == nil || next.boot != boot {
		next = n.successor(now, s, boot)
	}
	s.paths = slices.DeleteFunc(s.paths, func(o *path) bool { return o == p })
	next.paths = append(next.paths, p)
	p.sess = next
	n.succeed(now, next)
}
