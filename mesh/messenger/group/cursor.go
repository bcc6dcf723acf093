package group

import (
	"skywire/mesh/field"
	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// cursor reads the fields of a change or a word; after the first that is missing everything is zero.
type cursor struct{ field.Cursor }

func fields(b []byte) *cursor { return &cursor{field.Cursor{B: b}} }

// count takes the number of entries that follow; 0 if that is too many.
func (c *cursor) count(most int) int {
	n := int(c.U8())
	if n > most {
		c.Bad = true
	}
	if c.Bad {
		return 0
	}
	return n
}

// identity takes a key that is checked in full.
func (c *cursor) identity() key.Public {
	b := c.Take(key.Size)
	if c.Bad {
		return key.Public{}
	}
	k, err := key.FromBytes(b)
	c.Bad = c.Bad || err != nil
	return k
}

// text takes a name.
func (c *cursor) text() string {
	s := string(c.Take(int(c.U8())))
	c.Bad = c.Bad || !envelope.ValidName(s)
	return s
}

func (c *cursor) place(own key.Public) envelope.Place {
	b := c.Take(int(c.U16()))
	if c.Bad {
		return envelope.Place{}
	}
	p, err := envelope.ParsePlace(b, own)
	c.Bad = c.Bad || err != nil
	return p
}
