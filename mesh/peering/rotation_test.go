package peering

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// successor is the next cluster key of one side, with an administrator of its own.
type successor struct {
	key, admin *key.Private
	list       []byte
}

func newSuccessor(t testing.TB) successor {
	s := successor{key: keyOf(t), admin: keyOf(t)}
	s.list = newList(t, s.key, s.admin, 1)
	return s
}

// rotation is one of a cluster to s, from a number on.
func (s successor) rotation(t testing.TB, old *key.Private, seq uint64) []byte {
	t.Helper()
	raw, err := s.draft(old.Public(), seq).Sign(old, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (s successor) draft(old key.Public, seq uint64) *Rotation {
	now := time.Now().Unix()
	return &Rotation{
		Old: old, New: s.key.Public(), Seq: seq, Issued: now, Until: now + 3600, Admin: s.admin.Public(), List: s.list,
		Gates: []member.Contact{{Key: s.admin.Public(), Addr: "192.0.2.9:7667"}},
	}
}

// over is a record carried over by rotations.
func over(t testing.TB, record []byte, rotations ...[]byte) []byte {
	t.Helper()
	c := &carried{base: record, rotations: rotations}
	return c.append(len(rotations))
}

// TestFollow: the other side goes on with a cluster that has a new key, once, with what was agreed last and with nothing else;
// the old key has no word in it from then on.
func TestFollow(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	dir := t.TempDir()
	b := openBook(t, dir, d.key[1].Public())
	r1, r2 := d.record(t, 1, sampleGrant(t)), d.record(t, 2, Grant{Messaging: MessagingAll})
	s := newSuccessor(t)
	for _, r := range []*Record{r1, r2} {
		if _, _, err := b.Put(r.Append(nil), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.SetLocal(d.key[0].Public(), "north", []string{"@office"}); err != nil {
		t.Fatal(err)
	}
	good := s.rotation(t, d.key[0], 18)
	for name, raw := range map[string][]byte{
		"of an older record, which gave more": over(t, r1.Append(nil), good),
		"with a number that was used":         over(t, r2.Append(nil), s.rotation(t, d.key[0], 2)),
		"of a cluster that is not in it":      over(t, r2.Append(nil), s.rotation(t, keyOf(t), 18)),
	} {
		if news, _, err := b.Put(raw, false); news || err == nil {
			t.Errorf("a rotation %s: news %v, %v", name, news, err)
		}
	}
	carried := over(t, r2.Append(nil), good)
	for i, want := range []bool{true, false} {
		if news, _, err := b.Put(carried, false); news != want || err != nil {
			t.Fatalf("time %d: news %v, %v", i, news, err)
		}
	}
	check := func(b *Book, alias string) {
		t.Helper()
		p, ok := b.With(s.key.Public())
		if !ok || !p.InForce(0) || p.Alias != alias || p.Record.Seq != 18 || p.Theirs().Cluster != s.key.Public() || p.Theirs().Gates[0].Addr != "192.0.2.9:7667" ||
			p.Gives().Messaging != MessagingNo || p.Theirs().Gives.Messaging != MessagingAll || b.Trusted(&p) != nil {
			t.Errorf("%+v", p)
		}
		old, ok := b.With(d.key[0].Public())
		if !ok || old.InForce(0) || !old.InForce(time.Now().Unix()) || old.InForce(time.Now().Unix()+3601) || old.Alias == alias {
			t.Errorf("the old key: %+v", old)
		}
		other := newSuccessor(t)
		for name, raw := range map[string][]byte{
			"the record before":         r2.Append(nil),
			"a new record":              d.record(t, 30, sampleGrant(t)).Append(nil),
			"an end":                    d.end(t, 0, d.admin[0], 1, 40),
			"a rotation to another key": over(t, r2.Append(nil), other.rotation(t, d.key[0], 50)),
			"the same rotation again, from an older record": over(t, r1.Append(nil), s.rotation(t, d.key[0], 60)),
			"the same rotation with a higher number":        over(t, r2.Append(nil), s.rotation(t, d.key[0], 60)),
		} {
			if news, _, err := b.Put(raw, false); news || !errors.Is(err, ErrStale) {
				t.Errorf("%s under the old key: news %v, %v", name, news, err)
			}
		}
	}
	check(b, "north")
	if p, _ := b.With(s.key.Public()); len(p.Allow) != 1 {
		t.Errorf("who may use it is forgotten: %v", p.Allow)
	}
	check(openBook(t, dir, d.key[1].Public()), "north") // a restart
	fresh := openBook(t, t.TempDir(), d.key[1].Public())
	if _, _, err := fresh.Put(carried, true); err != nil { // a gateway that was away
		t.Fatal(err)
	}
	check(fresh, "oslo")
	// Our own word ends it, and the carried record does not bring it back.
	e := End{Low: s.key.Public(), High: d.key[1].Public(), Seq: 18, Issued: 1, By: d.key[1].Public(), List: newList(t, d.key[1], d.admin[1], 1)}
	if e.High.Less(e.Low) {
		e.Low, e.High = e.High, e.Low
	}
	raw, err := e.Sign(d.admin[1])
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Put(raw, false); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Put(carried, false); !errors.Is(err, ErrStale) {
		t.Errorf("revived by the rotation: %v", err)
	}
}

// TestFollowEnded: an end of the old key's peering stands, whatever rotation comes after.
func TestFollowEnded(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	b := openBook(t, t.TempDir(), d.key[1].Public())
	r := d.record(t, 1, Grant{}).Append(nil)
	for _, raw := range [][]byte{r, d.end(t, 1, d.admin[1], 1, 1)} {
		if _, _, err := b.Put(raw, false); err != nil {
			t.Fatal(err)
		}
	}
	if news, _, err := b.Put(over(t, r, newSuccessor(t).rotation(t, d.key[0], 20)), false); news || !errors.Is(err, ErrStale) {
		t.Errorf("news %v, %v", news, err)
	}
}

// TestHalfRotation: one of the two keys alone says nothing, nor does a list that lets its administrator admit nobody.
func TestHalfRotation(t *testing.T) {
	t.Parallel()
	d, s, mallory := newDuo(t), newSuccessor(t), keyOf(t)
	r := s.draft(d.key[0].Public(), 20)
	for name, keys := range map[string][2]*key.Private{
		"the old key alone": {d.key[0], mallory}, "the new key alone": {mallory, s.key}, "an administrator in place of the old key": {d.admin[0], s.key},
	} {
		if _, err := r.Sign(keys[0], keys[1]); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Admin = mallory.Public()
	if _, err := r.Sign(d.key[0], s.key); !errors.Is(err, ErrUntrusted) {
		t.Errorf("an administrator who is not on the list: %v", err)
	}
	raw := s.rotation(t, d.key[0], 20)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, err := ParseRotation(bad); err == nil {
			t.Fatalf("byte %d changed, and the rotation holds", i)
		}
	}
	t.Logf("a rotation has %d bytes, a record with one export that was carried over %d", len(raw), len(over(t, d.record(t, 1, Grant{Exports: sampleGrant(t).Exports[:1]}).Append(nil), raw)))
}

// TestCarry: who has moved to the new key takes the peerings along, four times, and the other side follows each.
func TestCarry(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	state := t.TempDir()
	other := openBook(t, t.TempDir(), d.key[1].Public())
	own := openBook(t, state, d.key[0].Public())
	for _, b := range []*Book{own, other} {
		if _, _, err := b.Put(d.record(t, 1, sampleGrant(t)).Append(nil), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := own.SetLocal(d.key[1].Public(), "south", nil); err != nil {
		t.Fatal(err)
	}
	old := d.key[0]
	for i := range maxRotations + 1 {
		s := newSuccessor(t)
		own = openBook(t, state, s.key.Public())
		if _, ok := own.With(d.key[1].Public()); ok {
			t.Fatal("the old cluster's peerings hold in the new one")
		}
		gates := []member.Contact{{Key: s.admin.Public(), Addr: "192.0.2.9:7667"}}
		r, names, err := own.Rotation(old.Public(), time.Now().Unix(), 60, s.admin.Public(), s.list, gates)
		if err != nil || len(names) != 1 || names[0] != "south" {
			t.Fatalf("%v, %v", names, err)
		}
		raw, err := r.Sign(old, s.key)
		if err != nil {
			t.Fatal(err)
		}
		pairs, err := own.Carry(raw)
		if i == maxRotations {
			if !errors.Is(err, ErrFull) {
				t.Errorf("carried over once too often: %v", err)
			}
			return
		}
		if err != nil || len(pairs) != 1 {
			t.Fatalf("%v, %v", pairs, err)
		}
		if _, err := own.Carry(raw); err != nil {
			t.Errorf("a second time: %v", err)
		}
		if _, _, err := own.Rotation(old.Public(), time.Now().Unix(), 60, s.admin.Public(), s.list, gates); err == nil {
			t.Error("a second rotation is prepared")
		}
		if news, _, err := other.Put(own.rawsOf(pairs[0])[0], false); !news || err != nil {
			t.Fatalf("the other side, time %d: %v", i, err)
		}
		mine, _ := own.With(d.key[1].Public())
		theirs, _ := other.With(s.key.Public())
		if !mine.InForce(0) || !theirs.InForce(0) || mine.Record.Seq != theirs.Record.Seq || mine.Alias != "south" || theirs.Alias != "oslo" {
			t.Fatalf("%+v\n%+v", mine, theirs)
		}
		if err := own.Save(); err != nil {
			t.Fatal(err)
		}
		old = s.key
	}
}

// TestNoOldBook: where the messenger did not run, there is nothing to take along.
func TestNoOldBook(t *testing.T) {
	t.Parallel()
	s, old := newSuccessor(t), keyOf(t)
	state := t.TempDir()
	b := openBook(t, state, s.key.Public())
	if _, err := b.Carry(s.rotation(t, old, 20)); err == nil {
		t.Error("carried over from nothing")
	}
	if err := os.WriteFile(filepath.Join(state, bookName+"."+old.Public().Short()), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Carry(s.rotation(t, old, 20)); err == nil {
		t.Error("carried over from a book of nobody")
	}
}

func FuzzRotation(f *testing.F) {
	d, s := newDuo(f), newSuccessor(f)
	raw := s.rotation(f, d.key[0], 20)
	f.Add(raw)
	f.Add(over(f, d.record(f, 1, sampleGrant(f)).Append(nil), raw))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := ParseRotation(raw); err == nil && !bytes.HasPrefix(raw, r.body()) {
			t.Error("two encodings of one rotation")
		}
		if c, err := parseHeld(raw); err == nil && !bytes.Equal(c.append(len(c.rotations)), raw) {
			t.Error("two encodings of one carried record")
		}
	})
}
