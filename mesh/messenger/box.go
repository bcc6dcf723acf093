package messenger

import (
	"encoding/binary"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Shares of the store that the mailbox may take, and of it one depositor and all strangers.
const (
	boxShare       = 4 // of the quota
	depositorShare = 8 // of the box
	strangersShare = 10
	boxStep        = 64 << 10 // in flight to the one who collects
)

// boxState accounts for the envelopes kept for others.
type boxState struct {
	total     int64
	strangers int64
	by        map[key.Public]int64
	ids       map[envelope.EnvelopeID]uint64
}

// kept is an envelope in the box: depositor 32 │ stranger 1 │ until 8 │ envelope.
type kept struct {
	by       key.Public
	stranger bool
	until    int64
	raw      []byte
}

const keptHead = 32 + 1 + 8

func (k *kept) append(dst []byte) []byte {
	dst = append(append(dst, k.by[:]...), 0)
	if k.stranger {
		dst[len(dst)-1] = 1
	}
	return append(binary.BigEndian.AppendUint64(dst, uint64(k.until)), k.raw...)
}

func parseKept(b []byte) *kept {
	if len(b) < keptHead {
		return nil
	}
	return &kept{by: key.Public(b[:32]), stranger: b[32] == 1, until: int64(binary.BigEndian.Uint64(b[33:])), raw: b[keptHead:]}
}

func (c *core) loadBox() {
	c.box = boxState{by: map[key.Public]int64{}, ids: map[envelope.EnvelopeID]uint64{}}
	for _, e := range c.all(bBox) {
		k := parseKept(e.value)
		if k == nil || len(e.key) != 12 {
			continue
		}
		d := c.devByNo[binary.BigEndian.Uint32(e.key)]
		o, err := envelope.ParseOuter(k.raw)
		if d == nil || err != nil {
			c.drop(bBox, e.key)
			continue
		}
		c.boxed(d, k, o.ID, binary.BigEndian.Uint64(e.key[4:]), 1)
	}
}

// boxed counts an envelope in or out.
func (c *core) boxed(d *device, k *kept, id envelope.EnvelopeID, no uint64, sign int64) {
	n := sign * int64(len(k.raw)+keptHead)
	c.box.total += n
	if k.stranger {
		c.box.strangers += n
	}
	if c.box.by[k.by] += n; c.box.by[k.by] <= 0 {
		delete(c.box.by, k.by)
	}
	d.kept += int(sign)
	if sign > 0 {
		c.box.ids[id] = no
		c.busy[d] = true
	} else {
		delete(c.box.ids, id)
	}
}

// keep takes an envelope for another device into the box, by a link: it answers with custody, or says why not.
func (c *core) keep(l *link, tag uint32, o *envelope.Outer, raw []byte) {
	if l.dead {
		return
	}
	l.used = c.now
	d, status := c.mayKeep(l, o, int64(len(raw)))
	if status != takenOK {
		c.count("box_refused")
		c.do(effect{link: l, frame: tagged(opTaken, tag, status)})
		return
	}
	if _, held := c.box.ids[o.ID]; !held {
		k := &kept{by: l.peer, stranger: !c.trusted(l), until: o.Expires, raw: raw}
		no := c.number()
		c.put(bBox, append(be32(d.number), be64(no)...), k.append(nil))
		c.boxed(d, k, o.ID, no, 1)
		c.count("box_kept")
	}
	word, err := (&envelope.Custody{Mailbox: c.self, To: o.To, Issued: c.now.Unix(), Until: o.Expires, IDs: []envelope.EnvelopeID{o.ID}}).Sign(c.cfg.Key)
	if err != nil {
		c.do(effect{link: l, frame: tagged(opTaken, tag, takenLater)})
		return
	}
	c.do(effect{link: l, frame: tagged(opCustody, tag, word...)})
	if d.link != nil {
		d.link.pumpDue = true
	}
	c.flushAll()
}

// trusted tells whether the other end of a link is a device of our account or of a confirmed contact.
func (c *core) trusted(l *link) bool {
	if l.dev == nil || l.dev.account == nil {
		return false
	}
	return c.isSibling(l.dev) || c.book.Standing(l.dev.account.key) == Confirmed
}

// mayKeep finds the device that an envelope is for, if we keep one for it and there is room.
func (c *core) mayKeep(l *link, o *envelope.Outer, n int64) (*device, byte) {
	d := c.devices[o.To]
	switch {
	case o.Expires <= c.now.Unix() || o.Expires > c.now.Add(2*envelope.PrekeyLife).Unix():
		return nil, takenRefused
	case d != nil && c.isSibling(d):
	case c.isSibling(l.dev): // it asks us to go on trying
		if d == nil {
			return nil, takenRefused
		}
	case d != nil && d.account != nil && c.cfg.KeepFor && c.book.Standing(d.account.key) == Confirmed:
	default:
		return nil, takenRefused
	}
	most := c.cfg.Quota / boxShare
	n += keptHead
	if c.box.total+n > most {
		return nil, takenLater
	}
	share := most / depositorShare
	if !c.trusted(l) {
		share = most / strangersShare / 4
		if c.box.strangers+n > most/strangersShare {
			return nil, takenLater
		}
	}
	if c.isSibling(l.dev) {
		share = most
	}
	if c.box.by[l.peer]+n > share {
		return nil, takenLater
	}
	return d, takenOK
}

// pumpBox gives a device what is kept for it.
func (c *core) pumpBox(l *link, d *device) {
	if d.kept == 0 || d.link != l || c.now.Before(d.paused) {
		return
	}
	flying := map[uint64]bool{}
	bytes := 0
	for _, f := range l.flights {
		if f.kept != 0 {
			flying[f.kept] = true
			bytes += f.bytes
		}
	}
	prefix := be32(d.number)
	for from := prefix; bytes < boxStep; {
		page := c.db.list(bBox, from, after(prefix), 16, false)
		for _, e := range page {
			no := binary.BigEndian.Uint64(e.key[4:])
			from = append(be32(d.number), be64(no+1)...)
			k := parseKept(e.value)
			if flying[no] || k == nil {
				continue
			}
			if k.until <= c.now.Unix() {
				c.unkeep(d, no, e.value)
				continue
			}
			if bytes >= boxStep {
				return
			}
			c.fly(l, flight{bytes: len(k.raw), at: c.now, kept: no}, k.raw, 0)
			bytes += len(k.raw)
		}
		if len(page) < 16 {
			return
		}
	}
}

func (c *core) keptTaken(l *link, f flight, status byte) {
	d := l.dev
	if d == nil {
		return
	}
	if status == takenLater || status == takenCard {
		d.paused = c.now.Add(c.jitter(time.Minute))
		return
	}
	if status == takenOK {
		c.count("box_delivered")
	}
	if v := c.db.get(bBox, append(be32(d.number), be64(f.kept)...)); v != nil {
		c.unkeep(d, f.kept, v)
	}
}

// unkeep drops an envelope from the box.
func (c *core) unkeep(d *device, no uint64, v []byte) {
	c.drop(bBox, append(be32(d.number), be64(no)...))
	if k := parseKept(v); k != nil {
		if o, err := envelope.ParseOuter(k.raw); err == nil {
			c.boxed(d, k, o.ID, no, -1)
		}
	}
}

// expireBox drops what nobody came for.
func (c *core) expireBox() {
	for _, e := range c.all(bBox) {
		if k := parseKept(e.value); k != nil && k.until <= c.now.Unix() && len(e.key) == 12 {
			if d := c.devByNo[binary.BigEndian.Uint32(e.key)]; d != nil {
				c.unkeep(d, binary.BigEndian.Uint64(e.key[4:]), e.value)
				c.count("box_expired")
			}
		}
	}
}
