package messenger

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// ContactParams are those of all methods of contacts.
type ContactParams struct {
	Who   string `json:"who,omitempty"`  // a name, a key, or a contact link
	Name  string `json:"name,omitempty"` // our petname
	Hello string `json:"hello,omitempty"`
	Uses  int    `json:"uses,omitempty"`
	Life  int64  `json:"life_s,omitempty"`
	Scope string `json:"scope,omitempty"`
	Yes   *bool  `json:"yes,omitempty"`
	// Number is the safety number that a person has in hand; verify compares it, confirm of a changed key wants it.
	Number string `json:"number,omitempty"`
}

// ContactInfo is a contact as the socket shows it.
type ContactInfo struct {
	Contact
	Online bool      `json:"online"`
	Seen   time.Time `json:"seen,omitzero"`
	// Safety is the number to compare by voice: with the key that we hold, or, of a changed contact, with the new one.
	Safety string `json:"safety_number,omitempty"`
}

// Invited is what contact.invite made.
type Invited struct {
	Link    string    `json:"link"`
	QR      string    `json:"qr"`
	Uses    int       `json:"uses"`
	Expires time.Time `json:"expires"`
}

func (s *Server) contactMethods() map[string]Method {
	// on makes a Method that does something to one contact, tells the other side what do returns, and shows what it is then.
	on := func(do func(b *Book, who key.Public, p ContactParams, now time.Time) (to key.Public, word []byte, err error)) Method {
		return bind(func(ctx context.Context, p ContactParams) (any, error) {
			who, err := s.account(ctx, p.Who)
			if err != nil {
				return nil, err
			}
			return s.change(ctx, who, func(b *Book, now time.Time) (key.Public, []byte, error) { return do(b, who, p, now) })
		})
	}
	return map[string]Method{
		"contact.invite": bind(s.invite),
		"contact.add":    bind(s.add),
		"contact.list":   bind(func(context.Context, ContactParams) (any, error) { return s.contacts() }),
		"contact.show": bind(func(ctx context.Context, p ContactParams) (any, error) {
			who, err := s.account(ctx, p.Who)
			if err != nil {
				return nil, err
			}
			return s.contact(who, true)
		}),
		"contact.confirm": bind(s.confirm),
		"contact.keep": on(func(b *Book, who key.Public, _ ContactParams, now time.Time) (key.Public, []byte, error) {
			return who, nil, b.Keep(who, now)
		}),
		"contact.verify": bind(s.verify),
		"contact.block": on(func(b *Book, who key.Public, _ ContactParams, now time.Time) (key.Public, []byte, error) {
			return who, nil, b.Block(who, now)
		}),
		"contact.unblock": on(func(b *Book, who key.Public, _ ContactParams, now time.Time) (key.Public, []byte, error) {
			return who, nil, b.Unblock(who, now)
		}),
		"contact.allow": on(func(b *Book, who key.Public, p ContactParams, _ time.Time) (key.Public, []byte, error) {
			scope, err := ParseScope(p.Scope)
			if err != nil {
				return who, nil, signal.Errorf(signal.ErrUsage, "%v", err)
			}
			return who, nil, b.Allow(who, scope)
		}),
		"contact.rename":   bind(s.rename),
		"contact.remove":   bind(s.remove),
		"contact.withdraw": bind(s.withdraw),
		"contact.moved":    bind(s.moved),
	}
}

// change does something to a contact, tells the other side, and shows the contact.
func (s *Server) change(ctx context.Context, who key.Public, do func(b *Book, now time.Time) (key.Public, []byte, error)) (any, error) {
	var word []byte
	err := s.c.Engine.Book(func(b *Book, now time.Time) (err error) {
		who, word, err = do(b, now)
		return err
	})
	if err != nil {
		return nil, err
	}
	if word != nil {
		if err := s.c.Engine.Word(who, envelope.Place{}, word); err != nil {
			return nil, err
		}
	}
	return s.contact(who, false)
}

func (s *Server) invite(_ context.Context, p ContactParams) (any, error) {
	uses, life := max(p.Uses, 1), time.Duration(p.Life)*time.Second
	if life <= 0 {
		life = DefaultExpiry
	}
	l, err := s.c.Engine.Invite(p.Name, uses, life)
	if err != nil {
		return nil, err
	}
	return Invited{l.Text(), l.QRText(), uses, time.Now().Add(life).UTC().Truncate(time.Second)}, nil
}

// add asks somebody: by a link, or one whom the node of this box can find by key or name.
func (s *Server) add(ctx context.Context, p ContactParams) (any, error) {
	l := &envelope.Link{Place: s.c.Place()}
	var err error
	if envelope.IsLink(p.Who) {
		if l, err = envelope.ParseLink(p.Who); err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "%v", err)
		}
	} else {
		if l.Account, err = s.account(ctx, p.Who); err != nil {
			return nil, err
		}
		l.Place.Contacts = nil
	}
	c, err := s.c.Engine.AddLink(l, p.Name, p.Hello)
	if err != nil {
		return nil, err
	}
	s.tellPetname(ctx, c.Name, c.Account)
	return s.contact(c.Account, false)
}

// tellPetname shares our name for an account with the node, so that every NODE of the box may be said so. What the node has
// against it (the name stands in its configuration) is no reason to fail here.
func (s *Server) tellPetname(ctx context.Context, name string, k key.Public) {
	if s.c.Petname == nil || name == "" {
		return
	}
	if err := s.c.Petname(ctx, name, k); err != nil {
		s.c.Log.Info("the node does not take the name", "name", name, "err", err)
	}
}

func (s *Server) contacts() (any, error) {
	var all []Contact
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		all = b.All()
		return nil
	})
	list := make([]ContactInfo, 0, len(all))
	for _, c := range all {
		list = append(list, s.info(c, false))
	}
	return list, err
}

func (s *Server) info(c Contact, safety bool) ContactInfo {
	c.Token = nil
	i := ContactInfo{Contact: c}
	if s.c.Presence != nil {
		i.Online, i.Seen = s.c.Presence.Of(c.Account)
	}
	if safety {
		other := c.Account
		if c.NewAccount != nil {
			other = *c.NewAccount
		}
		i.Safety = envelope.SafetyNumber(s.c.Account, other)
	}
	return i
}

func (s *Server) contact(who key.Public, safety bool) (any, error) {
	var c Contact
	err := s.c.Engine.Book(func(b *Book, _ time.Time) (err error) {
		c, err = b.Get(who)
		return err
	})
	if err == ErrNoContact {
		c, err = Contact{Account: who}, nil
	}
	return s.info(c, safety), err
}

// confirm is a person's yes. The new key of a contact that changed wants the safety number, or a plain yes.
func (s *Server) confirm(ctx context.Context, p ContactParams) (any, error) {
	who, err := s.account(ctx, p.Who)
	if err != nil {
		return nil, err
	}
	var before Contact
	err = s.c.Engine.Book(func(b *Book, _ time.Time) (err error) {
		before, err = b.Get(who)
		return err
	})
	if err != nil {
		return nil, err
	}
	if p.Number != "" && !sameNumber(p.Number, s.info(before, true).Safety) {
		return nil, signal.Errorf(signal.ErrRefused, "the safety number is another: this is not the key that you have compared")
	}
	if before.Standing == Changed && p.Number == "" && (p.Yes == nil || !*p.Yes) {
		return nil, signal.Errorf(signal.ErrRefused, "%v (--number DIGITS, or --yes if the number was compared)", ErrChanged)
	}
	var after Contact
	res, err := s.change(ctx, who, func(b *Book, now time.Time) (key.Public, []byte, error) {
		a, err := b.Confirm(who, s.c.Claim, now)
		if err == nil && p.Name != "" {
			err = b.Rename(a.Contact.Account, p.Name)
			a.Contact.Name = p.Name
		}
		after = a.Contact
		return a.Contact.Account, a.Word, err
	})
	if err != nil {
		return nil, err
	}
	s.tellPetname(ctx, after.Name, after.Account)
	return res, nil
}

// sameNumber compares safety numbers as people write them.
func sameNumber(a, b string) bool {
	digits := func(s string) (d []byte) {
		for _, c := range []byte(s) {
			if c >= '0' && c <= '9' {
				d = append(d, c)
			}
		}
		return d
	}
	return string(digits(a)) == string(digits(b))
}

// verify shows the safety number; with a number it compares, with yes it notes what a person has compared.
func (s *Server) verify(ctx context.Context, p ContactParams) (any, error) {
	who, err := s.account(ctx, p.Who)
	if err != nil {
		return nil, err
	}
	yes := p.Yes
	if p.Number != "" {
		var c Contact
		if err := s.c.Engine.Book(func(b *Book, _ time.Time) (err error) { c, err = b.Get(who); return err }); err != nil {
			return nil, err
		}
		same := sameNumber(p.Number, s.info(c, true).Safety)
		if !same {
			return nil, signal.Errorf(signal.ErrRefused, "the safety number is another: somebody is between you, or one of you holds another key")
		}
		yes = &same
	}
	if yes != nil {
		err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
			if c, err := b.Get(who); err == nil && c.Standing == Changed && *yes {
				return ErrChanged
			}
			return b.Verify(who, *yes)
		})
		if err != nil {
			return nil, err
		}
	}
	return s.contact(who, true)
}

func (s *Server) rename(ctx context.Context, p ContactParams) (any, error) {
	who, err := s.account(ctx, p.Who)
	if err != nil {
		return nil, err
	}
	var old string
	res, err := s.change(ctx, who, func(b *Book, _ time.Time) (key.Public, []byte, error) {
		if c, err := b.Get(who); err == nil {
			old = c.Name
		}
		return who, nil, b.Rename(who, p.Name)
	})
	if err != nil {
		return nil, err
	}
	if old != "" && s.c.Petname != nil {
		_ = s.c.Petname(ctx, old, key.Public{}) // not there: as it should be
	}
	s.tellPetname(ctx, p.Name, who)
	return res, nil
}

// remove forgets a contact; what stands in the history stays.
func (s *Server) remove(ctx context.Context, p ContactParams) (any, error) {
	who, err := s.account(ctx, p.Who)
	if err != nil {
		return nil, err
	}
	var word []byte
	var was Contact
	err = s.c.Engine.Book(func(b *Book, _ time.Time) error {
		was, _ = b.Get(who)
		word, err = b.Remove(who)
		return err
	})
	if err != nil {
		return nil, err
	}
	if word != nil {
		err = s.c.Engine.Word(who, envelope.Place{}, word)
	}
	if was.Name != "" && s.c.Petname != nil {
		_ = s.c.Petname(ctx, was.Name, key.Public{})
	}
	return s.info(was, false), err
}

func (s *Server) withdraw(context.Context, ContactParams) (any, error) {
	n := 0
	err := s.c.Engine.Book(func(b *Book, _ time.Time) error {
		n = b.Withdraw()
		return nil
	})
	return CountResult{n}, err
}

// MovedParams is contact.moved: an envelope.KeyChange, from the key that we had to the one that we have.
type MovedParams struct {
	Statement []byte `json:"statement"`
}

// moved tells all contacts that our account had another key before.
func (s *Server) moved(ctx context.Context, p MovedParams) (any, error) {
	k, err := envelope.ParseKeyChange(p.Statement)
	if err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "%v", err)
	}
	if k.New != s.c.Account {
		return nil, signal.Errorf(signal.ErrUsage, "the statement is of %s, this account is %s", k.New, s.c.Account)
	}
	var to []key.Public
	err = s.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, c := range b.All() {
			if c.Standing == Confirmed || c.Standing == Asked {
				to = append(to, c.Account)
			}
		}
		return nil
	})
	if err != nil || len(to) == 0 {
		return CountResult{}, err
	}
	for _, k := range to {
		if _, err := s.c.Engine.Send(ctx, Outgoing{To: k, Kind: envelope.KindKeyChange, Body: p.Statement, Expires: MaxExpiry, Quiet: true}); err != nil {
			return nil, err
		}
	}
	return CountResult{len(to)}, nil
}
