package node

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"net/netip"
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
	paths []*path

	active   *path // carries what we send
	used     *path // of the peer's paths, the one it wants answers on
	useHeard uint32
	useSent  uint32
	numbers  uint32 // path numbers given out by us

	sealed uint64 // frames under the present key, as last told to the ring
	renew  bool   // the peer lost the session: the next setup carries a handshake
	rekey  *session.Handshake
	rekeyT time.Duration

	wantedAt time.Duration // when somebody last needed the session
	planAt   time.Duration // when to look for paths
	failed   []failedPath
	waiting  [][]byte // packets that came before the session stood
	waiters  []waiter
	retries  int          // setups repeated at once since one was accepted
	numbered setupNumbers // the peer's path numbers under the keys held
}

// waiter waits for a session to stand.
type waiter struct {
	since time.Duration
	done  func(error)
}

// failedPath is a path that broke or was refused lately.
type failedPath struct {
	hops      []key.Public
	at, until time.Duration
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
	addr := n.cfg.Network.Address(k)
	n.seq++
	s := &peerSession{peer: k, seq: n.seq, plane: n.plane.NewSession(k, addr)}
	s.ring = session.NewRing(session.RingConfig{RekeyAfter: n.cfg.Rekey, RekeyJitter: n.cfg.Rekey / 12, RejectAfter: n.cfg.Rekey * 3 / 2})
	n.sessions[k] = s
	n.byAddr[addr] = k
	n.applyGrants(s)
	n.routesAt = true
	return s
}

// evictSession ends the session that was wanted longest ago, if nothing has used it lately: strangers must not be able to
// fill the table for others.
func (n *Core) evictSession() bool {
	var worst *peerSession
	for _, s := range n.sessions {
		if n.now-s.wantedAt >= evictAfter && (worst == nil || s.wantedAt < worst.wantedAt || s.wantedAt == worst.wantedAt && s.seq < worst.seq) {
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

func (s *peerSession) fail(now time.Duration, hops []key.Public) {
	s.failed = slices.DeleteFunc(s.failed, func(f failedPath) bool { return now >= f.until || slices.Equal(f.hops, hops) })
	s.failed = append(s.failed, failedPath{hops: hops, at: now, until: now + failedPause})
}

func (n *Core) sessionConfig(bind []byte) session.Config {
	c := n.cfg.Session
	c.Identity, c.Network, c.Purpose, c.Bind = n.cfg.Identity, n.cfg.Network, session.Session, bind
	return c
}

func (n *Core) sessionPayload(s *peerSession) wire.Payload {
	return wire.Payload{Key: s.ring.NewRecvID(), Ports: lanesPerPath, MTU: uint16(n.mtuIn()), Boot: n.cfg.Boot}
}

// installKeys adds a key to a session. A peer that restarted has no path of before: they go, and with them every counter
// and number, under keys that nobody holds any more.
func (n *Core) installKeys(now time.Duration, s *peerSession, k *session.Keys) {
	if s.boot != 0 && s.boot != k.Theirs.Boot {
		n.log.Info("peer restarted", "peer", s.peer.Short())
		for _, p := range slices.Clone(s.paths) {
			if p.state != pathSetup {
				n.dropPath(now, p, "")
			}
		}
		s.used, s.useHeard, s.rekey = nil, 0, nil
		n.out.PeerRestarted(s.peer)
	}
	s.boot = k.Theirs.Boot
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

// ownerOf finds whose packet it is: by mesh address, or by the policy's routes.
func (n *Core) ownerOf(packet []byte) (key.Public, bool) {
	var dst netip.Addr
	switch {
	case len(packet) >= 40 && packet[0]>>4 == 6:
		dst = netip.AddrFrom16([16]byte(packet[24:40]))
	case len(packet) >= 20 && packet[0]>>4 == 4:
		dst = netip.AddrFrom4([4]byte(packet[16:20]))
	default:
		return key.Public{}, false
	}
	if k, ok := n.byAddr[dst]; ok && k != n.self {
		return k, true
	}
	if n.cfg.Network.Prefix().Contains(dst) {
		return key.Public{}, false
	}
	best := -1
	var owner key.Public
	for _, r := range n.policy.Routes {
		if r.Prefix.Contains(dst) && r.Prefix.Bits() > best {
			best, owner = r.Prefix.Bits(), r.Key
		}
	}
	return owner, best >= 0
}

// endSession forgets a session and all its paths.
func (n *Core) endSession(now time.Duration, s *peerSession, reason string) {
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

// release sends the packets that waited for the session.
func (n *Core) release(now time.Duration, s *peerSession) {
	waiting := s.waiting
	s.waiting = nil
	for _, p := range waiting {
		n.worker.Originate(now, p, false)
	}
	n.worker.Flush()
}

// topology returns the graph of the records held, with our own links as they are this moment.
func (n *Core) topology() *route.Graph {
	if n.graph == nil {
		n.graph = route.NewGraph(n.graphRecords())
	}
	return n.graph
}

// plan sees to it that a wanted session has its best path and a disjoint standby set up.
func (n *Core) plan(now time.Duration, s *peerSession) {
	if now-s.wantedAt >= sessionIdle {
		return // nobody needs it: what the peer lets go is not set up again
	}
	if now < s.planAt || s.active != nil && !s.active.source && s.active.state == pathUsable {
		return // not yet, or the peer is the source of a path that serves both ways: it keeps up standbys
	}
	s.planAt = now + replanEvery
	if s.active == nil {
		s.planAt = now + replanSoon
	}
	candidates := n.candidates(now, s)
	setups := 0
	for i, c := range candidates {
		if i >= 2 {
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
	found := route.Paths(g, n.self, s.peer, 2, route.Constraints{})
	found = slices.DeleteFunc(found, func(p route.Path) bool { return bad(p.Hops) })
	if len(found) < 2 {
		var c route.Constraints
		for _, f := range s.failed {
			if now < f.until && len(f.hops) > 2 {
				c.Avoid = append(c.Avoid, f.hops[1:len(f.hops)-1]...)
			}
		}
		for _, p := range route.Paths(g, n.self, s.peer, 2, c) {
			if !bad(p.Hops) && !hasHops(found, p.Hops) {
				found = append(found, p)
			}
		}
	}
	for _, hops := range n.proposals[s.peer].paths {
		if now >= n.proposals[s.peer].until {
			break
		}
		if p, ok := g.Measure(hops); ok && !bad(hops) && !hasHops(found, hops) {
			found = append(found, p)
		}
	}
	if len(found) == 0 && s.active == nil {
		found = n.secondChance(now, s)
	}
	slices.SortStableFunc(found, func(a, b route.Path) int { return cmp.Compare(a.Cost, b.Cost) })
	return found
}

// secondChance returns paths that failed a moment ago, where there are no others: the relay may be back already.
func (n *Core) secondChance(now time.Duration, s *peerSession) []route.Path {
	fresh := func(hops []key.Public) bool {
		return n.upLink(hops[1]) == nil ||
			slices.ContainsFunc(s.failed, func(f failedPath) bool { return now-f.at < replanSoon && slices.Equal(f.hops, hops) })
	}
	found := route.Paths(n.topology(), n.self, s.peer, 1, route.Constraints{})
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
		if usable > 2 && p.source && p != s.active && p.state == pathUsable && !hasHops(wanted[:min(2, len(wanted))], p.hops) {
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
		if p.dataAt > s.wantedAt {
			s.wantedAt = p.dataAt
		}
	}
	wanted := now-s.wantedAt < sessionIdle
	if s.active == nil && len(s.waiting) > 0 && now-s.wantedAt > 10*time.Second {
		s.waiting = nil
	}
	switch {
	case wanted:
		n.plan(now, s)
		n.tickSessionRekey(now, s)
	case len(s.paths) == 0 || now-s.wantedAt > sessionIdle+pathIdle:
		n.endSession(now, s, "")
	default:
		for _, p := range slices.Clone(s.paths) {
			if p.source {
				n.dropPath(now, p, "")
			}
		}
	}
}

// tickSessionRekey makes a new key inside the old one; the source of the path in use does it.
func (n *Core) tickSessionRekey(now time.Duration, s *peerSession) {
	if s.active == nil || now < s.rekeyT {
		return
	}
	cur := s.ring.Sending(now)
	if cur == nil {
		s.renew = true // too old for anything: the next setup brings a handshake
		if s.rekeyT = now + time.Second; s.active.source {
			n.pathSuspect(now, s.active, "keys too old")
		}
		return
	}
	if !s.ring.RekeyDue(now) {
		return
	}
	hs, noise, err := session.Initiate(n.sessionConfig(cur.Hash[:]), s.peer, n.sessionPayload(s))
	if err != nil {
		return
	}
	s.rekey = hs
	s.rekeyT = now + max(500*time.Millisecond, 3*s.active.probe.srtt)
	n.control(now, s.active, wire.ControlRekey1{Noise: [wire.Noise1Len]byte(noise)})
}

// receiveRekey handles both messages of a rekey.
func (n *Core) receiveRekey(now time.Duration, p *path, body []byte) error {
	s := p.sess
	if wire.ControlType(body) == wire.CtlRekey2 {
		f, err := wire.ParseControlRekey2(body)
		if err != nil || s.rekey == nil {
			return err
		}
		keys, err := s.rekey.Finish(f.Noise[:])
		if err == nil || errors.Is(err, session.ErrSpent) {
			s.rekey = nil // a stale answer to an attempt before must not end this one
		}
		if err != nil || keys.Peer != s.peer {
			n.drops.badSignatures++
			return nil
		}
		n.installKeys(now, s, keys)
		n.control(now, p, wire.ControlKeep{})
		return nil
	}
	f, err := wire.ParseControlRekey1(body)
	if err != nil {
		return err
	}
	if reply := s.ring.Repeat(f.Noise[:]); reply != nil {
		n.control(now, p, wire.ControlRekey2{Noise: [wire.Noise2Len]byte(reply)})
		return nil
	}
	noise, keys := n.respondRekey(s, f.Noise[:])
	if keys == nil || keys.Peer != s.peer {
		n.drops.badSignatures++
		return nil
	}
	s.ring.Answered(f.Noise[:], noise)
	n.control(now, p, wire.ControlRekey2{Noise: [wire.Noise2Len]byte(noise)})
	n.installKeys(now, s, keys)
	return nil
}

// respondRekey answers a rekey, which is bound to the key that carried it: one of the few that are held.
func (n *Core) respondRekey(s *peerSession, noise []byte) ([]byte, *session.Keys) {
	for _, old := range slices.Backward(s.ring.All()) {
		answer, keys, err := session.Respond(n.sessionConfig(old.Hash[:]), noise, func(key.Public, wire.Payload) (wire.Payload, error) {
			return n.sessionPayload(s), nil
		})
		if err == nil {
			return answer, keys
		}
	}
	return nil, nil
}

// echo is a ping of ours that is out.
type echo struct {
	sent time.Duration
	done func(rtt time.Duration, err error)
}

// maxEchoes bounds the pings that are out at once.
const maxEchoes = 1024

// Ping sends one sealed echo to a peer, setting up a session if there is none; done is called once.
func (n *Core) Ping(now time.Duration, k key.Public, done func(time.Duration, error)) {
	n.Want(now, k, func(err error) {
		s := n.sessions[k]
		if err == nil && (s == nil || s.active == nil) {
			err = ErrUnreachable
		}
		if err == nil && len(n.echoes) >= maxEchoes {
			err = ErrBusy
		}
		if err != nil {
			done(0, err)
			return
		}
		n.echoID++
		n.echoes[n.echoID] = echo{sent: n.now, done: done}
		n.control(n.now, s.active, wire.Echo{ID: n.echoID, Time: uint64(n.now)})
		n.worker.Flush()
	})
}

func (n *Core) receiveEchoReply(now time.Duration, f wire.EchoReply) {
	e, ok := n.echoes[f.ID]
	if !ok || f.Time != uint64(e.sent) {
		return
	}
	delete(n.echoes, f.ID)
	e.done(now-e.sent, nil)
}

// tickEchoes ends pings that nobody answered.
func (n *Core) tickEchoes(now time.Duration) {
	for id, e := range n.echoes {
		if now-e.sent > 5*time.Second {
			delete(n.echoes, id)
			e.done(0, ErrTimeout)
		}
	}
	for _, s := range n.sessions {
		late := 0
		for late < len(s.waiters) && now-s.waiters[late].since > 10*time.Second {
			late++
		}
		gone := s.waiters[:late]
		s.waiters = s.waiters[late:]
		for _, w := range gone {
			w.done(ErrUnreachable)
		}
	}
}

// Policy is what the apps said about packets beyond the mesh addresses.
type Policy struct {
	Routes, Grants, Serve []PrefixOf
}

// PrefixOf ties a prefix to a node.
type PrefixOf struct {
	Prefix netip.Prefix
	Key    key.Public
}

// SetPolicy replaces the policy.
func (n *Core) SetPolicy(p Policy) {
	n.policy = p
	for _, s := range n.sessions {
		n.applyGrants(s)
	}
	for _, r := range p.Routes {
		n.session(r.Key)
	}
	n.routesAt = true
}

func (n *Core) applyGrants(s *peerSession) {
	var g forward.Grants
	for _, r := range n.policy.Grants {
		if r.Key == s.peer {
			g.Sources = append(g.Sources, r.Prefix)
		}
	}
	for _, r := range n.policy.Serve {
		if r.Key == s.peer {
			g.Serve = append(g.Serve, r.Prefix)
		}
	}
	s.plane.SetGrants(g)
}

// SessionAt returns the data plane's session with the owner of a mesh address, nil if there is none. Any goroutine may
// call it.
func (n *Core) SessionAt(a netip.Addr) *forward.Session {
	if r := n.hosts.Load(); r != nil {
		return r.Hosts[a]
	}
	return nil
}

// refreshRoutes gives the data plane the sessions and prefixes of this moment, if they changed.
func (n *Core) refreshRoutes() {
	if !n.routesAt {
		return
	}
	n.routesAt = false
	r := n.buildRoutes()
	n.hosts.Store(r)
	n.plane.SetRoutes(r)
}

func (n *Core) buildRoutes() *forward.Routes {
	r := &forward.Routes{Hosts: make(map[netip.Addr]*forward.Session, len(n.sessions))}
	for _, s := range n.sessions {
		r.Hosts[s.plane.Addr] = s.plane
	}
	for _, p := range n.policy.Routes {
		if s := n.sessions[p.Key]; s != nil {
			r.Prefixes = append(r.Prefixes, forward.PrefixRoute{Prefix: p.Prefix, Session: s.plane})
		}
	}
	return r
}

// reasonName is a reason of REFUSE or REMOVE in words.
func reasonName(r uint8) string {
	names := [...]string{
		"", "malformed", "list does not agree", "next node is not up", "too many", "policy", "price", "number used before",
		"expired", "bad signature", "the far end could not use it", "too small a datagram", "closed", "idle", "link down",
		"not in the list after a restart", "revoked",
	}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown reason"
}
