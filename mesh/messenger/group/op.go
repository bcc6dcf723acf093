package group

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// Bounds of a group.
const (
	MaxMembers = 64 // a message goes to each by itself
	MaxAdmins  = 16
	MaxParents = 16
	// MaxOps bounds a generation: what all members keep, some 100 kB. The founder begins a new one when half is used.
	MaxOps = 512
	// MaxPerAccount bounds what one account changes in a generation, so that an admin out of his mind leaves room for his
	// eviction.
	MaxPerAccount = 128
	// MaxBytes bounds the changes of a generation beside the founding, in bytes: 512 are some 100 kB.
	MaxBytes = 160 << 10
	// MaxOp bounds a change: a founding names all members with their places, each of 400 bytes at most.
	MaxOp = 32 << 10

	maxStatements = 4
	version       = 1
	signatureLen  = 64
)

// OpKind is what a change does.
type OpKind uint8

// Changes.
const (
	Found   OpKind = 1 // the group begins, or its next generation, with these members
	Add     OpKind = 2 // a member
	Remove  OpKind = 3 // a member: an eviction
	Promote OpKind = 4 // a member to admin
	Demote  OpKind = 5 // an admin to member
	Leave   OpKind = 6 // the author goes
	Rename  OpKind = 7 // the group
)

var kindNames = [...]string{"", "found", "add", "remove", "promote", "demote", "leave", "rename"}

func (k OpKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// OpID names a change: SHA-256 of it.
type OpID [32]byte

func (id OpID) String() string { return hex.EncodeToString(id[:]) }

// Seat is a member as a founding names it.
type Seat struct {
	Account key.Public
	Admin   bool // the first seat is the founder's; admins stand in the order of who is above whom
	Place   envelope.Place
}

// Op is a change of a roster.
type Op struct {
	Group           envelope.GroupID
	Kind            OpKind
	Account, Device key.Public     // whose word it is
	Time            int64          // unix seconds, for people
	Parents         []OpID         // the heads of the log that its author had; they rise
	Target          key.Public     // of add, remove, promote, demote
	Place           envelope.Place // of add: where the new member is met
	Name            string         // of found, rename
	Nonce           [16]byte       // of found: with the founder it makes the group's id
	Generation      uint32         // of found; from 1
	Seats           []Seat         // of found
	// Statements prove that the device speaks for a cluster's account: admin list, certificate, revocations of others. They
	// stand in the first change of the device at least.
	Statements [][]byte
}

// ID of a group: the first 16 bytes of SHA-256 of ("skywire group 1\0" │ founder 32 │ nonce 16). So a founding can't be another's.
func groupID(founder key.Public, nonce [16]byte) (id envelope.GroupID) {
	b := append([]byte("skywire group 1\x00"), founder[:]...)
	h := sha256.Sum256(append(b, nonce[:]...))
	copy(id[:], h[:])
	return id
}

// Sign encodes the change and signs it with the device's key:
//
//	version 1 │ group 16 │ kind 1 │ device 32 │ cluster 1 (1: account 32 follows) │ time 8 │ parents 1 │ each 32 │ body │
//	statements 1 │ each {length 2, bytes} │ signature 64 (purpose "roster", network id zero)
func (o *Op) Sign(d *key.Private) ([]byte, error) {
	b := append(append([]byte{version}, o.Group[:]...), byte(o.Kind))
	b = append(b, o.Device[:]...)
	if o.Account == o.Device {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), o.Account[:]...)
	}
	b = append(binary.BigEndian.AppendUint64(b, uint64(o.Time)), byte(len(o.Parents)))
	for _, p := range o.Parents {
		b = append(b, p[:]...)
	}
	b = o.appendBody(b)
	b = append(b, byte(len(o.Statements)))
	for _, s := range o.Statements {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	sig := d.Sign("roster", key.NetworkID{}, b)
	raw := append(b, sig[:]...)
	if _, err := ParseOp(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// appendBody encodes what the kind has:
//
//	found: nonce 16 │ generation 4 │ name {1, text} │ seats 1 │ each {account 32, admin 1, place {2, bytes}}
//	add: target 32 │ place {2, bytes}    remove, promote, demote: target 32    rename: name {1, text}    leave: nothing
func (o *Op) appendBody(b []byte) []byte {
	switch o.Kind {
	case Found:
		b = binary.BigEndian.AppendUint32(append(b, o.Nonce[:]...), o.Generation)
		b = append(append(append(b, byte(len(o.Name))), o.Name...), byte(len(o.Seats)))
		for _, s := range o.Seats {
			b = append(b, s.Account[:]...)
			if s.Admin {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
			b = appendPlace(b, s.Place, s.Account)
		}
	case Add:
		b = appendPlace(append(b, o.Target[:]...), o.Place, o.Target)
	case Remove, Promote, Demote:
		b = append(b, o.Target[:]...)
	case Rename:
		b = append(append(b, byte(len(o.Name))), o.Name...)
	}
	return b
}

func appendPlace(b []byte, p envelope.Place, own key.Public) []byte {
	raw := p.Append(nil, own)
	return append(binary.BigEndian.AppendUint16(b, uint16(len(raw))), raw...)
}

// ParseOp decodes a change and checks its signature. Whether it holds says a Roster.
func ParseOp(raw []byte) (*Op, error) {
	at := len(raw) - signatureLen
	if at < 1 || len(raw) > MaxOp || raw[0] != version {
		return nil, fmt.Errorf("change of %d bytes: %w", len(raw), ErrFormat)
	}
	c := fields(raw[1:at])
	o := &Op{Group: envelope.GroupID(c.Take(16)), Kind: OpKind(c.U8()), Device: c.identity()}
	o.Account = o.Device
	switch c.U8() {
	case 0:
	case 1:
		o.Account = c.identity()
		c.Bad = c.Bad || o.Account == o.Device
	default:
		c.Bad = true
	}
	o.Time = c.Unix()
	for i := range c.count(MaxParents) {
		o.Parents = append(o.Parents, OpID(c.Take(32)))
		c.Bad = c.Bad || i > 0 && string(o.Parents[i-1][:]) >= string(o.Parents[i][:])
	}
	c.body(o)
	for range c.count(maxStatements) {
		n := int(c.U16())
		c.Bad = c.Bad || n == 0 || n > member.MaxStatement
		o.Statements = append(o.Statements, append([]byte(nil), c.Take(n)...))
	}
	if c.Bad || len(c.B) != 0 || o.Account == o.Device && len(o.Statements) > 0 {
		return nil, fmt.Errorf("change: %w", ErrFormat)
	}
	if !o.Device.Verify("roster", key.NetworkID{}, raw[:at], raw[at:]) {
		return nil, fmt.Errorf("change of %s: %w", o.Device.Short(), ErrSignature)
	}
	return o, nil
}

func (c *cursor) body(o *Op) {
	switch o.Kind {
	case Found:
		o.Nonce, o.Generation, o.Name = [16]byte(c.Take(16)), c.U32(), c.text()
		c.Bad = c.Bad || o.Generation == 0 || o.Generation == 1 && len(o.Parents) > 0 || o.Group != groupID(o.Account, o.Nonce)
		c.seats(o)
	case Add:
		o.Target = c.identity()
		o.Place = c.place(o.Target)
	case Remove, Promote, Demote:
		o.Target = c.identity()
	case Rename:
		o.Name = c.text()
	case Leave:
	default:
		c.Bad = true
	}
	c.Bad = c.Bad || o.Kind != Found && len(o.Parents) == 0
}

// seats takes the members of a founding: the founder first, then admins, then others, each once.
func (c *cursor) seats(o *Op) {
	seen, admins := map[key.Public]bool{}, 0
	for i := range c.count(MaxMembers) {
		s := Seat{Account: c.identity()}
		admin := c.U8()
		s.Admin, s.Place = admin == 1, c.place(s.Account)
		if c.Bad {
			return
		}
		if s.Admin {
			admins++
		}
		c.Bad = admin > 1 || seen[s.Account] || s.Admin && i > 0 && !o.Seats[i-1].Admin || i == 0 && (s.Account != o.Account || !s.Admin)
		seen[s.Account] = true
		o.Seats = append(o.Seats, s)
	}
	c.Bad = c.Bad || len(o.Seats) == 0 || admins > MaxAdmins
}
