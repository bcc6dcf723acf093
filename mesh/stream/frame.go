package stream

import (
	"encoding/binary"
	"fmt"
	"io"

	"skywire/signal"
)

// A stream opens with an Open and is answered by an Answer; behind each come the bytes of the program.
//
//	open:    length u16 | packets u1 · service length u7 | service | header
//	answer:  length u16 | 0 u8 | reply
//	         length u16 | 1 u8 | code i32 | name length u8 | name | message      refused; nothing follows
//
// length counts what comes behind it. All numbers are big endian. packets 1: a flow of packets is wanted, see flow.go; who does
// not know of these takes it for a name that is too long.

// openPackets is the bit that asks for a flow.
const openPackets = 0x80

// Open is the first frame of a stream.
type Open struct {
	Service string
	Header  []byte
	Packets bool
}

// Append appends the frame to dst.
func (o Open) Append(dst []byte) ([]byte, error) {
	if len(o.Service) == 0 || len(o.Service) > maxService || len(o.Header) > maxHeader {
		return dst, ErrHeader
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(1+len(o.Service)+len(o.Header)))
	n := byte(len(o.Service))
	if o.Packets {
		n |= openPackets
	}
	dst = append(dst, n)
	dst = append(dst, o.Service...)
	return append(dst, o.Header...), nil
}

// ParseOpen parses what follows the length. It copies.
func ParseOpen(b []byte) (Open, error) {
	if len(b) < 2 {
		return Open{}, fmt.Errorf("open: %d bytes: %w", len(b), ErrFrame)
	}
	n := int(b[0] &^ openPackets)
	if n == 0 || n > maxService || len(b) < 1+n || len(b)-1-n > maxHeader {
		return Open{}, fmt.Errorf("open: service of %d bytes in %d: %w", n, len(b), ErrFrame)
	}
	return Open{
		Service: string(b[1 : 1+n]), Header: append([]byte(nil), b[1+n:]...), Packets: b[0]&openPackets != 0,
	}, nil
}

// Answer is the frame that comes back: a reply, or why not.
type Answer struct {
	Refusal *signal.Error // nil: taken
	Reply   []byte
}

// Append appends the frame to dst. The texts of a refusal are cut to what fits.
func (a Answer) Append(dst []byte) ([]byte, error) {
	if a.Refusal == nil {
		if len(a.Reply) > maxHeader {
			return dst, ErrHeader
		}
		dst = binary.BigEndian.AppendUint16(dst, uint16(1+len(a.Reply)))
		return append(append(dst, 0), a.Reply...), nil
	}
	name := a.Refusal.Name[:min(len(a.Refusal.Name), 255)]
	text := a.Refusal.Message[:min(len(a.Refusal.Message), maxHeader-512)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(1+4+1+len(name)+len(text)))
	dst = append(dst, 1)
	dst = binary.BigEndian.AppendUint32(dst, uint32(int32(a.Refusal.Code)))
	dst = append(dst, byte(len(name)))
	return append(append(dst, name...), text...), nil
}

// ParseAnswer parses what follows the length. It copies.
func ParseAnswer(b []byte) (Answer, error) {
	switch {
	case len(b) >= 1 && b[0] == 0 && len(b)-1 <= maxHeader:
		return Answer{Reply: append([]byte(nil), b[1:]...)}, nil
	case len(b) >= 6 && b[0] == 1 && len(b) >= 6+int(b[5]) && len(b) <= maxHeader:
		n := int(b[5])
		return Answer{Refusal: &signal.Error{
			Code:    int(int32(binary.BigEndian.Uint32(b[1:]))),
			Name:    signal.Printable(string(b[6:6+n]), ""), // both reach terminals
			Message: signal.Printable(string(b[6+n:]), ""),
		}}, nil
	}
	return Answer{}, fmt.Errorf("answer: %d bytes: %w", len(b), ErrFrame)
}

// readFrame reads a length and what it counts, never more.
func readFrame(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n == 0 || n > 1+maxService+maxHeader {
		return nil, fmt.Errorf("frame of %d bytes: %w", n, ErrFrame)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	return b, nil
}
