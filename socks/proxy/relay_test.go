package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
)

// TestRelayCut: a proxy that is stopped breaks what it carries; an orderly end would make half a download look whole.
func TestRelayCut(t *testing.T) {
	t.Parallel()
	program, here := tcpPair(t)
	target, there := tcpPair(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { relay(ctx, here, there) })
	if _, err := target.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(program, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	for name, c := range map[string]*net.TCPConn{"program": program, "target": target} {
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the %s sees %q and %v, want a break", name, b, err)
		}
	}
}

// tcpPair gives both ends of a connection.
func tcpPair(t *testing.T) (a, b *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); d.Close() })
	within(t, c)
	return c.(*net.TCPConn), d.(*net.TCPConn)
}
