package meshtest

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/wire"
)

// isData tells the frames of the data plane from handshakes and LINK frames.
func isData(b []byte) bool { return b[0] == wire.TypeSealed || b[0] == wire.TypePresealed }

// quiet lets time pass and wants a flow to lose at most so many packets of those sent meanwhile.
func (f *flow) quiet(t *testing.T, n *Net, d time.Duration, most int) {
	t.Helper()
	sent, seen := f.sent, len(f.seen)
	n.Run(d)
	if lost := int(f.sent-sent) - (len(f.seen) - seen); lost > most {
		t.Errorf("%d of %d packets lost in %v, want at most %d", lost, f.sent-sent, d, most)
	}
}

// TestPartition cuts a grid in two halves and joins them again, for longer and longer.
func TestPartition(t *testing.T) {
	t.Parallel()
	n := New(21, testLog())
	all := grid(n, 4, 4, Options{}, Wire{Delay: 4 * time.Millisecond, Jitter: time.Millisecond})
	n.Run(5 * time.Second)
	f := startFlow(n, all[0][0], all[3][3], 20*time.Millisecond)
	inside := startFlow(n, all[0][3], all[1][0], 20*time.Millisecond)
	n.Run(3 * time.Second)
	for _, d := range []time.Duration{500 * time.Millisecond, 5 * time.Second, time.Minute, 4 * time.Minute} {
		for x := range 4 {
			n.wires[[2]*Node{all[1][x], all[2][x]}].Down = true
		}
		n.Run(min(d, 3*time.Second))
		inside.quiet(t, n, max(d-3*time.Second, 100*time.Millisecond), 5)
		for x := range 4 {
			n.wires[[2]*Node{all[1][x], all[2][x]}].Down = false
		}
		at := n.Now()
		seen := len(f.seen)
		if !n.RunUntil(20*time.Second, func() bool { return len(f.seen) > seen+5 }) {
			t.Fatalf("after %v of partition the flow did not come back", d)
		}
		t.Logf("partition of %v: back after %v", d, n.Now()-at)
		if n.Now()-at > 8*time.Second {
			t.Errorf("partition of %v: back after %v, want within 8 s", d, n.Now()-at)
		}
		n.Run(10 * time.Second)
		f.quiet(t, n, 5*time.Second, 2) // a move to a better way may lose what is under way
	}
}

// fan returns a – rᵢ – b for some relays, each way slower than the one before.
func fan(n *Net, o Options, relays int, w Wire) (a, b *Node, rs []*Node) {
	a, b = n.Add("a", o), n.Add("b", o)
	for i := range relays {
		r := n.Add(fmt.Sprint("r", i), o)
		w.Delay += 3 * time.Millisecond
		n.Connect(a, r, w)
		n.Connect(r, b, w)
		a.Dial(r)
		b.Dial(r)
		rs = append(rs, r)
	}
	return a, b, rs
}

// TestTwoOfThree fails two of three disjoint ways at one instant, silently, whichever they are.
func TestTwoOfThree(t *testing.T) {
	t.Parallel()
	for left := range 3 {
		t.Run(fmt.Sprint(left), func(t *testing.T) {
			t.Parallel()
			n := New(uint64(30+left), testLog())
			a, b, rs := fan(n, Options{}, 3, Wire{Delay: 5 * time.Millisecond})
			n.Run(5 * time.Second)
			f := startFlow(n, a, b, 10*time.Millisecond)
			n.Run(10 * time.Second)
			for i, r := range rs {
				if i != left {
					n.wires[[2]*Node{r, b}].Down = true
				}
			}
			f.gap = 0
			n.Run(10 * time.Second)
			t.Logf("gap %v", f.gap)
			if f.gap > 3*time.Second || n.Now()-f.last > 100*time.Millisecond {
				t.Errorf("silence of %v, the last packet %v ago", f.gap, n.Now()-f.last)
			}
			f.quiet(t, n, 5*time.Second, 0)
		})
	}
}

// TestOneWay loses everything in one direction of one wire: of the data, or of what comes back.
func TestOneWay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		from, to int // of a 0, r1 1, b 3
	}{{"data at the first hop", 0, 1}, {"data at the last hop", 1, 3}, {"reports at the first hop", 1, 0}, {"reports at the last hop", 3, 1}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := New(40, testLog())
			a, r1, r2, b := diamond(t, n, Options{})
			nodes := []*Node{a, r1, r2, b}
			f := startFlow(n, a, b, 5*time.Millisecond)
			n.Run(5 * time.Second)
			f.gap = 0
			n.Drop = func(from, to *Node, _ []byte) bool { return from == nodes[c.from] && to == nodes[c.to] }
			n.Run(10 * time.Second)
			t.Logf("gap %v", f.gap)
			if f.gap > 600*time.Millisecond || n.Now()-f.last > 100*time.Millisecond {
				t.Errorf("silence of %v, last packet %v ago; want the other way within 600 ms", f.gap, n.Now()-f.last)
			}
			n.Drop = nil
			n.Run(10 * time.Second)
			f.quiet(t, n, 5*time.Second, 0)
		})
	}
}

// TestDroppingRelay has a relay that passes control on and drops data: big frames, or all that are not of a probe's size.
func TestDroppingRelay(t *testing.T) {
	t.Parallel()
	n := New(41, testLog())
	a, r1, r2, b := diamond(t, n, Options{})
	f := startFlow(n, a, b, 5*time.Millisecond)
	n.Run(5 * time.Second)
	f.gap = 0
	n.Drop = func(from, to *Node, f []byte) bool { return from == r1 && isData(f) && len(f) > 150 }
	n.Run(30 * time.Second)
	t.Logf("gap %v, last packet %v ago", f.gap, n.Now()-f.last)
	if f.gap > 5*time.Second || n.Now()-f.last > 3*time.Second {
		t.Errorf("silence of %v, last packet %v ago: the relay is not found out", f.gap, n.Now()-f.last)
	}
	_ = r2
}

// TestLossBursts has wires that lose 30 % for two seconds of every five.
func TestLossBursts(t *testing.T) {
	t.Parallel()
	n := New(42, testLog())
	a, b, _ := fan(n, Options{}, 2, Wire{Delay: 10 * time.Millisecond})
	n.Run(4 * time.Second)
	f := startFlow(n, a, b, 10*time.Millisecond)
	burst := func(loss float64) {
		for _, w := range n.wires {
			w.Loss = loss
		}
	}
	for range 12 {
		n.Run(3 * time.Second)
		burst(0.3)
		n.Run(2 * time.Second)
		burst(0)
	}
	n.Run(10 * time.Second)
	f.quiet(t, n, 5*time.Second, 0)
	if share := float64(f.lost()) / float64(f.sent); share > 0.4 {
		t.Errorf("%.0f %% lost over the whole time, want about 20", share*100)
	}
}

// TestReordering has jitter far above the round trip: nothing may be lost by it, nothing delivered twice.
func TestReordering(t *testing.T) {
	t.Parallel()
	n := New(43, testLog())
	a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
	for _, p := range [][2]*Node{{a, r}, {r, b}} {
		n.Connect(p[0], p[1], Wire{Delay: 2 * time.Millisecond, Jitter: 60 * time.Millisecond})
		p[0].Dial(p[1])
	}
	n.Run(5 * time.Second)
	f := startFlow(n, a, b, 2*time.Millisecond)
	n.Run(2 * time.Second) // more packets than may wait for the session
	early := f.sent
	n.Run(30 * time.Second)
	f.stop = true
	n.Run(time.Second)
	lost := 0
	for i := early; i <= f.sent; i++ {
		if f.seen[i] == 0 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%d of %d packets lost by reordering", lost, f.sent-early)
	}
}

// bigPacket is an IPv6 packet of 1,280 bytes.
func bigPacket(from, to *Node, number uint32) []byte {
	p := make([]byte, 1280)
	copy(p, packet(from, to, number))
	binary.BigEndian.PutUint16(p[4:], 1240)
	return p
}

// TestSmallWires sends 1,280-byte packets over wires of little, from the first moment on (E12).
func TestSmallWires(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		mtus []int
	}{
		{"direct 576", []int{576}},
		{"relay 576", []int{576, 576}},
		{"576 behind 1472", []int{1472, 576}},
		{"1472 behind 576", []int{576, 1472}},
		{"1000", []int{1000, 1000}},
		{"mixed", []int{1472, 1000, 576, 1280}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := New(44, testLog())
			nodes := []*Node{n.Add("n0", Options{})}
			for i, mtu := range c.mtus {
				nd := n.Add(fmt.Sprint("n", i+1), Options{})
				n.Connect(nodes[i], nd, Wire{Delay: 5 * time.Millisecond, MTU: mtu})
				nd.Dial(nodes[i])
				nodes = append(nodes, nd)
			}
			a, b := nodes[0], nodes[len(nodes)-1]
			got, sent := 0, 0
			b.Stack = func(_ *Node, p []byte) {
				if len(p) == 1280 {
					got++
				}
			}
			var send func()
			send = func() {
				sent++
				a.Send(bigPacket(a, b, uint32(sent)))
				n.After(20*time.Millisecond, send)
			}
			send()
			n.Run(6 * time.Second)
			was, wasSent := got, sent
			n.Run(4 * time.Second)
			if got-was < sent-wasSent-2 {
				t.Errorf("%d of %d packets of 1,280 bytes came", got-was, sent-wasSent)
			}
			if was < 150 {
				t.Errorf("%d of %d came in the first six seconds", was, wasSent)
			}
		})
	}
}

// TestFlappingWire has the better way come and go each two seconds.
func TestFlappingWire(t *testing.T) {
	t.Parallel()
	n := New(45, testLog())
	a, r1, _, b := diamond(t, n, Options{})
	f := startFlow(n, a, b, 10*time.Millisecond)
	n.Run(3 * time.Second)
	w := n.wires[[2]*Node{r1, b}]
	f.gap = 0
	for range 30 {
		w.Down = !w.Down
		n.Run(2 * time.Second)
	}
	w.Down = false
	t.Logf("longest gap %v, %d of %d lost", f.gap, f.lost(), f.sent)
	if f.gap > 600*time.Millisecond {
		t.Errorf("silence of %v while a wire flaps, want below 600 ms", f.gap)
	}
	n.Run(5 * time.Second)
	f.quiet(t, n, 5*time.Second, 0)
}

// TestClockStarts has machines that run for different times already.
func TestClockStarts(t *testing.T) {
	t.Parallel()
	n := New(46, testLog())
	a := n.Add("a", Options{Skew: 40 * 24 * time.Hour})
	r := n.Add("r", Options{})
	b := n.Add("b", Options{Skew: 7 * time.Minute})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	n.Run(3 * time.Second)
	f := startFlow(n, a, b, 20*time.Millisecond)
	n.Run(time.Second)
	f.quiet(t, n, 10*time.Second, 0)
	f2 := startFlow(n, b, a, 20*time.Millisecond)
	n.Run(time.Second)
	f2.quiet(t, n, 5*time.Minute, 0)
}

// TestBothAtOnce has every node dial every neighbour, and both ends of a session begin in one instant.
func TestBothAtOnce(t *testing.T) {
	t.Parallel()
	for delay := range 6 {
		t.Run(fmt.Sprint(delay), func(t *testing.T) {
			t.Parallel()
			n := New(uint64(50+delay), testLog())
			a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
			for _, p := range [][2]*Node{{a, r}, {r, b}} {
				n.Connect(p[0], p[1], Wire{Delay: 5 * time.Millisecond})
				p[0].Dial(p[1])
				p[1].Dial(p[0])
			}
			n.Run(2 * time.Second)
			f := startFlow(n, a, b, 10*time.Millisecond)
			n.Run(time.Duration(delay) * 4 * time.Millisecond)
			back := startFlow(n, b, a, 10*time.Millisecond)
			n.Run(time.Second)
			hints := 0
			n.Tap = func(_, _ *Node, d []byte) {
				if d[0] == wire.TypeHint || d[0] == wire.TypeInit {
					hints++
				}
			}
			sent := f.sent
			f.quiet(t, n, 20*time.Second, 0)
			if lost := int(back.sent) - len(back.seen); lost > 5 {
				t.Errorf("%d of %d lost the other way", lost, back.sent)
			}
			if hints > 0 {
				t.Errorf("%d hints and handshakes on links that stand", hints)
			}
			if f.sent-sent < 1900 {
				t.Error("the flow stopped")
			}
		})
	}
}

// TestIdleSession leaves a session alone until it ends, wants silence then, and the flow back at once afterwards.
func TestIdleSession(t *testing.T) {
	t.Parallel()
	n := New(47, testLog())
	a, _, _, b := diamond(t, n, Options{})
	f := startFlow(n, a, b, 20*time.Millisecond)
	back := startFlow(n, b, a, 20*time.Millisecond)
	for round := range 3 {
		n.Run(5 * time.Second)
		f.stop, back.stop = true, true
		n.Run(5 * time.Minute)
		data := 0
		n.Tap = func(_, _ *Node, d []byte) {
			if isData(d) {
				data++
			}
		}
		was := n.Datagrams
		n.Run(time.Minute)
		n.Tap = nil
		if data > 0 {
			t.Errorf("round %d: %d data frames in a minute in which nobody wanted anything", round, data)
		}
		if got := n.Datagrams - was; got > 600 {
			t.Errorf("round %d: %d datagrams in a minute of silence", round, got)
		}
		f, back = startFlow(n, a, b, 20*time.Millisecond), startFlow(n, b, a, 20*time.Millisecond)
		n.Run(time.Second)
		if len(f.seen) < 40 || len(back.seen) < 40 {
			t.Fatalf("round %d: after the silence %d and %d of 50 packets in a second", round, len(f.seen), len(back.seen))
		}
	}
}

// TestLinkForgotten keeps one neighbour away until the other has forgotten the link, but not yet the rules over it.
func TestLinkForgotten(t *testing.T) {
	t.Parallel()
	for _, away := range []time.Duration{30 * time.Second, 45 * time.Second, 55 * time.Second, 90 * time.Second} {
		t.Run(away.String(), func(t *testing.T) {
			t.Parallel()
			n := New(48, testLog())
			a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
			n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
			n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
			a.Dial(r)
			b.Dial(r)
			n.Run(2 * time.Second)
			f, back := startFlow(n, a, b, 20*time.Millisecond), startFlow(n, b, a, 20*time.Millisecond)
			n.Run(5 * time.Second)
			n.wires[[2]*Node{r, b}].Down = true
			n.Run(away)
			n.wires[[2]*Node{r, b}].Down = false
			n.Run(12 * time.Second)
			inits := 0
			n.Tap = func(_, _ *Node, d []byte) {
				if d[0] == wire.TypeInit {
					inits++
				}
			}
			f.quiet(t, n, 10*time.Second, 0)
			back.quiet(t, n, 10*time.Second, 0)
			if inits > 0 {
				t.Errorf("%d handshakes on a link that is up", inits)
			}
		})
	}
}

// TestUnreachable pings and sends to a node that is known and can't be reached.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	n := New(49, testLog())
	a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	w := n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	n.Run(2 * time.Second)
	w.Down = true
	n.Run(20 * time.Second)
	startFlow(n, a, b, 50*time.Millisecond) // traffic that goes on must not keep those who wait from being told
	answers := 0
	for range 20 {
		a.Ping(b.Key, func(_ time.Duration, err error) {
			if err == nil {
				t.Error("an answer from a node that can't be reached")
			}
			answers++
		})
		a.Ping(key.Public{1}, func(time.Duration, error) { answers++ })
	}
	n.Run(30 * time.Second)
	if answers != 40 {
		t.Errorf("%d of 40 who wait for an unreachable node were told", answers)
	}
}

// TestSuspend lets a node sleep for longer than any key lives.
func TestSuspend(t *testing.T) {
	t.Parallel()
	for _, sleep := range []time.Duration{20 * time.Second, 150 * time.Second, 10 * time.Minute, 12 * time.Hour} {
		t.Run(sleep.String(), func(t *testing.T) {
			t.Parallel()
			n := New(51, testLog())
			a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
			n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
			n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
			a.Dial(r)
			b.Dial(r)
			n.Run(2 * time.Second)
			f, back := startFlow(n, a, b, 20*time.Millisecond), startFlow(n, b, a, 20*time.Millisecond)
			n.Run(2 * time.Second)
			core := b.Core
			b.Core = nil // it hears nothing, does nothing; its clock goes on
			n.Run(min(sleep, 15*time.Minute))
			b.skew += sleep - min(sleep, 15*time.Minute)
			b.Core, b.tickAt = core, 0
			b.wake(n.Now())
			at := n.Now()
			f.last, back.last = 0, 0
			ok := n.RunUntil(30*time.Second, func() bool { return f.last != 0 && back.last != 0 })
			t.Logf("back %v after waking", n.Now()-at)
			if !ok || n.Now()-at > 10*time.Second {
				t.Errorf("flows back %v after waking, want within 10 s", n.Now()-at)
			}
			n.Run(10 * time.Second)
			f.quiet(t, n, 5*time.Second, 0)
		})
	}
}

// TestTwins runs one key on two boxes that link with the same node: both must notice soon, however young they are.
func TestTwins(t *testing.T) {
	t.Parallel()
	for _, age := range []time.Duration{2 * time.Second, 10 * time.Minute} {
		t.Run(age.String(), func(t *testing.T) {
			t.Parallel()
			n := New(8, testLog())
			r := n.Add("r", Options{})
			a := n.Add("a", Options{})
			n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
			a.Dial(r)
			n.Run(age)
			twin := n.AddTwin(a)
			n.Connect(twin, r, Wire{Delay: 5 * time.Millisecond})
			twin.Dial(r)
			start := n.Now()
			noticed := func(nd *Node) bool {
				_, ok := nd.Core.Twin(n.Now())
				return ok
			}
			first := n.RunUntil(30*time.Second, func() bool { return noticed(a) || noticed(twin) })
			t.Logf("first after %v", n.Now()-start)
			both := n.RunUntil(30*time.Second, func() bool { return noticed(a) && noticed(twin) })
			t.Logf("both after %v", n.Now()-start)
			if !first || !both {
				t.Errorf("one of the boxes noticed: %v, both did: %v", first, both)
			}
		})
	}
}

// TestRestartsAreNoTwins restarts a box again and again: it is one box.
func TestRestartsAreNoTwins(t *testing.T) {
	t.Parallel()
	n := New(9, testLog())
	r, a := n.Add("r", Options{}), n.Add("a", Options{})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	n.Run(2 * time.Second)
	for range 12 {
		a.Save()
		a.Stop()
		n.Run(3 * time.Second)
		a.Start()
		a.Dial(r)
		n.Run(4 * time.Second)
		if _, ok := a.Core.Twin(n.Now()); ok {
			t.Fatal("a box that restarts holds itself for two")
		}
	}
}

// TestClocks runs boxes whose clocks stand in 1970 and in 2099 beside one that is right: nothing may depend on them.
func TestClocks(t *testing.T) {
	t.Parallel()
	n := New(9, testLog())
	at := func(year int) Options {
		return Options{Core: node.CoreConfig{Wall: func() time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }}}
	}
	a, r, b := n.Add("a", at(1970)), n.Add("r", at(2099)), n.Add("b", Options{})
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	n.Run(2 * time.Second)
	f := startFlow(n, a, b, 20*time.Millisecond)
	n.Run(5 * time.Minute)
	f.stop = true
	n.Run(time.Second)
	if f.lost() != 0 {
		t.Errorf("%d of %d packets lost", f.lost(), f.sent)
	}
	for _, nd := range []*Node{a, r, b} {
		if got := nd.Core.DB().Len(); got != 3 {
			t.Errorf("%s holds %d records, want 3", nd, got)
		}
	}
}
