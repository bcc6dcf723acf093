package messenger

import (
	"encoding/binary"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// link is one stream to a device, as the core sees it.
type link struct {
	dialer bool
	dev    *device    // nil: a device that is not known
	peer   key.Public // whom the dialer means to meet; of the acceptor's, who it said it is
	up     bool       // who it is, is proved
	dead   bool
	used   time.Time

	mine, theirs *hello
	card         *envelope.Card              // of dev, parsed once
	cards        map[key.Public]strangerCard // brought by one who is not known

	tag        uint32
	flights    map[uint32]flight
	bytes      int     // in flights
	rate       float64 // bytes a second that were answered
	answerAt   time.Time
	failures   int // envelopes in a row that were not taken
	pumpDue    bool
	receiptDue bool
	outbox     any // the edge's
}

type strangerCard struct {
	card *envelope.Card
	raw  []byte
}

// A link without a use is closed; to a sibling or a mailbox it stays.
const (
	linkIdle     = 2 * time.Minute
	helloTimeout = 30 * time.Second
)

// linkUp begins a link. For a dialer d is whom it dialed.
func (c *core) linkUp(dialer bool, d *device, peer key.Public) *link {
	l := &link{dialer: dialer, dev: d, peer: peer, used: c.now, flights: map[uint32]flight{}}
	l.mine = &hello{account: c.account, device: c.self, nonce: newNonce()}
	c.links[l] = true
	if dialer {
		if d != nil {
			l.peer = d.key
			l.mine.held = c.held(d)
		}
		c.do(effect{link: l, frame: l.mine.append(nil)})
	}
	return l
}

// held says which cards of the account of d are here.
func (c *core) held(d *device) map[key.Public]uint64 {
	all := map[key.Public]uint64{d.key: d.rec.Card}
	if d.account != nil {
		for _, x := range d.account.devices {
			if len(all) < maxHeld {
				all[x.key] = x.rec.Card
			}
		}
	}
	return all
}

// linkDown ends a link; what was not answered on it goes out again.
func (c *core) linkDown(l *link) {
	if l.dead {
		return
	}
	l.dead = true
	delete(c.links, l)
	for _, f := range l.flights {
		if f.owed {
			c.owe(f.boxed)
		}
	}
	d := l.dev
	if d == nil {
		return
	}
	if l.dialer && !l.up {
		c.dialFailed(d)
	}
	if d.link != l {
		return
	}
	d.link = nil
	for s := range d.out {
		d.out[s].cursor = d.out[s].Floor
	}
	d.dialAt = c.now.Add(c.jitter(time.Second))
	c.wanted(d)
	c.change()
}

// closeLink ends it from our side.
func (c *core) closeLink(l *link, why string) {
	if l.dead {
		return
	}
	c.count("closed_" + why)
	c.linkDown(l)
	c.do(effect{link: l})
}

// frame takes one frame of a link, but for an envelope for us, which comes by deposit.
func (c *core) frame(l *link, b []byte) {
	if l.dead || len(b) == 0 {
		return
	}
	l.used = c.now
	op, body := b[0], b[1:]
	if l.theirs == nil && op != opHello || !l.up && op != opHello && op != opProof {
		c.closeLink(l, "order")
		return
	}
	var err error
	switch op {
	case opHello:
		err = c.hello(l, body)
	case opProof:
		c.proof(l, body)
	case opCards:
		err = c.cards(l, body)
	case opTaken:
		if len(body) == 5 {
			c.taken(l, binary.BigEndian.Uint32(body), body[4], nil)
		}
	case opCustody:
		if len(body) > 4 {
			c.custody(l, binary.BigEndian.Uint32(body), body[4:])
		}
	case opReceipt:
		var card uint64
		var all []answer
		if card, all, err = parseReceipt(body); err == nil && l.dev != nil {
			c.answered(l.dev, card, all)
			l.pumpDue = true
		}
	case opSeek:
		if len(body) == key.Size && key.Public(body) == c.account {
			c.do(effect{link: l, frame: cardsFrame(c.ourCards())})
		}
	default:
		c.count("frames_unknown") // of a version to come
	}
	if err != nil {
		c.closeLink(l, "malformed")
		return
	}
	c.flush(l)
}

func (c *core) hello(l *link, body []byte) error {
	h, err := parseHello(body)
	if err != nil || l.theirs != nil {
		c.closeLink(l, "hello")
		return nil
	}
	l.theirs = h
	if h.device == c.self || l.dialer && h.device != l.peer {
		c.closeLink(l, "identity")
		return nil
	}
	if l.dialer {
		sig := c.cfg.Key.Sign("hello", key.NetworkID{}, proofOf(l.mine, h))
		c.do(effect{link: l, frame: append([]byte{opProof}, sig[:]...)})
		c.met(l)
		return nil
	}
	l.peer = h.device
	if d := c.devices[h.device]; d != nil {
		l.mine.held = c.held(d)
	}
	c.do(effect{link: l, frame: l.mine.append(nil)})
	return nil
}

func (c *core) proof(l *link, body []byte) {
	if l.dialer || l.theirs == nil || l.up || !l.peer.Verify("hello", key.NetworkID{}, proofOf(l.theirs, l.mine), body) {
		c.closeLink(l, "proof")
		return
	}
	c.met(l)
}

// met says that the device at the other end is the one that it says.
func (c *core) met(l *link) {
	l.up = true
	c.change()
	c.attach(l, c.devices[l.peer])
	c.sendCards(l)
	for _, a := range c.accounts {
		if a.waiting && a.meets(l.peer) {
			c.do(effect{link: l, frame: append([]byte{opSeek}, a.key[:]...)})
		}
	}
	l.pumpDue = true
}

// meets tells whether a node is one to ask for the devices of an account.
func (a *account) meets(node key.Public) bool {
	for _, at := range a.place.Contacts {
		if at.Key == node {
			return true
		}
	}
	return a.key == node
}

// attach makes l the link of a device.
func (c *core) attach(l *link, d *device) {
	if d == nil {
		return
	}
	l.dev = d
	l.pumpDue, l.receiptDue = true, true
	if old := d.link; old != nil && old != l {
		// Both have dialed: the one dialed by the lower key stays, so that both ends keep the same one; but one that a
		// device dials again is newer than what is left of the old one.
		keep := l
		if old.up && old.dialer != l.dialer && old.dialer == c.self.Less(d.key) {
			keep = old
		}
		if keep == old {
			c.spare(l)
			return
		}
		d.link = l
		c.spare(old)
	}
	d.link, d.fails, d.dialAt, d.dialing = l, 0, time.Time{}, d.dialing && !l.dialer
	for s := range d.out {
		d.out[s].cursor = d.out[s].Floor
	}
}

// spare closes a link whose work another one does.
func (c *core) spare(l *link) {
	if l.dead {
		return
	}
	l.dead = true
	delete(c.links, l)
	c.do(effect{link: l})
}

// sendCards gives the other side what it lacks of our account's cards.
func (c *core) sendCards(l *link) {
	var all [][]byte
	if l.theirs.held[c.self] < c.card.Number {
		all = append(all, c.rawCard)
		l.theirs.held[c.self] = c.card.Number
	}
	for _, d := range c.siblings() {
		if l.theirs.held[d.key] < d.rec.Card && d.key != l.peer && len(all) < 4 {
			if raw := c.db.get(bCard, be32(d.number)); raw != nil {
				all = append(all, raw)
				l.theirs.held[d.key] = d.rec.Card
			}
		}
	}
	if len(all) > 0 {
		c.do(effect{link: l, frame: cardsFrame(all)})
	}
}

// cards takes cards that the other side brought. Those of accounts that nobody here knows wait for a word that is taken.
func (c *core) cards(l *link, body []byte) error {
	all, err := parseCards(body)
	if err != nil {
		return err
	}
	for _, raw := range all {
		card, err := envelope.ParseCard(raw)
		if err != nil {
			return err
		}
		if c.accounts[card.Account] == nil && c.isSibling(l.dev) {
			// Of one whom it wants us to reach.
			if _, err := c.admitCard(card, raw, func(_, _ key.Public) bool { return true }); err != nil {
				c.count("cards_refused")
			}
			continue
		}
		if c.accounts[card.Account] == nil {
			if l.cards == nil {
				l.cards = map[key.Public]strangerCard{}
			}
			if len(l.cards) < 4 {
				l.cards[card.Device] = strangerCard{card, raw}
			}
			continue
		}
		if _, err := c.admitCard(card, raw, nobody); err != nil {
			c.count("cards_refused")
		}
	}
	if l.dev == nil {
		if d := c.devices[l.peer]; d != nil {
			c.attach(l, d)
		}
	}
	l.pumpDue, l.receiptDue = true, l.receiptDue || l.dev != nil
	return nil
}

func nobody(_, _ key.Public) bool { return false }
