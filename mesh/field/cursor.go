// Package field reads the fixed-width, big-endian fields that frames, statements, records and envelopes are made of. A
// [Cursor] takes them in order and remembers the first one that was not there, so that a parser checks once, at the end.
// Bytes come from strangers: nothing here panics, whatever they are and whatever a parser asks for.
package field

import "encoding/binary"

// Cursor reads the fields of B in order. After the first that B is too short for, Bad is set for good and every field is
// zero. A parser sets Bad itself for what it does not accept.
type Cursor struct {
	B   []byte // what has not been read; Take's results are parts of it
	Bad bool
}

// zeros is what Take returns in place of a fixed field that is not there: so many zeros as the longest such field, a
// signature, has bytes. Every call has its own, since the caller may write to it.
type zeros [64]byte

// Take returns the next n bytes, a part of B that append can't grow into. If they are not there it returns n zeros, or 64
// if n is greater or below zero: n may be a stranger's word.
func (c *Cursor) Take(n int) []byte {
	if c.Bad || n < 0 || n > len(c.B) {
		c.Bad, c.B = true, nil
		var none zeros
		return none[:min(uint(n), uint(len(none)))]
	}
	v := c.B[:n:n]
	c.B = c.B[n:]
	return v
}

// U8 takes a byte.
func (c *Cursor) U8() uint8 { return c.Take(1)[0] }

// U16 takes two bytes, big-endian as all numbers.
func (c *Cursor) U16() uint16 { return binary.BigEndian.Uint16(c.Take(2)) }

// U32 takes four bytes.
func (c *Cursor) U32() uint32 { return binary.BigEndian.Uint32(c.Take(4)) }

// U64 takes eight bytes.
func (c *Cursor) U64() uint64 { return binary.BigEndian.Uint64(c.Take(8)) }

// MaxUnix is the end of the year 9999, in seconds since 1970.
const MaxUnix = 253402300799

// Unix takes a time in seconds since 1970, of eight bytes; those past MaxUnix are not accepted, so that sums can't overflow.
func (c *Cursor) Unix() int64 {
	v := c.U64()
	if v > MaxUnix {
		c.Bad = true
		return 0
	}
	return int64(v)
}

// Zero takes n bytes that must be zero.
func (c *Cursor) Zero(n int) {
	for _, v := range c.Take(n) {
		c.Bad = c.Bad || v != 0
	}
}

// Done tells whether all was there, was accepted, and is used up.
func (c *Cursor) Done() bool { return !c.Bad && len(c.B) == 0 }
