package member

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
)

// Bounds of an invite.
const (
	MaxContacts    = 3
	MaxContactAddr = 80
	MaxInviteText  = 1024

	inviteVersion = 1
	invitePrefix  = "skywire:join?"
)

// InviteID names an invite in its issuer's book. It is no secret.
type InviteID [8]byte

// Contact is where a joiner begins: the issuer or any member, at an address as on the command line (udp://host:port).
type Contact struct {
	Key  key.Public
	Addr string
}

// Invite is what a person hands to another: enough to find the cluster, to know it by its keys and to prove that one was
// invited. Whoever has it first may join, so it is to be handed over like a key.
type Invite struct {
	Cluster  key.Public // the cluster key
	Issuer   key.Public // the node key of the manager that redeems it
	ID       InviteID
	Secret   [16]byte
	Contacts []Contact
}

// NewInvite draws an id and a secret.
func NewInvite(cluster, issuer key.Public, contacts []Contact) (*Invite, error) {
	v := &Invite{Cluster: cluster, Issuer: issuer, Contacts: contacts}
	if _, err := rand.Read(v.ID[:]); err != nil {
		return nil, fmt.Errorf("new invite: %w", err)
	}
	if _, err := rand.Read(v.Secret[:]); err != nil {
		return nil, fmt.Errorf("new invite: %w", err)
	}
	return v, nil
}

// text is the alphabet of keys: what a QR code and a telephone carry alike.
func text() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Text is the invite as a URI: "skywire:join?" and in base32
//
//	version 1 │ contacts 1 │ cluster 32 │ issuer 32 │ id 8 │ secret 16 │
//	each contact {issuer's own 1 (0: key 32 follows), address length 1, text} │ check 4
//
// It holds the secret: it is printed for the one who is to have it, and never logged.
func (v *Invite) Text() string {
	b := []byte{inviteVersion, byte(len(v.Contacts))}
	b = append(append(b, v.Cluster[:]...), v.Issuer[:]...)
	b = append(append(b, v.ID[:]...), v.Secret[:]...)
	for _, c := range v.Contacts {
		if c.Key == v.Issuer {
			b = append(b, 1)
		} else {
			b = append(append(b, 0), c.Key[:]...)
		}
		b = appendText(b, c.Addr)
	}
	h := blake2s.Sum256(b)
	return invitePrefix + text().EncodeToString(append(b, h[:4]...))
}

// QRText is the same in the letters that make the smallest QR code: upper case, and a slash for the question mark.
func (v *Invite) QRText() string {
	return strings.ToUpper(strings.Replace(v.Text(), "?", "/", 1))
}

// ParseInvite reads an invite, in either case and with white space that a mail or a terminal put into it.
func ParseInvite(s string) (*Invite, error) {
	if len(s) > 2*MaxInviteText {
		return nil, fmt.Errorf("invite: %w: too long", ErrFormat)
	}
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	s, ok := strings.CutPrefix(strings.Replace(s, "/", "?", 1), invitePrefix)
	if !ok || len(s) > MaxInviteText {
		return nil, fmt.Errorf("invite: %w: it begins with %q", ErrFormat, invitePrefix)
	}
	b, err := text().DecodeString(s)
	if err != nil || text().EncodeToString(b) != s || len(b) < 5 {
		return nil, fmt.Errorf("invite: %w: a letter is wrong or missing", ErrFormat)
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if h := blake2s.Sum256(b); !bytes.Equal(h[:4], check) {
		return nil, fmt.Errorf("invite: %w: a letter is wrong or missing", ErrFormat)
	}
	if b[0] != inviteVersion {
		return nil, fmt.Errorf("invite: %w: version %d, this program knows %d", ErrFormat, b[0], inviteVersion)
	}
	return parseInvite(b[1:])
}

func parseInvite(b []byte) (*Invite, error) {
	c := fields(b)
	n := int(c.U8())
	v := &Invite{Cluster: c.key(), Issuer: c.key(), ID: InviteID(c.Take(8)), Secret: [16]byte(c.Take(16))}
	c.Bad = c.Bad || n > MaxContacts
	for range n {
		if c.Bad {
			break
		}
		at := Contact{Key: v.Issuer}
		switch c.U8() {
		case 0:
			at.Key = c.key()
			c.Bad = c.Bad || at.Key == v.Issuer
		case 1:
		default:
			c.Bad = true
		}
		at.Addr = c.text(MaxContactAddr)
		c.Bad = c.Bad || !printable(at.Addr)
		v.Contacts = append(v.Contacts, at)
	}
	if err := c.end("invite"); err != nil {
		return nil, err
	}
	for _, k := range append([]key.Public{v.Cluster, v.Issuer}, contactKeys(v.Contacts)...) {
		if _, err := key.FromBytes(k[:]); err != nil {
			return nil, fmt.Errorf("invite: %w", err)
		}
	}
	return v, nil
}

func contactKeys(all []Contact) (keys []key.Public) {
	for _, c := range all {
		keys = append(keys, c.Key)
	}
	return keys
}

func printable(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 127 {
			return false
		}
	}
	return s != ""
}

// Network is the id of the network that the invite leads to.
func (v *Invite) Network() key.NetworkID { return key.Cluster(v.Cluster) }

// Proof shows that one knows the secret without showing the secret: it is bound to the joiner's key and to the handshake
// of the session with the issuer, so that nobody between can use it.
func Proof(secret [16]byte, handshake [32]byte, joiner key.Public) [32]byte {
	b := append([]byte("skywire join 1"), handshake[:]...)
	return mac(secret[:], append(b, joiner[:]...))
}

// mac is keyed BLAKE2s; keys here have 16 bytes, so New256 can't refuse them.
func mac(secret, b []byte) (sum [32]byte) {
	h, err := blake2s.New256(secret)
	if err != nil {
		panic("member: " + err.Error())
	}
	h.Write(b)
	h.Sum(sum[:0])
	return sum
}

func proven(got, want [32]byte) bool { return subtle.ConstantTimeCompare(got[:], want[:]) == 1 }
