package wire

import (
	"encoding/binary"
	"fmt"
)

// Version is the protocol's number, in the high half of the type byte.
const Version = 1

// Frame types: version 1 in the high four bits.
const (
	TypeInit      = 0x11
	TypeResp      = 0x12
	TypeCookie    = 0x13
	TypeWho       = 0x14
	TypeIsMe      = 0x15
	TypeHint      = 0x16
	TypeSealed    = 0x18
	TypePresealed = 0x19
	TypeLink      = 0x1a
)

// Sizes of labelled frames.
const (
	HeaderLen      = 24 // with the hop tag
	TaggedLen      = 16 // the part of the header that the hop tag covers, all before it
	AADLen         = 2  // type and key: the part that no relay changes, covered by the AEAD
	InnerLen       = 4  // kind, fragment, index, zero: the head of a sealed body
	AEADLen        = 16
	SealedOverhead = HeaderLen + InnerLen + AEADLen
	LinkOverhead   = HeaderLen + AEADLen
	MinFrame       = SealedOverhead // shortest labelled frame a relay takes
	MinLinkFrame   = LinkOverhead + MessageHead
)

// MaxTTL is the ttl of a new frame; a relay takes one off and drops at 1.
const MaxTTL = 32

// Bits of the header.
const BitsECN = 0x03

// Header opens every labelled frame.
//
//	0       1       2       3       4               8                16              24
//	+-------+-------+-------+-------+---------------+----------------+---------------+
//	| type  |  key  |  ttl  | bits  |     label     |    counter     |    hop tag    |
//	+-------+-------+-------+-------+---------------+----------------+---------------+
type Header struct {
	Type, Key, TTL, Bits uint8
	Label                uint32
	Counter, Tag         uint64
}

// Append adds the header's 24 bytes.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, h.Type, h.Key, h.TTL, h.Bits)
	dst = binary.BigEndian.AppendUint32(dst, h.Label)
	dst = binary.BigEndian.AppendUint64(dst, h.Counter)
	return binary.BigEndian.AppendUint64(dst, h.Tag)
}

// ParseHeader reads the header of a SEALED, PRESEALED or LINK frame; what follows is the caller's. Its errors
// are sentinels as they are, so that junk costs no allocation.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, ErrLength
	}
	if b[0] != TypeSealed && b[0] != TypePresealed && b[0] != TypeLink {
		return Header{}, ErrType
	}
	return Header{
		Type: b[0], Key: b[1], TTL: b[2], Bits: b[3],
		Label:   binary.BigEndian.Uint32(b[4:]),
		Counter: binary.BigEndian.Uint64(b[8:]),
		Tag:     binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// A label is a slot of the receiving node and the slot's generation; lane i of a path has the label base + i.
const (
	SlotBits       = 20
	GenerationBits = 12
	MaxSlot        = 1<<SlotBits - 1
)

// Label makes a label of its two parts.
func Label(generation uint16, slot uint32) uint32 {
	return uint32(generation)<<SlotBits | slot&MaxSlot
}

// SplitLabel gives a label's two parts.
func SplitLabel(label uint32) (generation uint16, slot uint32) {
	return uint16(label >> SlotBits), label & MaxSlot
}

// Kinds of a sealed body.
const (
	KindPacket         = 1 // an IP packet
	KindPacketChecksum = 2 // an IP packet whose transport checksum is still to be filled in
	KindFragment       = 3 // a piece of an IP packet
	KindQUIC           = 4 // a QUIC packet with a long header
	KindControl        = 5 // session control, see Ctl…
	KindCopy           = 6 // an IP packet that travels on two paths, behind a number that tells its copies
)

// CopyIDLen is the length of the number before the packet of a KindCopy.
const CopyIDLen = 8

// Lanes and pieces of a path.
const (
	MaxLanes     = 8 // each way
	MaxFragments = 4 // of one inner packet
)

// Inner is the head of a sealed body.
//
//	0       1          2              3       4
//	+-------+----------+--------------+-------+
//	| kind  | fragment | last 1 idx 7 | room  |
//	+-------+----------+--------------+-------+
type Inner struct {
	Kind     uint8
	Fragment uint8 // number of the cut packet; 0 in other kinds
	Index    uint8 // of this piece
	Last     bool
}

// Append adds the four bytes.
func (i Inner) Append(dst []byte) []byte {
	x := i.Index & 0x7f
	if i.Last {
		x |= 0x80
	}
	return append(dst, i.Kind, i.Fragment, x, 0)
}

// ParseInner splits an opened body. The data is a part of b. Errors are bare sentinels.
func ParseInner(b []byte) (Inner, []byte, error) {
	if len(b) < InnerLen {
		return Inner{}, nil, ErrLength
	}
	i := Inner{Kind: b[0], Fragment: b[1], Index: b[2] & 0x7f, Last: b[2]&0x80 != 0}
	if i.Kind < KindPacket || i.Kind > KindCopy || i.Index >= MaxFragments ||
		i.Kind != KindFragment && (i.Fragment != 0 || i.Index != 0 || i.Last) {
		return Inner{}, nil, ErrValue
	}
	return i, b[InnerLen:], nil
}

func wrong(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }
