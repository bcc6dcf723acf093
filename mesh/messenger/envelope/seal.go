package envelope

import (
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"skywire/mesh/key"
)

// EnvelopeID names an envelope: SHA-256 of all but its stamp.
type EnvelopeID [32]byte

func (id EnvelopeID) String() string { return hex.EncodeToString(id[:]) }

const (
	headLen = 1 + 1 + 32 + 4 + 8
	tagLen  = 16

	// padStep is what a bundle is padded to with zeros: of a text one sees which 64 bytes its length lies in, so "yes",
	// "no" and a line look alike, for 32 bytes on average. Greater steps would hide more and cost a slow link more than
	// all other overhead together.
	padStep = 64

	// MaxEnvelope bounds an envelope.
	MaxEnvelope = headLen + hybridEnc + MaxBundle + tagLen + stampLen
	// MinEnvelope is the least that one has.
	MinEnvelope = headLen + x25519Enc + 2*padStep + tagLen + stampLen

	info = "skywire envelope 1"
)

// Outer is what stands outside of the box, for those who carry it.
type Outer struct {
	To      key.Public
	Prekey  uint32
	Suite   Suite
	Expires int64 // unix seconds; not after the prekey's end
	ID      EnvelopeID
}

// SealOptions are what stands outside beside the addressee.
type SealOptions struct {
	Expires int64 // unix seconds; that of the prekey if later or 0
}

// Seal signs a bundle with the device's key and seals it for a prekey of its addressee:
//
//	version 1 │ suite 1 │ to 32 │ prekey 4 │ expires 8 │ enc (32 or 1120) │ box │ stamp 8
//
// The box is HPKE's, with all before enc as additional data and enc in its key schedule; inside are the bundle, the signature
// 64, and zeros. The stamp is empty; Stamp makes it.
func Seal(b *Bundle, d *key.Private, p Prekey, o SealOptions) ([]byte, error) {
	if b.Device != d.Public() || b.Epoch == 0 || b.Floor == 0 {
		return nil, fmt.Errorf("seal: device, epoch or floor: %w", ErrFormat)
	}
	if p.ID == 0 && !b.bare() {
		return nil, fmt.Errorf("seal: %w", ErrBare)
	}
	inner := b.append(make([]byte, 0, b.size()+signatureLen+padStep))
	sig := d.Sign("bundle", key.NetworkID{}, signedBundle(b.To, p, inner))
	inner = append(inner, sig[:]...)
	inner = append(inner, make([]byte, -len(inner)&(padStep-1))...)
	if len(b.Items) > MaxItems || len(inner) > MaxBundle {
		return nil, fmt.Errorf("seal %d items of %d bytes: %w", len(b.Items), len(inner), ErrTooLarge)
	}
	if _, _, _, err := parseBundle(inner); err != nil {
		return nil, fmt.Errorf("seal: %w", err) // what no one would take is not sent
	}
	pub, err := p.public()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	expires := p.NotAfter
	if o.Expires > 0 {
		expires = min(o.Expires, p.NotAfter)
	}
	raw := append([]byte{version, byte(p.Suite)}, b.To[:]...)
	raw = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(raw, p.ID), uint64(expires))
	enc, sender, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info))
	if err != nil {
		return nil, fmt.Errorf("seal: %w: %w", ErrPrekey, err)
	}
	box, err := sender.Seal(raw, inner)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	raw = append(append(raw, enc...), box...)
	return append(raw, make([]byte, stampLen)...), nil
}

// ParseOuter reads what stands outside.
func ParseOuter(raw []byte) (*Outer, error) {
	if len(raw) < MinEnvelope || len(raw) > MaxEnvelope || raw[0] != version {
		return nil, fmt.Errorf("envelope of %d bytes: %w", len(raw), ErrFormat)
	}
	c := fields(raw[1:headLen])
	o := &Outer{Suite: Suite(c.U8()), To: c.listed(), Prekey: c.U32(), Expires: c.Unix()}
	box := len(raw) - headLen - o.Suite.encLen() - tagLen - stampLen
	if c.Bad || o.Suite.keyLen() == 0 || box < 2*padStep || box > MaxBundle || box%padStep != 0 {
		return nil, fmt.Errorf("envelope: %w", ErrFormat)
	}
	o.ID = sha256.Sum256(raw[:len(raw)-stampLen])
	return o, nil
}

// Open opens an envelope to self with the secret that it names; secret gives nil for one that is not held. The bundle is that
// of the device it names, signed for self and this prekey. Whether the device speaks for the account says an Authority; whether
// it was here before says who keeps the numbers.
func Open(raw []byte, self key.Public, secret func(id uint32) *Secret) (*Bundle, error) {
	o, err := ParseOuter(raw)
	if err != nil {
		return nil, err
	}
	if o.To != self {
		return nil, fmt.Errorf("envelope to %s: %w", o.To.Short(), ErrMisdirected)
	}
	s := secret(o.Prekey)
	if s == nil || s.ID != o.Prekey || s.own != (o.Prekey == 0) {
		return nil, fmt.Errorf("prekey %d: %w", o.Prekey, ErrPrekey)
	}
	k, err := s.private(o.Suite)
	if err != nil {
		return nil, err
	}
	head, rest := raw[:headLen], raw[headLen:len(raw)-stampLen]
	enc, box := rest[:o.Suite.encLen()], rest[o.Suite.encLen():]
	r, err := hpke.NewRecipient(enc, k, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info))
	if err != nil {
		return nil, fmt.Errorf("envelope: %w: %w", ErrSealed, err)
	}
	inner, err := r.Open(head, box)
	if err != nil {
		return nil, fmt.Errorf("envelope: %w", ErrSealed)
	}
	b, body, sig, err := parseBundle(inner)
	if err != nil {
		return nil, err
	}
	b.To = self
	p := Prekey{ID: o.Prekey, Suite: o.Suite, Public: k.PublicKey().Bytes()}
	if err := verify(b.Device, "bundle", signedBundle(self, p, body), sig); err != nil {
		return nil, err
	}
	if o.Prekey == 0 && !b.bare() {
		return nil, fmt.Errorf("bundle of %s: %w", b.Device.Short(), ErrBare)
	}
	return b, nil
}
