package peering

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// duo is two clusters' keys, no nodes.
type duo struct {
	key, admin [2]*key.Private // a, b
	gate       [2]key.Public
}

func newDuo(t testing.TB) *duo {
	d := &duo{}
	for i := range 2 {
		d.key[i], d.admin[i], d.gate[i] = keyOf(t), keyOf(t), keyOf(t).Public()
	}
	return d
}

func (d *duo) side(t testing.TB, i int, admin *key.Private, number uint64, give Grant) Side {
	return Side{
		Cluster: d.key[i].Public(), Admin: admin.Public(), List: newList(t, d.key[i], admin, number), Name: []string{"oslo", "rome"}[i],
		Gates: []member.Contact{{Key: d.gate[i], Addr: "192.0.2.1:7667"}}, Gives: give,
	}
}

// sampleGrant has one export of every kind.
func sampleGrant(t testing.TB) Grant {
	t.Helper()
	g := Grant{Messaging: MessagingAdmins, Verbs: []string{"status", "ping"}, Nodes: 3, Rate: 1 << 20, Quota: 1 << 30}
	for _, s := range []string{"web", "mail=@office:smtp", "db=tcp://10.0.0.7:5432", "lan=10.0.0.0/24:80-443", "six=[fd00::]/64:1-65535", "git=alice:ssh"} {
		e, err := ParseExport(s, func(string) (key.Public, error) { return keyOf(t).Public(), nil })
		if err != nil {
			t.Fatal(err)
		}
		g.Exports = append(g.Exports, e)
	}
	if !g.Sort() {
		t.Fatal("a name twice")
	}
	return g
}

func (d *duo) record(t testing.TB, seq uint64, give Grant) *Record {
	t.Helper()
	r := NewRecord(d.side(t, 0, d.admin[0], 1, give), d.side(t, 1, d.admin[1], 1, Grant{}))
	r.Seq, r.Issued = seq, 1_790_000_000
	for _, k := range d.admin {
		if err := r.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (d *duo) end(t testing.TB, by int, admin *key.Private, number, seq uint64) []byte {
	t.Helper()
	e := End{Low: d.key[0].Public(), High: d.key[1].Public(), Seq: seq, Issued: 1_790_000_001, By: d.key[by].Public(), List: newList(t, d.key[by], admin, number)}
	if e.High.Less(e.Low) {
		e.Low, e.High = e.High, e.Low
	}
	raw, err := e.Sign(admin)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func wallClock() member.Instant { return member.Instant{Wall: time.Now()} }

func openBook(t testing.TB, state string, own key.Public) *Book {
	t.Helper()
	b, err := OpenBook(state, own, wallClock)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRecordText(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	r := d.record(t, 1, sampleGrant(t))
	raw := r.Append(nil)
	got, err := ParseRecord(raw)
	if err != nil || !bytes.Equal(got.Append(nil), raw) || got.Verify() != nil {
		t.Fatalf("%v, %v", err, got.Verify())
	}
	t.Logf("a record with six exports has %d bytes, with one %d", len(raw), len(d.record(t, 1, Grant{Exports: got.Sides[0].Gives.Exports[:min(1, len(got.Sides[0].Gives.Exports))]}).Append(nil)))
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if v, err := ParseRecord(bad); err == nil && v.Verify() == nil {
			t.Fatalf("byte %d changed, and the record holds", i)
		}
	}
	if _, err := ParseRecord(append(raw, 0)); err == nil {
		t.Error("a byte more")
	}
	// Who is no admin of the list that he shows, and a list that the cluster did not sign.
	mallory := keyOf(t)
	r = NewRecord(d.side(t, 0, d.admin[0], 1, Grant{}), d.side(t, 1, d.admin[1], 1, Grant{}))
	r.Seq, r.Issued = 1, 1
	for i := range r.Sides {
		if r.Sides[i].Cluster == d.key[0].Public() {
			r.Sides[i].Admin = mallory.Public()
		}
	}
	for _, k := range []*key.Private{mallory, d.admin[1]} {
		if err := r.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Verify(); !errors.Is(err, ErrUntrusted) {
		t.Errorf("signed by a stranger: %v", err)
	}
	for i := range r.Sides {
		if r.Sides[i].Cluster == d.key[0].Public() {
			r.Sides[i].List = newList(t, mallory, mallory, 9)
		}
	}
	for _, k := range []*key.Private{mallory, d.admin[1]} {
		if err := r.Sign(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Verify(); !errors.Is(err, ErrSignature) {
		t.Errorf("a list of another cluster: %v", err)
	}
}

// TestReplay: whatever order old records and ends come in, by whomever, what was revoked stays so; also after a restart.
func TestReplay(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	dir := t.TempDir()
	b := openBook(t, dir, d.key[0].Public())
	r1, r2, r3 := d.record(t, 1, Grant{}).Append(nil), d.record(t, 2, sampleGrant(t)).Append(nil), d.record(t, 3, Grant{}).Append(nil)
	end2 := d.end(t, 1, d.admin[1], 1, 2)
	if _, _, err := b.Put(end2, false); !errors.Is(err, ErrUntrusted) {
		t.Errorf("an end by a cluster that nobody knows: %v", err)
	}
	for i, step := range []struct {
		raw  []byte
		news bool
		err  error
	}{
		{r2, true, nil},
		{r2, false, nil},
		{r1, false, ErrStale},
		{end2, true, nil},
		{end2, false, nil},
		{r2, false, ErrStale},
		{r1, false, ErrStale},
		{d.end(t, 0, d.admin[0], 1, 1), false, ErrStale},
	} {
		news, _, err := b.Put(step.raw, false)
		if news != step.news || !errors.Is(err, step.err) {
			t.Errorf("step %d: news %v, %v; want %v, %v", i, news, err, step.news, step.err)
		}
	}
	b = openBook(t, dir, d.key[0].Public()) // a restart
	if _, _, err := b.Put(r2, true); !errors.Is(err, ErrStale) {
		t.Errorf("after a restart: %v", err)
	}
	if p, ok := b.With(d.key[1].Public()); !ok || p.InForce(0) {
		t.Error("it is in force again")
	}
	if news, _, err := b.Put(r3, false); !news || err != nil {
		t.Errorf("a new agreement: %v", err)
	}
	if p, _ := b.With(d.key[1].Public()); !p.InForce(0) || p.Alias != "rome" {
		t.Errorf("%+v", p)
	}
	// The end first, the record later, at a gateway that was off: told by one of its own cluster.
	late := openBook(t, t.TempDir(), d.key[0].Public())
	if news, _, err := late.Put(end2, true); !news || err != nil {
		t.Errorf("the end alone: %v", err)
	}
	if _, _, err := late.Put(r2, false); !errors.Is(err, ErrStale) {
		t.Errorf("the record after it: %v", err)
	}
	if _, _, err := openBook(t, t.TempDir(), keyOf(t).Public()).Put(r3, true); !errors.Is(err, ErrUntrusted) {
		t.Errorf("of other clusters: %v", err)
	}
}

// TestDismissed: an administrator who was dismissed signs nothing any more, whatever list he shows.
func TestDismissed(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	for own := range 2 { // the dismissed one is a's: seen by a, and by b
		b := openBook(t, t.TempDir(), d.key[own].Public())
		if _, _, err := b.Put(d.record(t, 1, Grant{}).Append(nil), false); err != nil {
			t.Fatal(err)
		}
		next := keyOf(t)
		list := newList(t, d.key[0], next, 2)
		if own == 0 {
			parsed, err := member.ParseAdminList(list)
			if err != nil {
				t.Fatal(err)
			}
			b.SetAdmins(parsed)
		} else if news, err := b.Learn(d.key[0].Public(), list); !news || err != nil {
			t.Fatal(news, err)
		}
		if _, _, err := b.Put(d.record(t, 2, sampleGrant(t)).Append(nil), false); !errors.Is(err, ErrUntrusted) {
			t.Errorf("a record of his, seen by %d: %v", own, err)
		}
		if _, _, err := b.Put(d.end(t, 0, d.admin[0], 1, 1), false); !errors.Is(err, ErrUntrusted) {
			t.Errorf("an end of his, seen by %d: %v", own, err)
		}
		p, _ := b.With(d.key[1-own].Public())
		if err := b.Trusted(&p); !errors.Is(err, ErrUntrusted) {
			t.Errorf("what he had signed still holds, seen by %d: %v", own, err)
		}
	}
}

func TestInviteText(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	v, err := NewInvite(Invite{Node: d.gate[0], Expires: 1_900_000_000, Offer: d.side(t, 0, d.admin[0], 1, sampleGrant(t)), Asks: Grant{Verbs: []string{"ping"}}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := v.Text(d.admin[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("an invite with six exports has %d letters", len(text))
	got, err := ParseInvite(" " + text[:50] + "\n" + text[50:])
	if err != nil || got.Secret != v.Secret || !bytes.Equal(got.body(), v.body()) {
		t.Errorf("%v", err)
	}
	for i := len(invitePrefix); i < len(text); i += 7 {
		bad := []byte(text)
		if bad[i]++; bad[i] > 'z' {
			bad[i] = 'a'
		}
		if _, err := ParseInvite(string(bad)); err == nil {
			t.Errorf("letter %d changed, and it is an invite", i)
		}
	}
}

func TestExportTexts(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", "Web", "web=", "web=alice", "web=:x", "web=tcp://host:80", "web=tcp://10.0.0.1:0", "lan=10.0.0.1/24:80", "lan=10.0.0.0/24:90-80", "lan=10.0.0.0/24:0-80", "x=@:web", "a@b"} {
		if e, err := ParseExport(s, func(string) (key.Public, error) { return key.Public{}, errNoPeering }); err == nil {
			t.Errorf("%q is %+v", s, e)
		}
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	e, err := ParseExport("lan=10.0.0.0/24:80-443", nil)
	if err != nil {
		t.Fatal(err)
	}
	header := func(host string, port uint16) []byte {
		return append([]byte{1, byte(port >> 8), byte(port), byte(len(host))}, host...)
	}
	if at, err := e.address(header("10.0.0.9", 80)); err != nil || at != netip.MustParseAddrPort("10.0.0.9:80") {
		t.Errorf("%v, %v", at, err)
	}
	for _, h := range [][]byte{
		nil, header("10.0.1.9", 80), header("10.0.0.9", 79), header("10.0.0.9", 444), header("localhost", 80), header("127.0.0.1", 80),
		header("::ffff:10.0.1.9", 80), header("::1", 80),
		{2, 0, 80, 0},
	} {
		if at, err := e.address(h); err == nil {
			t.Errorf("%q leads to %v", h, at)
		}
	}
}

func TestQuota(t *testing.T) {
	t.Parallel()
	d := newDuo(t)
	b := openBook(t, t.TempDir(), d.key[0].Public())
	r := d.record(t, 1, Grant{Quota: 1000})
	if _, _, err := b.Put(r.Append(nil), false); err != nil {
		t.Fatal(err)
	}
	now := int64(1_800_000_000)
	if !b.Spend(r.Pair(), 999, now) || b.Spend(r.Pair(), 1, now+5) || b.Spend(r.Pair(), 0, now+29*24*3600) {
		t.Error("the quota does not hold")
	}
	if !b.Spend(r.Pair(), 0, now+30*24*3600) {
		t.Error("it never begins anew")
	}
}

// TestBookDamaged: a book that can't be read is an error, for what was revoked stands in it.
func TestBookDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, bookName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenBook(dir, keyOf(t).Public(), wallClock); err == nil {
		t.Error("a damaged book forgets what was revoked")
	}
}

func FuzzRecord(f *testing.F) {
	d := newDuo(f)
	f.Add(d.record(f, 1, sampleGrant(f)).Append(nil))
	f.Add(d.end(f, 0, d.admin[0], 1, 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := ParseRecord(raw); err == nil && !bytes.Equal(r.Append(nil), raw) {
			t.Error("two encodings of one record")
		}
		_, _ = ParseEnd(raw)
		_, _ = ParsePass(raw)
	})
}

func FuzzInvite(f *testing.F) {
	d := newDuo(f)
	v, err := NewInvite(Invite{Node: d.gate[0], Expires: 1, Offer: d.side(f, 0, d.admin[0], 1, sampleGrant(f))})
	if err != nil {
		f.Fatal(err)
	}
	text, err := v.Text(d.admin[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, s string) {
		_, _ = ParseInvite(s)
		if m, err := ParseMessaging(s); err == nil && m.String() != s {
			t.Errorf("%q is %v", s, m)
		}
		_, _ = ParseExport(s, func(string) (key.Public, error) { return key.Public{}, errNoPeering })
	})
}
