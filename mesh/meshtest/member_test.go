package meshtest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node"
)

// cluster is a cluster key, one admin, and the box that issues.
type cluster struct {
	t       *testing.T
	net     *Net
	key     *key.Private
	admin   *key.Private
	list    []byte
	serial  uint64
	n       map[*Node]uint32 // revocations of a node
	day     int64            // seconds after the epoch, of the next statement
	clocks  map[string]time.Time
	network key.NetworkID
}

func newCluster(t *testing.T, seed uint64) *cluster {
	c := &cluster{t: t, net: New(seed, nil), n: map[*Node]uint32{}, day: member.Epoch, clocks: map[string]time.Time{}}
	var err error
	if c.key, err = key.Generate(); err != nil {
		t.Fatal(err)
	}
	if c.admin, err = key.Generate(); err != nil {
		t.Fatal(err)
	}
	c.network = key.Cluster(c.key.Public())
	c.list, err = (&member.AdminList{Number: 1, Issued: c.now(), Admins: []member.Admin{{
		Key: c.admin.Public(), Powers: member.MayIssue | member.MayRevoke | member.MayTell,
		Roles: member.AllRoles, Life: 400 * 24 * time.Hour, AnyTag: true,
	}}}).Sign(c.key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cluster) now() int64 { c.day++; return c.day }

// wall is the clock of a node: what was set for it, else one that agrees with the statements.
func (c *cluster) wall(name string) func() time.Time {
	return func() time.Time {
		if at, ok := c.clocks[name]; ok {
			return at.Add(c.net.Now())
		}
		return time.Unix(c.day, 0).Add(c.net.Now())
	}
}

// add puts a node of the cluster into the network, without a certificate.
func (c *cluster) add(name string) *Node {
	s := member.New(member.Config{Cluster: c.key.Public()}, member.Instant{Wall: c.wall(name)()})
	return c.net.Add(name, Options{Core: node.CoreConfig{Members: s, Wall: c.wall(name)}})
}

func (c *cluster) certificate(nd *Node, roles member.Roles, life time.Duration) []byte {
	c.t.Helper()
	c.serial++
	issued := c.now()
	raw, err := (&member.Certificate{
		Cluster: c.network, Node: nd.Key, Admin: c.admin.Public(), Roles: member.RoleMember | roles, Serial: c.serial, Issued: issued,
		NotAfter: issued + int64(life/time.Second), Name: nd.Name,
	}).Sign(c.network, c.admin)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

func (c *cluster) revocation(nd *Node, revoked bool) []byte {
	c.t.Helper()
	c.n[nd]++
	raw, err := (&member.Revocation{Admin: c.admin.Public(), Node: nd.Key, Revoked: revoked, N: c.n[nd], Issued: c.now()}).Sign(c.network, c.admin)
	if err != nil {
		c.t.Fatal(err)
	}
	return raw
}

func (c *cluster) put(nd *Node, raws ...[]byte) {
	c.t.Helper()
	for _, raw := range raws {
		if _, err := nd.Core.Put(nd.clock(), raw); err != nil {
			c.t.Fatalf("%s: %v", nd.Name, err)
		}
	}
	nd.wake(nd.net.now)
}

// join gives a node its certificate, as an issuer that it asked would have.
func (c *cluster) join(nd *Node, roles member.Roles) {
	c.put(nd, c.list, c.certificate(nd, roles, 90*24*time.Hour))
}

// chain makes nodes in a row, all of them members, the first one a manager.
func (c *cluster) chain(names ...string) (all []*Node) {
	for i, name := range names {
		nd := c.add(name)
		if i == 0 {
			c.join(nd, member.RoleManager)
		} else {
			c.join(nd, 0)
			c.net.Connect(all[i-1], nd, Wire{Delay: 5 * time.Millisecond})
			nd.Dial(all[i-1])
		}
		all = append(all, nd)
	}
	return all
}

// reach pings until an answer comes, at most d.
func (c *cluster) reach(a, b *Node, d time.Duration) error {
	err := errors.New("no answer")
	end := c.net.Now() + d
	for err != nil && c.net.Now() < end {
		done := false
		a.Ping(b.Key, func(_ time.Duration, e error) { done, err = true, e })
		c.net.RunUntil(min(2*time.Second, end-c.net.Now()), func() bool { return done })
		if err != nil {
			c.net.Run(50 * time.Millisecond)
		}
	}
	if err != nil {
		return fmt.Errorf("%s to %s: %w", a.Name, b.Name, err)
	}
	return nil
}

func (c *cluster) mustReach(a, b *Node) {
	c.t.Helper()
	if err := c.reach(a, b, 20*time.Second); err != nil {
		c.t.Fatal(err)
	}
}

func TestClusterOfThree(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	n := c.chain("a", "b", "c")
	c.mustReach(n[0], n[2])
	c.mustReach(n[2], n[0])
	for _, nd := range n {
		if got := nd.Core.Members().Len(); got != 4 {
			t.Errorf("%s holds %d statements, want the list and three certificates", nd.Name, got)
		}
	}
}

// TestRevokedIsCutOff: link, session and ping of a revoked node end within a second, everywhere, and neither it nor a third
// party brings it back with what was signed before. A restoration does.
func TestRevokedIsCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	n := c.chain("a", "b", "c", "d")
	c.mustReach(n[0], n[3])
	c.mustReach(n[3], n[0])
	old, _ := n[3].Core.Members().Raws(member.Ref{}, 1<<20)

	c.put(n[0], c.revocation(n[3], true))
	if !c.net.RunUntil(time.Second, func() bool { return !n[2].Core.Linked(n[3].Key) && !n[0].Core.HasSession(n[3].Key) }) {
		t.Fatalf("after 1 s: linked %v, session %v", n[2].Core.Linked(n[3].Key), n[0].Core.HasSession(n[3].Key))
	}
	for _, nd := range n[:3] {
		if nd.Core.DB().Get(n[3].Key) != nil {
			t.Errorf("%s keeps the record", nd.Name)
		}
	}
	if err := c.reach(n[0], n[3], 10*time.Second); err == nil {
		t.Error("reached a revoked node")
	}
	if err := c.reach(n[3], n[0], 30*time.Second); err == nil {
		t.Error("a revoked node reached us")
	}
	if n[2].Core.Linked(n[3].Key) {
		t.Error("it has a link again")
	}
	for _, raw := range old { // a third party, and the store of a box that was away
		_, _ = n[1].Core.Put(n[1].clock(), raw)
	}
	c.net.Run(5 * time.Second)
	if got := n[1].Core.Members().Member(member.Instant{Up: c.net.Now(), Wall: c.wall("b")()}, n[3].Key).Rights; got != member.None {
		t.Errorf("after a replay it is %v", got)
	}
	c.mustReach(n[0], n[2])

	c.put(n[1], c.revocation(n[3], false))
	n[2].Dial(n[3]) // as the node's resolver would
	n[3].Dial(n[2])
	c.mustReach(n[0], n[3])
}

// TestRevokedWhileAway: a box that was off learns from its neighbour before anything else, and then does not talk to the
// one that was revoked meanwhile.
func TestRevokedWhileAway(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	n := c.chain("a", "b", "c")
	away := n[2]
	bad := c.add("bad")
	c.join(bad, 0)
	c.net.Connect(away, bad, Wire{Delay: 5 * time.Millisecond})
	bad.Dial(away)
	c.mustReach(n[0], bad)
	away.Save()
	away.Stop()
	c.put(n[0], c.revocation(bad, true))
	c.net.Run(5 * time.Second)
	away.Start()
	away.Dial(n[1])
	c.mustReach(n[0], away)
	c.net.Run(2 * time.Second)
	if away.Core.Linked(bad.Key) {
		t.Error("the box that was away is linked with the revoked one")
	}
	if err := c.reach(away, bad, 5*time.Second); err == nil {
		t.Error("and reaches it")
	}
}

// TestGuestIsNoMember: who has no certificate has a link with a member, and its way to the issuer, and that is all.
func TestGuestIsNoMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	n := c.chain("issuer", "middle", "edge")
	guest := c.add("guest")
	c.net.Connect(n[2], guest, Wire{Delay: 5 * time.Millisecond})
	guest.Dial(n[2])
	c.mustReach(n[0], n[2])
	c.net.Run(3 * time.Second)
	if !n[2].Core.Linked(guest.Key) {
		t.Fatal("a guest may be linked by any member")
	}
	if _, list := guest.Core.Members().Admins(); list == nil {
		t.Error("the guest was not told the lists")
	}
	if got := guest.Core.Members().Len(); got > 2 { // and what the neighbour said of itself
		t.Errorf("a guest was told %d statements", got)
	}
	if guest.Core.DB().Len() > 1 {
		t.Errorf("a guest was told %d records", guest.Core.DB().Len())
	}
	for _, to := range n {
		if err := c.reach(guest, to, 3*time.Second); err == nil {
			t.Errorf("the guest reached %s", to.Name)
		}
		if err := c.reach(to, guest, 3*time.Second); err == nil {
			t.Errorf("%s reached the guest", to.Name)
		}
	}
	guest.Core.Seek(guest.clock(), n[0].Key)
	c.mustReach(guest, n[0]) // the way to the issuer
	guest.Core.Seek(guest.clock(), n[1].Key)
	if err := c.reach(guest, n[1], 5*time.Second); err == nil {
		t.Error("the guest reached a member that admits nobody")
	}
	guest.Core.Seek(guest.clock(), n[0].Key)
	if n[1].Core.DB().Get(guest.Key) != nil {
		t.Error("the record of a guest was taken")
	}
	c.join(guest, 0)
	c.mustReach(guest, n[1])
	c.mustReach(n[1], guest)
}

// TestGuestPathEnds: the path of a guest lasts a minute.
func TestGuestPathEnds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	n := c.chain("issuer", "middle", "edge")
	guest := c.add("guest")
	c.net.Connect(n[2], guest, Wire{Delay: 5 * time.Millisecond})
	guest.Dial(n[2])
	c.mustReach(n[0], n[2])
	guest.Core.Seek(guest.clock(), key.Public{})
	if !c.net.RunUntil(10*time.Second, func() bool { k, ok := guest.Core.Found(); return ok && k == n[0].Key }) {
		t.Fatal("no way to any issuer")
	}
	c.mustReach(guest, n[0])
	began := c.net.Now()
	var again func()
	again = func() { guest.Core.Seek(guest.clock(), key.Public{}); c.net.After(10*time.Second, again) }
	again()
	if !c.net.RunUntil(90*time.Second, func() bool { return !n[0].Core.HasSession(guest.Key) }) {
		t.Errorf("after %v the issuer still has a session with the guest", c.net.Now()-began)
	}
	if d := c.net.Now() - began; d < 30*time.Second {
		t.Errorf("it ended after %v", d)
	}
}

// TestExpiredRenews: a certificate that ran out makes its owner a guest, who renews it as such; nobody is locked out.
func TestExpiredRenews(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 6)
	n := c.chain("issuer", "member")
	short := c.add("short")
	c.put(short, c.list, c.certificate(short, 0, time.Hour))
	c.net.Connect(n[1], short, Wire{Delay: 5 * time.Millisecond})
	short.Dial(n[1])
	c.mustReach(n[0], short)
	// An admin tells the time: two hours later.
	c.day += 7200
	told, err := (&member.TimeStatement{Admin: c.admin.Public(), Issued: c.now()}).Sign(c.network, c.admin)
	if err != nil {
		t.Fatal(err)
	}
	c.put(n[0], told)
	c.net.Run(2 * judge)
	if err := c.reach(n[0], short, 5*time.Second); err == nil {
		t.Error("reached a node whose certificate ran out")
	}
	if !n[1].Core.Linked(short.Key) {
		t.Fatal("it lost its link: how is it to renew?")
	}
	short.Core.Seek(short.clock(), key.Public{})
	c.mustReach(short, n[0])
	c.put(short, c.certificate(short, 0, 90*24*time.Hour)) // what the issuer would answer
	c.mustReach(n[0], short)
}

const judge = 5 * time.Second

// TestClusterClocks: boxes that think it is 1970 or 2099, one of them or all, are members as ever.
func TestClusterClocks(t *testing.T) {
	t.Parallel()
	for name, wrong := range map[string]map[string]int{
		"one in 1970": {"b": 1970}, "one in 2099": {"b": 2099}, "all in 1970": {"a": 1970, "b": 1970, "c": 1970},
		"all in 2099": {"a": 2099, "b": 2099, "c": 2099}, "one each": {"a": 1970, "c": 2099},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, 7)
			for box, year := range wrong {
				c.clocks[box] = time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC)
			}
			n := c.chain("a", "b", "c")
			c.mustReach(n[0], n[2])
			c.put(n[0], c.revocation(n[1], true))
			c.net.Run(time.Second)
			if err := c.reach(n[0], n[2], 5*time.Second); err == nil {
				t.Error("reached over a revoked relay")
			}
		})
	}
}
