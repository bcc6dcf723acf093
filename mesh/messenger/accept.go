package messenger

import (
	"encoding/binary"
	"time"

	"skywire/mesh/messenger/envelope"
)

// accept takes an item for good: it came in its turn, and the sender may say it.
func (c *core) accept(d *device, from Sender, it *envelope.Item) {
	if it.Kind == envelope.KindChunk {
		c.takeChunk(d, from, it)
		return
	}
	id := it.ID(from.Account)
	if _, dup := c.known(id); dup {
		c.count("duplicates")
		return
	}
	if it.Expires != 0 && it.Expires <= c.now.Unix() {
		c.count("expired")
		return
	}
	c.count("items")
	switch it.Kind {
	case envelope.KindText:
		c.takeText(d, from, it, id)
		return // which remembers it by its place
	case envelope.KindFile:
		c.takeOffer(d, from, it, id)
		return
	case envelope.KindContact:
		if from.Own {
			c.takeShared(it.Body)
			break
		}
		c.word(d.account, it.Body)
	case envelope.KindKeyChange:
		c.moved(d.account, it.Body)
	case envelope.KindReceipt:
		c.takeMarks(d, from, it)
	case envelope.KindFileWord:
		c.fileWord(d, from, it)
	case envelope.KindCard:
		if _, err := c.admit(it.Body, nobody); err != nil {
			c.count("cards_refused")
		}
	case envelope.KindCopy:
		c.takeCopy(from, it)
	case envelope.KindHistory:
		c.takeHistory(d, from, it)
	case envelope.KindGroup:
		c.groupWord(from, it)
	default:
		if !c.handled[it.Kind] {
			c.refuse(d, it, from, "not understood")
			break
		}
		c.put(bTodo, be64(c.number()), append(be32(d.number), queueItem(it)...))
		c.do(effect{todo: true})
	}
	c.remember(id, 0, it.Expires)
	c.trimIDs()
}

func (c *core) takeText(d *device, from Sender, it *envelope.Item, id MessageID) {
	if c.gate != nil && it.Group != (envelope.GroupID{}) {
		if c.gate(from, it) != Take {
			c.count("dropped_group")
			c.refuse(d, it, from, "not in this group")
			c.remember(id, 0, it.Expires)
			return
		}
	}
	c.store(&record{
		id: id, account: d.account.number, device: d.number, kind: it.Kind, group: it.Group,
		time: it.Time, expires: it.Expires, state: Received, body: it.Body,
	})
}

// refuse tells a sender that an item will never be taken: it shows as failed there. One that does not listen is told less.
func (c *core) refuse(d *device, it *envelope.Item, from Sender, why string) {
	if it.Kind == envelope.KindReceipt || d.out[streamOrdered].Next-d.out[streamOrdered].Floor > 16 {
		return
	}
	c.sayTo(d, envelope.KindReceipt, appendMarks(receiptRefused, why, []MessageID{it.ID(from.Account)}), DefaultExpiry)
}

// takeMarks takes read marks and refusals.
func (c *core) takeMarks(d *device, from Sender, it *envelope.Item) {
	op, reason, ids, err := parseMarks(it.Body)
	if err != nil {
		c.count("malformed")
		return
	}
	for _, id := range ids {
		no, _ := c.known(id)
		if no == 0 {
			continue
		}
		m := c.record(no)
		switch {
		case m == nil:
		case from.Own && !m.out() && op == receiptRead: // read at another device of ours
			m.flags |= flagSeen
			c.later(bMsg, be64(no), m.append(nil))
			c.change()
		case op == receiptRead:
			c.reached(m, d.account, Read, "")
		default:
			c.reached(m, d.account, Failed, "refused by them: "+reason)
		}
	}
}

// copyItem is a message for a sibling:
//
//	1 │ flags 1 (1 sent by our account) │ account 32 │ kind 1 │ time 8 │ expires 8 │ group 16 │ body
func (c *core) copyItem(m *record) *envelope.Item {
	a := c.accByNo[m.account]
	if a == nil {
		return nil
	}
	b := append([]byte{1, m.flags & flagOut}, a.key[:]...)
	b = append(b, byte(m.kind))
	b = binary.BigEndian.AppendUint64(b, uint64(m.time))
	b = binary.BigEndian.AppendUint64(b, uint64(m.expires))
	b = append(append(b, m.group[:]...), m.body...)
	if len(b) > envelope.MaxBody {
		return nil // a text of the greatest size can't be copied with its head
	}
	return &envelope.Item{Kind: envelope.KindCopy, Time: m.time, Body: b}
}

// takeCopy takes what a sibling sent or had.
func (c *core) takeCopy(from Sender, it *envelope.Item) {
	r := fields(it.Body)
	r.Bad = r.U8() != 1
	flags := r.U8()
	with := r.public()
	x := envelope.Item{Kind: envelope.Kind(r.U8()), Time: int64(r.U64()), Expires: int64(r.U64()), Group: r.group()}
	x.Body = r.Take(len(r.B))
	if r.Bad || !from.Own || with.IsZero() {
		c.count("malformed")
		return
	}
	by := with
	if flags&flagOut != 0 {
		by = c.account
	}
	id := x.ID(by)
	if _, dup := c.known(id); dup {
		return
	}
	m := &record{
		id: id, account: c.accountOf(with).number, kind: x.Kind, group: x.Group, time: x.Time, expires: x.Expires,
		state: Received, flags: flagCopied | flags&flagOut, body: x.Body,
	}
	if m.out() {
		m.state, m.reason = Sent, "by "+from.Device.Short()
	}
	c.store(m)
}

// historyMost bounds what a new device is given: the newest of it.
const (
	historyMost  = 1000
	historyBytes = 1 << 20
)

// askHistory asks a sibling that is met for the first time for what it has.
func (c *core) askHistory(d *device) {
	c.sayTo(d, envelope.KindHistory, []byte{1}, DefaultExpiry)
}

func (c *core) takeHistory(d *device, from Sender, it *envelope.Item) {
	if !from.Own || len(it.Body) == 0 || it.Body[0] != 1 {
		c.count("malformed")
		return
	}
	c.shareAll(d)
	var nos []uint64
	bytes := 0
	for to := uint64(1) << 63; len(nos) < historyMost && bytes < historyBytes; {
		page := c.db.list(bMsg, nil, be64(to), 64, true)
		for _, e := range page {
			to = binary.BigEndian.Uint64(e.key)
			if m, err := parseRecord(to, e.value); err == nil && m.kind == envelope.KindText {
				nos = append(nos, to)
				bytes += len(m.body)
			}
		}
		if len(page) < 64 {
			break
		}
	}
	for i := len(nos) - 1; i >= 0; i-- {
		c.enqueue(d, streamOrdered, append([]byte{queuedCopy}, be64(nos[i])...))
	}
}

// refused takes a device's word that it will never take an envelope of ours.
func (c *core) refused(d *device, f flight) {
	for _, e := range c.db.list(bQueue, itemKey(d.number, f.stream, f.from), itemKey(d.number, f.stream, f.next), sendWindow, false) {
		c.drop(bQueue, e.key)
		if len(e.value) == 9 && e.value[0] == queuedMessage {
			if m := c.record(binary.BigEndian.Uint64(e.value[1:])); m != nil {
				c.reached(m, d.account, Failed, "refused by them")
			}
		}
	}
	c.settle(d, f.stream)
}

func (c *core) isSibling(d *device) bool {
	return d != nil && d.account != nil && d.account.key == c.account && d.key != c.self
}

// loadBook reads the contacts and tokens.
func (c *core) loadBook() {
	p := c.cfg.Policy
	if p.Bytes == 0 {
		p.Bytes = c.cfg.Quota / 10
	}
	c.book = NewBook(c.account, p)
	var contacts []*Contact
	var tokens []*Token
	for _, e := range c.all(bBook) {
		if v, err := ParseContact(e.value); err == nil {
			contacts = append(contacts, v)
		}
	}
	for _, e := range c.all(bTok) {
		if v, err := ParseToken(e.value); err == nil {
			tokens = append(tokens, v)
		}
	}
	c.book.Load(contacts, tokens)
}

// saveBook stages what has changed in the book, and reports whether something has.
func (c *core) saveBook() bool {
	contacts, tokens := c.book.Dirty()
	for k, v := range contacts {
		if v == nil {
			c.drop(bBook, c.idKey(MessageID(k)))
			continue
		}
		c.put(bBook, c.idKey(MessageID(k)), AppendContact(nil, v))
	}
	for s, v := range tokens {
		var id MessageID
		copy(id[:], s[:])
		if v == nil {
			c.drop(bTok, c.idKey(id))
			continue
		}
		c.put(bTok, c.idKey(id), AppendToken(nil, v))
	}
	c.shareBook(c.siblings(), contacts, tokens)
	return len(contacts)+len(tokens) > 0
}

// word takes a contact word of an account.
func (c *core) word(a *account, body []byte) {
	for _, d := range a.devices {
		d.paused = time.Time{} // a word comes when a person there has decided: what it has held may go now
	}
	heard, err := c.book.Word(a.key, body, c.cfg.Name, c.now)
	c.heard(a, heard, err)
}

// moved takes a change of key.
func (c *core) moved(a *account, body []byte) {
	k, err := envelope.ParseKeyChange(body)
	if err != nil {
		c.count("words_bad")
		return
	}
	heard, err := c.book.Moved(a.key, k.Old, k.New, c.now)
	c.heard(a, heard, err)
}

func (c *core) heard(a *account, heard Heard, err error) {
	if err != nil {
		c.count("words_bad")
		return
	}
	if heard.Answer != nil {
		c.say(a, envelope.KindContact, heard.Answer, envelope.GroupID{}, DefaultExpiry)
	}
	c.saveBook()
	if heard.Changed {
		c.change()
	}
	c.moves(a)
}

// moves looks again at what waits for an account.
func (c *core) moves(a *account) {
	for _, d := range a.devices {
		c.busy[d] = true
		if d.link != nil {
			d.link.pumpDue = true
		}
	}
}
