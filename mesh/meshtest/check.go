package meshtest

import (
	"fmt"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/wire"
)

// Check holds the whole mesh against its invariants and returns what is broken, in words: no frame goes in a circle, no
// label of a node means two things, nothing hangs on a node that may not be here, no packet came out where it was not for.
// They hold at every moment.
func (n *Net) Check() (broken []string) {
	audits := map[key.Public]node.Audit{}
	for _, nd := range n.nodes {
		if nd.Core == nil {
			continue
		}
		a := nd.Core.Audit(nd.clock())
		audits[nd.Key] = a
		broken = append(broken, labelsTwice(nd, a)...)
		for _, r := range a.Refused {
			broken = append(broken, fmt.Sprintf("%s: %s", nd, r))
		}
	}
	for _, nd := range n.nodes {
		for _, e := range audits[nd.Key].Ends {
			if why := follow(audits, nd.Key, e); why != "" {
				broken = append(broken, fmt.Sprintf("%s: path %x to %s: %s", nd, e.ID[:4], e.Peer.Short(), why))
			}
		}
	}
	if n.Stray > 0 {
		broken = append(broken, fmt.Sprintf("%d packets came out at a node that they were not for", n.Stray))
	}
	return broken
}

// labelsTwice looks for label blocks of a node that share a slot.
func labelsTwice(nd *Node, a node.Audit) (broken []string) {
	type block struct {
		base uint32
		n    int
		what string
	}
	var all []block
	for _, r := range a.Rules {
		all = append(all, block{r.Base & wire.MaxSlot, r.Lanes, fmt.Sprintf("rule of %x", r.ID[:4])})
	}
	total := 0
	for _, e := range a.Ends {
		all = append(all, block{e.Base & wire.MaxSlot, e.In, fmt.Sprintf("end of %x", e.ID[:4])})
	}
	sort.Slice(all, func(i, j int) bool { return all[i].base < all[j].base })
	for i, b := range all {
		total += b.n
		if i > 0 && all[i-1].base+uint32(all[i-1].n) > b.base {
			broken = append(broken, fmt.Sprintf("%s: label %#x means two things: %s, %s", nd, b.base, all[i-1].what, b.what))
		}
	}
	if total != a.Slots {
		broken = append(broken, fmt.Sprintf("%s: %d labels are given out, rules and paths hold %d", nd, a.Slots, total))
	}
	return broken
}

// follow goes where the frames of a path go, label by label. A way that ends nowhere is a path that broke; a way that comes
// by a node twice is a loop.
func follow(audits map[key.Public]node.Audit, from key.Public, e node.EndAudit) string {
	if !e.Stands {
		return ""
	}
	been := map[key.Public]bool{from: true}
	at, in, label := e.Next, from, e.Out
	for range wire.MaxTTL + 2 {
		a, alive := audits[at]
		if !alive {
			return ""
		}
		for _, o := range a.Ends {
			if o.Base == label && o.Stands && o.Next == in {
				if o.Peer != from {
					return fmt.Sprintf("ends at %s, who holds it for one of %s", at.Short(), o.Peer.Short())
				}
				return ""
			}
		}
		if been[at] {
			return "comes by " + at.Short() + " twice"
		}
		been[at] = true
		next := ruleAt(a, label, in)
		if next == nil {
			return ""
		}
		at, in, label = next.To, at, next.Out
	}
	return "is longer than frames live"
}

func ruleAt(a node.Audit, label uint32, from key.Public) *node.RuleAudit {
	for i := range a.Rules {
		if r := &a.Rules[i]; r.Base == label && r.From == from && r.Stands {
			return r
		}
	}
	return nil
}

// CheckEqual returns where connected nodes hold different records. It holds once news had time to travel.
func (n *Net) CheckEqual() (broken []string) {
	for _, group := range n.groups() {
		first := group[0].Core.DB()
		for _, nd := range group[1:] {
			if d := nd.Core.DB(); d.Sum() != first.Sum() || d.Len() != first.Len() {
				broken = append(broken, fmt.Sprintf("%s holds %d records, %s holds %d, and not the same", group[0], first.Len(), nd, d.Len()))
			}
		}
	}
	return broken
}

// CheckIdle returns what nodes still hold of sessions and paths. It holds IdleAfter after the last packet.
func (n *Net) CheckIdle() (broken []string) {
	for _, nd := range n.nodes {
		if nd.Core == nil {
			continue
		}
		a := nd.Core.Audit(nd.clock())
		if a.Slots > 0 {
			broken = append(broken, fmt.Sprintf("%s: %d labels left", nd, a.Slots))
		}
		for _, what := range []string{"sessions", "paths", "plane_paths", "relays", "rules_of", "waiters", "waiting", "flood", "acks", "listed", "echoes"} {
			if a.Tables[what] > 0 {
				broken = append(broken, fmt.Sprintf("%s: %d %s left", nd, a.Tables[what], what))
			}
		}
	}
	return broken
}

// IdleAfter is how long after the last packet a mesh holds no session, path or rule any more.
const IdleAfter = 6 * time.Minute

// groups are the nodes that run and are connected by wires.
func (n *Net) groups() (all [][]*Node) {
	near := map[*Node][]*Node{}
	n.Wires(func(a, b *Node, w *Wire) {
		if !w.Down && a.Core != nil && b.Core != nil {
			near[a], near[b] = append(near[a], b), append(near[b], a)
		}
	})
	seen := map[*Node]bool{}
	for _, nd := range n.nodes {
		if nd.Core == nil || seen[nd] {
			continue
		}
		group := []*Node{nd}
		seen[nd] = true
		for i := 0; i < len(group); i++ {
			for _, o := range near[group[i]] {
				if !seen[o] {
					seen[o] = true
					group = append(group, o)
				}
			}
		}
		all = append(all, group)
	}
	return all
}

// Connected reports whether wires and running nodes lead from one node to another.
func (n *Net) Connected(a, b *Node) bool {
	for _, group := range n.groups() {
		hasA, hasB := false, false
		for _, nd := range group {
			hasA, hasB = hasA || nd == a, hasB || nd == b
		}
		if hasA || hasB {
			return hasA && hasB
		}
	}
	return false
}
