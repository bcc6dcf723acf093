package route

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"skywire/mesh/key"
)

var open = key.Open()

func signed(t testing.TB, p *key.Private, number uint64, change func(*Record)) []byte {
	t.Helper()
	r := &Record{Number: number, Boot: 1}
	if change != nil {
		change(r)
	}
	return Sign(r, p, open)
}

func TestPutOrdersByNumber(t *testing.T) {
	t.Parallel()
	ids := identities(t, 3)
	d := NewDB(DBConfig{Network: open, Self: ids[0].Public()})
	from := ids[1].Public()
	put := func(number uint64, name string) Verdict {
		return d.Put(time.Minute, signed(t, ids[2], number, func(r *Record) { r.Name = name }), from)
	}
	if v := put(5, "a"); v.Outcome != Added || !v.Flood() || v.Changes != NameChanged || v.Entry.Number != 5 {
		t.Errorf("first: %+v", v)
	}
	if v := put(5, "a"); v.Outcome != Known || v.Flood() {
		t.Errorf("again: %+v", v)
	}
	if v := put(5, "b"); v.Outcome != Conflict || v.Flood() {
		t.Errorf("other bytes: %+v", v)
	}
	if v := put(4, "a"); v.Outcome != Stale || v.Newer == nil || v.Newer.Number != 5 {
		t.Errorf("older: %+v", v)
	}
	if v := put(6, "a"); v.Outcome != Updated || v.Changes != 0 || v.Graph() {
		t.Errorf("newer: %+v", v)
	}
	if e := d.Get(ids[2].Public()); e.Name != "a" || e.Number != 6 || d.Len() != 1 {
		t.Errorf("held: %+v", e)
	}
	raw := signed(t, ids[2], 7, nil)
	raw[50] ^= 1
	if v := d.Put(time.Minute, raw, from); v.Outcome != Bad || v.Err == nil {
		t.Errorf("forged: %+v", v)
	}
	if s := d.Stats(); s.Accepted != 2 || s.Known != 1 || s.Conflicts != 1 || s.Stale != 1 || s.Bad != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	ids := identities(t, 4)
	d := NewDB(DBConfig{Network: open})
	link := Link{Peer: ids[1].Public(), RTT: 5 * time.Millisecond}
	for i, c := range []struct {
		change func(*Record)
		want   Changes
		graph  bool
	}{
		{func(r *Record) { r.Links = []Link{link} }, LinksChanged, true},
		{func(r *Record) { r.Links = []Link{{Peer: link.Peer, RTT: 6 * time.Millisecond}} }, MeasuresChanged, true},
		{func(r *Record) {
			r.Links = []Link{{Peer: link.Peer, RTT: 6 * time.Millisecond}}
			r.Services = []Service{{Name: "vpn"}}
		}, ServicesChanged, false},
		{func(r *Record) { r.Addrs = []string{"udp://a:1"} }, LinksChanged | ServicesChanged | AddrsChanged, true},
	} {
		v := d.Put(time.Duration(i)*time.Minute, signed(t, ids[0], uint64(i+1), c.change), ids[2].Public())
		if v.Changes != c.want || v.Graph() != c.graph {
			t.Errorf("step %d: %b, graph %v; want %b", i, v.Changes, v.Graph(), c.want)
		}
	}
}

func TestRatesOfOneOrigin(t *testing.T) {
	t.Parallel()
	ids := identities(t, 3)
	d := NewDB(DBConfig{Network: open})
	count := func(now time.Duration, first, n uint64) (accepted int) {
		for i := range n {
			if d.Put(now, signed(t, ids[0], first+i, nil), ids[1].Public()).Flood() {
				accepted++
			}
		}
		return accepted
	}
	if got := count(0, 1, 20); got != originBurst {
		t.Errorf("%d at once, want %d", got, originBurst)
	}
	if got := count(3*time.Second, 100, 20); got != 3 {
		t.Errorf("%d after 3 s, want 3", got)
	}
	// Forgeries of a known origin take nothing from its quota.
	for i := range uint64(20) {
		raw := signed(t, ids[0], 1000+i, nil)
		raw[len(raw)-1] ^= 1
		d.Put(time.Hour, raw, ids[2].Public())
	}
	if got := count(time.Hour, 2000, 1); got != 1 {
		t.Error("forgeries used up the origin's quota")
	}
}

func TestStrangersCostABoundedNumberOfChecks(t *testing.T) {
	t.Parallel()
	ids := identities(t, 2)
	d := NewDB(DBConfig{Network: open})
	raw := signed(t, ids[0], 1, nil)
	raw[len(raw)-1] ^= 1
	for range 10 * verifyBurst {
		d.Put(0, raw, ids[1].Public())
	}
	if s := d.Stats(); s.Bad != verifyBurst || s.Busy != 9*verifyBurst {
		t.Errorf("stats %+v", s)
	}
	if v := d.Put(time.Second, raw, ids[1].Public()); v.Outcome != Bad {
		t.Errorf("a second later: %v", v.Outcome)
	}
}

func TestQuotaOfNewOrigins(t *testing.T) {
	t.Parallel()
	d := NewDB(DBConfig{Network: open})
	src := d.source(0, key.Public{1})
	for range newBurst {
		src.origins.take(0, newRate, newBurst)
	}
	raw := signed(t, identity(t, 0), 1, nil)
	if v := d.Put(0, raw, key.Public{1}); v.Outcome != Busy {
		t.Errorf("over the quota: %v", v.Outcome)
	}
	if v := d.Put(time.Minute, raw, key.Public{1}); v.Outcome != Added {
		t.Errorf("a minute later: %v", v.Outcome)
	}
	for i := range 2 * maxSources {
		d.source(time.Hour+time.Duration(i), key.Public{2, byte(i >> 8), byte(i)})
	}
	if len(d.sources) > maxSources {
		t.Errorf("%d neighbours are remembered", len(d.sources))
	}
}

// TestFullTable: the neighbour that floods loses its own records, members stay, and a member always finds room.
func TestFullTable(t *testing.T) {
	t.Parallel()
	ids := identities(t, 40)
	member := map[key.Public]bool{ids[0].Public(): true, ids[1].Public(): true, ids[39].Public(): true}
	d := NewDB(DBConfig{Network: open, MaxRecords: 8, Member: func(k key.Public) bool { return member[k] }})
	flooder, quiet := key.Public{1}, key.Public{2}
	put := func(now int, i int, from key.Public) Verdict {
		return d.Put(time.Duration(now)*time.Second, signed(t, ids[i], 1, nil), from)
	}
	put(0, 0, flooder)
	put(0, 1, flooder)
	for i := 2; i < 20; i++ {
		put(i, i, flooder)
	}
	if d.Len() != 8 || d.Stats().Full != 12 {
		t.Fatalf("%d records, %+v", d.Len(), d.Stats())
	}
	for i := 20; i < 22; i++ {
		if v := put(i, i, quiet); v.Outcome != Added || len(v.Gone) != 1 || !v.Graph() {
			t.Errorf("record %d of the quiet neighbour: %+v", i, v)
		}
	}
	if d.Get(ids[2].Public()) != nil || d.Get(ids[4].Public()) == nil {
		t.Error("not the oldest record of the flooder went")
	}
	for i := 22; i < 30; i++ {
		put(i, i, quiet)
	}
	shares := map[key.Public]int{}
	for _, e := range d.Entries() {
		if !e.member {
			shares[e.From]++
		}
	}
	if d.Len() != 8 || shares[flooder] != 3 || shares[quiet] != 3 {
		t.Errorf("shares %v of %d", shares, d.Len())
	}
	if v := put(40, 39, flooder); v.Outcome != Added || len(v.Gone) != 1 {
		t.Errorf("member: %+v", v)
	}
	for k := range member {
		if d.Get(k) == nil {
			t.Errorf("member %s was evicted", k.Short())
		}
	}
}

func TestBytesAreBounded(t *testing.T) {
	t.Parallel()
	d := NewDB(DBConfig{Network: open, MaxBytes: 20_000})
	for i := range 40 {
		raw := signed(t, identity(t, i), 1, func(r *Record) { r.Unknown = []Item{{Type: 99, Value: make([]byte, 1000)}} })
		d.Put(0, raw, key.Public{byte(i)})
	}
	total := 0
	for _, e := range d.Entries() {
		total += cost(e)
	}
	if total != d.bytes || total > 20_000 || d.Len() < 7 {
		t.Errorf("%d records of %d bytes, counted %d", d.Len(), total, d.bytes)
	}
}

func TestAgeing(t *testing.T) {
	t.Parallel()
	ids := identities(t, 3)
	a, b := NewDB(DBConfig{Network: open}), NewDB(DBConfig{Network: open})
	from := ids[2].Public()
	raw := signed(t, ids[0], 5, nil)
	a.Put(0, raw, from)
	e := a.Get(ids[0].Public())
	b.PutAged(time.Hour, raw, from, e.Age(time.Hour))
	if gone := a.Expire(DefaultLife - 1); len(gone) != 0 {
		t.Errorf("gone early: %v", gone)
	}
	if gone := a.Expire(DefaultLife); len(gone) != 1 || gone[0] != ids[0].Public() || a.Len() != 0 {
		t.Errorf("gone: %v", gone)
	}
	// A neighbour that still holds it, or lies about its age, can't bring it back; its owner can.
	if v := a.Put(DefaultLife+1, raw, from); v.Outcome != Stale {
		t.Errorf("back from the dead: %v", v.Outcome)
	}
	if newer, want := a.Diff(DefaultLife+1, b.Digests(0)[0]); len(newer)+len(want) != 0 {
		t.Errorf("asks for the dead: %v %v", newer, want)
	}
	if v := a.Put(DefaultLife+2, signed(t, ids[0], 6, nil), from); v.Outcome != Added {
		t.Errorf("its owner: %v", v.Outcome)
	}
	if gone := b.Expire(DefaultLife); len(gone) != 1 {
		t.Error("the age was lost on the way")
	}
	if v := b.PutAged(0, raw, from, DefaultLife); v.Outcome != Stale {
		t.Errorf("born dead: %v", v.Outcome)
	}
}

func TestStoredAge(t *testing.T) {
	t.Parallel()
	wall := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		made int64
		want time.Duration
	}{
		"a minute": {wall.Unix() - 60, time.Minute}, "no clock": {0, time.Hour}, "long ago": {1, time.Hour},
		"tomorrow": {wall.Unix() + 86400, time.Hour}, "before 1970": {-5, time.Hour},
	} {
		raw := signed(t, identity(t, 0), 1, func(r *Record) { r.Made = c.made })
		if got := StoredAge(raw, wall, 0); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if got := StoredAge(nil, wall, time.Minute); got != 30*time.Second {
		t.Errorf("nothing: %v", got)
	}
}

func TestOriginate(t *testing.T) {
	t.Parallel()
	ids := identities(t, 3)
	d := NewDB(DBConfig{Network: open, Self: ids[0].Public(), Boot: 3, Number: 100})
	r := &Record{Name: "x", Links: []Link{{Peer: ids[1].Public(), RTT: 10 * time.Millisecond}}}
	e, ok := d.Originate(0, r, ids[0])
	if !ok || e.Number != 101 || e.Boot != 3 || d.Number() != 101 || d.Get(ids[0].Public()) != e {
		t.Fatalf("first: %+v %v", e, ok)
	}
	if _, err := ParseRecord(e.Raw, open); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		at     time.Duration
		change func()
		want   bool
		what   string
	}{
		{time.Minute, func() {}, false, "nothing changed"},
		{time.Minute, func() { r.Name = "y" }, true, "a name"},
		{time.Minute + 100*time.Millisecond, func() { r.Name = "z" }, false, "too soon"},
		{time.Minute + 200*time.Millisecond, func() {}, true, "second of a burst"},
		{time.Minute + 400*time.Millisecond, func() { r.Name = "u" }, true, "third of a burst"},
		{time.Minute + 600*time.Millisecond, func() { r.Name = "v" }, false, "burst used up"},
		{time.Minute + time.Second, func() {}, true, "a second after the first"},
		{2 * time.Minute, func() { r.Links[0].RTT = 11 * time.Millisecond }, false, "a little drift"},
		{7 * time.Minute, func() {}, true, "a little drift, five minutes later"},
		{8 * time.Minute, func() { r.Links[0].RTT = 20 * time.Millisecond }, true, "a big drift"},
		{9 * time.Minute, func() { r.Links = nil }, true, "a lost link"},
		{38 * time.Minute, func() {}, false, "not due"},
		{39 * time.Minute, func() {}, true, "due"},
	}
	for _, s := range steps {
		s.change()
		if _, ok := d.Originate(s.at, r, ids[0]); ok != s.want {
			t.Errorf("%s: %v", s.what, ok)
		}
	}
	if gone := d.Expire(100 * time.Hour); len(gone) != 0 {
		t.Error("the own record aged away")
	}
}

// TestRestoredFromBackup: the box starts with an old number and hears its own newer record (H13 a).
func TestRestoredFromBackup(t *testing.T) {
	t.Parallel()
	ids := identities(t, 2)
	old := signed(t, ids[0], 500, nil)
	d := NewDB(DBConfig{Network: open, Self: ids[0].Public(), Boot: 9, Number: 3})
	d.Originate(0, &Record{}, ids[0])
	if v := d.Put(2*time.Second, old, ids[1].Public()); v.Outcome != Overtaken || v.Flood() {
		t.Fatalf("heard: %+v", v)
	}
	e, ok := d.Originate(3*time.Second, &Record{}, ids[0])
	if !ok || e.Number != 501 || e.Boot != 9 || d.Twin(3*time.Second) {
		t.Errorf("signed: %+v %v, twin %v", e, ok, d.Twin(3*time.Second))
	}
	if v := d.Put(4*time.Second, old, ids[1].Public()); v.Outcome != Stale || v.Newer != e {
		t.Errorf("heard again: %+v", v)
	}
	if v := d.Put(4*time.Second, e.Raw, ids[1].Public()); v.Outcome != Known {
		t.Errorf("echo: %+v", v)
	}
}

// TestClonedCard: two boxes run one key (H13 b). Both raise the alarm, and neither signs more than once a minute.
func TestClonedCard(t *testing.T) {
	t.Parallel()
	id, neighbour := identity(t, 0), identity(t, 1).Public()
	boxes := []*DB{
		NewDB(DBConfig{Network: open, Self: id.Public(), Boot: 1}),
		NewDB(DBConfig{Network: open, Self: id.Public(), Boot: 2}),
	}
	alarms, signedRecords := [2]int{}, [2]int{}
	for now := time.Duration(0); now < 10*time.Minute; now += time.Second {
		for i, d := range boxes {
			e, ok := d.Originate(now, &Record{Name: []string{"a", "b"}[i]}, id)
			if !ok {
				continue
			}
			signedRecords[i]++
			if v := boxes[1-i].Put(now, e.Raw, neighbour); v.Outcome == Twin {
				alarms[1-i]++
			}
		}
	}
	for i, d := range boxes {
		if alarms[i] == 0 || !d.Twin(10*time.Minute) || signedRecords[i] > 15 {
			t.Errorf("box %d: %d alarms, twin %v, %d records in 10 minutes", i, alarms[i], d.Twin(10*time.Minute), signedRecords[i])
		}
	}
	if boxes[0].Twin(time.Hour) {
		t.Error("the alarm never ends")
	}
}

func TestOwnNumberCannotRunOut(t *testing.T) {
	t.Parallel()
	id := identity(t, 0)
	d := NewDB(DBConfig{Network: open, Self: id.Public(), Boot: 1})
	d.Originate(0, &Record{}, id)
	d.Put(time.Second, signed(t, id, 1<<64-1, nil), key.Public{1})
	if _, ok := d.Originate(time.Minute, &Record{Name: "x"}, id); ok {
		t.Error("signed with a number that went back")
	}
}

// TestSync evens out two databases through digests of every size.
func TestSync(t *testing.T) {
	t.Parallel()
	ids := identities(t, 60)
	for _, limit := range []int{1, 7, 0} {
		r := rand.New(rand.NewPCG(uint64(limit), 3))
		a, b := NewDB(DBConfig{Network: open, Self: ids[0].Public()}), NewDB(DBConfig{Network: open, Self: ids[1].Public()})
		for _, p := range ids[2:] {
			for _, d := range []*DB{a, b} {
				if n := uint64(r.IntN(4)); n > 0 {
					d.Put(0, signed(t, p, n, nil), ids[0].Public())
				}
			}
		}
		for _, g := range a.Digests(limit) {
			parsed, err := ParseDigest(g.Append(nil))
			if err != nil {
				t.Fatal(err)
			}
			newer, want := b.Diff(time.Minute, parsed)
			for _, e := range newer {
				a.Put(time.Minute, e.Raw, ids[1].Public())
			}
			for _, k := range want {
				b.Put(time.Minute, a.Get(k).Raw, ids[0].Public())
			}
		}
		if a.Sum() != b.Sum() || a.Len() != b.Len() || a.Len() < 50 {
			t.Errorf("limit %d: %d and %d records, sums %x %x", limit, a.Len(), b.Len(), a.Sum(), b.Sum())
		}
	}
	if g := NewDB(DBConfig{}).Digests(0); len(g) != 1 || len(g[0].Entries) != 0 || g[0].Last[0] != 0xff {
		t.Errorf("digest of nothing: %+v", g)
	}
}

func FuzzParseDigest(f *testing.F) {
	d := NewDB(DBConfig{Network: open})
	for i := range 3 {
		d.Put(0, signed(f, identity(f, i), 1, nil), key.Public{1})
	}
	for _, g := range d.Digests(2) {
		f.Add(g.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := ParseDigest(b)
		if err != nil {
			return
		}
		if !bytes.Equal(g.Append(nil), b) {
			t.Errorf("%x encodes as %x", b, g.Append(nil))
		}
		newer, want := d.Diff(0, g)
		if len(newer) > d.Len() || len(want) > len(g.Entries) {
			t.Errorf("%d newer, %d wanted", len(newer), len(want))
		}
	})
}
