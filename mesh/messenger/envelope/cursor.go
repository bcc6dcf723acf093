package envelope

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/field"
	"skywire/mesh/key"
)

// cursor reads the fields of what is signed or sealed; after the first that is missing everything is zero.
type cursor struct{ field.Cursor }

func fields(b []byte) *cursor { return &cursor{field.Cursor{B: b}} }

// have tells whether n bytes are left; if not the cursor is bad.
func (c *cursor) have(n int) bool {
	c.Bad = c.Bad || n > len(c.B)
	return !c.Bad
}

// uvarint takes a number of 7 bits a byte, low ones first, in its shortest form.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.B)
	if c.Bad || n <= 0 || n > 1 && c.B[n-1] == 0 {
		c.Bad, c.B = true, nil
		return 0
	}
	c.B = c.B[n:]
	return v
}

// listed takes a key that is only compared with others.
func (c *cursor) listed() key.Public {
	k, err := key.FromList(c.Take(key.Size))
	c.Bad = c.Bad || err != nil
	return k
}

// identity takes a key that is checked in full.
func (c *cursor) identity() key.Public {
	b := c.Take(key.Size)
	if c.Bad {
		return key.Public{}
	}
	k, err := key.FromBytes(b)
	c.Bad = c.Bad || err != nil
	return k
}

// bytes takes n bytes, copied.
func (c *cursor) bytes(n int) []byte {
	if n == 0 || !c.have(n) {
		return nil
	}
	return append([]byte(nil), c.Take(n)...)
}

// text takes a length and so many bytes.
func (c *cursor) text(most int) string {
	n := int(c.U8())
	if n > most || !c.have(n) {
		c.Bad = true
		return ""
	}
	return string(c.Take(n))
}

// end is the error of what must be used up.
func (c *cursor) end(what string) error {
	if !c.Done() {
		return fmt.Errorf("%s: %w", what, ErrFormat)
	}
	return nil
}

func appendText(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }

// signatureLen is that of Ed25519.
const signatureLen = 64

// sign adds the signature of by to a statement; accounts cross networks, so it names none.
func sign(b []byte, purpose string, by *key.Private) []byte {
	sig := by.Sign(purpose, key.NetworkID{}, b)
	return append(b, sig[:]...)
}

// signed splits a statement from its signature and begins to read it: version 1 first.
func signed(raw []byte, most int, what string) (c *cursor, body, sig []byte, err error) {
	at := len(raw) - signatureLen
	if at < 1 || len(raw) > most || raw[0] != version {
		return nil, nil, nil, fmt.Errorf("%s: %w", what, ErrFormat)
	}
	return fields(raw[1:at]), raw[:at], raw[at:], nil
}

// version is the first byte of everything here.
const version = 1

func verify(by key.Public, purpose string, body, sig []byte) error {
	if !by.Verify(purpose, key.NetworkID{}, body, sig) {
		return fmt.Errorf("%s of %s: %w", purpose, by.Short(), ErrSignature)
	}
	return nil
}
