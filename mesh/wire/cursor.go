package wire

import (
	"slices"

	"skywire/mesh/field"
)

// cursor reads the fields of a frame; after the first that is missing everything is zero.
type cursor struct{ field.Cursor }

func fields(b []byte) cursor { return cursor{field.Cursor{B: b}} }

func (c *cursor) fill(dst []byte) { copy(dst, c.Take(len(dst))) }

// rest copies all that is left.
func (c *cursor) rest() []byte { return slices.Clone(c.Take(len(c.B))) }

// end is the error of a message that must be used up.
func (c *cursor) end(what string) error {
	if !c.Done() {
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
