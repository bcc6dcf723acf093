package messenger

import (
	"encoding/binary"
	"fmt"
	"time"

	"skywire/mesh/messenger/envelope"
)

// Bundles grow with what the link carries in a second: on a slow one a text must not wait behind a big one.
const (
	leastBundle = 8 << 10 // the key of a hybrid box takes 1.1 KiB of it
	firstBundle = 8 << 10
	mostBundle  = 56 << 10
	mostWindow  = 1 << 20 // bytes sent and not answered
)

// enqueue gives something the next number of a device's stream.
func (c *core) enqueue(d *device, stream uint8, v []byte) {
	o := &d.out[stream]
	c.put(bQueue, itemKey(d.number, stream, o.Next), v)
	o.Next++
	c.saveOut(d, stream)
	c.busy[d] = true
	if d.link != nil && d.link.up {
		d.link.pumpDue = true
	}
}

// say sends an item that stands in no history to all devices of an account that are known, or to the first that will be.
func (c *core) say(a *account, kind envelope.Kind, body []byte, group envelope.GroupID, life time.Duration) MessageID {
	it := &envelope.Item{Kind: kind, Time: c.unixMilli(), Expires: c.now.Add(life).Unix(), Group: group, Body: body}
	c.saveNumbers()
	c.toAccount(a, queueItem(it))
	return it.ID(c.account)
}

func (c *core) toAccount(a *account, v []byte) {
	known := false
	for _, d := range a.devices {
		if d.key != c.self && c.speaks(a, d.key) {
			c.enqueue(d, streamOrdered, v)
			known = true
		}
	}
	if !known {
		c.put(bWait, append(be32(a.number), be64(c.number())...), v)
		a.waiting = true
	}
}

// sayTo sends to one device.
func (c *core) sayTo(d *device, kind envelope.Kind, body []byte, life time.Duration) {
	it := &envelope.Item{Kind: kind, Time: c.unixMilli(), Expires: c.now.Add(life).Unix(), Body: body}
	c.saveNumbers()
	c.enqueue(d, streamOrdered, queueItem(it))
}

// item makes what a queue's entry stands for; nil if it is not to be sent any more.
func (c *core) item(v []byte) *envelope.Item {
	if len(v) == 0 {
		return nil
	}
	switch v[0] {
	case queuedItem:
		it, err := parseQueued(v)
		if err != nil || it.Expires != 0 && it.Expires <= c.now.Unix() {
			return nil
		}
		return &it
	case queuedChunk:
		return c.chunk(v)
	case queuedMessage, queuedCopy:
		if len(v) != 9 {
			return nil
		}
		m := c.record(binary.BigEndian.Uint64(v[1:]))
		if m == nil {
			return nil
		}
		if v[0] == queuedCopy {
			return c.copyItem(m)
		}
		if m.state == Failed || m.expires <= c.now.Unix() {
			return nil
		}
		return &envelope.Item{Kind: m.kind, Time: m.time, Expires: m.expires, Group: m.group, Body: m.body}
	}
	return nil
}

// bundle makes the next one of a stream from number from on, of at most most bytes: its items, and the number after the last.
// Entries that are to be sent no more are dropped on the way.
func (c *core) bundle(d *device, stream uint8, from uint64, most int) (items []envelope.Item, next uint64) {
	o := &d.out[stream]
	end := min(o.Next, o.Floor+sendWindow)
	size := 0
	next = from
	for next < end && len(items) < envelope.MaxItems-2 {
		page := c.db.list(bQueue, itemKey(d.number, stream, next), itemKey(d.number, stream, end), 64, false)
		if len(page) == 0 {
			next = end
			break
		}
		for _, e := range page {
			seq := binary.BigEndian.Uint64(e.key[5:])
			it := c.item(e.value)
			if it == nil {
				c.giveUp(d, stream, seq, e.value)
				next = seq + 1
				continue
			}
			if !c.allowed(d, it) {
				c.settle(d, stream)
				return items, seq
			}
			n := envelope.ItemOverhead + len(it.Body)
			if len(items) > 0 && size+n > most || len(items) >= envelope.MaxItems-2 {
				c.settle(d, stream)
				return items, seq
			}
			it.Seq = seq
			items, size, next = append(items, *it), size+n, seq+1
		}
	}
	c.settle(d, stream)
	return items, next
}

// giveUp drops an entry that is over.
func (c *core) giveUp(d *device, stream uint8, seq uint64, v []byte) {
	c.drop(bQueue, itemKey(d.number, stream, seq))
	if len(v) == 9 && v[0] == queuedMessage {
		if m := c.record(binary.BigEndian.Uint64(v[1:])); m != nil {
			c.reached(m, d.account, Failed, "expired before a device of theirs was met")
		}
	}
}

// settle moves the floor up to the lowest entry that is left.
func (c *core) settle(d *device, stream uint8) {
	o := &d.out[stream]
	was := o.Floor
	if left := c.db.list(bQueue, itemKey(d.number, stream, o.Floor), itemKey(d.number, stream, o.Next), 1, false); len(left) > 0 {
		o.Floor = binary.BigEndian.Uint64(left[0].key[5:])
	} else {
		o.Floor = o.Next
	}
	if o.Floor != was {
		o.cursor, o.Boxed = max(o.cursor, o.Floor), max(o.Boxed, o.Floor)
		if o.Floor == o.Next {
			o.Until, o.Again, o.Tries, o.Where = 0, 0, 0, [32]byte{}
		}
		c.later(bOut, streamKey(d.number, stream), encode(*o))
	}
}

// seal puts items into an envelope for a device. Receipts and a newer card of ours travel with them.
func (c *core) seal(d *device, stream uint8, items []envelope.Item) ([]byte, error) {
	card := c.cardOf(d)
	if card == nil {
		return nil, fmt.Errorf("%s: %w", d.key.Short(), envelope.ErrNoPrekey)
	}
	o := &d.out[stream]
	b := &envelope.Bundle{
		Account: c.account, Device: c.self, To: d.key, Card: c.card.Number, Epoch: o.Epoch, Stream: stream, Floor: o.Floor,
	}
	if d.rec.Acked < c.card.Number && (d.link == nil || !d.link.up) {
		b.Items = append(b.Items, envelope.Item{Kind: envelope.KindCard, Time: c.now.UnixMilli(), Body: c.rawCard})
	}
	b.Items = append(b.Items, items...)
	var expires int64
	for i := range items {
		if expires = max(expires, items[i].Expires); items[i].Expires == 0 {
			expires = 0
			break
		}
	}
	p, err := card.Pick(c.now.Unix(), b)
	if err != nil {
		return nil, err
	}
	raw, err := envelope.Seal(b, c.cfg.Key, p, envelope.SealOptions{Expires: expires})
	if err != nil {
		return nil, err
	}
	c.count("sealed")
	return raw, nil
}

// stampFor is how many bits of work the device wants of us: none once its account knows us.
func (c *core) stampFor(d *device) uint8 {
	if d.account == nil || d.account.key == c.account || c.book.Standing(d.account.key) == Confirmed {
		return 0
	}
	card := c.cardOf(d)
	if card == nil || card.Stamp == envelope.StrangersClosed || card.Stamp > envelope.MaxStamp {
		return 0
	}
	return card.Stamp
}

// allowed tells whether an item may go to a device now; else it and what is behind it wait.
func (c *core) allowed(d *device, it *envelope.Item) bool {
	if d.account == nil {
		return false
	}
	if d.account.key == c.account {
		return true
	}
	err := c.book.MaySend(d.account.key)
	if ofGroup(it) {
		err = c.book.MaySendGroup(d.account.key)
	}
	if err == nil {
		return true
	}
	if s := c.book.Standing(d.account.key); s == Blocked || s == Changed {
		return false
	}
	switch it.Kind {
	case envelope.KindContact, envelope.KindKeyChange, envelope.KindReceipt, envelope.KindCard:
		return true // between those who are not yet, or no longer, contacts
	}
	return false
}

// answered takes what a device says it has of us.
func (c *core) answered(d *device, card uint64, all []answer) {
	if card > d.rec.Acked && card <= c.card.Number {
		d.rec.Acked = card
		c.later(bDev, be32(d.number), encode(d.rec))
	}
	for i := range all {
		a := &all[i]
		if a.stream >= streams || a.epoch != d.out[a.stream].Epoch {
			continue
		}
		o := &d.out[a.stream]
		if a.conflict || a.highest() >= o.Next || c.another(d, a) {
			c.forgot(d, a.stream)
			continue
		}
		moved := false
		for from := o.Floor; from < o.Next; {
			page := c.db.list(bQueue, itemKey(d.number, a.stream, from), itemKey(d.number, a.stream, min(o.Next, a.highest()+1)), 256, false)
			for _, e := range page {
				seq := binary.BigEndian.Uint64(e.key[5:])
				from = seq + 1
				if a.has(seq) {
					c.arrived(d, a.stream, e)
					moved = true
				}
			}
			if len(page) < 256 {
				break
			}
		}
		if moved && a.stream == streamBulk {
			c.boxEmptied(d)
		}
		if moved {
			c.settle(d, a.stream)
			c.change()
		}
	}
}

// another tells whether the last item that the other side has is not the one that we gave its number to.
func (c *core) another(d *device, a *answer) bool {
	if a.last == 0 || a.upto < d.out[a.stream].Floor {
		return false
	}
	v := c.db.get(bQueue, itemKey(d.number, a.stream, a.upto))
	if v == nil {
		return false
	}
	it := c.item(v)
	return it != nil && beginOf(it.ID(c.account)) != a.last
}

// beginOf is the part of an id that receipts carry.
func beginOf(id MessageID) uint64 { return binary.BigEndian.Uint64(id[:]) }

func (c *core) arrived(d *device, stream uint8, e entry) {
	c.drop(bQueue, e.key)
	c.count("answered")
	switch {
	case len(e.value) == 9 && e.value[0] == queuedMessage:
		if m := c.record(binary.BigEndian.Uint64(e.value[1:])); m != nil {
			c.reached(m, d.account, Delivered, "")
		}
	case len(e.value) == 17 && e.value[0] == queuedChunk:
		c.chunkArrived(binary.BigEndian.Uint64(e.value[1:]), binary.BigEndian.Uint64(e.value[9:]))
	}
}

// forgot begins a new epoch: the other side has numbers that we do not know to have given. What is not answered is sent again
// under it; by its id the other side knows what it has.
func (c *core) forgot(d *device, stream uint8) {
	o := &d.out[stream]
	c.count("epochs")
	if c.log != nil {
		c.log.Warn("messenger lost its memory of numbers", "to", d.key.Short(), "type", stream)
	}
	left := c.db.list(bQueue, itemKey(d.number, stream, 0), itemKey(d.number, stream, 1<<63), 1<<20, false)
	for _, e := range left {
		c.db.delete(bQueue, e.key)
	}
	*o = outStream{Epoch: c.epoch(), Next: 1, Floor: 1, Boxed: 1, cursor: 1}
	for _, e := range left {
		c.put(bQueue, itemKey(d.number, stream, o.Next), e.value)
		o.Next++
	}
	c.saveOut(d, stream)
	if d.link != nil {
		d.link.pumpDue = true
	}
}
