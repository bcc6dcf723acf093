package envelope

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"skywire/mesh/member"
)

func TestCardComesBack(t *testing.T) {
	t.Parallel()
	c, d := newCluster(t, 30), identity(t, 10)
	own := &Card{Account: d.Public(), Device: d.Public(), Number: 9, Issued: epoch, Stamp: StrangersClosed}
	for _, want := range []*Card{c.goodCard(d, 5), own} {
		raw, err := want.Sign(d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseCard(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("card\n%+v, %v, want\n%+v", got, err, want)
		}
		for i := range raw {
			raw[i] ^= 1
			if _, err := ParseCard(raw); err == nil {
				t.Errorf("byte %d altered: taken", i)
			}
			raw[i] ^= 1
		}
	}
	if _, err := own.Sign(identity(t, 11)); err == nil {
		t.Error("signed for another device")
	}
}

func TestCardBounds(t *testing.T) {
	t.Parallel()
	c, d := newCluster(t, 30), identity(t, 10)
	for name, edit := range map[string]func(*Card){
		"no number":          func(v *Card) { v.Number = 0 },
		"stamp":              func(v *Card) { v.Stamp = MaxStamp + 1 },
		"long name":          func(v *Card) { v.Name = strings.Repeat("x", MaxName+1) },
		"steering name":      func(v *Card) { v.Name = "a\x1b[2J" },
		"turning name":       func(v *Card) { v.Name = "a\u202eb" },
		"mailboxes":          func(v *Card) { v.Mailboxes = make([]Mailbox, MaxMailboxes+1) },
		"prekeys fall":       func(v *Card) { v.Prekeys[0], v.Prekeys[1] = v.Prekeys[1], v.Prekeys[0] },
		"own key":            func(v *Card) { v.Prekeys = []Prekey{OwnKey(d.Public())} },
		"no statements":      func(v *Card) { v.Statements = nil },
		"statement too long": func(v *Card) { v.Statements[0] = make([]byte, member.MaxStatement+1) },
		"statements of none": func(v *Card) { v.Account = v.Device },
		"contacts":           func(v *Card) { v.Place.Contacts = make([]member.Contact, member.MaxContacts+1) },
		"address":            func(v *Card) { v.Place.Contacts[0].Addr = "a b" },
	} {
		v := c.goodCard(d, 1)
		edit(v)
		if _, err := v.Sign(d); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	t.Parallel()
	c, d, other := newCluster(t, 30), identity(t, 10), identity(t, 12)
	list := c.list(1, c.admin)
	thief := newCluster(t, 60)
	for name, v := range map[string]*Card{
		"no role":         c.card(d, 1, list, c.cert(d.Public(), member.RoleMember, 0)),
		"of another node": c.card(d, 1, list, c.cert(other.Public(), speaker, 0)),
		"revoked":         c.card(d, 1, list, c.revoke(d.Public()), c.cert(d.Public(), speaker, 0)),
		"no certificate":  c.card(d, 1, list),
		"no list":         c.card(d, 1, c.cert(d.Public(), speaker, 0)),
		"other cluster":   c.card(d, 1, thief.list(1, thief.admin), thief.cert(d.Public(), speaker, 0)),
	} {
		a := NewAuthority(c.root.Public(), 0, at(0), nil)
		if err := a.Admit(at(0), parsed(t, v, d)); !errors.Is(err, ErrAuthority) {
			t.Errorf("%s: %v, want ErrAuthority", name, err)
		}
		if a.Card(d.Public()) != nil || len(a.Cards(at(0))) != 0 {
			t.Errorf("%s: the card is held", name)
		}
	}
	a := NewAuthority(c.root.Public(), 0, at(0), nil)
	if err := a.Admit(at(0), parsed(t, c.goodCard(d, 5), d)); err != nil {
		t.Fatal(err)
	}
	if err := a.Admit(at(0), parsed(t, c.goodCard(d, 4), d)); !errors.Is(err, ErrStale) {
		t.Errorf("an older card: %v, want ErrStale", err)
	}
	if err := a.Speaks(at(0), d.Public()); err != nil {
		t.Error(err)
	}
	if err := a.Speaks(at(100*24*time.Hour), d.Public()); err != nil {
		t.Errorf("an unconfirmed clock ended a certificate: %v", err)
	}
	if err := a.Admit(at(89*24*time.Hour), parsed(t, c.card(other, 1, list, c.cert(other.Public(), speaker, 89*24*time.Hour)), other)); err != nil {
		t.Fatal(err)
	}
	if err := a.Speaks(at(100*24*time.Hour), d.Public()); !errors.Is(err, ErrAuthority) {
		t.Errorf("a certificate that ran out by a clock that is confirmed: %v, want ErrAuthority", err)
	}
	single := NewAuthority(d.Public(), 0, at(0), nil)
	if err := single.Speaks(at(0), d.Public()); err != nil {
		t.Error(err)
	}
	if err := single.Speaks(at(0), other.Public()); !errors.Is(err, ErrAuthority) {
		t.Errorf("another device for a single one: %v", err)
	}
}

// What took a device's word away stays known: over a restart, and against the replay of a card of before.
func TestOldCardsBringNobodyBack(t *testing.T) {
	t.Parallel()
	c, d, other := newCluster(t, 30), identity(t, 10), identity(t, 12)
	before := parsed(t, c.goodCard(d, 5), d)
	a := NewAuthority(c.root.Public(), 0, at(0), nil)
	if err := a.Admit(at(0), before); err != nil {
		t.Fatal(err)
	}
	news := c.card(other, 1, c.list(1, c.admin), c.revoke(d.Public()), c.cert(other.Public(), speaker, 0))
	if err := a.Admit(at(0), parsed(t, news, other)); err != nil {
		t.Fatal(err)
	}
	if err := a.Speaks(at(0), d.Public()); !errors.Is(err, ErrAuthority) {
		t.Fatalf("after the revocation: %v", err)
	}
	again := NewAuthority(c.root.Public(), a.Floor(), at(0), a.Statements())
	if err := again.Admit(at(0), before); !errors.Is(err, ErrAuthority) {
		t.Errorf("the old card after a restart: %v, want ErrAuthority", err)
	}
	// A new list without the admin takes along what he signed, and the old list does not come back.
	fresh := &cluster{t, c.root, identity(t, 40)}
	last := fresh.card(other, 2, fresh.list(2, fresh.admin), fresh.cert(other.Public(), speaker, 0))
	if err := again.Admit(at(0), parsed(t, last, other)); err != nil {
		t.Fatal(err)
	}
	if err := again.Admit(at(0), parsed(t, c.goodCard(identity(t, 13), 1), identity(t, 13))); !errors.Is(err, ErrAuthority) {
		t.Errorf("a certificate of an admin who was dismissed: %v, want ErrAuthority", err)
	}
}

// A cluster in wrong hands fills no memory.
func TestAuthorityIsBounded(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 30)
	a := NewAuthority(c.root.Public(), 0, at(0), nil)
	list, full := c.list(1, c.admin), 0
	for i := range 100 {
		d := identity(t, byte(100+i))
		v := c.card(d, 1, list, c.revoke(identity(t, byte(i)).Public()), c.cert(d.Public(), speaker, 0))
		if err := a.Admit(at(0), parsed(t, v, d)); errors.Is(err, ErrFull) {
			full++
		} else if err != nil {
			t.Fatal(err)
		}
		if len(a.raws) > MaxHeld || len(a.cards) > MaxDevices {
			t.Fatalf("%d statements, %d cards held", len(a.raws), len(a.cards))
		}
	}
	if full == 0 || len(a.Cards(at(0))) == 0 {
		t.Errorf("%d refused, %d devices", full, len(a.Cards(at(0))))
	}
}

func TestSecretComesBack(t *testing.T) {
	t.Parallel()
	s, err := NewSecret(3, epoch)
	if err != nil {
		t.Fatal(err)
	}
	raw := s.Append(nil)
	got, err := ParseSecret(raw)
	if err != nil || *got != *s || len(raw) != SecretLen {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
		if a, b := prekey(t, s, suite), prekey(t, got, suite); !reflect.DeepEqual(a, b) || len(a.Public) != suite.keyLen() {
			t.Errorf("%s: the public half differs", suite)
		}
	}
	s.Erase()
	if bytes.Contains(s.Append(nil), raw[20:]) {
		t.Error("erased, and still there")
	}
}
