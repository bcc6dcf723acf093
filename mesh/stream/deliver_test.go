package stream_test

import (
	"context"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// TestDeliverAllocates nothing, whether there is room or not.
func TestDeliverAllocates(t *testing.T) {
	memory := streamtest.New(1, streamtest.Conditions{})
	me, peer := identity(t, 1), identity(t, 2).Public()
	e, err := stream.New(stream.Config{Identity: me, Network: memory.ID(), Carrier: memory.Carrier(me.Public())})
	if err != nil {
		t.Fatal(err)
	}
	train := make([]byte, 14*1400)
	train[0] = 0x40
	e.Deliver(peer, train, 1400)
	if n := testing.AllocsPerRun(1000, func() { e.Deliver(peer, train, 1400) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	st := e.Stats()
	if st.PacketsDropped == 0 || st.PacketsReceived == 0 || st.PacketsReceived+st.PacketsDropped != 14*1002 {
		t.Errorf("received %d, dropped %d of %d", st.PacketsReceived, st.PacketsDropped, 14*1002)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Run(ctx); err != nil {
		t.Error(err)
	}
	if _, err := e.Dial(t.Context(), peer, "x", nil); err == nil {
		t.Error("a dial after the end")
	}
}

// TestJunk: packets that are no QUIC do nothing.
func TestJunk(t *testing.T) {
	t.Parallel()
	m := newMesh(t, streamtest.Conditions{})
	a, b := m.start(1), m.start(2)
	defer m.end(a, b)
	b.handle(t, "echo", echo)
	for i := range 4000 {
		junk := make([]byte, 1+i%1500)
		for j := range junk {
			junk[j] = byte(i * (j + 1))
		}
		b.Deliver(a.key, junk, 1+i%300)
	}
	b.Deliver(a.key, nil, 0)
	b.Deliver(a.key, []byte{0xc0}, -1)
	roundTrip(t, a, b.key, 10000)
}

// TestIdleStreamMemory counts 1,000 idle streams, each end pumped to a unix connection. The budget for an end is 20 kB; the
// kernel's 4 kB for the connection are not in the 7 to 11 kB measured here, what is left is for the race detector.
func TestIdleStreamMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 4,000 descriptors")
	}
	m := newMesh(t, streamtest.Conditions{})
	a, b := m.start(1), m.start(2)
	const streams, budget = 1000, 16000
	conns := make(chan net.Conn, 2*streams+1) // made here: dialling would grow the stacks that are measured
	for range 2*streams + 1 {
		conns <- unixPair(t)
	}
	_, err := b.Handle("idle", stream.Service{Allow: func(key.Public) bool { return true }, Handle: func(ctx context.Context, in *stream.Incoming) {
		s, err := in.Accept(nil)
		if err == nil {
			stream.Pump(ctx, s, <-conns)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	measure := func() uint64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return s.HeapInuse + s.StackInuse
	}
	roundTripOnce(t, a, b.key)
	before := measure()
	ctx, cancel := context.WithCancel(t.Context())
	var w sync.WaitGroup
	for range streams {
		s, err := a.Dial(t.Context(), b.key, "idle", nil)
		if err != nil {
			t.Fatal(err)
		}
		w.Go(func() { stream.Pump(ctx, s, <-conns) })
	}
	after := measure()
	per := int64(after-before) / streams / 2
	t.Logf("%d bytes of heap and stack for an end of an idle stream", per)
	if per > budget {
		t.Errorf("%d bytes, budget %d", per, budget)
	}
	cancel()
	w.Wait()
	m.end(a, b)
}

func roundTripOnce(t *testing.T, a *node, to key.Public) {
	t.Helper()
	s, err := a.Dial(t.Context(), to, "idle", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	io.ReadAll(s)
	s.Reset(0)
}

// TestSmallBox holds less of what waits for quic-go.
func TestSmallBox(t *testing.T) {
	t.Parallel()
	memory := streamtest.New(1, streamtest.Conditions{})
	me, peer := identity(t, 1), identity(t, 2).Public()
	var held [2]uint64
	for i, small := range []bool{false, true} {
		e, err := stream.New(stream.Config{Identity: me, Network: memory.ID(), Carrier: memory.Carrier(me.Public()), Small: small})
		if err != nil {
			t.Fatal(err)
		}
		train := make([]byte, 14*1400)
		train[0] = 0x40
		for range 100 {
			e.Deliver(peer, train, 1400)
		}
		held[i] = e.Stats().PacketsReceived * 1400
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Run(ctx); err != nil {
			t.Error(err)
		}
	}
	if held[1] == 0 || held[1] > 256<<10 || held[0] < 3*held[1] {
		t.Errorf("holds %d bytes, a small one %d", held[0], held[1])
	}
}
