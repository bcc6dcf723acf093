package peering

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

const (
	inviteVersion = 1
	invitePrefix  = "skywire:peer?"
	maxInvite     = 2048 // bytes
)

// InviteID names an invite in the book of who made it. It is no secret.
type InviteID [8]byte

// Invite is what one administrator hands to another: an offer, signed, and the secret that lets one cluster take it.
type Invite struct {
	ID      InviteID
	Secret  [16]byte
	Node    key.Public // whose gateway redeems it
	Expires int64      // unix seconds, of the invite
	Until   int64      // unix seconds, of the peering; 0: no end
	// Offer is the side of who invites, without its admin list.
	Offer Side
	Asks  Grant // what the other side is to give
}

// NewInvite draws an id and a secret.
func NewInvite(v Invite) (*Invite, error) {
	if _, err := rand.Read(v.ID[:]); err != nil {
		return nil, fmt.Errorf("new invite: %w", err)
	}
	if _, err := rand.Read(v.Secret[:]); err != nil {
		return nil, fmt.Errorf("new invite: %w", err)
	}
	v.Offer.List = nil
	return &v, nil
}

// body is what the administrator signs:
//
//	version 1 │ id 8 │ secret 16 │ node 32 │ expires 8 │ until 8 │ the offer's side, its list empty │ the grant asked for
func (v *Invite) body() []byte {
	b := append([]byte{inviteVersion}, v.ID[:]...)
	b = append(append(b, v.Secret[:]...), v.Node[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(v.Expires))
	b = binary.BigEndian.AppendUint64(b, uint64(v.Until))
	return v.Asks.append(v.Offer.append(b))
}

// Text signs the invite and makes a URI of it: "skywire:peer?" and in base32 the body, the signature 64 and 4 bytes of
// BLAKE2s over both. It holds the secret: it is printed for the one who is to have it, and never logged.
func (v *Invite) Text(admin *key.Private) (string, error) {
	b := v.body()
	sig := admin.Sign(purposeOffer, key.NetworkID{}, b)
	b = append(b, sig[:]...)
	h := blake2s.Sum256(b)
	s := invitePrefix + letters().EncodeToString(append(b, h[:4]...))
	if _, err := ParseInvite(s); err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return s, nil
}

// ParseInvite reads an invite, in either case and with white space that a mail or a terminal put into it, and checks that
// its administrator signed it; that it is one is known when the gateway shows the admin list.
func ParseInvite(s string) (*Invite, error) {
	bad := func(why string) (*Invite, error) { return nil, fmt.Errorf("invite: %w: %s", ErrFormat, why) }
	if len(s) > 4*maxInvite {
		return bad("too long")
	}
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	s, ok := strings.CutPrefix(s, invitePrefix)
	if !ok {
		return bad("it begins with " + invitePrefix)
	}
	b, err := letters().DecodeString(s)
	if err != nil || letters().EncodeToString(b) != s || len(b) < 4+signatureLen || len(b) > maxInvite {
		return bad("a letter is wrong or missing")
	}
	b, check := b[:len(b)-4], b[len(b)-4:]
	if h := blake2s.Sum256(b); !bytes.Equal(h[:4], check) {
		return bad("a letter is wrong or missing")
	}
	at := len(b) - signatureLen
	c := &cursor{b: b[:at]}
	if version := c.u8(); version != inviteVersion {
		return bad("of a version that this program does not know")
	}
	v := &Invite{
		ID: InviteID(c.take(8)), Secret: [16]byte(c.take(16)), Node: c.key(false), Expires: c.unix(), Until: c.unix(), Offer: c.side(), Asks: c.grant(),
	}
	c.bad = c.bad || len(v.Offer.List) != 0
	if err := c.end("invite"); err != nil {
		return nil, err
	}
	if !v.Offer.Admin.Verify(purposeOffer, key.NetworkID{}, b[:at], b[at:]) {
		return nil, fmt.Errorf("invite: %w", ErrSignature)
	}
	return v, nil
}

// proof shows that a visitor knows the secret; it is worth nothing to another one, or at another gateway.
func proof(secret [16]byte, visitor, host key.Public) [32]byte {
	h, err := blake2s.New256(secret[:])
	if err != nil {
		panic("peering: " + err.Error()) // a key of 16 bytes is never refused
	}
	h.Write([]byte("skywire peer 1"))
	h.Write(visitor[:])
	h.Write(host[:])
	return [32]byte(h.Sum(nil))
}

// Pass is a node's word that a visitor is its own: the key under which it goes into the network of the host.
type Pass struct {
	Cluster  key.Public // of the node
	Node     key.Public
	Visitor  key.Public
	Host     key.Public
	Issued   int64
	NotAfter int64
}

const passLen = 2 + 4*key.Size + 2*8 + signatureLen

// Sign encodes the pass:
//
//	kind 1 │ version 1 │ cluster 32 │ node 32 │ visitor 32 │ host 32 │ issued 8 │ not_after 8 │ signature 64
func (p *Pass) Sign(node *key.Private) []byte {
	b := []byte{3, recordVersion}
	for _, k := range []key.Public{p.Cluster, node.Public(), p.Visitor, p.Host} {
		b = append(b, k[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(p.Issued))
	b = binary.BigEndian.AppendUint64(b, uint64(p.NotAfter))
	sig := node.Sign(purposePass, key.NetworkID{}, b)
	return append(b, sig[:]...)
}

// ParsePass decodes a pass and checks its signature.
func ParsePass(raw []byte) (*Pass, error) {
	if len(raw) != passLen {
		return nil, fmt.Errorf("pass: %w", ErrFormat)
	}
	at := len(raw) - signatureLen
	c := &cursor{b: raw[:at]}
	kind, version := c.u8(), c.u8()
	p := &Pass{Cluster: c.key(false), Node: c.key(false), Visitor: c.key(false), Host: c.key(false), Issued: c.unix(), NotAfter: c.unix()}
	c.bad = c.bad || kind != 3 || version != recordVersion || p.NotAfter <= p.Issued
	if err := c.end("pass"); err != nil {
		return nil, err
	}
	if !p.Node.Verify(purposePass, key.NetworkID{}, raw[:at], raw[at:]) {
		return nil, fmt.Errorf("pass: %w", ErrSignature)
	}
	return p, nil
}

// contactOf reads KEY@HOST:PORT.
func contactOf(s string) (member.Contact, error) {
	k, addr, ok := strings.Cut(s, "@")
	id, err := key.Parse(k)
	if !ok || err != nil || addr == "" || len(addr) > member.MaxContactAddr {
		return member.Contact{}, fmt.Errorf("%q: want KEY@HOST:PORT", s)
	}
	return member.Contact{Key: id, Addr: addr}, nil
}
