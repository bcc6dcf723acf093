package messenger

import (
	"testing"
	"time"
)

// TestBookShared: two devices of an account agree on who is a contact, the later decision counts, and rights over a box stay with it.
func TestBookShared(t *testing.T) {
	t.Parallel()
	one, two := newPerson(t, "one", Policy{}), newPerson(t, "two", Policy{})
	two.Book = NewBook(one.self, Policy{})
	bob := newPerson(t, "bob", Policy{})
	tell := func(from, to *person) {
		var s shared
		contacts, tokens := from.Dirty()
		for k, v := range contacts {
			if v == nil {
				s.Gone = append(s.Gone, k)
			} else {
				x := *v
				s.Contacts = append(s.Contacts, &x)
			}
		}
		for k, v := range tokens {
			if v == nil {
				s.Void = append(s.Void, k[:])
			} else {
				x := *v
				s.Tokens = append(s.Tokens, &x)
			}
		}
		to.share(s)
		to.Dirty()
	}
	tok := one.invites("bob", 1, time.Hour)
	tell(one, two)
	two.hears(bob, bob.adds(one, tok.Secret, "").Word, 0, start()) // at the other device than the one that made it
	two.wants(bob, Confirmed)
	if err := two.Allow(bob.self, ScopeAdmin); err != nil {
		t.Fatal(err)
	}
	tell(two, one)
	one.wants(bob, Confirmed)
	if k, ok := one.Find("bob"); !ok || k != bob.self || one.Scope(bob.self) != ScopeNone {
		t.Error("no name, or rights that were given at another box")
	}
	eve := newPerson(t, "eve", Policy{})
	if v, _ := one.hears(eve, word{op: opAsk, token: tok.Secret}.append(nil), 0, start()); v == Take {
		t.Error("a token that was used at the other device works")
	}
	one.Block(bob.self, start().Add(time.Hour))
	old := &Contact{Account: bob.self, Standing: Confirmed, Since: start()}
	one.share(shared{Contacts: []*Contact{old}})
	one.wants(bob, Blocked)
	tell(one, two)
	two.wants(bob, Blocked)
	if two.Scope(bob.self) != ScopeNone {
		t.Error("a blocked one has rights")
	}
	one.Remove(bob.self)
	one.Withdraw()
	tell(one, two)
	two.wants(bob, Stranger)
	if len(two.tokens) != 0 {
		t.Error("a void invite is left")
	}
}
