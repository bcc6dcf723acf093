package messenger

import (
	"context"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Send queues something for an account and returns its id when it is on disk.
func (e *Engine) Send(ctx context.Context, o Outgoing) (MessageID, error) {
	return e.SendGroup(ctx, []key.Public{o.To}, o)
}

// SendGroup sends the same to several accounts as one message.
func (e *Engine) SendGroup(ctx context.Context, to []key.Public, o Outgoing) (id MessageID, err error) {
	err = e.durable(ctx, func(c *core) error {
		id, err = c.send(to, o)
		return err
	})
	return id, err
}

// Cancel gives up a message that no device has yet.
func (e *Engine) Cancel(id MessageID) error {
	return e.durable(context.Background(), func(c *core) error { return c.cancel(id) })
}

// Message returns one of the history.
func (e *Engine) Message(id MessageID) (m Message, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.core.enter(e.cfg.Now())
	no, _ := e.core.known(id)
	if r := e.core.record(no); no != 0 && r != nil {
		return e.core.message(r), nil
	}
	return m, ErrNoMessage
}

// Messages lists the history, oldest first.
func (e *Engine) Messages(_ context.Context, q Query) ([]Message, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.core.enter(e.cfg.Now())
	return e.core.query(q), nil
}

// Changed closes when something that the other methods show is another.
func (e *Engine) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// Wait returns when a message has come as far as s or has failed, or with the error of ctx; always with the message as it is.
func (e *Engine) Wait(ctx context.Context, id MessageID, s State) (Message, error) {
	for {
		changed := e.Changed()
		m, err := e.Message(id)
		if err != nil || m.State.reaches(s) {
			return m, err
		}
		if m.State == Failed {
			return m, fmt.Errorf("%w: %s", ErrFailed, m.Reason)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}

// MarkRead notes that messages of others were read, and tells them unless the configuration says not to.
func (e *Engine) MarkRead(ids []MessageID) error {
	return e.durable(context.Background(), func(c *core) error { return c.markRead(ids, !c.cfg.Discreet) })
}

// Book runs fn on the contacts; what it changes is kept when Book returns.
func (e *Engine) Book(fn func(b *Book, now time.Time) error) error {
	return e.durable(context.Background(), func(c *core) error {
		err := fn(c.book, c.now)
		if !c.saveBook() {
			return err
		}
		c.change()
		for d := range c.busy {
			if d.link != nil {
				d.link.pumpDue = true
			}
		}
		return err
	})
}

// Word sends a contact word to an account, at a place if no device of it is known.
func (e *Engine) Word(to key.Public, at envelope.Place, body []byte) error {
	return e.durable(context.Background(), func(c *core) error {
		c.sayWord(to, at, body)
		return nil
	})
}

// AddLink asks whom a link names to be a contact.
func (e *Engine) AddLink(l *envelope.Link, name, hello string) (v Contact, err error) {
	err = e.durable(context.Background(), func(c *core) error {
		bare := *l
		bare.Token = envelope.Token{}
		added, err := c.book.Add(l.Account, l.Token, bare.Text(), name, hello, c.cfg.Name, c.now)
		v = added.Contact
		c.saveBook()
		if err != nil {
			return err
		}
		if added.Word != nil {
			c.sayWord(l.Account, l.Place, added.Word)
		}
		c.change()
		return nil
	})
	return v, err
}

// Invite makes a link that confirms whoever takes it.
func (e *Engine) Invite(name string, uses int, life time.Duration) (l *envelope.Link, err error) {
	err = e.durable(context.Background(), func(c *core) error {
		t, err := c.book.Invite(name, uses, life, c.now)
		if err != nil {
			return err
		}
		c.saveBook()
		l = c.link()
		l.Token = envelope.Token(t.Secret)
		return nil
	})
	return l, err
}

// Link is our own without a token.
func (e *Engine) Link() *envelope.Link {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.core.link()
}

func (c *core) link() *envelope.Link { return &envelope.Link{Account: c.account, Place: c.card.Place} }

// Card is our card as signed.
func (e *Engine) Card() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.core.rawCard
}

// Renew makes a new card if what stands in it has changed: the place, the mailboxes, the certificate.
func (e *Engine) Renew() (err error) {
	e.call(func(c *core) { err = c.renew() })
	return err
}

// Seen says when something of each account was opened last, since the start.
func (e *Engine) Seen() map[key.Public]time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := map[key.Public]time.Time{}
	for a, t := range e.core.seen {
		all[a.key] = t
	}
	return all
}

// Device is one that is known.
type Device struct {
	Account key.Public `json:"account,omitzero"`
	Device  key.Public `json:"device"`
	Card    uint64     `json:"card"`
	Linked  bool       `json:"linked"`
	Queue   uint64     `json:"queue"`          // numbers not answered
	Kept    int        `json:"kept"`           // envelopes in our mailbox for it
	Owed    bool       `json:"owed,omitempty"` // it has yet to be told what came of it
	Next    time.Time  `json:"next,omitzero"`
}

// Devices lists those of an account, or all.
func (e *Engine) Devices(of key.Public) (all []Device) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, d := range e.core.devices {
		v := Device{Device: d.key, Card: d.rec.Card, Linked: d.link != nil && d.link.up, Kept: d.kept, Next: d.dialAt.UTC()}
		if d.account != nil {
			v.Account = d.account.key
		}
		for s := range d.out {
			v.Queue += d.out[s].Next - d.out[s].Floor
			v.Owed = v.Owed || d.in[s].Owed
		}
		if of.IsZero() || v.Account == of {
			all = append(all, v)
		}
	}
	return all
}

// Status is what the engine shows of itself.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.core
	s := Status{
		Account: c.account, Device: c.self, Card: c.card.Number, Store: c.db.live(), Quota: c.cfg.Quota, Mailbox: c.box.total,
		Writes: c.cfg.Store.Writes(), Counters: map[string]uint64{},
	}
	for l := range c.links {
		if l.up {
			s.Links++
		}
	}
	for _, d := range c.devices {
		for i := range d.out {
			s.Queue += int(d.out[i].Next - d.out[i].Floor)
		}
	}
	for k, v := range c.counters {
		s.Counters[k] = v
	}
	for r, n := range c.book.Drops() {
		s.Counters["judged_"+string(r)] = n
	}
	if h := time.Since(e.started).Hours(); h > 0 {
		s.PerHour = float64(s.Writes) / h
	}
	return s
}
