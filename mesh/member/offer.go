package member

import (
	"encoding/binary"
	"fmt"
	"time"

	"skywire/mesh/key"
)

// Bounds of an offer.
const (
	MaxUses      = 100 // nodes that one invite lets in
	maxWrong     = 5   // wrong proofs close it
	offerVersion = 1
)

// Offer is an invite in the book of its issuer, who alone redeems it. Its time is what the issuer's own clock counted
// while it ran, so that no date brings it back; while the issuer was off, the floor clock may end it too.
type Offer struct {
	ID      InviteID
	Secret  [16]byte
	Name    string // of the node that it is for; "": the joiner may wish
	Roles   Roles
	Tags    []string
	Uses    uint16
	Wrong   uint8         // proofs that were
	Life    time.Duration // whole seconds
	Elapsed time.Duration // of Life, while the issuer ran; whole seconds are stored
	Until   int64         // unix seconds, as the issuer's clock saw it when it was made
	Joined  []key.Public  // whom it let in; each may ask again
}

// Check judges a request to join: nil says that joiner may have a certificate, his first or the same again. wrong tells
// that the proof failed and that Wrong was counted up. The offer is to be stored, with what was signed, before anybody
// hears of it.
func (o *Offer) Check(handshake [32]byte, joiner key.Public, proof [32]byte) (wrong bool, err error) {
	if o.Wrong >= maxWrong {
		return false, fmt.Errorf("%w: too many wrong proofs", ErrOver)
	}
	if !proven(Proof(o.Secret, handshake, joiner), proof) {
		o.Wrong++
		return true, ErrProof
	}
	switch {
	case o.Has(joiner):
		return false, nil
	case o.Elapsed >= o.Life:
		return false, fmt.Errorf("%w: it has expired", ErrOver)
	case len(o.Joined) >= int(o.Uses):
		return false, fmt.Errorf("%w: it was used", ErrOver)
	}
	return false, nil
}

// Has tells whether joiner came in by this invite.
func (o *Offer) Has(joiner key.Public) bool {
	for _, k := range o.Joined {
		if k == joiner {
			return true
		}
	}
	return false
}

// NameFor is the name that the next joiner is to have: the invite's if it has one, for the first who comes, else his wish.
func (o *Offer) NameFor(wish string) string {
	if o.Name == "" || o.Uses > 1 && len(o.Joined) > 0 {
		return wish
	}
	return o.Name
}

// State says in one word what the offer is good for.
func (o *Offer) State() string {
	switch {
	case o.Wrong >= maxWrong:
		return "closed"
	case len(o.Joined) >= int(o.Uses):
		return "used"
	case o.Elapsed >= o.Life:
		return "expired"
	}
	return "open"
}

// Append encodes the offer for the store:
//
//	version 1 │ id 8 │ secret 16 │ roles 2 │ uses 2 │ wrong 1 │ life_s 4 │ elapsed_s 4 │ until 8 │ name {length 1, text} │
//	tags 1, each {length 1, text} │ joined 1 │ each key 32
func (o *Offer) Append(dst []byte) []byte {
	dst = append(append(append(dst, offerVersion), o.ID[:]...), o.Secret[:]...)
	dst = binary.BigEndian.AppendUint16(dst, uint16(o.Roles))
	dst = binary.BigEndian.AppendUint16(dst, o.Uses)
	dst = append(dst, o.Wrong)
	dst = binary.BigEndian.AppendUint32(dst, uint32(o.Life/time.Second))
	dst = binary.BigEndian.AppendUint32(dst, uint32(o.Elapsed/time.Second))
	dst = binary.BigEndian.AppendUint64(dst, uint64(o.Until))
	dst = append(appendTags(appendText(dst, o.Name), o.Tags), byte(len(o.Joined)))
	for _, k := range o.Joined {
		dst = append(dst, k[:]...)
	}
	return dst
}

// ParseOffer decodes what Append makes.
func ParseOffer(b []byte) (*Offer, error) {
	c := fields(b)
	version := c.U8()
	o := &Offer{
		ID: InviteID(c.Take(8)), Secret: [16]byte(c.Take(16)), Roles: Roles(c.U16()), Uses: c.U16(), Wrong: c.U8(),
		Life: time.Duration(c.U32()) * time.Second, Elapsed: time.Duration(c.U32()) * time.Second, Until: c.Unix(),
		Name: c.text(MaxName), Tags: c.tags(),
	}
	n := int(c.U8())
	c.Bad = c.Bad || version != offerVersion || n > MaxUses || o.Uses > MaxUses || o.Name != "" && !ValidName(o.Name)
	for range n {
		if c.Bad {
			break
		}
		o.Joined = append(o.Joined, c.key())
	}
	if err := c.end("offer"); err != nil {
		return nil, err
	}
	return o, nil
}
