package messenger

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Added says what came of Add and Confirm: whether a word goes to the other side.
type Added struct {
	Contact Contact
	Word    []byte // the body of an item of the kind contact to be sent to Contact.Account; nil: nothing is to be said
}

// Add asks an account to be a contact, under our name for it if there is one. token is that of its invite, or zero; link is where
// it is met, hello what a person reads on the other side.
func (b *Book) Add(account key.Public, token [16]byte, link, name, hello, claim string, now time.Time) (Added, error) {
	if account == b.self {
		return Added{}, ErrSelf
	}
	if name != "" && !member.ValidName(name) {
		return Added{}, ErrName
	}
	if other, taken := b.names[name]; taken && name != "" && other != account {
		b.change(b.contacts[other], account, false, now)
		return Added{Contact: *b.contacts[other]}, ErrChanged
	}
	c := b.contacts[account]
	switch {
	case c == nil && len(b.contacts) >= MaxContacts:
		return Added{}, ErrBookFull
	case c == nil:
		c = &Contact{Account: account, Link: link}
		b.put(c)
		b.set(c, Asked, now)
	case c.Standing == Blocked:
		return Added{Contact: *c}, ErrBlocked
	case c.Standing == Changed:
		return Added{Contact: *c}, ErrChanged
	}
	if name != "" {
		b.rename(c, name)
	}
	if link != "" {
		c.Link = link
	}
	b.dirty[account] = true
	if c.Standing == Asking {
		b.set(c, Confirmed, now)
		return Added{*c, word{op: opAccept, name: claim}.append(nil)}, nil
	}
	if c.Standing == Confirmed {
		return Added{Contact: *c}, nil
	}
	if token != [16]byte{} {
		c.Token = &token
	}
	w := word{op: opAsk, name: claim, text: hello}
	if c.Token != nil {
		w.token = *c.Token
	}
	return Added{*c, w.append(nil)}, nil
}

// Rename gives a contact another name of ours; "" takes it away.
func (b *Book) Rename(account key.Public, name string) error {
	c := b.contacts[account]
	switch {
	case c == nil:
		return ErrNoContact
	case name != "" && !member.ValidName(name):
		return ErrName
	}
	if other, taken := b.names[name]; taken && name != "" && other != account {
		return ErrNameTaken
	}
	b.rename(c, name)
	return nil
}

func (b *Book) rename(c *Contact, name string) {
	if c.Name != "" {
		delete(b.names, c.Name)
	}
	if c.Name = name; name != "" {
		b.names[name] = c.Account
	}
	b.dirty[c.Account] = true
}

// change notes that account is said to be the key of c now. Nothing is sent to c, and what it and account send is held, until a
// person confirms the one, or removes it.
func (b *Book) change(c *Contact, account key.Public, signed bool, now time.Time) {
	if c.Standing == Blocked {
		return
	}
	if c.Standing != Changed {
		c.Before = c.Standing
		b.set(c, Changed, now)
	}
	c.NewAccount, c.Signed, c.Verified = &account, signed, false
	b.dirty[c.Account] = true
}

// changedTo is the contact that is said to have the key account now, nil if there is none.
func (b *Book) changedTo(account key.Public) *Contact {
	for _, c := range b.contacts {
		if c.Standing == Changed && c.NewAccount != nil && *c.NewAccount == account {
			return c
		}
	}
	return nil
}

// Confirm is a person's yes: to one who asks, or to the new key of one who changed. The contact returned is that of the account
// from now on; the rights it had over this box are not carried over to another key.
func (b *Book) Confirm(account key.Public, claim string, now time.Time) (Added, error) {
	c := b.contacts[account]
	if c == nil {
		return Added{}, ErrNoContact
	}
	switch c.Standing {
	case Asking:
		b.set(c, Confirmed, now)
		return Added{*c, word{op: opAccept, name: claim}.append(nil)}, nil
	case Changed:
		n := *c
		b.drop(c)
		n.Account, n.NewAccount, n.Before, n.Control, n.Verified, n.Link = *c.NewAccount, nil, Stranger, ScopeNone, true, ""
		w := word{op: opAsk, name: claim}
		n.Standing = Asked
		if old := b.contacts[n.Account]; old != nil { // it has said a word of its own meanwhile
			n.Link, n.Claims, n.Token = old.Link, old.Claims, old.Token
			if old.Standing == Asking || old.Standing == Confirmed {
				n.Standing, w.op = Confirmed, opAccept
			}
			b.drop(old)
		}
		if n.Token != nil && w.op == opAsk {
			w.token = *n.Token
		}
		n.Since = now.UTC()
		b.put(&n)
		return Added{n, w.append(nil)}, nil
	case Blocked:
		return Added{Contact: *c}, ErrBlocked
	case Asked:
		return Added{Contact: *c}, ErrTheirTurn
	}
	return Added{Contact: *c}, nil
}

// Keep says that a contact that is said to have changed has not: the key that we hold is the right one.
func (b *Book) Keep(account key.Public, now time.Time) error {
	c := b.contacts[account]
	if c == nil || c.Standing != Changed {
		return ErrNotChanged
	}
	s := c.Before
	c.Before, c.NewAccount, c.Signed = Stranger, nil, false
	b.set(c, s, now)
	return nil
}

// Verify notes that a person has compared the safety number, or, with yes false, that it is not known any more.
func (b *Book) Verify(account key.Public, yes bool) error {
	c := b.contacts[account]
	if c == nil {
		return ErrNoContact
	}
	c.Verified = yes
	b.dirty[account] = true
	return nil
}

// Block takes nothing more of an account, known or not.
func (b *Book) Block(account key.Public, now time.Time) error {
	c := b.contacts[account]
	if c == nil {
		if len(b.contacts) >= MaxContacts {
			return ErrBookFull
		}
		c = &Contact{Account: account}
		b.put(c)
	}
	if c.Standing != Blocked {
		c.Before, c.Control = c.Standing, ScopeNone
		b.set(c, Blocked, now)
	}
	return nil
}

// Unblock puts a blocked account back to where it stood, without the rights over this box that it had.
func (b *Book) Unblock(account key.Public, now time.Time) error {
	c := b.contacts[account]
	if c == nil || c.Standing != Blocked {
		return ErrNotBlocked
	}
	s := c.Before
	c.Before = Stranger
	if s == Stranger {
		b.drop(c)
		return nil
	}
	b.set(c, s, now)
	return nil
}

// Remove forgets a contact. The word returned, if any, tells it.
func (b *Book) Remove(account key.Public) ([]byte, error) {
	c := b.contacts[account]
	if c == nil {
		return nil, ErrNoContact
	}
	b.drop(c)
	if c.Standing == Blocked {
		return nil, nil
	}
	return word{op: opGone}.append(nil), nil
}

// Allow sets what a confirmed contact may ask of this box.
func (b *Book) Allow(account key.Public, s Scope) error {
	c := b.contacts[account]
	switch {
	case c == nil:
		return ErrNoContact
	case s != ScopeNone && c.Standing != Confirmed:
		return ErrNotConfirmed
	}
	c.Control = s
	b.dirty[account] = true
	return nil
}

func (b *Book) drop(c *Contact) {
	if c.Standing == Asking {
		b.asking--
	}
	if c.Name != "" && b.names[c.Name] == c.Account {
		delete(b.names, c.Name)
	}
	delete(b.contacts, c.Account)
	b.dirty[c.Account] = true
}
