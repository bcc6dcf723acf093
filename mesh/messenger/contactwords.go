package messenger

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/signal"
)

// A word is the body of an item of the kind contact:
//
//	op 1 (1 ask, 2 accept, 3 gone) │ token 16 (of ask alone; zero: none) │ name {length 1, text} │ text {length 1, text}
const (
	opAsk    = 1
	opAccept = 2
	opGone   = 3

	maxClaim = 64
	maxHello = 200
)

type word struct {
	op         byte
	token      [16]byte
	name, text string
}

func (w word) append(dst []byte) []byte {
	dst = append(dst, w.op)
	if w.op == opAsk {
		dst = append(dst, w.token[:]...)
	}
	dst = appendShort(dst, w.name, maxClaim)
	return appendShort(dst, w.text, maxHello)
}

func appendShort(dst []byte, s string, most int) []byte {
	s = s[:min(len(s), most)]
	return append(append(dst, byte(len(s))), s...)
}

// parseWord reads a word. Texts are made printable: they come from strangers and go to terminals.
func parseWord(b []byte) (w word, err error) {
	bad := fmt.Errorf("contact word: %w", ErrFormat)
	if len(b) == 0 {
		return w, bad
	}
	w.op, b = b[0], b[1:]
	switch w.op {
	case opAsk:
		if len(b) < 16 {
			return w, bad
		}
		w.token, b = [16]byte(b), b[16:]
	case opAccept, opGone:
	default:
		return w, bad
	}
	for i, most := range []int{maxClaim, maxHello} {
		if len(b) == 0 || int(b[0]) > most || len(b) < 1+int(b[0]) {
			return w, bad
		}
		text := signal.Printable(string(b[1:1+int(b[0])]), "")
		if i == 0 {
			w.name = text
		} else {
			w.text = text
		}
		b = b[1+int(b[0]):]
	}
	if len(b) > 0 {
		return w, bad
	}
	return w, nil
}

// Token is a secret of ours in an invite: who presents it is confirmed at once, for we made it and they took it.
type Token struct {
	Secret  [16]byte     `json:"secret"`
	Name    string       `json:"name,omitempty"` // our petname for who takes it first
	Uses    int          `json:"uses"`           // left
	Expires time.Time    `json:"expires"`
	Taken   []key.Public `json:"taken,omitempty"` // by whom; the same one may say it twice
}

// maxTaken bounds the uses of a token.
const maxTaken = 100

// Invite makes a token for uses accounts, good for life.
func (b *Book) Invite(name string, uses int, life time.Duration, now time.Time) (*Token, error) {
	switch {
	case uses < 1 || uses > maxTaken:
		return nil, fmt.Errorf("%w: 1 to %d uses", ErrFormat, maxTaken)
	case name != "" && !member.ValidName(name):
		return nil, ErrName
	}
	if _, taken := b.names[name]; taken && name != "" {
		return nil, ErrNameTaken
	}
	for s, t := range b.tokens {
		if now.After(t.Expires) {
			delete(b.tokens, s)
			b.dirtyTok[s] = true
		}
	}
	if len(b.tokens) >= MaxTokens {
		return nil, ErrBookFull
	}
	t := &Token{Name: name, Uses: uses, Expires: now.Add(life).UTC()}
	if _, err := rand.Read(t.Secret[:]); err != nil {
		return nil, fmt.Errorf("draw a token: %w", err)
	}
	b.tokens[t.Secret], b.dirtyTok[t.Secret] = t, true
	return t, nil
}

// Tokens are the invites that can still be taken.
func (b *Book) Tokens(now time.Time) []Token {
	var all []Token
	for _, t := range b.tokens {
		if t.Uses > 0 && !now.After(t.Expires) {
			all = append(all, *t)
		}
	}
	return all
}

// Withdraw makes all invites void that nobody has taken; it returns how many.
func (b *Book) Withdraw() int {
	n := len(b.tokens)
	for s := range b.tokens {
		delete(b.tokens, s)
		b.dirtyTok[s] = true
	}
	return n
}

// token finds a live one: known, not over, with a use left or used by the same one before.
func (b *Book) token(secret [16]byte, from key.Public, now time.Time) *Token {
	if secret == [16]byte{} {
		return nil
	}
	var found *Token
	for s, t := range b.tokens { // each is compared, so that time tells nothing
		if subtle.ConstantTimeCompare(s[:], secret[:]) == 1 {
			found = t
		}
	}
	if found == nil || now.After(found.Expires) {
		return nil
	}
	for _, k := range found.Taken {
		if k == from {
			return found
		}
	}
	if found.Uses <= 0 {
		return nil
	}
	return found
}

// take uses up a token for an account.
func (b *Book) take(t *Token, from key.Public) {
	for _, k := range t.Taken {
		if k == from {
			return
		}
	}
	t.Uses--
	t.Taken = append(t.Taken, from)
	b.dirtyTok[t.Secret] = true
}

// Heard says what came of a word.
type Heard struct {
	Changed bool   // the standing is another
	Answer  []byte // a word to be sent back; nil: none
	Contact Contact
}

// Word takes a contact word of an account; claim is what we call ourselves in an answer. What Judge has dropped or held never
// comes here.
func (b *Book) Word(from key.Public, body []byte, claim string, now time.Time) (Heard, error) {
	w, err := parseWord(body)
	if err != nil {
		return Heard{}, err
	}
	c := b.contacts[from]
	switch w.op {
	case opAsk:
		return b.asked(c, from, w, claim, now)
	case opAccept:
		if c == nil || c.Standing != Asked {
			return Heard{}, nil
		}
		c.Claims = w.name
		b.set(c, Confirmed, now)
		return Heard{Changed: true, Contact: *c}, nil
	case opGone:
		if c == nil {
			return Heard{}, nil
		}
		switch c.Standing {
		case Asking:
			b.drop(c)
		case Confirmed: // our word stands, theirs does not
			c.Control = ScopeNone
			b.set(c, Asked, now)
		default:
			return Heard{}, nil
		}
		return Heard{Changed: true, Contact: *c}, nil
	}
	return Heard{}, nil
}

// Moved takes a statement, signed by both keys, that the account old goes on as next; from is who brought it. It makes nobody a
// contact: who stole the old key can sign it too, so a person looks at it.
func (b *Book) Moved(from, old, next key.Public, now time.Time) (Heard, error) {
	if next != from && old != from {
		return Heard{}, fmt.Errorf("change of a key: %w: told by a third", ErrFormat)
	}
	was := b.contacts[old]
	if was == nil || next == b.self || b.Standing(next) == Confirmed {
		return Heard{}, nil
	}
	if was.Standing == Blocked { // a new key is no way around it
		return Heard{Contact: *was}, b.Block(next, now)
	}
	b.change(was, next, true, now)
	return Heard{Changed: true, Contact: *was}, nil
}

func (b *Book) asked(c *Contact, from key.Public, w word, claim string, now time.Time) (Heard, error) {
	yes := word{op: opAccept, name: claim}.append(nil)
	switch {
	case c == nil:
		if len(b.contacts) >= MaxContacts {
			return Heard{}, ErrBookFull
		}
		c = &Contact{Account: from}
		b.put(c)
	case c.Standing == Confirmed: // our answer was lost, or their memory
		return Heard{Answer: yes, Contact: *c}, nil
	case c.Standing == Asked:
		c.Claims = w.name
		b.set(c, Confirmed, now)
		return Heard{Changed: true, Answer: yes, Contact: *c}, nil
	}
	c.Claims, c.Hello = w.name, w.text
	b.dirty[from] = true
	if t := b.token(w.token, from, now); t != nil {
		b.take(t, from)
		if _, taken := b.names[t.Name]; t.Name != "" && !taken && c.Name == "" {
			b.rename(c, t.Name)
		}
		b.set(c, Confirmed, now)
		return Heard{Changed: true, Answer: yes, Contact: *c}, nil
	}
	fresh := c.Standing != Asking
	b.set(c, Asking, now)
	return Heard{Changed: fresh, Contact: *c}, nil
}
