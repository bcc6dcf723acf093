package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// After a restart of either side, two neighbours compare the rules they share (mesh/wire/SPEC.md, restart). Each says
// which of its labels the other may use; the other answers with what it does use, if that differs, and both drop the rest.
const (
	rulesRetry = 200 * time.Millisecond // doubling
	rulesTries = 5
)

// shared are the labels at which the rules and paths that a neighbour lies on are used: ours, which it may use, or its
// own, which we use.
func (n *Core) shared(b *neighbour, ours bool) []wire.Rule {
	k := b.link.Peer()
	var all []wire.Rule
	add := func(id wire.PathID, own, theirs uint32) {
		if !ours {
			own = theirs
		}
		all = append(all, wire.Rule{Base: own, ID: id})
	}
	for _, r := range n.relayList() {
		if r.stands() && r.prev == k {
			add(r.id, r.fwdBase, r.prevBase)
		}
		if r.stands() && r.next == k {
			add(r.id, r.backBase, r.nextBase)
		}
	}
	for _, p := range n.pathList() {
		if p.first == b && p.fp != nil {
			add(p.id, p.inBase, p.outBase)
		}
	}
	return all
}

// given are the labels of ours that a neighbour may use, used those of it that we use.
func (n *Core) given(b *neighbour) []wire.Rule { return n.shared(b, true) }
func (n *Core) used(b *neighbour) []wire.Rule  { return n.shared(b, false) }

// syncRules opens the comparison when a link came up.
func (n *Core) syncRules(now time.Duration, b *neighbour) {
	n.request++
	b.rulesAsk = wire.Rules{Request: n.request}
	b.rulesN = 0
	b.rulesHeld = map[wire.PathID]uint32{}
	for _, r := range n.given(b) {
		b.rulesHeld[r.ID] = r.Base
	}
	n.sendRules(now, b)
}

func (n *Core) sendRules(now time.Duration, b *neighbour) {
	given := n.given(b)
	b.rulesAsk.Count, b.rulesAsk.Digest = uint32(len(given)), wire.RulesDigest(given)
	b.rulesAt = now + b.retry(now, rulesRetry<<b.rulesN)
	b.rulesN++
	n.send(now, b, b.rulesAsk)
}

// receiveRules answers a neighbour's statement: equal, or the list of what we use.
func (n *Core) receiveRules(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRules(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	used := n.used(b)
	if int(f.Count) == len(used) && f.Digest == wire.RulesDigest(used) {
		n.send(now, b, wire.Ack{Request: f.Request})
		return
	}
	pages := max(1, (len(used)+wire.MaxRules-1)/wire.MaxRules)
	for i := range pages {
		page := used[min(i*wire.MaxRules, len(used)):min((i+1)*wire.MaxRules, len(used))]
		n.send(now, b, wire.RulesList{Request: f.Request, Page: uint16(i), Pages: uint16(pages), Rules: page})
	}
}

// receiveAck ends a comparison in which both held the same, and takes note of a page of our digest that came.
func (n *Core) receiveAck(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseAck(body)
	if err == nil && b.shown.open > 0 && f.Request == b.shown.request {
		b.shown.open--
	}
	if err != nil || b.rulesAsk.Request == 0 || f.Request != b.rulesAsk.Request {
		return
	}
	b.endRules()
	n.confirmRules(now, b)
}

// endRules ends a comparison. Of a list some pages may have come, before what was lost was asked again and found equal.
func (b *neighbour) endRules() { b.rulesAsk.Request, b.listed = 0, nil }

// receiveRulesList takes a page of what the neighbour uses; with the last one the difference is known.
func (n *Core) receiveRulesList(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRulesList(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if b.rulesAsk.Request == 0 || f.Request != b.rulesAsk.Request || int(f.Pages) > maxRelays/wire.MaxRules*2 {
		return
	}
	if b.listed == nil || b.listFor != f.Request {
		b.listed, b.listFor, b.listPages = map[wire.PathID]uint32{}, f.Request, map[uint16]bool{}
	}
	b.listPages[f.Page] = true
	for _, r := range f.Rules {
		b.listed[r.ID] = r.Base
	}
	if len(b.listPages) < int(f.Pages) {
		return
	}
	listed := b.listed
	b.endRules()
	for _, r := range n.given(b) {
		base, ok := listed[r.ID]
		delete(listed, r.ID)
		// What was made while the question was under way may be missing in the answer.
		if _, held := b.rulesHeld[r.ID]; held && !ok || ok && base != r.Base {
			n.dropShared(now, b, r.ID)
		}
	}
	for id := range listed {
		n.send(now, b, wire.Remove{ID: id, Reason: wire.ReasonStale})
	}
	n.confirmRules(now, b)
}

// dropShared ends a path or rule that the neighbour does not know.
func (n *Core) dropShared(now time.Duration, b *neighbour, id wire.PathID) {
	if p := n.paths[id]; p != nil {
		if p.source {
			p.sess.renew = len(p.hops) == 2 // a direct neighbour that lost the path lost the session
		}
		n.pathGone(now, p, "neighbour does not know it")
		return
	}
	if r := n.relays[id]; r != nil {
		n.removeRelay(now, r, wire.ReasonStale, b.link.Peer())
	}
}

// confirmRules marks the neighbour's side of restored rules as known.
func (n *Core) confirmRules(_ time.Duration, b *neighbour) {
	k := b.link.Peer()
	for _, r := range n.relays {
		if r.staleUntil == 0 {
			continue
		}
		r.confirmedPrev = r.confirmedPrev || r.prev == k
		r.confirmedNext = r.confirmedNext || r.next == k
		if r.confirmedPrev && r.confirmedNext {
			r.staleUntil = 0
		}
	}
}

func (n *Core) tickRules(now time.Duration) {
	for _, l := range n.linkList() {
		b := n.neighbour(l)
		if b.rulesAsk.Request == 0 || !b.up || now < b.rulesAt {
			continue
		}
		if b.rulesN >= rulesTries {
			b.endRules()
			continue
		}
		n.sendRules(now, b)
	}
}

// Rule is a relay rule as it survives a restart: neighbours by key, no keys, no counters.
type Rule struct {
	ID             wire.PathID
	Source, Dest   key.Public
	Previous, Next key.Public
	ForwardBase    uint32
	BackBase       uint32
	NextBase       uint32
	PreviousBase   uint32
	Forward, Back  uint8 // lanes
	Idle           time.Duration
}

// stands reports whether a rule is more than a setup under way: it was accepted, or restored.
func (r *relay) stands() bool { return r.fwd != nil || r.staleUntil != 0 }

// Rules returns the relay rules that are old enough to be worth storing.
func (n *Core) Rules(now time.Duration) []Rule {
	var all []Rule
	for _, r := range n.relayList() {
		if !r.stands() || now-r.created < n.cfg.StoreAfter {
			continue
		}
		all = append(all, Rule{
			ID: r.id, Source: r.source, Dest: r.dest, Previous: r.prev, Next: r.next, ForwardBase: r.fwdBase, BackBase: r.backBase,
			NextBase: r.nextBase, PreviousBase: r.prevBase, Forward: uint8(r.fwdN), Back: uint8(r.backN), Idle: r.idle,
		})
	}
	return all
}

// Restore takes stored rules at start, before any link is up. They carry frames as soon as both links are back, and go
// unless both neighbours confirm them within a minute.
func (n *Core) Restore(now time.Duration, rules []Rule) {
	for _, s := range rules {
		if n.relays[s.ID] != nil || n.plane.Restore(s.ForwardBase, int(s.Forward)) != nil {
			continue
		}
		if n.plane.Restore(s.BackBase, int(s.Back)) != nil {
			n.plane.Free(s.ForwardBase, int(s.Forward), now)
			continue
		}
		n.seq++
		n.addRelay(&relay{
			id: s.ID, seq: n.seq, source: s.Source, dest: s.Dest, prev: s.Previous, next: s.Next, fwdBase: s.ForwardBase,
			backBase: s.BackBase, nextBase: s.NextBase, prevBase: s.PreviousBase, fwdN: int(s.Forward), backN: int(s.Back),
			idle: s.Idle, created: now - n.cfg.StoreAfter, heard: now, staleUntil: now + restoredStale,
		})
	}
}

// linkRestored gives restored rules their meaning once both their links are known.
func (n *Core) linkRestored(now time.Duration, b *neighbour) {
	k := b.link.Peer()
	for _, r := range n.relayList() {
		if r.fwd != nil || r.staleUntil == 0 || r.prev != k && r.next != k {
			continue
		}
		prev, next := n.upLink(r.prev), n.upLink(r.next)
		if prev == nil || next == nil {
			continue
		}
		r.heard = now
		n.installRelay(r, prev, next)
	}
}
