package forward

import (
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

// slowSocket is the socket of a box before a line of so many bytes a second. Its buffer takes trains until it is full, and can be
// written again when it is half empty, as the kernel's.
type slowSocket struct {
	port
	rate   float64 // bytes a second
	room   float64 // bytes of the buffer
	delay  time.Duration
	until  time.Duration // when what it took will have left
	broken error         // of every send
	part   func(train []byte, seg int) int
	first  float64 // room before it was limited
}

func (s *slowSocket) FD() int                         { return 0 }
func (s *slowSocket) Receive([]byte) (Arrival, error) { return Arrival{}, syscall.EAGAIN }
func (s *slowSocket) Send(netip.AddrPort, []byte, int, uint8) error {
	return errors.New("the loop waits for a socket")
}

func (s *slowSocket) held() float64 { return max(0, (s.until-s.b.f.now).Seconds()*s.rate) }

// LimitSend does as the kernel, of whose buffer about half is overhead.
func (s *slowSocket) LimitSend(n int) {
	if s.first == 0 {
		s.first = s.room
	}
	s.room = min(s.first, float64(n))
}

// writable is when it will be.
func (s *slowSocket) writable() time.Duration {
	return s.until - time.Duration(s.room/2/s.rate*float64(time.Second)) + 1
}

func (s *slowSocket) TrySend(to netip.AddrPort, train []byte, seg int, ecn uint8) (int, error) {
	if s.broken != nil {
		return 0, s.broken
	}
	if s.held() >= s.room {
		return 0, syscall.EAGAIN
	}
	n := len(train)
	if s.part != nil {
		n = s.part(train, seg)
	}
	f := s.b.f
	for at := 0; at < n; at += seg { // the line takes them one by one
		b := train[at:min(at+seg, n)]
		s.until = max(s.until, f.now) + time.Duration(float64(len(b))/s.rate*float64(time.Second))
		f.seq++
		heap.Push(&f.queue, flight{at: s.until + s.delay, seq: f.seq, to: f.boxes[to], from: s.b.at, b: slices.Clone(b), seg: len(b), ecn: ecn})
	}
	if n < len(train) {
		return n, syscall.EAGAIN
	}
	return n, nil
}

// world is a poller that turns a fabric's clock: one loop with a slow socket and a TUN of senders, until the end.
type world struct {
	f       *fabric
	p       *pair
	socket  *slowSocket
	loop    *Loop
	senders []*sender
	end     time.Duration
	stop    context.CancelFunc
	events  []scriptEvent
	now     int // the sender that is read next
	read    bool
	write   bool
	waits   int
	acks    acks
	given   [][]byte
	queued  []time.Duration // of each packet that arrived in the second half: from its read to its last byte on the line
	bytes   int             // arrived in the second half
	most    int             // bytes that waited
	turn    float64         // the line's rate in the second half; 0: the same
}

// sender is a TCP of few words: a window that grows by one packet a round trip, or doubles at first, and is halved once a round trip
// by a mark or a gap. One without an end floods.
type sender struct {
	w        *world
	n        int
	flood    bool
	ecn      bool
	size     int
	window   float64
	slow     bool // start
	next     int
	acked    int
	recover  int // no second halving before this one is acknowledged
	lastSend time.Duration
	sent     map[int]time.Duration
}

type ack struct {
	at     time.Duration
	s      *sender
	number int
	marked bool
}

type acks []ack

func (a acks) Len() int { return len(a) }
func (a acks) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].number < a[j].number
}
func (a acks) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *acks) Push(x any)   { *a = append(*a, x.(ack)) }
func (a *acks) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

func (s *sender) may() bool { return s.flood || s.next-s.acked < int(s.window) }

// take gives up to n packets.
func (s *sender) take(n int) (out [][]byte) {
	for ; n > 0 && s.may(); n-- {
		p := s.w.p.packet(s.size, s.next)
		binary.BigEndian.PutUint16(p[56:], uint16(s.n))
		if s.ecn {
			p[1] |= 2 << 4
		}
		s.sent[s.next] = s.w.f.now
		s.lastSend = s.w.f.now
		s.next++
		out = append(out, p)
	}
	return out
}

func (s *sender) take1(a ack) {
	lost := a.number > s.acked
	s.acked = max(s.acked, a.number+1)
	switch {
	case (lost || a.marked) && a.number >= s.recover:
		s.window, s.slow, s.recover = max(2, s.window/2), false, s.next
	case lost || a.marked:
	case s.slow:
		s.window++
	default:
		s.window += 1 / s.window
	}
}

// newWorld has so many senders before a line of 10 Mbit/s and 40 ms of round trip.
func newWorld(t *testing.T, senders, floods int, ecn bool, end time.Duration, memory uint64) *world {
	t.Helper()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	w := &world{f: f, p: p, end: f.now + end}
	w.socket = &slowSocket{port: port{b: p.a}, rate: 10e6 / 8, room: 256 << 10, delay: 20 * time.Millisecond}
	for i := range senders + floods {
		w.senders = append(w.senders, &sender{
			w: w, n: i, ecn: ecn, flood: i >= senders, size: 1300, window: 10, slow: true, sent: map[int]time.Duration{},
		})
	}
	l, err := NewLoop(LoopConfig{
		Plane: p.a.plane, Poller: w, Sockets: []Socket{w.socket}, Memory: memory, Now: func() time.Duration { return f.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.loop = l
	if err := l.Attach(w); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	w.stop = cancel
	if err := w.loop.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// The TUN of the world.

func (w *world) Receive() (int, error) {
	for range w.senders {
		s := w.senders[w.now%len(w.senders)]
		w.now++
		if w.given = s.take(45); len(w.given) > 0 {
			return len(w.given), nil
		}
	}
	return 0, syscall.EAGAIN
}

func (w *world) Packet(b []byte) (int, bool, bool) {
	if len(w.given) == 0 {
		return 0, false, false
	}
	n := copy(b, w.given[0])
	w.given = w.given[1:]
	return n, false, true
}
func (w *world) FD() int                 { return tunIDs + 1 }
func (w *world) Send([]byte, bool) error { return nil }
func (w *world) Flush() error            { return nil }

// The poller of the world.

func (w *world) Add(int, Source) error { w.read = true; return nil }
func (w *world) Remove(Source) error   { return nil }
func (w *world) Wake()                 {}
func (w *world) Close() error          { return nil }
func (w *world) Interest(id int, _ Source, read, write bool) error {
	if id == 0 {
		w.write = write
	} else {
		w.read = read
	}
	return nil
}

func (w *world) Event(i int) (int, bool, bool, bool) {
	e := w.events[i]
	return e.id, e.read, e.write, e.broken
}

// Wait goes on to the next instant at which something is ready.
func (w *world) Wait() (int, error) {
	w.waits++
	q := w.loop.worker.backlog.queues[0]
	w.most = max(w.most, q.bytes)
	w.events = w.events[:0]
	for len(w.events) == 0 {
		if w.write && w.socket.held() < w.socket.room/2 {
			w.events = append(w.events, scriptEvent{id: 0, write: true})
		}
		if w.read && slices.ContainsFunc(w.senders, (*sender).may) {
			w.events = append(w.events, scriptEvent{id: tunIDs + 1, read: true})
		}
		if len(w.events) == 0 && !w.advance() || w.f.now > w.end {
			w.stop()
			return 0, nil
		}
	}
	return len(w.events), nil
}

// advance turns the clock to the next event of the network.
func (w *world) advance() bool {
	next := time.Duration(1 << 62)
	if len(w.f.queue) > 0 {
		next = w.f.queue[0].at
	}
	if len(w.acks) > 0 {
		next = min(next, w.acks[0].at)
	}
	if w.write {
		next = min(next, w.socket.writable())
	}
	for _, s := range w.senders { // a retransmission timeout: all is lost
		if at := s.lastSend + 300*time.Millisecond; !s.may() {
			if next = min(next, max(at, w.f.now)); at <= w.f.now {
				s.acked, s.window, s.recover, s.slow = s.next, 2, s.next, false
			}
		}
	}
	if next == 1<<62 {
		return false
	}
	w.f.now = max(w.f.now, next)
	if w.turn > 0 && w.f.now > w.end/2 {
		w.socket.rate = w.turn
	}
	for len(w.f.queue) > 0 && w.f.queue[0].at <= w.f.now {
		w.f.step()
	}
	w.arrive()
	for len(w.acks) > 0 && w.acks[0].at <= w.f.now {
		a := heap.Pop(&w.acks).(ack)
		a.s.take1(a)
	}
	return true
}

// arrive has the far end acknowledge what came out of its TUN.
func (w *world) arrive() {
	for _, p := range w.p.b.tun.got {
		s, number := w.senders[binary.BigEndian.Uint16(p[56:])], int(binary.BigEndian.Uint64(p[48:]))
		if w.f.now > w.end/2 {
			w.queued = append(w.queued, w.f.now-w.socket.delay-s.sent[number])
			w.bytes += len(p)
		}
		delete(s.sent, number)
		if !s.flood {
			heap.Push(&w.acks, ack{at: w.f.now + w.socket.delay, s: s, number: number, marked: p[1]>>4&3 == ecnCE})
		}
	}
	w.p.b.tun.got, w.p.b.tun.gotC = w.p.b.tun.got[:0], w.p.b.tun.gotC[:0]
}

// rate is what arrived in the second half, in Mbit/s of inner packets.
func (w *world) rate() float64 { return float64(w.bytes) * 8 / (w.end / 2).Seconds() / 1e6 }

// TestBacklogDelay has TCP senders share 10 Mbit/s: the line stays full, and what waits is near CoDel's target beside the 20 ms
// at most that the socket is left with. With a window that nothing talks to, it would be all that backlog and device hold.
func TestBacklogDelay(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		senders int
		ecn     bool
		median  time.Duration // at most
		p95     time.Duration
	}{
		{"one", 1, false, 40 * time.Millisecond, 80 * time.Millisecond},
		{"one, ECN", 1, true, 40 * time.Millisecond, 80 * time.Millisecond},
		{"four", 4, false, 60 * time.Millisecond, 100 * time.Millisecond},
		{"four, ECN", 4, true, 60 * time.Millisecond, 100 * time.Millisecond},
		{"sixteen, ECN", 16, true, 80 * time.Millisecond, 120 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, tt.senders, 0, tt.ecn, 10*time.Second, 1<<30)
			w.run(t)
			slices.Sort(w.queued)
			n := len(w.queued)
			c := w.p.a.plane.Counters()
			median, p95 := w.queued[n/2], w.queued[n*95/100]
			t.Logf("%.2f Mbit/s, queued p50 %v p95 %v max %v; marked %d, drops %v", w.rate(), median, p95, w.queued[n-1], c.MarkedFrames, c.Drops)
			if w.rate() < 9 || median > tt.median || p95 > tt.p95 {
				t.Errorf("want 9 Mbit/s, %v, %v", tt.median, tt.p95)
			}
			if (c.MarkedFrames > 0) != tt.ecn || !tt.ecn && c.Drops["backlog"] == 0 {
				t.Errorf("marked %d, dropped %v", c.MarkedFrames, c.Drops)
			}
			w.p.b.wantDrops(t, nil)
			if w.socket.room < 15_000 || w.socket.room > 40_000 {
				t.Errorf("the socket may hold %v bytes, want some 20 ms, 25,000", w.socket.room)
			}
		})
	}
}

// TestBacklogTurns has the line become faster and slower: rate and delay follow.
func TestBacklogTurns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ from, to float64 }{{2, 50}, {50, 2}} {
		w := newWorld(t, 4, 0, true, 20*time.Second, 1<<30)
		w.socket.rate, w.turn = tt.from*1e6/8, tt.to*1e6/8
		w.run(t)
		slices.Sort(w.queued)
		n := len(w.queued)
		t.Logf("%v to %v Mbit/s: %.2f, queued p50 %v p95 %v; the socket may hold %v bytes",
			tt.from, tt.to, w.rate(), w.queued[n/2], w.queued[n*95/100], w.socket.room)
		if w.rate() < 0.8*tt.to || w.queued[n/2] > 200*time.Millisecond {
			t.Error("want four fifths of the line and a short queue")
		}
	}
}

// TestBacklogFlood has somebody send without end for minutes: nothing grows, the TUN is left to the kernel, the line stays full,
// and what arrives waited no longer than it may. Then the flood ends, and the first to come finds the queue empty soon.
func TestBacklogFlood(t *testing.T) {
	t.Parallel()
	for _, memory := range []uint64{64 << 20, 1 << 30} {
		w := newWorld(t, 0, 1, false, 3*time.Minute, memory)
		w.socket.rate = 1e6 / 8
		w.run(t)
		q := w.loop.worker.backlog.queues[0]
		slices.Sort(w.queued)
		n := len(w.queued)
		c := w.p.a.plane.Counters()
		t.Logf("%d MB: %.2f Mbit/s, queued p50 %v max %v, %d kB waited, %d rounds, drops %v",
			memory>>20, w.rate(), w.queued[n/2], w.queued[n-1], w.most>>10, w.waits, c.Drops)
		// The socket holds 64 ms more.
		if w.rate() < 0.9 || w.queued[n-1] > backlogAge+100*time.Millisecond || w.most > q.size || w.waits > 100_000 {
			t.Error("want a full line, a second, bounded memory and few rounds")
		}
		if c.OriginatedPackets > uint64(n)*100 {
			t.Errorf("%d packets were sealed for %d that arrived in the second half", c.OriginatedPackets, n)
		}
	}
}

// TestBacklogKeepsOrder sends packets through a socket that takes parts of trains at random, at the source and at a relay: what
// arrives is in order, opens, and carries marks only where it may; what does not arrive is counted.
func TestBacklogKeepsOrder(t *testing.T) {
	t.Parallel()
	for relays := range 2 {
		r := rand.New(rand.NewPCG(5, uint64(relays)))
		f, p, _, hops := chain(t, relays, 2, 1472, 1)
		slow := hops[relays]
		s := &slowSocket{port: port{b: slow}, rate: 1e6, room: 20_000, part: func(train []byte, seg int) int {
			return min(len(train), seg*r.IntN(50))
		}}
		w := slow.workers[0]
		w.backlog = newBacklog(w, []Socket{s}, []int{0}, 64<<20, func(int) {})
		sent, got, marked, random := 0, 0, 0, time.Duration(0)
		last := -1
		check := func() {
			for _, x := range p.b.tun.got {
				n := int(binary.BigEndian.Uint64(x[48:]))
				if n <= last {
					t.Fatalf("%d relays: packet %d after %d", relays, n, last)
				}
				if ecn := x[1] >> 4 & 3; ecn != 0 && n%2 == 0 || ecn == 0 && n%2 == 1 {
					t.Fatalf("%d relays: packet %d has ECN %d", relays, n, ecn)
				} else if ecn == ecnCE {
					marked++
				}
				last = n
				got++
			}
			p.b.tun.got = p.b.tun.got[:0]
		}
		for range 600 {
			for range r.IntN(60) {
				x := p.packet(100+r.IntN(4)*400, sent)
				if sent%2 == 1 {
					x[1] |= 2 << 4
				}
				p.a.workers[0].Originate(f.now, x, false)
				sent++
			}
			p.a.workers[0].Flush()
			for random = f.now + time.Duration(r.IntN(40))*time.Millisecond; f.now < random; {
				if len(f.queue) > 0 && f.queue[0].at < random {
					f.step()
				} else {
					f.now = random
				}
				if s.held() < s.room/2 {
					w.backlog.drain(f.now, 0)
				}
			}
			check()
		}
		for len(f.queue) > 0 || w.backlog.waits(0) {
			f.run()
			f.now = max(f.now, s.until)
			w.backlog.drain(f.now, 0)
		}
		check()
		drops := int(slow.plane.Dropped(DropBacklog))
		t.Logf("%d relays: %d sent, %d arrived, %d dropped, %d marked", relays, sent, got, drops, marked)
		if got+drops != sent || drops == 0 || marked == 0 || uint64(marked) > slow.plane.Counters().MarkedFrames {
			t.Errorf("%d relays: %d sent, %d arrived, %d dropped, %d marked", relays, sent, got, drops, marked)
		}
		if out := slow.links[p.b].Stats().SentFrames; out != uint64(got) {
			t.Errorf("%d relays: %d frames counted as sent, want %d", relays, out, got)
		}
		p.b.wantDrops(t, nil)
		if q := w.backlog.queues[0]; q.bytes != 0 || q.n != 0 {
			t.Errorf("%d bytes of %d trains are left in an empty queue", q.bytes, q.n)
		}
	}
}

// TestBacklogErrors has a socket refuse what waited, and a link go down before its trains went.
func TestBacklogErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		broken error
		down   bool
		drop   string
	}{
		{"refused", syscall.EPERM, false, "send"},
		{"too big", syscall.EMSGSIZE, false, "too_big"},
		{"link down", nil, true, "link_down"},
	} {
		f, p, _, _ := chain(t, 0, 2, 1472, 1)
		s := &slowSocket{port: port{b: p.a}, rate: 1e6, room: 1}
		w := p.a.workers[0]
		watched := 0
		w.backlog = newBacklog(w, []Socket{s}, []int{0}, 64<<20, func(int) { watched++ })
		for i := range 3 {
			w.Originate(f.now, p.packet(500, i), false)
			w.Flush()
		}
		p.a.links[p.b].SetUp(!tt.down)
		s.broken = tt.broken
		f.now += 10 * time.Millisecond
		w.backlog.drain(f.now, 0)
		f.run()
		p.a.wantDrops(t, map[string]uint64{tt.drop: 2})
		if w.backlog.waits(0) || watched != 2 || len(p.b.tun.got) != 1 {
			t.Errorf("%s: waits %v, %d changes, %d arrived", tt.name, w.backlog.waits(0), watched, len(p.b.tun.got))
		}
	}
}

// TestBacklogRing compares the ring with a list of copies.
func TestBacklogRing(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 7))
	_, p, _, _ := chain(t, 0, 2, 1472, 1)
	w := p.a.workers[0]
	b := newBacklog(w, []Socket{&slowSocket{}}, []int{0}, 64<<20, func(int) {})
	q := b.queues[0]
	q.size = 10_000
	var model [][]byte
	for range 10_000 {
		if r.IntN(3) > 0 {
			train := make([]byte, 1+r.IntN([]int{10, 500, 4000}[r.IntN(3)]))
			for i := range train {
				train[i] = byte(r.Uint32())
			}
			was := q.n
			b.push(q, waiting{n: len(train), seg: 100}, train)
			model = append(model[was+1-q.n:], train)
		} else if q.n > 0 {
			t0 := q.front()
			if cut := r.IntN(t0.n + 1); cut < t0.n {
				q.cut(t0, cut)
				model[0] = model[0][cut:]
			} else {
				q.pop()
				model = model[1:]
			}
		}
		bytes := 0
		for i, want := range model {
			x := q.trains[(q.head+i)%len(q.trains)]
			if string(q.ring[x.off:x.off+x.n]) != string(want) {
				t.Fatalf("train %d of %d changed", i, len(model))
			}
			bytes += len(want)
		}
		if q.n != len(model) || q.bytes != bytes {
			t.Fatalf("%d trains of %d bytes, want %d of %d", q.n, q.bytes, len(model), bytes)
		}
	}
}

// TestBacklogAllocations: neither the way past the backlog nor the way through it makes garbage.
func TestBacklogAllocations(t *testing.T) {
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	w := p.a.workers[0]
	s := &tiredSocket{}
	w.backlog = newBacklog(w, []Socket{s}, []int{0}, 64<<20, func(int) {})
	x := p.packet(1300, 1)
	for name, full := range map[string]bool{"past": false, "through": true} {
		if n := testing.AllocsPerRun(500, func() {
			s.full = full
			for range 3 {
				w.Originate(f.now, x, false)
				w.Flush()
			}
			s.full = false
			f.now += time.Millisecond
			w.backlog.drain(f.now, 0)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// tiredSocket takes everything or nothing.
type tiredSocket struct {
	slowSocket
	full bool
}

func (s *tiredSocket) TrySend(_ netip.AddrPort, train []byte, _ int, _ uint8) (int, error) {
	if s.full {
		return 0, syscall.EAGAIN
	}
	return len(train), nil
}

// TestCoDel compares signals with the times of RFC 8289's law.
func TestCoDel(t *testing.T) {
	t.Parallel()
	var c codel
	run := func(from, to time.Duration, sojourn time.Duration, standing bool) (at []int) {
		for now := from; now < to; now += time.Millisecond {
			for c.due(now, sojourn, standing) {
				at = append(at, int(now/time.Millisecond))
			}
		}
		return at
	}
	const second = time.Second
	for _, tt := range []struct {
		name     string
		from, to time.Duration
		sojourn  time.Duration
		standing bool
		want     []int
	}{
		{"below the target", 0, second, 4 * time.Millisecond, true, nil},
		{"one train alone", second, 2 * second, 50 * time.Millisecond, false, nil},
		{"a short burst", 2 * second, 2*second + 99*time.Millisecond, 50 * time.Millisecond, true, nil},
		{"it went", 2*second + 99*time.Millisecond, 3 * second, 0, true, nil},
		// 100/√1, 100/√2, 100/√3 … after each other
		{"standing", 3 * second, 3500 * time.Millisecond, 6 * time.Millisecond, true, []int{3100, 3200, 3271, 3329, 3379, 3424, 3464}},
		{"gone", 3500 * time.Millisecond, 3600 * time.Millisecond, 0, true, nil},
		// count goes on at 7-1 = 6: 100/√6, 100/√7 …
		{"back soon", 3600 * time.Millisecond, 3800 * time.Millisecond, 9 * time.Millisecond, true, []int{3700, 3741, 3779}},
		{"gone for long", 3800 * time.Millisecond, 7 * second, 0, true, nil},
		{"as at first", 7 * second, 7250 * time.Millisecond, 9 * time.Millisecond, true, []int{7100, 7200}},
	} {
		if got := run(tt.from, tt.to, tt.sojourn, tt.standing); !slices.Equal(got, tt.want) {
			t.Errorf("%s: signals at %v, want %v", tt.name, got, tt.want)
		}
	}
}
