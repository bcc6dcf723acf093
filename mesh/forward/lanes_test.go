package forward

import (
	"encoding/binary"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/wire"
)

// nonceRecorder fails on a (key, nonce) that was sealed with twice.
type nonceRecorder struct {
	t    testing.TB
	mu   sync.Mutex
	seen map[nonceUse]bool
}

type nonceUse struct {
	end     *box
	key     uint8
	path    uint16
	lane    uint8
	counter uint64
}

// note looks the path and lane up where the frames end, which to must be.
func (r *nonceRecorder) note(_, to *box, train []byte, seg int) {
	for len(train) > 0 {
		b := train[:min(seg, len(train))]
		train = train[len(b):]
		e := to.plane.entry(binary.BigEndian.Uint32(b[4:]))
		if e == nil || e.path == nil || b[0] != wire.TypeSealed {
			continue
		}
		u := nonceUse{end: to, key: b[1], path: e.path.Number, lane: e.lane, counter: binary.BigEndian.Uint64(b[8:])}
		r.mu.Lock()
		if r.seen[u] {
			r.t.Errorf("key and nonce used twice: %+v", u)
		}
		r.seen[u] = true
		r.mu.Unlock()
	}
}

// TestLanes is test 2 of the protocol's list: four loops at each end, two paths with 50 ms skew between them, set up one
// from each end, the active one changing all the time, one loop stalled for 20 ms after it sealed. No frame is dropped
// by a window and no nonce is used twice.
func TestLanes(t *testing.T) {
	t.Parallel()
	const workers = 4
	f := newFabric(t)
	a, b := f.box("a", workers), f.box("b", workers)
	r1, r2 := f.box("r1", 1), f.box("r2", 1)
	for _, r := range []*box{r1, r2} {
		f.link(a, r, 1472)
		f.link(r, b, 1472)
	}
	p := f.session(a, b)
	one := f.lay(p, 2, 3, 1472, a, r1, b) // 2 data lanes for 4 loops: two share one
	back := &pair{a: b, b: a, sa: p.sb, sb: p.sa}
	two := f.lay(back, 3, 5, 1472, b, r2, a)
	rec := &nonceRecorder{t: t, seen: map[nonceUse]bool{}}
	f.seen = rec.note
	stalled := 0
	f.delay = func(from, to *box, worker int) time.Duration {
		d := 10 * time.Millisecond
		if from == r2 || to == r2 {
			d += 25 * time.Millisecond // each way of two hops: 50 in all
		}
		if (from == a || from == b) && worker == 3 && stalled%7 == 0 {
			d += 20 * time.Millisecond
		}
		stalled++
		return d
	}
	sent := 0
	for round := range 200 {
		if round%3 == 0 {
			pa, pb := one.pa, one.pb
			if round%2 == 0 {
				pa, pb = two.pb, two.pa
			}
			p.sa.SetActive(pa)
			p.sb.SetActive(pb)
		}
		for i := range workers {
			for range 20 {
				sent++
				a.workers[i].Originate(f.now, p.packet(100, sent), false)
				b.workers[i].Originate(f.now, p.packetBack(100, sent), false)
			}
			a.workers[i].Flush()
			b.workers[i].Flush()
		}
		f.now += time.Millisecond // 80 frames a millisecond and direction
		f.runUntil(f.now)
	}
	f.run()
	if len(a.tun.got) != sent || len(b.tun.got) != sent {
		t.Errorf("%d and %d of %d arrived", len(a.tun.got), len(b.tun.got), sent)
	}
	for _, x := range []*box{a, b, r1, r2} {
		x.wantDrops(t, nil)
	}
	if len(rec.seen) < sent {
		t.Errorf("only %d nonces seen", len(rec.seen))
	}
}

// runUntil delivers what is due by then.
func (f *fabric) runUntil(end time.Duration) {
	for len(f.queue) > 0 && f.queue[0].at <= end {
		f.step()
	}
}

// TestWorkersTogether has four goroutines seal on shared lanes and two open them, for the race detector and the nonces.
func TestWorkersTogether(t *testing.T) {
	t.Parallel()
	const senders, receivers, rounds, batch = 4, 2, 200, 8
	f := newFabric(t)
	a, b := f.box("a", 0), f.box("b", 0)
	f.link(a, b, 1472)
	p := f.session(a, b)
	l := f.lay(p, 2, 3, 1472, a, b)
	rec := &nonceRecorder{t: t, seen: map[nonceUse]bool{}}
	lines := make([]chan []byte, receivers)
	for i := range lines {
		lines[i] = make(chan []byte, 64)
	}
	var receive, send sync.WaitGroup
	tuns := make([]memTUN, receivers)
	for i := range receivers {
		receive.Go(func() {
			w := b.plane.NewWorker(nowhere{})
			w.SetTUN(&tuns[i])
			for train := range lines[i] {
				w.Receive(f.now, a.at, train, 144, 0)
				w.Flush()
			}
		})
	}
	for i := range senders {
		send.Go(func() {
			w := a.plane.NewWorker(outputFunc(func(_ Endpoint, train []byte, seg int) error {
				rec.note(a, b, train, seg)
				lines[(int(train[15])+i)%receivers] <- append([]byte(nil), train...)
				return nil
			}))
			for n := range rounds {
				for range batch {
					w.Originate(f.now, p.packet(100, n), false)
				}
				w.Flush()
			}
		})
	}
	send.Go(func() { // control changes things meanwhile
		for i := range 200 {
			p.sa.SetActive(l.pa)
			p.sb.SetGrants(Grants{})
			p.sb.SetRecvKey(uint8(10+i%3), aead(t, "other"))
			_ = b.plane.Counters()
			_ = l.pb.Stats()
			base, err := b.plane.Alloc(2)
			if err != nil {
				t.Error(err)
				return
			}
			b.plane.InstallRelay(base, 2, Relay{In: b.links[a], Out: b.links[a]})
			b.plane.Free(base, 2, 0)
		}
	})
	send.Wait()
	for _, c := range lines {
		close(c)
	}
	receive.Wait()
	if got := len(tuns[0].got) + len(tuns[1].got); got != senders*rounds*batch {
		t.Errorf("%d of %d arrived: %v", got, senders*rounds*batch, b.plane.Counters().Drops)
	}
}

type outputFunc func(to Endpoint, train []byte, seg int) error

func (o outputFunc) Send(to Endpoint, train []byte, seg int, _ uint8) error {
	return o(to, train, seg)
}

// nowhere takes everything.
type nowhere struct{}

func (nowhere) Send(Endpoint, []byte, int, uint8) error { return nil }

func TestSendErrors(t *testing.T) {
	t.Parallel()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	var fail error
	w := p.a.plane.NewWorker(outputFunc(func(Endpoint, []byte, int) error { return fail }))
	for _, fail = range []error{syscall.EAGAIN, syscall.EMSGSIZE, syscall.ENETUNREACH} {
		w.Originate(f.now, p.packet(500, 1), false)
		w.Flush()
	}
	p.a.wantDrops(t, map[string]uint64{"socket_full": 1, "too_big": 1, "send": 1})
	if len(p.a.calls.tooBig) != 1 || !w.takeFull() || w.takeFull() {
		t.Errorf("upcalls %v", p.a.calls.tooBig)
	}
}

// TestShrink has a network refuse what it carried before: the very next train fits, without a word of control.
func TestShrink(t *testing.T) {
	t.Parallel()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	for _, tt := range []struct{ carries, fits int }{{1400, 1232}, {700, 548}} {
		var sizes []int
		w := p.a.plane.NewWorker(outputFunc(func(_ Endpoint, _ []byte, seg int) error {
			sizes = append(sizes, seg)
			if seg > tt.carries {
				return syscall.EMSGSIZE
			}
			return nil
		}))
		before := len(p.a.calls.tooBig)
		for i := range 3 {
			w.Originate(f.now, p.packet(1428, i), false)
			w.Flush()
		}
		_, most := p.a.links[p.b].MTU()
		if most != tt.fits || len(p.a.calls.tooBig) != before+1 || sizes[0] <= tt.carries {
			t.Errorf("%d bytes pass: sent %v, MTU %d, told %v", tt.carries, sizes, most, p.a.calls.tooBig)
		}
		for _, s := range sizes[1:] {
			if s > tt.fits {
				t.Errorf("%d bytes pass: then sent %v", tt.carries, sizes)
			}
		}
	}
}

// TestLaneOf holds the rule by which flows stay on their loops: a loop's lane leaves by its own socket, never on the stream
// lane, and whatever way a flow takes between two boxes, it settles on one loop at each end.
func TestLaneOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		loop, loops, lanes int
		spread             uint8
		want               int
	}{
		{0, 1, 1, 9, 0},
		{5, 1, 1, 0, 0},
		{0, 1, 4, 0, 0},
		{0, 1, 4, 7, 3},
		{1, 2, 4, 0, 1},
		{1, 2, 4, 3, 3},
		{2, 4, 4, 7, 2},
		{0, 3, 4, 1, 3},
		{1, 3, 4, 1, 1},
		{6, 7, 7, 3, 6},
		{6, 7, 4, 3, 2},
	} {
		if got := laneOf(tt.loop, tt.loops, tt.lanes, tt.spread); got != tt.want {
			t.Errorf("loop %d of %d, %d lanes, spread %d: lane %d, want %d", tt.loop, tt.loops, tt.lanes, tt.spread, got, tt.want)
		}
	}
	const lanes = 4
	for here := 1; here <= lanes; here++ {
		for there := 1; there <= lanes; there++ {
			for spread := range uint8(12) {
				for start := range here {
					loop, was := start, -1
					for range 8 { // there and back: the kernel sends a flow by the queue that its answers came from
						lane := laneOf(loop, here, lanes, spread)
						if lane%here != loop {
							t.Fatalf("loop %d of %d has lane %d, of another socket", loop, here, lane)
						}
						back := laneOf(lane%there, there, lanes, spread)
						was, loop = loop, back%here
					}
					if loop != was {
						t.Errorf("%d and %d loops, spread %d: a flow on loop %d never settles", here, there, spread, start)
					}
				}
			}
		}
	}
}
