package group

import (
	"encoding/binary"
	"fmt"

	"skywire/mesh/messenger/envelope"
)

// Word is what members say to each other of a roster, in an item of the kind group: which heads they have, and changes.
type Word struct {
	Group      envelope.GroupID
	Generation uint32 // 0: none of it is held
	Heads      []OpID // that the sender has; he wants what they lack
	Ops        [][]byte
	// More tells that the changes go on in the next word: it is answered then.
	More bool
}

// MaxHeads bounds the heads in a word; a log has more only while an attack is on, and then they come by and by.
const MaxHeads = 64

// Append encodes a word:
//
//	version 1 │ more 1 │ group 16 │ generation 4 │ heads 1 │ each 32 │ each change {length 4, bytes}
func (w *Word) Append(dst []byte) []byte {
	dst = append(dst, version, 0)
	if w.More {
		dst[len(dst)-1] = 1
	}
	dst = binary.BigEndian.AppendUint32(append(dst, w.Group[:]...), w.Generation)
	heads := w.Heads[:min(len(w.Heads), MaxHeads)]
	dst = append(dst, byte(len(heads)))
	for _, h := range heads {
		dst = append(dst, h[:]...)
	}
	for _, o := range w.Ops {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(o))), o...)
	}
	return dst
}

// ParseWord decodes a word. The changes are parts of b, and not looked into.
func ParseWord(b []byte) (*Word, error) {
	c := fields(b)
	v, more := c.U8(), c.U8()
	w := &Word{Group: envelope.GroupID(c.Take(16)), Generation: c.U32(), More: more == 1}
	c.Bad = c.Bad || v != version || more > 1 || len(b) > envelope.MaxBody
	for range c.count(MaxHeads) {
		w.Heads = append(w.Heads, OpID(c.Take(32)))
	}
	for !c.Bad && len(c.B) > 0 {
		n := int(c.U32())
		if n == 0 || n > MaxOp || n > len(c.B) {
			c.Bad = true
			break
		}
		w.Ops = append(w.Ops, c.Take(n))
	}
	if c.Bad {
		return nil, fmt.Errorf("group word: %w", ErrFormat)
	}
	return w, nil
}

// Words puts changes into words that fit an item each; there is at least one.
func Words(w Word, ops [][]byte) (all [][]byte) {
	head := len(w.Append(nil))
	size := head
	for _, o := range ops {
		if size+4+len(o) > envelope.MaxBody && len(w.Ops) > 0 {
			w.More = true
			all = append(all, w.Append(nil))
			w.Ops, size, w.More = nil, head, false
		}
		w.Ops = append(w.Ops, o)
		size += 4 + len(o)
	}
	return append(all, w.Append(nil))
}
