package session

import (
	"encoding/binary"

	"github.com/dchest/siphash"

	"skywire/mesh/wire"
)

// HopKey authenticates headers on one link in one direction.
type HopKey [16]byte

// Tag is SipHash-2-4 over the first 16 bytes of header as sent, the whole datagram's length, and six zero bytes.
// The header must have at least 16 bytes.
func (k *HopKey) Tag(header []byte, length int) uint64 {
	var b [24]byte
	copy(b[:16], header[:wire.TaggedLen])
	binary.BigEndian.PutUint16(b[16:], uint16(length))
	return siphash.Hash(binary.LittleEndian.Uint64(k[:]), binary.LittleEndian.Uint64(k[8:]), b[:])
}
