package peering

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// suggestion is one of a to b, about a third cluster.
func (d *duo) suggestion(t testing.TB, about key.Public, admin *key.Private, life int64) []byte {
	t.Helper()
	now := time.Now().Unix()
	raw, err := (&Suggestion{
		By: d.key[0].Public(), To: d.key[1].Public(), About: about, Issued: now - 10, Expires: now - 10 + life, Name: "bern",
		Gates: []member.Contact{{Key: d.gate[0], Addr: "192.0.2.7:7667"}}, List: newList(t, d.key[0], admin, 1),
	}).Sign(admin)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestSuggest: suggestions are taken of peered clusters alone, are few, end, and what was dismissed does not come back.
func TestSuggest(t *testing.T) {
	t.Parallel()
	d, now := newDuo(t), time.Now().Unix()
	dir := t.TempDir()
	b := openBook(t, dir, d.key[1].Public())
	about := keyOf(t).Public()
	first := d.suggestion(t, about, d.admin[0], 3600)
	if _, _, err := b.Suggest(first, now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("of a cluster that is not peered: %v", err)
	}
	if _, _, err := b.Put(d.record(t, 1, Grant{}).Append(nil), false); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} {
		if _, news, err := b.Suggest(first, now); news != want || err != nil {
			t.Errorf("time %d: %v, %v", i, news, err)
		}
	}
	if _, _, err := b.Suggest(d.suggestion(t, keyOf(t).Public(), d.admin[0], 5), now); !errors.Is(err, ErrStale) {
		t.Errorf("one that expired: %v", err)
	}
	for i := range maxOfOne {
		_, news, err := b.Suggest(d.suggestion(t, keyOf(t).Public(), d.admin[0], 3600), now)
		if last := i == maxOfOne-1; news == last || last != errors.Is(err, ErrFull) {
			t.Errorf("number %d: %v, %v", i+2, news, err)
		}
	}
	if err := b.Dismiss(about); err != nil {
		t.Fatal(err)
	}
	b = openBook(t, dir, d.key[1].Public()) // a restart
	if _, news, err := b.Suggest(first, now); news || err != nil {
		t.Errorf("dismissed, and there again: %v, %v", news, err)
	}
	if n := len(b.Suggestions(now)); n != maxOfOne-1 {
		t.Errorf("%d suggestions", n)
	}
	if n := len(b.Suggestions(now + 3600)); n != 0 {
		t.Errorf("%d suggestions after they expired", n)
	}
	if _, ok := b.With(about); ok || len(b.All()) != 1 {
		t.Error("a suggestion made a peering")
	}
	// A dismissed administrator suggests nothing; the list that he shows is not the newest.
	if _, err := b.Learn(d.key[0].Public(), newList(t, d.key[0], keyOf(t), 2)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Suggest(d.suggestion(t, keyOf(t).Public(), d.admin[0], 3600), now); !errors.Is(err, ErrUntrusted) {
		t.Errorf("of an administrator who was dismissed: %v", err)
	}
	for i := range first {
		bad := bytes.Clone(first)
		bad[i] ^= 1
		if _, err := ParseSuggestion(bad); err == nil {
			t.Fatalf("byte %d changed, and the suggestion holds", i)
		}
	}
}

// TestIntroduced: a is peered with b and with c, and tells them of each other. Nothing is opened by that; c's invite to b is what
// joins them.
func TestIntroduced(t *testing.T) {
	all := map[string]*testCluster{}
	for _, name := range []string{"a", "b", "c"} {
		all[name] = newTestCluster(t, name, 1)
		all[name].gateway(all[name].nodes[0], true)
	}
	gate := func(name string) *Gateway { return all[name].nodes[0].gw }
	join := func(from, to string) {
		t.Helper()
		v, err := ask[InviteResult](t, gate(from), "peer.invite", InviteParams{Name: from, Gates: []string{all[from].nodes[0].addr}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ask[AcceptResult](t, gate(to), "peer.accept", AcceptParams{Invite: v.Invite, Name: to, Gates: []string{all[to].nodes[0].addr}}); err != nil {
			t.Fatal(err)
		}
	}
	join("a", "b")
	join("a", "c")
	told, err := ask[[]IntroducedInfo](t, gate("a"), "peer.introduce", IntroduceParams{Peers: [2]string{"b", "c"}})
	if err != nil || len(told) != 2 || !told[0].Told || !told[1].Told {
		t.Fatalf("%+v, %v", told, err)
	}
	for name, about := range map[string]string{"b": "c", "c": "b"} {
		l, err := ask[ListResult](t, gate(name), "peer.list", nil)
		want := fmt.Sprintf("[%s@%s]", all[about].nodes[0].key.Public(), all[about].nodes[0].addr)
		if err != nil || len(l.Peerings) != 1 || len(l.Suggested) != 1 || l.Suggested[0].Cluster != all[about].key.Public() || l.Suggested[0].By != "a" ||
			fmt.Sprint(l.Suggested[0].Gates) != want {
			t.Errorf("%s lists %+v, %v", name, l, err)
		}
	}
	if _, err := ask[struct{}](t, gate("b"), "peer.dismiss", PeerParams{Peer: "c"}); err != nil {
		t.Fatal(err)
	}
	if _, err := ask[struct{}](t, gate("b"), "peer.dismiss", PeerParams{Peer: "c"}); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("dismissed twice: %v", err)
	}
	if _, err := ask[[]IntroducedInfo](t, gate("a"), "peer.introduce", IntroduceParams{Peers: [2]string{"c", "b"}}); err != nil {
		t.Fatal(err)
	}
	if l, err := ask[ListResult](t, gate("b"), "peer.list", nil); err != nil || len(l.Suggested) != 0 {
		t.Errorf("dismissed, and there again: %+v, %v", l.Suggested, err)
	}
	join("b", "c")
	if l, err := ask[ListResult](t, gate("c"), "peer.list", nil); err != nil || len(l.Suggested) != 0 || len(l.Peerings) != 2 {
		t.Errorf("agreed, and suggested still: %+v, %v", l, err)
	}
}

func FuzzSuggestion(f *testing.F) {
	d := newDuo(f)
	f.Add(d.suggestion(f, keyOf(f).Public(), d.admin[0], 3600))
	f.Fuzz(func(_ *testing.T, raw []byte) { _, _ = ParseSuggestion(raw) })
}
