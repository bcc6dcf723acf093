package member

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/field"
	"skywire/mesh/key"
)

// Kind is the first byte of a statement. Statements are exchanged in the order of their kinds: each is judged by the
// admin list.
type Kind uint8

// Kinds of statements.
const (
	KindAdmins      Kind = 1 // AdminList
	KindTime        Kind = 2 // TimeStatement
	KindRevocation  Kind = 3 // Revocation
	KindCertificate Kind = 4 // Certificate

	lastKind Kind = 255 // room for kinds to come
)

// Bounds of a statement and of what it holds.
const (
	MaxStatement = 2048 // bytes, signature included; so that a chain fits the reply of a stream
	MaxAdmins    = 16
	MaxTags      = 8
	MaxTag       = 31 // bytes
	MaxName      = 32 // bytes

	statementVersion = 1
	signatureLen     = 64
)

// purposes are the KIND of each signature's prefix.
func (k Kind) purpose() string {
	switch k {
	case KindAdmins:
		return "admins"
	case KindTime:
		return "time"
	case KindRevocation:
		return "revocation"
	case KindCertificate:
		return "certificate"
	}
	return ""
}

func (k Kind) String() string { return k.purpose() }

// Ref names one statement: its kind and 8 bytes of its BLAKE2s. Refs stand in the order of their bytes.
type Ref [9]byte

// RefOf is the name of the statement in raw.
func RefOf(raw []byte) Ref {
	h := blake2s.Sum256(raw)
	var r Ref
	if len(raw) > 0 {
		r[0] = raw[0]
	}
	copy(r[1:], h[:8])
	return r
}

// Kind is the kind of the statement named.
func (r Ref) Kind() Kind { return Kind(r[0]) }

// less orders refs.
func (r Ref) less(o Ref) bool { return bytes.Compare(r[:], o[:]) < 0 }

func (r Ref) sum() uint64 { return binary.BigEndian.Uint64(r[1:]) }

// seal adds the signature of by to a statement whose body is b.
func seal(b []byte, network key.NetworkID, by *key.Private) []byte {
	sig := by.Sign(Kind(b[0]).purpose(), network, b)
	return append(b, sig[:]...)
}

// signedBy checks the signature that seal made.
func signedBy(raw []byte, network key.NetworkID, by key.Public) bool {
	at := len(raw) - signatureLen
	return at > 0 && by.Verify(Kind(raw[0]).purpose(), network, raw[:at], raw[at:])
}

// open begins to read a statement: kind, version, and a signature at the end, which is left out.
func open(raw []byte, want Kind) (*cursor, error) {
	if len(raw) > MaxStatement || len(raw) < 2+signatureLen || Kind(raw[0]) != want || raw[1] != statementVersion {
		return nil, fmt.Errorf("%s: %w", want, ErrFormat)
	}
	return fields(raw[2 : len(raw)-signatureLen]), nil
}

// cursor reads the fields of a statement or message; after the first that is missing everything is zero.
type cursor struct{ field.Cursor }

func fields(b []byte) *cursor { return &cursor{field.Cursor{B: b}} }

// key takes a key that is only compared with others, or whose signature is checked: Verify refuses what is no key.
func (c *cursor) key() key.Public {
	k, err := key.FromList(c.Take(key.Size))
	c.Bad = c.Bad || err != nil
	return k
}

// text takes a length and so many bytes.
func (c *cursor) text(most int) string {
	n := int(c.U8())
	if n > most {
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

// ValidName tells whether s may be the name of a node or a tag's text: letters a to z, digits and inner hyphens, so that
// it is a label of a host name.
func ValidName(s string) bool {
	if s == "" || len(s) > MaxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
