package key

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"strings"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"
)

// Size is the length of a public key and of a seed in bytes.
const Size = 32

// TextLen is the length of a public key in text: 256 bits in 52 letters of 5, the 4 spare bits zero.
const TextLen = 52

// Public is an identity. The zero value is no valid key. A Public that came from Parse, FromBytes or FromX25519
// is valid; one made by FromList is only well formed and may only be compared with valid ones.
type Public [Size]byte

func encoding() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Parse reads the text form, 52 letters of base32 (either case) or 64 of hex.
func Parse(s string) (Public, error) {
	switch len(s) {
	case TextLen:
		s = strings.ToLower(s)
		b, err := encoding().DecodeString(s)
		if err != nil || encoding().EncodeToString(b) != s { // the second test: spare bits must be zero
			return Public{}, fmt.Errorf("parse %q: %w", s, ErrInvalid)
		}
		return FromBytes(b)
	case 2 * Size:
		b, err := hex.DecodeString(s)
		if err != nil {
			return Public{}, fmt.Errorf("parse %q: %w", s, ErrInvalid)
		}
		return FromBytes(b)
	}
	return Public{}, fmt.Errorf("parse key of %d letters, want %d: %w", len(s), TextLen, ErrInvalid)
}

// FromBytes checks a key in full. It costs about as much as verifying a signature, so it stands where a key
// becomes an identity: configuration, certificates, invites, records' own keys.
func FromBytes(b []byte) (Public, error) {
	p, err := FromList(b)
	if err != nil {
		return Public{}, err
	}
	point, err := new(edwards25519.Point).SetBytes(b)
	if err != nil || !primeOrder(point) {
		return Public{}, ErrInvalid
	}
	return p, nil
}

// FromList checks the bytes only: length, canonical, sign bit, not of small order. It is for the keys that a
// statement names beside its own (the hops of a setup, the links of a record), which are only ever compared
// with keys that were checked in full; 64 full checks a record would cost a small router a tenth of a second.
func FromList(b []byte) (Public, error) {
	if len(b) != Size {
		return Public{}, ErrInvalid
	}
	p := Public(b)
	if !p.wellFormed() {
		return Public{}, ErrInvalid
	}
	return p, nil
}

// FromX25519 gives back the identity whose X25519 key is x, checked in full.
func FromX25519(x [32]byte) (Public, error) {
	u, err := new(field.Element).SetBytes(x[:])
	if err != nil || !bytes.Equal(u.Bytes(), x[:]) { // not reduced, or bit 255 set
		return Public{}, ErrInvalid
	}
	// y = (u-1)/(u+1); Invert(0) is 0, so u = -1 gives y = 0, a point of order 4, refused below. Of the two
	// points with this y the identity is the one with sign bit 0.
	one := new(field.Element).One()
	y := new(field.Element).Add(u, one)
	y.Invert(y)
	y.Multiply(y, new(field.Element).Subtract(u, one))
	return FromBytes(y.Bytes())
}

// X25519 is the Diffie-Hellman form of the key. A Public that is not on the curve gives zero, which every
// handshake refuses.
func (p Public) X25519() [32]byte {
	point, err := new(edwards25519.Point).SetBytes(p[:])
	if err != nil {
		return [32]byte{}
	}
	return [32]byte(point.BytesMontgomery())
}

// Verify reports whether sig is p's signature of that kind over body in that network.
func (p Public) Verify(kind string, id NetworkID, body, sig []byte) bool {
	// Go accepts keys of small order, under which one fixed signature verifies everything.
	if !p.wellFormed() || len(sig) != ed25519.SignatureSize {
		return false
	}
	return ed25519.Verify(p[:], signed(kind, id, body), sig)
}

// String is the text form: 52 lower-case letters of base32.
func (p Public) String() string { return encoding().EncodeToString(p[:]) }

// Short is the first 8 letters, for people; never unique enough to decide by.
func (p Public) Short() string { return p.String()[:8] }

// IsZero reports whether p is unset.
func (p Public) IsZero() bool { return p == Public{} }

// MarshalText gives the text form, and nothing for an unset key.
func (p Public) MarshalText() ([]byte, error) {
	if p.IsZero() {
		return []byte{}, nil
	}
	return []byte(p.String()), nil
}

// UnmarshalText reads what MarshalText gave.
func (p *Public) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*p = Public{}
		return nil
	}
	k, err := Parse(string(b))
	if err != nil {
		return err
	}
	*p = k
	return nil
}

// Less orders keys by their bytes.
func (p Public) Less(q Public) bool { return bytes.Compare(p[:], q[:]) < 0 }

// order8 is the y coordinate of two of the points of order 8; the other two have p - y.
var order8 = [2]Public{
	{
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
}

// wellFormed tests what the bytes alone can tell: sign bit 0, y < 2^255-19, and not one of the five y of
// small order (0, 1, -1 and two of order 8).
func (p Public) wellFormed() bool {
	if p[31]&0x80 != 0 || p == order8[0] || p == order8[1] {
		return false
	}
	middle := p[1:31]
	switch {
	case p[31] == 0 && p[0] <= 1 && allEqual(middle, 0): // y = 0, 1
		return false
	case p[31] == 0x7f && p[0] >= 0xec && allEqual(middle, 0xff): // y = p-1 and all from p up
		return false
	}
	return true
}

func allEqual(b []byte, v byte) bool {
	for _, c := range b {
		if c != v {
			return false
		}
	}
	return true
}

// primeOrder reports whether [l]point is the identity, written as [l-1]point = -point since l itself is no
// reduced scalar. Without it one secret would own four identities, A plus each point of small order.
func primeOrder(point *edwards25519.Point) bool {
	minusOne := edwards25519.NewScalar()
	minusOne.Negate(one())
	got := new(edwards25519.Point).VarTimeDoubleScalarBaseMult(minusOne, point, edwards25519.NewScalar())
	return got.Equal(new(edwards25519.Point).Negate(point)) == 1
}

func one() *edwards25519.Scalar {
	b := [32]byte{1}
	s, err := edwards25519.NewScalar().SetCanonicalBytes(b[:])
	if err != nil {
		panic("key: 1 is not a canonical scalar: " + err.Error())
	}
	return s
}
