package peering

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// peered makes two clusters of n nodes, the first of each a gateway, and joins them: a gives give to b.
func peered(t *testing.T, n int, give Terms) (a, b *testCluster) {
	t.Helper()
	a, b = newTestCluster(t, "a", n), newTestCluster(t, "b", n)
	ga, gb := a.gateway(a.nodes[0], true), b.gateway(b.nodes[0], true)
	a.nodes[n-1].offer(t, "web", "secret")
	b.nodes[n-1].offer(t, "web", "secret")
	eventually(t, "the services are known", func() bool {
		all, err := a.nodes[0].client.Services(t.Context(), "tcp")
		return err == nil && len(all) == 2
	})
	v, err := ask[InviteResult](t, ga, "peer.invite", InviteParams{Name: "oslo", Gives: give, Gates: []string{a.nodes[0].addr}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := ask[AcceptResult](t, gb, "peer.accept", AcceptParams{Invite: v.Invite, Name: "rome", Gates: []string{b.nodes[0].addr}})
	if err != nil || r.State != "done" {
		t.Fatalf("%+v, %v", r, err)
	}
	eventually(t, "the service is registered", func() bool {
		all, err := b.nodes[n-1].client.Services(t.Context(), "")
		if err != nil {
			return false
		}
		for _, s := range all {
			if s.Name == "web@oslo" && s.Key == b.nodes[0].key.Public() && s.Online {
				return true
			}
		}
		return false
	})
	return a, b
}

func TestTwoClusters(t *testing.T) {
	a, b := peered(t, 2, Terms{Exports: []string{"web"}, Messaging: "all"})
	ga, gb := a.nodes[0].gw, b.nodes[0].gw
	began := time.Now()
	s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@oslo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	t.Logf("first stream after %v", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	again, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@oslo")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	t.Logf("next stream after %v", time.Since(began).Round(time.Millisecond))
	if got := gb.Messaging(a.key.Public()); got != MessagingNo {
		t.Errorf("b lets a write: %v", got)
	}
	if got := ga.Messaging(b.key.Public()); got != MessagingAll {
		t.Errorf("a lets b write: %v", got)
	}
	all, err := a.nodes[1].client.Services(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Key != a.nodes[0].key.Public() && s.Key != a.nodes[1].key.Public() || s.Name == "web@rome" {
			t.Errorf("the exporting side sees %+v", s)
		}
	}

	// Revoked: the live stream ends within a second, on both sides, and nothing brings the record back.
	old := ga.book.rawsOf(PairOf(a.key.Public(), b.key.Public()))[0]
	cut := make(chan time.Duration, 1)
	began = time.Now()
	go func() {
		io.Copy(io.Discard, s)
		cut <- time.Since(began)
	}()
	if _, err := ask[PeeringInfo](t, ga, "peer.revoke", PeerParams{Peer: "rome"}); err != nil {
		t.Fatal(err)
	}
	select {
	case d := <-cut:
		t.Logf("live stream cut after %v", d.Round(time.Millisecond))
		if d > time.Second {
			t.Errorf("cut after %v", d)
		}
	case <-time.After(5 * time.Second):
		t.Error("the live stream goes on")
	}
	if _, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@oslo"); err == nil {
		t.Error("reached after it was revoked")
	}
	eventually(t, "the other side knows", func() bool {
		p, ok := gb.book.With(a.key.Public())
		return ok && !p.InForce(0)
	})
	for _, g := range []*Gateway{ga, gb} {
		if err := g.Put(t.Context(), old); !errors.Is(err, ErrStale) {
			t.Errorf("the old record again: %v", err)
		}
	}
	if got := ga.Messaging(b.key.Public()); got != MessagingNo {
		t.Errorf("messaging after the end: %v", got)
	}
}

// TestNothingElse: visitors of a peered cluster reach what was exported and nothing else, and the other direction is closed.
func TestNothingElse(t *testing.T) {
	a, b := peered(t, 2, Terms{Exports: []string{"web"}})
	if s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@oslo"); err != nil {
		t.Fatal(err)
	} else {
		s.Close()
	}
	try := func(from, to *testCluster, host *testNode, service string, header []byte) error {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		gates := envelope.Place{Cluster: to.key.Public(), Contacts: a.nodes[0].gw.book.All()[0].Record.Sides[0].Gates}
		for _, side := range a.nodes[0].gw.book.All()[0].Record.Sides {
			if side.Cluster == to.key.Public() {
				gates.Contacts = side.Gates
			}
		}
		c, err := from.nodes[0].visits.Dial(ctx, gates, host.key.Public(), service, header)
		if err == nil {
			c.Close()
		}
		return err
	}
	var wg sync.WaitGroup
	for _, service := range []string{"web", "secret", "test", "bench", "manager", "viscript", "messenger", "web@oslo", "join"} {
		if err := try(b, a, a.nodes[0], service, nil); err == nil {
			t.Errorf("the service %s of the gate's node is open to visitors", service)
		}
		if service != "web" && service != "bench" {
			continue
		}
		wg.Go(func() {
			if err := try(b, a, a.nodes[1], service, nil); err == nil {
				t.Errorf("the service %s of a node behind the gate is open to visitors", service)
			}
		})
	}
	wg.Wait()
	for _, name := range []string{"secret", "web2", "", "web@oslo"} {
		if err := try(b, a, a.nodes[0], Service, appendText([]byte{protocol, opDial}, name)); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("dial of %q: %v", name, err)
		}
	}
	if err := try(a, b, b.nodes[0], Service, appendText([]byte{protocol, opDial}, "web")); err == nil {
		t.Error("the other direction is open")
	}
	// Who says no hello, or is of a third cluster, gets nothing.
	c := newTestCluster(t, "c", 1)
	c.gateway(c.nodes[0], true)
	if err := try(c, a, a.nodes[0], Service, appendText([]byte{protocol, opDial}, "web")); !isUnknown(err) {
		t.Errorf("a stranger's dial: %v", err)
	}
	at := placeOf(a.key.Public(), b.nodes[0].gw.book.All()[0].Theirs().Gates, a.nodes[0].key.Public())
	own := c.nodes[0].gw.own
	_, _, _, err := c.nodes[0].gw.call(t.Context(), at, a.nodes[0].key.Public(), opHello, func(self key.Public) []byte {
		p := Pass{Cluster: own.cluster, Visitor: self, Host: a.nodes[0].key.Public(), Issued: time.Now().Unix(), NotAfter: time.Now().Unix() + 60}
		return appendBytes(appendBytes(appendBytes(nil, p.Sign(c.nodes[0].key)), own.list), own.cert)
	})
	if !errors.Is(err, signal.ErrRefused) {
		t.Errorf("hello of a third cluster: %v", err)
	}
	// A third cluster's node that says to be of b has no certificate of it.
	_, _, _, err = c.nodes[0].gw.call(t.Context(), at, a.nodes[0].key.Public(), opHello, func(self key.Public) []byte {
		p := Pass{Cluster: b.key.Public(), Visitor: self, Host: a.nodes[0].key.Public(), Issued: time.Now().Unix(), NotAfter: time.Now().Unix() + 60}
		return appendBytes(appendBytes(appendBytes(nil, p.Sign(c.nodes[0].key)), b.list), b.nodes[0].cert)
	})
	if !errors.Is(err, signal.ErrRefused) {
		t.Errorf("hello in another's name: %v", err)
	}
}
