package peering

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// TestLife: what happens to a peering in its life: confirmed by a person, used, changed, found by a third party, of a node
// that was revoked, of two gateways.
func TestLife(t *testing.T) {
	a, b := newTestCluster(t, "a", 2), newTestCluster(t, "b", 2)
	ga, gb := a.gateway(a.nodes[0], true), b.gateway(b.nodes[0], true)
	sibling := a.gateway(a.nodes[1], false)
	a.nodes[0].offer(t, "web") // of the gate's own box
	behind := echoServer(t)
	invite := func(p InviteParams) string {
		t.Helper()
		p.Name, p.Gates = "oslo", []string{a.nodes[0].addr}
		v, err := ask[InviteResult](t, ga, "peer.invite", p)
		if err != nil {
			t.Fatal(err)
		}
		return v.Invite
	}
	accept := func(text string) (AcceptResult, error) {
		t.Helper()
		return ask[AcceptResult](t, gb, "peer.accept", AcceptParams{Invite: text, Name: "rome", Alias: "north", Gates: []string{b.nodes[0].addr}})
	}
	if _, err := ask[InviteResult](t, sibling, "peer.invite", InviteParams{}); !errors.Is(err, signal.ErrUnsupported) {
		t.Errorf("an invite without an admin key: %v", err)
	}

	text := invite(InviteParams{Gives: Terms{Exports: []string{"web", "db=tcp://" + behind}}, Confirm: true})
	look, err := ask[InviteInfo](t, gb, "peer.look", AcceptParams{Invite: text})
	if err != nil || len(look.Gives.Exports) != 2 || look.Number != envelope.SafetyNumber(a.key.Public(), b.key.Public()) {
		t.Fatalf("%+v, %v", look, err)
	}
	done := make(chan error, 1)
	go func() {
		r, err := accept(text)
		if err == nil && r.State != "done" {
			err = errors.New(r.State)
		}
		done <- err
	}()
	eventually(t, "it waits for a person", func() bool {
		l, err := ask[ListResult](t, ga, "peer.list", nil)
		return err == nil && len(l.Invites) == 1 && l.Invites[0].State == "pending" && l.Invites[0].Number == look.Number
	})
	if len(ga.book.All())+len(gb.book.All()) != 0 {
		t.Error("in force before it was confirmed")
	}
	if _, err := ask[PeeringInfo](t, ga, "peer.confirm", PeerParams{Peer: "rome"}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t, "c", 1)
	gc := c.gateway(c.nodes[0], true)
	if _, err := ask[AcceptResult](t, gc, "peer.accept", AcceptParams{Invite: text, Gates: []string{c.nodes[0].addr}}); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("an invite serves a second cluster: %v", err)
	}
	reach := func(service string) error {
		s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), service)
		if err == nil {
			s.Close()
		}
		return err
	}
	for _, service := range []string{"web@north", "db@north"} {
		eventually(t, service+" is reached", func() bool { return reach(service) == nil })
	}
	eventually(t, "the other gateway of a knows", func() bool { p, ok := sibling.book.With(b.key.Public()); return ok && p.InForce(0) })
	first := ga.book.rawsOf(PairOf(a.key.Public(), b.key.Public()))[0]

	// A change takes away what is not in it, with what is open.
	live, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@north")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if r, err := accept(invite(InviteParams{Gives: Terms{Exports: []string{"db=tcp://" + behind}, Quota: 20_000}})); err != nil || r.Peering.Number != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	live.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := io.Copy(io.Discard, live); errors.Is(err, context.DeadlineExceeded) {
		t.Error("a stream to what is no longer exported goes on")
	}
	eventually(t, "db again", func() bool { return reach("db@north") == nil })
	if err := reach("web@north"); err == nil {
		t.Error("web is reached still")
	}

	// A third party has the old record, and brings it everywhere.
	for _, g := range []*Gateway{ga, gb} {
		to, host := a, a.nodes[0]
		if g == gb {
			to, host = b, b.nodes[0]
		}
		at := envelope.Place{Cluster: to.key.Public(), Contacts: []member.Contact{{Key: host.key.Public(), Addr: host.addr}}}
		_, _, _, err := gc.call(t.Context(), at, host.key.Public(), opPut, func(key.Public) []byte { return putOf([][]byte{first}, nil) })
		if !errors.Is(err, signal.ErrRefused) {
			t.Errorf("an old record of a third party: %v", err)
		}
	}

	// The quota ends a stream in the middle.
	s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "db@north")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	go io.CopyN(s, zeros{}, 1<<20)
	if n, _ := io.Copy(io.Discard, s); n > 200_000 {
		t.Errorf("%d bytes under a quota of 20000", n)
	}
	if err := reach("db@north"); err == nil {
		t.Error("reached with no quota left")
	}

	// A node that its own cluster revoked is no visitor any more, without a word of any administrator here.
	if _, err := accept(invite(InviteParams{Gives: Terms{Exports: []string{"web"}}})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "web again", func() bool { return reach("web@north") == nil })
	raw, err := (&member.Revocation{Admin: b.admin.Public(), Node: b.nodes[0].key.Public(), Revoked: true, N: 1, Issued: time.Now().Unix()}).Sign(key.Cluster(b.key.Public()), b.admin)
	if err != nil {
		t.Fatal(err)
	}
	ga.mu.Lock()
	for k := range ga.guests {
		ga.guests[k].cluster = b.key.Public()
	}
	ga.mu.Unlock()
	if err := ga.putStatement(t.Context(), b.key.Public(), raw); err != nil {
		t.Fatal(err)
	}
	if err := reach("web@north"); err == nil {
		t.Error("a revoked node visits")
	}
	if n := len(ga.guests); n != 0 {
		t.Errorf("%d visitors", n)
	}

	// Revoked by the side that uses: the other one is told, and its second gateway too.
	if _, err := ask[PeeringInfo](t, gb, "peer.revoke", PeerParams{Peer: "north"}); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Gateway{ga, sibling} {
		eventually(t, "a gateway of a knows the end", func() bool { p, ok := g.book.With(b.key.Public()); return ok && !p.InForce(0) })
	}
	info, err := ask[PeeringInfo](t, ga, "peer.show", PeerParams{Peer: "rome"})
	if err != nil || info.State != "revoked" || info.By != b.key.Public() {
		t.Errorf("%+v, %v", info, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// echoServer is a program behind the gateway, without the mesh.
func echoServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// TestOpenVisit: a node of the open network, too, is met by a visitor.
func TestOpenVisit(t *testing.T) {
	a := newTestCluster(t, "a", 1)
	a.gateway(a.nodes[0], false)
	o := openNode(t)
	o.offer(t, "web")
	at := envelope.Place{Contacts: []member.Contact{{Key: o.key.Public(), Addr: "udp://" + o.addr}}}
	for range 2 {
		c, err := a.nodes[0].visits.Dial(t.Context(), at, o.key.Public(), "web", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := repeat(c.(*visitStream).Stream); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if all := a.nodes[0].visits.Status(); len(all) != 1 || all[0].Users != 0 {
		t.Errorf("%+v", all)
	}
	if _, err := a.nodes[0].visits.Dial(t.Context(), envelope.Place{}, a.key.Public(), "web", nil); !errors.Is(err, signal.ErrUnreachable) {
		t.Errorf("no address: %v", err)
	}
}
