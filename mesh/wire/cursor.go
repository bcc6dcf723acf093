package wire

import (
	"encoding/binary"
	"slices"
)

// cursor reads fields in order; after the first short read everything is zero and bad stays set.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || len(c.b) < n {
		c.bad = true
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() uint8 {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if v := c.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if v := c.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// zero takes n bytes that must be zero.
func (c *cursor) zero(n int) {
	for _, v := range c.take(n) {
		if v != 0 {
			c.bad = true
		}
	}
}

func (c *cursor) fill(dst []byte) { copy(dst, c.take(len(dst))) }

// rest copies all that is left.
func (c *cursor) rest() []byte { return slices.Clone(c.take(len(c.b))) }

// end is the error of a message that must be used up.
func (c *cursor) end(what string) error {
	if c.bad || len(c.b) != 0 {
		return wrong(what, ErrLength)
	}
	return nil
}

func appendZero(dst []byte, n int) []byte {
	for range n {
		dst = append(dst, 0)
	}
	return dst
}
