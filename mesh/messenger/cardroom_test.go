package messenger

import (
	"errors"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// TestCardRoom: cards of confirmed contacts stay within their share of the store, those of former contacts make room, and one that is
// known is renewed in a full store, too.
func TestCardRoom(t *testing.T) {
	t.Parallel()
	s := newSim(t, 1)
	const quota = 256 << 10
	a := s.node("a", func(c *Config) { c.Quota = quota })
	issued := s.instant().Wall.Unix()
	card := func(k *key.Private, number uint64) (*envelope.Card, []byte) {
		keys, err := a.cfg.Prekeys.Public()
		if err != nil {
			t.Fatal(err)
		}
		v := &envelope.Card{Account: k.Public(), Device: k.Public(), Number: number, Issued: issued, Stamp: envelope.StrangersClosed, Prekeys: keys}
		raw, err := v.Sign(k)
		if err != nil {
			t.Fatal(err)
		}
		return v, raw
	}
	var known []*key.Private
	meet := func(k *key.Private, number uint64) (err error) {
		v, raw := card(k, number)
		a.call(func(c *core) {
			if number == 1 {
				if _, err = c.book.Add(k.Public(), [16]byte{}, "", "", "", "", c.now); err != nil {
					return
				}
				c.book.set(c.book.contacts[k.Public()], Confirmed, c.now)
				c.saveBook()
				c.accountOf(k.Public())
			}
			_, err = c.admitCard(v, raw, nobody)
		})
		s.run(s.now+time.Second, nil)
		return err
	}
	var err error
	for len(known) < 1000 {
		k, kerr := key.Generate()
		if kerr != nil {
			t.Fatal(kerr)
		}
		if err = meet(k, 1); err != nil {
			break
		}
		known = append(known, k)
	}
	size := func() int64 { return a.cfg.Store.Size(bCard) + a.cfg.Store.Size(bAuth) }
	if !errors.Is(err, ErrBookFull) || size() > quota/4*3 || size() < quota/2 || a.c.counters["cards_no_room"] != 1 {
		t.Fatalf("%d cards, %d bytes of %d: %v", len(known), size(), quota, err)
	}
	if err := meet(known[0], 2); err != nil || a.c.devices[known[0].Public()].rec.Card != 2 {
		t.Errorf("a newer card in a full store: %v", err)
	}
	a.call(func(c *core) {
		if _, err := c.book.Remove(known[1].Public()); err != nil {
			t.Error(err)
		}
	})
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	if err := meet(k, 1); err != nil || a.c.devices[known[1].Public()].rec.Card != 0 || a.c.cardOf(a.c.devices[known[1].Public()]) != nil {
		t.Errorf("no room where a former contact has some: %v", err)
	}
	t.Logf("%d cards, %d bytes", len(known), size())
}
