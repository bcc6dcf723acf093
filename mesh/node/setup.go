package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

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
	if reason := n.admitSetup(b, keys); reason != 0 {
		n.refuse(now, b, s, reason, 0)
		return
	}
	var next *neighbour
	if !last {
		if next = n.upLink(keys[i+1]); next == nil || n.leaving.at != 0 {
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
	} else {
		n.relaySetup(now, b, next, s, id)
	}
	n.hostGuest(now, id, keys[0])
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
