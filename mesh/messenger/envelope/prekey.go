package envelope

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"skywire/mesh/field"
	"skywire/mesh/key"
)

// Suite says how a box is sealed: RFC 9180 base mode, HKDF-SHA256, ChaCha20-Poly1305, and the KEM of the suite.
type Suite uint8

// Suites.
const (
	SuiteX25519 Suite = 1 // DHKEM(X25519, HKDF-SHA256)
	SuiteHybrid Suite = 2 // MLKEM768-X25519: stays closed to who has a quantum computer one day
)

// Times and sizes of prekeys.
const (
	// PrekeyEvery is how often a device makes one. Who steals all its secrets reads what was sealed for it within
	// PrekeyLife, and after this time what is new is closed to him again.
	PrekeyEvery = 24 * time.Hour
	// PrekeyLife is how long its secret is kept: an envelope waits no longer for a device that is off.
	PrekeyLife = 14 * 24 * time.Hour
	// minTravel is what a prekey must last beyond the time of sealing.
	minTravel = 10 * time.Minute

	// HybridOver is the size of a bundle in bytes from which its box is hybrid: 1,088 bytes more are then less than as
	// much again.
	HybridOver = 1024

	x25519Key, hybridKey = 32, 1216
	x25519Enc, hybridEnc = 32, 1120
)

func (s Suite) kem() hpke.KEM {
	if s == SuiteHybrid {
		return hpke.MLKEM768X25519()
	}
	return hpke.DHKEM(ecdh.X25519())
}

// keyLen is the size of a public key; 0: no suite of ours.
func (s Suite) keyLen() int {
	switch s {
	case SuiteX25519:
		return x25519Key
	case SuiteHybrid:
		return hybridKey
	}
	return 0
}

// encLen is what a box of the suite has before its ciphertext.
func (s Suite) encLen() int {
	if s == SuiteHybrid {
		return hybridEnc
	}
	return x25519Enc
}

func (s Suite) String() string {
	switch s {
	case SuiteX25519:
		return "x25519"
	case SuiteHybrid:
		return "mlkem768-x25519"
	}
	return "unknown"
}

// Prekey is a public key that others seal with. It is genuine by standing in a card.
type Prekey struct {
	ID                  uint32 // 0: the device's own key
	Suite               Suite
	Public              []byte
	NotBefore, NotAfter int64 // unix seconds; the secret is erased at the end
}

func (p Prekey) append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, byte(p.Suite)), p.ID)
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.NotBefore))
	return append(binary.BigEndian.AppendUint64(dst, uint64(p.NotAfter)), p.Public...)
}

func (c *cursor) prekey() Prekey {
	p := Prekey{Suite: Suite(c.U8()), ID: c.U32(), NotBefore: c.Unix(), NotAfter: c.Unix()}
	c.Bad = c.Bad || p.ID == 0 || p.Suite.keyLen() == 0 || p.NotAfter <= p.NotBefore
	p.Public = c.bytes(p.Suite.keyLen())
	return p
}

// less is the order of prekeys in a card.
func (p Prekey) less(o Prekey) bool { return p.ID < o.ID || p.ID == o.ID && p.Suite < o.Suite }

// OwnKey is the device's own key as a prekey, for the one who has no card of it yet: a card may be sealed with it, and
// nothing else.
func OwnKey(device key.Public) Prekey {
	x := device.X25519()
	return Prekey{Suite: SuiteX25519, Public: x[:], NotAfter: field.MaxUnix}
}

// Secret is the secret half of a day's prekeys: one seed for both suites.
type Secret struct {
	ID                  uint32
	NotBefore, NotAfter int64 // unix seconds
	seed                [32]byte
	own                 bool // the seed is the device's X25519 key
}

// SecretLen is the length of an encoded Secret.
const SecretLen = 4 + 8 + 8 + 32

// NewSecret draws a secret that holds from now on for PrekeyLife. Numbers start at 1 and rise.
func NewSecret(id uint32, now int64) (*Secret, error) {
	s := &Secret{ID: id, NotBefore: now, NotAfter: now + int64(PrekeyLife/time.Second)}
	if _, err := rand.Read(s.seed[:]); err != nil {
		return nil, fmt.Errorf("new prekey: %w", err)
	}
	return s, nil
}

// OwnSecret is the secret of OwnKey.
func OwnSecret(d *key.Private) *Secret {
	return &Secret{NotAfter: field.MaxUnix, seed: d.X25519(), own: true}
}

// Append encodes the secret: id 4 │ not_before 8 │ not_after 8 │ seed 32. Who keeps it must be able to erase it.
func (s *Secret) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, s.ID)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.NotBefore))
	return append(binary.BigEndian.AppendUint64(dst, uint64(s.NotAfter)), s.seed[:]...)
}

// ParseSecret decodes a secret.
func ParseSecret(b []byte) (*Secret, error) {
	c := fields(b)
	s := &Secret{ID: c.U32(), NotBefore: c.Unix(), NotAfter: c.Unix(), seed: [32]byte(c.Take(32))}
	c.Bad = c.Bad || s.ID == 0 || s.NotAfter <= s.NotBefore
	if err := c.end("prekey"); err != nil {
		return nil, err
	}
	return s, nil
}

// Erase overwrites the secret in memory.
func (s *Secret) Erase() { clear(s.seed[:]) }

// Prekey is the public half for a suite.
func (s *Secret) Prekey(suite Suite) (Prekey, error) {
	k, err := s.private(suite)
	if err != nil {
		return Prekey{}, err
	}
	return Prekey{ID: s.ID, Suite: suite, Public: k.PublicKey().Bytes(), NotBefore: s.NotBefore, NotAfter: s.NotAfter}, nil
}

// private derives the key: RFC 9180 names the KEM in the derivation, so one seed serves both.
func (s *Secret) private(suite Suite) (k hpke.PrivateKey, err error) {
	switch {
	case suite.keyLen() == 0 || s.own && suite != SuiteX25519:
		return nil, fmt.Errorf("suite %d: %w", suite, ErrPrekey)
	case s.own:
		k, err = suite.kem().NewPrivateKey(s.seed[:])
	default:
		k, err = suite.kem().DeriveKeyPair(s.seed[:])
	}
	if err != nil {
		return nil, fmt.Errorf("prekey %d: %w: %w", s.ID, ErrPrekey, err)
	}
	return k, nil
}

// public reads the key of a card.
func (p Prekey) public() (hpke.PublicKey, error) {
	if len(p.Public) != p.Suite.keyLen() || len(p.Public) == 0 {
		return nil, fmt.Errorf("prekey %d: %w", p.ID, ErrPrekey)
	}
	k, err := p.Suite.kem().NewPublicKey(p.Public)
	if err != nil {
		return nil, fmt.Errorf("prekey %d: %w: %w", p.ID, ErrPrekey, err)
	}
	return k, nil
}
