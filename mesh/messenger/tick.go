package messenger

import (
	"time"

	"skywire/mesh/key"
)

// Waiting between attempts to reach a device.
const (
	dialFirst = 2 * time.Second
	dialMost  = 10 * time.Minute
	maxDials  = 8
	// againFirst is when an envelope is left at a mailbox once more, if no receipt came: the mailbox may have lost it.
	againFirst = time.Hour
	againMost  = 24 * time.Hour
)

// idle tells whether nothing is to be done for a device.
func (c *core) idle(d *device) bool {
	for s := range d.out {
		if d.out[s].Floor < d.out[s].Next {
			return false
		}
	}
	return d.kept == 0 && d.owedAt.IsZero() && len(c.errands[d]) == 0
}

// tick does what time has made due, and says when to come again.
func (c *core) tick() time.Time {
	next := c.now.Add(time.Minute)
	if c.now.After(c.nextScan) {
		c.nextScan = c.now.Add(renewCheck)
		c.scan()
	}
	for l := range c.links {
		limit := linkIdle
		if !l.up {
			limit = helloTimeout
		}
		if !l.up || len(l.flights) > 0 || l.dev == nil || l.dialer && !c.stays(l.dev) {
			if end := l.used.Add(limit); !c.now.Before(end) {
				c.closeLink(l, "idle")
				continue
			} else if end.Before(next) {
				next = end
			}
		}
		if d := l.dev; d != nil && d.link == l && !d.paused.IsZero() && !c.now.Before(d.paused) {
			d.paused = time.Time{}
			l.pumpDue = true
		}
		c.flush(l)
	}
	for d := range c.busy {
		if c.idle(d) && !c.stays(d) {
			delete(c.busy, d)
			continue
		}
		if t := c.wanted(d); !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	c.seekAccounts()
	return next
}

// stays tells whether a link is kept though nothing moves: siblings and our mailboxes have news for us.
func (c *core) stays(d *device) bool {
	if c.isSibling(d) || c.kin[d.key] {
		return true
	}
	for _, m := range c.cfg.Mailboxes {
		if m.Device == d.key {
			return true
		}
	}
	return false
}

// scan is what is done every ten minutes.
func (c *core) scan() {
	if err := c.renew(); err != nil && c.log != nil {
		c.log.Warn("our card was not renewed", "err", err)
	}
	c.forgetIDs()
	c.expireBox()
	c.askAgain()
	for d := range c.busy {
		for s := range uint8(streams) {
			o := &d.out[s]
			if d.link == nil && o.Floor < o.Next {
				c.bundle(d, s, o.Floor, 1<<20) // drops what is over
			}
		}
	}
	for _, a := range c.accounts {
		if a.waiting {
			c.expireWaiting(a)
		}
	}
	// Siblings and mailboxes are looked up though nothing waits here: they may have something for us.
	for _, d := range c.siblings() {
		c.busy[d] = true
	}
	for k := range c.kin {
		c.busy[c.deviceOf(k, nil)] = true
	}
	for _, m := range c.cfg.Mailboxes {
		if m.Device != c.self {
			d := c.deviceOf(m.Device, nil)
			d.rec.Place = m.Place
			c.busy[d] = true
		}
	}
}

func (c *core) expireWaiting(a *account) {
	for _, e := range c.db.list(bWait, be32(a.number), after(be32(a.number)), 1<<20, false) {
		if c.item(e.value) == nil {
			c.drop(bWait, e.key)
			if len(e.value) == 9 && e.value[0] == queuedMessage {
				if m := c.record(unbe64(e.value[1:])); m != nil {
					c.reached(m, a, Failed, "expired before a device of theirs was known")
				}
			}
		}
	}
}

// wanted dials a device that has no link, or says when it is due. What waits goes to a mailbox meanwhile.
func (c *core) wanted(d *device) time.Time {
	if d.link != nil {
		return time.Time{}
	}
	for s := range d.out {
		o := &d.out[s]
		if o.Again > 0 && o.Again <= c.now.Unix() && o.Boxed > o.Floor {
			o.Boxed, o.Again = o.Floor, 0
			o.Tries++
		}
	}
	if d.fails > 0 {
		c.leave(d)
	}
	return c.dialIfDue(d)
}

// dialIfDue dials a device that has no link, or says when it is due. It leaves nothing at mailboxes: devices that are mailboxes of each
// other would go round.
func (c *core) dialIfDue(d *device) time.Time {
	if d.link != nil || d.dialing || c.idle(d) && !c.stays(d) {
		return time.Time{}
	}
	if c.now.Before(d.dialAt) {
		return d.dialAt
	}
	if c.dials >= maxDials {
		return c.now.Add(time.Second)
	}
	d.dialing = true
	c.dials++
	place := d.rec.Place
	if d.rec.Card == 0 && d.account != nil && len(place.Contacts) == 0 {
		place = d.account.place
	}
	c.do(effect{dial: d, place: place, node: d.key})
	return time.Time{}
}

// dialed ends a dialing, whatever came of it.
func (c *core) dialed(d *device, ok bool) {
	c.dials--
	d.dialing = false
	if !ok {
		c.dialFailed(d)
	}
}

func (c *core) dialFailed(d *device) {
	if d.link != nil {
		return
	}
	d.fails++
	d.dialAt = c.now.Add(c.jitter(min(dialFirst<<min(d.fails, 10), dialMost)))
	c.leave(d)
	c.change()
}

// online is told of a node that has come.
func (c *core) online(node key.Public) {
	if d := c.devices[node]; d != nil && d.link == nil && (c.busy[d] || c.stays(d)) {
		d.dialAt, d.fails = time.Time{}, 0
		c.busy[d] = true
		c.wanted(d)
	}
}

// seekAccounts looks for devices of accounts that something waits for and of whom only a place is known.
func (c *core) seekAccounts() {
	for _, a := range c.accounts {
		if !a.waiting || c.now.Before(a.asked) {
			continue
		}
		a.asked = c.now.Add(c.jitter(time.Minute))
		// Who is met at the place may be a device of the account, or knows one: a mailbox, the border.
		nodes := []key.Public{}
		if a.place.Cluster != a.key {
			nodes = append(nodes, a.key)
		}
		for _, at := range a.place.Contacts {
			nodes = append(nodes, at.Key)
		}
		if f, ok := c.cfg.Mesh.(Finder); ok && a.place.Cluster == a.key {
			nodes = append(nodes, f.Near(a.key)...)
		}
		for _, n := range nodes {
			if n == c.self {
				continue
			}
			d := c.deviceOf(n, nil)
			if d.rec.Card == 0 {
				d.rec.Place = a.place
			}
			if d.link != nil {
				c.do(effect{link: d.link, frame: append([]byte{opSeek}, a.key[:]...)})
			} else if !d.dialing && c.dials < maxDials {
				d.dialing = true
				c.dials++
				c.do(effect{dial: d, place: d.rec.Place, node: n})
			}
		}
	}
}
