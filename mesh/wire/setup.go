package wire

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/key"
)

// Sizes and limits of a path setup.
const (
	MinHops      = 2 // source and destination
	MaxHops      = 32
	MaxEnd       = 256 // end part: Noise message or proof
	MaxIdle      = 300 // seconds
	setupFixed   = 40
	SetupBaseLen = setupFixed + 32 // core without the keys
	setupHop     = 16              // what each hop rewrites
)

// Flags of a setup.
const (
	SetupStream = 1 << 0 // the last lane each way is the stream lane
	SetupProof  = 1 << 1 // the end part is a proof under the standing session, not a handshake
)

// KindSetup is the signature kind of a setup core.
const KindSetup = "setup"

// SetupCore is the part of a setup that its source signs.
//
//	version 1 | flags 1 | n 1 | lanes forward 4 bits, backward 4 bits | path 2 | zero 2 | number 8 |
//	not-after 8 | idle 2 | zero 6 | price cap 8 | n × key 32 | H(end part) 32
type SetupCore struct {
	Flags             uint8
	Forward, Backward uint8  // lanes each way, 1–8
	Path              uint16 // unique in the session's life
	Number            uint64 // of this source, rising
	NotAfter          int64  // unix seconds, 0 none
	Idle              uint16 // seconds without a frame after which the rule goes
	PriceCap          uint64 // per MiB
	Hops              []key.Public
	EndHash           [32]byte
}

// Append adds the core: 72 bytes and 32 a hop.
func (s SetupCore) Append(dst []byte) []byte {
	dst = append(dst, Version, s.Flags, uint8(len(s.Hops)), s.Forward<<4|s.Backward&15)
	dst = binary.BigEndian.AppendUint16(dst, s.Path)
	dst = append(dst, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, s.Number)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.NotAfter))
	dst = binary.BigEndian.AppendUint16(dst, s.Idle)
	dst = appendZero(dst, 6)
	dst = binary.BigEndian.AppendUint64(dst, s.PriceCap)
	for _, k := range s.Hops {
		dst = append(dst, k[:]...)
	}
	return append(dst, s.EndHash[:]...)
}

// ParseSetupCore reads a core. Keys are checked for form only: a hop compares them with neighbours whose keys
// were checked in full, and Verify refuses what is no signing key.
func ParseSetupCore(b []byte) (SetupCore, error) {
	if len(b) < SetupBaseLen {
		return SetupCore{}, wrong("setup", ErrLength)
	}
	c := fields(b)
	version := c.U8()
	s := SetupCore{Flags: c.U8()}
	n := int(c.U8())
	lanes := c.U8()
	s.Forward, s.Backward = lanes>>4, lanes&15
	s.Path = c.U16()
	c.Zero(2)
	s.Number, s.NotAfter, s.Idle = c.U64(), int64(c.U64()), c.U16()
	c.Zero(6)
	s.PriceCap = c.U64()
	if c.Bad || version != Version || n < MinHops || n > MaxHops || s.Forward < 1 || s.Forward > MaxLanes ||
		s.Backward < 1 || s.Backward > MaxLanes || s.Idle > MaxIdle || s.NotAfter < 0 {
		return SetupCore{}, wrong("setup", ErrValue)
	}
	if len(b) != SetupBaseLen+key.Size*n {
		return SetupCore{}, wrong("setup", ErrLength)
	}
	s.Hops = make([]key.Public, n)
	for i := range s.Hops {
		k, err := key.FromList(c.Take(key.Size))
		if err != nil || slices.Contains(s.Hops[:i], k) {
			return SetupCore{}, wrong("setup", ErrValue)
		}
		s.Hops[i] = k
	}
	c.fill(s.EndHash[:])
	return s, c.end("setup")
}

// PathID names a path at every node on it.
type PathID = [16]byte

// ID is the path id: BLAKE2s-128 of the core, without the signature.
func (s SetupCore) ID() PathID { return hash128(s.Append(nil)) }

// Bind is what the session handshake inside the end part is bound to: BLAKE2s-256 of the core without its last
// 32 bytes, which are the hash of that very handshake message.
func (s SetupCore) Bind() [32]byte {
	b := s.Append(nil)
	return blake2s.Sum256(b[:len(b)-len(s.EndHash)])
}

// HashEnd is the hash of an end part, for EndHash.
func (SetupCore) HashEnd(end []byte) [32]byte { return blake2s.Sum256(end) }

// Source is the first hop.
func (s SetupCore) Source() key.Public { return s.Hops[0] }

// Destination is the last hop.
func (s SetupCore) Destination() key.Public { return s.Hops[len(s.Hops)-1] }

// Setup is a core on its way, with what each hop rewrites and the end part for the destination.
//
//	core 72+32n | signature 64 | index 1 | zero 1 | mtu 2 | backward base 4 | price 8 | end length 2 | end
type Setup struct {
	Core      SetupCore
	Signature [64]byte
	Index     uint8  // place of the receiver in the list
	MTU       uint16 // least so far
	BackBase  uint32 // label base of the sender of this message, for the way back
	Price     uint64 // per MiB, sum so far
	End       []byte // ≤ 256
}

// Type is MessageSetup.
func (Setup) Type() uint8 { return MessageSetup }

// Append adds the body.
func (m Setup) Append(dst []byte) []byte {
	dst = m.Core.Append(dst)
	dst = append(dst, m.Signature[:]...)
	dst = append(dst, m.Index, 0)
	dst = binary.BigEndian.AppendUint16(dst, m.MTU)
	dst = binary.BigEndian.AppendUint32(dst, m.BackBase)
	dst = binary.BigEndian.AppendUint64(dst, m.Price)
	return appendEnd(dst, m.End)
}

// ParseSetup reads a setup. It checks form, not the signature, and not that the end part is the signed one:
// Verify does both.
func ParseSetup(b []byte) (Setup, error) {
	if len(b) < SetupBaseLen {
		return Setup{}, wrong("setup", ErrLength)
	}
	n := int(b[2])
	if n > MaxHops || len(b) < SetupBaseLen+key.Size*n {
		return Setup{}, wrong("setup", ErrLength)
	}
	core, err := ParseSetupCore(b[:SetupBaseLen+key.Size*n])
	if err != nil {
		return Setup{}, err
	}
	c := fields(b[SetupBaseLen+key.Size*n:])
	m := Setup{Core: core}
	c.fill(m.Signature[:])
	m.Index = c.U8()
	c.Zero(1)
	m.MTU, m.BackBase, m.Price = c.U16(), c.U32(), c.U64()
	m.End = c.end256()
	if err := c.end("setup"); err != nil {
		return Setup{}, err
	}
	if m.Index < 1 || int(m.Index) >= n {
		return Setup{}, wrong("setup", ErrValue)
	}
	return m, nil
}

// Sign fills in the hash of the end part and the source's signature; the source is k.
func (m *Setup) Sign(k *key.Private, id key.NetworkID) {
	m.Core.EndHash = m.Core.HashEnd(m.End)
	m.Signature = k.Sign(KindSetup, id, m.Core.Append(nil))
}

// Verify reports whether the source signed the core and the end part is the one signed.
func (m *Setup) Verify(id key.NetworkID) bool {
	want := m.Core.HashEnd(m.End)
	return bytes.Equal(want[:], m.Core.EndHash[:]) &&
		m.Core.Source().Verify(KindSetup, id, m.Core.Append(nil), m.Signature[:])
}

func appendEnd(dst, end []byte) []byte {
	if len(end) > MaxEnd {
		panic("wire: end part above 256 bytes")
	}
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(end))), end...)
}

func (c *cursor) end256() []byte {
	n := int(c.U16())
	if n > MaxEnd {
		c.Bad = true
	}
	return slices.Clone(c.Take(n))
}

func hash128(b []byte) [16]byte {
	h, err := blake2s.New128([]byte("skywire digest 1")) // a 128-bit BLAKE2s needs a key in this library
	if err != nil {
		panic("wire: blake2s: " + err.Error())
	}
	h.Write(b)
	return [16]byte(h.Sum(nil))
}
