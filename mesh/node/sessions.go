package node

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// peerSession is the end-to-end association with one node.
type peerSession struct {
	peer  key.Public
	seq   uint64
	plane *forward.Session
	ring  *session.Ring
	boot  uint64 // of the peer, 0 unknown
	// takesCopies says that the peer understands packets that travel twice.
	takesCopies bool
	paths       []*path

	active   *path // carries what we send
	ways     ways  // what carries it beside that
	used     *path // of the peer's paths, the one it wants answers on
	useHeard uint32
	useSent  uint32
	useTries int // how often the last one was sent
	useAt    time.Duration
	troubles []trouble
	numbers  uint32 // path numbers given out by us

	sealed uint64 // frames under the present key, as last told to the ring
	renew  bool   // the peer lost the session: the next setup carries a handshake
	rekey  *session.Handshake
	rekeyT time.Duration

	made     time.Duration
	wantedAt time.Duration // when somebody last needed the session
	planAt   time.Duration // when to look for paths
	mover    route.Mover
	usedAt   time.Duration // since when active carries what we send
	usedFor  string        // why it was chosen
	failed   []failedPath
	waiting  [][]byte // packets that came before the session stood
	waiters  []waiter
	retries  int          // setups repeated at once since one was accepted
	numbered setupNumbers // the peer's path numbers under the keys held

	next *peerSession  // what may take the place of this one, see successor.go
	born time.Duration // of a successor
}

// waiter waits for a session to stand.
type waiter struct {
	since time.Duration
	done  func(error)
}

// session returns the session with a peer, new if need be; nil where there are too many.
func (n *Core) session(k key.Public) *peerSession {
	if s := n.sessions[k]; s != nil {
		return s
	}
	if len(n.sessions) >= maxSessions && !n.evictSession() {
		n.drops.limit++
		return nil
	}
	s := n.newSession(k)
	n.sessions[k] = s
	n.byAddr[s.plane.Addr] = k
	n.routesAt = true
	return s
}

// newSession makes a session that stands nowhere yet.
func (n *Core) newSession(k key.Public) *peerSession {
	n.seq++
	s := &peerSession{peer: k, seq: n.seq, made: n.now, plane: n.plane.NewSession(k, n.cfg.Network.Address(k))}
	s.ring = session.NewRing(session.RingConfig{RekeyAfter: n.cfg.Rekey, RekeyJitter: n.cfg.Rekey / 12, RejectAfter: n.cfg.Rekey * 3 / 2})
	n.applyGrants(s)
	return s
}

// evictSession ends the session that was wanted longest ago, if nothing has used it lately: strangers must not be able to
// fill the table for others.
func (n *Core) evictSession() bool {
	var worst *peerSession
	for _, s := range n.sessions {
		if n.now-max(s.wantedAt, s.made) >= evictAfter && (worst == nil || s.wantedAt < worst.wantedAt || s.wantedAt == worst.wantedAt && s.seq < worst.seq) {
			worst = s
		}
	}
	if worst != nil {
		n.endSession(n.now, worst, "")
	}
	return worst != nil
}

// sessionList returns the sessions, oldest first.
func (n *Core) sessionList() []*peerSession {
	all := slices.Collect(maps.Values(n.sessions))
	slices.SortFunc(all, func(a, b *peerSession) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

// nextNumber returns the number of the next path that we set up: even for the smaller key, so that both ends never
// choose the same; false when they are used up.
func (s *peerSession) nextNumber(self key.Public) (uint16, bool) {
	number := s.numbers * 2
	if bytes.Compare(self[:], s.peer[:]) > 0 {
		number++
	}
	if number > 0xffff {
		return 0, false
	}
	s.numbers++
	return uint16(number), true
}

// owns reports whether a path number is of the kind that we give out.
func (s *peerSession) owns(number uint16, self key.Public) bool {
	return (number&1 == 0) == (bytes.Compare(self[:], s.peer[:]) < 0)
}

func (n *Core) sessionConfig(bind []byte) session.Config {
	c := n.cfg.Session
	c.Identity, c.Network, c.Purpose, c.Bind = n.cfg.Identity, n.cfg.Network, session.Session, bind
	return c
}

// sessionPayload is our side of a session's handshake. s is the current session: its successor's keys have ids of the same row.
func (n *Core) sessionPayload(s *peerSession) wire.Payload {
	return wire.Payload{
		Key: s.ring.NewRecvID(), Ports: uint8(n.lanes()), MTU: uint16(n.mtuIn()), Boot: n.cfg.Boot, Features: wire.FeatureCopies,
	}
}

// installKeys adds a key to a session.
func (n *Core) installKeys(now time.Duration, s *peerSession, k *session.Keys) {
	s.boot = k.Theirs.Boot
	s.takesCopies = k.Theirs.Features&wire.FeatureCopies != 0
	s.ring.Install(now, k)
	n.applyKeys(now, s)
}

// applyKeys copies the keys of a session to the data plane.
func (n *Core) applyKeys(now time.Duration, s *peerSession) {
	have := map[uint8]bool{}
	for _, k := range s.ring.All() {
		have[k.RecvID] = true
		s.plane.SetRecvKey(k.RecvID, k.Recv)
	}
	for id := range 256 {
		if id := uint8(id); !have[id] {
			s.plane.SetRecvKey(id, nil)
		}
	}
	if k := s.ring.Sending(now); k != nil {
		s.plane.SetSendKey(k.SendID, k.Send)
	} else {
		s.plane.SetSendKey(0, nil)
	}
}

// keysOpened notes under which keys frames were opened: the peer has them.
func (n *Core) keysOpened(now time.Duration, s *peerSession) {
	for _, k := range s.ring.All() {
		if s.plane.Opened(k.RecvID) > 0 && s.ring.Opened(now, k.RecvID) {
			n.applyKeys(now, s)
		}
	}
}

// Want asks for a session with a peer; done is called once when it can carry data, or can't be had.
func (n *Core) Want(now time.Duration, k key.Public, done func(error)) {
	n.now = now
	if k == n.self {
		if done != nil {
			done(ErrSelf)
		}
		return
	}
	if !n.mayWant(k) {
		if done != nil {
			done(n.notMember(k))
		}
		return
	}
	s := n.session(k)
	if s == nil {
		if done != nil {
			done(ErrTooManySessions)
		}
		return
	}
	s.wantedAt = now
	if s.active != nil {
		if done != nil {
			done(nil)
		}
		return
	}
	if done != nil {
		if len(s.waiters) >= maxWaiters {
			done(ErrBusy)
			return
		}
		s.waiters = append(s.waiters, waiter{since: now, done: done})
	}
	n.plan(now, s)
	n.nextSession = min(n.nextSession, now)
}

// Unrouted takes a packet of ours that the data plane had no way for; packet is valid during the call.
func (n *Core) Unrouted(now time.Duration, packet []byte) {
	n.now = now
	k, ok := n.ownerOf(packet)
	if !ok {
		n.drops.unrouted++
		return
	}
	if !n.belongs(k) {
		n.drops.unrouted++
		return
	}
	s := n.session(k)
	if s == nil {
		return
	}
	if s.active != nil && s.ring.Sending(now) != nil {
		// The session came to stand while the packet was on its way here.
		s.wantedAt = now
		n.refreshRoutes()
		n.worker.Originate(now, packet, false)
		n.worker.Flush()
		return
	}
	if len(s.waiting) < maxWaiting {
		s.waiting = append(s.waiting, bytes.Clone(packet))
	}
	n.Want(now, k, nil)
	n.worker.Flush()
}

// endSession forgets a session and all its paths.
func (n *Core) endSession(now time.Duration, s *peerSession, reason string) {
	n.dropSuccessor(now, s)
	for _, p := range slices.Clone(s.paths) {
		n.dropPath(now, p, reason)
	}
	s.plane.SetActive(nil)
	for _, k := range s.ring.All() {
		s.plane.SetRecvKey(k.RecvID, nil)
	}
	s.plane.SetSendKey(0, nil)
	delete(n.sessions, s.peer)
	n.forgetAddr(s.peer)
	n.finish(s, ErrUnreachable)
	n.routesAt = true
}

// finish tells those who wait for a session.
func (n *Core) finish(s *peerSession, err error) {
	waiters := s.waiters
	s.waiters = nil
	for _, w := range waiters {
		w.done(err)
	}
}

// release sends the packets that waited for the session.
func (n *Core) release(now time.Duration, s *peerSession) {
	waiting := s.waiting
	s.waiting = nil
	for _, p := range waiting {
		n.worker.Originate(now, p, false)
	}
	n.worker.Flush()
}

// tickSessions drives sessions and their paths.
func (n *Core) tickSessions(now time.Duration) time.Duration {
	if now < n.nextSession {
		return n.nextSession
	}
	n.nextSession = now + tickIdle
	for _, s := range n.sessionList() {
		n.tickSession(now, s)
		if now-s.wantedAt < busyFor || s.active == nil {
			n.nextSession = now + tickBusy
		}
	}
	if len(n.sessions) == 0 {
		n.nextSession = now + time.Second
	}
	return n.nextSession
}

func (n *Core) tickSession(now time.Duration, s *peerSession) {
	if s.next != nil && now-s.next.born > successorLife {
		n.dropSuccessor(now, s)
	}
	if len(s.ring.Expire(now)) > 0 {
		n.applyKeys(now, s)
	}
	n.keysOpened(now, s)
	if sealed := s.plane.Sealed(); sealed > s.sealed {
		s.ring.Sent(now, sealed-s.sealed)
		s.sealed = sealed
	} else {
		s.sealed = sealed // a new key counts from 0
	}
	for _, p := range slices.Clone(s.paths) {
		if n.paths[p.id] == p {
			n.tickPath(now, p)
		}
		if p.dataTx+p.dataRx > 0 && p.dataAt > s.wantedAt { // a path alone is no wish: two ends would keep each other awake for ever
			s.wantedAt = p.dataAt
		}
	}
	n.tickUse(now, s)
	wanted := now-s.wantedAt < sessionIdle
	if s.active == nil && len(s.waiting) > 0 && now-s.wantedAt > 10*time.Second {
		s.waiting = nil
	}
	switch {
	case wanted:
		n.plan(now, s)
		n.tickSessionRekey(now, s)
	case len(s.paths) == 0:
		n.endSession(now, s, "")
	default: // the peer's go when it keeps them up no longer
		for _, p := range slices.Clone(s.paths) {
			if p.source {
				n.dropPath(now, p, "")
			}
		}
	}
}
