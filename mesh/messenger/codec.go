package messenger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"skywire/mesh/field"
	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// reader takes the fields of what stands in the store and of what is said on links; after the first that is missing everything is zero.
type reader struct{ field.Cursor }

func fields(b []byte) *reader { return &reader{field.Cursor{B: b}} }

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.B)
	if r.Bad || n <= 0 {
		r.Bad, r.B = true, nil
		return 0
	}
	r.B = r.B[n:]
	return v
}

// bytes takes a length and so many bytes.
func (r *reader) bytes(most int) []byte {
	n := r.uvarint()
	if n > uint64(most) {
		r.Bad = true
		return nil
	}
	return r.Take(int(n))
}

// public takes a key that is only compared.
func (r *reader) public() (k key.Public) {
	copy(k[:], r.Take(key.Size))
	return k
}

func (r *reader) group() (g envelope.GroupID) {
	copy(g[:], r.Take(len(g)))
	return g
}

func (r *reader) end(what string) error {
	if !r.Done() {
		return fmt.Errorf("%s: %w", what, ErrFormat)
	}
	return nil
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func unbe64(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

func be64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// streamKey is device 4 │ stream 1.
func streamKey(dev uint32, stream uint8) []byte { return append(be32(dev), stream) }

// itemKey is device 4 │ stream 1 │ number 8.
func itemKey(dev uint32, stream uint8, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(streamKey(dev, stream), seq)
}

// after is the first key behind all that begin with prefix.
func after(prefix []byte) []byte {
	b := append([]byte{}, prefix...)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return b[:i+1]
		}
	}
	return nil
}

// target is one account that a message of ours goes to.
type target struct {
	account uint32
	state   State
}

// record is a message in the store.
type record struct {
	no      uint64
	id      MessageID
	account uint32
	device  uint32 // 0: this one, or not known
	flags   uint8
	kind    envelope.Kind
	group   envelope.GroupID
	time    int64 // unix milliseconds
	stored  int64
	since   int64
	expires int64 // unix seconds
	state   State
	reason  string
	targets []target
	body    []byte
}

const (
	flagOut = 1 << iota
	flagCopied
	flagSeen
)

func (m *record) out() bool { return m.flags&flagOut != 0 }

// maxTargets is what a group may have.
const maxTargets = 64

func (m *record) append(dst []byte) []byte {
	dst = append(append(dst, 1), m.id[:]...)
	dst = binary.BigEndian.AppendUint32(dst, m.account)
	dst = binary.BigEndian.AppendUint32(dst, m.device)
	dst = append(dst, m.flags, byte(m.kind))
	dst = append(dst, m.group[:]...)
	for _, v := range [...]int64{m.time, m.stored, m.since, m.expires} {
		dst = binary.AppendUvarint(dst, uint64(v))
	}
	dst = appendBytes(append(dst, byte(m.state)), []byte(m.reason))
	dst = append(dst, byte(len(m.targets)))
	for _, t := range m.targets {
		dst = append(binary.BigEndian.AppendUint32(dst, t.account), byte(t.state))
	}
	return appendBytes(dst, m.body)
}

func parseRecord(no uint64, b []byte) (*record, error) {
	r := fields(b)
	m := &record{no: no}
	r.Bad = r.U8() != 1
	copy(m.id[:], r.Take(len(m.id)))
	m.account, m.device = r.U32(), r.U32()
	m.flags, m.kind, m.group = r.U8(), envelope.Kind(r.U8()), r.group()
	m.time, m.stored, m.since, m.expires = int64(r.uvarint()), int64(r.uvarint()), int64(r.uvarint()), int64(r.uvarint())
	m.state, m.reason = State(r.U8()), string(r.bytes(512))
	for range min(int(r.U8()), maxTargets) {
		m.targets = append(m.targets, target{r.U32(), State(r.U8())})
	}
	m.body = r.bytes(envelope.MaxBody)
	return m, r.end("message")
}

// Kinds of what stands in a queue.
const (
	queuedMessage = 1 // no 8: an entry of the history
	queuedCopy    = 2 // no 8: the same for a sibling
	queuedItem    = 3 // kind 1, time 8, expires 8, group 16, body
	queuedChunk   = 4 // file 8, offset 8
)

func queueItem(it *envelope.Item) []byte {
	b := append([]byte{queuedItem}, byte(it.Kind))
	b = binary.BigEndian.AppendUint64(b, uint64(it.Time))
	b = binary.BigEndian.AppendUint64(b, uint64(it.Expires))
	return append(append(b, it.Group[:]...), it.Body...)
}

func parseQueued(b []byte) (it envelope.Item, err error) {
	r := fields(b)
	r.Bad = r.U8() != queuedItem
	it = envelope.Item{Kind: envelope.Kind(r.U8()), Time: int64(r.U64()), Expires: int64(r.U64()), Group: r.group()}
	it.Body = r.Take(len(r.B))
	return it, r.end("queued item")
}

// idKey hides an id: the key of an entry lies open in the store, and a guess of a text must not be proved by it.
func (c *core) idKey(id MessageID) []byte {
	h := sha256.New()
	h.Write(c.cfg.Salt[:])
	h.Write(id[:])
	return h.Sum(nil)[:16]
}
