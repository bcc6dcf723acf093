package peering

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// How a book follows a cluster to its new key, and how that cluster takes its own book along.

// putCarriedLocked takes a record that a cluster carried over to its new key. Of the other cluster the old key ends here, in
// this record and in all others: no record, end or rotation of it is taken any more.
func (b *Book) putCarriedLocked(raw []byte) (news bool, p Pair, err error) {
	c, err := parseHeld(raw)
	if err != nil {
		return false, p, err
	}
	e, p, news, err := b.freshLocked(c.last(), raw)
	if !news || err != nil {
		return false, p, err
	}
	for i, change := range c.changes {
		if err := b.mayFollowLocked(c.steps[i], change); err != nil {
			return false, p, err
		}
	}
	news, p, err = b.storeLocked(e, p, raw, c)
	if !news {
		return false, p, err
	}
	for i, change := range c.changes {
		if err := b.leaveLocked(c, i, change, b.pairs[p]); err != nil {
			return false, p, err
		}
	}
	return true, p, nil
}

// mayFollowLocked tells whether what is held under the old key lets it go on from a record, as it was before the change: a
// newer one, and an end, are not undone by a rotation, and who has followed one is not led elsewhere by the old key.
func (b *Book) mayFollowLocked(before *Record, change *Rotation) error {
	if _, _, ours := before.Of(b.own); !ours {
		return nil // the step of a pair that was never ours: our own key was another one
	}
	old := b.pairs[before.Pair()]
	switch {
	case old == nil:
		return nil
	case !old.Moved.IsZero() && (old.Moved != change.New || old.Since != change.Seq):
		return fmt.Errorf("cluster %s has named %s as its new key before: %w", change.Old.Short(), old.Moved.Short(), ErrStale)
	case !old.Moved.IsZero():
		return nil // a later rotation brings this one along
	case old.end != nil && old.end.Seq >= before.Seq:
		return fmt.Errorf("rotation of a peering that ended: %w", ErrStale)
	case old.record != nil && old.record.Seq > before.Seq, change.Seq <= old.floor():
		return fmt.Errorf("rotation of record %d, where %d is held: %w", before.Seq, old.floor(), ErrStale)
	}
	return nil
}

// leaveLocked marks what is held under an old key of the other cluster: it has moved to heir, with its name.
func (b *Book) leaveLocked(c *carried, i int, change *Rotation, heir *entry) error {
	_, other, ours := c.steps[i].Of(b.own)
	if !ours || other.Cluster != change.Old {
		return nil
	}
	pair := c.steps[i].Pair()
	old := b.pairs[pair]
	if old == nil { // else the record of before would be as good as new to this box
		old = &entry{Record: c.append(i), record: c.steps[i], changes: c.changes[:i]}
		_, _ = old.learn(b.at(), b.own, nil)
		b.pairs[pair] = old
	} else if old.Moved.IsZero() {
		heir.Alias, heir.Allow, heir.Used = old.Alias, old.Allow, old.Used
	}
	old.Moved, old.Until, old.Since = change.New, change.Until, change.Seq
	old.Alias = ""
	old.Alias = b.freeAliasLocked(heir.Alias, other.Cluster)
	return nil
}

// errNoOldBook is of a box that never held the peerings of the old cluster.
func errNoOldBook(old key.Public) error {
	return signal.Errorf(signal.ErrNotFound, "this box has no peerings of cluster %s: do this where its messenger ran before the node moved to the new cluster", old.Short())
}

// aside reads the book of the cluster that this box was in before.
func (b *Book) aside(old key.Public) (*Book, error) {
	v := &Book{own: old, at: b.at, path: asideName(b.path, old), pairs: map[Pair]*entry{}, invites: map[InviteID]*made{}}
	raw, err := os.ReadFile(v.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errNoOldBook(old)
	}
	if err != nil {
		return nil, fmt.Errorf("peerings: %w", err)
	}
	if f, err := v.read(raw); err != nil {
		return nil, err
	} else if f.Cluster != old {
		return nil, errNoOldBook(old)
	}
	return v, nil
}

// Rotation is what the old and the new cluster key are to sign, and the names of the peerings that it carries over.
func (b *Book) Rotation(old key.Public, now, overlap int64, admin key.Public, list []byte, gates []member.Contact) (*Rotation, []string, error) {
	was, err := b.aside(old)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range b.All() {
		for _, c := range p.Changes {
			if c.Old == old && c.New == b.own {
				return nil, nil, signal.Errorf(signal.ErrRefused, "the peerings of cluster %s were carried over already; the other sides are told until they know (skywire messenger peer list)", old.Short())
			}
		}
	}
	r := &Rotation{Old: old, New: b.own, Issued: now, Until: now + overlap, Admin: admin, List: list, Gates: gates, Seq: rotationGap}
	var names []string
	for _, p := range was.All() {
		if p.Record == nil || !p.InForce(0) {
			continue
		}
		names = append(names, p.Alias)
		r.Seq = max(r.Seq, was.Floor(p.Pair)+rotationGap, b.Floor(PairOf(b.own, p.Other))+1)
	}
	if len(names) == 0 {
		return nil, nil, signal.Errorf(signal.ErrNotFound, "no peering of cluster %s is in force: there is nothing to carry over", old.Short())
	}
	return r, names, nil
}

// Carry takes the peerings along from the book of the old key. One that can't be is told by its error, and the others go on.
func (b *Book) Carry(raw []byte) (pairs []Pair, err error) {
	r, err := ParseRotation(raw)
	if err != nil {
		return nil, err
	}
	if r.New != b.own {
		return nil, fmt.Errorf("rotation to cluster %s, and this node is in %s: %w", r.New.Short(), b.own.Short(), ErrUntrusted)
	}
	was, err := b.aside(r.Old)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range was.pairs {
		if !e.inForce(0) {
			continue
		}
		pair, cerr := b.carryLocked(e, raw)
		if cerr != nil {
			err = errors.Join(err, fmt.Errorf("peering with %s: %w", e.Alias, cerr))
			continue
		}
		pairs = append(pairs, pair)
	}
	if len(pairs) > 0 {
		err = errors.Join(err, b.saveLocked())
	}
	return pairs, err
}

func (b *Book) carryLocked(e *entry, rotation []byte) (p Pair, err error) {
	c, err := parseHeld(e.Record)
	if err != nil {
		return p, err
	}
	raw, err := c.with(rotation)
	if err != nil {
		return p, err
	}
	if v, err := parseHeld(raw); err == nil && b.pairs[v.last().Pair()] != nil && bytes.Equal(b.pairs[v.last().Pair()].Record, raw) {
		return v.last().Pair(), nil // a second time
	}
	news, p, err := b.putCarriedLocked(raw)
	if news {
		to := b.pairs[p]
		to.Allow, to.Used = e.Allow, e.Used
		to.Alias = ""
		to.Alias = b.freeAliasLocked(e.Alias, otherIn(to.record, b.own))
		_, _ = to.learn(b.at(), b.own, e.Lists)
	}
	return p, err
}

func otherIn(r *Record, own key.Public) key.Public {
	_, other, _ := r.Of(own)
	return other.Cluster
}
