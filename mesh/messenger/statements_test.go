package messenger

import (
	"errors"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/store"
	"skywire/signal"
)

func TestStatements(t *testing.T) {
	t.Parallel()
	kv, err := store.OpenKV("", store.KVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	open := func(most int64) *Statements {
		s, err := OpenStatements(KVShelf(kv), [32]byte{1}, most)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	now := time.Unix(1_800_000_000, 0)
	var people [5]Sender
	for i := range people {
		k, err := key.Generate()
		if err != nil {
			t.Fatal(err)
		}
		people[i] = Sender{Account: k.Public(), Device: k.Public()}
	}
	from := func(i byte) Sender { return people[i] }
	item := func(n int) *envelope.Item {
		return &envelope.Item{Kind: envelope.KindStatement, Time: int64(n), Body: []byte{byte(n), byte(n >> 8), 1}}
	}
	s := open(1 << 20)
	for _, who := range []byte{1, 1, 2} { // again, and by another
		if a, err := s.Take(from(who), item(0), now); err != nil || !a.Kept || a.Understood {
			t.Errorf("%+v, %v", a, err)
		}
	}
	if n, bytes := s.Count(); n != 1 || bytes == 0 {
		t.Errorf("%d kept, %d bytes", n, bytes)
	}
	for n := 1; n < maxStatements/4; n++ {
		if _, err := s.Take(from(1), item(n), now); err != nil {
			t.Fatal(n, err)
		}
	}
	s = open(1 << 20) // what is kept counts after a restart
	if a, err := s.Take(from(1), item(1000), now); !errors.Is(err, signal.ErrBusy) || a.Kept {
		t.Errorf("more than one account's share: %+v, %v", a, err)
	}
	if a, err := s.Take(from(3), item(1000), now); err != nil || !a.Kept {
		t.Errorf("of another: %+v, %v", a, err)
	}
	_, bytes := s.Count()
	if _, err := open(bytes).Take(from(4), item(2000), now); !errors.Is(err, signal.ErrBusy) {
		t.Errorf("over the bytes: %v", err)
	}
}

func TestStatementsShownAndDropped(t *testing.T) {
	t.Parallel()
	kv, err := store.OpenKV("", store.KVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenStatements(KVShelf(kv), [32]byte{1}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	who := Sender{Account: newKey(t), Device: newKey(t)}
	for n := range maxStatements / 4 {
		it := &envelope.Item{Kind: envelope.KindStatement, Time: int64(n), Body: []byte{byte(n), 1, 2}}
		if _, err := s.Take(who, it, start().Add(-time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	all, err := s.List()
	if err != nil || len(all) != maxStatements/4 || all[0].Body != nil || all[0].Bytes != 3 || all[0].Time.After(all[1].Time) {
		t.Fatalf("%d listed, the first %+v: %v", len(all), all[0], err)
	}
	x, err := s.Show(all[0].ID[:12])
	if err != nil || len(x.Body) != 3 || x.Account != who.Account {
		t.Errorf("%+v, %v", x, err)
	}
	for _, word := range []string{"", all[0].ID[:5], "zzzzzzzz", all[0].ID + "0"} {
		if _, err := s.Drop(word); !errors.Is(err, ErrNoStatement) {
			t.Errorf("%q: %v", word, err)
		}
	}
	more := &envelope.Item{Kind: envelope.KindStatement, Time: 99, Body: []byte("more")}
	if _, err := s.Take(who, more, start()); !errors.Is(err, signal.ErrBusy) {
		t.Fatalf("beyond the share: %v", err)
	}
	n, bytes := s.Count()
	if _, err := s.Drop(all[0].ID); err != nil {
		t.Fatal(err)
	}
	if m, left := s.Count(); m != n-1 || left >= bytes {
		t.Errorf("%d of %d, %d bytes of %d", m, n, left, bytes)
	}
	if _, err := s.Show(all[0].ID); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("dropped, and shown: %v", err)
	}
	if a, err := s.Take(who, more, start()); err != nil || !a.Kept {
		t.Errorf("where one was dropped: %+v, %v", a, err)
	}
	again, err := OpenStatements(KVShelf(kv), [32]byte{1}, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	a, b := s.Count()
	if m, left := again.Count(); m != a || left != b {
		t.Errorf("after a restart %d and %d bytes, not %d and %d", m, left, a, b)
	}
}
