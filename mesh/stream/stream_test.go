package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

func TestHeaderReplyAndEcho(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		header := bytes.Repeat([]byte("h"), 4096)
		before := time.Now()
		s, err := a.Dial(t.Context(), b.key, "echo", header[:4093])
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(before); d > 50*time.Millisecond {
			t.Errorf("first stream took %v, want a handshake and one round trip", d)
		}
		if got, want := s.Reply(), append([]byte("re:"), header[:4093]...); !bytes.Equal(got, want) {
			t.Errorf("reply of %d bytes, want %d", len(got), len(want))
		}
		io.WriteString(s, "hello")
		s.CloseWrite()
		got, err := io.ReadAll(s)
		if string(got) != "hello" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if s.Peer() != b.key {
			t.Errorf("peer %s, want %s", s.Peer(), b.key)
		}
		s.Close()
		before = time.Now()
		s2, err := a.Dial(t.Context(), b.key, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(before); d != 20*time.Millisecond {
			t.Errorf("second stream took %v, want one round trip", d)
		}
		s2.Close()
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		called := false
		services := map[string]stream.Service{
			"closed": {Handle: func(context.Context, *stream.Incoming) { called = true }},
			"picky": {
				Allow:  func(k key.Public) bool { return k != a.key },
				Handle: func(context.Context, *stream.Incoming) { called = true },
			},
			"no": {Allow: anyone, Handle: func(_ context.Context, in *stream.Incoming) {
				in.Refuse(&signal.Error{Code: 5, Name: "own", Message: "my reason"})
			}},
			"mute": {Allow: anyone, Handle: func(context.Context, *stream.Incoming) {}},
		}
		for name, s := range services {
			if _, err := b.Handle(name, s); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]*signal.Error{
			"closed": signal.ErrRefused, "picky": signal.ErrRefused, "mute": signal.ErrInternal,
			"nothing": signal.ErrNotFound, "no": {Name: "own"},
		} {
			if _, err := a.Dial(t.Context(), b.key, name, nil); !errors.Is(err, want) {
				t.Errorf("%s: got %v, want %s", name, err, want.Name)
			}
		}
		if called {
			t.Error("a service heard of a peer that it does not admit")
		}
		if _, err := a.Dial(t.Context(), b.key, "no", make([]byte, 4097)); !errors.Is(err, stream.ErrHeader) {
			t.Errorf("long header: got %v", err)
		}
		if _, err := b.Handle("no", services["no"]); !errors.Is(err, stream.ErrRegistered) {
			t.Errorf("second handler: got %v", err)
		}
		synctest.Wait()
		if n := a.Stats().Streams + b.Stats().Streams; n != 0 {
			t.Errorf("%d streams left after refusals", n)
		}
	})
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a := m.start(1)
		defer m.end(a)
		if _, err := a.Dial(t.Context(), identity(t, 9).Public(), "x", nil); !errors.Is(err, stream.ErrUnreachable) {
			t.Errorf("no session: got %v", err)
		}
		silent := identity(t, 3).Public()
		m.net.Join(silent, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, silent, "x", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("deadline: got %v", err)
		}
		if _, err := a.Dial(t.Context(), silent, "x", nil); !errors.Is(err, stream.ErrUnreachable) {
			t.Errorf("silent peer: got %v", err)
		}
	})
}

func TestWrongCertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a := m.start(1)
		b := m.startAs(identity(t, 3), identity(t, 2).Public()) // holds another key than its session
		defer m.end(a, b)
		heard := false
		for _, n := range []*node{a, b} {
			n.handle(t, "x", func(*stream.Stream) { heard = true })
		}
		if _, err := a.Dial(t.Context(), b.key, "x", nil); !errors.Is(err, stream.ErrIdentity) {
			t.Errorf("dialling an impostor: got %v", err)
		}
		if s, err := b.Dial(t.Context(), a.key, "x", nil); err == nil {
			s.Close()
			t.Error("an impostor's dial was answered")
		}
		if heard {
			t.Error("a service heard an impostor")
		}
	})
}

func TestLossDelayAndChecksums(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		c     streamtest.Conditions
		bytes int64
	}{
		{"clean 100 MB", streamtest.Conditions{Delay: time.Millisecond}, 100 << 20},
		{"loss", streamtest.Conditions{Delay: 20 * time.Millisecond, Loss: 0.02}, 4 << 20},
		{"carrier full", streamtest.Conditions{Delay: 5 * time.Millisecond, Full: 0.3}, 4 << 20},
		{"path of 1,300", streamtest.Conditions{Delay: 5 * time.Millisecond, MTU: 1300}, 4 << 20},
		{"path of 504", streamtest.Conditions{Delay: 5 * time.Millisecond, MTU: 504}, 1 << 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t, tc.c)
				a, b := m.start(1), m.start(2)
				defer m.end(a, b)
				b.handle(t, "echo", echo)
				roundTrip(t, a, b.key, tc.bytes)
			})
		})
	}
}

// roundTrip sends bytes through an echo and compares.
func roundTrip(t *testing.T, from *node, to key.Public, size int64) {
	t.Helper()
	s, err := from.Dial(t.Context(), to, "echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var w sync.WaitGroup
	w.Go(func() {
		if _, err := io.Copy(s, source(7, size)); err != nil {
			t.Errorf("send: %v", err)
		}
		s.CloseWrite()
	})
	got, n, err := sum(s)
	w.Wait()
	want, _, _ := sum(source(7, size))
	if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d of %d bytes, err %v, sums equal: %v", n, size, err, bytes.Equal(got.Sum(nil), want.Sum(nil)))
	}
}

// TestPathShrinks: a standby path may take less than the one on which quic-go has found its packet size.
func TestPathShrinks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 5 * time.Millisecond, MTU: 1448})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		roundTrip(t, a, b.key, 4<<20)
		if n := a.Stats().PacketsCut; n > 0 {
			t.Errorf("%d packets cut on a path that takes them whole", n)
		}
		m.net.Set(streamtest.Conditions{Delay: 5 * time.Millisecond, MTU: 1250})
		roundTrip(t, a, b.key, 4<<20)
		if a.Stats().PacketsCut == 0 {
			t.Error("nothing was cut: the test did not reach what it is for")
		}
	})
}

// TestFirstBits: the carrier seals by the first bit, so a train must not mix them.
func TestFirstBits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 2 * time.Millisecond, Loss: 0.01, MTU: 1300})
		var short, long atomic.Int32
		m.net.Watch(func(_, _ key.Public, train []byte, seg int) {
			for i := 0; i < len(train); i += seg {
				if (train[i]^train[0])&0x80 != 0 {
					t.Errorf("mixed train: %x and %x", train[0], train[i])
				}
			}
			if train[0]&0x80 == 0 {
				short.Add(1)
			} else {
				long.Add(1)
			}
			if len(train) > seg && train[0]&0x80 != 0 {
				t.Errorf("a train of %d bytes with long headers", len(train))
			}
		})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		roundTrip(t, a, b.key, 1<<20)
		if short.Load() == 0 || long.Load() == 0 {
			t.Errorf("%d short, %d long", short.Load(), long.Load())
		}
	})
}

func TestHalfCloseAndReset(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "after", func(s *stream.Stream) { // speaks only when the other has ended
			got, err := io.ReadAll(s)
			fmt.Fprintf(s, "%s %v", got, err)
		})
		s, err := a.Dial(t.Context(), b.key, "after", nil)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(s, "question")
		s.CloseWrite()
		if got, _ := io.ReadAll(s); string(got) != "question <nil>" {
			t.Errorf("after half-close: %q", got)
		}
		s.Close()

		seen := make(chan error, 1)
		b.handle(t, "reset me", func(s *stream.Stream) {
			_, err := io.ReadAll(s)
			seen <- err
		})
		s, err = a.Dial(t.Context(), b.key, "reset me", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Reset(77)
		if err := <-seen; !isReset(err, 77) {
			t.Errorf("read after reset: %v", err)
		}
		if _, err := s.Write([]byte("x")); !isReset(err, 77) {
			t.Errorf("write after own reset: %v", err)
		}
		b.handle(t, "resets", func(s *stream.Stream) { s.Reset(5) })
		s, err = a.Dial(t.Context(), b.key, "resets", nil)
		if err == nil {
			_, err = s.Read(make([]byte, 1))
			s.Close()
		}
		if !isReset(err, 5) {
			t.Errorf("reset by the service: %v", err)
		}
	})
}

func TestTrickleAndDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond, Loss: 0.01})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		s, err := a.Dial(t.Context(), b.key, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		one := make([]byte, 1)
		for i := range 300 {
			if _, err := s.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Read(one); err != nil || one[0] != byte(i) {
				t.Fatalf("byte %d: got %d, %v", i, one[0], err)
			}
		}
		time.Sleep(10 * time.Minute) // an idle stream stays
		io.WriteString(s, "x")
		if _, err := s.Read(one); err != nil {
			t.Fatalf("after ten idle minutes: %v", err)
		}
		s.SetReadDeadline(time.Now().Add(time.Second))
		var timeout interface{ Timeout() bool }
		if _, err := s.Read(one); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("deadline: %v", err)
		}
	})
}

func TestThousandStreams(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond, Loss: 0.001})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		const streams = 1000
		var w sync.WaitGroup
		hold := make(chan struct{})
		var ready sync.WaitGroup
		ready.Add(streams)
		for i := range streams {
			w.Go(func() {
				s, err := a.Dial(t.Context(), b.key, "echo", nil)
				ready.Done()
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				<-hold
				w.Go(func() {
					io.Copy(s, source(uint64(i), 2000))
					s.CloseWrite()
				})
				got, n, err := sum(s)
				want, _, _ := sum(source(uint64(i), 2000))
				if err != nil || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
					t.Errorf("stream %d: %d bytes, %v", i, n, err)
				}
			})
		}
		ready.Wait()
		if st := a.Stats(); st.Streams != streams || st.Connections != 1 {
			t.Errorf("%d streams on %d connections, want %d on 1", st.Streams, st.Connections, streams)
		}
		close(hold)
		w.Wait()
		time.Sleep(time.Second)
		if n := a.Stats().Streams + b.Stats().Streams; n != 0 {
			t.Errorf("%d streams left", n)
		}
	})
}

func TestCrossingDials(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 20 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		a.handle(t, "echo", echo)
		b.handle(t, "echo", echo)
		var w sync.WaitGroup
		for range 10 {
			for _, pair := range [][2]*node{{a, b}, {b, a}} {
				w.Go(func() { roundTrip(t, pair[0], pair[1].key, 10000) })
			}
		}
		w.Wait()
		time.Sleep(10 * time.Second)
		roundTrip(t, a, b.key, 1000)
		roundTrip(t, b, a.key, 1000)
		if x, y := a.Stats().Connections, b.Stats().Connections; x != 1 || y != 1 {
			t.Errorf("%d and %d connections, want one", x, y)
		}
		time.Sleep(10 * time.Minute)
		if x, y := a.Stats().Connections, b.Stats().Connections; x != 0 || y != 0 {
			t.Errorf("%d and %d connections after ten idle minutes, want none", x, y)
		}
		roundTrip(t, a, b.key, 1000)
	})
}

// TestRestart: a node that was killed says so by its stateless resets, which come from its identity.
func TestRestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		b.handle(t, "echo", echo)
		roundTrip(t, a, b.key, 1000)
		held, err := a.Dial(t.Context(), b.key, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		m.net.Down(b.key, true) // killed: no goodbye leaves it
		b.stop()
		b2 := m.start(2)
		defer m.end(a, b2)
		b2.handle(t, "echo", echo)
		m.net.Down(b.key, false)
		before := time.Now()
		roundTrip(t, a, b.key, 1000)
		if d := time.Since(before); d > 2*time.Second {
			t.Errorf("the next stream took %v", d)
		}
		if _, err := held.Read(make([]byte, 1)); !errors.Is(err, stream.ErrLost) {
			t.Errorf("a stream to the dead node: %v", err)
		}
		held.Close()
	})
}

// TestOutage: a stream outlives half a minute without a path.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: 10 * time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		s, err := a.Dial(t.Context(), b.key, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		m.net.Down(b.key, true)
		io.WriteString(s, "through")
		time.Sleep(35 * time.Second)
		m.net.Down(b.key, false)
		got := make([]byte, 7)
		if _, err := io.ReadFull(s, got); err != nil || string(got) != "through" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
