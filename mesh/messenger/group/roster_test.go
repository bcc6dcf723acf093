package group

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// identity is a key made of a byte, the same in every run.
func identity(t testing.TB, b byte) *key.Private {
	t.Helper()
	seed := [32]byte{b}
	for {
		k, err := key.FromSeed(seed)
		if err == nil {
			return k
		}
		seed[31]++
	}
}

func author(t testing.TB, b byte) Author {
	k := identity(t, b)
	return Author{Account: k.Public(), Key: k}
}

// found makes a group of n members, of which some are admins after the first, who founded it.
func found(t testing.TB, n, admins int) (*Roster, []Author) {
	t.Helper()
	all := []Author{author(t, 1)}
	var seats []Seat
	for i := 1; i < n; i++ {
		a := author(t, byte(1+i))
		all = append(all, a)
		seats = append(seats, Seat{Account: a.Account, Admin: i < admins})
	}
	r, err := New(all[0], 1, "hikers", envelope.Place{}, seats)
	if err != nil {
		t.Fatal(err)
	}
	return r, all
}

// copyOf is the same log at another member.
func copyOf(t testing.TB, r *Roster) *Roster {
	t.Helper()
	c := &Roster{}
	for _, raw := range r.Ops() {
		if _, _, err := c.Put(raw); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (r *Roster) do(t testing.TB, a Author, kind OpKind, target key.Public) []byte {
	t.Helper()
	raw, err := r.Sign(a, 2, &Op{Kind: kind, Target: target})
	if err != nil {
		t.Fatalf("%s of %s by %s: %v", kind, target.Short(), a.Account.Short(), err)
	}
	return raw
}

// merge gives each what the other has.
func merge(t testing.TB, a, b *Roster) {
	t.Helper()
	for _, x := range [][2]*Roster{{a, b}, {b, a}} {
		ops, _ := x[0].Lacking(x[1].Generation(), x[1].Heads())
		for _, raw := range ops {
			if _, _, err := x[1].Put(raw); err != nil && !errors.Is(err, ErrStale) {
				t.Fatal(err)
			}
		}
	}
	if a.Epoch() != b.Epoch() || !reflect.DeepEqual(a.Members(), b.Members()) {
		t.Fatalf("merged, and not the same:\n%s\n%s", a, b)
	}
}

// String shows a roster in tests.
func (r *Roster) String() string {
	var s []string
	for _, m := range r.Members() {
		w := m.Account.Short()
		if m.Admin {
			w += "*"
		}
		s = append(s, w)
	}
	return fmt.Sprintf("%q %d/%d %v", r.Name(), r.Generation(), r.Len(), s)
}

func TestWhoMay(t *testing.T) {
	t.Parallel()
	r, m := found(t, 5, 3)
	stranger := author(t, 60)
	for name, c := range map[string]struct {
		by     Author
		kind   OpKind
		target key.Public
		want   error
	}{
		"admin adds":                      {m[1], Add, stranger.Account, nil},
		"member adds":                     {m[3], Add, stranger.Account, ErrForbidden},
		"stranger adds":                   {stranger, Add, stranger.Account, ErrForbidden},
		"added twice":                     {m[1], Add, m[4].Account, ErrForbidden},
		"admin evicts a member":           {m[2], Remove, m[4].Account, nil},
		"admin evicts the one below":      {m[1], Remove, m[2].Account, nil},
		"admin evicts the one above":      {m[2], Remove, m[1].Account, ErrForbidden},
		"admin evicts the founder":        {m[1], Remove, m[0].Account, ErrForbidden},
		"admin demotes the one above":     {m[2], Demote, m[1].Account, ErrForbidden},
		"admin demotes himself":           {m[2], Demote, m[2].Account, nil},
		"member evicts":                   {m[3], Remove, m[4].Account, ErrForbidden},
		"member promotes himself":         {m[3], Promote, m[3].Account, ErrForbidden},
		"admin promotes":                  {m[2], Promote, m[3].Account, nil},
		"admin promotes an admin":         {m[1], Promote, m[2].Account, ErrForbidden},
		"evicting nobody":                 {m[0], Remove, stranger.Account, ErrForbidden},
		"member leaves":                   {m[4], Leave, key.Public{}, nil},
		"founder leaves":                  {m[0], Leave, key.Public{}, nil},
		"evicting oneself is leaving":     {m[1], Remove, m[1].Account, ErrForbidden},
		"founding by someone who did not": {m[1], Found, key.Public{}, ErrFormat},
	} {
		o := &Op{Kind: c.kind, Target: c.target}
		if c.kind == Found {
			o = &Op{Kind: Found, Group: r.ID(), Nonce: r.nodes[0].Nonce, Generation: 2, Seats: []Seat{{Account: c.by.Account, Admin: true}}}
		}
		if _, err := copyOf(t, r).Sign(c.by, 2, o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// What two do without seeing each other, and what holds then.
func TestConcurrentChanges(t *testing.T) {
	t.Parallel()
	x, y := author(t, 60).Account, author(t, 61).Account
	type do struct {
		by     int
		kind   OpKind
		target key.Public
	}
	_, m := found(t, 5, 3)
	for name, c := range map[string]struct {
		one, other []do
		in, out    []key.Public
	}{
		"eviction and the evicted admin's addition":   {[]do{{0, Remove, m[1].Account}}, []do{{1, Add, x}}, nil, []key.Public{m[1].Account, x}},
		"eviction and the evicted admin's eviction":   {[]do{{0, Remove, m[1].Account}}, []do{{1, Remove, m[3].Account}}, []key.Public{m[3].Account}, []key.Public{m[1].Account}},
		"eviction and what his new admin does":        {[]do{{0, Remove, m[1].Account}}, []do{{1, Promote, m[3].Account}, {3, Add, x}}, []key.Public{m[3].Account}, []key.Public{x}},
		"eviction and his new admin's eviction":       {[]do{{0, Remove, m[1].Account}}, []do{{1, Promote, m[3].Account}, {3, Remove, m[4].Account}}, []key.Public{m[4].Account}, []key.Public{m[1].Account}},
		"demotion and his addition":                   {[]do{{0, Demote, m[1].Account}}, []do{{1, Add, x}}, []key.Public{m[1].Account}, []key.Public{x}},
		"demotion and his leaving":                    {[]do{{0, Demote, m[1].Account}}, []do{{1, Leave, key.Public{}}}, nil, []key.Public{m[1].Account}},
		"two add one":                                 {[]do{{1, Add, x}}, []do{{2, Add, x}}, []key.Public{x}, nil},
		"two evict one":                               {[]do{{1, Remove, m[4].Account}}, []do{{2, Remove, m[4].Account}}, nil, []key.Public{m[4].Account}},
		"one evicts, the other evicts and adds again": {[]do{{1, Remove, m[4].Account}}, []do{{2, Remove, m[4].Account}, {2, Add, m[4].Account}}, nil, []key.Public{m[4].Account}},
		"eviction and promotion of one":               {[]do{{0, Remove, m[3].Account}}, []do{{1, Promote, m[3].Account}}, nil, []key.Public{m[3].Account}},
		"a chain of evictions, the lower first":       {[]do{{1, Remove, m[2].Account}}, []do{{0, Remove, m[1].Account}}, []key.Public{m[2].Account}, []key.Public{m[1].Account}},
		"leaving and being added":                     {[]do{{4, Leave, key.Public{}}}, []do{{0, Remove, m[4].Account}, {0, Add, m[4].Account}}, nil, []key.Public{m[4].Account}},
		"additions of both":                           {[]do{{1, Add, x}}, []do{{2, Add, y}}, []key.Public{x, y}, nil},
	} {
		for turn := range 2 {
			a, _ := found(t, 5, 3)
			b := copyOf(t, a)
			one, other := c.one, c.other
			if turn == 1 {
				one, other = other, one
			}
			for _, d := range one {
				a.do(t, m[d.by], d.kind, d.target)
			}
			for _, d := range other {
				b.do(t, m[d.by], d.kind, d.target)
			}
			merge(t, a, b)
			for _, k := range c.in {
				if !a.Has(k) {
					t.Errorf("%s: %s is out: %s", name, k.Short(), a)
				}
			}
			for _, k := range c.out {
				if a.Has(k) {
					t.Errorf("%s: %s is in: %s", name, k.Short(), a)
				}
			}
		}
	}
}

// Two who became admins without seeing each other evict each other: one stays, the same for all.
func TestMutualEviction(t *testing.T) {
	t.Parallel()
	a, m := found(t, 4, 1)
	b := copyOf(t, a)
	a.do(t, m[0], Promote, m[1].Account)
	b.do(t, m[0], Promote, m[2].Account) // from the founder's other device
	one, two := copyOf(t, a), copyOf(t, b)
	one.do(t, m[1], Promote, m[2].Account)
	one.do(t, m[1], Remove, m[2].Account)
	two.do(t, m[2], Promote, m[1].Account)
	two.do(t, m[2], Remove, m[1].Account)
	merge(t, one, two)
	if one.Has(m[1].Account) == one.Has(m[2].Account) {
		t.Errorf("both or none stayed: %s", one)
	}
}

// An admin who was evicted keeps his key and all old records. Nothing that he makes of them changes a roster.
func TestEvictedAdminForges(t *testing.T) {
	t.Parallel()
	tried := 0
	for seed := range uint64(6) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r, m := found(t, 8, 4)
		evil := m[1+rnd.IntN(3)]
		var points []*Roster // the log at some times before
		for range 6 {
			r.play(t, rnd, m)
			points = append(points, copyOf(t, r))
		}
		if !r.Admin(evil.Account) || !r.Above(m[0].Account, evil.Account) {
			continue
		}
		tried++
		friend := author(t, 99)
		r.do(t, m[0], Remove, evil.Account)
		want, names := r.Members(), r.Name()
		for range 8 {
			old := points[rnd.IntN(len(points))]
			forged := copyOf(t, old)
			for range 1 + rnd.IntN(4) {
				forged.play(t, rnd, []Author{evil, friend})
			}
			for _, raw := range forged.Ops() {
				if _, _, err := r.Put(raw); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrOrphan) {
					t.Fatal(err)
				}
			}
		}
		for i := range r.Ops() {
			_, _, _ = r.Put(r.Ops()[rnd.IntN(i+1)]) // and all of before once more
		}
		if !reflect.DeepEqual(r.Members(), want) || r.Name() != names {
			for _, n := range r.nodes {
				t.Logf("%d %s by %s of %s %q depth %d past %b void %v", n.index, n.Kind, n.Account.Short(), n.Target.Short(), n.Name, n.depth, n.past[0], r.current().void.has(n.index))
			}
			t.Fatalf("seed %d: evicted %s changed the roster: %s, want %v", seed, evil.Account.Short(), r, want)
		}
	}
	if tried < 2 {
		t.Errorf("%d evicted admins only", tried)
	}
}

// play does something that one of the authors may do, if there is such.
func (r *Roster) play(t testing.TB, rnd *rand.Rand, all []Author) {
	t.Helper()
	for range 10 {
		by := all[rnd.IntN(len(all))]
		kind := []OpKind{Add, Add, Add, Remove, Promote, Promote, Demote, Leave, Rename}[rnd.IntN(9)]
		if kind == Leave && rnd.IntN(4) > 0 {
			continue
		}
		target := author(t, byte(1+rnd.IntN(12))).Account
		_, err := r.Sign(by, 3, &Op{Kind: kind, Target: target, Name: fmt.Sprint("n", rnd.IntN(100))})
		if err == nil {
			return
		}
		if !errors.Is(err, ErrForbidden) && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
}

// T-M10 without a network: members in random partitions change the roster against each other; whoever has all changes has the same
// roster, whatever the order in which they came.
func TestRandomPartitions(t *testing.T) {
	t.Parallel()
	rounds := uint64(4)
	if testing.Short() {
		rounds = 3
	}
	for seed := range rounds {
		rnd := rand.New(rand.NewPCG(seed, 7))
		first, m := found(t, 5, 3)
		logs := make([]*Roster, len(m))
		for i := range logs {
			logs[i] = copyOf(t, first)
		}
		for range 12 {
			part := make([]int, len(logs))
			for i := range part {
				part[i] = rnd.IntN(3)
			}
			for range 4 {
				i := rnd.IntN(len(logs))
				logs[i].play(t, rnd, m[i:i+1])
			}
			for i := range logs {
				for j := range i {
					if part[i] == part[j] && rnd.IntN(2) == 0 {
						merge(t, logs[i], logs[j])
					}
				}
			}
		}
		for range 2 {
			for i := 1; i < len(logs); i++ {
				merge(t, logs[0], logs[i])
			}
		}
		all := logs[0]
		for range 4 {
			if got := shuffled(t, rnd, all); got.Epoch() != all.Epoch() || !reflect.DeepEqual(got.Members(), all.Members()) || got.Name() != all.Name() {
				t.Fatalf("seed %d: in another order\n%s, want\n%s", seed, got, all)
			}
		}
		evictionsHold(t, seed, all)
	}
}

// shuffled puts all changes in a random order that has parents first.
func shuffled(t testing.TB, rnd *rand.Rand, r *Roster) *Roster {
	t.Helper()
	left, got := r.Ops(), &Roster{}
	for len(left) > 0 {
		i := rnd.IntN(len(left))
		_, _, err := got.Put(left[i])
		if errors.Is(err, ErrOrphan) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		left = append(left[:i:i], left[i+1:]...)
	}
	return got
}

// evictionsHold: who was evicted by a change that holds is in only by an addition that saw it.
func evictionsHold(t testing.TB, seed uint64, r *Roster) {
	t.Helper()
	st := r.current()
	for _, e := range r.nodes {
		if e.Kind != Remove || st.void.has(e.index) || st.members[e.Target] == nil {
			continue
		}
		back := false
		for _, n := range r.nodes {
			back = back || n.Kind == Add && n.Target == e.Target && n.past.has(e.index) && !st.void.has(n.index)
		}
		if !back {
			t.Errorf("seed %d: %s was evicted and is in", seed, e.Target.Short())
		}
	}
}

func TestGenerations(t *testing.T) {
	t.Parallel()
	a, m := found(t, 5, 3)
	b, late := copyOf(t, a), copyOf(t, a)
	a.do(t, m[0], Remove, m[4].Account)
	lostOp := b.do(t, m[1], Remove, m[3].Account) // the founder does not see it
	before := a.Ops()
	if _, err := a.Renew(m[1], 5); !errors.Is(err, ErrForbidden) {
		t.Errorf("renewed by another: %v, want ErrForbidden", err)
	}
	want := a.Members()
	raw, err := a.Renew(m[0], 5)
	if err != nil {
		t.Fatal(err)
	}
	if a.Len() != 1 || a.Generation() != 2 || !reflect.DeepEqual(a.Members(), want) || !a.Above(m[1].Account, m[2].Account) || a.Above(m[2].Account, m[1].Account) {
		t.Errorf("after it: %s, want members %v", a, want)
	}
	news, lost, err := b.Put(raw)
	if err != nil || !news || len(lost) != 1 || lost[0].Target != m[3].Account {
		t.Fatalf("at the other: %v, lost %+v, %v", news, lost, err)
	}
	if _, err := b.Sign(m[1], 6, &Op{Kind: lost[0].Kind, Target: lost[0].Target}); err != nil {
		t.Errorf("made again: %v", err)
	}
	merge(t, a, b)
	if a.Has(m[3].Account) || a.Has(m[4].Account) {
		t.Errorf("evicted, and in: %s", a)
	}
	for _, old := range append(before, lostOp) {
		if _, _, err := a.Put(old); !errors.Is(err, ErrStale) && !errors.Is(err, ErrOrphan) {
			t.Errorf("a record of the generation before: %v", err)
		}
	}
	merge(t, a, late)
}

func TestBounds(t *testing.T) {
	t.Parallel()
	r, m := found(t, 3, 2)
	seats := make([]Seat, MaxMembers)
	for i := range seats {
		seats[i].Account = author(t, byte(2+i)).Account
	}
	if _, err := New(m[0], 1, "", envelope.Place{}, seats); !errors.Is(err, ErrFormat) {
		t.Errorf("%d members: %v, want ErrFormat", len(seats)+1, err)
	}
	full, err := New(m[0], 1, "", envelope.Place{}, seats[1:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := full.Sign(m[0], 1, &Op{Kind: Add, Target: author(t, 200).Account}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v, want ErrFull", err)
	}
	for i := range MaxPerAccount + 1 {
		_, err = r.Sign(m[1], 1, &Op{Kind: Rename, Name: fmt.Sprint(i)})
		if (err != nil) != (i == MaxPerAccount) {
			t.Fatalf("change %d of one account: %v", i, err)
		}
	}
	r.do(t, m[0], Remove, m[1].Account)
	for r.Len() < MaxOps {
		r.do(t, m[0], Rename, key.Public{})
	}
	if _, err := r.Sign(m[0], 1, &Op{Kind: Rename}); !errors.Is(err, ErrFull) {
		t.Errorf("change %d: %v, want ErrFull", MaxOps+1, err)
	}
	if _, err := r.Renew(m[0], 1); err != nil || r.Len() != 1 || r.Has(m[1].Account) {
		t.Errorf("renewed: %s, %v", r, err)
	}
}

func TestRefusedChanges(t *testing.T) {
	t.Parallel()
	r, m := found(t, 4, 2)
	before := copyOf(t, r)
	raw := r.do(t, m[0], Add, author(t, 50).Account)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, _, err := before.Put(bad); err == nil {
			t.Fatalf("byte %d altered: taken", i)
		}
	}
	next := r.do(t, m[0], Rename, key.Public{})
	if _, _, err := before.Put(next); !errors.Is(err, ErrOrphan) {
		t.Errorf("a change before the one it follows: %v, want ErrOrphan", err)
	}
	other, err := New(m[0], 1, "", envelope.Place{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := before.Put(other.Ops()[0]); !errors.Is(err, ErrOther) {
		t.Errorf("another group's founding: %v, want ErrOther", err)
	}
	if before.Len() != 1 {
		t.Errorf("%d changes held", before.Len())
	}
}

func TestWordsFit(t *testing.T) {
	t.Parallel()
	r, m := found(t, 64, 3)
	for range 240 {
		if _, err := r.Sign(m[0], 2, &Op{Kind: Rename, Name: strings.Repeat("n", envelope.MaxName)}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	words := Words(Word{Group: r.ID(), Generation: 1, Heads: r.Heads()}, r.Ops())
	got := &Roster{}
	for i, b := range words {
		w, err := ParseWord(b)
		if err != nil || len(b) > envelope.MaxBody || w.More != (i < len(words)-1) {
			t.Fatalf("word %d of %d bytes: %v", i, len(b), err)
		}
		for _, raw := range w.Ops {
			if _, _, err := got.Put(raw); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	if n != r.Len() || len(words) < 2 || got.Epoch() != r.Epoch() {
		t.Errorf("%d of %d changes in %d words", n, r.Len(), len(words))
	}
}

// A log of the largest size is read in bearable time, the worst that admins can make of it too.
func BenchmarkLoad(b *testing.B) {
	for _, kind := range []string{"line", "fan"} {
		r, m := found(b, 20, 16)
		base := r.Heads()
		for i := 0; r.Len() < MaxOps; i++ {
			o := &Op{Kind: Rename, Name: fmt.Sprint(i)}
			if kind == "fan" {
				o = &Op{Kind: Remove, Target: m[17].Account, Time: int64(i), Parents: base}
			}
			if _, err := r.Sign(m[i%8], int64(i), o); err != nil {
				b.Fatal(err)
			}
		}
		ops := r.Ops()
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				got := &Roster{}
				for _, raw := range ops {
					if _, _, err := got.Put(raw); err != nil {
						b.Fatal(err)
					}
				}
				got.Members()
			}
		})
	}
}

func FuzzParseOp(f *testing.F) {
	r, m := found(f, 4, 2)
	r.do(f, m[0], Add, author(f, 50).Account)
	r.do(f, m[1], Remove, m[2].Account)
	for _, raw := range r.Ops() {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		_, _ = ParseOp(raw)
		at := len(raw) - signatureLen
		if at < 18+32 {
			return
		}
		body := bytes.Clone(raw[:at])
		self := m[0].Account
		copy(body[18:], self[:])
		sig := m[0].Key.Sign("roster", key.NetworkID{}, body)
		o, err := ParseOp(append(body, sig[:]...))
		if err != nil {
			return
		}
		again, err := o.Sign(m[0].Key)
		if err != nil || !bytes.Equal(again, append(body, sig[:]...)) {
			t.Fatalf("change %x is written as %x, %v", body, again, err)
		}
		_, _, _ = copyOf(t, r).Put(again)
	})
}

func FuzzParseWord(f *testing.F) {
	r, _ := found(f, 4, 2)
	f.Add(Words(Word{Group: r.ID(), Generation: 1, Heads: r.Heads()}, r.Ops())[0])
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ParseWord(b)
		if err == nil && !bytes.Equal(w.Append(nil), b) {
			t.Fatalf("word %x is written as %x", b, w.Append(nil))
		}
	})
}

func TestIDs(t *testing.T) {
	t.Parallel()
	r, _ := found(t, 2, 1)
	raw := r.Ops()[0]
	if r.Heads()[0] != OpID(sha256.Sum256(raw)) || strings.Contains(r.ID().String(), " ") {
		t.Error("the id of a change is not its SHA-256")
	}
}
