package messenger

import (
	"encoding/json"
	"fmt"
	"time"

	"skywire/mesh/key"
)

// Strangers is what is done with accounts that are no contacts.
type Strangers string

// The policies.
const (
	StrangersClosed Strangers = "closed" // only who has a token of ours
	StrangersStamp  Strangers = "stamp"  // who has worked for it
	StrangersOpen   Strangers = "open"   // anyone, within the quotas
)

// Quotas of strangers. Their messages are short because nobody has asked for them; the rest waits on their side until a person
// has confirmed them.
const (
	strangerBytes = 2 << 10
	// asksAnHour bounds the new accounts that may ask, all together: an attacker makes keys for nothing.
	asksAnHour = 60
)

// Policy is what strangers may.
type Policy struct {
	Strangers Strangers
	Bits      uint8 // of the stamp
	// Bytes bounds what strangers hold of the store, all together.
	Bytes int64
}

// ParseStrangers reads a policy.
func ParseStrangers(s string) (Strangers, error) {
	switch p := Strangers(s); p {
	case "":
		return StrangersClosed, nil
	case StrangersClosed, StrangersStamp, StrangersOpen:
		return p, nil
	}
	return "", fmt.Errorf("strangers %q: %w: closed, stamp or open", s, ErrFormat)
}

// Verdict is what becomes of an item.
type Verdict uint8

// The verdicts. What is held stays with the sender, which asks again later, or is kept without being shown, as the engine
// chooses; what is dropped is answered as refused, or, for a blocked account, not at all.
const (
	Take Verdict = iota
	Hold
	Drop
)

// Reason says why something was not taken: the name of a counter.
type Reason string

// The reasons.
const (
	ReasonBlocked  Reason = "blocked"
	ReasonChanged  Reason = "changed"
	ReasonClosed   Reason = "closed"
	ReasonStamp    Reason = "stamp"
	ReasonQuota    Reason = "quota"
	ReasonRate     Reason = "rate"
	ReasonStranger Reason = "stranger" // of a kind that only contacts may send
)

// Incoming is what Judge wants to know of an item.
type Incoming struct {
	Word  []byte // the body, if it is a contact word; nil otherwise
	Text  bool   // it is a text
	Moved bool   // it is a change of key
	Group bool   // it is a group's: a roster, or a text said in one
	Bytes int    // of its body
	Bits  uint8  // of the stamp on the envelope that it came in
}

// Judge says what becomes of an item of an account. Count drops by Drops.
func (b *Book) Judge(from key.Public, in Incoming, now time.Time) (Verdict, Reason) {
	v, why := b.judge(from, in, now)
	if v == Drop {
		b.drops[why]++
	}
	return v, why
}

// peek is Judge without counting anything.
func (b *Book) peek(from key.Public, in Incoming, now time.Time) Verdict {
	gate, held := b.gate, 0
	c := b.contacts[from]
	if c != nil {
		held = c.Held
	}
	v, _ := b.judge(from, in, now)
	if b.gate = gate; c != nil {
		c.Held = held
	}
	return v
}

func (b *Book) judge(from key.Public, in Incoming, now time.Time) (Verdict, Reason) {
	c := b.contacts[from]
	standing := b.Standing(from)
	switch standing {
	case Confirmed:
		return Take, ""
	case Blocked:
		return Drop, ReasonBlocked
	case Changed:
		if !in.Moved { // it may correct itself, which makes it no more trusted
			return Hold, ReasonChanged
		}
	}
	if in.Moved {
		return Take, "" // nothing is done by itself: a person looks at it
	}
	if b.changedTo(from) != nil {
		return Hold, ReasonChanged
	}
	if in.Group && b.mates[from] {
		return Take, ""
	}
	if in.Word != nil {
		return b.judgeWord(from, standing, in, now)
	}
	switch {
	case standing == Stranger || !in.Text || in.Group:
		return Drop, ReasonStranger
	case c.Held+in.Bytes > strangerBytes:
		return Hold, ReasonQuota
	case b.heldByStrangers()+int64(in.Bytes) > b.policy.Bytes:
		return Drop, ReasonQuota
	}
	c.Held += in.Bytes
	b.dirty[from] = true
	return Take, ""
}

// judgeWord judges what one who is not confirmed says of being a contact.
func (b *Book) judgeWord(from key.Public, standing Standing, in Incoming, now time.Time) (Verdict, Reason) {
	w, err := parseWord(in.Word)
	switch {
	case err != nil:
		return Drop, ReasonStranger
	case standing == Asked, w.op == opGone:
		return Take, ""
	case w.op == opAsk && b.token(w.token, from, now) != nil:
		return Take, ""
	case w.op != opAsk:
		return Drop, ReasonStranger
	case b.policy.Strangers == StrangersClosed || b.policy.Strangers == "":
		return Drop, ReasonClosed
	case b.policy.Strangers == StrangersStamp && in.Bits < b.policy.Bits:
		return Drop, ReasonStamp
	case standing == Asking:
		return Take, ""
	}
	b.forgetOld(now)
	if b.asking >= MaxAsking {
		return Drop, ReasonQuota
	}
	if !b.gate.pass(now) {
		return Drop, ReasonRate
	}
	return Take, ""
}

// heldByStrangers is what those who are not confirmed have in the store.
func (b *Book) heldByStrangers() (n int64) {
	for _, c := range b.contacts {
		n += int64(c.Held)
	}
	return n
}

// forgetOld drops those who have asked long ago and got no answer.
func (b *Book) forgetOld(now time.Time) {
	if b.asking < MaxAsking {
		return
	}
	for _, c := range b.contacts {
		if c.Standing == Asking && now.Sub(c.Since) > askingLife {
			b.drop(c)
		}
	}
}

// Drops is how many items were dropped, by reason.
func (b *Book) Drops() map[Reason]uint64 {
	all := make(map[Reason]uint64, len(b.drops))
	for r, n := range b.drops {
		all[r] = n
	}
	return all
}

// gate lets asksAnHour pass, a few of them at once.
type gate struct {
	at   time.Time
	left float64
}

func (g *gate) pass(now time.Time) bool {
	const burst = asksAnHour / 4
	if g.at.IsZero() {
		g.left = burst
	} else if d := now.Sub(g.at); d > 0 {
		g.left = min(burst, g.left+d.Hours()*asksAnHour)
	}
	g.at = now
	if g.left < 1 {
		return false
	}
	g.left--
	return true
}

// AppendContact encodes a contact for the store.
func AppendContact(dst []byte, c *Contact) []byte { return appendJSON(dst, c) }

// ParseContact decodes one.
func ParseContact(b []byte) (*Contact, error) {
	c := new(Contact)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("contact: %w: %v", ErrFormat, err)
	}
	return c, nil
}

// AppendToken encodes a token for the store, where it lies sealed.
func AppendToken(dst []byte, t *Token) []byte { return appendJSON(dst, t) }

// ParseToken decodes one.
func ParseToken(b []byte) (*Token, error) {
	t := new(Token)
	if err := json.Unmarshal(b, t); err != nil {
		return nil, fmt.Errorf("token: %w: %v", ErrFormat, err)
	}
	return t, nil
}

func appendJSON(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("messenger: encode: " + err.Error()) // only types of this package, which can be encoded
	}
	return append(dst, b...)
}
