package route

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"skywire/mesh/key"
)

// MaxDigest bounds the entries of one digest: 40 kB.
const MaxDigest = 1024

const digestHeader = 32 + 32 + 2

// DigestEntry names a record by its key and number.
type DigestEntry struct {
	Key    key.Public
	Number uint64
}

// Digest says which records a database holds with keys between First and Last, both included. What it does not list
// within these, it lacks. Layout, all numbers big endian:
//
//	first 32 │ last 32 │ count u16 │ count × {key 32 │ number 8}, keys rising
type Digest struct {
	First, Last key.Public
	Entries     []DigestEntry
}

// Append appends the encoding of g.
func (g Digest) Append(b []byte) []byte {
	b = append(append(b, g.First[:]...), g.Last[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(g.Entries)))
	for _, e := range g.Entries {
		b = binary.BigEndian.AppendUint64(append(b, e.Key[:]...), e.Number)
	}
	return b
}

// ParseDigest decodes what Append makes and nothing else.
func ParseDigest(b []byte) (Digest, error) {
	var g Digest
	if len(b) < digestHeader {
		return g, fmt.Errorf("%w: %d bytes", ErrDigest, len(b))
	}
	copy(g.First[:], b)
	copy(g.Last[:], b[32:])
	n := int(binary.BigEndian.Uint16(b[64:]))
	if b = b[digestHeader:]; n > MaxDigest || len(b) != n*40 {
		return Digest{}, fmt.Errorf("%w: %d entries in %d bytes", ErrDigest, n, len(b))
	}
	g.Entries = make([]DigestEntry, n)
	prev := g.First
	for i := range g.Entries {
		e := &g.Entries[i]
		copy(e.Key[:], b[i*40:])
		e.Number = binary.BigEndian.Uint64(b[i*40+32:])
		if e.Key.Less(prev) || g.Last.Less(e.Key) || i > 0 && e.Key == prev {
			return Digest{}, fmt.Errorf("%w: keys out of order", ErrDigest)
		}
		prev = e.Key
	}
	return g, nil
}

// Sum is a checksum over keys and numbers of all records: two databases with equal sums have nothing to tell each other.
func (d *DB) Sum() uint64 { return d.sum }

// Digests returns digests that together cover all keys, each of at most limit entries (MaxDigest if limit is 0 or more).
func (d *DB) Digests(limit int) []Digest {
	if limit <= 0 || limit > MaxDigest {
		limit = MaxDigest
	}
	var all []Digest
	first := key.Public{}
	for part := range slices.Chunk(d.Entries(), limit) {
		g := Digest{First: first}
		for _, e := range part {
			g.Entries = append(g.Entries, DigestEntry{Key: e.Key, Number: e.Number})
		}
		g.Last = part[len(part)-1].Key
		first = next(g.Last)
		all = append(all, g)
	}
	if len(all) == 0 {
		all = append(all, Digest{})
	}
	for i := range all[len(all)-1].Last {
		all[len(all)-1].Last[i] = 0xff
	}
	return all
}

// next returns the key after k. The last of all keys has none, but no valid identity is that high.
func next(k key.Public) key.Public {
	for i := len(k) - 1; i >= 0; i-- {
		if k[i]++; k[i] != 0 {
			break
		}
	}
	return k
}

// Diff compares a neighbour's digest with what is held: newer are the entries the neighbour lacks or has older, want are
// the keys of records that it has newer.
func (d *DB) Diff(now time.Duration, g Digest) (newer []*Entry, want []key.Public) {
	theirs := make(map[key.Public]uint64, len(g.Entries))
	for _, e := range g.Entries {
		theirs[e.Key] = e.Number
		held, buried := d.entries[e.Key], d.buried[e.Key]
		switch {
		case held != nil && held.Number >= e.Number:
		case e.Key == d.c.Self && e.Number <= d.own.floor:
		case held == nil && now < buried.until && e.Number <= buried.number:
		default:
			want = append(want, e.Key)
		}
	}
	for k, e := range d.entries {
		if k.Less(g.First) || g.Last.Less(k) {
			continue
		}
		if n, ok := theirs[k]; !ok || n < e.Number {
			newer = append(newer, e)
		}
	}
	slices.SortFunc(newer, func(a, b *Entry) int { return order(a.Key, b.Key) })
	return newer, want
}
