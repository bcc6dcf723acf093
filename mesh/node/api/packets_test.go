package api_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

// offerPackets registers a service that takes packets, and streams too.
func offerPackets(t testing.TB, c *app.Client, name string, allow ...string) {
	t.Helper()
	if len(allow) == 0 {
		allow = []string{app.AnyMember}
	}
	err := c.Register(t.Context(), app.Registration{Name: "p", Kind: "test", Services: []app.Service{
		{Name: name, Type: app.TypeBoth, Allow: allow, Packets: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
}

// echoPackets takes the next flow of a service and sends its packets back.
func echoPackets(t testing.TB, c *app.Client, name string) (ended chan error) {
	ended = make(chan error, 1)
	go func() {
		in, err := c.Accept(t.Context(), name)
		if err != nil {
			ended <- err
			return
		}
		if _, err := in.Accept(nil); !errors.Is(err, app.ErrKind) {
			t.Errorf("Accept of a flow: %v, want ErrKind", err)
		}
		p, err := in.AcceptPackets(append([]byte("re:"), in.Header...))
		if err != nil {
			ended <- err
			return
		}
		defer p.Close()
		b := make([]byte, app.MaxPacket)
		for {
			n, err := p.Read(b)
			if err == nil {
				_, err = p.Write(b[:n])
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	return ended
}

func TestPackets(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offerPackets(t, server, "dns")
	ended := echoPackets(t, server, "dns")
	p, err := client.DialPackets(t.Context(), b.key, "dns", []byte("hi"))
	if err != nil {
		t.Fatal(err)
	}
	if string(p.Reply()) != "re:hi" || p.Peer() != b.key {
		t.Errorf("reply %q of %s", p.Reply(), p.Peer())
	}
	got := make([]byte, app.MaxPacket)
	for _, n := range []int{0, 1, 1000, 1472, 9000, 40000, app.MaxPacket, 3} {
		want := bytes.Repeat([]byte{byte(n)}, n)
		if _, err := p.Write(want); err != nil {
			t.Fatal(err)
		}
		p.SetReadDeadline(time.Now().Add(20 * time.Second))
		if k, err := p.Read(got); err != nil || !bytes.Equal(got[:k], want) {
			t.Fatalf("%d bytes: %d came back, %v", n, k, err)
		}
	}
	if _, err := p.Write(make([]byte, app.MaxPacket+1)); !errors.Is(err, app.ErrPacket) {
		t.Errorf("a packet too long: %v", err)
	}
	p.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("the other end: %v, want EOF", err)
	}
}

// TestPacketsHandedOver: the node moves the packets between the flow and a UDP socket.
func TestPacketsHandedOver(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offerPackets(t, server, "dns")
	backend, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, from, err := backend.ReadFrom(b)
			if err != nil {
				return
			}
			backend.WriteTo(append([]byte("re:"), b[:n]...), from)
		}
	}()
	traffic := make(chan app.Traffic, 1)
	go func() {
		in, err := server.Accept(t.Context(), "dns")
		if err != nil {
			t.Error(err)
			return
		}
		c, err := net.Dial("udp", backend.LocalAddr().String())
		if err != nil {
			t.Error(err)
			return
		}
		tr, err := in.HandOverPackets(nil, c.(*net.UDPConn))
		if err != nil {
			t.Errorf("handed over: %v", err)
		}
		traffic <- tr
	}()
	p, err := client.DialPackets(t.Context(), b.key, "dns", nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Write([]byte("hello"))
	p.SetReadDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, 100)
	if n, err := p.Read(got); err != nil || string(got[:n]) != "re:hello" {
		t.Errorf("%q, %v", got[:n], err)
	}
	p.Close()
	if tr := <-traffic; tr.Sent != 8 || tr.Received != 5 {
		t.Errorf("traffic %+v, want 8 and 5", tr)
	}
}

// TestPacketsRefused: services that take none, and streams to those that do.
func TestPacketsRefused(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "echo")
	if _, err := client.DialPackets(t.Context(), b.key, "echo", nil); !errors.Is(err, signal.ErrUnsupported) {
		t.Errorf("a flow to a service of streams: %v", err)
	}
}

// TestGrantTakenBack: a registration with a shorter list ends the streams and flows of who is no longer on it, and no other.
func TestGrantTakenBack(t *testing.T) {
	t.Parallel()
	n := streamtest.New(1, streamtest.Conditions{})
	a, b, c := newBox(t, n, 1), newBox(t, n, 2), newBox(t, n, 3)
	server := b.client(t)
	offerPackets(t, server, "dns", a.key.String(), c.key.String())
	serveBoth := func() { echoPackets(t, server, "dns") }
	serveBoth()
	flow, err := a.client(t).DialPackets(t.Context(), b.key, "dns", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer flow.Close()
	serveBoth()
	other, err := c.client(t).DialPackets(t.Context(), b.key, "dns", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	serveEcho(t, server, "dns")
	s, err := a.client(t).Dial(t.Context(), b.key, "dns", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Write([]byte("x"))
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	offerPackets(t, server, "dns", c.key.String())
	one := make([]byte, 1)
	flow.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := flow.Read(one); !errors.Is(err, io.EOF) {
		t.Errorf("the flow of who lost the grant: %v, want EOF", err)
	}
	s.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := s.Read(one); !errors.Is(err, app.ErrReset) && !errors.Is(err, io.EOF) {
		t.Errorf("the stream of who lost the grant: %v, want the end", err)
	}
	other.Write([]byte("x"))
	other.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := other.Read(one); err != nil {
		t.Errorf("the flow of who kept it: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := a.client(t).DialPackets(ctx, b.key, "dns", nil); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("again: %v, want refused", err)
	}
}

// TestTagTakenBack: news of a certificate that has lost its tag ends what the tag had opened.
func TestTagTakenBack(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	setTags := func(tags ...string) {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		b.node.tags = map[key.Public][]string{a.key: tags}
	}
	setTags("home", "work")
	server := b.client(t)
	offerPackets(t, server, "dns", "@home")
	echoPackets(t, server, "dns")
	p, err := a.client(t).DialPackets(t.Context(), b.key, "dns", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	one := make([]byte, 1)
	echoed := func() error {
		p.Write([]byte("x"))
		p.SetReadDeadline(time.Now().Add(20 * time.Second))
		_, err := p.Read(one)
		return err
	}
	b.node.news <- "path" // is none
	if err := echoed(); err != nil {
		t.Fatalf("with the tag: %v", err)
	}
	setTags("work")
	b.node.news <- app.EventCertificate
	p.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := p.Read(one); !errors.Is(err, io.EOF) {
		t.Errorf("without the tag: %v, want EOF", err)
	}
}
