package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A netlink attribute is length 2 | type 2 | value, in the byte order of the machine and padded to 4; the length does
// not count the padding. Values of nf_tables are big endian.
const attrHeader = 4

func appendAttr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, padding(len(value)))...)
}

func padding(n int) int { return -n & 3 }

func appendNested(b []byte, kind uint16, value []byte) []byte {
	return appendAttr(b, kind|unix.NLA_F_NESTED, value)
}

func appendString(b []byte, kind uint16, s string) []byte {
	return appendAttr(b, kind, append([]byte(s), 0))
}

func append32(b []byte, kind uint16, v uint32) []byte {
	return appendAttr(b, kind, binary.BigEndian.AppendUint32(nil, v))
}

func append64(b []byte, kind uint16, v uint64) []byte {
	return appendAttr(b, kind, binary.BigEndian.AppendUint64(nil, v))
}

// nextAttr cuts the first attribute off b. It returns ok false at the end, and where b is no attribute.
func nextAttr(b []byte) (kind uint16, value, rest []byte, ok bool) {
	if len(b) < attrHeader {
		return 0, nil, nil, false
	}
	length := int(binary.NativeEndian.Uint16(b))
	if length < attrHeader || length > len(b) {
		return 0, nil, nil, false
	}
	kind = binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	return kind, b[attrHeader:length], b[min(length+padding(length), len(b)):], true
}

// text is the string of an attribute, which ends with a zero.
func text(value []byte) string {
	for i, c := range value {
		if c == 0 {
			return string(value[:i])
		}
	}
	return string(value)
}

// number is the 32-bit value of an attribute, 0 if it has another size.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
