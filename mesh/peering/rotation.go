package peering

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// A cluster whose key is replaced is another network with another list. Its peerings go on because the old cluster key names
// the new one, and the new one agrees: no administrator of either side has to consent again, and none could do it in place
// of the old cluster key, for a peering would then be only as safe as the weakest of the keys that sign daily.

const (
	kindRotation = 4
	kindCarried  = 5

	purposeRotation = "peering-rotation"

	// MaxCarried bounds a record with its rotations, in bytes.
	MaxCarried = 24 << 10
	// maxRotations of one record; after so many a new agreement is due, which begins anew.
	maxRotations = 4
	// rotationGap is how far a rotation leaves the numbers that the one who rotates knows of: the other side may hold a record
	// that he has not got yet.
	rotationGap = 16
	// maxOverlap is how long nodes under the old key may come still, at most.
	maxOverlap = 30 * 24 * 3600
)

// Rotation says that a cluster has a new cluster key, in every peering that it has: signed by the old one and by the new one.
type Rotation struct {
	Old, New key.Public
	Seq      uint64 // of every peering from then on: above all numbers used before
	Issued   int64  // unix seconds
	Until    int64  // nodes with certificates under the old key are received till then; not before Issued
	Admin    key.Public
	List     []byte // the admin list of the new cluster, which names Admin
	Gates    []member.Contact
}

// body is what both cluster keys sign:
//
//	kind 4 │ version 1 │ old 32 │ new 32 │ seq 8 │ issued 8 │ until 8 │ admin 32 │ list {length 2, bytes} │ gates 1, each {key 32, text}
func (r *Rotation) body() []byte {
	b := append([]byte{kindRotation, recordVersion}, r.Old[:]...)
	b = binary.BigEndian.AppendUint64(append(b, r.New[:]...), r.Seq)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Issued))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Until))
	return appendGates(appendBytes(append(b, r.Admin[:]...), r.List), r.Gates)
}

// Sign encodes the rotation: the body and the signatures of the old and the new cluster key.
func (r *Rotation) Sign(old, successor *key.Private) ([]byte, error) {
	b := r.body()
	first, second := old.Sign(purposeRotation, key.NetworkID{}, b), successor.Sign(purposeRotation, key.NetworkID{}, b)
	raw := append(append(b, first[:]...), second[:]...)
	if _, err := ParseRotation(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// ParseRotation decodes a rotation and checks both signatures, and that the new list lets its administrator admit nodes.
func ParseRotation(raw []byte) (*Rotation, error) {
	if len(raw) > MaxRecord || len(raw) < 2*signatureLen {
		return nil, fmt.Errorf("rotation: %w", ErrFormat)
	}
	at := len(raw) - 2*signatureLen
	c := &cursor{b: raw[:at]}
	kind, version := c.u8(), c.u8()
	r := &Rotation{
		Old: c.key(false), New: c.key(false), Seq: c.u64(), Issued: c.unix(), Until: c.unix(), Admin: c.key(false),
		List: c.bytes(member.MaxStatement), Gates: c.gates(),
	}
	c.bad = c.bad || kind != kindRotation || version != recordVersion || r.Old == r.New || r.Seq == 0 || r.Seq > maxSeq ||
		r.Until < r.Issued || r.Until-r.Issued > maxOverlap
	if err := c.end("rotation"); err != nil {
		return nil, err
	}
	for i, k := range []key.Public{r.Old, r.New} {
		if !k.Verify(purposeRotation, key.NetworkID{}, raw[:at], raw[at+i*signatureLen:at+(i+1)*signatureLen]) {
			return nil, fmt.Errorf("rotation: %w", ErrSignature)
		}
	}
	if err := mayPeer(r.New, r.List, r.Admin, member.MayIssue); err != nil {
		return nil, err
	}
	return r, nil
}

// apply is the record as it is after a rotation: the same terms, under the new key.
func (r *Rotation) apply(old *Record) (*Record, error) {
	side, other, ok := old.Of(r.Old)
	if !ok || other.Cluster == r.New {
		return nil, fmt.Errorf("rotation of a cluster that is not in the record: %w", ErrUntrusted)
	}
	if r.Seq <= old.Seq {
		return nil, fmt.Errorf("rotation %d of record %d: %w", r.Seq, old.Seq, ErrStale)
	}
	next := *side
	next.Cluster, next.Admin, next.List, next.Gates = r.New, r.Admin, r.List, r.Gates
	v := NewRecord(next, *other)
	v.Seq, v.Issued, v.Expires = r.Seq, r.Issued, old.Expires
	if v.Expires != 0 && v.Expires <= v.Issued {
		return nil, fmt.Errorf("rotation of what had ended: %w", ErrOver)
	}
	return v, nil
}

// carried is a record that both sides signed, and how it goes on under other keys. It proves itself to who has nothing else.
type carried struct {
	base      []byte
	rotations [][]byte // as they followed each other

	steps   []*Record   // the record at first, and after each rotation
	changes []*Rotation // of the same length less one
}

// last is the record as it counts.
func (c *carried) last() *Record { return c.steps[len(c.steps)-1] }

// append encodes it, with the first n rotations:
//
//	kind 5 │ version 1 │ record {length 2, bytes} │ rotations 1 (1 to 4), each {length 2, bytes}
func (c *carried) append(n int) []byte {
	if n == 0 {
		return append([]byte(nil), c.base...)
	}
	b := append(appendBytes([]byte{kindCarried, recordVersion}, c.base), byte(n))
	for _, raw := range c.rotations[:n] {
		b = appendBytes(b, raw)
	}
	return b
}

// parseHeld decodes a record, or one that was carried over to other keys, and checks all of its signatures.
func parseHeld(raw []byte) (*carried, error) {
	if len(raw) > MaxCarried || len(raw) == 0 {
		return nil, fmt.Errorf("record: %w", ErrFormat)
	}
	v := &carried{base: raw}
	if raw[0] == kindCarried {
		c := &cursor{b: raw}
		_, version := c.u8(), c.u8()
		v.base = c.bytes(MaxRecord)
		n := int(c.u8())
		c.bad = c.bad || version != recordVersion || n == 0 || n > maxRotations
		for range n {
			if !c.bad {
				v.rotations = append(v.rotations, c.bytes(MaxRecord))
			}
		}
		if err := c.end("record with rotations"); err != nil {
			return nil, err
		}
	}
	r, err := ParseRecord(v.base)
	if err == nil {
		err = r.Verify()
	}
	if err != nil {
		return nil, err
	}
	v.base, v.steps = append([]byte(nil), v.base...), []*Record{r}
	for _, raw := range v.rotations {
		change, err := ParseRotation(raw)
		if err != nil {
			return nil, err
		}
		if r, err = change.apply(r); err != nil {
			return nil, err
		}
		v.steps, v.changes = append(v.steps, r), append(v.changes, change)
	}
	return v, nil
}

// with is the record after one more rotation.
func (c *carried) with(rotation []byte) ([]byte, error) {
	if len(c.rotations) >= maxRotations {
		return nil, fmt.Errorf("a peering that was carried over %d times is to be agreed anew: %w", maxRotations, ErrFull)
	}
	next := carried{base: c.base, rotations: append(append([][]byte(nil), c.rotations...), rotation)}
	raw := next.append(len(next.rotations))
	if len(raw) > MaxCarried {
		return nil, ErrFull
	}
	return raw, nil
}
