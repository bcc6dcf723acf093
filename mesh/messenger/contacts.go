package messenger

import (
	"errors"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Standing is how far an account and we have come.
type Standing string

// The standings. Words of a stranger are its asking; what it asks is decided by the policy, then by a person.
const (
	Stranger  Standing = ""          // nothing was decided
	Asked     Standing = "asked"     // by us
	Asking    Standing = "asking"    // they us
	Confirmed Standing = "confirmed" // both said so
	Blocked   Standing = "blocked"   // nothing of it is taken, and it is told nothing
	Changed   Standing = "changed"   // it says that it has another key, or another key wants its name
)

// Bounds of a Book. A contact takes some 300 bytes of memory.
const (
	MaxContacts = 4096
	// MaxAsking bounds the strangers that wait for a person's word; each may hold a message of strangerBytes.
	MaxAsking = 256
	MaxTokens = 256
	// askingLife is how long one who asks is kept without an answer.
	askingLife = 30 * 24 * time.Hour
)

// Contact is an account, and what we decided of it.
type Contact struct {
	Account  key.Public `json:"account"`
	Name     string     `json:"name,omitempty"`   // our petname for it
	Claims   string     `json:"claims,omitempty"` // what it calls itself: shown, never believed
	Standing Standing   `json:"standing"`
	Since    time.Time  `json:"since"`
	Verified bool       `json:"verified,omitempty"` // a person has compared the safety number
	Hello    string     `json:"hello,omitempty"`    // what it said when it asked
	// Link is where it was met first, a contact URI without its token; its cards say better once there are some.
	Link string `json:"link,omitempty"`
	// Control is what it may ask of this box.
	Control Scope `json:"control,omitempty"`
	// Before is the standing that Changed or Blocked took the place of; NewAccount is the key that a changed one has now, and
	// Signed tells that the old key says so itself.
	Before     Standing    `json:"before,omitempty"`
	NewAccount *key.Public `json:"new_account,omitempty"`
	Signed     bool        `json:"signed,omitempty"`
	// Held is what one who is not confirmed has sent so far, in bytes.
	Held int `json:"held,omitempty"`
	// Token is the one that we have of its invite, until it answers.
	Token *[16]byte `json:"token,omitempty"`
}

// Book is all contacts, the tokens of our invites and the policy for strangers: a pure state machine. It reads no clock and
// keeps no file; Dirty says what is to be kept. One goroutine at a time.
type Book struct {
	self     key.Public
	policy   Policy
	contacts map[key.Public]*Contact
	names    map[string]key.Public
	tokens   map[[16]byte]*Token
	asking   int
	gate     gate
	mates    map[key.Public]bool // members of groups that we are in
	drops    map[Reason]uint64
	dirty    map[key.Public]bool
	dirtyTok map[[16]byte]bool
}

// NewBook returns an empty book of the account self.
func NewBook(self key.Public, p Policy) *Book {
	return &Book{
		self: self, policy: p, contacts: map[key.Public]*Contact{}, names: map[string]key.Public{}, tokens: map[[16]byte]*Token{},
		mates: map[key.Public]bool{}, drops: map[Reason]uint64{}, dirty: map[key.Public]bool{}, dirtyTok: map[[16]byte]bool{},
	}
}

// Load takes what was kept. It owns the elements from then on.
func (b *Book) Load(contacts []*Contact, tokens []*Token) {
	for _, c := range contacts {
		if len(b.contacts) < MaxContacts && c.Account != b.self && b.contacts[c.Account] == nil {
			b.put(c)
		}
	}
	for _, t := range tokens {
		if len(b.tokens) < MaxTokens {
			b.tokens[t.Secret] = t
		}
	}
	b.dirty, b.dirtyTok = map[key.Public]bool{}, map[[16]byte]bool{}
}

// Dirty is what changed since it was called last: contacts and tokens to be kept under their keys, or, where there is none of
// that key any more, to be forgotten.
func (b *Book) Dirty() (contacts map[key.Public]*Contact, tokens map[[16]byte]*Token) {
	contacts, tokens = map[key.Public]*Contact{}, map[[16]byte]*Token{}
	for k := range b.dirty {
		contacts[k] = b.contacts[k]
	}
	for k := range b.dirtyTok {
		tokens[k] = b.tokens[k]
	}
	b.dirty, b.dirtyTok = map[key.Public]bool{}, map[[16]byte]bool{}
	return contacts, tokens
}

// put holds c, under its name too, and counts it.
func (b *Book) put(c *Contact) {
	b.contacts[c.Account] = c
	if c.Name != "" {
		b.names[c.Name] = c.Account
	}
	if c.Standing == Asking {
		b.asking++
	}
	b.dirty[c.Account] = true
}

// set changes the standing of c.
func (b *Book) set(c *Contact, s Standing, now time.Time) {
	if c.Standing == Asking {
		b.asking--
	}
	if s == Asking {
		b.asking++
	}
	if s == Confirmed {
		c.Held, c.Token = 0, nil
	}
	c.Standing, c.Since = s, now.UTC()
	b.dirty[c.Account] = true
}

// Standing is that of an account.
func (b *Book) Standing(account key.Public) Standing {
	if c := b.contacts[account]; c != nil {
		return c.Standing
	}
	return Stranger
}

// Get returns a copy of a contact.
func (b *Book) Get(account key.Public) (Contact, error) {
	if c := b.contacts[account]; c != nil {
		return *c, nil
	}
	return Contact{}, ErrNoContact
}

// Find finds a contact by our name for it.
func (b *Book) Find(name string) (key.Public, bool) {
	k, ok := b.names[name]
	return k, ok
}

// All returns copies of all contacts, by name and then by key.
func (b *Book) All() []Contact {
	all := make([]Contact, 0, len(b.contacts))
	for _, c := range b.contacts {
		all = append(all, *c)
	}
	sort.Slice(all, func(i, j int) bool {
		x, y := all[i], all[j]
		if (x.Name == "") != (y.Name == "") {
			return x.Name != ""
		}
		return x.Name < y.Name || x.Name == y.Name && x.Account.Less(y.Account)
	})
	return all
}

// Take adds a contact from elsewhere as it stood there, without rights over this box. It reports whether it was not there; one that
// is, stays as it is.
func (b *Book) Take(c *Contact) bool {
	switch c.Standing {
	case Asked, Asking, Confirmed, Blocked, Changed:
	default:
		return false
	}
	if c.Account == b.self || b.contacts[c.Account] != nil || len(b.contacts) >= MaxContacts || c.Standing == Asking && b.asking >= MaxAsking {
		return false
	}
	if c.Standing == Changed && c.NewAccount == nil {
		c.Standing = Blocked
	}
	if _, taken := b.names[c.Name]; taken || !member.ValidName(c.Name) {
		c.Name = ""
	}
	c.Control, c.Token, c.Held = ScopeNone, nil, 0
	b.put(c)
	return true
}

// Scope is what an account may ask of this box.
func (b *Book) Scope(account key.Public) Scope {
	if c := b.contacts[account]; c != nil && c.Standing == Confirmed {
		return c.Control
	}
	return ScopeNone
}

// MaySend tells whether something may go to an account: nil, ErrTheirTurn (it waits until they confirm), or why not.
func (b *Book) MaySend(account key.Public) error {
	switch b.Standing(account) {
	case Confirmed:
		return nil
	case Asked:
		return ErrTheirTurn
	case Asking:
		return ErrOurTurn
	case Blocked:
		return ErrBlocked
	case Changed:
		return ErrChanged
	}
	if b.changedTo(account) != nil {
		return ErrChanged
	}
	return ErrNoContact
}

// Mate notes that an account is, or is no more, in a group with us: its rosters and what it says there are taken, though it may be no
// contact. It is not kept: the rosters say it again at the next start.
func (b *Book) Mate(account key.Public, on bool) {
	if on {
		b.mates[account] = true
	} else {
		delete(b.mates, account)
	}
}

// MaySendGroup is MaySend for what is said in a group.
func (b *Book) MaySendGroup(account key.Public) error {
	err := b.MaySend(account)
	if b.mates[account] && !errors.Is(err, ErrBlocked) && !errors.Is(err, ErrChanged) {
		return nil
	}
	return err
}

// Waits tells of an error of MaySend that what is to be sent may wait in the queue for it to pass.
func Waits(err error) bool {
	return errors.Is(err, ErrTheirTurn) || errors.Is(err, ErrChanged)
}
