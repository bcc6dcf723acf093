package messenger

import (
	"encoding/binary"
	"encoding/json"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// record reads a message; nil if it is not there any more.
func (c *core) record(no uint64) *record {
	b := c.db.get(bMsg, be64(no))
	if b == nil {
		return nil
	}
	m, err := parseRecord(no, b)
	if err != nil {
		return nil
	}
	return m
}

// known tells whether an item was taken before, and which message it is; 0: none that is kept.
func (c *core) known(id MessageID) (no uint64, ok bool) {
	v := c.db.get(bID, c.idKey(id))
	if len(v) != 16 {
		return 0, false
	}
	return binary.BigEndian.Uint64(v), true
}

// remember notes an id until some time after the item's expiry, when no copy of it is taken any more.
func (c *core) remember(id MessageID, no uint64, expires int64) {
	k := c.idKey(id)
	if expires == 0 || expires > c.now.Add(2*MaxExpiry).Unix() {
		expires = c.now.Add(MaxExpiry).Unix()
	}
	c.put(bID, k, append(be64(no), be64(uint64(expires))...))
	c.put(bIDDay, append(be32(uint32(expires/86400)+2), k...), nil)
}

// store adds a message to the history.
func (c *core) store(m *record) {
	m.no = c.next.Message
	c.next.Message++
	m.stored = c.now.UnixMilli()
	if m.since == 0 {
		m.since = m.stored
	}
	c.saveNumbers()
	c.put(bMsg, be64(m.no), m.append(nil))
	c.put(bBy, append(be32(m.account), be64(m.no)...), nil)
	for _, t := range m.targets {
		if t.account != m.account {
			c.put(bBy, append(be32(t.account), be64(m.no)...), nil)
		}
	}
	c.remember(m.id, m.no, m.expires)
	c.change()
	c.trim()
}

// reached notes how far a message of ours has come with one of its accounts.
func (c *core) reached(m *record, a *account, s State, reason string) {
	if a == nil || !m.out() {
		return
	}
	changed := false
	for i := range m.targets {
		t := &m.targets[i]
		if t.account != a.number || t.state == s || t.state == Read || t.state == Delivered && s != Read || t.state == Failed && s == Failed {
			continue
		}
		t.state, changed = s, true
	}
	if !changed {
		return
	}
	was := m.state
	m.state, m.reason = m.overall(), reason
	if m.state != Failed {
		m.reason = ""
	}
	if m.state != was {
		m.since = c.now.UnixMilli()
	}
	c.later(bMsg, be64(m.no), m.append(nil))
	c.change()
}

// overall is the state of all targets together: Failed if none was reached, Queued while one is open.
func (m *record) overall() State {
	var failed, open, read, got int
	for _, t := range m.targets {
		switch t.state {
		case Failed:
			failed++
		case Read:
			read++
		case Delivered:
			got++
		default:
			open++
		}
	}
	switch {
	case len(m.targets) == 0:
		return m.state
	case failed == len(m.targets):
		return Failed
	case open > 0:
		return Queued
	case got > 0:
		return Delivered
	}
	return Read
}

// trim drops the oldest history while the store is over its quota. What waits in a queue is not dropped.
func (c *core) trim() {
	c.trimIDs()
	over := c.db.live() - c.cfg.Quota
	if over <= 0 {
		return
	}
	over += c.cfg.Quota / 32 // so that it is not done again for each message
	for from := uint64(0); over > 0; {
		page := c.db.list(bMsg, be64(from), nil, 64, false)
		if len(page) == 0 {
			return
		}
		for _, e := range page {
			no := binary.BigEndian.Uint64(e.key)
			from = no + 1
			m, err := parseRecord(no, e.value)
			if err == nil && (m.out() && m.state == Queued || no+1 >= c.next.Message) {
				continue
			}
			if over -= c.forget(no, m); over <= 0 {
				return
			}
		}
	}
}

// forget drops a message; m may be nil. It returns about how many bytes that frees.
func (c *core) forget(no uint64, m *record) int64 {
	c.drop(bMsg, be64(no))
	c.count("trimmed")
	if m == nil {
		return 128
	}
	c.drop(bBy, append(be32(m.account), be64(no)...))
	for _, t := range m.targets {
		c.drop(bBy, append(be32(t.account), be64(no)...))
	}
	n := int64(len(m.body)) + 300
	if m.expires <= c.now.Unix() || c.db.get(bIDDay, append(be32(uint32(m.expires/86400)+2), c.idKey(m.id)...)) == nil {
		c.drop(bID, c.idKey(m.id))
	}
	return n
}

// trimIDs drops the oldest ids while they take more than a quarter of the quota: numbers tell double items, too, and ids do so only
// after a sender has lost its memory.
func (c *core) trimIDs() {
	if c.db.kv.Size(bID)+c.db.kv.Size(bIDDay) <= c.cfg.Quota/4 {
		return
	}
	for _, e := range c.db.list(bIDDay, nil, nil, 256, false) {
		c.drop(bIDDay, e.key)
		if v := c.db.get(bID, e.key[4:]); len(v) == 16 && c.db.get(bMsg, v[:8]) == nil {
			c.drop(bID, e.key[4:])
		}
	}
}

// forgetIDs drops the ids that are over, but for those of messages that are still there.
func (c *core) forgetIDs() {
	for _, e := range c.db.list(bIDDay, nil, be32(uint32(c.now.Unix()/86400)), 4096, false) {
		c.drop(bIDDay, e.key)
		v := c.db.get(bID, e.key[4:])
		if len(v) == 16 && c.db.get(bMsg, v[:8]) == nil {
			c.drop(bID, e.key[4:])
		}
	}
}

// message is what people see of a record.
func (c *core) message(m *record) Message {
	v := Message{
		Cursor: m.no, ID: m.id, Group: m.group, Out: m.out(), Copied: m.flags&flagCopied != 0, Kind: m.kind, Seen: m.flags&flagSeen != 0,
		Time: time.UnixMilli(m.time).UTC(), Stored: time.UnixMilli(m.stored).UTC(), Since: time.UnixMilli(m.since).UTC(),
		Expires: time.Unix(m.expires, 0).UTC(), Body: m.body, State: m.state, Reason: m.reason, Recipients: len(m.targets),
	}
	if a := c.accByNo[m.account]; a != nil {
		v.Account = a.key
	}
	if d := c.devByNo[m.device]; d != nil {
		v.Device = d.key
	}
	for _, t := range m.targets {
		if t.state == Delivered || t.state == Read {
			v.Reached++
		}
	}
	if m.out() && m.state == Queued && len(m.targets) > 0 {
		c.progress(m, &v)
	}
	return v
}

// progress says of a message that is not there yet where it is: the farthest of its devices counts.
func (c *core) progress(m *record, v *Message) {
	for _, t := range m.targets {
		a := c.accByNo[t.account]
		if a == nil || t.state != Queued {
			continue
		}
		if err := c.book.MaySend(a.key); err != nil && a.key != c.account {
			v.Reason = err.Error()
			continue
		}
		if len(a.devices) == 0 {
			v.Reason = "no device of theirs is known yet"
			continue
		}
		for _, d := range a.devices {
			seq, ok := c.seqOf(d, m.no)
			if !ok {
				continue
			}
			o := &d.out[streamOrdered]
			switch {
			case seq < o.Boxed && o.Where != (key.Public{}):
				v.State, v.Reason, v.Where, v.Next = Stored, "kept until they come", o.Where.String(), time.Unix(o.Again, 0).UTC()
			case d.link != nil && d.link.up && seq < o.cursor && v.State < Sent:
				v.State, v.Reason = Sent, "on its way"
			case v.State == Queued && d.link != nil && d.link.up:
				v.Reason = "others go before it"
			case v.State == Queued:
				v.Reason, v.Next = "no device of theirs answers", d.dialAt.UTC()
			}
		}
	}
}

// seqOf finds the number of a message in a device's queue: numbers rise with messages, so it is searched in halves.
func (c *core) seqOf(d *device, no uint64) (uint64, bool) {
	o := &d.out[streamOrdered]
	lo, hi := o.Floor, o.Next
	for lo < hi {
		mid := lo + (hi-lo)/2
		page := c.db.list(bQueue, itemKey(d.number, streamOrdered, mid), itemKey(d.number, streamOrdered, hi), 16, false)
		found := false
		for _, e := range page {
			if len(e.value) != 9 || e.value[0] != queuedMessage {
				continue
			}
			seq, n := binary.BigEndian.Uint64(e.key[5:]), binary.BigEndian.Uint64(e.value[1:])
			if n == no {
				return seq, true
			}
			if n > no {
				hi = mid
			} else {
				lo = seq + 1
			}
			found = true
			break
		}
		if !found {
			if len(page) == 16 { // words only; walk on
				lo = binary.BigEndian.Uint64(page[15].key[5:]) + 1
				continue
			}
			hi = mid
		}
	}
	return 0, false
}

// query lists messages.
func (c *core) query(q Query) []Message {
	limit := q.Limit
	if limit <= 0 {
		limit = 100
	}
	limit = min(limit, 1000)
	var all []Message
	from, to := q.After+1, q.Before
	for len(all) < limit {
		nos, more := c.page(q, from, to)
		for _, no := range nos {
			if q.Last {
				to = no
			} else {
				from = no + 1
			}
			m := c.record(no)
			if m == nil || q.Group != (envelope.GroupID{}) && m.group != q.Group || q.Unread && (m.out() || m.flags&flagSeen != 0) || q.Receive && m.out() {
				continue
			}
			if all = append(all, c.message(m)); len(all) == limit {
				break
			}
		}
		if !more {
			break
		}
	}
	if q.Last {
		for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
			all[i], all[j] = all[j], all[i]
		}
	}
	return all
}

// page lists up to 256 numbers of messages.
func (c *core) page(q Query, from, to uint64) (nos []uint64, more bool) {
	if to == 0 {
		to = 1 << 63
	}
	if from >= to {
		return nil, false
	}
	bucket, prefix := bMsg, []byte(nil)
	if !q.With.IsZero() {
		a := c.accounts[q.With]
		if a == nil {
			return nil, false
		}
		bucket, prefix = bBy, be32(a.number)
	}
	page := c.db.list(bucket, append(prefix[:len(prefix):len(prefix)], be64(from)...), append(prefix[:len(prefix):len(prefix)], be64(to)...), 256, q.Last)
	for _, e := range page {
		nos = append(nos, binary.BigEndian.Uint64(e.key[len(e.key)-8:]))
	}
	return nos, len(page) == 256
}
