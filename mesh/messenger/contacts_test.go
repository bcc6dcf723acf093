package messenger

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"skywire/mesh/key"
)

// start is a time after the epoch of statements.
func start() time.Time { return time.Date(2026, 12, 1, 8, 0, 0, 0, time.UTC) }

func newKey(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// person is one end of a conversation of contact words.
type person struct {
	t    *testing.T
	self key.Public
	name string
	*Book
}

func newPerson(t *testing.T, name string, p Policy) *person {
	k := newKey(t)
	return &person{t, k, name, NewBook(k, p)}
}

// hears hands a word over as the engine does, and what is answered back, until nobody has anything to say.
func (p *person) hears(from *person, body []byte, bits uint8, now time.Time) (Verdict, Reason) {
	p.t.Helper()
	v, why := p.Judge(from.self, Incoming{Word: body, Bytes: len(body), Bits: bits}, now)
	if v != Take {
		return v, why
	}
	h, err := p.Word(from.self, body, p.name, now)
	if err != nil {
		p.t.Fatalf("%s hears %x: %v", p.name, body, err)
	}
	if h.Answer != nil {
		from.hears(p, h.Answer, 0, now)
	}
	return v, why
}

func (p *person) wants(who *person, s Standing) {
	p.t.Helper()
	if got := p.Standing(who.self); got != s {
		p.t.Errorf("%s of %s: %q, want %q", p.name, who.name, got, s)
	}
}

func (p *person) invites(name string, uses int, life time.Duration) *Token {
	p.t.Helper()
	tok, err := p.Invite(name, uses, life, start())
	if err != nil {
		p.t.Fatal(err)
	}
	return tok
}

func (p *person) adds(who *person, token [16]byte, name string) Added {
	p.t.Helper()
	a, err := p.Add(who.self, token, "", name, "hello", p.name, start())
	if err != nil {
		p.t.Fatalf("%s adds %s: %v", p.name, who.name, err)
	}
	return a
}

// TestInviteConfirmsBoth: making an invite and taking it are the two words.
func TestInviteConfirmsBoth(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{})
	tok := a.invites("bobby", 1, time.Hour)
	added := b.adds(a, tok.Secret, "annie")
	b.wants(a, Asked)
	if err := b.MaySend(a.self); !errors.Is(err, ErrTheirTurn) || !Waits(err) {
		t.Errorf("before the answer: %v", err)
	}
	if v, why := a.hears(b, added.Word, 0, start()); v != Take {
		t.Fatal(v, why)
	}
	a.wants(b, Confirmed)
	b.wants(a, Confirmed)
	if k, ok := a.Find("bobby"); !ok || k != b.self {
		t.Error("the petname of the invite was not given")
	}
	if c, _ := b.Get(a.self); c.Claims != "ann" || c.Token != nil || c.Name != "annie" {
		t.Errorf("%+v", c)
	}
	// The same word again, since its answer was lost: no second use, no harm.
	a.hears(b, added.Word, 0, start())
	a.wants(b, Confirmed)
	c := newPerson(t, "carl", Policy{})
	if v, why := a.hears(c, c.adds(a, tok.Secret, "").Word, 0, start()); v != Drop || why != ReasonClosed {
		t.Errorf("a used token: %v %v", v, why)
	}
	a.wants(c, Stranger)
	if a.Drops()[ReasonClosed] != 1 {
		t.Error(a.Drops())
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a := newPerson(t, "ann", Policy{})
	two := a.invites("", 2, time.Hour)
	for i := range 3 {
		p := newPerson(t, fmt.Sprint(i), Policy{})
		v, _ := a.hears(p, p.adds(a, two.Secret, "").Word, 0, start())
		if (v == Take) != (i < 2) {
			t.Errorf("use %d: %v", i, v)
		}
	}
	late := a.invites("", 1, time.Hour)
	p := newPerson(t, "late", Policy{})
	if v, _ := a.hears(p, p.adds(a, late.Secret, "").Word, 0, start().Add(2*time.Hour)); v != Drop {
		t.Error("an expired token was taken")
	}
	gone := a.invites("", 1, time.Hour)
	if n := a.Withdraw(); n == 0 || len(a.Tokens(start())) != 0 {
		t.Error("withdraw left some", n)
	}
	if v, _ := a.hears(p, p.adds(a, gone.Secret, "").Word, 0, start()); v != Drop {
		t.Error("a withdrawn token was taken")
	}
	for _, bad := range []struct{ uses int }{{0}, {maxTaken + 1}} {
		if _, err := a.Invite("", bad.uses, time.Hour, start()); err == nil {
			t.Error("an invite for", bad.uses)
		}
	}
}

// TestAskWithoutToken: nobody is confirmed before a person on each side has said so.
func TestAskWithoutToken(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{Strangers: StrangersOpen, Bytes: 1 << 20}), newPerson(t, "bob", Policy{})
	if v, _ := a.hears(b, b.adds(a, [16]byte{}, "").Word, 0, start()); v != Take {
		t.Fatal(v)
	}
	a.wants(b, Asking)
	b.wants(a, Asked)
	if err := a.MaySend(b.self); !errors.Is(err, ErrOurTurn) {
		t.Error(err)
	}
	if c, _ := a.Get(b.self); c.Hello != "hello" || c.Claims != "bob" || c.Name != "" {
		t.Errorf("%+v", c)
	}
	text := func(n int) Verdict {
		v, _ := a.Judge(b.self, Incoming{Text: true, Bytes: n}, start())
		return v
	}
	if text(2000) != Take || text(100) != Hold {
		t.Error("who asks has one message of 2 KiB")
	}
	if v, why := a.Judge(b.self, Incoming{Bytes: 10}, start()); v != Drop || why != ReasonStranger {
		t.Error("a file or a call of a stranger:", v, why)
	}
	yes, err := a.Confirm(b.self, "ann", start())
	if err != nil {
		t.Fatal(err)
	}
	b.hears(a, yes.Word, 0, start())
	a.wants(b, Confirmed)
	b.wants(a, Confirmed)
	if text(100000) != Take {
		t.Error("a contact is held")
	}
	// An accept that nobody waits for confirms nobody.
	c := newPerson(t, "carl", Policy{})
	b.Judge(c.self, Incoming{Word: yes.Word}, start())
	if h, err := b.Word(c.self, yes.Word, "", start()); err != nil || h.Changed {
		t.Error("an accept out of nowhere", h, err)
	}
	b.wants(c, Stranger)
}

// TestBothAsk: two who add each other at once are confirmed without another word.
func TestBothAsk(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{})
	wa, wb := a.adds(b, [16]byte{}, ""), b.adds(a, [16]byte{}, "")
	a.hears(b, wb.Word, 0, start())
	b.hears(a, wa.Word, 0, start())
	a.wants(b, Confirmed)
	b.wants(a, Confirmed)
}

func TestStrangers(t *testing.T) {
	t.Parallel()
	ask := func(p *person) []byte { return word{op: opAsk, name: p.name}.append(nil) }
	stamped := newPerson(t, "stamped", Policy{Strangers: StrangersStamp, Bits: 18, Bytes: 1 << 20})
	s := newPerson(t, "s", Policy{})
	if v, why := stamped.hears(s, ask(s), 17, start()); v != Drop || why != ReasonStamp {
		t.Error(v, why)
	}
	if v, _ := stamped.hears(s, ask(s), 18, start()); v != Take {
		t.Error(v)
	}
	open := newPerson(t, "open", Policy{Strangers: StrangersOpen, Bytes: 3000})
	var took, rate, quota int
	for i := range 2000 {
		p := &person{t, key.Public{byte(i), byte(i >> 8), 1}, "x", NewBook(key.Public{1}, Policy{})}
		at := start().Add(time.Duration(i) * time.Minute)
		switch v, why := open.hears(p, ask(p), 0, at); {
		case v == Take:
			took++
			open.Judge(p.self, Incoming{Text: true, Bytes: 1000}, at)
		case why == ReasonRate:
			rate++
		case why == ReasonQuota:
			quota++
		}
	}
	if took != MaxAsking || quota == 0 || open.heldByStrangers() > 3000 {
		t.Errorf("took %d, rate %d, quota %d, held %d", took, rate, quota, open.heldByStrangers())
	}
	// They go by themselves when nobody answers.
	p := newPerson(t, "late", Policy{})
	if v, _ := open.hears(p, ask(p), 0, start().Add(90*24*time.Hour)); v != Take {
		t.Error("no room after a month without an answer")
	}
	burst := newPerson(t, "burst", Policy{Strangers: StrangersOpen})
	n := 0
	for i := range 100 {
		p := &person{t, key.Public{byte(i), 2}, "x", NewBook(key.Public{1}, Policy{})}
		if v, _ := burst.hears(p, ask(p), 0, start()); v == Take {
			n++
		}
	}
	if n != asksAnHour/4 {
		t.Errorf("%d asked at once", n)
	}
}

// TestChangedKey is what T-M7 asks, without a network: nothing goes to a contact that is said to have another key, and what comes
// is held, until a person confirms.
func TestChangedKey(t *testing.T) {
	t.Parallel()
	a, b, mallory := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{}), newPerson(t, "mallory", Policy{})
	confirm := func(x, y *person, name string) {
		tok := y.invites("", 1, time.Hour)
		y.hears(x, x.adds(y, tok.Secret, name).Word, 0, start())
		x.wants(y, Confirmed)
	}
	confirm(a, b, "bob")
	if err := a.Allow(b.self, ScopeOperate); err != nil {
		t.Fatal(err)
	}
	_, err := a.Add(mallory.self, [16]byte{}, "", "bob", "", "ann", start())
	if !errors.Is(err, ErrChanged) {
		t.Fatal("another key under a name that is taken:", err)
	}
	blocked := func(why string) {
		t.Helper()
		a.wants(b, Changed)
		for _, p := range []*person{b, mallory} {
			if err := a.MaySend(p.self); !errors.Is(err, ErrChanged) {
				t.Errorf("%s: sends to %s: %v", why, p.name, err)
			}
			if v, _ := a.Judge(p.self, Incoming{Text: true, Bytes: 1}, start()); v != Hold {
				t.Errorf("%s: %s is not held: %v", why, p.name, v)
			}
		}
		if a.Scope(b.self) != ScopeNone || a.Scope(mallory.self) != ScopeNone {
			t.Error(why, ": rights over the box stay")
		}
	}
	blocked("name taken")
	if err := a.Keep(b.self, start()); err != nil {
		t.Fatal(err)
	}
	a.wants(b, Confirmed)
	if a.MaySend(b.self) != nil || a.Scope(b.self) != ScopeOperate {
		t.Error("kept, and not as before")
	}
	// The contact says by itself that it has a new key, signed by both.
	next := newPerson(t, "bob2", Policy{})
	third := newPerson(t, "third", Policy{})
	if _, err := a.Moved(third.self, b.self, next.self, start()); err == nil {
		t.Error("a third one tells of a change")
	}
	a.wants(b, Confirmed)
	if v, _ := a.Judge(next.self, Incoming{Moved: true}, start()); v != Take {
		t.Fatal(v)
	}
	if h, err := a.Moved(next.self, b.self, next.self, start()); err != nil || !h.Changed {
		t.Fatal(h, err)
	}
	a.wants(b, Changed)
	if c, _ := a.Get(b.self); !c.Signed || *c.NewAccount != next.self {
		t.Errorf("%+v", c)
	}
	got, err := a.Confirm(b.self, "ann", start())
	if err != nil || got.Contact.Account != next.self || got.Contact.Name != "bob" || got.Contact.Control != ScopeNone || len(got.Word) == 0 {
		t.Fatalf("%+v %v", got, err)
	}
	a.wants(b, Stranger)
	a.wants(next, Asked)
	if k, _ := a.Find("bob"); k != next.self {
		t.Error("the name names the old key")
	}
	next.adds(a, [16]byte{}, "")
	next.hears(a, got.Word, 0, start())
	a.wants(next, Confirmed)
}

// TestBlocked: who is blocked gets nothing through, is told nothing, and does not come in with another key.
func TestBlocked(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{Strangers: StrangersOpen, Bytes: 1 << 20}), newPerson(t, "bob", Policy{})
	if err := a.Block(b.self, start()); err != nil {
		t.Fatal(err)
	}
	if v, why := a.hears(b, b.adds(a, [16]byte{}, "").Word, 0, start()); v != Drop || why != ReasonBlocked {
		t.Error(v, why)
	}
	if _, err := a.Add(b.self, [16]byte{}, "", "", "", "", start()); !errors.Is(err, ErrBlocked) {
		t.Error(err)
	}
	next := newPerson(t, "bob2", Policy{})
	if _, err := a.Moved(next.self, b.self, next.self, start()); err != nil {
		t.Fatal(err)
	}
	a.wants(next, Blocked)
	if err := a.Unblock(b.self, start()); err != nil {
		t.Fatal(err)
	}
	a.wants(b, Stranger)
	if err := a.Unblock(b.self, start()); !errors.Is(err, ErrNotBlocked) {
		t.Error(err)
	}
}

// TestMates: members of a group talk there though they are no contacts, and nowhere else.
func TestMates(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{})
	takes := func(in Incoming) bool {
		v, _ := a.Judge(b.self, in, start())
		return v == Take
	}
	group := Incoming{Group: true, Text: true, Bytes: 5000}
	if takes(group) || a.MaySendGroup(b.self) == nil {
		t.Error("a stranger talks in a group")
	}
	a.Mate(b.self, true)
	if !takes(group) || !takes(Incoming{Group: true}) || a.MaySendGroup(b.self) != nil {
		t.Error("a member does not")
	}
	if takes(Incoming{Text: true}) || takes(Incoming{}) || a.MaySend(b.self) == nil {
		t.Error("a member of a group counts as a contact")
	}
	a.Block(b.self, start())
	if takes(group) || !errors.Is(a.MaySendGroup(b.self), ErrBlocked) {
		t.Error("a blocked member talks")
	}
	a.Unblock(b.self, start())
	a.Mate(b.self, false)
	if takes(group) {
		t.Error("one who left talks")
	}
}

// TestRemoved: who removes a contact tells it, and it can't go on as before.
func TestRemoved(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{})
	tok := a.invites("", 1, time.Hour)
	a.hears(b, b.adds(a, tok.Secret, "").Word, 0, start())
	gone, err := a.Remove(b.self)
	if err != nil {
		t.Fatal(err)
	}
	b.hears(a, gone, 0, start())
	b.wants(a, Asked)
	a.wants(b, Stranger)
}

// TestBookKept: what Dirty says is enough to make the book again.
func TestBookKept(t *testing.T) {
	t.Parallel()
	a, b, c := newPerson(t, "ann", Policy{}), newPerson(t, "bob", Policy{}), newPerson(t, "carl", Policy{})
	contacts, tokens := map[key.Public][]byte{}, map[[16]byte][]byte{}
	keep := func() {
		cs, ts := a.Dirty()
		for k, v := range cs {
			if delete(contacts, k); v != nil {
				contacts[k] = AppendContact(nil, v)
			}
		}
		for k, v := range ts {
			if delete(tokens, k); v != nil {
				tokens[k] = AppendToken(nil, v)
			}
		}
	}
	tok, tok2 := a.invites("bob", 1, time.Hour), a.invites("", 5, time.Hour)
	keep()
	a.hears(b, b.adds(a, tok.Secret, "").Word, 0, start())
	a.Block(c.self, start())
	keep()
	a.adds(newPerson(t, "dora", Policy{}), [16]byte{}, "dora")
	a.Unblock(c.self, start())
	keep()
	again := &person{t, a.self, "ann", NewBook(a.self, Policy{})}
	var cs []*Contact
	for _, raw := range contacts {
		x, err := ParseContact(raw)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, x)
	}
	var ts []*Token
	for _, raw := range tokens {
		x, err := ParseToken(raw)
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, x)
	}
	again.Load(cs, ts)
	if got, want := fmt.Sprintf("%+v", again.All()), fmt.Sprintf("%+v", a.All()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if x, _ := again.Dirty(); len(x) != 0 {
		t.Error("loading made it dirty")
	}
	if v, _ := again.hears(c, c.adds(again, tok2.Secret, "").Word, 0, start()); v != Take {
		t.Error("the token was lost")
	}
	if v, _ := again.hears(newPerson(t, "e", Policy{}), word{op: opAsk, token: tok.Secret}.append(nil), 0, start()); v == Take {
		t.Error("a used token works again after a restart")
	}
}

func FuzzWord(f *testing.F) {
	f.Add(word{op: opAsk, token: [16]byte{1}, name: "bob", text: "hello"}.append(nil))
	f.Add(word{op: opAccept, name: "ann"}.append(nil))
	f.Add(word{op: opGone}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := parseWord(b)
		if err != nil {
			return
		}
		again, err := parseWord(w.append(nil))
		if err != nil || again.op != w.op || again.token != w.token || again.name != w.name || again.text != w.text {
			t.Fatalf("%+v became %+v: %v", w, again, err)
		}
	})
}

func FuzzContact(f *testing.F) {
	f.Add(AppendContact(nil, &Contact{Account: key.Public{1}, Standing: Asked, Control: ScopeRead}))
	f.Add([]byte(`{"account":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseContact(b); err == nil {
			NewBook(key.Public{9}, Policy{}).Load([]*Contact{c}, nil)
		}
		_, _ = ParseToken(b)
	})
}
