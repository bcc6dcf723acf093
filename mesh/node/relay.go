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

	toldPrev, toldNext     time.Duration // when the next event may go there
	leavesPrev, leavesNext time.Duration // the same of EventLeaving
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

// installRelay gives both label blocks of a rule their meaning.
func (n *Core) installRelay(r *relay, prev, next *neighbour) {
	r.fwd = n.plane.InstallRelay(r.fwdBase, r.fwdN, forward.Relay{In: prev.plane, Out: next.plane, OutBase: r.nextBase, ID: r.id})
	r.back = n.plane.InstallRelay(r.backBase, r.backN, forward.Relay{In: next.plane, Out: prev.plane, OutBase: r.prevBase, ID: r.id})
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

// mayTell bounds the events about a path that a neighbour on it gets from us.
func (r *relay) mayTell(now time.Duration, to key.Public, kind uint8) bool {
	next, prev, every := &r.toldNext, &r.toldPrev, eventEvery
	if kind == wire.EventLeaving {
		next, prev, every = &r.leavesNext, &r.leavesPrev, leaveTell/2
	}
	if to == r.prev {
		next = prev
	}
	if now < *next {
		return false
	}
	*next = now + every
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
	if rule == nil || !rule.mayTell(now, r.In.Peer, wire.EventTooBig) {
		return
	}
	if l := n.links.ByPeer(r.In.Peer); l != nil {
		n.passEvent(now, l.Peer(), label, wire.Event{Kind: wire.EventTooBig, Value: uint64(mtu)})
	}
}

// SizeRefused takes the data plane's word that the network refused frames of size bytes to a neighbour.
func (n *Core) SizeRefused(now time.Duration, peer key.Public, size int) {
	if l := n.links.ByPeer(peer); l != nil {
		n.links.Refused(now, l, size)
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
			if !r.mayTell(now, r.prev, f.Kind) {
				return
			}
			n.passEvent(now, r.prev, r.fwdBase+f.Label-r.nextBase, f)
			return
		case r.prev == b.link.Peer() && f.Label-r.prevBase < uint32(r.backN):
			if !r.mayTell(now, r.next, f.Kind) {
				return
			}
			n.passEvent(now, r.next, r.backBase+f.Label-r.prevBase, f)
			return
		}
	}
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
		if f.Reason == wire.ReasonStale {
			n.pathGone(now, p, "removed by a relay: "+reasonName(f.Reason))
			return
		}
		n.pathLost(now, p, "removed by a relay: "+reasonName(f.Reason))
		return
	}
	r := n.relays[f.ID]
	if r == nil || r.next != b.link.Peer() && r.prev != b.link.Peer() {
		return
	}
	n.removeRelay(now, r, f.Reason, b.link.Peer())
}
