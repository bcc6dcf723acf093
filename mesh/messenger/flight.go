package messenger

import (
	"time"

	"skywire/mesh/messenger/envelope"
)

// flight is an envelope that no answer came for.
type flight struct {
	bytes  int
	at     time.Time
	own    bool    // of ours to dev, at its link
	boxed  *device // of ours to this device, in the mailbox at the other end
	stream uint8
	from   uint64 // numbers from here up to
	next   uint64 // but without this one
	kept   uint64 // of our box, by its number
	owed   bool   // a receipt is in it
}

// window is how many bytes may be in flight: what the link carries in three seconds, and two bundles at least.
func (l *link) window() int {
	return min(max(int(3*l.rate), 2*l.bundle()), mostWindow)
}

// bundle is how large one should be.
func (l *link) bundle() int {
	if l.rate == 0 {
		return firstBundle
	}
	return min(max(int(l.rate), leastBundle), mostBundle)
}

// pump sends what waits for the device of a link, and what its mailbox is to keep.
func (c *core) pump(l *link) {
	l.pumpDue = false
	d := l.dev
	if l.dead || !l.up || d == nil {
		return
	}
	if x := l.cards[d.key]; x.card != nil && d.rec.Card == 0 && c.accounts[x.card.Account] != nil {
		delete(l.cards, d.key) // it came before anybody here had to do with its account
		if _, err := c.admitCard(x.card, x.raw, nobody); err != nil {
			c.count("cards_refused")
		}
	}
	if d.link == l && !c.now.Before(d.paused) && d.rec.Card != 0 {
		for s := range uint8(streams) {
			c.pumpStream(l, d, s)
		}
	}
	c.pumpBox(l, d)
	c.pumpDeposits(l, d)
	if len(l.flights) == 0 && c.idle(d) && !c.stays(d) {
		delete(c.busy, d)
	}
}

func (c *core) pumpStream(l *link, d *device, s uint8) {
	o := &d.out[s]
	o.cursor = max(o.cursor, o.Floor)
	for o.cursor < min(o.Next, o.Floor+sendWindow) && !l.dead {
		room := l.window()
		if s == streamBulk {
			room /= 2 // a text finds some
		}
		if l.bytes >= room {
			return
		}
		items, next := c.bundle(d, s, o.cursor, l.bundle())
		if len(items) == 0 {
			if next <= o.cursor {
				return // it may not go now
			}
			o.cursor = max(next, o.Floor)
			continue
		}
		if next == o.Next && len(items) < fewItems && l.flying(s) >= 2 {
			return // more may join them until an answer comes: each envelope has 200 bytes of its own
		}
		if !c.post(l, d, s, items, next, flight{own: true}) {
			return
		}
		o.cursor = next
	}
}

// fewItems make a small bundle.
const fewItems = 16

// flying counts our own envelopes of a stream that were not answered.
func (l *link) flying(s uint8) (n int) {
	for _, f := range l.flights {
		if f.own && f.stream == s {
			n++
		}
	}
	return n
}

// post seals a bundle and sends it by a link.
func (c *core) post(l *link, d *device, s uint8, items []envelope.Item, next uint64, f flight) bool {
	raw, err := c.seal(d, s, items)
	if err != nil {
		c.count("unsealed")
		if d.link == l {
			d.paused = c.now.Add(time.Minute)
		}
		c.do(effect{link: l, frame: append([]byte{opSeek}, d.accountKey()...)})
		return false
	}
	f.bytes, f.at, f.stream, f.from, f.next = len(raw), c.now, s, items[0].Seq, next
	c.fly(l, f, raw, c.stampFor(d))
	return true
}

func (d *device) accountKey() []byte {
	if d.account != nil {
		return d.account.key[:]
	}
	return d.key[:]
}

// fly sends an envelope and notes that an answer is to come.
func (c *core) fly(l *link, f flight, raw []byte, bits uint8) {
	l.tag++
	l.flights[l.tag] = f
	l.bytes += f.bytes
	c.do(effect{link: l, frame: tagged(opDeposit, l.tag, raw...), stamp: bits})
}

// taken takes the answer to an envelope.
func (c *core) taken(l *link, tag uint32, status byte, by *envelope.Custody) {
	f, ok := l.flights[tag]
	if !ok {
		return
	}
	delete(l.flights, tag)
	l.bytes -= f.bytes
	l.measure(f, c.now)
	l.pumpDue = true
	if status == takenOK {
		l.failures = 0
	} else {
		c.count("not_taken")
		l.failures++
	}
	switch {
	case f.kept != 0:
		c.keptTaken(l, f, status)
	case f.boxed != nil:
		c.boxTaken(l, f, status, by)
	case status == takenOK:
	case status == takenRefused && l.dev != nil:
		c.refused(l.dev, f)
	case status == takenLater || l.failures > 3:
		if d := l.dev; d != nil {
			d.paused = c.now.Add(c.jitter(time.Minute))
			d.out[f.stream].cursor = min(d.out[f.stream].cursor, f.from)
		}
	case status == takenCard:
		c.do(effect{link: l, frame: cardsFrame(c.ourCards())})
		fallthrough
	case status == takenPrekey:
		if d := l.dev; d != nil {
			d.out[f.stream].cursor = d.out[f.stream].Floor
		}
	}
}

// measure learns what the link carries.
func (l *link) measure(f flight, now time.Time) {
	from := f.at
	if l.answerAt.After(from) {
		from = l.answerAt
	}
	l.answerAt = now
	took := max(now.Sub(from).Seconds(), 0.001)
	sample := float64(f.bytes) / took
	if l.rate == 0 {
		l.rate = sample
		return
	}
	l.rate += (sample - l.rate) * 0.3
}

// flush does what a call has made due on a link.
func (c *core) flush(l *link) {
	for range 4 {
		if l.dead || !l.up {
			return
		}
		if l.receiptDue && l.dev != nil {
			l.receiptDue = false
			c.sendReceipt(l)
		}
		if !l.pumpDue {
			return
		}
		c.pump(l)
	}
}

func (c *core) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(c.rand.Int64N(int64(d)))
}
