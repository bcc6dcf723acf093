package stream_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// limitedPairs joins pairs of TCP connections over one pair of endpoints, each stream with limits at the accepting end.
func limitedPairs(t *testing.T, n int, limits stream.Limits) (near, far []io.ReadWriteCloser, wait func()) {
	t.Helper()
	m := newMesh(t, streamtest.Conditions{})
	a, b := m.start(1), m.start(2)
	ends := make(chan io.ReadWriteCloser, n)
	var w sync.WaitGroup
	_, err := b.Handle("tcp", stream.Service{Allow: anyone, Handle: func(ctx context.Context, in *stream.Incoming) {
		s, err := in.Accept(nil)
		if err != nil {
			return
		}
		outer, inner := tcpPair(t)
		ends <- outer
		s.Limit(limits)
		stream.Pump(ctx, s, inner)
	}})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		s, err := a.Dial(t.Context(), b.key, "tcp", nil)
		if err != nil {
			t.Fatal(err)
		}
		outer, inner := tcpPair(t)
		w.Go(func() { stream.Pump(t.Context(), s, inner) })
		near, far = append(near, outer), append(far, <-ends)
	}
	return near, far, func() { w.Wait(); m.end(a, b) }
}

// TestPumpShare has two streams share a rate, in both directions. Only what is too fast is a fault: this machine may be slow.
func TestPumpShare(t *testing.T) {
	t.Parallel()
	const rate, each = 1 << 20, 384 << 10
	near, far, wait := limitedPairs(t, 2, stream.Limits{Share: stream.NewShare(rate)})
	start := time.Now()
	var w sync.WaitGroup
	for i := range near {
		for _, c := range []struct{ from, to io.ReadWriteCloser }{{near[i], far[i]}, {far[i], near[i]}} {
			w.Go(func() {
				if _, err := io.CopyN(c.from, source(uint64(i), each), each); err != nil {
					t.Error(err)
				}
			})
			w.Go(func() {
				if n, err := io.CopyN(io.Discard, c.to, each); err != nil {
					t.Errorf("%d bytes: %v", n, err)
				}
			})
		}
	}
	w.Wait()
	// 768 KiB each way at 1 MiB/s, of which a quarter of a second is free.
	if took := time.Since(start); took < 450*time.Millisecond {
		t.Errorf("%d bytes took %v: the rate was not kept", 2*each, took)
	}
	for i := range near {
		near[i].Close()
		far[i].Close()
	}
	wait()
}

func TestPumpIdle(t *testing.T) {
	t.Parallel()
	near, far, wait := limitedPairs(t, 1, stream.Limits{Idle: 200 * time.Millisecond})
	if _, err := far[0].Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(near[0]); err == nil {
		t.Errorf("an idle stream ended well, after %q", b)
	}
	near[0].Close()
	wait()
}
