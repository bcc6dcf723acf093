package messenger

import (
	"encoding/binary"
	"os"

	"skywire/mesh/messenger/envelope"
)

// unqueue takes the chunks of a file out of the queue: they are asked for anew, or not wanted.
func (c *core) unqueue(t *transfer) {
	d := c.devices[t.rec.Device]
	if d == nil {
		return
	}
	o := &d.out[streamBulk]
	for _, e := range c.db.list(bQueue, itemKey(d.number, streamBulk, o.Floor), itemKey(d.number, streamBulk, o.Next), 1<<20, false) {
		if len(e.value) == 17 && e.value[0] == queuedChunk && unbe64(e.value[1:]) == t.no {
			c.drop(bQueue, e.key)
		}
	}
	c.settle(d, streamBulk)
}

// feed queues more chunks of a file that goes.
func (c *core) feed(t *transfer) {
	d := c.devices[t.rec.Device]
	if d == nil || t.over() {
		return
	}
	for t.rec.Queued < feed && len(t.rec.Spans) > 0 {
		s := &t.rec.Spans[0]
		c.enqueue(d, streamBulk, append(append([]byte{queuedChunk}, be64(t.no)...), be64(uint64(s.A))...))
		t.rec.Queued++
		if s.A++; s.A == s.B {
			t.rec.Spans = t.rec.Spans[1:]
		}
	}
	c.saveFile(t)
}

// chunk reads one of a file that goes.
func (c *core) chunk(v []byte) *envelope.Item {
	if len(v) != 17 {
		return nil
	}
	t := c.files[unbe64(v[1:])]
	n := uint32(unbe64(v[9:]))
	if t == nil || t.over() || n >= t.chunks() {
		return nil
	}
	b := make([]byte, 20+min(chunkLen, t.rec.Size-int64(n)*chunkLen))
	copy(b, t.rec.ID[:])
	binary.BigEndian.PutUint32(b[16:], n)
	if err := t.read(b[20:], int64(n)*chunkLen); err != nil {
		c.sayFile(t, fileCancel, nil)
		c.endFile(t, FileFailed, err.Error())
		return nil
	}
	return &envelope.Item{Kind: envelope.KindChunk, Time: c.now.UnixMilli(), Body: b}
}

func (t *transfer) read(b []byte, at int64) (err error) {
	if t.file == nil {
		if t.file, err = os.Open(t.rec.Path); err != nil {
			return err
		}
	}
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != t.rec.Size || info.ModTime().UnixNano() != t.rec.Changed {
		return ErrFileChanged
	}
	_, err = t.file.ReadAt(b, at)
	return err
}

// chunkArrived is told of a chunk that the other side has.
func (c *core) chunkArrived(no, _ uint64) {
	t := c.files[no]
	if t == nil || t.over() {
		return
	}
	t.rec.Queued -= min(t.rec.Queued, 1)
	t.rec.Acked++
	if t.rec.Queued < feed/2 && len(t.rec.Spans) > 0 {
		c.feed(t)
	}
	if t.rec.Queued == 0 {
		t.close() // until more is asked for
	}
}

// shownFile is what people see of a transfer.
func (c *core) shownFile(t *transfer) File {
	f := t.shown()
	d := c.devices[t.rec.Device]
	if !t.rec.Out || t.rec.State != FileMoving || d == nil || d.link != nil && d.link.up {
		return f
	}
	o := &d.out[streamBulk]
	for _, e := range c.db.list(bQueue, itemKey(d.number, streamBulk, o.Floor), itemKey(d.number, streamBulk, max(o.Floor, o.Boxed)), sendWindow, false) {
		if len(e.value) == 17 && e.value[0] == queuedChunk && unbe64(e.value[1:]) == t.no {
			f.Stored += min(chunkLen, t.rec.Size-int64(unbe64(e.value[9:]))*chunkLen)
		}
	}
	switch {
	case f.Stored == 0:
		f.Reason = "they are away, and no mailbox has any of it"
	case f.Done+f.Stored < f.Size:
		f.Reason = "a mailbox has some of it; more goes there when they have come for that"
	default:
		f.Reason = "a mailbox has the rest of it until they come"
	}
	return f
}
