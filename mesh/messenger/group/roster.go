package group

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// Epoch names the state of a log: the start of SHA-256 of its heads.
type Epoch [8]byte

// Member is who is in a group.
type Member struct {
	Account key.Public
	Admin   bool
	Place   envelope.Place // where it was met when it was added; its cards say better
}

// Roster is the log of one group and what follows from it.
type Roster struct {
	id         envelope.GroupID
	generation uint32
	nodes      []*node // in an order of arrival, parents first; the first is the founding
	byID       map[OpID]*node
	state      *state // of all of them; nil: to be made anew
	heads      []OpID
	size       int // of all changes, in bytes
}

// node is a change in the log.
type node struct {
	*Op
	id     OpID
	raw    []byte
	index  int
	past   bitset // what it follows, directly or not
	depth  int
	rank   rank  // of its author as an admin, in its past
	grants []int // changes that made its author an admin there
	bars   []key.Public
	proven bool // the statements in it prove its device
}

// Put offers a change. What is held makes no news and no error. Lost are changes that a new generation left behind: the founder had
// not seen them, so who made them, and still may, is to make them again.
func (r *Roster) Put(raw []byte) (news bool, lost []*Op, err error) {
	id := OpID(sha256.Sum256(raw))
	if r.byID[id] != nil {
		return false, nil, nil
	}
	o, err := ParseOp(raw)
	if err != nil {
		return false, nil, err
	}
	if r.byID != nil && o.Group != r.id {
		return false, nil, fmt.Errorf("change of group %s: %w", o.Group, ErrOther)
	}
	n := &node{Op: o, id: id, raw: append([]byte(nil), raw...)}
	if err := n.prove(); err != nil {
		return false, nil, err
	}
	if o.Kind == Found {
		return r.found(n)
	}
	if r.byID == nil {
		return false, nil, fmt.Errorf("%s: %w", o.Kind, ErrOrphan)
	}
	if err := r.place(n); err != nil {
		return false, nil, fmt.Errorf("%s by %s: %w", o.Kind, o.Account.Short(), err)
	}
	r.add(n)
	return true, nil, nil
}

// found begins the group or its next generation. Of two of one generation the greater id counts, for all alike.
func (r *Roster) found(n *node) (news bool, lost []*Op, err error) {
	if n.Device != n.Account && !n.proven {
		return false, nil, fmt.Errorf("founding: %w", ErrAuthority)
	}
	if r.byID != nil {
		if n.Generation < r.generation || n.Generation == r.generation && bytes.Compare(n.id[:], r.nodes[0].id[:]) < 0 {
			return false, nil, fmt.Errorf("generation %d: %w", n.Generation, ErrStale)
		}
		seen := bitset{}
		for _, p := range n.Parents {
			if o := r.byID[p]; o != nil {
				seen.or(o.past)
				seen.set(o.index)
			}
		}
		st := r.current()
		for _, o := range r.nodes[1:] {
			if !seen.has(o.index) && !st.void.has(o.index) {
				lost = append(lost, o.Op)
			}
		}
	}
	*r = Roster{id: n.Group, generation: n.Generation, byID: map[OpID]*node{}}
	r.add(n)
	return true, lost, nil
}

// place finds the change's past and judges it by that alone: so all who have it judge alike.
func (r *Roster) place(n *node) error {
	n.index = len(r.nodes)
	for _, id := range n.Parents {
		p := r.byID[id]
		if p == nil {
			return ErrOrphan
		}
		n.past.or(p.past)
		n.past.set(p.index)
		n.depth = max(n.depth, p.depth+1)
	}
	own := 0
	for _, o := range r.nodes {
		if o.Account == n.Account {
			own++
		}
		if n.past.has(o.index) && o.Account == n.Account && slices.Contains(o.bars, n.Device) {
			return ErrAuthority
		}
		if n.past.has(o.index) && o.Device == n.Device && o.Account == n.Account && o.proven {
			n.proven = true
		}
	}
	if n.Device != n.Account && !n.proven {
		return ErrAuthority
	}
	if len(r.nodes) >= MaxOps || r.size+len(n.raw) > len(r.nodes[0].raw)+MaxBytes || own >= MaxPerAccount && n.Account != r.nodes[0].Account {
		return ErrFull
	}
	if n.past == r.all() {
		return r.allowed(n, r.current())
	}
	return r.allowed(n, r.eval(n.past))
}

func (r *Roster) add(n *node) {
	n.index = len(r.nodes)
	r.nodes = append(r.nodes, n)
	r.byID[n.id] = n
	r.size += len(n.raw)
	if before := r.all(); r.state != nil && n.Kind != Found && n.past == without(before, n.index) {
		if !r.state.apply(n) { // it follows all there is, so it comes last and makes nothing void
			r.state.spoil(n.index)
		}
	} else {
		r.state = nil
	}
	gone := map[OpID]bool{}
	if n.Kind != Found {
		for _, p := range n.Parents {
			gone[p] = true
		}
	}
	heads := []OpID{n.id}
	for _, h := range r.heads {
		if !gone[h] {
			heads = append(heads, h)
		}
	}
	sortIDs(heads)
	r.heads = heads
}

func sortIDs(ids []OpID) {
	sort.Slice(ids, func(i, j int) bool { return bytes.Compare(ids[i][:], ids[j][:]) < 0 })
}

// prove reads the statements of a change. Time is no part of it: what was proven once is so for all who read the log later; a
// certificate that ran out since keeps its device from being heard by the messenger, not from having spoken.
func (n *node) prove() error {
	if len(n.Statements) == 0 {
		return nil
	}
	s := member.New(member.Config{Cluster: n.Account}, member.Instant{})
	for _, raw := range n.Statements {
		if _, err := s.Put(member.Instant{}, raw); err != nil && !errors.Is(err, member.ErrStale) {
			return fmt.Errorf("statements of %s: %w: %w", n.Device.Short(), ErrAuthority, err)
		}
	}
	for _, k := range s.Known() {
		switch m := s.Member(member.Instant{}, k); {
		case s.Revoked(k):
			n.bars = append(n.bars, k)
		case k == n.Device && m.Certificate != nil && m.Certificate.Roles&member.RoleMessenger != 0:
			n.proven = true
		}
	}
	if !n.proven {
		return fmt.Errorf("statements of %s: %w", n.Device.Short(), ErrAuthority)
	}
	return nil
}

// ID is the group's.
func (r *Roster) ID() envelope.GroupID { return r.id }

// Generation counts foundings; 0: nothing is held.
func (r *Roster) Generation() uint32 { return r.generation }

// Len is how many changes are held.
func (r *Roster) Len() int { return len(r.nodes) }

// Size is how many bytes the changes have.
func (r *Roster) Size() int { return r.size }

// Founder is the account that made the group; only it begins new generations, and nobody is above it.
func (r *Roster) Founder() key.Public {
	if len(r.nodes) == 0 {
		return key.Public{}
	}
	return r.nodes[0].Account
}

// Heads are the changes that no other follows; they rise.
func (r *Roster) Heads() []OpID { return append([]OpID(nil), r.heads...) }

// Epoch names this state of the log.
func (r *Roster) Epoch() (e Epoch) {
	h := sha256.New()
	for _, id := range r.heads {
		h.Write(id[:])
	}
	copy(e[:], h.Sum(nil))
	return e
}

// Name of the group.
func (r *Roster) Name() string { return r.current().name }

// Members in the order of their keys.
func (r *Roster) Members() []Member {
	st := r.current()
	all := make([]Member, 0, len(st.members))
	for k, s := range st.members {
		all = append(all, Member{k, len(s.grants) > 0, s.place})
	}
	sort.Slice(all, func(i, j int) bool { return bytes.Compare(all[i].Account[:], all[j].Account[:]) < 0 })
	return all
}

// Has tells whether an account is a member.
func (r *Roster) Has(k key.Public) bool { return r.current().members[k] != nil }

// Admin tells whether an account is an admin.
func (r *Roster) Admin(k key.Public) bool {
	s := r.current().members[k]
	return s != nil && len(s.grants) > 0
}

// Above tells whether a may take something from b: an admin from a member, or from an admin who became one after him.
func (r *Roster) Above(a, b key.Public) bool { return r.current().above(a, b) }

func (r *Roster) current() *state {
	if r.state == nil {
		r.state = r.eval(r.all())
	}
	return r.state
}

// Ops are all changes, parents first: for the store, and for a new member.
func (r *Roster) Ops() [][]byte {
	all := make([][]byte, 0, len(r.nodes))
	for _, n := range r.nodes {
		all = append(all, n.raw)
	}
	return all
}

// Lacking are the changes that one lacks whose log has these heads, parents first. Unknown tells that he has some that are not held
// here. Of another generation he lacks all, or we do.
func (r *Roster) Lacking(generation uint32, heads []OpID) (ops [][]byte, unknown bool) {
	switch {
	case generation > r.generation:
		return nil, true
	case generation < r.generation:
		return r.Ops(), false
	}
	var seen bitset
	for _, h := range heads {
		if n := r.byID[h]; n != nil {
			seen.or(n.past)
			seen.set(n.index)
		} else {
			unknown = true
		}
	}
	for _, n := range r.nodes {
		if !seen.has(n.index) {
			ops = append(ops, n.raw)
		}
	}
	return ops, unknown
}
