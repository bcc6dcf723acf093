package node

import (
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// pathState is where a path of our own stands.
type pathState uint8

const (
	pathSetup   pathState = iota // the setup is under way
	pathProving                  // accepted, a sealed round trip is awaited
	pathUsable
	pathSuspected // nothing came back lately
)

func (s pathState) String() string { return [...]string{"setup", "proving", "usable", "suspect"}[s] }

// path is one end's view of a path: ours to keep up if we are the source.
type path struct {
	id     wire.PathID
	seq    uint64 // order of creation
	sess   *peerSession
	number uint16
	source bool
	hops   []key.Public // from source to destination
	first  *neighbour
	inBase uint32 // labels that we gave out
	inN    int
	// outBase are the labels of the first neighbour.
	outBase uint32
	outN    int
	fp      *forward.Path // nil until accepted
	mtu     int
	state   pathState
	created time.Duration

	setup   wire.Setup // for repetition
	bind    [32]byte
	hs      *session.Handshake // nil: the setup carries a proof
	tries   int
	retryAt time.Duration
	accept  *wire.Accept // destination: what we answered

	probe     prober
	control   uint64 // control frames sent on it
	controlRx uint64
	dataTx    uint64 // data frames at the last look
	dataRx    uint64
	dataAt    time.Duration // when data was last seen in either direction
	rxAt      time.Duration // when data was last seen coming in
	rxBurst   uint64        // frames that came in the tick before
	rxDoubted time.Duration // rxAt of the last silence that was looked into
	txBurst   uint64        // frames that went out in the last tick that had any
	// unconfirmed is when we first saw data go out that the far end has not reported since; 0: none.
	unconfirmed time.Duration
	confirmed   time.Duration // when the far end last told of what we sent
	leaving     time.Duration // when a relay announced that it leaves; 0: none did
	reportAt    time.Duration // of the last one
	keepAt      time.Duration // when doubts may be looked into again
	watch       watch
	grey        grey
	sizer       sizer
	delivered   uint64                 // frames of all lanes that the far end last reported
	eventAt     map[bool]time.Duration // when to heed the next event: about size, about reach
	reported    uint64                 // frames received when the last REPORT went out
	heard       wire.LaneReport        // what the far end last reported of the packet lanes
	loss        float64                // of what we send, by these reports, smoothed
}

// names the ends of a path for the log.
func (p *path) String() string {
	s := ""
	for i, k := range p.hops {
		if i > 0 {
			s += " "
		}
		s += k.Short()
	}
	return s
}

// pathList returns the paths that end here, oldest first: the order does not depend on a map.
func (n *Core) pathList() []*path {
	all := make([]*path, 0, len(n.paths))
	for _, p := range n.paths {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *path) int { return int(a.seq) - int(b.seq) })
	return all
}

// setUp begins a path of our own along hops.
func (n *Core) setUp(now time.Duration, s *peerSession, hops []key.Public) {
	first := n.upLink(hops[1])
	if first == nil {
		return
	}
	if first.link.MTU() < minPathMTU {
		return
	}
	number, ok := s.nextNumber(n.self)
	if !ok {
		n.endSession(now, s, "path numbers used up")
		return
	}
	lanes := n.lanes()
	base, err := n.plane.Alloc(lanes)
	if err != nil {
		n.log.Warn("no labels left for a path", "peer", s.peer.Short())
		return
	}
	n.number++
	n.seq++
	p := &path{
		seq: n.seq, sess: s, number: number, source: true, hops: hops, first: first, inBase: base, inN: lanes,
		outN: lanes, created: now, mtu: first.link.MTU(),
	}
	core := wire.SetupCore{
		Flags: wire.SetupStream, Forward: uint8(lanes), Backward: uint8(lanes), Path: number, Number: n.number,
		Idle: uint16(pathIdle / time.Second), Hops: hops,
	}
	if s.ring.Sending(now) != nil && !s.renew {
		core.Flags |= wire.SetupProof
	}
	p.bind = core.Bind()
	end, err := n.setupEnd(now, p, core.Flags)
	if err != nil {
		n.log.Warn("session handshake not begun", "peer", s.peer.Short(), "err", err)
		n.plane.Free(base, lanes, now)
		return
	}
	p.setup = wire.Setup{Core: core, Index: 1, MTU: uint16(p.mtu), BackBase: base, End: end}
	p.setup.Sign(n.cfg.Identity, n.cfg.Network)
	p.id = p.setup.Core.ID()
	n.paths[p.id] = p
	s.paths = append(s.paths, p)
	n.sendSetup(now, p)
}

// setupEnd returns the part of a setup that is for the far end alone: a proof that we hold the session's key, or a
// handshake where there is none.
func (n *Core) setupEnd(now time.Duration, p *path, flags uint8) ([]byte, error) {
	if flags&wire.SetupProof != 0 {
		return p.sess.ring.Sending(now).SealProof(p.number, p.bind), nil
	}
	hs, noise, err := session.Initiate(n.sessionConfig(p.bind[:]), p.sess.peer, n.sessionPayload(p.sess))
	if err != nil {
		return nil, err
	}
	p.hs = hs
	return noise, nil
}

// proves opens a proof of the far end.
func (p *path) proves(end []byte) bool {
	if len(end) == 0 {
		return false
	}
	k := p.sess.ring.ByRecvID(end[0])
	return k != nil && k.OpenProof(p.number, p.bind, end)
}

func (n *Core) sendSetup(now time.Duration, p *path) {
	if p.retryAt = now + p.first.retry(now, setupRetry<<p.tries); p.first.link.Slow() {
		p.retryAt = now + p.first.retry(now, setupRetry)
	}
	p.tries++
	n.send(now, p.first, p.setup)
}

// accepted completes a path of our own: labels get their meaning, and a sealed probe proves it.
func (n *Core) accepted(now time.Duration, b *neighbour, p *path, a wire.Accept) {
	if p.state != pathSetup || p.first != b {
		return
	}
	if p.setup.Core.Flags&wire.SetupProof == 0 {
		if p.hs == nil {
			return
		}
		keys, err := p.hs.Finish(a.End)
		p.hs = nil
		if err != nil || keys.Peer != p.sess.peer {
			n.drops.badSignatures++
			n.dropPath(now, p, "the far end's answer is not genuine")
			return
		}
		if boot := keys.Theirs.Boot; p.sess.boot != 0 && p.sess.boot != boot {
			n.otherBoot(now, p, boot)
		}
		n.installKeys(now, p.sess, keys)
		p.sess.renew = false
	} else if !p.proves(a.End) {
		n.drops.badSignatures++
		return
	}
	p.outBase, p.mtu = a.ForwardBase, min(int(a.MTU), p.first.link.MTU())
	if p.mtu < minPathMTU {
		n.pathLost(now, p, "it carries too little")
		return
	}
	p.sess.retries = 0
	n.installPath(p)
	p.state = pathProving
	n.prove(now, p)
}

// installPath makes a path known to the data plane.
func (n *Core) installPath(p *path) {
	p.fp = n.plane.NewPath(p.sess.plane, forward.PathConfig{
		Number: p.number, First: p.first.plane, OutBase: p.outBase, OutLanes: uint8(p.outN), InLanes: uint8(p.inN), MTU: p.mtu,
	})
	n.byPath[p.fp] = p
	n.plane.InstallEnd(p.inBase, p.inN, p.first.plane, p.fp)
}

// refused handles a refusal of a setup of ours.
func (n *Core) refused(now time.Duration, p *path, f wire.Refuse) {
	if p.state != pathSetup {
		return
	}
	n.log.Info("path refused", "path", p.String(), "reason", reasonName(f.Reason), "at", int(f.Index))
	n.notePath(EventPathRefused, p, refusal(p.hops, f.Index, reasonName(f.Reason)))
	switch f.Reason {
	case wire.ReasonReplay:
		// Our store lost the numbers: jump, but never further than one hint may push us.
		if f.Hint > n.number && f.Hint-n.number <= 1<<32 {
			n.number = f.Hint
		}
		n.again(now, p)
		return
	case wire.ReasonEnd:
		if p.hs == nil { // our proof meant nothing to it: it restarted
			p.sess.renew = true
			n.again(now, p)
			return
		}
	}
	n.pathLost(now, p, "refused: "+reasonName(f.Reason))
}

// again drops a path whose setup failed for a reason that the next one heals, and makes the next one.
func (n *Core) again(now time.Duration, p *path) {
	if p.sess.retries++; p.sess.retries > maxAgain {
		p.sess.retries = 0
		n.pathLost(now, p, "refused again and again")
		return
	}
	n.dropPath(now, p, "")
	p.sess.planAt = now
	n.plan(now, p.sess)
}

// endSetup takes a path of which we are the destination.
func (n *Core) endSetup(now time.Duration, b *neighbour, f wire.Setup, id wire.PathID) {
	src := f.Core.Hops[0]
	s := n.session(src)
	if s == nil {
		n.refuse(now, b, f, wire.ReasonQuota, 0)
		return
	}
	if s.owns(f.Core.Path, n.self) {
		n.refuse(now, b, f, wire.ReasonReplay, 0)
		return
	}
	if min(int(f.MTU), b.link.MTU()) < minPathMTU {
		n.refuse(now, b, f, wire.ReasonMTU, 0)
		return
	}
	n.seq++
	p := &path{
		id: id, seq: n.seq, sess: s, number: f.Core.Path, hops: f.Core.Hops, first: b, created: now, state: pathProving,
		outBase: f.BackBase, outN: int(f.Core.Backward), inN: int(f.Core.Forward),
		mtu: min(int(f.MTU), b.link.MTU()), bind: f.Core.Bind(), dataAt: now,
	}
	end, reason := n.endAnswer(now, p, f)
	if reason != 0 {
		n.refuse(now, b, f, reason, 0)
		return
	}
	s = p.sess // it may be the successor
	s.numbered.fresh(pathNumber(f))
	n.crowdOut(now, s)
	var err error
	if p.inBase, err = n.plane.Alloc(p.inN); err != nil {
		n.refuse(now, b, f, wire.ReasonQuota, 0)
		return
	}
	n.paths[id] = p
	s.paths = append(s.paths, p)
	n.installPath(p)
	p.accept = &wire.Accept{ID: id, ForwardBase: p.inBase, MTU: uint16(p.mtu), End: end}
	n.send(now, b, *p.accept)
}

// pathNumber is a path's place among those that its source numbers.
func pathNumber(f wire.Setup) uint64 { return uint64(f.Core.Path)>>1 + 1 }

// endAnswer checks the part of a setup that is for us and returns the part of the answer for the source. A handshake may move
// the path to the session's successor.
func (n *Core) endAnswer(now time.Duration, p *path, f wire.Setup) (answer []byte, reason uint8) {
	if f.Core.Flags&wire.SetupProof != 0 {
		k := p.sess.ring.Sending(now)
		if k == nil || !p.proves(f.End) {
			return nil, wire.ReasonEnd
		}
		if used := p.sess.numbered; !used.fresh(pathNumber(f)) {
			return nil, wire.ReasonReplay
		}
		return k.SealProof(p.number, p.bind), 0
	}
	s := p.sess
	noise, keys, err := session.Respond(n.sessionConfig(p.bind[:]), f.End, func(peer key.Public, theirs wire.Payload) (wire.Payload, error) {
		if peer != s.peer {
			return wire.Payload{}, ErrNotAdmitted
		}
		p.sess = n.meant(now, s, theirs.Boot, pathNumber(f))
		return n.sessionPayload(s), nil
	})
	if err != nil {
		n.drops.badSignatures++
		return nil, wire.ReasonEnd
	}
	n.installKeys(now, p.sess, keys)
	return noise, 0
}

// crowdOut makes room where a peer ends too many paths here: the one idle longest goes.
func (n *Core) crowdOut(now time.Duration, s *peerSession) {
	var worst *path
	count := 0
	for _, p := range s.paths {
		if p.source {
			continue
		}
		count++
		if p != s.active && (worst == nil || p.lastFrame() < worst.lastFrame()) {
			worst = p
		}
	}
	if count >= maxPathsPerPeer && worst != nil {
		n.dropPath(now, worst, "")
	}
}

// dropPath ends a path here. With a reason for the other nodes on it, they are told.
func (n *Core) dropPath(now time.Duration, p *path, reason string) {
	if n.paths[p.id] != p {
		return
	}
	delete(n.paths, p.id)
	n.plane.Free(p.inBase, p.inN, now)
	if p.fp != nil {
		delete(n.byPath, p.fp)
	}
	s := p.sess
	s.paths = slices.DeleteFunc(s.paths, func(o *path) bool { return o == p })
	if s.active == p {
		s.active = nil
		n.chooseActive(now, s)
	} else {
		n.applyWays(now, s)
	}
	if reason != "" {
		n.log.Info("path dropped", "path", p.String(), "reason", reason)
		n.notePath(EventPathDropped, p, reason)
	}
	if p.first.up {
		n.send(now, p.first, wire.Remove{ID: p.id, Reason: wire.ReasonClosed})
	}
}

// pathLost ends a path that failed and looks for another way.
func (n *Core) pathLost(now time.Duration, p *path, reason string) {
	n.log.Info("path lost", "path", p.String(), "reason", reason)
	n.notePath(EventPathLost, p, reason)
	if p.source {
		p.sess.fail(now, p.hops)
	}
	n.replacePath(now, p)
}

// pathGone ends a path that a neighbour forgot: that it is there again is no reason to avoid it.
func (n *Core) pathGone(now time.Duration, p *path, reason string) {
	n.log.Info("path lost", "path", p.String(), "reason", reason)
	n.notePath(EventPathLost, p, reason)
	p.sess.failed = slices.DeleteFunc(p.sess.failed, func(f failedPath) bool { return slices.Equal(f.hops, p.hops) })
	n.replacePath(now, p)
}

func (n *Core) replacePath(now time.Duration, p *path) {
	n.dropPath(now, p, "")
	p.sess.planAt = min(p.sess.planAt, now)
	n.plan(now, p.sess)
}

// pathSuspect moves traffic off a path that seems broken; whether it is, its probes will tell.
func (n *Core) pathSuspect(now time.Duration, p *path, reason string) {
	if p.state != pathUsable {
		return
	}
	n.log.Info("path suspect", "path", p.String(), "reason", reason)
	n.notePath(EventPathSuspect, p, reason)
	p.state = pathSuspected
	p.probe.lost = 0
	p.sess.hold(now, p.hops)
	if p.sess.carries(p) {
		n.chooseActive(now, p.sess)
	}
	if p.source {
		p.sess.fail(now, p.hops)
		p.sess.planAt = now
		n.plan(now, p.sess)
	}
}

// pathEvent is a hint of a relay. It is confirmed by our own probes, and may only move traffic.
func (n *Core) pathEvent(now time.Duration, p *path, f wire.Event) {
	if f.Kind == wire.EventLeaving {
		n.pathLeaving(now, p)
		return
	}
	if p.fp == nil || now < p.eventAt[f.Kind == wire.EventTooBig] {
		return
	}
	if p.eventAt == nil {
		p.eventAt = map[bool]time.Duration{}
	}
	p.eventAt[f.Kind == wire.EventTooBig] = now + eventEvery
	switch f.Kind {
	case wire.EventTooBig:
		n.sizeEvent(now, p, int(min(f.Value, 1<<16)))
	case wire.EventLinkDown, wire.EventNoLabel:
		n.pathSuspect(now, p, "a relay reports that it goes no further")
	}
}

// tickPath drives one path: repetition of setups, keep-alives, reports, and finding out that it is broken.
func (n *Core) tickPath(now time.Duration, p *path) {
	if p.state == pathSetup {
		if now >= p.retryAt {
			if p.tries >= p.setupTries() {
				n.pathLost(now, p, "setup unanswered")
				return
			}
			n.sendSetup(now, p)
		}
		return
	}
	p.look(now)
	n.report(now, p)
	if p.source && n.swallowed(now, p) {
		return
	}
	if !p.source && now-p.lastFrame() > pathIdle+pathIdle/4 {
		n.dropPath(now, p, "")
		return
	}
	n.tickSize(now, p)
	if p.source || p.sess.carries(p) && now-p.dataAt < busyFor || p.probe.first != 0 || p.state == pathSuspected {
		n.tickProbe(now, p)
	}
}
