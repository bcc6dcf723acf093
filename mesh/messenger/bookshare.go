package messenger

import (
	"encoding/json"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// The devices of an account have one book: what a person decides at one of them, and the invites made there, the others hear of as
// contact words of an op of their own. The later decision counts. What a contact may have a box do stays with the box.
//
//	op 1 (4) │ JSON of shared
const opShare = 4

// maxShared keeps a share within an item.
const maxShared = envelope.MaxBody - 8<<10

type shared struct {
	Contacts []*Contact   `json:"contacts,omitempty"`
	Gone     []key.Public `json:"gone,omitempty"`
	Tokens   []*Token     `json:"tokens,omitempty"`
	Void     [][]byte     `json:"void,omitempty"`
}

// shareBook tells these devices of our account what has changed.
func (c *core) shareBook(to []*device, contacts map[key.Public]*Contact, tokens map[[16]byte]*Token) {
	if len(to) == 0 || c.mute || len(contacts)+len(tokens) == 0 {
		return
	}
	var s shared
	size := 0
	flush := func() {
		if size > 0 {
			body := appendJSON([]byte{opShare}, s)
			for _, d := range to {
				c.sayTo(d, envelope.KindContact, body, MaxExpiry)
			}
		}
		s, size = shared{}, 0
	}
	room := func(n int) {
		if size+n > maxShared {
			flush()
		}
		size += n
	}
	for k, v := range contacts {
		if v == nil {
			room(64)
			s.Gone = append(s.Gone, k)
			continue
		}
		x := *v
		x.Control, x.Held = ScopeNone, 0
		room(len(AppendContact(nil, &x)) + 1)
		s.Contacts = append(s.Contacts, &x)
	}
	for k, v := range tokens {
		if v == nil {
			room(32)
			s.Void = append(s.Void, append([]byte{}, k[:]...))
			continue
		}
		room(len(AppendToken(nil, v)) + 1)
		s.Tokens = append(s.Tokens, v)
	}
	flush()
}

// shareAll tells a device that is met for the first time all that is in the book.
func (c *core) shareAll(d *device) { c.shareBook([]*device{d}, c.book.contacts, c.book.tokens) }

// takeShared takes what another device of our account has decided.
func (c *core) takeShared(body []byte) {
	var s shared
	if len(body) == 0 || body[0] != opShare || json.Unmarshal(body[1:], &s) != nil {
		c.count("words_bad")
		return
	}
	c.book.share(s)
	c.mute = true // they know it
	c.saveBook()
	c.mute = false
	c.change()
	for _, x := range s.Contacts {
		if l, err := envelope.ParseLink(x.Link); err == nil {
			c.meet(x.Account, l.Place)
		}
		a := c.accounts[x.Account]
		if _, held := c.untold[x.Account]; held && c.book.Standing(x.Account) == Confirmed {
			delete(c.untold, x.Account) // it waits a minute otherwise to say again what was held
			c.say(c.accountOf(x.Account), envelope.KindContact, word{op: opAccept, name: c.cfg.Name}.append(nil), envelope.GroupID{}, DefaultExpiry)
		}
		if a != nil {
			c.moves(a)
		}
	}
}

// share takes the contacts and tokens of another device of the account.
func (b *Book) share(s shared) {
	for _, x := range s.Contacts {
		own := b.contacts[x.Account]
		if own != nil {
			if own.Since.After(x.Since) {
				continue
			}
			x.Control, x.Held = own.Control, own.Held
			if x.Standing != Confirmed {
				x.Control = ScopeNone
			}
			b.drop(own)
		} else {
			x.Control, x.Held = ScopeNone, 0
		}
		if other, taken := b.names[x.Name]; taken && other != x.Account {
			x.Name = ""
		}
		if x.Account != b.self && len(b.contacts) < MaxContacts {
			b.put(x)
		}
	}
	for _, k := range s.Gone {
		if own := b.contacts[k]; own != nil {
			b.drop(own)
		}
	}
	for _, t := range s.Tokens {
		if own := b.tokens[t.Secret]; own != nil {
			t.Uses = min(t.Uses, own.Uses)
		} else if len(b.tokens) >= MaxTokens {
			continue
		}
		b.tokens[t.Secret], b.dirtyTok[t.Secret] = t, true
	}
	for _, v := range s.Void {
		if len(v) == 16 {
			delete(b.tokens, [16]byte(v))
			b.dirtyTok[[16]byte(v)] = true
		}
	}
}
