package meshtest

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/node"
)

func testLog() *slog.Logger {
	if os.Getenv("MESHTEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// threesome returns a – r – b with 5 ms a wire; both ends dial the relay.
func threesome(n *Net, o Options) (a, r, b *Node) {
	a, r, b = n.Add("a", o), n.Add("r", o), n.Add("b", o)
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	return a, r, b
}

func TestPingOverRelay(t *testing.T) {
	t.Parallel()
	n := New(1, testLog())
	a, _, b := threesome(n, Options{})
	n.Run(2 * time.Second)
	var rtt time.Duration
	var got error
	done := false
	a.Ping(b.Key, func(d time.Duration, err error) { rtt, got, done = d, err, true })
	n.RunUntil(5*time.Second, func() bool { return done })
	if !done || got != nil {
		t.Fatalf("ping: done %v, %v", done, got)
	}
	if rtt != 20*time.Millisecond {
		t.Errorf("rtt %v, want 20 ms", rtt)
	}
}

// diamond returns a – r1 – b and a – r2 – b, with no direct wire, linked and converged; r1's way is the faster one.
func diamond(t *testing.T, n *Net, o Options) (a, r1, r2, b *Node) {
	t.Helper()
	a, r1, r2, b = n.Add("a", o), n.Add("r1", o), n.Add("r2", o), n.Add("b", o)
	for _, r := range []*Node{r1, r2} {
		delay := 5 * time.Millisecond
		if r == r2 {
			delay = 8 * time.Millisecond
		}
		n.Connect(a, r, Wire{Delay: delay})
		n.Connect(r, b, Wire{Delay: delay})
		a.Dial(r)
		b.Dial(r)
	}
	n.Run(3 * time.Second)
	return a, r1, r2, b
}

// packet makes an IPv6 packet between two nodes' mesh addresses with a number in it.
func packet(from, to *Node, number uint32) []byte {
	p := make([]byte, 140)
	p[0] = 6 << 4
	binary.BigEndian.PutUint16(p[4:], 100)
	p[6], p[7] = 253, 64 // RFC 3692 experiments
	copy(p[8:], key.Open().Address(from.Key).AsSlice())
	copy(p[24:], key.Open().Address(to.Key).AsSlice())
	binary.BigEndian.PutUint32(p[40:], number)
	return p
}

// flow sends numbered packets from a to b at an interval and notes what arrives, and when.
type flow struct {
	sent uint32
	seen map[uint32]time.Duration
	gap  time.Duration // longest silence at b
	last time.Duration
	stop bool
}

func startFlow(n *Net, a, b *Node, every time.Duration) *flow {
	f := &flow{seen: map[uint32]time.Duration{}}
	b.Stack = func(_ *Node, p []byte) {
		f.seen[binary.BigEndian.Uint32(p[40:])] = n.Now()
		if f.last != 0 {
			f.gap = max(f.gap, n.Now()-f.last)
		}
		f.last = n.Now()
	}
	var send func()
	send = func() {
		if f.stop {
			return
		}
		f.sent++
		a.Send(packet(a, b, f.sent))
		n.After(every, send)
	}
	n.After(0, send)
	return f
}

func (f *flow) lost() int { return int(f.sent) - len(f.seen) }

func TestFlowSurvivesRelay(t *testing.T) {
	t.Parallel()
	n := New(2, testLog())
	a, r1, r2, b := diamond(t, n, Options{})
	f := startFlow(n, a, b, 5*time.Millisecond)
	n.Run(5 * time.Second)
	if f.lost() > 4 {
		t.Fatalf("%d of %d packets lost before anything happened", f.lost(), f.sent)
	}
	f.gap = 0
	before := f.lost()
	r1.Stop()
	n.Run(5 * time.Second)
	t.Logf("gap %v, %d packets lost", f.gap, f.lost()-before)
	if f.gap > 600*time.Millisecond {
		t.Errorf("gap of %v after a relay died, want below 600 ms", f.gap)
	}
	r1.Start()
	r1.Dial(a)
	r1.Dial(b)
	n.Run(10 * time.Second)
	f.gap = 0
	r2.Stop()
	n.Run(5 * time.Second)
	if f.gap > 600*time.Millisecond {
		t.Errorf("gap of %v after the second relay died, want below 600 ms", f.gap)
	}
}

func TestRekeyLosesNothing(t *testing.T) {
	t.Parallel()
	n := New(3, testLog())
	o := Options{Core: node.CoreConfig{Rekey: 10 * time.Second, Timers: link.Timers{Rekey: 10 * time.Second}}}
	a, r, b := threesome(n, o)
	n.Run(2 * time.Second)
	f := startFlow(n, a, b, 10*time.Millisecond)
	n.Run(45 * time.Second)
	f.stop = true
	n.Run(time.Second)
	if f.lost() != 0 {
		t.Errorf("%d of %d packets lost over three rekeys, want 0", f.lost(), f.sent)
	}
	for _, nd := range []*Node{a, r, b} {
		c := nd.Core.Plane().Counters()
		delete(c.Drops, "no_path") // the first packets, which waited for the session
		delete(c.Drops, "unrouted")
		if len(c.Drops) > 0 {
			t.Errorf("%s dropped %v, want nothing", nd, c.Drops)
		}
	}
}

func TestLossyWires(t *testing.T) {
	t.Parallel()
	n := New(4, testLog())
	var nodes []*Node
	for i := range 5 {
		nodes = append(nodes, n.Add(fmt.Sprint("n", i), Options{}))
		if i > 0 {
			n.Connect(nodes[i-1], nodes[i], Wire{Delay: 50 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.05})
			nodes[i].Dial(nodes[i-1])
		}
	}
	a, b := nodes[0], nodes[4]
	n.Run(10 * time.Second)
	f := startFlow(n, a, b, 20*time.Millisecond)
	n.Run(60 * time.Second)
	f.stop = true
	n.Run(2 * time.Second)
	if share := float64(f.lost()) / float64(f.sent); share > 0.25 {
		t.Errorf("%.0f %% of the packets lost over four wires of 5 %% each, want about 19 %%", share*100)
	}
}

// TestRelayRestart kills a relay, lets it come back with its stored rules, and wants the old path to carry frames again
// without a new setup.
func TestRelayRestart(t *testing.T) {
	t.Parallel()
	n := New(5, testLog())
	o := Options{Core: node.CoreConfig{StoreAfter: time.Second}}
	a, r, b := threesome(n, o)
	n.Run(2 * time.Second)
	f := startFlow(n, a, b, 10*time.Millisecond)
	n.Run(5 * time.Second)
	ids := r.Core.Rules(n.Now())
	if len(ids) == 0 {
		t.Fatal("no rule worth storing")
	}
	r.Save()
	r.Stop()
	n.Run(300 * time.Millisecond)
	f.gap, f.last = 0, 0
	r.Start()
	back := n.Now()
	n.Run(3 * time.Second)
	if f.last == 0 {
		t.Fatal("nothing arrives after the relay came back")
	}
	first := time.Duration(1<<62 - 1)
	for _, at := range f.seen {
		if at > back {
			first = min(first, at)
		}
	}
	t.Logf("first packet %v after the relay came back", first-back)
	if first-back > 500*time.Millisecond {
		t.Errorf("first packet %v after the relay came back, want within 500 ms", first-back)
	}
	again := r.Core.Rules(n.Now())
	if len(again) == 0 || again[0].ID != ids[0].ID {
		t.Errorf("the old path is gone: %d rules", len(again))
	}
}

// TestEndRestart kills the far end of a flow and wants the flow back soon after it returns, though it forgot the session.
func TestEndRestart(t *testing.T) {
	t.Parallel()
	n := New(6, testLog())
	a, r, b := threesome(n, Options{})
	n.Run(2 * time.Second)
	f := startFlow(n, a, b, 10*time.Millisecond)
	back := startFlow(n, b, a, 10*time.Millisecond)
	n.Run(5 * time.Second)
	for round, down := range []time.Duration{200 * time.Millisecond, 3 * time.Second, 20 * time.Second} {
		b.Stop()
		n.Run(down)
		b.Start()
		b.Dial(r)
		at := n.Now()
		f.last, back.last = 0, 0
		ok := n.RunUntil(20*time.Second, func() bool { return f.last != 0 && back.last != 0 })
		t.Logf("round %d: both flows back %v after the node", round, n.Now()-at)
		if !ok || n.Now()-at > 2*time.Second {
			t.Errorf("round %d: flows back after %v, want within 2 s", round, n.Now()-at)
		}
		n.Run(2 * time.Second)
	}
}

// TestHintBringsRelayBack restarts a relay that one neighbour has to dial: its idle link finds out by a HINT, not by the
// silence of pings.
func TestHintBringsRelayBack(t *testing.T) {
	t.Parallel()
	n := New(7, testLog())
	a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	r.Dial(a)
	b.Dial(r)
	n.Run(2 * time.Second)
	f := startFlow(n, a, b, 50*time.Millisecond)
	n.Run(5 * time.Second)
	for range 5 {
		r.Stop()
		n.Run(100 * time.Millisecond)
		r.Start()
		r.Dial(a)
		at := n.Now()
		f.last = 0
		n.RunUntil(20*time.Second, func() bool { return f.last != 0 })
		t.Logf("flow back %v after the relay", n.Now()-at)
		if n.Now()-at > 1500*time.Millisecond {
			t.Errorf("flow back %v after the relay, want within 1.5 s", n.Now()-at)
		}
		n.Run(2 * time.Second)
	}
}
