package peering

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Put offers a record or an end, as anybody may bring it: both prove themselves. inside tells that it comes from our own
// cluster. What is held already makes no news and no error; what is stored is on the disk when Put returns.
func (b *Book) Put(raw []byte, inside bool) (news bool, p Pair, err error) {
	if len(raw) == 0 {
		return false, p, fmt.Errorf("record: %w", ErrFormat)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch raw[0] {
	case kindRecord:
		news, p, err = b.putRecordLocked(raw)
	case kindCarried:
		news, p, err = b.putCarriedLocked(raw)
	case kindEnd:
		news, p, err = b.putEndLocked(raw, inside)
	default:
		err = fmt.Errorf("kind %d: %w", raw[0], ErrFormat)
	}
	if news {
		err = b.saveLocked()
	}
	return news, p, err
}

func (b *Book) putRecordLocked(raw []byte) (news bool, p Pair, err error) {
	r, err := ParseRecord(raw)
	if err != nil {
		return false, p, err
	}
	e, p, news, err := b.freshLocked(r, raw)
	if !news || err != nil {
		return false, p, err
	}
	if err := r.Verify(); err != nil {
		return false, p, err
	}
	return b.storeLocked(e, p, raw, &carried{base: raw, steps: []*Record{r}})
}

// freshLocked tells whether a record counts for more than what is held of its pair.
func (b *Book) freshLocked(r *Record, raw []byte) (e *entry, p Pair, fresh bool, err error) {
	_, other, ok := r.Of(b.own)
	if !ok {
		return nil, p, false, fmt.Errorf("record of other clusters: %w", ErrUntrusted)
	}
	p = r.Pair()
	e = b.pairs[p]
	if e != nil && !e.Moved.IsZero() {
		return e, p, false, fmt.Errorf("record %d with %s, which has another cluster key now: %w", r.Seq, other.Name, ErrStale)
	}
	if e.inForce(0) && bytes.Equal(e.Record, raw) {
		return e, p, false, nil
	}
	if e != nil && (e.end != nil && r.Seq <= e.end.Seq || e.record != nil && !r.after(e.record)) {
		return e, p, false, fmt.Errorf("record %d with %s: %w", r.Seq, other.Name, ErrStale)
	}
	return e, p, true, nil
}

// storeLocked puts a record that was checked in the place of what is held of its pair.
func (b *Book) storeLocked(e *entry, p Pair, raw []byte, c *carried) (news bool, _ Pair, err error) {
	r := c.last()
	if err := b.mayLocked(e, r); err != nil {
		return false, p, err
	}
	if e == nil && (len(b.pairs) >= maxEnds || b.inForceLocked() >= maxPairs) {
		return false, p, ErrFull
	}
	_, other, _ := r.Of(b.own)
	if e == nil {
		e = &entry{}
	}
	if e.Alias == "" {
		e.Alias = b.freeAliasLocked(other.Name, other.Cluster)
	}
	e.Record, e.record, e.changes = bytes.Clone(raw), r, c.changes
	_, _ = e.learn(b.at(), b.own, [][]byte{other.List}) // mayLocked has judged it
	b.pairs[p] = e
	return true, p, nil
}

// mayLocked judges who signed by the newest lists that are known of both clusters, whatever list lies in the record: an
// administrator who was dismissed has the old one still.
func (b *Book) mayLocked(e *entry, r *Record) error {
	own, other, _ := r.Of(b.own)
	if a, _ := b.admins.Find(own.Admin); b.admins != nil && a.Powers&member.MayIssue == 0 {
		return fmt.Errorf("%s is no administrator of ours any more: %w", own.Admin.Short(), ErrUntrusted)
	}
	return e.mayTheirs(b.at(), other.List, other.Admin, member.MayIssue)
}

// mayTheirs judges an administrator of the other cluster by the newer one of the list held and the one that he shows.
func (e *entry) mayTheirs(at member.Instant, list []byte, admin key.Public, powers member.Powers) error {
	if e == nil || e.state == nil {
		return nil // the list that he shows is all that there is
	}
	if _, err := e.state.Put(at, list); err != nil && !errors.Is(err, member.ErrStale) {
		return err
	}
	if e.state.Powers(admin)&powers == 0 {
		return fmt.Errorf("%s is no administrator of the other cluster any more: %w", admin.Short(), ErrUntrusted)
	}
	return nil
}

// freeAliasLocked is a name for a cluster that no other one has.
func (b *Book) freeAliasLocked(name string, cluster key.Public) string {
	taken := len(name) > maxAlias
	for _, e := range b.pairs {
		taken = taken || e.Alias == name
	}
	if !taken {
		return name
	}
	return strings.TrimRight(name[:min(len(name), maxAlias-9)], "-") + "-" + cluster.Short()
}

// maxAlias bounds a name for a cluster, so that EXPORT@NAME can be the name of a service.
const maxAlias = 30

func (b *Book) inForceLocked() (n int) {
	for _, e := range b.pairs {
		if e.inForce(0) {
			n++
		}
	}
	return n
}

func (b *Book) putEndLocked(raw []byte, inside bool) (news bool, p Pair, err error) {
	end, err := ParseEnd(raw)
	if err != nil {
		return false, p, err
	}
	if end.Low != b.own && end.High != b.own {
		return false, p, fmt.Errorf("end of other clusters' peering: %w", ErrUntrusted)
	}
	p = end.Pair()
	e := b.pairs[p]
	switch {
	case e != nil && !e.Moved.IsZero():
		return false, p, fmt.Errorf("end %d of a peering that goes on under another cluster key: %w", end.Seq, ErrStale)
	case e != nil && e.end != nil && e.end.Seq >= end.Seq:
		if e.end.Seq == end.Seq {
			return false, p, nil
		}
		return false, p, fmt.Errorf("end %d: %w", end.Seq, ErrStale)
	case e == nil && !inside && end.By != b.own:
		return false, p, fmt.Errorf("end of what was never: %w", ErrUntrusted) // anybody can make clusters
	case e == nil && len(b.pairs) >= maxEnds:
		return false, p, ErrFull
	}
	if err := b.mayEndLocked(e, end, inside); err != nil {
		return false, p, err
	}
	if e == nil {
		e = &entry{Alias: otherOf(end, b.own).Short()}
	}
	e.End, e.end = bytes.Clone(raw), end
	b.pairs[p] = e
	return true, p, nil
}

// mayEndLocked judges who signed an end, as mayLocked does; what gateways of ours took is taken.
func (b *Book) mayEndLocked(e *entry, end *End, inside bool) error {
	const powers = member.MayIssue | member.MayRevoke
	switch a, _ := b.admins.Find(end.Admin); {
	case inside:
		return nil
	case end.By != b.own:
		return e.mayTheirs(b.at(), end.List, end.Admin, powers)
	case b.admins != nil && a.Powers&powers == 0:
		return fmt.Errorf("%s is no administrator of ours any more: %w", end.Admin.Short(), ErrUntrusted)
	}
	return nil
}

func otherOf(e *End, own key.Public) key.Public {
	if e.Low == own {
		return e.High
	}
	return e.Low
}

// inForce tells whether a peering holds at a time; 0: whatever the time.
func (e *entry) inForce(now int64) bool {
	if e != nil && !e.Moved.IsZero() { // what is left of it is for nodes that are under the old key still
		return now != 0 && now < e.Until && e.record != nil && (e.record.Expires == 0 || now < e.record.Expires)
	}
	return e != nil && e.record != nil && (e.end == nil || e.end.Seq < e.record.Seq) && (now == 0 || e.record.Expires == 0 || now < e.record.Expires)
}
