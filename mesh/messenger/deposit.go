package messenger

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

const (
	// viaPause is how long a mailbox that refused is left alone.
	viaPause = 10 * time.Minute
	// chunksKept is how much of files lies at mailboxes for one device at a time; more follows when it has come for that. With what
	// seals them it is less than the share of a depositor in the smallest usual store, 128 KiB of 4 MiB, and leaves texts some.
	chunksKept = 12
	// chunksKeptByOthers is the same at a mailbox that is no contact of ours, which takes us for a stranger.
	chunksKeptByOthers = 1
)

// via is a mailbox as the way of a stream.
type via struct {
	mailbox key.Public
	stream  uint8
}

// leave seeks mailboxes for what waits for a device that is away.
func (c *core) leave(d *device) {
	if d.link != nil || d.rec.Card == 0 {
		return
	}
	if o := &d.out[streamOrdered]; o.Boxed < o.Next || d.receiptIsDue(c.now) {
		c.leaveStream(d, streamOrdered)
	}
	if o := &d.out[streamBulk]; max(o.Boxed, o.Floor) < o.Next {
		c.leaveStream(d, streamBulk)
	}
}

func (d *device) receiptIsDue(now time.Time) bool { return !d.owedAt.IsZero() && !now.Before(d.owedAt) }

// leaveStream makes a link to the first mailbox that has not refused, or uses the one that there is.
func (c *core) leaveStream(d *device, stream uint8) {
	candidates := append([]envelope.Mailbox{}, d.rec.Mails...)
	if !c.isSibling(d) {
		for _, s := range c.siblings() {
			candidates = append(candidates, envelope.Mailbox{Device: s.key, Place: s.rec.Place})
		}
	}
	for i, m := range candidates {
		if m.Device == c.self || m.Device == d.key || c.now.Before(d.via[via{m.Device, stream}]) {
			continue
		}
		mb := c.deviceOf(m.Device, nil)
		if stream == streamBulk && c.chunkRoom(d, mb) == 0 {
			return // what is there comes first
		}
		if mb.rec.Card == 0 {
			mb.rec.Place = m.Place
		}
		if c.errands[mb] == nil {
			c.errands[mb] = map[*device]bool{}
		}
		c.errands[mb][d] = true
		if mb.link != nil && mb.link.up {
			mb.link.pumpDue = true
			c.flush(mb.link)
			return
		}
		c.busy[mb] = true
		if c.dialIfDue(mb); mb.dialing || i == len(candidates)-1 {
			return
		}
	}
}

// chunkRoom is how many more chunks for a device may be left at a mailbox.
func (c *core) chunkRoom(d, mb *device) uint64 {
	most := uint64(chunksKeptByOthers)
	if mb.account != nil && (c.isSibling(mb) || c.book.Standing(mb.account.key) == Confirmed) {
		most = chunksKept
	}
	o := &d.out[streamBulk]
	return most - min(most, max(o.Boxed, o.Floor)-o.Floor)
}

// pumpDeposits leaves at a mailbox what waits for others, an envelope at a time for each.
func (c *core) pumpDeposits(l *link, mb *device) {
	for d := range c.errands[mb] {
		flying := false
		for _, f := range l.flights {
			flying = flying || f.boxed == d
		}
		if flying {
			continue
		}
		if !c.depositOne(l, mb, d) {
			delete(c.errands[mb], d)
		}
	}
	if len(c.errands[mb]) == 0 {
		delete(c.errands, mb)
	}
}

// depositOne sends the next envelope for d to a mailbox; false if there is none.
func (c *core) depositOne(l *link, mb, d *device) bool {
	if d.link != nil && d.link.up {
		return false
	}
	if l.bytes > l.window() {
		return true
	}
	f := flight{boxed: d}
	stream, items, next := c.nextForBox(l, mb, d, &f)
	if len(items) == 0 {
		return false
	}
	if c.isSibling(mb) && !c.isSibling(d) {
		if raw := c.db.get(bCard, be32(d.number)); raw != nil {
			c.do(effect{link: l, frame: cardsFrame([][]byte{raw})})
		}
	}
	if c.post(l, d, stream, items, next, f) {
		return true
	}
	if f.owed {
		c.owe(d)
	}
	return false
}

// nextForBox makes the next bundle of a device for a mailbox: what is in order first, with the receipt that is due, then pieces of
// files.
func (c *core) nextForBox(l *link, mb, d *device, f *flight) (stream uint8, items []envelope.Item, next uint64) {
	if !c.now.Before(d.via[via{mb.key, streamOrdered}]) {
		o := &d.out[streamOrdered]
		items, next = c.bundle(d, streamOrdered, max(o.Boxed, o.Floor), l.bundle())
		if d.receiptIsDue(c.now) {
			r := envelope.Item{Kind: envelope.KindReceipt, Time: c.now.UnixMilli(), Body: appendReceipt(d.rec.Card, c.answers(d))}
			items = append([]envelope.Item{r}, items...)
			f.owed, d.owedAt = true, time.Time{}
		}
		if len(items) > 0 {
			return streamOrdered, items, next
		}
	}
	if room := c.chunkRoom(d, mb); room > 0 && !c.now.Before(d.via[via{mb.key, streamBulk}]) {
		o := &d.out[streamBulk]
		most := min(l.bundle(), int(room)*(chunkHead+chunkLen+envelope.ItemOverhead))
		items, next = c.bundle(d, streamBulk, max(o.Boxed, o.Floor), most)
	}
	return streamBulk, items, next
}

// boxTaken takes a mailbox's answer.
func (c *core) boxTaken(l *link, f flight, status byte, by *envelope.Custody) {
	d, mb := f.boxed, l.dev
	if mb == nil {
		return
	}
	if status != takenOK || by == nil || by.Mailbox != mb.key || by.To != d.key || by.Until <= c.now.Unix() {
		if d.via == nil {
			d.via = map[via]time.Time{}
		}
		d.via[via{mb.key, f.stream}] = c.now.Add(viaPause)
		delete(c.errands[mb], d)
		if f.owed {
			c.owe(d)
		}
		c.leave(d)
		return
	}
	c.count("box_left")
	if f.owed && d.owedAt.IsZero() {
		c.paid(d)
	}
	o := &d.out[f.stream]
	o.Boxed, o.Until, o.Where = max(o.Boxed, f.next), by.Until, mb.key
	if o.Again == 0 {
		o.Again = c.now.Add(c.jitter(min(againFirst<<min(o.Tries, 8), againMost))).Unix()
	}
	c.later(bOut, streamKey(d.number, f.stream), encode(*o))
	c.change()
}

// boxEmptied notes that a device has come for pieces of files: there is room for more, and the rest is on its way.
func (c *core) boxEmptied(d *device) {
	for v := range d.via {
		if v.stream == streamBulk {
			delete(d.via, v)
		}
	}
	if o := &d.out[streamBulk]; o.Again > 0 {
		o.Again = c.now.Add(c.jitter(againFirst)).Unix()
	}
}

// custody takes a mailbox's signed word.
func (c *core) custody(l *link, tag uint32, raw []byte) {
	word, err := envelope.ParseCustody(raw)
	if err != nil {
		c.taken(l, tag, takenRefused, nil)
		return
	}
	c.taken(l, tag, takenOK, word)
}
