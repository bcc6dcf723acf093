package node

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// relay is a path of others that runs through this node: two label blocks, one a direction.
//
//	previous ──forward──► [fwdBase … → nextBase] ──► next
//	previous ◄─────────── [prevBase ← … backBase] ◄─backward── next
type relay struct {
	id             wire.PathID
	seq            uint64 // order of creation
	source, dest   key.Public
	prev, next     key.Public // neighbours
	fwdBase        uint32     // labels we gave to the previous node
	backBase       uint32     // labels we gave to the next node
	nextBase       uint32     // labels of the next node
	prevBase       uint32     // labels of the previous node
	fwdN, backN    int
	idle           time.Duration
	fwd, back      *forward.Relay
	setup          *wire.Setup  // as verified, until it is accepted
	accept         *wire.Accept // the ACCEPT that we passed back, for repeated setups
	created, heard time.Duration
	staleUntil     time.Duration // restored rule not yet confirmed by both neighbours
	confirmedPrev  bool
	confirmedNext  bool

	toldPrev, toldNext time.Duration // when the next event may go there
}

// setupNumbers is the replay window over the setup numbers of one source.
type setupNumbers struct {
	highest uint64
	seen    uint64 // bit i: highest−i was used
	at      time.Duration
}

// fresh reports whether number is new, and notes it.
func (s *setupNumbers) fresh(number uint64) bool {
	switch {
	case number > s.highest:
		if d := number - s.highest; d < 64 {
			s.seen = s.seen<<d | 1
		} else {
			s.seen = 1
		}
		s.highest = number
		return true
	case s.highest-number >= 64:
		return false
	}
	bit := uint64(1) << (s.highest - number)
	if s.seen&bit != 0 {
		return false
	}
	s.seen |= bit
	return true
}

// receiveSetup checks a setup, cheapest test first, and passes it on or ends it.
func (n *Core) receiveSetup(now time.Duration, b *neighbour, body []byte) {
	if now < b.barred || !n.setupToken(now, b) {
		n.drops.limit++
		return
	}
	s, err := wire.ParseSetup(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	keys := s.Core.Hops
	i := int(s.Index)
	if i < 1 || i >= len(keys) || keys[i-1] != b.link.Peer() || keys[i] != n.self || twice(keys) {
		n.refuse(now, b, s, wire.ReasonPlace, 0)
		return
	}
	id := s.Core.ID()
	if n.repeatedSetup(now, b, s, id) {
		return
	}
	last := i == len(keys)-1
	if n.admit(keys[0]) != nil || !last && n.admit(keys[len(keys)-1]) != nil {
		n.refuse(now, b, s, wire.ReasonPolicy, 0)
		return
	}
	var next *neighbour
	if !last {
		if next = n.upLink(keys[i+1]); next == nil {
			n.refuse(now, b, s, wire.ReasonNeighbour, 0)
			return
		}
		if len(n.relays) >= maxRelays || n.rulesOf[b.link.Peer()] >= maxRelays/quotaShare {
			n.refuse(now, b, s, wire.ReasonQuota, 0)
			return
		}
	}
	if num := n.sources[keys[0]]; num != nil {
		if probe := *num; !probe.fresh(s.Core.Number) {
			n.drops.replayedSetups++
			n.refuse(now, b, s, wire.ReasonReplay, num.highest)
			return
		}
	}
	if !s.Verify(n.cfg.Network) {
		n.badSignature(now, b)
		return
	}
	n.source(now, keys[0]).fresh(s.Core.Number)
	if last {
		n.endSetup(now, b, s, id)
		return
	}
	n.relaySetup(now, b, next, s, id)
}

// setupToken takes from the neighbour's quota of setups.
func (n *Core) setupToken(now time.Duration, b *neighbour) bool {
	b.setups = min(setupsPerSecond*2, b.setups+setupsPerSecond*(now-b.setupsAt).Seconds())
	b.setupsAt = now
	if b.setups < 1 {
		return false
	}
	b.setups--
	return true
}

// badSignature holds a forged setup against the neighbour that passed it on: honest ones check before.
func (n *Core) badSignature(now time.Duration, b *neighbour) {
	n.drops.badSignatures++
	b.bad++
	if b.bad >= badSignatures {
		b.bad = 0
		b.barred = now + time.Minute
		n.log.Warn("neighbour barred from setups for a minute", "peer", b.link.Peer(), "reason", "forged setups")
	}
}

func twice(keys []key.Public) bool {
	for i, k := range keys {
		for _, o := range keys[:i] {
			if o == k {
				return true
			}
		}
	}
	return false
}

// source returns the window of a source's setup numbers. If the table is full, the one used longest ago goes.
func (n *Core) source(now time.Duration, k key.Public) *setupNumbers {
	s := n.sources[k]
	if s == nil {
		if len(n.sources) >= maxSources {
			var oldest key.Public
			at := time.Duration(1<<63 - 1)
			for o, v := range n.sources {
				if v.at < at && n.sessions[o] == nil {
					oldest, at = o, v.at
				}
			}
			delete(n.sources, oldest)
		}
		s = &setupNumbers{}
		n.sources[k] = s
	}
	s.at = now
	return s
}

// repeatedSetup answers a setup seen before in the same way as the first time.
func (n *Core) repeatedSetup(now time.Duration, b *neighbour, s wire.Setup, id wire.PathID) bool {
	if p := n.paths[id]; p != nil && !p.source {
		if p.accept != nil {
			n.send(now, b, *p.accept)
		}
		return true
	}
	r := n.relays[id]
	if r == nil {
		return false
	}
	if r.prev != b.link.Peer() {
		n.refuse(now, b, s, wire.ReasonReplay, 0)
		return true
	}
	if r.accept != nil {
		n.send(now, b, *r.accept)
		return true
	}
	if next := n.upLink(r.next); next != nil && r.setup != nil {
		n.passSetup(now, b, next, *r.setup, r) // what was verified, not what came now
	}
	return true
}

// relayList returns the relay rules, oldest first: the order does not depend on a map.
func (n *Core) relayList() []*relay {
	all := slices.Collect(maps.Values(n.relays))
	slices.SortFunc(all, func(a, b *relay) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

// relaySetup allots labels for a path through us and passes the setup on.
func (n *Core) relaySetup(now time.Duration, b, next *neighbour, s wire.Setup, id wire.PathID) {
	r := &relay{
		id: id, source: s.Core.Hops[0], dest: s.Core.Hops[len(s.Core.Hops)-1],
		prev: b.link.Peer(), next: next.link.Peer(), prevBase: s.BackBase,
		fwdN: int(s.Core.Forward), backN: int(s.Core.Backward),
		idle: time.Duration(s.Core.Idle) * time.Second, created: now, heard: now, setup: &s,
	}
	var err error
	if r.fwdBase, err = n.plane.Alloc(r.fwdN); err == nil {
		if r.backBase, err = n.plane.Alloc(r.backN); err != nil {
			n.plane.Free(r.fwdBase, r.fwdN, now)
		}
	}
	if err != nil {
		n.refuse(now, b, s, wire.ReasonQuota, 0)
		return
	}
	n.seq++
	r.seq = n.seq
	n.addRelay(r)
	n.passSetup(now, b, next, s, r)
}

func (n *Core) addRelay(r *relay) {
	n.relays[r.id] = r
	n.rulesOf[r.prev]++
}

func (n *Core) passSetup(now time.Duration, b, next *neighbour, s wire.Setup, r *relay) {
	out := s
	out.Index++
	out.MTU = uint16(min(int(s.MTU), next.link.MTU(), b.link.MTU()))
	out.BackBase = r.backBase
	n.send(now, next, out)
}

// refuse answers a setup that is not taken.
func (n *Core) refuse(now time.Duration, b *neighbour, s wire.Setup, reason uint8, hint uint64) {
	n.drops.refusedSetups++
	n.send(now, b, wire.Refuse{ID: s.Core.ID(), Index: s.Index, Reason: reason, Hint: hint})
}

// receiveAccept installs a relay's rules and passes the answer back, or completes a path of our own.
func (n *Core) receiveAccept(now time.Duration, b *neighbour, body []byte) {
	a, err := wire.ParseAccept(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if p := n.paths[a.ID]; p != nil && p.source {
		n.accepted(now, b, p, a)
		return
	}
	r := n.relays[a.ID]
	if r == nil || r.next != b.link.Peer() {
		return
	}
	if r.accept != nil && a.ForwardBase == r.nextBase {
		if prev := n.upLink(r.prev); prev != nil {
			n.send(now, prev, *r.accept)
		}
		return
	}
	prev := n.upLink(r.prev)
	if prev == nil || r.accept != nil {
		return
	}
	r.nextBase = a.ForwardBase
	n.installRelay(r, prev, b)
	out := a
	out.ForwardBase = r.fwdBase
	out.MTU = uint16(min(int(a.MTU), b.link.MTU(), prev.link.MTU()))
	r.accept, r.setup = &out, nil
	r.heard = now
	n.send(now, prev, *r.accept)
}

// installRelay gives both label blocks of a rule their meaning.
func (n *Core) installRelay(r *relay, prev, next *neighbour) {
	r.fwd = n.plane.InstallRelay(r.fwdBase, r.fwdN, forward.Relay{In: prev.plane, Out: next.plane, OutBase: r.nextBase, ID: r.id})
	r.back = n.plane.InstallRelay(r.backBase, r.backN, forward.Relay{In: next.plane, Out: prev.plane, OutBase: r.prevBase, ID: r.id})
}

// receiveRefuse passes a refusal back to the source and forgets the rule.
func (n *Core) receiveRefuse(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRefuse(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if p := n.paths[f.ID]; p != nil && p.source && p.first == b {
		n.refused(now, p, f)
		return
	}
	r := n.relays[f.ID]
	if r == nil || r.next != b.link.Peer() || r.accept != nil {
		return
	}
	if prev := n.upLink(r.prev); prev != nil {
		n.send(now, prev, f)
	}
	n.dropRelay(now, r)
}

// receiveRemove ends a rule or path, if it comes from a neighbour that lies on it, and passes the word on.
func (n *Core) receiveRemove(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRemove(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	n.ack(now, b, f.Request)
	if p := n.paths[f.ID]; p != nil && p.first == b {
		n.pathLost(now, p, "removed by a relay: "+reasonName(f.Reason))
		return
	}
	r := n.relays[f.ID]
	if r == nil || r.next != b.link.Peer() && r.prev != b.link.Peer() {
		return
	}
	n.removeRelay(now, r, f.Reason, b.link.Peer())
}

// removeRelay drops a rule and tells the neighbours on it, but not the one that told us.
func (n *Core) removeRelay(now time.Duration, r *relay, reason uint8, told key.Public) {
	m := wire.Remove{ID: r.id, Reason: reason}
	for _, k := range []key.Public{r.prev, r.next} {
		if k == told {
			continue
		}
		if o := n.upLink(k); o != nil {
			n.send(now, o, m)
		}
	}
	n.dropRelay(now, r)
}

func (n *Core) dropRelay(now time.Duration, r *relay) {
	n.plane.Free(r.fwdBase, r.fwdN, now)
	n.plane.Free(r.backBase, r.backN, now)
	delete(n.relays, r.id)
	if n.rulesOf[r.prev]--; n.rulesOf[r.prev] <= 0 {
		delete(n.rulesOf, r.prev)
	}
}

// receiveEvent takes a hint about a label of ours' neighbour: it may move traffic, never remove a path.
func (n *Core) receiveEvent(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseEvent(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	n.ack(now, b, f.Request)
	for _, p := range n.pathList() {
		if p.first == b && p.fp != nil && f.Label-p.outBase < uint32(p.outN) {
			n.pathEvent(now, p, f)
			return
		}
	}
	for _, r := range n.relayList() {
		switch {
		case r.next == b.link.Peer() && r.stands() && f.Label-r.nextBase < uint32(r.fwdN):
			if !r.mayTell(now, r.prev) {
				return
			}
			n.passEvent(now, r.prev, r.fwdBase+f.Label-r.nextBase, f)
			return
		case r.prev == b.link.Peer() && f.Label-r.prevBase < uint32(r.backN):
			if !r.mayTell(now, r.next) {
				return
			}
			n.passEvent(now, r.next, r.backBase+f.Label-r.prevBase, f)
			return
		}
	}
}

// mayTell bounds the events about a path that a neighbour on it gets from us.
func (r *relay) mayTell(now time.Duration, to key.Public) bool {
	at := &r.toldNext
	if to == r.prev {
		at = &r.toldPrev
	}
	if now < *at {
		return false
	}
	*at = now + eventEvery
	return true
}

func (n *Core) passEvent(now time.Duration, to key.Public, label uint32, f wire.Event) {
	if o := n.upLink(to); o != nil {
		f.Label = label
		n.send(now, o, f)
	}
}

// TooBig takes the data plane's word that frames did not fit at a relay, and tells the node that uses the label.
func (n *Core) TooBig(now time.Duration, r *forward.Relay, label uint32, mtu int) {
	rule := n.relays[r.ID]
	if rule == nil || !rule.mayTell(now, r.In.Peer) {
		return
	}
	if l := n.links.ByPeer(r.In.Peer); l != nil {
		n.passEvent(now, l.Peer(), label, wire.Event{Kind: wire.EventTooBig, Value: uint64(mtu)})
	}
}

// usesLabel reports whether we send data frames with this label to a neighbour.
func (n *Core) usesLabel(b *neighbour, label uint32) bool {
	k := b.link.Peer()
	for _, p := range n.pathList() {
		if p.first == b && p.fp != nil && label-p.outBase < uint32(p.outN) {
			return true
		}
	}
	for _, r := range n.relayList() {
		if r.next == k && label-r.nextBase < uint32(r.fwdN) || r.prev == k && label-r.prevBase < uint32(r.backN) {
			return true
		}
	}
	return false
}

// linkLost tells the users of rules over a lost link, and moves our own traffic off it.
func (n *Core) linkLost(now time.Duration, b *neighbour) {
	k := b.link.Peer()
	for _, r := range n.relayList() {
		switch {
		case !r.stands():
		case r.next == k:
			n.passEvent(now, r.prev, r.fwdBase, wire.Event{Kind: wire.EventLinkDown})
		case r.prev == k:
			n.passEvent(now, r.next, r.backBase, wire.Event{Kind: wire.EventLinkDown})
		}
	}
	for _, p := range n.pathList() {
		if p.first == b {
			n.pathSuspect(now, p, "first link down")
		}
	}
	n.graph = nil
}

// tickRelays lets rules go that nobody uses, or that a restored neighbour did not confirm.
func (n *Core) tickRelays(now time.Duration) {
	if now < n.nextExpire {
		return
	}
	n.nextExpire = now + time.Second
	for _, r := range n.relayList() {
		used := r.heard
		if r.fwd != nil {
			used = max(used, r.fwd.Stats().LastUse, r.back.Stats().LastUse)
		}
		switch {
		case r.staleUntil != 0 && now > r.staleUntil:
			n.removeRelay(now, r, wire.ReasonStale, key.Public{})
		case !r.stands() && now-r.created > 5*time.Second:
			n.dropRelay(now, r)
		case r.idle > 0 && now-used > r.idle:
			n.dropRelay(now, r)
		}
	}
	for k, s := range n.sources {
		if now-s.at > time.Hour {
			delete(n.sources, k)
		}
	}
}
