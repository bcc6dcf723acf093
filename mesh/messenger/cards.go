package messenger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// renewCheck is how often prekeys, card and what is over are looked at.
const renewCheck = 10 * time.Minute

// renew makes a new card when the day's prekey is new or what stands in the card is.
func (c *core) renew() error {
	if _, err := c.cfg.Prekeys.Turn(c.now.Unix()); err != nil {
		return err
	}
	keys, err := c.cfg.Prekeys.Public()
	if err != nil {
		return err
	}
	card := &envelope.Card{Account: c.account, Device: c.self, Name: c.cfg.Name, Stamp: c.stamp(), Prekeys: keys, Mailboxes: c.mailboxes()}
	if c.cfg.Place != nil {
		card.Place = c.cfg.Place()
	}
	if c.account != c.self && c.cfg.Statements != nil {
		card.Statements = c.cfg.Statements()
	}
	if c.card != nil && sameCard(c.card, card) {
		return nil
	}
	card.Number, card.Issued = envelope.NextNumber(c.next.Card, c.now.Unix()), c.now.Unix()
	raw, err := card.Sign(c.cfg.Key)
	if err != nil {
		return fmt.Errorf("make our card: %w", err)
	}
	if c.account != c.self {
		a := c.accountOf(c.account)
		c.begin(a)
		if err := a.auth.Admit(c.at, card); err != nil {
			return fmt.Errorf("our own card: %w", err)
		}
		c.saveAuthority(a)
	}
	c.next.Card, c.card, c.rawCard = card.Number, card, raw
	c.saveNumbers()
	for l := range c.links {
		if l.up {
			c.sendCards(l)
		}
	}
	return nil
}

func sameCard(a, b *envelope.Card) bool {
	x, y := *a, *b
	x.Number, x.Issued, y.Number, y.Issued = 0, 0, 0, 0
	if len(x.Prekeys) != len(y.Prekeys) || len(x.Mailboxes) != len(y.Mailboxes) || x.Name != y.Name || x.Stamp != y.Stamp || !samePlace(x.Place, y.Place) {
		return false
	}
	for i := range x.Prekeys {
		if x.Prekeys[i].ID != y.Prekeys[i].ID {
			return false
		}
	}
	for i := range x.Mailboxes {
		if x.Mailboxes[i].Device != y.Mailboxes[i].Device {
			return false
		}
	}
	return slices.EqualFunc(x.Statements, y.Statements, func(a, b []byte) bool { return string(a) == string(b) })
}

func samePlace(a, b envelope.Place) bool {
	return a.Cluster == b.Cluster && slices.Equal(a.Contacts, b.Contacts)
}

func (c *core) stamp() uint8 {
	switch c.cfg.Policy.Strangers {
	case StrangersStamp:
		return c.cfg.Policy.Bits
	case StrangersOpen:
		return 0
	}
	return envelope.StrangersClosed
}

// mailboxes are those of the configuration and the siblings.
func (c *core) mailboxes() []envelope.Mailbox {
	all := slices.Clone(c.cfg.Mailboxes)
	for _, d := range c.siblings() {
		if !slices.ContainsFunc(all, func(m envelope.Mailbox) bool { return m.Device == d.key }) {
			all = append(all, envelope.Mailbox{Device: d.key, Place: d.rec.Place})
		}
	}
	return all[:min(len(all), envelope.MaxMailboxes)]
}

// begin makes the authority of a cluster's account.
func (c *core) begin(a *account) {
	if a.auth == nil {
		a.auth = envelope.NewAuthority(a.key, 0, c.at, nil)
	}
}

// loadAuthorities brings back what cluster accounts had shown, and their devices' cards.
func (c *core) loadAuthorities() {
	held := map[uint32][][]byte{}
	for _, e := range c.all(bAuth) {
		if len(e.key) == 8 {
			n := binary.BigEndian.Uint32(e.key)
			held[n] = append(held[n], e.value)
		}
	}
	for n, statements := range held {
		a := c.accByNo[n]
		if a == nil {
			continue
		}
		var r accountRecord
		_ = unmarshal(c.db.get(bAcc, be32(n)), &r)
		a.auth = envelope.NewAuthority(a.key, r.Floor, c.at, statements)
		for _, d := range a.devices {
			if card := c.cardOf(d); card != nil {
				_ = a.auth.Admit(c.at, card) // what is over now is left out
			}
		}
	}
}

func (c *core) saveAuthority(a *account) {
	for _, e := range c.db.list(bAuth, be32(a.number), after(be32(a.number)), 1<<20, false) {
		c.db.delete(bAuth, e.key)
	}
	for i, s := range a.auth.Statements() {
		c.put(bAuth, binary.BigEndian.AppendUint32(be32(a.number), uint32(i)), s)
	}
	c.saveAccount(a)
}

// speaks tells whether a device speaks for an account now.
func (c *core) speaks(a *account, device key.Public) bool {
	if device == a.key {
		return true
	}
	return a.auth != nil && a.auth.Speaks(c.at, device) == nil
}

// cardOf reads the card that is held of a device; nil if none is.
func (c *core) cardOf(d *device) *envelope.Card {
	if d.link != nil && d.link.card != nil && d.link.card.Number == d.rec.Card {
		return d.link.card
	}
	raw := c.db.get(bCard, be32(d.number))
	if raw == nil {
		return nil
	}
	card, err := envelope.ParseCard(raw)
	if err != nil {
		return nil
	}
	if d.link != nil {
		d.link.card = card
	}
	return card
}

// admit takes a card that somebody brought. It makes no account known: want says whose cards are of use to us.
func (c *core) admit(raw []byte, want func(account, device key.Public) bool) (*device, error) {
	card, err := envelope.ParseCard(raw)
	if err != nil {
		return nil, err
	}
	return c.admitCard(card, raw, want)
}

func (c *core) admitCard(card *envelope.Card, raw []byte, want func(account, device key.Public) bool) (*device, error) {
	if card.Device == c.self {
		return nil, nil
	}
	if d := c.devices[card.Device]; d != nil && d.rec.Card >= card.Number && d.account != nil {
		return d, nil
	}
	if c.accounts[card.Account] == nil && !want(card.Account, card.Device) {
		return nil, fmt.Errorf("card of %s: %w", card.Account.Short(), ErrNoContact)
	}
	a := c.accountOf(card.Account)
	if !c.cardRoom(a, c.devices[card.Device], len(raw)) {
		c.count("cards_no_room")
		return nil, fmt.Errorf("card of %s: no room in the store: %w", card.Device.Short(), ErrBookFull)
	}
	if card.Account != card.Device {
		c.begin(a)
		if err := a.auth.Admit(c.at, card); err != nil && !errors.Is(err, envelope.ErrStale) {
			return nil, err
		}
		c.saveAuthority(a)
	}
	d := c.deviceOf(card.Device, a)
	fresh := d.rec.Card == 0
	d.rec.Card, d.rec.Place, d.rec.Mails = card.Number, card.Place, card.Mailboxes
	if d.link != nil {
		d.link.card = nil
	}
	c.saveDevice(d)
	c.put(bCard, be32(d.number), raw)
	c.deviceKnown(a, d, fresh)
	return d, nil
}

// deviceKnown hands over what waited for a device of its account.
func (c *core) deviceKnown(a *account, d *device, fresh bool) {
	if a.key == c.account && d.key != c.self && fresh {
		c.askHistory(d)
		_ = c.renew() // a sibling is a mailbox
	}
	if a.waiting {
		c.handing[a] = true
	}
	for s := range d.out {
		if d.out[s].Floor < d.out[s].Next {
			c.busy[d] = true
		}
	}
	if d.link != nil && d.link.up {
		c.pump(d.link)
	}
}

// handOver gives what waited for an account to its devices, when all cards of a frame are in: else the first would get all and the
// others nothing.
func (c *core) handOver() {
	for a := range c.handing {
		delete(c.handing, a)
		if !a.waiting {
			continue
		}
		a.waiting = false
		prefix := be32(a.number)
		for _, e := range c.db.list(bWait, prefix, after(prefix), 1<<20, false) {
			c.db.delete(bWait, e.key)
			c.toAccount(a, e.value)
		}
	}
}

// adopt gives a device that has become known the link that it has made before. Without it a second one would be dialed, which the
// other end, for whom the first one serves, ends again and again.
func (c *core) adopt(d *device) {
	for l := range c.links {
		if l.up && l.dev == nil && l.peer == d.key {
			c.attach(l, d)
		}
	}
}

// admitBrought takes the cards of an account that links have brought before anybody here had to do with it.
func (c *core) admitBrought(a *account) {
	for l := range c.links {
		for k, x := range l.cards {
			if x.card.Account != a.key {
				continue
			}
			delete(l.cards, k)
			if _, err := c.admitCard(x.card, x.raw, nobody); err != nil {
				c.count("cards_refused")
			}
		}
	}
}

// ourCards are those of our account: our own, and what siblings gave us.
func (c *core) ourCards() [][]byte {
	all := [][]byte{c.rawCard}
	for _, d := range c.siblings() {
		if raw := c.db.get(bCard, be32(d.number)); raw != nil {
			all = append(all, raw)
		}
	}
	return all
}
