package peering

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
)

// offerPackets makes a node offer an echo of packets, and of streams if typ is both.
func (nd *testNode) offerPackets(t *testing.T, service, typ string) {
	t.Helper()
	if err := nd.client.Register(t.Context(), app.Registration{Name: "packets", Kind: "test", Services: []app.Service{
		{Name: service, Type: typ, Port: 53, Allow: []string{app.AnyMember}, Packets: true},
	}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			in, err := nd.client.Accept(ctx, service)
			if err != nil {
				return
			}
			if !in.Packets {
				_ = in.Refuse(signal.ErrNotFound.Name, "UDP alone")
				continue
			}
			p, err := in.AcceptPackets(nil)
			if err != nil {
				continue
			}
			wg.Go(func() {
				defer p.Close()
				defer context.AfterFunc(ctx, func() { p.Close() })()
				b := make([]byte, app.MaxPacket)
				for {
					n, err := p.Read(b)
					if err != nil {
						return
					}
					if _, err := p.Write(b[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

// echoed sends a packet until it comes back: packets may be lost.
func echoed(p *app.PacketConn, text string) error {
	b := make([]byte, app.MaxPacket)
	var err error
	for range 20 {
		if _, err = p.Write([]byte(text)); err != nil {
			return err
		}
		_ = p.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		var n int
		if n, err = p.Read(b); err == nil && string(b[:n]) == text {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return err
		}
	}
	return err
}

// TestPackets: a service over UDP is exported as one over TCP is: reached by its name, under the rate and the quota, and cut at
// the end of the peering.
func TestPackets(t *testing.T) {
	a, b := newTestCluster(t, "a", 2), newTestCluster(t, "b", 2)
	ga, gb := a.gateway(a.nodes[0], true), b.gateway(b.nodes[0], true)
	a.nodes[1].offerPackets(t, "dns", app.TypeUDP)
	eventually(t, "the gate knows the service", func() bool {
		all, err := a.nodes[0].client.Services(t.Context(), app.TypeUDP)
		return err == nil && len(all) == 1
	})
	agree := func(give Terms) {
		t.Helper()
		v, err := ask[InviteResult](t, ga, "peer.invite", InviteParams{Name: "oslo", Gives: give, Gates: []string{a.nodes[0].addr}})
		if err != nil {
			t.Fatal(err)
		}
		if r, err := ask[AcceptResult](t, gb, "peer.accept", AcceptParams{Invite: v.Invite, Name: "rome", Gates: []string{b.nodes[0].addr}}); err != nil || r.State != "done" {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	var flow *app.PacketConn
	dial := func(service string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		p, err := b.nodes[1].client.DialPackets(ctx, b.nodes[0].key.Public(), service, nil)
		if err != nil {
			return err
		}
		if err := echoed(p, "where is it?"); err != nil {
			p.Close()
			return err
		}
		if flow != nil {
			flow.Close()
		}
		flow = p
		return nil
	}
	agree(Terms{Exports: []string{"dns", "web=tcp://" + echoServer(t)}})
	eventually(t, "packets go to and fro", func() bool { err := dial("dns@oslo"); return err == nil })
	if err := echoed(flow, string(make([]byte, 9000))); err != nil {
		t.Errorf("a long packet: %v", err)
	}
	if err := dial("web@oslo"); err == nil {
		t.Error("a flow of packets to what is exported over TCP alone")
	}
	if s, err := echo(t, b.nodes[1], b.nodes[0].key.Public(), "dns@oslo"); err == nil {
		s.Close()
		t.Error("a stream to what is served over UDP alone")
	}

	agree(Terms{Exports: []string{"dns"}, Quota: 50_000})
	if err := echoed(flow, "?"); err == nil {
		t.Error("the flow outlives the agreement that it was under")
	}
	eventually(t, "packets under the new agreement", func() bool { return dial("dns@oslo") == nil })
	text := string(make([]byte, 1200))
	sent := 0
	for ; sent < 200 && echoed(flow, text) == nil; sent++ {
	}
	if sent > 60_000/2400 || sent < 5 {
		t.Errorf("%d packets of 1200 bytes and their answers under a quota of 50000 bytes", sent)
	}

	agree(Terms{Exports: []string{"dns"}, Rate: 10_000})
	eventually(t, "packets at a rate", func() bool { return dial("dns@oslo") == nil })
	for range 100 {
		if _, err := flow.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	came := 0
	end := time.Now().Add(2 * time.Second)
	_ = flow.SetReadDeadline(end)
	buf := make([]byte, app.MaxPacket)
	for {
		if _, err := flow.Read(buf); err != nil {
			break
		}
		came++
	}
	if came == 0 || came > 45 {
		t.Errorf("%d of 100 packets of 1000 bytes came through 10000 bytes a second", came)
	}

	if _, err := ask[PeeringInfo](t, ga, "peer.revoke", PeerParams{Peer: "rome"}); err != nil {
		t.Fatal(err)
	}
	_ = flow.SetReadDeadline(time.Now().Add(5 * time.Second))
	began := time.Now()
	for {
		if _, err := flow.Read(buf); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("the flow after revoke: %v", err)
			}
			break
		}
	}
	t.Logf("the flow ended %v after revoke", time.Since(began).Round(time.Millisecond))
	if err := dial("dns@oslo"); err == nil {
		t.Error("reached after revoke")
	}
}
