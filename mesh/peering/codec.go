package peering

import (
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/netip"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// cursor reads fields in order; after the first short read everything is zero and bad stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || len(c.b) < n {
		c.bad = true
		return make([]byte, max(n, 0))
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8   { return c.take(1)[0] }
func (c *cursor) u16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) u64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }

// key takes a key, which may be the zero key if optional.
func (c *cursor) key(optional bool) key.Public {
	b := c.take(key.Size)
	if c.bad {
		return key.Public{}
	}
	if optional && key.Public(b).IsZero() {
		return key.Public{}
	}
	k, err := key.FromBytes(b)
	c.bad = c.bad || err != nil
	return k
}

// unix takes a time in seconds; those past the year 9999 are refused, so that sums can't overflow.
func (c *cursor) unix() int64 {
	v := c.u64()
	c.bad = c.bad || v > maxUnix
	return int64(v)
}

// maxUnix is the end of the year 9999.
const maxUnix = 253402300799

// text takes a length and so many printable letters.
func (c *cursor) text(most int) string {
	n := int(c.u8())
	if n > most {
		c.bad = true
		return ""
	}
	s := string(c.take(n))
	for _, b := range []byte(s) {
		c.bad = c.bad || b <= ' ' || b >= 127
	}
	return s
}

// name takes a text that is a label of a host name, or nothing if optional.
func (c *cursor) name(optional bool) string {
	s := c.text(member.MaxName)
	c.bad = c.bad || !member.ValidName(s) && (s != "" || !optional)
	return s
}

// bytes takes a length of 2 and so many bytes.
func (c *cursor) bytes(most int) []byte {
	n := int(c.u16())
	if n > most {
		c.bad = true
		return nil
	}
	return append([]byte(nil), c.take(n)...)
}

// prefix takes a length, 4 or 16 bytes of an address and a number of bits.
func (c *cursor) prefix() netip.Prefix {
	n := int(c.u8())
	if n == 0 {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(c.take(n))
	bits := int(c.u8())
	p := netip.PrefixFrom(a, bits)
	if !ok || a.Is4In6() || !p.IsValid() || p.Masked() != p {
		c.bad = true
		return netip.Prefix{}
	}
	return p
}

// end is the error of what must be used up.
func (c *cursor) end(what string) error {
	if c.bad || len(c.b) != 0 {
		return fmt.Errorf("%s: %w", what, ErrFormat)
	}
	return nil
}

func appendText(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }

func appendBytes(dst, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(b))), b...)
}

func appendPrefix(dst []byte, p netip.Prefix) []byte {
	if !p.IsValid() {
		return append(dst, 0)
	}
	a := p.Addr().AsSlice()
	return append(append(append(dst, byte(len(a))), a...), byte(p.Bits()))
}

// letters is the alphabet of keys: what a QR code and a telephone carry alike.
func letters() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}
