package node

import (
	"fmt"
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// Audit is what the invariants of a whole mesh are about: simulations compare the audits of all nodes.
type Audit struct {
	Rules  []RuleAudit
	Ends   []EndAudit
	Slots  int            // labels taken, whatever for
	Tables map[string]int // how much is in each table that others can fill
	// Refused are nodes that no policy admits, and what still hangs on them here.
	Refused []string
}

// RuleAudit is one direction of a relay rule.
type RuleAudit struct {
	ID        wire.PathID
	Base, Out uint32 // first label here, and at To
	Lanes     int
	From, To  key.Public // neighbours
	Stands    bool
}

// EndAudit is a path that ends here.
type EndAudit struct {
	ID        wire.PathID
	Base, Out uint32 // first label here, and at Next
	In, Lanes int    // labels here, and at Next
	Next      key.Public
	Peer      key.Public
	Stands    bool
}

// Audit returns the state of this moment.
func (n *Core) Audit(time.Duration) Audit {
	a := Audit{Slots: n.plane.Taken(), Tables: n.tables(), Refused: n.unadmitted()}
	for _, r := range n.relayList() {
		a.Rules = append(a.Rules,
			RuleAudit{ID: r.id, Base: r.fwdBase, Out: r.nextBase, Lanes: r.fwdN, From: r.prev, To: r.next, Stands: r.stands()},
			RuleAudit{ID: r.id, Base: r.backBase, Out: r.prevBase, Lanes: r.backN, From: r.next, To: r.prev, Stands: r.stands()})
	}
	for _, p := range n.pathList() {
		a.Ends = append(a.Ends, EndAudit{
			ID: p.id, Base: p.inBase, Out: p.outBase, In: p.inN, Lanes: p.outN, Next: p.first.link.Peer(), Peer: p.sess.peer,
			Stands: p.fp != nil,
		})
	}
	return a
}

// tables returns how much is in each table that others can fill.
func (n *Core) tables() map[string]int {
	s := map[string]int{
		"sessions": len(n.sessions), "addresses": len(n.byAddr), "plane_paths": len(n.byPath), "paths": len(n.paths),
		"relays": len(n.relays), "sources": len(n.sources), "rules_of": len(n.rulesOf), "proposals": len(n.proposals),
		"echoes": len(n.echoes), "records": n.db.Len(),
	}
	n.links.All(func(l *link.Link) {
		b := n.neighbour(l)
		s["links"]++
		s["flood"] += len(b.flood)
		s["acks"] += len(b.acks)
		s["listed"] += len(b.listed)
	})
	for _, o := range n.sessions {
		s["waiters"] += len(o.waiters)
		s["waiting"] += len(o.waiting)
		s["failed"] += len(o.failed)
		s["keys"] += len(o.ring.All())
	}
	return s
}

// unadmitted tells what hangs on nodes that may not be here.
func (n *Core) unadmitted() (all []string) {
	say := func(what string, k key.Public) {
		if err := n.admit(k); k != n.self && err != nil {
			all = append(all, fmt.Sprintf("%s of %s: %v", what, k.Short(), err))
		}
	}
	for _, s := range n.sessionList() {
		say("session", s.peer)
	}
	for _, r := range n.relayList() {
		say("rule from", r.source)
		if !r.dest.IsZero() { // a restored rule does not know it
			say("rule to", r.dest)
		}
	}
	n.links.All(func(l *link.Link) {
		if l.State() == link.Up {
			say("link", l.Peer())
		}
	})
	return all
}

// PathTo returns the nodes of the path that carries what we send to a peer, from us to it; nil if there is none.
func (n *Core) PathTo(peer key.Public) []key.Public {
	s := n.sessions[peer]
	if s == nil || s.active == nil {
		return nil
	}
	hops := slices.Clone(s.active.hops)
	if !s.active.source {
		slices.Reverse(hops)
	}
	return hops
}
