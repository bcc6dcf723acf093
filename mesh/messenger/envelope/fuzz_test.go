package envelope

import (
	"bytes"
	"testing"

	"skywire/mesh/key"
)

// signedBy puts a device's key where body names its own, and signs: what a hostile device can send.
func signedBy(body []byte, purpose string, d *key.Private) []byte {
	self := d.Public()
	b := append([]byte{version}, self[:]...)
	if len(body) > len(b) {
		b = append(b, body[len(b):]...)
	}
	return sign(b, purpose, d)
}

func FuzzParseCard(f *testing.F) {
	d, c := identity(f, 10), newCluster(f, 30)
	for _, v := range []*Card{c.goodCard(d, 1), {Account: d.Public(), Device: d.Public(), Number: 1, Name: "Eve", Stamp: StrangersClosed}} {
		raw, err := v.Sign(d)
		f.Add(must(f, raw, err))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseCard(b)
		raw := signedBy(b[:max(0, len(b)-signatureLen)], "card", d)
		v, err := ParseCard(raw)
		if err != nil {
			return
		}
		if again, err := v.Sign(d); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("card %x is written as %x, %v", raw, again, err)
		}
		a := NewAuthority(v.Account, 0, at(0), nil)
		_ = a.Admit(at(0), v)
	})
}

func FuzzParseCustody(f *testing.F) {
	d := identity(f, 10)
	c := Custody{Mailbox: d.Public(), To: d.Public(), Until: 1, IDs: []EnvelopeID{{1}}}
	raw, err := c.Sign(d)
	f.Add(must(f, raw, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = ParseCustody(b)
		raw := signedBy(b[:max(0, len(b)-signatureLen)], "custody", d)
		v, err := ParseCustody(raw)
		if err != nil {
			return
		}
		if again, err := v.Sign(d); err != nil || !bytes.Equal(again, raw) {
			t.Fatalf("custody %x is written as %x, %v", raw, again, err)
		}
	})
}

func FuzzParseKeyChange(f *testing.F) {
	a, b := identity(f, 1), identity(f, 2)
	k := KeyChange{Old: a.Public(), New: b.Public(), Issued: 5}
	raw, err := k.Sign(a, b)
	f.Add(must(f, raw, err))
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := ParseKeyChange(raw)
		if err == nil && (k.Old == k.New || len(raw) != 73+128) {
			t.Fatalf("%x: %+v", raw, k)
		}
	})
}

// FuzzParseBundle reads what is in a box: whoever has a card can seal anything.
func FuzzParseBundle(f *testing.F) {
	from, to, s := identity(f, 1), identity(f, 2), secret(7)
	p := prekey(f, s, SuiteX25519)
	for _, b := range []*Bundle{sampleBundle(from, to), {Account: to.Public(), Device: from.Public(), Epoch: 1, Floor: 1 << 63, Items: []Item{{Kind: 1, Seq: 1<<64 - 1}}}} {
		f.Add(innerOf(f, sealUnchecked(f, b, from, p), s))
	}
	f.Fuzz(func(t *testing.T, inner []byte) {
		b, body, sig, err := parseBundle(inner)
		if err != nil {
			return
		}
		again := append(b.append(nil), sig...)
		again = append(again, make([]byte, -len(again)&(padStep-1))...)
		if !bytes.Equal(again, inner) || !bytes.Equal(body, inner[:len(body)]) {
			t.Fatalf("bundle %x is written as %x", inner, again)
		}
		for i := range b.Items {
			_ = b.Items[i].ID(b.Account)
		}
	})
}

func FuzzParseOuter(f *testing.F) {
	from, to, s := identity(f, 1), identity(f, 2), secret(7)
	for _, suite := range []Suite{SuiteX25519, SuiteHybrid} {
		raw, err := Seal(sampleBundle(from, to), from, prekey(f, s, suite), SealOptions{})
		f.Add(must(f, raw, err))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := ParseOuter(raw)
		if err != nil {
			return
		}
		o.Work(raw)
		if b, err := Open(raw, o.To, func(uint32) *Secret { c := *s; c.ID = o.Prekey; return &c }); err == nil && b.Device != from.Public() {
			t.Fatalf("a bundle of %s", b.Device)
		}
	})
}

func FuzzParseLink(f *testing.F) {
	c := newCluster(f, 30)
	for _, l := range []Link{{Account: c.root.Public(), Place: c.goodCard(identity(f, 10), 1).Place, Token: Token{1}}, {Account: identity(f, 1).Public()}} {
		f.Add(l.Text())
		f.Add(l.QRText())
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLink(s)
		if err != nil {
			return
		}
		again, err := ParseLink(l.Text())
		if err != nil || again.Text() != l.Text() {
			t.Fatalf("%q is written as %q, %v", s, l.Text(), err)
		}
	})
}

func FuzzParseSecret(f *testing.F) {
	f.Add(secret(7).Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseSecret(raw)
		if err == nil && !bytes.Equal(s.Append(nil), raw) {
			t.Fatalf("secret %x is written as %x", raw, s.Append(nil))
		}
	})
}

func FuzzParsePlace(f *testing.F) {
	c := newCluster(f, 30)
	own := c.root.Public()
	card := c.goodCard(identity(f, 10), 1)
	f.Add(card.Place.Append(nil, own))
	f.Add(card.Mailboxes[0].Place.Append(nil, own))
	f.Add(Place{Cluster: identity(f, 1).Public()}.Append(nil, own))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePlace(b, own)
		if err == nil && !bytes.Equal(p.Append(nil, own), b) {
			t.Fatalf("place %x is written as %x", b, p.Append(nil, own))
		}
	})
}
