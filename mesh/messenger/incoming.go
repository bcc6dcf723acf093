package messenger

import (
	"encoding/binary"
	"errors"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Bounds of what comes early: it waits in the store.
const (
	maxEarly    = 512 << 10 // bytes of one device
	receiptWait = 2 * time.Second
)

// opening is an envelope for us, opened outside the lock.
type opening struct {
	outer  *envelope.Outer
	bits   uint8
	bundle *envelope.Bundle
	err    error
}

// deposit takes an opened envelope for us, by a link.
func (c *core) deposit(l *link, tag uint32, o opening) {
	if l.dead {
		return
	}
	l.used = c.now
	status := byte(takenOK)
	switch {
	case errors.Is(o.err, envelope.ErrPrekey):
		c.count("prekey_gone")
		status = takenPrekey
		c.do(effect{link: l, frame: cardsFrame([][]byte{c.rawCard})})
	case o.err != nil:
		c.count("envelopes_bad")
		status = takenRefused
	default:
		status = c.take(o.bundle, o.bits, l.cards)
	}
	if status == silent {
		return
	}
	if l.dev == nil {
		c.attach(l, c.devices[l.peer])
	}
	c.do(effect{link: l, frame: tagged(opTaken, tag, status)})
	c.flushAll()
}

// silent is the answer that a blocked account gets.
const silent = 255

// flushAll does what the call has made due on any link.
func (c *core) flushAll() {
	c.handOver()
	for l := range c.links {
		if l.pumpDue || l.receiptDue {
			c.flush(l)
		}
	}
}

// take takes a bundle. cards are those that came with it by the same link.
func (c *core) take(b *envelope.Bundle, bits uint8, cards map[key.Public]strangerCard) byte {
	brought := cards[b.Device]
	for i := range b.Items {
		if it := &b.Items[i]; it.Kind == envelope.KindCard && it.Seq == 0 {
			if card, err := envelope.ParseCard(it.Body); err == nil && card.Device == b.Device {
				brought = strangerCard{card, it.Body}
			}
		}
	}
	if b.Stream >= streams || b.Device == c.self {
		c.count("bundles_bad")
		return takenRefused
	}
	if !c.authentic(b, brought) {
		c.count("authority")
		return takenCard
	}
	d := c.devices[b.Device]
	if d == nil || d.account == nil || d.account.key != b.Account {
		v := c.judgeFirst(b, bits)
		if v == Drop && c.book.Standing(b.Account) == Blocked {
			return silent
		}
		if v != Take {
			return [...]byte{Hold: takenLater, Drop: takenRefused}[v]
		}
		d = c.deviceOf(b.Device, c.accountOf(b.Account))
	}
	if brought.card != nil && brought.card.Account == b.Account {
		if _, err := c.admitCard(brought.card, brought.raw, nobody); err != nil {
			c.count("cards_refused")
		}
	}
	return c.takeStream(d, b, bits)
}

// takeStream takes the items of a bundle into its stream.
func (c *core) takeStream(d *device, b *envelope.Bundle, bits uint8) byte {
	in := &d.in[b.Stream]
	c.seen[d.account] = c.now
	if !c.turn(d, b) {
		c.count("epochs_old")
		return takenOK // answered by nothing but this: what it brings has come by another way, or will
	}
	from := Sender{Account: b.Account, Device: b.Device, Own: b.Account == c.account}
	status := byte(takenOK)
	numbered := false
	for i := range b.Items {
		it := &b.Items[i]
		if it.Seq == 0 {
			if it.Kind == envelope.KindReceipt {
				if card, all, err := parseReceipt(it.Body); err == nil {
					c.answered(d, card, all)
				}
			}
			continue
		}
		numbered = true
		v := c.takeItem(d, from, b.Stream, it, bits)
		if v == Hold {
			status = takenLater
			break
		}
		if v == Drop && c.book.Standing(from.Account) == Blocked {
			return silent
		}
	}
	if numbered {
		in.Owed = true
		c.saveIn(d, b.Stream)
		c.owe(d)
	}
	return status
}

// turn brings a stream to the epoch and floor of a bundle; false if the epoch is an old one.
func (c *core) turn(d *device, b *envelope.Bundle) bool {
	in := &d.in[b.Stream]
	if in.Epoch != b.Epoch {
		for _, e := range in.Old {
			if e == b.Epoch {
				return false
			}
		}
		if in.Epoch != 0 {
			in.Old = append(in.Old, in.Epoch)
			in.Old = in.Old[max(0, len(in.Old)-8):]
		}
		for seq := range in.early {
			c.drop(bEarly, itemKey(d.number, b.Stream, seq))
		}
		in.Epoch, in.Upto, in.early, in.bytes, in.Clash, in.Last = b.Epoch, b.Floor-1, nil, 0, false, 0
		return true
	}
	if b.Floor <= in.Upto+1 {
		return true
	}
	// What lies below the floor and has not come will not come.
	from := Sender{Account: b.Account, Device: b.Device, Own: b.Account == c.account}
	for _, e := range c.db.list(bEarly, itemKey(d.number, b.Stream, in.Upto+1), itemKey(d.number, b.Stream, b.Floor), recvWindow, false) {
		c.early(d, from, b.Stream, e)
	}
	in.Upto, in.Last = b.Floor-1, 0
	c.drain(d, from, b.Stream)
	return true
}

// takeItem takes one numbered item.
func (c *core) takeItem(d *device, from Sender, stream uint8, it *envelope.Item, bits uint8) Verdict {
	in := &d.in[stream]
	if it.Seq <= in.Upto || in.early[it.Seq] {
		c.count("duplicates")
		if stream == streamOrdered && it.Seq <= in.Upto && it.Expires > c.now.Unix() && (from.Own || c.book.Standing(from.Account) == Confirmed) {
			if _, ok := c.known(it.ID(from.Account)); !ok {
				in.Clash = true
			}
		}
		return Take
	}
	if in.Clash {
		c.count("clash_waits") // the sender hears of it by our receipt and says this again in its turn, under a new epoch
		return Take
	}
	if it.Seq > in.Upto+recvWindow {
		c.count("too_early")
		return Hold
	}
	if !from.Own {
		if v, why := c.judge(from.Account, it, bits); v != Take {
			if v == Drop {
				c.count("dropped_" + string(why))
				c.refuse(d, it, from, string(why))
				in.Last = 0
				c.advance(d, from, stream, it.Seq)
			}
			return v
		}
	}
	if c.handled[it.Kind] && c.db.kv.Size(bTodo) > c.cfg.Quota/8 {
		c.count("handlers_behind")
		return Hold
	}
	if stream == streamOrdered && it.Seq != in.Upto+1 {
		if in.bytes+len(it.Body) > int(min(maxEarly, c.cfg.Quota/16)) {
			c.count("too_early")
			return Hold
		}
		v := queueItem(it)
		in.note(it.Seq, len(v))
		c.put(bEarly, itemKey(d.number, stream, it.Seq), v)
		return Take
	}
	c.accept(d, from, it)
	if stream == streamOrdered {
		in.Last = beginOf(it.ID(from.Account))
	}
	c.advance(d, from, stream, it.Seq)
	return Take
}

// advance notes that a number is done with.
func (c *core) advance(d *device, from Sender, stream uint8, seq uint64) {
	in := &d.in[stream]
	if seq != in.Upto+1 {
		in.note(seq, 0)
		c.put(bEarly, itemKey(d.number, stream, seq), nil)
		return
	}
	in.Upto = seq
	c.drain(d, from, stream)
}

// drain takes what came early and is next now.
func (c *core) drain(d *device, from Sender, stream uint8) {
	in := &d.in[stream]
	for in.early[in.Upto+1] {
		k := itemKey(d.number, stream, in.Upto+1)
		c.early(d, from, stream, entry{k, c.db.get(bEarly, k)})
		in.Upto++
	}
	if len(in.early) == 0 {
		in.bytes = 0
	}
}

// early takes one that came early; an empty one was taken as it came.
func (c *core) early(d *device, from Sender, stream uint8, e entry) {
	in := &d.in[stream]
	seq := binary.BigEndian.Uint64(e.key[5:])
	delete(in.early, seq)
	in.bytes = max(0, in.bytes-len(e.value))
	c.drop(bEarly, e.key)
	in.Last = 0
	if len(e.value) == 0 {
		return
	}
	it, err := parseQueued(e.value)
	if err != nil {
		c.count("early_unreadable")
		return
	}
	if stream == streamOrdered {
		in.Last = beginOf(it.ID(from.Account))
	}
	c.accept(d, from, &it)
}

// owe makes a receipt due: at once by a link, else when others may have joined it.
func (c *core) owe(d *device) {
	if d.link != nil && d.link.up {
		d.link.receiptDue = true
		return
	}
	if d.owedAt.IsZero() {
		d.owedAt = c.now.Add(receiptWait)
	}
	c.busy[d] = true
}

// answers are what we have of a device.
func (c *core) answers(d *device) (all []answer) {
	for s := range d.in {
		in := &d.in[s]
		if in.Epoch == 0 {
			continue
		}
		a := answer{epoch: in.Epoch, stream: uint8(s), upto: in.Upto, conflict: in.Clash, last: in.Last}
		for seq := range in.early {
			a.set(seq)
		}
		all = append(all, a)
	}
	return all
}

func (c *core) sendReceipt(l *link) {
	d := l.dev
	all := c.answers(d)
	if len(all) == 0 {
		return
	}
	c.do(effect{link: l, frame: append([]byte{opReceipt}, appendReceipt(d.rec.Card, all)...)})
	c.paid(d)
}

// paid notes that a receipt is on its way.
func (c *core) paid(d *device) {
	d.owedAt = time.Time{}
	for s := range d.in {
		if in := &d.in[s]; in.Owed {
			in.Owed = false
			c.later(bIn, streamKey(d.number, uint8(s)), encode(*in))
		}
	}
}
