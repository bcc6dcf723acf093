package wss

import "encoding/binary"

// The frame of RFC 6455, section 5.2:
//
//	fin 1 bit | zero 3 | opcode 4 | masked 1 bit | length 7 | longer length 0, 2 or 8 | key 0 or 4 | payload
//
// A client masks what it sends, a server does not.

// Opcodes.
const (
	opContinue = 0
	opText     = 1
	opBinary   = 2
	opClose    = 8
	opPing     = 9
	opPong     = 10
)

const (
	// maxHeader is the longest header of a frame.
	maxHeader = 14
	// maxControl is the longest payload of a close, ping or pong.
	maxControl = 125
)

// Header is the head of a frame.
type Header struct {
	Opcode byte
	Final  bool
	Masked bool
	Key    [4]byte
	Length int64
}

// Append adds the header in the shortest form.
func (h Header) Append(dst []byte) []byte {
	first := h.Opcode
	if h.Final {
		first |= 0x80
	}
	masked := byte(0)
	if h.Masked {
		masked = 0x80
	}
	switch {
	case h.Length <= maxControl:
		dst = append(dst, first, masked|byte(h.Length))
	case h.Length <= 0xffff:
		dst = binary.BigEndian.AppendUint16(append(dst, first, masked|126), uint16(h.Length))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, first, masked|127), uint64(h.Length))
	}
	if h.Masked {
		dst = append(dst, h.Key[:]...)
	}
	return dst
}

// ParseHeader reads a header and returns how many bytes it is; 0: b does not hold all of it yet.
func ParseHeader(b []byte) (Header, int, error) {
	if len(b) < 2 {
		return Header{}, 0, nil
	}
	h := Header{Opcode: b[0] & 15, Final: b[0]&0x80 != 0, Masked: b[1]&0x80 != 0, Length: int64(b[1] & 0x7f)}
	if b[0]&0x70 != 0 || h.Opcode > opBinary && h.Opcode < opClose || h.Opcode > opPong {
		return Header{}, 0, ErrFrame
	}
	n := 2
	switch h.Length {
	case 126:
		n = 4
	case 127:
		n = 10
	}
	if h.Opcode >= opClose && (n > 2 || !h.Final) {
		return Header{}, 0, ErrFrame
	}
	need := n
	if h.Masked {
		need += len(h.Key)
	}
	if len(b) < need {
		return Header{}, 0, nil
	}
	switch n {
	case 4:
		h.Length = int64(binary.BigEndian.Uint16(b[2:]))
	case 10:
		h.Length = int64(binary.BigEndian.Uint64(b[2:]))
	}
	if h.Length < 0 || n == 4 && h.Length < 126 || n == 10 && h.Length <= 0xffff {
		return Header{}, 0, ErrFrame // the shortest form is a must
	}
	if h.Masked {
		copy(h.Key[:], b[n:])
	}
	return h, need, nil
}

// mask turns payload over or back; at is its place in the frame.
func mask(b []byte, key [4]byte, at int64) {
	var k [8]byte
	for i := range k {
		k[i] = key[(at+int64(i))&3]
	}
	word := binary.LittleEndian.Uint64(k[:])
	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^word)
		b = b[8:]
	}
	for i := range b {
		b[i] ^= k[i]
	}
}
