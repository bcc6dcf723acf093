package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// unixPair returns one end of a connection of which the other is closed when the test ends.
func unixPair(t testing.TB) net.Conn {
	dir, err := os.MkdirTemp("", "pump") // t.TempDir is too long for a socket
	if err != nil {
		t.Error(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Error(err)
		c, _ := net.Pipe()
		return c
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Error(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Error(err)
	}
	t.Cleanup(func() { other.Close() })
	return c
}

// tcpPair returns two ends of a TCP connection.
func tcpPair(t testing.TB) (x, y *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// piped joins two TCP connections through two endpoints and returns their outer ends.
func piped(t *testing.T, c streamtest.Conditions) (near, far *net.TCPConn, wait func() error) {
	m := newMesh(t, c)
	a, b := m.start(1), m.start(2)
	near, inNear := tcpPair(t)
	far, inFar := tcpPair(t)
	_, err := b.Handle("tcp", stream.Service{Allow: func(key.Public) bool { return true }, Handle: func(ctx context.Context, in *stream.Incoming) {
		if s, err := in.Accept(nil); err == nil {
			stream.Pump(ctx, s, inFar)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Dial(t.Context(), b.key, "tcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	var w sync.WaitGroup
	var perr error
	w.Go(func() { _, _, perr = stream.Pump(t.Context(), s, inNear) })
	return near, far, func() error { w.Wait(); m.end(a, b); return perr }
}

func TestPumpBothWays(t *testing.T) {
	t.Parallel()
	near, far, wait := piped(t, streamtest.Conditions{Delay: time.Millisecond})
	const size = 5 << 20
	var w sync.WaitGroup
	for i, c := range []*net.TCPConn{near, far} {
		w.Go(func() {
			io.Copy(c, source(uint64(i), size))
			c.CloseWrite()
		})
		w.Go(func() {
			got, n, err := sum(c)
			want, _, _ := sum(source(uint64(1-i), size))
			if err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
				t.Errorf("end %d: %d bytes, %v", i, n, err)
			}
		})
	}
	w.Wait()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

func TestPumpTrickle(t *testing.T) {
	t.Parallel()
	near, far, wait := piped(t, streamtest.Conditions{Delay: time.Millisecond})
	far.SetDeadline(time.Now().Add(10 * time.Second))
	one := make([]byte, 1)
	for i := range 100 {
		near.Write([]byte{byte(i)})
		if _, err := io.ReadFull(far, one); err != nil || one[0] != byte(i) {
			t.Fatalf("byte %d: %d, %v", i, one[0], err)
		}
	}
	near.Close()
	if _, err := far.Read(one); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v", err)
	}
	far.Close()
	if err := wait(); err != nil {
		t.Error(err)
	}
}

// TestPumpClosedReader: an end that closes without reading makes the other's writes fail, and loses nothing it had sent.
func TestPumpClosedReader(t *testing.T) {
	t.Parallel()
	near, far, wait := piped(t, streamtest.Conditions{Delay: time.Millisecond})
	io.WriteString(far, "last words")
	far.Close()
	got := make([]byte, 10)
	near.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(near, got); err != nil || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
	var err error
	for err == nil {
		_, err = near.Write(make([]byte, 1<<16))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("writes to a closed reader never fail")
	}
	near.Close()
	wait()
}
