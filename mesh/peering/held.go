package peering

import (
	"fmt"
	"slices"
	"sort"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Peering is what is held of a pair, for people and for those who enforce it.
type Peering struct {
	Pair   Pair
	Other  key.Public
	Alias  string
	Allow  []string
	Used   Quota
	Record *Record // nil: only an end is held. It is not to be changed
	Ended  *End
	// Changes are the rotations that Record went through, Moved is the cluster key that took the place of Other (the zero key:
	// none), and Until the time up to which nodes under Other are received all the same.
	Changes []*Rotation
	Moved   key.Public
	Until   int64
	own     key.Public
}

// InForce tells whether it holds now (unix seconds).
func (p *Peering) InForce(now int64) bool {
	e := entry{record: p.Record, end: p.Ended, Moved: p.Moved, Until: p.Until}
	return e.inForce(now)
}

// Gives is what we let the other cluster use.
func (p *Peering) Gives() *Grant {
	own, _, _ := p.Record.Of(p.own)
	return &own.Gives
}

// Theirs is the other side.
func (p *Peering) Theirs() *Side {
	_, other, _ := p.Record.Of(p.own)
	return other
}

func (b *Book) peeringLocked(p Pair, e *entry) Peering {
	v := Peering{
		Pair: p, Alias: e.Alias, Allow: slices.Clone(e.Allow), Used: e.Used, Record: e.record, Ended: e.end,
		Changes: e.changes, Moved: e.Moved, Until: e.Until, own: b.own,
	}
	if e.record != nil {
		v.Other = v.Theirs().Cluster
	} else {
		v.Other = otherOf(e.end, b.own)
	}
	return v
}

// All lists what is held, in order of the names.
func (b *Book) All() []Peering {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := []Peering{}
	for p, e := range b.pairs {
		all = append(all, b.peeringLocked(p, e))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Alias < all[j].Alias })
	return all
}

// With returns the peering with a cluster.
func (b *Book) With(other key.Public) (Peering, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := PairOf(b.own, other)
	e := b.pairs[p]
	if e == nil {
		return Peering{}, false
	}
	return b.peeringLocked(p, e), true
}

// Find returns the peering that a person means: by our name for the cluster, its key, or the beginning of that.
func (b *Book) Find(word string) (Peering, error) {
	if k, err := key.Parse(word); err == nil {
		if p, ok := b.With(k); ok {
			return p, nil
		}
		return Peering{}, errNoPeering
	}
	var found []Peering
	for _, p := range b.All() {
		if p.Alias == word || len(word) >= 8 && len(word) <= key.TextLen && p.Other.String()[:len(word)] == word {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return Peering{}, errNoPeering
	}
	return found[0], nil
}

// Raws are all records and ends held, the ends first.
func (b *Book) Raws() (all [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.pairs {
		if len(e.End) > 0 {
			all = append(all, e.End)
		}
	}
	for _, e := range b.pairs {
		if e.inForce(0) {
			all = append(all, e.Record)
		}
	}
	return all
}

// raws of one pair.
func (b *Book) rawsOf(p Pair) (all [][]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.pairs[p]; e != nil {
		for _, raw := range [][]byte{e.End, e.Record} {
			if len(raw) > 0 {
				all = append(all, raw)
			}
		}
	}
	return all
}

// SetLocal sets what is ours alone: how we call the cluster, and who of us may use what it exports.
func (b *Book) SetLocal(other key.Public, alias string, allow []string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pairs[PairOf(b.own, other)]
	if e == nil {
		return errNoPeering
	}
	if alias != "" && alias != e.Alias {
		if !member.ValidName(alias) || b.freeAliasLocked(alias, other) != alias {
			return fmt.Errorf("name %q: no label of a host name, too long, or taken", alias)
		}
		e.Alias = alias
	}
	if allow != nil {
		e.Allow = allow
	}
	return b.saveLocked()
}

// Spend counts bytes against a grant of ours, and tells whether there is something left of it.
func (b *Book) Spend(p Pair, bytes uint64, now int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.pairs[p]
	for range maxRotations { // what nodes under an old key use is of the same quota
		if e == nil || e.record == nil {
			return false
		}
		if e.Moved.IsZero() {
			break
		}
		e = b.pairs[PairOf(b.own, e.Moved)]
	}
	if e == nil || e.record == nil {
		return false
	}
	if now >= e.Used.Since+quotaDays*24*3600 || now < e.Used.Since {
		e.Used = Quota{Since: now}
	}
	e.Used.Bytes += bytes
	own, _, _ := e.record.Of(b.own)
	return own.Gives.Quota == 0 || e.Used.Bytes < own.Gives.Quota
}

// Save writes what Spend counted.
func (b *Book) Save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.saveLocked()
}
