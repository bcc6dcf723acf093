package envelope

import (
	"encoding/binary"
	"fmt"
	"unicode"
	"unicode/utf8"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Bounds of a card.
const (
	MaxCard       = 16 << 10 // bytes: 8 statements of 2 KiB would fill it, and mostly it has two of 300
	MaxName       = 64       // bytes of UTF-8: a name for people, who see the petname first
	MaxMailboxes  = 4
	MaxPrekeys    = 4 // this day's of two suites, and the next ones while they change
	MaxStatements = 8 // the admin list, the certificate, and revocations of devices that were

	// StrangersClosed in a card's Stamp says that a stranger needs a token; 0 that he needs nothing.
	StrangersClosed = 255
)

// Card is a device's signed statement of itself: what another needs to find it and to seal for it.
type Card struct {
	Account, Device key.Public // equal: the device speaks for itself
	Number          uint64     // a higher one replaces the card; NextNumber gives it
	Issued          int64      // unix seconds
	Name            string     // as its owner calls it; no proof of anything
	Place           Place
	Mailboxes       []Mailbox
	Stamp           uint8 // bits of work that a stranger's envelope must show, or StrangersClosed
	Prekeys         []Prekey
	Statements      [][]byte // of the account's cluster: admin list, certificate of the device, revocations; none if equal
}

// Mailbox is a device that keeps envelopes for the device of the card.
type Mailbox struct {
	Device key.Public
	Place  Place
}

// NextNumber is the number of a card made now after one with number last: the time, so that it rises though the box lost its
// memory, and at least one more.
func NextNumber(last uint64, now int64) uint64 { return max(last+1, uint64(max(now, 1))) }

// Sign encodes the card and signs it with the device's key:
//
//	version 1 │ device 32 │ cluster 1 (1: account 32 follows) │ number 8 │ issued 8 │ stamp 1 │ name {length 1, text} │
//	place │ mailboxes 1 │ each {device 32, place} │ prekeys 1 │ each {suite 1, id 4, not_before 8, not_after 8, key} │
//	statements 1 │ each {length 2, bytes} │ signature 64
func (c *Card) Sign(d *key.Private) ([]byte, error) {
	self := d.Public()
	if c.Device != self {
		return nil, fmt.Errorf("sign card: the device is %s, the key of %s: %w", c.Device.Short(), self.Short(), ErrFormat)
	}
	b := append([]byte{version}, c.Device[:]...)
	if c.Account == c.Device {
		b = append(b, 0)
	} else {
		b = append(append(b, 1), c.Account[:]...)
	}
	b = binary.BigEndian.AppendUint64(b, c.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Issued))
	b = appendText(append(b, c.Stamp), c.Name)
	b = append(c.Place.append(b, c.Account), byte(len(c.Mailboxes)))
	for _, m := range c.Mailboxes {
		b = m.Place.append(append(b, m.Device[:]...), c.Account)
	}
	b = append(b, byte(len(c.Prekeys)))
	for _, p := range c.Prekeys {
		b = p.append(b)
	}
	b = append(b, byte(len(c.Statements)))
	for _, s := range c.Statements {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	raw := sign(b, "card", d)
	if _, err := ParseCard(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err) // what no one would take is not signed
	}
	return raw, nil
}

// ParseCard decodes a card and checks the device's signature. Whether the device speaks for the account says an Authority.
func ParseCard(raw []byte) (*Card, error) {
	c, body, sig, err := signed(raw, MaxCard, "card")
	if err != nil {
		return nil, err
	}
	v := &Card{Device: c.identity()}
	v.Account = v.Device
	switch c.U8() {
	case 0:
	case 1:
		v.Account = c.identity()
		c.Bad = c.Bad || v.Account == v.Device
	default:
		c.Bad = true
	}
	v.Number, v.Issued, v.Stamp, v.Name = c.U64(), c.Unix(), c.U8(), c.text(MaxName)
	v.Place = c.place(v.Account)
	c.Bad = c.Bad || v.Number == 0 || v.Stamp > MaxStamp && v.Stamp != StrangersClosed || !ValidName(v.Name)
	for range c.count(MaxMailboxes) {
		v.Mailboxes = append(v.Mailboxes, Mailbox{Device: c.identity(), Place: c.place(v.Account)})
	}
	for i := range c.count(MaxPrekeys) {
		p := c.prekey()
		c.Bad = c.Bad || i > 0 && !v.Prekeys[i-1].less(p)
		v.Prekeys = append(v.Prekeys, p)
	}
	n := c.count(MaxStatements)
	c.Bad = c.Bad || (n == 0) != (v.Account == v.Device)
	for range n {
		l := int(c.U16())
		c.Bad = c.Bad || l == 0 || l > member.MaxStatement
		v.Statements = append(v.Statements, c.bytes(l))
	}
	if err := c.end("card"); err != nil {
		return nil, err
	}
	return v, verifyCard(v, body, sig)
}

func verifyCard(v *Card, body, sig []byte) error { return verify(v.Device, "card", body, sig) }

// count takes the number of entries that follow; 0 if that is too many.
func (c *cursor) count(most int) int {
	n := int(c.U8())
	if n > most {
		c.Bad = true
	}
	if c.Bad {
		return 0
	}
	return n
}

// ValidName tells whether s may be the name in a card: UTF-8 that shows as one line, or nothing. Letters that steer a
// terminal or turn the direction of writing are none.
func ValidName(s string) bool {
	if len(s) > MaxName || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// Pick chooses the prekey to seal a bundle for this card with: the newest that holds at now (unix seconds) and for some time
// of travel beyond. Hybrid it is when the bundle is large enough to carry it, or both accounts are clusters.
func (c *Card) Pick(now int64, b *Bundle) (Prekey, error) {
	want := SuiteX25519
	if b.Account != b.Device && c.Account != c.Device || b.size() > HybridOver {
		want = SuiteHybrid
	}
	var best Prekey
	for _, p := range c.Prekeys {
		if p.NotAfter < now+int64(minTravel.Seconds()) || best.ID != 0 && best.Suite == want && p.Suite != want {
			continue
		}
		if best.ID == 0 || best.Suite != want && p.Suite == want || p.ID > best.ID {
			best = p
		}
	}
	if best.ID == 0 {
		return best, fmt.Errorf("card %d of %s: %w", c.Number, c.Device.Short(), ErrNoPrekey)
	}
	return best, nil
}
