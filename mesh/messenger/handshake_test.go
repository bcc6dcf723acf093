package messenger

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// simCluster is an account with several devices.
type simCluster struct {
	s           *sim
	root, admin *key.Private
	devices     []*simNode
}

func (s *sim) cluster() *simCluster {
	c := &simCluster{s: s}
	for _, k := range []**key.Private{&c.root, &c.admin} {
		var err error
		if *k, err = key.Generate(); err != nil {
			s.t.Fatal(err)
		}
	}
	return c
}

func (c *simCluster) place() envelope.Place { return envelope.Place{Cluster: c.root.Public()} }

// device adds a device, which conf may change.
func (c *simCluster) device(name string, conf func(*Config)) *simNode {
	at := c.s.instant().Wall.Unix()
	n := c.s.node(name, func(cfg *Config) {
		network := key.Cluster(c.root.Public())
		list := member.AdminList{Number: 1, Issued: at, Admins: []member.Admin{{
			Key: c.admin.Public(), Powers: member.MayIssue, Roles: member.AllRoles, Life: member.DefaultLife,
		}}}
		rawList, err := list.Sign(c.root)
		if err != nil {
			c.s.t.Fatal(err)
		}
		cert := member.Certificate{
			Cluster: network, Node: cfg.Key.Public(), Roles: member.RoleMember | member.RoleMessenger, Serial: 1,
			Issued: at, NotAfter: at + int64(member.DefaultLife/time.Second),
		}
		rawCert, err := cert.Sign(network, c.admin)
		if err != nil {
			c.s.t.Fatal(err)
		}
		cfg.Account, cfg.Place = c.root.Public(), c.place
		cfg.Statements = func() [][]byte { return [][]byte{rawList, rawCert} }
		if conf != nil {
			conf(cfg)
		}
	})
	c.devices = append(c.devices, n)
	return n
}

// kin tells every device of the others, as their nodes do.
func (c *simCluster) kin(more ...*simNode) {
	for _, a := range c.devices {
		for _, b := range append(c.devices[:len(c.devices):len(c.devices)], more...) {
			if a != b {
				a.call(func(x *core) { x.sibling(b.key.Public()) })
			}
		}
	}
}

// near is a Mesh of a box in the network of a cluster, whose nodes it sees.
type near struct{ nodes *[]*simNode }

func (near) Dial(context.Context, envelope.Place, key.Public, string, []byte) (net.Conn, error) {
	return nil, errors.New("the simulation dials")
}

func (near) Accept(context.Context, string) (net.Conn, error) {
	return nil, errors.New("the simulation accepts")
}

func (n near) Near(key.Public) (all []key.Public) {
	for _, x := range *n.nodes {
		all = append(all, x.key.Public())
	}
	return all
}

// add takes an invite of a device.
func (n *simNode) add(by *simNode, at envelope.Place) {
	var t *Token
	by.call(func(c *core) {
		var err error
		if t, err = c.book.Invite("", 1, time.Hour, c.now); err != nil {
			n.s.t.Fatal(err)
		}
		c.saveBook()
	})
	n.call(func(c *core) {
		added, err := c.book.Add(by.c.account, t.Secret, "", "", "", "", c.now)
		if err != nil {
			n.s.t.Fatal(err)
		}
		c.saveBook()
		c.sayWord(by.c.account, at, added.Word)
	})
}

// TestSimMetBefore: a box of the same network takes an invite of an account whose devices have linked to it already, since they took
// it for one of theirs, and have shown their cards when they meant nothing to it. That link serves: a second one would be ended by
// the other side, again and again.
func TestSimMetBefore(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		s := newSim(t, seed)
		u := s.cluster()
		one, _ := u.device("one", nil), u.device("two", nil)
		far := s.node("far", func(c *Config) { c.Mesh = near{&u.devices} })
		u.kin(far)
		s.run(5*time.Second, nil)
		far.add(one, u.place())
		if !s.run(s.now+5*time.Second, func() bool { return far.c.book.Standing(one.c.account) == Confirmed }) {
			t.Fatalf("seed %d: far holds them for %q: %v", seed, far.c.book.Standing(one.c.account), far.c.counters)
		}
	}
	for seed := range uint64(20) { // the same with two accounts of one device each
		s := newSim(t, seed)
		one, far := s.node("one", nil), s.node("far", nil)
		one.call(func(c *core) {
			d := c.deviceOf(far.key.Public(), nil)
			c.kin[d.key], c.busy[d] = true, true
		})
		s.run(5*time.Second, nil)
		far.add(one, envelope.Place{})
		if !s.run(s.now+5*time.Second, func() bool { return far.c.book.Standing(one.c.account) == Confirmed }) {
			t.Fatalf("seed %d: one device: %q: %v", seed, far.c.book.Standing(one.c.account), far.c.counters)
		}
	}
}

// cutFrom parts two nodes, or brings them together.
func (n *simNode) cutFrom(other *simNode) {
	n.cut = other
	for _, p := range n.pipes {
		if p.other.node == other {
			p.cut()
		}
	}
}

// TestSimUntoldDevice: one device of an account has confirmed somebody, the other has not heard of it yet and knows neither the token
// nor the account. What it is told meanwhile is not refused for good.
func TestSimUntoldDevice(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		s := newSim(t, seed)
		u := s.cluster()
		one, two := u.device("one", nil), u.device("two", nil)
		far := s.node("far", nil)
		u.kin()
		s.run(5*time.Second, nil)
		one.cutFrom(two)
		far.add(one, envelope.Place{Cluster: one.c.account, Contacts: one.meeting()})
		far.send(one, "to both")
		has := func(n *simNode) func() bool { return func() bool { return len(n.texts(far)) == 1 } }
		if !s.run(s.now+2*time.Minute, has(one)) {
			t.Fatalf("seed %d: one has %q", seed, one.texts(far))
		}
		s.run(s.now+30*time.Second, nil)
		if got := two.texts(far); len(got) > 0 || two.c.counters["held_for_siblings"] == 0 {
			t.Fatalf("seed %d: two has %q before it was told: %v", seed, got, two.c.counters)
		}
		one.cutFrom(nil)
		if !s.run(s.now+3*time.Minute, has(two)) || !s.run(s.now+time.Minute, far.delivered) {
			t.Fatalf("seed %d: two has %q, far has all delivered: %v\n%v\n%v", seed, two.texts(far), far.delivered(), two.c.counters, far.c.counters)
		}
	}
}

// TestStrangerOfNobody: what is held for a sibling's word is refused in the end.
func TestStrangerOfNobody(t *testing.T) {
	t.Parallel()
	s := newSim(t, 1)
	u := s.cluster()
	one, _ := u.device("one", nil), u.device("two", nil)
	far := s.node("far", nil)
	u.kin()
	s.run(5*time.Second, nil)
	far.call(func(c *core) {
		added, err := c.book.Add(one.c.account, [16]byte{1, 2, 3}, "", "", "", "", c.now)
		if err != nil {
			t.Fatal(err)
		}
		c.saveBook()
		c.sayWord(one.c.account, envelope.Place{Cluster: one.c.account, Contacts: one.meeting()}, added.Word)
	})
	s.run(s.now+10*time.Minute, nil)
	if one.c.counters["held_for_siblings"] == 0 || !far.delivered() || one.c.devices[far.key.Public()] != nil {
		t.Errorf("a token that nobody made: %v, still queued: %v", one.c.counters, !far.delivered())
	}
}

// TestRefusedAlone: what is refused takes nothing else of its envelope with it.
func TestRefusedAlone(t *testing.T) {
	t.Parallel()
	s := newSim(t, 2)
	a := s.node("a", nil)
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	var token [16]byte
	a.call(func(c *core) {
		tok, err := c.book.Invite("", 1, time.Hour, c.now)
		if err != nil {
			t.Fatal(err)
		}
		token = tok.Secret
	})
	at := s.instant().Wall
	item := func(seq uint64, kind envelope.Kind, body []byte) envelope.Item {
		return envelope.Item{Seq: seq, Kind: kind, Time: at.UnixMilli() + int64(seq), Expires: at.Unix() + 3600, Body: body}
	}
	b := &envelope.Bundle{Account: k.Public(), Device: k.Public(), To: a.key.Public(), Epoch: 7, Floor: 1, Items: []envelope.Item{
		item(1, envelope.KindContact, word{op: opAsk}.append(nil)), // without a token: closed
		item(2, envelope.KindText, []byte("too early")),
		item(3, envelope.KindContact, word{op: opAsk, token: token}.append(nil)),
		item(4, envelope.KindText, []byte("hello")),
	}}
	a.call(func(c *core) {
		if got := c.take(b, 0, nil); got != takenOK {
			t.Fatalf("answered %d", got)
		}
		if got := c.book.Standing(k.Public()); got != Confirmed {
			t.Errorf("standing %q", got)
		}
		all := c.query(Query{})
		if len(all) != 1 || string(all[0].Body) != "hello" {
			t.Errorf("stored: %+v", all)
		}
	})
}

// meeting is where a node is met.
func (n *simNode) meeting() []member.Contact { return []member.Contact{{Key: n.key.Public()}} }
