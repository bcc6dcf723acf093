package group

import (
	"bytes"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// bitset is a set of changes by their index.
type bitset [MaxOps / 64]uint64

func (b *bitset) set(i int)      { b[i/64] |= 1 << (i % 64) }
func (b *bitset) has(i int) bool { return b[i/64]>>(i%64)&1 != 0 }

func without(b bitset, i int) bitset {
	b[i/64] &^= 1 << (i % 64)
	return b
}

func (b *bitset) or(o bitset) {
	for i := range b {
		b[i] |= o[i]
	}
}

// rank orders admins: the lower is above. It is when one became admin: how deep in the log, at which seat of a founding, and the
// change that did it.
type rank struct {
	depth, seat int
	id          OpID
}

func (a rank) less(b rank) bool {
	if a.depth != b.depth {
		return a.depth < b.depth
	}
	if a.seat != b.seat {
		return a.seat < b.seat
	}
	return bytes.Compare(a.id[:], b.id[:]) < 0
}

// state is a roster that follows from a set of changes.
type state struct {
	name    string
	members map[key.Public]*seat
	void    bitset
	// judged and dead keep what isVoid found, until void changes: an admin of many grants would make it look at all paths.
	judged, dead bitset
}

func (st *state) spoil(i int) {
	st.void.set(i)
	st.judged, st.dead = bitset{}, bitset{}
}

type seat struct {
	place  envelope.Place
	grants []int // changes that made it admin; none: it is not
	rank   rank  // of the first of them
}

func (s *seat) grant(n *node, at int) {
	g := rank{n.depth, at, n.id}
	if len(s.grants) == 0 || g.less(s.rank) {
		s.rank = g
	}
	s.grants = append(s.grants, n.index)
}

// above tells whether a may take something from b.
func (st *state) above(a, b key.Public) bool {
	x, y := st.members[a], st.members[b]
	switch {
	case x == nil || y == nil || len(x.grants) == 0:
		return false
	case len(y.grants) == 0:
		return true
	}
	return x.rank.less(y.rank)
}

// allowed judges a change by the state of its past, and notes what made its author an admin there.
func (r *Roster) allowed(n *node, st *state) error {
	me, target := st.members[n.Account], st.members[n.Target]
	if me == nil {
		return ErrForbidden
	}
	admin := len(me.grants) > 0
	n.grants, n.rank = append([]int(nil), me.grants...), me.rank
	if n.Kind == Leave {
		return nil
	}
	ok := admin
	switch n.Kind {
	case Add:
		ok = ok && target == nil
		if ok && len(st.members) >= MaxMembers {
			return ErrFull
		}
	case Remove:
		ok = ok && n.Target != n.Account && st.above(n.Account, n.Target)
	case Promote:
		ok = ok && target != nil && len(target.grants) == 0
		if ok && st.admins() >= MaxAdmins {
			return ErrFull
		}
	case Demote:
		ok = ok && target != nil && len(target.grants) > 0 && (n.Target == n.Account || st.above(n.Account, n.Target))
	case Rename:
	default:
		ok = false
	}
	if !ok {
		return ErrForbidden
	}
	return nil
}

func (st *state) admins() (n int) {
	for _, s := range st.members {
		if len(s.grants) > 0 {
			n++
		}
	}
	return n
}

func (r *Roster) all() (b bitset) {
	for i := range r.nodes {
		b.set(i)
	}
	return b
}

// eval is the roster that follows from a set of changes that has all that its members follow.
//
//  1. Takings (remove, demote, leave) in the order of their authors' ranks, the highest first: each that is not void makes void what
//     it and another did not see of each other: what its target did, and what gave its target something.
//  2. What is left is applied in the order of depth and id, but for changes of an author who was made an admin by void ones alone.
//     That he has left meanwhile without seeing his own change takes nothing from it: else who was evicted could bring back those
//     whom he evicted before, by having left earlier.
//
// The order of 1 settles who of two that evict each other at the same time stays: the one above. Since one below can't evict
// one above, this happens only where two became admins without seeing each other.
func (r *Roster) eval(set bitset) *state {
	var in, takings []*node
	for _, n := range r.nodes {
		if set.has(n.index) {
			in = append(in, n)
			if n.Kind == Remove || n.Kind == Demote || n.Kind == Leave {
				takings = append(takings, n)
			}
		}
	}
	st := &state{members: map[key.Public]*seat{}}
	st.bar(in)
	sort.Slice(takings, func(i, j int) bool { return takings[i].before(takings[j]) })
	var settled bitset
	for _, e := range takings {
		if st.isVoid(e, r.nodes) {
			continue
		}
		settled.set(e.index)
		for _, x := range in {
			if x != e && !settled.has(x.index) && !x.past.has(e.index) && !e.past.has(x.index) && e.voids(x) {
				st.spoil(x.index)
			}
		}
	}
	sort.Slice(in, func(i, j int) bool {
		if in[i].depth != in[j].depth {
			return in[i].depth < in[j].depth
		}
		return bytes.Compare(in[i].id[:], in[j].id[:]) < 0
	})
	for _, n := range in {
		if st.isVoid(n, r.nodes) || !st.apply(n) {
			st.spoil(n.index)
		}
	}
	return st
}

// before is the order of takings: who leaves needs nobody's leave, then by rank.
func (n *node) before(o *node) bool {
	if a, b := n.Kind == Leave, o.Kind == Leave; a != b {
		return a
	}
	if n.rank != o.rank {
		return n.rank.less(o.rank)
	}
	return bytes.Compare(n.id[:], o.id[:]) < 0
}

// voids tells whether a taking makes a change void that it did not see, nor was seen by.
func (n *node) voids(x *node) bool {
	target := n.Target
	if n.Kind == Leave {
		target = n.Account
	}
	switch {
	case x.Target == target && (x.Kind == Promote || x.Kind == Add && n.Kind != Demote):
		return true
	case x.Account == target:
		return n.Kind != Leave && x.Kind != Leave
	}
	return false
}

// bar makes void what a device did whose revocation stands in a change of its account that did not see it.
func (st *state) bar(in []*node) {
	for _, n := range in {
		for _, k := range n.bars {
			for _, x := range in {
				if x.Device == k && x.Account == n.Account && x.Kind != Found && !n.past.has(x.index) {
					st.spoil(x.index)
				}
			}
		}
	}
}

// isVoid tells whether a change is void by itself, or because all that made its author an admin is.
func (st *state) isVoid(n *node, nodes []*node) bool {
	switch {
	case st.void.has(n.index):
		return true
	case len(n.grants) == 0 || n.Kind == Leave:
		return false
	case st.judged.has(n.index):
		return st.dead.has(n.index)
	}
	void := true
	for _, g := range n.grants {
		void = void && st.isVoid(nodes[g], nodes)
	}
	st.judged.set(n.index)
	if void {
		st.dead.set(n.index)
	}
	return void
}

// apply does a change, and tells whether it was possible.
func (st *state) apply(n *node) bool {
	if n.Kind == Found {
		st.name = n.Name
		for i, s := range n.Seats {
			m := &seat{place: s.Place}
			if s.Admin {
				m.grant(n, i)
			}
			st.members[s.Account] = m
		}
		return true
	}
	target := st.members[n.Target]
	switch n.Kind {
	case Add:
		if target != nil {
			return true // two added it at the same time
		}
		if len(st.members) >= MaxMembers {
			return false
		}
		st.members[n.Target] = &seat{place: n.Place}
	case Remove:
		delete(st.members, n.Target)
	case Leave:
		delete(st.members, n.Account)
	case Promote:
		if target == nil || len(target.grants) == 0 && st.admins() >= MaxAdmins {
			return false
		}
		target.grant(n, 0)
	case Demote:
		if target == nil {
			return false
		}
		target.grants, target.rank = nil, rank{}
	case Rename:
		st.name = n.Name
	}
	return true
}
