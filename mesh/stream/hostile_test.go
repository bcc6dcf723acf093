package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// TestHostileFirstFrames: none reaches a service, each is reset, and the connection goes on.
func TestHostileFirstFrames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		good, err := stream.Open{Service: "echo", Header: []byte("h")}.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, frame := range map[string][]byte{
			"zero length":      {0, 0},
			"length alone":     {0, 9},
			"longest length":   append([]byte{0xff, 0xff}, make([]byte, 100000)...),
			"service too long": {0, 5, 200, 'a', 'b', 'c', 'd'},
			"empty service":    {0, 2, 0, 'x'},
			"cut":              good[:len(good)-1],
			"text":             []byte("GET / HTTP/1.1\r\n\r\n"),
		} {
			s, err := a.OpenRaw(t.Context(), b.key)
			if err != nil {
				t.Fatal(err)
			}
			s.Write(frame)
			s.CloseWrite()
			if _, err := io.ReadAll(s); !isReset(err, stream.CodeFrame) {
				t.Errorf("%s: got %v", name, err)
			}
			s.Close()
		}
		s, err := a.OpenRaw(t.Context(), b.key) // says nothing
		if err != nil {
			t.Fatal(err)
		}
		s.Write([]byte{0})
		before := time.Now()
		if _, err := io.ReadAll(s); !isReset(err, stream.CodeFrame) || time.Since(before) > time.Minute {
			t.Errorf("a stream that says nothing: %v after %v", err, time.Since(before))
		}
		s.Close()
		s, err = a.OpenRaw(t.Context(), b.key) // byte by byte is fine
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range good {
			s.Write([]byte{c})
			time.Sleep(100 * time.Millisecond)
		}
		if got := make([]byte, 7); true {
			if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, []byte("\x00\x05\x00re:h")) {
				t.Errorf("a trickled frame: %q, %v", got, err)
			}
		}
		s.Close()
		roundTrip(t, a, b.key, 1000)
		time.Sleep(time.Second)
		if n := a.Stats().Streams + b.Stats().Streams; n != 0 {
			t.Errorf("%d streams left", n)
		}
	})
}

// TestStreamLimit: a peer that opens more than MaxStreams waits, and can go on when one has ended.
func TestStreamLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		hold := make(chan struct{})
		_, err := b.Handle("hold", stream.Service{Allow: anyone, Handle: func(_ context.Context, in *stream.Incoming) {
			if s, err := in.Accept(nil); err == nil {
				<-hold
				s.Close()
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		streams := make([]*stream.Stream, stream.MaxStreams)
		for i := range streams {
			if streams[i], err = a.Dial(t.Context(), b.key, "hold", nil); err != nil {
				t.Fatalf("stream %d: %v", i, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, b.key, "hold", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one stream too many: %v", err)
		}
		close(hold)
		for _, s := range streams {
			s.Close()
		}
		s, err := a.Dial(t.Context(), b.key, "hold", nil)
		if err != nil {
			t.Fatalf("after the others ended: %v", err)
		}
		s.Close()
	})
}

// TestCrowd: two peers that open as many streams as they can, and say nothing, leave room for a third.
func TestCrowd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b, c, d := m.start(1), m.start(2), m.start(3), m.start(4)
		defer m.end(a, b, c, d)
		d.handle(t, "echo", echo)
		for _, hostile := range []*node{a, b} {
			for i := range stream.MaxStreams {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				s, err := hostile.OpenRaw(ctx, d.key)
				cancel()
				if err != nil {
					t.Fatalf("stream %d: %v", i, err)
				}
				s.Write([]byte{0})
			}
		}
		for range 3 {
			roundTrip(t, c, d.key, 1000)
		}
	})
}

// TestForgetDoesNotBlock: the node's owner calls it, and streams go on over a new connection.
func TestForgetDoesNotBlock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b := m.start(1), m.start(2)
		defer m.end(a, b)
		b.handle(t, "echo", echo)
		roundTrip(t, a, b.key, 1000)
		before := time.Now()
		a.Forget(b.key)
		if d := time.Since(before); d > 0 {
			t.Errorf("blocked for %v", d)
		}
		roundTrip(t, a, b.key, 1000)
	})
}
