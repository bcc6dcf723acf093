package envelope

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"

	"skywire/mesh/key"
)

// MaxLinkText bounds a link as text: three contacts with long addresses fit.
const MaxLinkText = 1024

const linkPrefix = "skywire:contact?"

// Token is what makes a link an invitation: who shows it is confirmed at once. The zero value is none.
type Token [16]byte

// NewToken draws a token.
func NewToken() (t Token, err error) {
	if _, err := rand.Read(t[:]); err != nil {
		return t, fmt.Errorf("new token: %w", err)
	}
	return t, nil
}

// Link is what a person hands to another to be found by: without a token it may be printed anywhere.
type Link struct {
	Account key.Public
	Place   Place
	Token   Token
}

// Text is the link as a URI: "skywire:contact?" and in base32
//
//	version 1 │ token 1 (1: 16 bytes follow) │ account 32 │ place │ check 4 (of SHA-256)
//
// With a token it is printed for the one who is to have it, and never logged.
func (l *Link) Text() string {
	b := []byte{version, 0}
	if l.Token != (Token{}) {
		b = append([]byte{version, 1}, l.Token[:]...)
	}
	b = l.Place.append(append(b, l.Account[:]...), l.Account)
	h := sha256.Sum256(b)
	return linkPrefix + letters().EncodeToString(append(b, h[:4]...))
}

// QRText is the same in the letters that make the smallest QR code: upper case, and a slash for the question mark.
func (l *Link) QRText() string { return strings.ToUpper(strings.Replace(l.Text(), "?", "/", 1)) }

// letters is the alphabet of keys.
func letters() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// IsLink tells whether a text means to be a link, so that a command can tell it from a key or a name.
func IsLink(s string) bool {
	s = strings.ToLower(strings.TrimSpace(s))
	return strings.HasPrefix(s, linkPrefix) || strings.HasPrefix(s, strings.Replace(linkPrefix, "?", "/", 1))
}

// ParseLink reads a link, in either case and with white space that a mail or a terminal put into it.
func ParseLink(s string) (*Link, error) {
	if len(s) > 2*MaxLinkText {
		return nil, fmt.Errorf("contact link: %w: too long", ErrFormat)
	}
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	s, ok := strings.CutPrefix(strings.Replace(s, "/", "?", 1), linkPrefix)
	if !ok || len(s) > MaxLinkText {
		return nil, fmt.Errorf("contact link: %w: it begins with %q", ErrFormat, linkPrefix)
	}
	b, err := letters().DecodeString(s)
	if err != nil || letters().EncodeToString(b) != s || len(b) < 5 {
		return nil, fmt.Errorf("contact link: %w: a letter is wrong or missing", ErrFormat)
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if h := sha256.Sum256(b); !bytes.Equal(h[:4], check) {
		return nil, fmt.Errorf("contact link: %w: a letter is wrong or missing", ErrFormat)
	}
	if b[0] != version {
		return nil, fmt.Errorf("contact link: %w: version %d, this program knows %d", ErrFormat, b[0], version)
	}
	c := fields(b[1:])
	l := &Link{}
	switch c.U8() {
	case 0:
	case 1:
		l.Token = Token(c.Take(len(l.Token)))
		c.Bad = c.Bad || l.Token == Token{}
	default:
		c.Bad = true
	}
	l.Account = c.identity()
	l.Place = c.place(l.Account)
	return l, c.end("contact link")
}
