package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// moving is two nodes that have TCP to each other and use it as prefer says.
func moving(t testing.TB, c streamtest.Conditions, prefer stream.Prefer) (m *mesh, a, b *node) {
	m = newMesh(t, c)
	m.kernels, m.prefer = true, prefer
	a, b = m.start(1), m.start(2)
	t.Cleanup(func() { m.end(a, b) })
	return m, a, b
}

// onTCP opens a stream from a to b and waits until both directions have gone over to TCP. It returns both ends.
func onTCP(t testing.TB, a, b *node) (x, y *stream.Stream) {
	t.Helper()
	got := make(chan *stream.Stream)
	hold := make(chan struct{})
	b.handle(t, "on tcp", func(s *stream.Stream) { got <- s; <-hold })
	x, err := a.Dial(t.Context(), b.key, "on tcp", nil)
	if err != nil {
		t.Fatal(err)
	}
	y = <-got
	t.Cleanup(func() { x.Reset(0); close(hold) })
	eventually(t, "both ends have moved", func() bool { return a.Stats().Moved >= 1 && b.Stats().Moved >= 1 })
	for _, way := range [][2]*stream.Stream{{x, y}, {y, x}} {
		if _, err := way[0].Write([]byte("now on tcp")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 10)
		if _, err := io.ReadFull(way[1], b); err != nil || string(b) != "now on tcp" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	return x, y
}

// TestMoveMeasured: streams of a path with loss and delay go over to TCP by themselves, whichever end sends, and nothing
// is lost on the way. Short ones stay.
func TestMoveMeasured(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		size  int64
		moves bool
	}{
		{"long", 3 << 20, true},
		{"short", 60 << 10, false},
	} {
		for _, sender := range []string{"dialler", "server"} {
			t.Run(tc.name+", sent by "+sender, func(t *testing.T) {
				t.Parallel()
				_, a, b := moving(t, streamtest.Conditions{Delay: 10 * time.Millisecond, Loss: 0.03}, stream.PreferMeasured)
				size := tc.size
				b.handle(t, "both", func(s *stream.Stream) {
					if sender == "server" {
						io.Copy(s, source(1, size))
					} else {
						h, n, err := sum(s)
						fmt.Fprintf(s, "%x %d %v", h.Sum(nil), n, err)
					}
					s.CloseWrite()
				})
				s, err := a.Dial(t.Context(), b.key, "both", nil)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				want, _, _ := sum(source(1, size))
				var got string
				if sender == "server" {
					h, n, err := sum(s)
					got = fmt.Sprintf("%x %d %v", h.Sum(nil), n, err)
				} else {
					io.Copy(s, source(1, size))
					s.CloseWrite()
					answer, _ := io.ReadAll(s)
					got = string(answer)
				}
				if got != fmt.Sprintf("%x %d <nil>", want.Sum(nil), size) {
					t.Error("got ", got)
				}
				if moved := a.Stats().Moved + b.Stats().Moved; (moved > 0) != tc.moves {
					t.Errorf("moved %d", moved)
				}
			})
		}
	}
}

// TestMoveFails: whatever is missing, QUIC goes on and nothing is lost.
func TestMoveFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		set  func(m *mesh, a, b *node)
	}{
		{"none here", func(_ *mesh, a, _ *node) { a.kernel.Broken = true }},
		{"none there", func(_ *mesh, _, b *node) { b.kernel.Broken = true }},
		{"does not come up", func(_ *mesh, a, b *node) { a.kernel.Silent, b.kernel.Silent = true, true }},
		{"from another address", func(m *mesh, a, b *node) {
			a.kernel.From = m.net.ID().Address(identity(m.t, 9).Public())
			b.kernel.From = a.kernel.From
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
			tc.set(m, a, b)
			b.handle(t, "echo", echo)
			s, err := a.Dial(t.Context(), b.key, "echo", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			const size = 1 << 20
			var w sync.WaitGroup
			w.Go(func() { io.Copy(s, source(1, size)); s.CloseWrite() })
			h, n, err := sum(s)
			w.Wait()
			want, _, _ := sum(source(1, size))
			if n != size || err != nil || !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
				t.Errorf("%d bytes of %d, %v", n, size, err)
			}
			if moved := a.Stats().Moved + b.Stats().Moved; moved != 0 {
				t.Errorf("%d moved", moved)
			}
		})
	}
}

// TestMoveStrangers: a port that is open for a stream takes nobody but the peer with the token.
func TestMoveStrangers(t *testing.T) {
	t.Parallel()
	m, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
	address := m.net.ID().Address(a.key).As16()
	knock := func(port int) {
		for _, what := range []struct{ head, token []byte }{
			{make([]byte, 16), make([]byte, 32)},   // from nowhere
			{address[:], make([]byte, 32)},         // a wrong token
			{address[:], []byte("GET / HTTP/1.0")}, // too short
			{address[:4], nil},
		} {
			c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				t.Error(err)
				return
			}
			c.Write(what.head)
			c.Write(what.token)
			c.(*net.TCPConn).CloseWrite()
			t.Cleanup(func() { c.Close() })
		}
	}
	a.kernel.Listening, b.kernel.Listening = knock, knock // they come before the peer does
	x, y := onTCP(t, a, b)
	if n := a.Stats().Strangers + b.Stats().Strangers; n != 4 {
		t.Errorf("%d strangers counted, want 4", n)
	}
	x.Close()
	if _, err := y.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v", err)
	}
}

func TestMovedEnds(t *testing.T) {
	t.Parallel()
	t.Run("half-close", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		x.CloseWrite()
		if _, err := y.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read: %v", err)
		}
		io.WriteString(y, "after the half-close")
		y.Close()
		if got, err := io.ReadAll(x); string(got) != "after the half-close" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		x.Reset(stream.CodeInternal)
		if _, err := y.Read(make([]byte, 1)); !isReset(err, stream.CodeInternal) {
			t.Errorf("read: %v", err)
		}
		if _, err := y.Write(make([]byte, 1)); !isReset(err, stream.CodeInternal) {
			t.Errorf("write: %v", err)
		}
		if _, err := x.Write(make([]byte, 1)); err == nil {
			t.Error("writing after Reset")
		}
	})
	t.Run("no more wanted", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		x.CloseRead(stream.CodeNone)
		var err error
		for err == nil {
			_, err = y.Write(make([]byte, 64<<10))
		}
		if !isReset(err, stream.CodeNone) {
			t.Errorf("write: %v", err)
		}
		io.WriteString(x, "still there")
		x.CloseWrite()
		if got, err := io.ReadAll(y); string(got) != "still there" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("closed with bytes unread", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		io.WriteString(y, "never read")
		want := bytes.Repeat([]byte("last words "), 100_000)
		var w sync.WaitGroup
		w.Go(func() { x.Write(want); x.Close() })
		got, err := io.ReadAll(y)
		w.Wait()
		if !bytes.Equal(got, want) || err != nil {
			t.Errorf("got %d bytes of %d, %v", len(got), len(want), err)
		}
		if _, err := x.Read(make([]byte, 1)); !errors.Is(err, stream.ErrClosed) {
			t.Errorf("read after Close: %v", err)
		}
	})
	t.Run("deadlines", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		x.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := x.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v", err)
		}
		x.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		var err error
		for err == nil {
			_, err = x.Write(make([]byte, 64<<10))
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("write: %v", err)
		}
		x.SetDeadline(time.Time{})
		io.WriteString(y, "go on")
		if _, err := io.ReadFull(x, make([]byte, 5)); err != nil {
			t.Errorf("read: %v", err)
		}
	})
	t.Run("peer restarted", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		a.Forget(b.key)
		for _, s := range []*stream.Stream{x, y} {
			if _, err := s.Read(make([]byte, 1)); !errors.Is(err, stream.ErrLost) {
				t.Errorf("read: %v", err)
			}
		}
	})
	t.Run("device gone", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		a.TUNGone()
		if _, err := x.Read(make([]byte, 1)); !errors.Is(err, stream.ErrLost) {
			t.Errorf("read: %v", err)
		}
		if _, err := y.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("read there: %v", err)
		}
	})
	t.Run("tcp broken", func(t *testing.T) {
		t.Parallel()
		_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
		x, y := onTCP(t, a, b)
		for _, c := range a.kernel.Conns() {
			c.(interface{ SetLinger(int) error }).SetLinger(0)
			c.Close()
		}
		if _, err := y.Read(make([]byte, 1)); !isReset(err, stream.CodeReset) {
			t.Errorf("read: %v", err)
		}
		x.Reset(stream.CodeReset)
	})
}

// TestMovedPump: sockets handed over are joined with the TCP side, in both directions, to their ends.
func TestMovedPump(t *testing.T) {
	t.Parallel()
	_, a, b := moving(t, streamtest.Conditions{}, stream.PreferTCP)
	near, innerNear := tcpPair(t)
	far, innerFar := tcpPair(t)
	x, y := onTCP(t, a, b)
	type end struct {
		sent, received uint64
		err            error
	}
	var ends [2]end
	var w sync.WaitGroup
	for i, p := range []struct {
		s *stream.Stream
		c net.Conn
	}{{x, innerNear}, {y, innerFar}} {
		w.Go(func() {
			e := &ends[i]
			e.sent, e.received, e.err = stream.Pump(context.Background(), p.s, p.c)
		})
	}
	const size = 8 << 20
	w.Go(func() { io.Copy(near, source(1, size)); near.CloseWrite() })
	h, n, err := sum(far)
	want, _, _ := sum(source(1, size))
	if n != size || err != nil || !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes of %d, %v", n, size, err)
	}
	io.WriteString(far, "the answer, after the half-close")
	far.Close()
	if got, err := io.ReadAll(near); string(got) != "the answer, after the half-close" || err != nil {
		t.Errorf("near got %q, %v", got, err)
	}
	w.Wait()
	if ends[0] != (end{size, 32, nil}) || ends[1] != (end{32, size, nil}) {
		t.Errorf("%+v", ends)
	}
	eventually(t, "all is forgotten", func() bool { return a.Stats().OnTCP+b.Stats().OnTCP == 0 })
}

// TestMoveRaces: streams that end in all ways while they move lose nothing: who reads to the end has all that was
// written, and who does not is told by an error.
func TestMoveRaces(t *testing.T) {
	t.Parallel()
	_, a, b := moving(t, streamtest.Conditions{Delay: time.Millisecond}, stream.PreferTCP)
	b.handle(t, "echo", echo)
	const streams = 300
	var w sync.WaitGroup
	for i := range streams {
		w.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
			s, err := a.Dial(t.Context(), b.key, "echo", nil)
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			defer s.Close()
			size := int64(r.IntN(100_000))
			w.Go(func() {
				from := source(uint64(i), size)
				buf := make([]byte, 1+r.IntN(30_000))
				for {
					n, err := from.Read(buf)
					if n > 0 {
						s.Write(buf[:n])
					}
					if err != nil {
						break
					}
					if r.IntN(4) == 0 {
						time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
					}
				}
				s.CloseWrite()
			})
			h, n, err := sum(s)
			want, _, _ := sum(source(uint64(i), size))
			if n != size || err != nil || !bytes.Equal(h.Sum(nil), want.Sum(nil)) {
				t.Errorf("stream %d: %d bytes of %d, %v", i, n, size, err)
			}
		})
	}
	w.Wait()
	eventually(t, "all streams end", func() bool {
		sa, sb := a.Stats(), b.Stats()
		return sa.Streams+sb.Streams+sa.OnTCP+sb.OnTCP == 0
	})
	if a.Stats().Moved == 0 {
		t.Error("none moved")
	}
	t.Logf("%d of %d moved", a.Stats().Moved, streams)
}
