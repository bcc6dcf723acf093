package messenger

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// strangersASecond bounds the envelopes opened for devices that nobody here knows, all together: each costs a
// millisecond of a router, and keys are made for nothing.
const strangersASecond = 10

// bucketOfTokens lets so many pass in a second.
type bucketOfTokens struct {
	at   time.Time
	left float64
}

func (b *bucketOfTokens) pass(now time.Time, aSecond, burst float64) bool {
	if b.at.IsZero() {
		b.left = burst
	} else if d := now.Sub(b.at).Seconds(); d > 0 {
		b.left = min(burst, b.left+d*aSecond)
	}
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// mayOpen says whether an envelope for us is opened at all: of those who are known, always.
func (c *core) mayOpen(l *link) bool {
	if l.dev != nil && l.dev.account != nil {
		return true
	}
	if c.strange.pass(c.now, strangersASecond, 10*strangersASecond) {
		return true
	}
	c.count("strangers_deferred")
	return false
}

// authentic tells whether the device of a bundle speaks for its account.
func (c *core) authentic(b *envelope.Bundle, brought strangerCard) bool {
	if b.Account == b.Device {
		return true
	}
	a := c.accounts[b.Account]
	if a != nil && c.speaks(a, b.Device) {
		return true
	}
	if brought.card == nil || brought.card.Account != b.Account {
		return false
	}
	if a != nil {
		_, err := c.admitCard(brought.card, brought.raw, nobody)
		return err == nil && c.speaks(a, b.Device)
	}
	return envelope.NewAuthority(b.Account, 0, c.at, nil).Admit(c.at, brought.card) == nil
}

// judgeFirst looks at the first bundle of an unknown device: if anything in it is taken, its items are judged one by one, so that
// what is refused takes nothing else with it.
func (c *core) judgeFirst(b *envelope.Bundle, bits uint8) Verdict {
	if b.Account == c.account {
		return Take
	}
	for i := range b.Items {
		if it := &b.Items[i]; it.Seq != 0 && c.book.peek(b.Account, incomingOf(it, bits), c.now) == Take {
			return Take
		}
	}
	all := Drop // receipts and cards of one whom we never wrote to
	for i := range b.Items {
		if it := &b.Items[i]; it.Seq != 0 {
			if v, _ := c.judge(b.Account, it, bits); v == Hold {
				all = Hold
			}
		}
	}
	return all
}

// How long a stranger's things are held because another device of ours may know better, and of how many.
const (
	untoldLife = 5 * time.Minute
	maxUntold  = 256
)

// judge says what becomes of an item. What a stranger can only say if another device of our account has confirmed it, or with the
// token of an invite made there, is held for a while: we shall be told.
func (c *core) judge(from key.Public, it *envelope.Item, bits uint8) (Verdict, Reason) {
	in := incomingOf(it, bits)
	v, why := c.book.Judge(from, in, c.now)
	if v != Drop || why != ReasonClosed && why != ReasonStranger || len(c.siblings()) == 0 {
		return v, why
	}
	if w, err := parseWord(in.Word); in.Word != nil && (err != nil || w.op == opGone || w.op == opAsk && w.token == [16]byte{}) {
		return v, why
	}
	end, held := c.untold[from]
	if !held {
		for k, t := range c.untold {
			if c.now.Sub(t) > time.Hour {
				delete(c.untold, k)
			}
		}
		if len(c.untold) >= maxUntold {
			return v, why
		}
		end = c.now.Add(untoldLife)
		c.untold[from] = end
	}
	if c.now.After(end) {
		return v, why
	}
	c.count("held_for_siblings")
	return Hold, why
}

// ofGroup tells whether an item is a group's.
func ofGroup(it *envelope.Item) bool {
	return it.Kind == envelope.KindGroup || it.Group != envelope.GroupID{}
}

func incomingOf(it *envelope.Item, bits uint8) Incoming {
	in := Incoming{Text: it.Kind == envelope.KindText, Moved: it.Kind == envelope.KindKeyChange, Group: ofGroup(it), Bytes: len(it.Body), Bits: bits}
	if it.Kind == envelope.KindContact {
		in.Word = it.Body
	}
	return in
}
