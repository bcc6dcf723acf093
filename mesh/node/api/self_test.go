package api_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
)

// TestSelf: a service of the own box is dialled like any other, in both ways.
func TestSelf(t *testing.T) {
	t.Parallel()
	b := one(t)
	server, client := b.client(t), b.client(t)
	offer(t, server, "echo", "handed")
	serveEcho(t, server, "echo")
	for range 3 {
		s, err := client.Dial(t.Context(), b.key, "echo", []byte("head"))
		if err != nil {
			t.Fatal(err)
		}
		if string(s.Reply()) != "re:head" {
			t.Errorf("reply %q", s.Reply())
		}
		io.WriteString(s, "over and out")
		s.CloseWrite()
		if got, err := io.ReadAll(s); string(got) != "over and out" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		s.Close()
	}
	// Both ends are handed over: what is left here is one end of a TCP connection on each side.
	in, out := tcpEnds(t), tcpEnds(t)
	ended := make(chan app.Traffic, 2)
	go func() {
		i, err := server.Accept(t.Context(), "handed")
		if err != nil {
			t.Error(err)
			return
		}
		traffic, err := i.HandOver([]byte("yes"), in[0])
		if err != nil {
			t.Error(err)
		}
		ended <- traffic
	}()
	go func() {
		traffic, err := client.DialHandOver(t.Context(), b.key, "handed", nil, func(reply []byte) (*net.TCPConn, error) {
			if string(reply) != "yes" {
				t.Errorf("reply %q", reply)
			}
			return out[0], nil
		})
		if err != nil {
			t.Error(err)
		}
		ended <- traffic
	}()
	io.WriteString(out[1], "there")
	out[1].CloseWrite()
	if got, err := io.ReadAll(in[1]); string(got) != "there" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	io.WriteString(in[1], "and back")
	in[1].CloseWrite()
	if got, err := io.ReadAll(out[1]); string(got) != "and back" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for range 2 {
		if traffic := <-ended; traffic.Sent+traffic.Received != 13 {
			t.Errorf("%+v", traffic)
		}
	}
	if _, err := client.Dial(t.Context(), b.key, "nothing", nil); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("no such service: %v", err)
	}
	if err := server.Register(t.Context(), app.Registration{Name: "test", Kind: "x", Services: []app.Service{{Name: "closed", Type: "x"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Dial(t.Context(), b.key, "closed", nil); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("a service for nobody: %v", err)
	}
}

func tcpEnds(t *testing.T) [2]*net.TCPConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		t.Cleanup(func() { c.Close() })
	}
	return [2]*net.TCPConn{a.(*net.TCPConn), b.(*net.TCPConn)}
}
