package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"skywire/mesh/field"
	"skywire/mesh/key"
)

// Kind is what an item is. Kinds that a program does not know come through: it answers that it can't.
type Kind uint8

// Kinds of items.
const (
	KindText      Kind = 1  // for a person: UTF-8
	KindFile      Kind = 2  // a file is offered: its manifest
	KindChunk     Kind = 3  // a piece of one
	KindFileWord  Kind = 4  // what the receiver of a file says: yes, no, these pieces
	KindReceipt   Kind = 5  // of the messenger itself: what arrived, what was read
	KindCard      Kind = 6  // the sender's card, newer than the one of the bundle's number that the receiver may have
	KindContact   Kind = 7  // asking, confirming, ending
	KindKeyChange Kind = 8  // a KeyChange
	KindGroup     Kind = 9  // a roster's changes
	KindControl   Kind = 10 // a call of a verb
	KindResult    Kind = 11 // what became of it
	KindPeering   Kind = 12 // a record of two clusters
	KindStatement Kind = 13 // of a ledger; it is kept for an app that reads it
	KindCopy      Kind = 14 // to the account's own devices: what was sent or came elsewhere
	KindHistory   Kind = 15 // between them: asking for what is missing, and an answer
)

// GroupID names a group; the zero value is none.
type GroupID [16]byte

func (g GroupID) String() string { return hex.EncodeToString(g[:]) }

// ItemID names an item everywhere and for ever.
type ItemID [32]byte

func (id ItemID) String() string { return hex.EncodeToString(id[:]) }

// Short is enough of it for people.
func (id ItemID) Short() string { return hex.EncodeToString(id[:5]) }

// Bounds of items and bundles.
const (
	// MaxBody bounds one item: a text beyond it is a file. A chunk of a file has 32 KiB and fits with its head.
	MaxBody = 48 << 10
	// MaxItems bounds a bundle beside MaxBundle, so that 64 KiB of empty items cost no more memory than others.
	MaxItems = 256
	// MaxBundle bounds a bundle as encoded: it is opened in one piece, twice in memory at once, on boxes of 64 MiB with
	// some of them at a time; on a link of 64 kbit/s it travels eight seconds, which is what one loss of a session costs.
	MaxBundle = 64 << 10

	maxMilli = field.MaxUnix * 1000
)

// Item is one thing said.
type Item struct {
	Kind    Kind
	Seq     uint64  // its number in the bundle's stream; 0: not numbered, and so not received for certain
	Time    int64   // unix milliseconds by the sender's clock; he gives no two items the same
	Expires int64   // unix seconds; 0: with the envelope
	Group   GroupID // said in a group
	Body    []byte
}

// ID is the SHA-256 of who said what and when. The number is not in it: the same item has others towards other devices.
//
//	"skywire item 1\0" │ account 32 │ kind 1 │ time 8 │ expires 8 │ group 16 │ body
func (i *Item) ID(account key.Public) (id ItemID) {
	h := sha256.New()
	b := append([]byte("skywire item 1\x00"), account[:]...)
	b = binary.BigEndian.AppendUint64(append(b, byte(i.Kind)), uint64(i.Time))
	b = binary.BigEndian.AppendUint64(b, uint64(i.Expires))
	h.Write(append(b, i.Group[:]...))
	h.Write(i.Body)
	h.Sum(id[:0])
	return id
}

// Flags of an item.
const (
	flagNumbered = 1 << iota
	flagExpires
	flagGroup
	allFlags = flagNumbered | flagExpires | flagGroup
)

// append encodes an item; prev is the number before it:
//
//	kind 1 │ flags 1 (1 numbered, 2 expires, 4 group) │ [number − prev, uvarint] │ time 6 │ [expires 5] │ [group 16] │ length uvarint │ body
func (i *Item) append(dst []byte, prev uint64) []byte {
	var flags byte
	if i.Seq != 0 {
		flags |= flagNumbered
	}
	if i.Expires != 0 {
		flags |= flagExpires
	}
	if i.Group != (GroupID{}) {
		flags |= flagGroup
	}
	dst = append(dst, byte(i.Kind), flags)
	if i.Seq != 0 {
		dst = binary.AppendUvarint(dst, i.Seq-prev)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(i.Time>>32))
	dst = binary.BigEndian.AppendUint32(dst, uint32(i.Time))
	if i.Expires != 0 {
		dst = binary.BigEndian.AppendUint32(append(dst, byte(i.Expires>>32)), uint32(i.Expires))
	}
	if flags&flagGroup != 0 {
		dst = append(dst, i.Group[:]...)
	}
	return append(binary.AppendUvarint(dst, uint64(len(i.Body))), i.Body...)
}

// item takes an item; the body is a part of what the cursor reads.
func (c *cursor) item(prev uint64) (i Item) {
	i.Kind = Kind(c.U8())
	flags := c.U8()
	c.Bad = c.Bad || i.Kind == 0 || flags&^allFlags != 0
	if flags&flagNumbered != 0 {
		d := c.uvarint()
		i.Seq = prev + d
		c.Bad = c.Bad || i.Seq <= prev // zero, or beyond the end
	}
	i.Time = int64(c.U16())<<32 | int64(c.U32())
	if flags&flagExpires != 0 {
		i.Expires = int64(c.U8())<<32 | int64(c.U32())
		c.Bad = c.Bad || i.Expires == 0
	}
	if flags&flagGroup != 0 {
		i.Group = GroupID(c.Take(len(i.Group)))
		c.Bad = c.Bad || i.Group == (GroupID{})
	}
	n := c.uvarint()
	c.Bad = c.Bad || i.Time > maxMilli || i.Expires > field.MaxUnix || n > MaxBody
	if c.Bad {
		return Item{}
	}
	i.Body = c.Take(int(n))
	return i
}
