package envelope

import (
	"crypto/hpke"
	"encoding/binary"
	"testing"

	"skywire/mesh/key"
)

// box seals inner as anybody can.
func box(t testing.TB, inner []byte, to key.Public, p Prekey) []byte {
	t.Helper()
	raw := append([]byte{version, byte(p.Suite)}, to[:]...)
	raw = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(raw, p.ID), uint64(epoch))
	pub, err := p.public()
	if err != nil {
		t.Fatal(err)
	}
	enc, s, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal(raw, inner)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(append(raw, enc...), sealed...), make([]byte, stampLen)...)
}

// sealUnchecked is Seal without what it refuses.
func sealUnchecked(t testing.TB, b *Bundle, d *key.Private, p Prekey) []byte {
	t.Helper()
	inner := b.append(nil)
	sig := d.Sign("bundle", key.NetworkID{}, signedBundle(b.To, p, inner))
	inner = append(inner, sig[:]...)
	return box(t, append(inner, make([]byte, -len(inner)&(padStep-1))...), b.To, p)
}

// resealed is what the receiver of an envelope can make of it: the same signed bundle in a box for somebody else.
func resealed(t testing.TB, raw []byte, self *key.Private, s *Secret, to key.Public, p Prekey) []byte {
	t.Helper()
	return box(t, innerOf(t, raw, s), to, p)
}

// innerOf is what is in the box.
func innerOf(t testing.TB, raw []byte, s *Secret) []byte {
	t.Helper()
	suite := Suite(raw[1])
	k, err := s.private(suite)
	if err != nil {
		t.Fatal(err)
	}
	rest := raw[headLen : len(raw)-stampLen]
	r, err := hpke.NewRecipient(rest[:suite.encLen()], k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	inner, err := r.Open(raw[:headLen], rest[suite.encLen():])
	if err != nil {
		t.Fatal(err)
	}
	return inner
}
