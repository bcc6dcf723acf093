package messenger

import (
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/group"
)

func (n *simNode) groupDo(id envelope.GroupID, o group.Op) {
	n.call(func(c *core) {
		if g := c.groups[id]; g == nil {
			n.s.t.Errorf("%s knows of no group", n.name)
		} else if err := c.groupChange(g, &o); err != nil {
			n.s.t.Errorf("%s: %v", n.name, err)
		}
	})
}

func (n *simNode) groupSay(id envelope.GroupID, text string) {
	n.call(func(c *core) {
		g := c.groups[id]
		to := c.groupTo(g)
		for _, k := range to {
			c.introduce(g, k)
		}
		if _, err := c.send(to, Outgoing{Kind: envelope.KindText, Group: id, Body: []byte(text)}); err != nil {
			n.s.t.Errorf("%s: %v", n.name, err)
		}
	})
}

// groupTexts are all that were said in a group, ours too, sorted.
func (n *simNode) groupTexts(id envelope.GroupID) (all []string) {
	for _, m := range n.c.query(Query{Group: id, Limit: 1000}) {
		all = append(all, string(m.Body))
	}
	slices.Sort(all)
	return all
}

// TestSimGroupOfDevices: a group of two accounts with two devices each. What any of the four says or changes the other three have,
// also one that was off; who is evicted is told at both devices.
func TestSimGroupOfDevices(t *testing.T) {
	t.Parallel()
	for seed := range uint64(2) {
		s := newSim(t, seed)
		u, v := s.cluster(), s.cluster()
		one, two := u.device("one", nil), u.device("two", nil)
		p, q := v.device("p", nil), v.device("q", nil)
		four := []*simNode{one, two, p, q}
		u.kin()
		v.kin()
		s.run(5*time.Second, nil)
		p.add(one, envelope.Place{Cluster: one.c.account, Contacts: one.meeting()})
		all := func(what string, limit time.Duration, ok func(n *simNode) bool) {
			t.Helper()
			if !s.run(s.now+limit, func() bool { return !slices.ContainsFunc(four, func(n *simNode) bool { return !ok(n) }) }) {
				for _, n := range four {
					t.Logf("%s: ok %v, %v", n.name, ok(n), n.c.counters)
				}
				t.Fatalf("seed %d: %s: not after %s", seed, what, limit)
			}
		}
		other := func(n *simNode) key.Public {
			if n == one || n == two {
				return p.c.account
			}
			return one.c.account
		}
		all("contacts", 3*time.Minute, func(n *simNode) bool { return n.c.book.Standing(other(n)) == Confirmed })

		var id envelope.GroupID
		one.call(func(c *core) {
			r, err := group.New(c.author(), c.now.Unix(), "hikers", c.card.Place, []group.Seat{{Account: p.c.account, Place: c.placeOf(p.c.account)}})
			if err != nil {
				t.Fatal(err)
			}
			g, err := c.addGroup(r)
			if err != nil {
				t.Fatal(err)
			}
			c.tellMembers(g, r.Ops(), key.Public{})
			id = r.ID()
		})
		named := func(name string) func(n *simNode) bool {
			return func(n *simNode) bool { g := n.c.groups[id]; return g != nil && g.roster.Name() == name }
		}
		all("the group", 3*time.Minute, named("hikers"))
		for _, n := range four {
			n.groupSay(id, "from "+n.name)
		}
		want := []string{"from one", "from p", "from q", "from two"}
		all("texts", 3*time.Minute, func(n *simNode) bool { return slices.Equal(n.groupTexts(id), want) })

		two.turn(false)
		one.groupDo(id, group.Op{Kind: group.Promote, Target: p.c.account})
		if !s.run(s.now+3*time.Minute, func() bool { return q.c.groups[id].roster.Admin(q.c.account) }) {
			t.Fatalf("seed %d: q is not told that it is an admin", seed)
		}
		q.groupDo(id, group.Op{Kind: group.Rename, Name: "walkers"})
		p.groupSay(id, "while two was off")
		s.run(s.now+time.Minute, nil)
		two.turn(true)
		want = append(want, "while two was off")
		all("after two came back", 30*time.Minute, func(n *simNode) bool {
			return named("walkers")(n) && slices.Equal(n.groupTexts(id), want)
		})

		two.groupDo(id, group.Op{Kind: group.Remove, Target: p.c.account}) // another device than the one that founded it
		all("evicted", 30*time.Minute, func(n *simNode) bool {
			r := n.c.groups[id].roster
			return !r.Has(p.c.account) && r.Has(one.c.account)
		})
		if !s.run(s.now+30*time.Minute, func() bool {
			return !slices.ContainsFunc(four, func(n *simNode) bool { return !n.delivered() })
		}) {
			t.Errorf("seed %d: something is still under way", seed)
		}
		for _, n := range four {
			if got := n.groupTexts(id); !slices.Equal(got, want) {
				t.Errorf("seed %d: %s has %q in the end", seed, n.name, got)
			}
		}
	}
}

// TestSimBothAway: both devices of an account are off, and each is the mailbox of the other.
func TestSimBothAway(t *testing.T) {
	t.Parallel()
	s := newSim(t, 1)
	v := s.cluster()
	p, q := v.device("p", nil), v.device("q", nil)
	a := s.node("a", nil)
	v.kin()
	s.run(5*time.Second, nil)
	a.add(p, envelope.Place{Cluster: p.c.account, Contacts: p.meeting()})
	a.send(p, "0")
	if !s.run(s.now+3*time.Minute, func() bool { return len(p.texts(a)) == 1 && len(q.texts(a)) == 1 }) {
		t.Fatal(p.texts(a), q.texts(a))
	}
	p.turn(false)
	q.turn(false)
	a.send(p, "1")
	s.run(s.now+time.Hour, nil)
	a.send(p, "2")
	s.run(s.now+time.Hour, nil)
	q.turn(true)
	p.turn(true)
	want := simTexts(3)
	if !s.run(s.now+30*time.Minute, func() bool { return len(p.texts(a)) == 3 && len(q.texts(a)) == 3 }) || !slices.Equal(p.texts(a), want) {
		t.Errorf("p has %q, q %q", p.texts(a), q.texts(a))
	}
}
