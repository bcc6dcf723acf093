package peering

import (
	"errors"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// TestRotated: a cluster gets a new key while a peering lives. What it exports goes on under the name that it had; nodes under
// the old key are let in until the time that the rotation names, and no record of it is.
func TestRotated(t *testing.T) {
	a, b := peered(t, 2, Terms{Exports: []string{"web"}, Messaging: "all"})
	ga, gb := a.nodes[0].gw, b.nodes[0].gw
	reach := func() error {
		s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "web@oslo")
		if err == nil {
			s.Close()
		}
		return err
	}
	if err := reach(); err != nil {
		t.Fatal(err)
	}
	before := gb.book.rawsOf(PairOf(a.key.Public(), b.key.Public()))[0]
	if _, err := ask[RotationInfo](t, ga, "peer.rotation", RotateParams{Old: a.key.Public()}); !errors.Is(err, signal.ErrUsage) {
		t.Errorf("to the key that it has: %v", err)
	}

	old := a.rekey()
	began := time.Now()
	eventually(t, "the gateway is in the new cluster", func() bool { _, _, own, err := ga.beside(); return err == nil && own.cluster == a.key.Public() })
	draft, err := ask[RotationInfo](t, ga, "peer.rotation", RotateParams{Old: old.key.Public(), OverlapS: 3600, Gates: []string{a.nodes[0].addr}})
	if err != nil || len(draft.Names) != 1 || draft.Names[0] != "rome" {
		t.Fatalf("%+v, %v", draft, err)
	}
	raw, err := draft.Rotation().Sign(old.key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := ask[RotateResult](t, ga, "peer.rotate", RotateParams{Signed: raw, WaitS: 20})
	if err != nil || len(r.Peerings) != 1 || r.Peerings[0].Rotated.Told != "yes" {
		t.Fatalf("%+v, %v", r, err)
	}
	eventually(t, "web@oslo goes on", func() bool { return reach() == nil })
	t.Logf("web@oslo again %v after the new key was there", time.Since(began).Round(time.Millisecond))
	info, err := ask[PeeringInfo](t, gb, "peer.show", PeerParams{Peer: "oslo"})
	if err != nil || info.State != "in force" || info.Cluster != a.key.Public() || info.Rotated == nil || info.Rotated.From != old.key.Public() || info.Rotated.By != "them" {
		t.Fatalf("%+v, %v", info, err)
	}
	if got := ga.Messaging(b.key.Public()); got != MessagingAll {
		t.Errorf("what was given is gone: %v", got)
	}
	for _, g := range []*Gateway{ga, gb} {
		if err := g.Put(t.Context(), before); err == nil {
			t.Error("the record of before is taken")
		}
	}

	// A node that is under the old key still is let in, until the time is over.
	left := &testCluster{t: t, key: old.key, admin: old.admin, list: old.list}
	c := newTestCluster(t, "c", 1) // it has its own network; what counts at a gate is the certificate that it shows
	c.gateway(c.nodes[0], true)
	cert := left.certificate(c.nodes[0].key.Public(), "a3", 0)
	hello := func() error {
		host := b.nodes[0].key.Public()
		at := envelope.Place{Cluster: b.key.Public(), Contacts: []member.Contact{{Key: host, Addr: b.nodes[0].addr}}}
		_, _, _, err := c.nodes[0].gw.call(t.Context(), at, host, opHello, func(self key.Public) []byte {
			p := Pass{Cluster: old.key.Public(), Visitor: self, Host: host, Issued: time.Now().Unix(), NotAfter: time.Now().Unix() + 60}
			return appendBytes(appendBytes(appendBytes(nil, p.Sign(c.nodes[0].key)), old.list), cert)
		})
		return err
	}
	if err := hello(); err != nil {
		t.Errorf("a node under the old key, in the overlap: %v", err)
	}
	gb.book.mu.Lock()
	gb.book.pairs[PairOf(old.key.Public(), b.key.Public())].Until = time.Now().Unix() - 1
	gb.book.mu.Unlock()
	if err := hello(); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("a node under the old key, after the overlap: %v", err)
	}
	gb.keepHouse(t.Context(), b.nodes[0].client)
	gb.mu.Lock()
	defer gb.mu.Unlock()
	for _, v := range gb.guests {
		if v.cluster == old.key.Public() {
			t.Error("a visitor under the old key is there still")
		}
	}
}
