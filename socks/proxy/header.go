package proxy

import (
	"encoding/binary"
	"fmt"

	"skywire/socks"
)

// headerVersion is the only one there is. An exit refuses others, so a client learns it in the same round trip.
const headerVersion = 1

// Header opens a stream to an exit:
//
//	0         1         3         4           4+n
//	+---------+---------+---------+-----------+- - - - - - - - - - - - - - - - -+
//	| version | port    | n       | host      | bytes sent ahead, to the end    |
//	+---------+---------+---------+-----------+- - - - - - - - - - - - - - - - -+
//
// Host is a name or an address in text form. The bytes sent ahead are what the program wrote before it had an answer; they
// reach the target first.
type Header struct {
	Host  string
	Port  uint16
	First []byte
}

// Append encodes h. A host of more than 255 bytes is cut, so check it with socks.CheckTarget before.
func (h Header) Append(dst []byte) []byte {
	n := min(len(h.Host), 255)
	dst = append(dst, headerVersion)
	dst = binary.BigEndian.AppendUint16(dst, h.Port)
	dst = append(dst, byte(n))
	dst = append(dst, h.Host[:n]...)
	return append(dst, h.First...)
}

// ParseHeader decodes a header. The result shares no memory with b.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < 4 {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrHeader, len(b))
	}
	if b[0] != headerVersion {
		return Header{}, fmt.Errorf("%w: version %d, this exit speaks %d", ErrHeader, b[0], headerVersion)
	}
	h := Header{Port: binary.BigEndian.Uint16(b[1:3])}
	n := int(b[3])
	b = b[4:]
	if n > len(b) || len(b)-n > socks.MaxFirst {
		return Header{}, fmt.Errorf("%w: lengths", ErrHeader)
	}
	h.Host = string(b[:n])
	if err := socks.CheckTarget(h.Host, h.Port); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrHeader, err)
	}
	if len(b) > n {
		h.First = append([]byte(nil), b[n:]...)
	}
	return h, nil
}
