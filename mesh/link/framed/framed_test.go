package framed

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"skywire/mesh/forward"
)

// peer is a Set that remembers what comes.
type peer struct {
	*Set
	t     *testing.T
	addr  netip.AddrPort
	mu    sync.Mutex
	got   map[forward.Endpoint][]byte
	ended map[forward.Endpoint]bool
	news  chan struct{}
}

// newPeer makes a Set that listens, and runs it until the test ends.
func newPeer(t *testing.T, patience time.Duration) *peer {
	t.Helper()
	p := &peer{t: t, got: map[forward.Endpoint][]byte{}, ended: map[forward.Endpoint]bool{}, news: make(chan struct{}, 1)}
	begun := time.Now()
	s, err := New(Config{
		Take:     p.take,
		Ended:    p.end,
		Strange:  func(c net.Conn, _ []byte) { _, _ = c.Write([]byte("go away")) },
		Now:      func() time.Duration { return time.Since(begun) + time.Hour },
		Patience: patience,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Listen(l, forward.FirstTCP, nil)
	p.Set, p.addr = s, l.Addr().(*net.TCPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

func (p *peer) take(b *Batch) error {
	p.mu.Lock()
	for _, t := range b.Trains {
		p.got[b.From] = append(p.got[b.From], t.B...)
	}
	p.mu.Unlock()
	p.tell()
	return nil
}

func (p *peer) end(e forward.Endpoint, _ bool) {
	p.mu.Lock()
	p.ended[e] = true
	p.mu.Unlock()
	p.tell()
}

func (p *peer) tell() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// until waits for ok, which is asked whenever something has happened.
func (p *peer) until(what string, ok func() bool) {
	p.t.Helper()
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		p.mu.Lock()
		yes := ok()
		p.mu.Unlock()
		if yes {
			return
		}
		select {
		case <-p.news:
		case <-tick.C:
		case <-limit:
			p.t.Fatalf("never: %s", what)
		}
	}
}

func (p *peer) only() (e forward.Endpoint) {
	for k := range p.got {
		e = k
	}
	return e
}

// target is q as p dials it.
func (p *peer) target(q *peer) forward.Endpoint {
	p.t.Helper()
	e, err := p.Target(forward.FirstTCP, "q", q.addr, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", q.addr.String())
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

// TestFramesPass sends trains both ways, beginning with one that makes the connection.
func TestFramesPass(t *testing.T) {
	t.Parallel()
	a, b := newPeer(t, 0), newPeer(t, 0)
	to := a.target(b)
	if again := a.target(b); again != to {
		t.Errorf("the same place is %v and %v", to, again)
	}
	hello := []byte("hello, who is there?")
	if err := a.Send(to, hello, len(hello), 0); err != nil {
		t.Fatal(err)
	}
	b.until("the first frame", func() bool { return bytes.Equal(b.got[b.only()], hello) })
	back := b.only()
	if b.Proven(back) {
		t.Error("proven by a frame")
	}
	b.Prove(back)
	b.got[back] = nil
	train := bytes.Repeat([]byte("0123456789"), 1000)
	want := bytes.Repeat(train, 5)
	for range 5 {
		if err := b.Send(back, train, 1400, 0); err != nil {
			t.Fatal(err)
		}
		if err := a.Send(to, train, 1400, 0); err != nil {
			t.Fatal(err)
		}
	}
	b.until("trains", func() bool { return bytes.Equal(b.got[back], want) })
	a.until("trains back", func() bool { return bytes.Equal(a.got[to], want) })
	b.Sweep(0, func(forward.Endpoint) bool { return false })
	a.until("the end", func() bool { return a.ended[to] })
	b.until("its end", func() bool { return b.ended[back] })
	if err := b.Send(back, hello, len(hello), 0); !errors.Is(err, ErrGone) {
		t.Errorf("sent to a connection that has ended: %v", err)
	}
	if err := a.Send(to, hello, len(hello), 0); err != nil {
		t.Errorf("not dialled again: %v", err)
	}
	b.until("a new connection", func() bool { return len(b.got) == 2 })
}

// TestStrangers: whoever proves no key may say little, and has to go soon; however many they are.
func TestStrangers(t *testing.T) {
	t.Parallel()
	p := newPeer(t, time.Second)
	dial := func() net.Conn {
		c, err := net.Dial("tcp", p.addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		return c
	}
	ends := func(c net.Conn) string {
		b, _ := io.ReadAll(c)
		return string(b)
	}
	silent, slow, flood, junk := dial(), dial(), dial(), dial()
	go func() { // a byte now and then keeps nobody alive
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 100 {
			if _, err := slow.Write([]byte{1}); err != nil {
				return
			}
			<-tick.C
		}
	}()
	_, _ = junk.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	if got := ends(junk); got != "go away" {
		t.Errorf("junk is answered %q", got)
	}
	go func() {
		for range 1000 {
			if _, err := flood.Write(Append(nil, make([]byte, 198))); err != nil {
				return
			}
		}
	}()
	begun := time.Now()
	for name, c := range map[string]net.Conn{"silent": silent, "slow": slow, "flood": flood} {
		if got := ends(c); got != "" {
			t.Errorf("%s is answered %q", name, got)
		}
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("strangers stay for %v", took)
	}
	p.mu.Lock()
	for e, b := range p.got {
		if len(b) > strangerBytes {
			t.Errorf("%v: %d bytes of a stranger were taken", e, len(b))
		}
	}
	p.mu.Unlock()
	many := make([]net.Conn, 3*MaxStrangersPerHost)
	for i := range many {
		many[i] = dial()
	}
	if _, n := p.Count(); n > MaxStrangersPerHost {
		t.Errorf("%d strangers of one host", n)
	}
	for _, c := range many {
		ends(c)
	}
	p.until("all gone", func() bool { conns, n := p.Count(); return conns+n == 0 })
}

// TestFullDrops fills a connection whose other end does not read: nothing blocks, and what is held stays bounded.
func TestFullDrops(t *testing.T) {
	t.Parallel()
	a := newPeer(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	to, err := a.Target(forward.FirstTCP, "deaf", at, func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", at.String())
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = a.Send(to, []byte{1}, 1, 0)
	deaf, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	train := make([]byte, 60000)
	full := false
	for i := 0; i < 1000 && !full; i++ {
		full = a.Send(to, train, 1400, 0) != nil
		if x := a.slot(to); x != nil {
			if c := x.conn.Load(); c != nil {
				c.mu.Lock()
				if len(c.out) > outLimit+MaxFrame {
					t.Errorf("%d bytes wait", len(c.out))
				}
				c.mu.Unlock()
			}
		}
	}
	if !full {
		t.Error("60 MB were taken for somebody who does not read")
	}
}

// Not parallel: allocations are counted.
func TestSendAllocatesNothing(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	s, err := New(Config{Take: func(*Batch) error { return nil }, Ended: func(forward.Endpoint, bool) {}, Now: func() time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	x := &slot{number: forward.FirstTCP, addr: netip.MustParseAddrPort("192.0.2.1:1")}
	c := newConn(s, x, near, true)
	x.conn.Store(c)
	s.slots[0].Store(x)
	train := make([]byte, 14000)
	var done []byte
	round := func() {
		if err := s.Send(x.endpoint(), train, 1400, 0); err != nil {
			t.Fatal(err)
		}
		done = c.take(done)
	}
	for range 4 {
		round()
	}
	if n := testing.AllocsPerRun(100, round); n > 0 {
		t.Errorf("%v allocations to send a train", n)
	}
	stream := bytes.Clone(done)
	trains := make([]Train, 0, 8)
	work := make([]byte, len(stream))
	if n := testing.AllocsPerRun(100, func() {
		copy(work, stream)
		trains, _, _ = Trains(trains[:0], work)
	}); n > 0 {
		t.Errorf("%v allocations to receive one", n)
	}
	if len(trains) != 1 || len(trains[0].B) != len(train) || trains[0].Seg != 1400 {
		t.Errorf("%d trains", len(trains))
	}
}

func TestTrains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		sizes []int
		want  []int // frames in each train
	}{
		{"one", []int{5}, []int{1}},
		{"equal", []int{7, 7, 7}, []int{3}},
		{"the last shorter", []int{7, 7, 3}, []int{3}},
		{"then another", []int{7, 7, 3, 7}, []int{3, 1}},
		{"longer", []int{3, 7}, []int{1, 1}},
		{"many", sizes(100, 9), []int{64, 36}},
		{"long", sizes(10, MaxFrame), []int{7, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var in, want []byte
			for i, n := range c.sizes {
				f := bytes.Repeat([]byte{byte(i + 1)}, n)
				in, want = Append(in, f), append(want, f...)
			}
			whole := len(in)
			in = append(in, 0, 9, 1) // the beginning of another frame
			all, n, err := Trains(nil, in)
			if err != nil || n != whole || len(all) != len(c.want) {
				t.Fatalf("%d trains, %d of %d bytes, %v", len(all), n, whole, err)
			}
			var got []byte
			for i, x := range all {
				got = append(got, x.B...)
				if frames := (len(x.B) + x.Seg - 1) / x.Seg; frames != c.want[i] {
					t.Errorf("train %d: %d frames, want %d", i, frames, c.want[i])
				}
			}
			if !bytes.Equal(got, want) {
				t.Error("bytes differ")
			}
		})
	}
}

func sizes(n, size int) (all []int) {
	for range n {
		all = append(all, size)
	}
	return all
}

func Fuzz(f *testing.F) {
	f.Add(Append(Append(nil, []byte("one")), []byte("two")))
	f.Add([]byte{0, 0})
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want []byte
		rest := b
		for {
			frame, n, err := Parse(rest)
			if err != nil || n == 0 {
				break
			}
			want = append(want, frame...)
			if again := Append(nil, frame); !bytes.Equal(again, rest[:n]) {
				t.Errorf("%x becomes %x", rest[:n], again)
			}
			rest = rest[n:]
		}
		all, n, _ := Trains(nil, bytes.Clone(b))
		var got []byte
		for _, x := range all {
			if len(x.B) == 0 || x.Seg <= 0 || x.Seg > len(x.B) || len(x.B) > maxTrain {
				t.Errorf("train of %d bytes by %d", len(x.B), x.Seg)
			}
			got = append(got, x.B...)
		}
		if !bytes.Equal(got, want) || n != len(b)-len(rest) {
			t.Error("trains hold other frames")
		}
	})
}
