package messenger

import (
	"fmt"
	"slices"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// send queues something for accounts.
func (c *core) send(to []key.Public, o Outgoing) (id MessageID, err error) {
	if o.Kind == 0 {
		o.Kind = envelope.KindText
	}
	if o.Expires <= 0 {
		o.Expires = DefaultExpiry
	}
	if len(o.Body) > envelope.MaxBody-128 {
		return id, ErrTooLong
	}
	if o.Expires > MaxExpiry || len(to) == 0 || len(to) > maxTargets {
		return id, fmt.Errorf("expiry or recipients: %w", ErrFormat)
	}
	for _, k := range to {
		if k == c.account {
			continue
		}
		err := c.book.MaySend(k)
		if o.Kind == envelope.KindGroup || o.Group != (envelope.GroupID{}) {
			err = c.book.MaySendGroup(k) // its roster says who is in a group; two members need not know each other
		}
		if err != nil && !Waits(err) {
			return id, err
		}
	}
	if c.db.kv.Size(bQueue)+c.db.kv.Size(bWait) > c.cfg.Quota/2 || !o.Quiet && c.queued() > c.cfg.Quota/2 {
		return id, ErrQueueFull
	}
	it := &envelope.Item{Kind: o.Kind, Time: c.unixMilli(), Expires: c.now.Add(o.Expires).Unix(), Group: o.Group, Body: o.Body}
	id = it.ID(c.account)
	c.saveNumbers()
	if o.Quiet {
		for _, k := range to {
			c.toAccount(c.accountOf(k), queueItem(it))
		}
		return id, nil
	}
	m := &record{
		id: id, account: c.accountOf(to[0]).number, flags: flagOut | flagSeen, kind: it.Kind, group: it.Group, time: it.Time,
		expires: it.Expires, state: Queued, body: slices.Clone(o.Body),
	}
	for _, k := range to {
		m.targets = append(m.targets, target{c.accountOf(k).number, Queued})
	}
	c.store(m)
	c.queueMessage(m, to)
	return id, nil
}

func (c *core) queueMessage(m *record, to []key.Public) {
	v := append([]byte{queuedMessage}, be64(m.no)...)
	for _, k := range to {
		a := c.accountOf(k)
		if a.key == c.account && len(c.siblings()) == 0 {
			c.reached(m, a, Delivered, "") // a note to oneself, and nobody to tell
			continue
		}
		c.toAccount(a, v)
	}
	for _, d := range c.siblings() {
		if !slices.Contains(to, c.account) {
			c.enqueue(d, streamOrdered, append([]byte{queuedCopy}, be64(m.no)...))
		}
	}
}

// queued is about how many bytes of messages wait in queues.
func (c *core) queued() int64 {
	var n int64
	for d := range c.busy {
		o := &d.out[streamOrdered]
		n += int64(o.Next-o.Floor) * 400
	}
	return n
}

// cancel gives up a message.
func (c *core) cancel(id MessageID) error {
	no, _ := c.known(id)
	m := c.record(no)
	if no == 0 || m == nil {
		return ErrNoMessage
	}
	if !m.out() || m.state != Queued {
		return ErrTooLate
	}
	for i := range m.targets {
		if m.targets[i].state == Queued {
			m.targets[i].state = Failed
		}
	}
	m.state, m.since, m.reason = m.overall(), c.now.UnixMilli(), "canceled"
	c.put(bMsg, be64(no), m.append(nil))
	// Its entries in the queues stand for nothing any more and are dropped as they are met.
	c.change()
	return nil
}

// markRead notes that messages were read, and tells the account's devices and the siblings.
func (c *core) markRead(ids []MessageID, tell bool) error {
	byAccount := map[*account][]MessageID{}
	var all []MessageID
	for _, id := range ids {
		no, _ := c.known(id)
		m := c.record(no)
		if no == 0 || m == nil {
			return ErrNoMessage
		}
		if m.out() || m.flags&flagSeen != 0 {
			continue
		}
		m.flags |= flagSeen
		c.put(bMsg, be64(no), m.append(nil))
		if a := c.accByNo[m.account]; a != nil {
			byAccount[a] = append(byAccount[a], id)
		}
		all = append(all, id)
	}
	if len(all) == 0 {
		return nil
	}
	c.change()
	for a, ids := range byAccount {
		if !tell || a.key == c.account || c.book.Standing(a.key) != Confirmed {
			continue
		}
		for page := range slices.Chunk(ids, maxMarks) {
			c.say(a, envelope.KindReceipt, appendMarks(receiptRead, "", page), envelope.GroupID{}, DefaultExpiry)
		}
	}
	for _, d := range c.siblings() {
		for page := range slices.Chunk(all, maxMarks) {
			c.sayTo(d, envelope.KindReceipt, appendMarks(receiptRead, "", page), DefaultExpiry)
		}
	}
	return nil
}

// sayWord sends a contact word, at a place if no device is known.
func (c *core) sayWord(to key.Public, at envelope.Place, body []byte) {
	a := c.meet(to, at)
	c.say(a, envelope.KindContact, body, envelope.GroupID{}, MaxExpiry)
}
