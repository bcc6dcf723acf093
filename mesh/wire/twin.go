package wire

import (
	"encoding/binary"
	"net/netip"
)

// Twin tells a neighbour that another box runs its key: two starts of it come in turn. Nothing answers it.
//
//	boot 8 | address 16 | port 2
type Twin struct {
	Boot uint64         // of the other box
	Seen netip.AddrPort // where the other box is; invalid if that is not known
}

// Type is MessageTwin.
func (Twin) Type() uint8 { return MessageTwin }

// Append adds the body.
func (m Twin) Append(dst []byte) []byte {
	return AppendEndpoint(binary.BigEndian.AppendUint64(dst, m.Boot), m.Seen)
}

// ParseTwin reads a twin.
func ParseTwin(b []byte) (Twin, error) {
	c := fields(b)
	m := Twin{Boot: c.U64(), Seen: c.endpoint()}
	return m, c.end("twin")
}
