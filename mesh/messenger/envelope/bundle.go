package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"skywire/mesh/key"
)

// Bundle is what a device says to another in one envelope.
type Bundle struct {
	Account, Device key.Public // who says it
	To              key.Public // the device that it is for
	Card            uint64     // number of the sender's card now
	Epoch           uint64     // of the sender's numbers; not 0
	Stream          uint8
	Floor           uint64 // lowest number not answered yet or given up; from 1
	Items           []Item // numbers rise, none below Floor
}

// append encodes a bundle without its addressee, who is known by the envelope:
//
//	version 1 │ device 32 │ cluster 1 (1: account 32 follows) │ card 8 │ epoch 8 │ stream 1 │ floor uvarint │ items uvarint │ each item
func (b *Bundle) append(dst []byte) []byte {
	dst = append(append(dst, version), b.Device[:]...)
	if b.Account == b.Device {
		dst = append(dst, 0)
	} else {
		dst = append(append(dst, 1), b.Account[:]...)
	}
	dst = binary.BigEndian.AppendUint64(dst, b.Card)
	dst = binary.BigEndian.AppendUint64(dst, b.Epoch)
	dst = binary.AppendUvarint(append(dst, b.Stream), b.Floor)
	dst = binary.AppendUvarint(dst, uint64(len(b.Items)))
	prev := b.Floor - 1
	for i := range b.Items {
		it := &b.Items[i]
		dst = it.append(dst, prev)
		if it.Seq != 0 {
			prev = it.Seq
		}
	}
	return dst
}

// Overhead is the most that a bundle has beside its items, and ItemOverhead the most that an item has beside its body: what
// fits in MaxBundle can so be known before.
const (
	Overhead     = 1 + 32 + 1 + 32 + 8 + 8 + 1 + 10 + 2 + signatureLen + padStep
	ItemOverhead = 1 + 1 + 10 + 6 + 5 + 16 + 3
)

// size is at least the encoded size.
func (b *Bundle) size() int {
	n := Overhead - padStep - signatureLen
	for i := range b.Items {
		n += ItemOverhead + len(b.Items[i].Body)
	}
	return n
}

// parseBundle decodes a bundle that its signature and the padding follow. The bodies are parts of raw.
func parseBundle(raw []byte) (b *Bundle, body, sig []byte, err error) {
	c := fields(raw)
	c.Bad = c.U8() != version || len(raw) > MaxBundle
	b = &Bundle{Device: c.identity()}
	b.Account = b.Device
	switch c.U8() {
	case 0:
	case 1:
		b.Account = c.identity()
		c.Bad = c.Bad || b.Account == b.Device
	default:
		c.Bad = true
	}
	b.Card, b.Epoch, b.Stream, b.Floor = c.U64(), c.U64(), c.U8(), c.uvarint()
	n := c.uvarint()
	c.Bad = c.Bad || b.Epoch == 0 || b.Floor == 0 || n == 0 || n > MaxItems
	prev := b.Floor - 1
	for range n {
		if c.Bad {
			break
		}
		it := c.item(prev)
		if it.Seq != 0 {
			prev = it.Seq
		}
		b.Items = append(b.Items, it)
	}
	at := len(raw) - len(c.B)
	sig = c.Take(signatureLen)
	pad := c.B
	c.Bad = c.Bad || len(pad) >= padStep || len(raw)%padStep != 0
	for _, v := range pad {
		c.Bad = c.Bad || v != 0
	}
	if c.Bad {
		return nil, nil, nil, fmt.Errorf("bundle: %w", ErrFormat)
	}
	return b, raw[:at], sig, nil
}

// signedBundle is what the signature of a bundle covers: the bundle, and whom and what it was sealed for, so that who opens it
// can't seal it for another.
//
//	to 32 │ suite 1 │ prekey 4 │ SHA-256 of the prekey 32 │ the bundle
func signedBundle(to key.Public, p Prekey, bundle []byte) []byte {
	b := make([]byte, 0, 32+1+4+32+len(bundle))
	b = binary.BigEndian.AppendUint32(append(append(b, to[:]...), byte(p.Suite)), p.ID)
	h := sha256.Sum256(p.Public)
	return append(append(b, h[:]...), bundle...)
}

// bare tells whether a bundle holds nothing but cards.
func (b *Bundle) bare() bool {
	for i := range b.Items {
		if b.Items[i].Kind != KindCard {
			return false
		}
	}
	return true
}
