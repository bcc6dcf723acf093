package envelope

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"skywire/mesh/key"
)

func TestSealOpen(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
		want := sampleBundle(from, to)
		raw, err := Seal(want, from, prekey(t, s, suite), SealOptions{Expires: epoch + 3600})
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseOuter(raw)
		if err != nil || o.To != to.Public() || o.Prekey != 7 || o.Suite != suite || o.Expires != epoch+3600 {
			t.Errorf("outer %+v, %v", o, err)
		}
		got, err := Open(raw, to.Public(), only(s))
		if err != nil {
			t.Fatal(err)
		}
		want.Items[3].Body = []byte{}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("opened\n%+v, want\n%+v", got, want)
		}
		if who := from.Public(); bytes.Contains(raw, who[:]) || bytes.Contains(raw, []byte("good morning")) {
			t.Error("sender or text stand outside of the box")
		}
		again, err := Seal(want, from, prekey(t, s, suite), SealOptions{Expires: epoch + 3600})
		if err != nil || bytes.Equal(raw, again) {
			t.Errorf("sealed twice alike: %v", err)
		}
	}
}

// Whatever byte of an envelope is changed, it does not open; the stamp alone is outside of box and id.
func TestAlteredEnvelopes(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	raw, err := Seal(sampleBundle(from, to), from, prekey(t, s, SuiteX25519), SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) - stampLen {
		for _, bit := range []byte{1, 128} {
			bad := bytes.Clone(raw)
			bad[i] ^= bit
			b, err := Open(bad, to.Public(), func(id uint32) *Secret {
				c := *s
				c.ID = id // as if that secret were held too
				return &c
			})
			if err == nil {
				t.Fatalf("byte %d altered: %+v", i, b)
			}
		}
	}
	for _, n := range []int{1, 8, 64, 72} {
		if _, err := Open(raw[:len(raw)-n], to.Public(), only(s)); !errors.Is(err, ErrFormat) && !errors.Is(err, ErrSealed) {
			t.Errorf("%d bytes cut: %v", n, err)
		}
	}
	raw[len(raw)-1] ^= 1
	if _, err := Open(raw, to.Public(), only(s)); err != nil {
		t.Errorf("with another stamp: %v", err)
	}
}

func TestMisdirectedEnvelopes(t *testing.T) {
	t.Parallel()
	from, to, third, s := identity(t, 1), identity(t, 2), identity(t, 3), secret(7)
	p := prekey(t, s, SuiteX25519)
	raw, err := Seal(sampleBundle(from, to), from, p, SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(raw, third.Public(), only(s)); !errors.Is(err, ErrMisdirected) {
		t.Errorf("at another device: %v, want ErrMisdirected", err)
	}
	if _, err := Open(raw, to.Public(), only(secret(8))); !errors.Is(err, ErrPrekey) {
		t.Errorf("after the secret was erased: %v, want ErrPrekey", err)
	}
	other := secret(9)
	other.ID = 7
	if _, err := Open(raw, to.Public(), only(other)); !errors.Is(err, ErrSealed) {
		t.Errorf("with another secret of this number: %v, want ErrSealed", err)
	}

	// The receiver reseals what he got: the same signed bundle, for a third device, or for another prekey of the same.
	b, err := Open(raw, to.Public(), only(s))
	if err != nil {
		t.Fatal(err)
	}
	thief := identity(t, 5)
	for name, c := range map[string]struct {
		to key.Public
		p  Prekey
	}{"another device": {third.Public(), p}, "another prekey": {to.Public(), prekey(t, secret(8), SuiteX25519)}} {
		evil := *b
		evil.To = c.to
		// What thief can do: seal under from's name with his own signature, since he lacks from's key.
		if _, err := Seal(&evil, thief, c.p, SealOptions{}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Seal let sign for another: %v", name, err)
		}
		raw := resealed(t, raw, to, s, c.to, c.p)
		if _, err := Open(raw, c.to, only(secret(c.p.ID))); !errors.Is(err, ErrSignature) {
			t.Errorf("resealed to %s: %v, want ErrSignature", name, err)
		}
	}
}

func TestOwnKeyIsForCardsAlone(t *testing.T) {
	t.Parallel()
	from, to := identity(t, 1), identity(t, 2)
	b := sampleBundle(from, to)
	if _, err := Seal(b, from, OwnKey(to.Public()), SealOptions{}); !errors.Is(err, ErrBare) {
		t.Errorf("text for the device's own key: %v, want ErrBare", err)
	}
	b.Items = []Item{{Kind: KindCard, Time: 1, Body: []byte("card")}}
	raw, err := Seal(b, from, OwnKey(to.Public()), SealOptions{Expires: epoch})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(raw, to.Public(), only(OwnSecret(to))); err != nil || len(got.Items) != 1 {
		t.Errorf("a card: %+v, %v", got, err)
	}
	// Who seals by himself does not get past it either.
	b.Items[0].Kind = KindText
	if _, err := Open(sealUnchecked(t, b, from, OwnKey(to.Public())), to.Public(), only(OwnSecret(to))); !errors.Is(err, ErrBare) {
		t.Errorf("a text that a stranger sealed: %v, want ErrBare", err)
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	for name, edit := range map[string]func(*Bundle){
		"nothing":        func(b *Bundle) { b.Items = nil },
		"falling":        func(b *Bundle) { b.Items[2].Seq = 41 },
		"below floor":    func(b *Bundle) { b.Items[1].Seq = 40 },
		"no floor":       func(b *Bundle) { b.Floor = 0 },
		"no epoch":       func(b *Bundle) { b.Epoch = 0 },
		"no kind":        func(b *Bundle) { b.Items[0].Kind = 0 },
		"time":           func(b *Bundle) { b.Items[0].Time = -1 },
		"far time":       func(b *Bundle) { b.Items[0].Time = maxMilli + 1 },
		"body":           func(b *Bundle) { b.Items[0].Body = make([]byte, MaxBody+1) },
		"too many":       func(b *Bundle) { b.Items = make([]Item, MaxItems+1) },
		"too large":      func(b *Bundle) { b.Items[0].Body, b.Items[1].Body = make([]byte, MaxBody), make([]byte, MaxBody) },
		"another device": func(b *Bundle) { b.Device = to.Public() },
	} {
		b := sampleBundle(from, to)
		edit(b)
		if _, err := Seal(b, from, prekey(t, s, SuiteX25519), SealOptions{}); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
}

// What the constants say fits does fit, and a byte more does not.
func TestBundleBounds(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	b := sampleBundle(from, to)
	b.Items = nil
	for n := MaxBundle - Overhead; n > ItemOverhead; {
		body := min(n-ItemOverhead, MaxBody)
		b.Items = append(b.Items, Item{Kind: KindChunk, Seq: uint64(len(b.Items)) + b.Floor, Time: 1, Expires: 1, Group: GroupID{1}, Body: make([]byte, body)})
		n -= ItemOverhead + body
	}
	raw, err := Seal(b, from, prekey(t, s, SuiteHybrid), SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > MaxEnvelope {
		t.Errorf("an envelope of %d bytes, MaxEnvelope is %d", len(raw), MaxEnvelope)
	}
	if _, err := Open(raw, to.Public(), only(s)); err != nil {
		t.Error(err)
	}
}

func TestPick(t *testing.T) {
	t.Parallel()
	from, d := identity(t, 1), identity(t, 10)
	c := newCluster(t, 30)
	theirs := c.goodCard(d, 1)
	old, next := secret(6), secret(8)
	old.NotAfter, next.NotBefore = epoch+60, epoch+60
	theirs.Prekeys = append(theirs.Prekeys, prekey(t, old, SuiteHybrid), prekey(t, next, SuiteX25519))
	small := &Bundle{Account: from.Public(), Device: from.Public(), Items: []Item{{Body: make([]byte, 100)}}}
	large := &Bundle{Account: from.Public(), Device: from.Public(), Items: []Item{{Body: make([]byte, 2000)}}}
	both := &Bundle{Account: identity(t, 3).Public(), Device: from.Public(), Items: small.Items}
	for name, want := range map[string]struct {
		b     *Bundle
		id    uint32
		suite Suite
	}{"small": {small, 8, SuiteX25519}, "large": {large, 7, SuiteHybrid}, "two clusters": {both, 7, SuiteHybrid}} {
		if p, err := theirs.Pick(epoch, want.b); err != nil || p.ID != want.id || p.Suite != want.suite {
			t.Errorf("%s: prekey %d of suite %s, %v, want %d %s", name, p.ID, p.Suite, err, want.id, want.suite)
		}
	}
	if _, err := theirs.Pick(epoch+int64(PrekeyLife/time.Second), small); !errors.Is(err, ErrNoPrekey) {
		t.Errorf("after the end of all: %v, want ErrNoPrekey", err)
	}
}

func TestStamp(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	raw, err := Seal(sampleBundle(from, to), from, prekey(t, s, SuiteX25519), SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before, _ := ParseOuter(raw)
	if err := Stamp(t.Context(), raw, 12); err != nil {
		t.Fatal(err)
	}
	o, err := ParseOuter(raw)
	if err != nil || o.ID != before.ID || o.Work(raw) < 12 {
		t.Errorf("id %s, before %s; work %d, %v", o.ID, before.ID, o.Work(raw), err)
	}
	other, err := Seal(sampleBundle(from, to), from, prekey(t, s, SuiteX25519), SealOptions{})
	if err != nil {
		t.Fatal(err)
	}
	copy(other[len(other)-stampLen:], raw[len(raw)-stampLen:])
	if o, _ := ParseOuter(other); o.Work(other) >= 12 {
		t.Error("the stamp of one envelope serves another") // one of 4,096 would
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Stamp(ctx, raw, MaxStamp); !errors.Is(err, ErrStamp) || !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	if err := Stamp(t.Context(), raw, MaxStamp+1); !errors.Is(err, ErrStamp) {
		t.Errorf("beyond the bound: %v", err)
	}
}

func TestSafetyNumber(t *testing.T) {
	t.Parallel()
	a, b, c := identity(t, 1).Public(), identity(t, 2).Public(), identity(t, 3).Public()
	n := SafetyNumber(a, b)
	if n != SafetyNumber(b, a) || len(n) != 12*5+11 || len(strings.Fields(n)) != 12 {
		t.Errorf("safety number %q, from the other side %q", n, SafetyNumber(b, a))
	}
	if n == SafetyNumber(a, c) {
		t.Error("another account, the same number")
	}
}

func TestLinkText(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 30)
	place := c.goodCard(identity(t, 10), 1).Place
	for _, l := range []Link{
		{Account: c.root.Public(), Place: place, Token: Token{9}},
		{Account: identity(t, 1).Public(), Place: Place{}},
		{Account: identity(t, 1).Public(), Place: place},
	} {
		text := l.Text()
		for _, s := range []string{text, l.QRText(), " " + text[:30] + "\r\n " + text[30:] + "\n"} {
			if got, err := ParseLink(s); err != nil || !reflect.DeepEqual(got, &l) || !IsLink(s) {
				t.Errorf("%q: %+v, %v", s, got, err)
			}
		}
		s := []byte(text)
		for i := range s {
			old := s[i]
			if s[i] = 'a'; old == 'a' {
				s[i] = 'b'
			}
			if _, err := ParseLink(string(s)); err == nil {
				t.Errorf("a wrong letter at %d is not seen", i)
			}
			s[i] = old
		}
	}
}

func TestKeyChange(t *testing.T) {
	t.Parallel()
	a, b, thief := identity(t, 1), identity(t, 2), identity(t, 3)
	k := KeyChange{Old: a.Public(), New: b.Public(), Issued: epoch}
	raw, err := k.Sign(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseKeyChange(raw); err != nil || *got != k {
		t.Errorf("%+v, %v", got, err)
	}
	for name, by := range map[string][2]*key.Private{"old key missing": {thief, b}, "new key missing": {a, thief}} {
		if _, err := k.Sign(by[0], by[1]); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	for i := range raw {
		raw[i] ^= 1
		if _, err := ParseKeyChange(raw); err == nil {
			t.Errorf("byte %d altered: taken", i)
		}
		raw[i] ^= 1
	}
}

func TestCustody(t *testing.T) {
	t.Parallel()
	box := identity(t, 1)
	c := Custody{Mailbox: box.Public(), To: identity(t, 2).Public(), Issued: epoch, Until: epoch + 100, IDs: []EnvelopeID{{1}, {2}}}
	raw, err := c.Sign(box)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseCustody(raw); err != nil || !reflect.DeepEqual(got, &c) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Sign(identity(t, 3)); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by another: %v, want ErrSignature", err)
	}
	for i := range raw {
		raw[i] ^= 1
		if _, err := ParseCustody(raw); err == nil {
			t.Errorf("byte %d altered: taken", i)
		}
		raw[i] ^= 1
	}
}

// The sizes table of SPEC.md.
func TestSizes(t *testing.T) {
	t.Parallel()
	from, to, s := identity(t, 1), identity(t, 2), secret(7)
	for _, n := range []int{0, 12, 100, 140, 1000, 32 << 10} {
		for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
			b := &Bundle{Account: from.Public(), Device: from.Public(), To: to.Public(), Card: 1, Epoch: 1, Floor: 1, Items: []Item{
				{Kind: KindText, Seq: 1, Time: epoch * 1000, Body: make([]byte, n)},
			}}
			raw, err := Seal(b, from, prekey(t, s, suite), SealOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("text of %5d bytes, %-14s: %5d bytes, %4d over", n, suite, len(raw), len(raw)-n)
			if over := len(raw) - n; over > 240-x25519Enc+suite.encLen()+padStep {
				t.Errorf("%d bytes over", over)
			}
		}
	}
	d := identity(t, 10)
	c := newCluster(t, 30)
	raw, err := c.goodCard(d, 1).Sign(d)
	t.Logf("card of a cluster's device: %d bytes", len(must(t, raw, err)))
}
