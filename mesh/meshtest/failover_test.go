package meshtest

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// gaps are silences of a flow, one for each failure.
type gaps []time.Duration

// at returns the gap below which so much of all lies.
func (g gaps) at(share float64) time.Duration {
	s := slices.Clone(g)
	slices.Sort(s)
	return s[min(int(share*float64(len(s))), len(s)-1)]
}

// check prints median, p99 and the longest gap, and wants p99 below most.
func (g gaps) check(t *testing.T, what string, most time.Duration) {
	t.Helper()
	t.Logf("%s: gap median %v, p99 %v, longest %v of %d", what, g.at(0.5), g.at(0.99), slices.Max(g), len(g))
	if g.at(0.99) >= most {
		t.Errorf("%s: gap p99 %v, want below %v", what, g.at(0.99), most)
	}
}

// pulse is a flow that a test makes dense where it looks, and thin in between, to save the time of a thousand seconds of packets.
type pulse struct {
	every     time.Duration
	from, to  *Node
	sent, got uint32
	last, gap time.Duration // at the receiver
}

func startPulse(n *Net, from, to *Node) *pulse {
	f := &pulse{every: thin, from: from, to: to}
	to.Stack = func(*Node, []byte) {
		f.got++
		f.gap = max(f.gap, n.Now()-f.last)
		f.last = n.Now()
	}
	var send func()
	send = func() {
		f.sent++
		from.Send(packet(from, to, f.sent))
		n.After(f.every, send)
	}
	n.After(0, send)
	return f
}

// settle forgets what was; silence returns the longest one since, up to now.
func (f *pulse) settle(n *Net)                { f.gap, f.last = 0, n.Now() }
func (f *pulse) silence(n *Net) time.Duration { return max(f.gap, n.Now()-f.last) }

// thin is the pace of a pulse that nobody looks at: the session stays busy.
const thin = 50 * time.Millisecond

// twoWays returns a and b with two relays between them, and paths of which a is the source.
func twoWays(n *Net, w Wire) (a, b *Node, relays []*Node) {
	a, b = n.Add("a", Options{}), n.Add("b", Options{})
	for i := range 2 {
		r := n.Add(fmt.Sprint("r", i+1), Options{})
		relays = append(relays, r)
		for _, e := range []*Node{a, b} {
			n.Connect(e, r, w)
			e.Dial(r)
		}
	}
	n.Run(3 * time.Second)
	done := false
	a.Ping(b.Key, func(time.Duration, error) { done = true })
	n.RunUntil(3*time.Second, func() bool { return done })
	return a, b, relays
}

// TestHundredKills kills relays under 1,000 packets/s, the one in use each time, a hundred times.
func TestHundredKills(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		there, back   time.Duration // between two packets; 0: none
		delay, jitter time.Duration
		most          time.Duration
	}{
		{"to the destination", time.Millisecond, 0, 5 * time.Millisecond, 0, 220 * time.Millisecond},
		{"to the source", 0, time.Millisecond, 5 * time.Millisecond, 0, 220 * time.Millisecond},
		{"both ways", time.Millisecond, time.Millisecond, 5 * time.Millisecond, 0, 220 * time.Millisecond},
		{"a LAN", time.Millisecond, 0, 100 * time.Microsecond, 0, 220 * time.Millisecond},
		{"jitter", time.Millisecond, 0, 10 * time.Millisecond, 10 * time.Millisecond, 300 * time.Millisecond},
		{"sparse", 50 * time.Millisecond, 50 * time.Millisecond, 5 * time.Millisecond, 0, 400 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := New(60, testLog())
			a, b, relays := twoWays(n, Wire{Delay: c.delay, Jitter: c.jitter})
			var flows []*pulse
			var every []time.Duration
			for _, d := range []time.Duration{c.there, c.back} {
				if d > 0 {
					flows, every = append(flows, startPulse(n, a, b)), append(every, d)
				}
				a, b = b, a
			}
			n.Run(6 * time.Second)
			all := make([]gaps, len(flows))
			for i := range 100 {
				for j, f := range flows {
					f.every = every[j]
				}
				r := carrier(n, relays)
				n.Run(200*time.Millisecond + time.Duration(i)*3*time.Millisecond) // at any phase of the timers
				for _, f := range flows {
					f.settle(n)
				}
				r.Save()
				r.Stop()
				n.Run(600 * time.Millisecond)
				for j, f := range flows {
					all[j] = append(all[j], f.silence(n))
					f.every = thin
				}
				r.Start()
				r.Dial(a)
				r.Dial(b)
				n.Run(4 * time.Second)
			}
			for i := range flows {
				all[i].check(t, fmt.Sprintf("%s, flow %d", c.name, i), c.most)
			}
		})
	}
}

// carrier returns the relay that carries most data during a tenth of a second.
func carrier(n *Net, relays []*Node) *Node {
	seen := map[*Node]int{}
	n.Tap = func(from, _ *Node, b []byte) {
		if isData(b) {
			seen[from]++
		}
	}
	n.Run(100 * time.Millisecond)
	n.Tap = nil
	best := relays[0]
	for _, r := range relays {
		if seen[r] > seen[best] {
			best = r
		}
	}
	return best
}

// TestLeaving stops relays in order under 1,000 packets/s both ways: nothing may be lost, whether a standby is there or has to be set
// up first.
func TestLeaving(t *testing.T) {
	t.Parallel()
	n := New(61, testLog())
	a, b, relays := twoWays(n, Wire{Delay: 5 * time.Millisecond, Jitter: time.Millisecond})
	there, back := startPulse(n, a, b), startPulse(n, b, a)
	n.Run(2 * time.Second)
	for round := range 20 {
		r := carrier(n, relays)
		there.every, back.every = time.Millisecond, time.Millisecond
		n.Run(200*time.Millisecond + time.Duration(round)*7*time.Millisecond)
		lost := there.lost() + back.lost()
		at, left := n.Now(), time.Duration(0)
		r.Leave()
		n.RunUntil(5*time.Second, func() bool { return r.Core == nil })
		left = n.Now() - at
		n.Run(time.Second)
		there.every, back.every = thin, thin
		n.Run(100 * time.Millisecond)
		if now := there.lost() + back.lost(); now > lost+4 { // what is under way when one looks
			t.Errorf("round %d: %d packets lost when a relay left in order", round, now-lost)
		}
		if left > 1500*time.Millisecond {
			t.Errorf("round %d: the relay left after %v", round, left)
		}
		r.Start()
		r.Dial(a)
		r.Dial(b)
		n.Run(time.Duration(round%5) * time.Second) // the standby may not be back yet
		if round%5 == 0 {
			n.Run(4 * time.Second)
		}
	}
	there.every = time.Hour
	back.every = time.Hour
	n.Run(time.Second)
	if there.lost() != 0 || back.lost() != 0 {
		t.Errorf("%d of %d and %d of %d packets lost", there.lost(), there.sent, back.lost(), back.sent)
	}
}

func (f *pulse) lost() int { return int(f.sent) - int(f.got) }

// TestFlappingLink has the better way come and go each 200 ms: the flow stays on the other.
func TestFlappingLink(t *testing.T) {
	t.Parallel()
	n := New(62, testLog())
	a, r1, _, b := diamond(t, n, Options{})
	f := startPulse(n, a, b)
	n.Run(3 * time.Second)
	f.every = 2 * time.Millisecond
	n.Run(time.Second)
	w := n.wires[[2]*Node{r1, b}]
	lost := f.lost()
	f.settle(n)
	for i := range 150 {
		w.Down = !w.Down
		n.Run(200 * time.Millisecond)
		if i == 4 { // it had a second to find out
			t.Logf("%d packets lost until the flow had moved, gap %v", f.lost()-lost, f.gap)
			lost = f.lost()
			f.settle(n)
		}
	}
	t.Logf("over 29 s of flapping: %d packets lost, gap %v", f.lost()-lost, f.gap)
	if f.lost()-lost > 5 || f.gap > 50*time.Millisecond {
		t.Errorf("%d packets lost and a gap of %v: the flow went back to a way that flaps", f.lost()-lost, f.gap)
	}
}

// TestGreyLink has the way in use lose half of what it carries, in one direction or both.
func TestGreyLink(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		to, back   bool // flows
		from, hear int  // of a 0, r1 1, b 3: what is lost between
	}{
		{"data", true, false, 1, 3}, {"answers", true, true, 3, 1}, {"to the source alone", false, true, 3, 1}, {"reports", true, false, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := New(63, testLog())
			a, r1, r2, b := diamond(t, n, Options{})
			nodes := []*Node{a, r1, r2, b}
			done := false
			a.Ping(b.Key, func(time.Duration, error) { done = true })
			n.RunUntil(3*time.Second, func() bool { return done })
			var flows []*pulse
			if c.to {
				flows = append(flows, startPulse(n, a, b))
			}
			if c.back {
				flows = append(flows, startPulse(n, b, a))
			}
			n.Run(3 * time.Second)
			for _, f := range flows {
				f.every = time.Millisecond
			}
			n.Run(time.Second)
			lost := func() (sum int) {
				for _, f := range flows {
					sum += f.lost()
				}
				return sum
			}
			before := lost()
			n.Drop = func(from, to *Node, d []byte) bool {
				return from == nodes[c.from] && to == nodes[c.hear] && n.rand.IntN(2) == 0
			}
			n.Run(1200 * time.Millisecond)
			t.Logf("%d lost in the first 1.2 s", lost()-before)
			before = lost()
			n.Run(3 * time.Second)
			if got := lost() - before; got > 50 {
				t.Errorf("%d packets lost in the 3 s after that: the way is not left", got)
			}
		})
	}
}

// TestSharedLink cuts a link that primary and standby share: a third way is set up within a second.
func TestSharedLink(t *testing.T) {
	t.Parallel()
	n := New(64, testLog())
	a, b, rs := fan(n, Options{}, 3, Wire{Delay: 4 * time.Millisecond})
	done := false
	n.Run(3 * time.Second)
	a.Ping(b.Key, func(time.Duration, error) { done = true })
	n.RunUntil(3*time.Second, func() bool { return done })
	f := startPulse(n, a, b)
	n.Run(3 * time.Second)
	f.every = time.Millisecond
	var all gaps
	for i := range 20 {
		n.Run(500*time.Millisecond + time.Duration(i)*3*time.Millisecond)
		f.settle(n)
		on := slices.Index(rs, carrier(n, rs))
		f.settle(n)
		n.wires[[2]*Node{rs[on], b}].Down = true // as if both ran over one fibre
		n.wires[[2]*Node{rs[(on+1+i%2)%3], b}].Down = true
		n.Run(1500 * time.Millisecond)
		all = append(all, f.silence(n))
		for _, r := range rs {
			n.wires[[2]*Node{r, b}].Down = false
		}
		f.every = thin
		n.Run(20 * time.Second)
		f.every = time.Millisecond
	}
	all.check(t, "both ways cut", time.Second)
}

// TestBridge has one link that every path needs: the standby shares that, and no other.
func TestBridge(t *testing.T) {
	t.Parallel()
	n := New(65, testLog())
	x := n.Add("x", Options{})
	c, b, rs := fan(n, Options{}, 2, Wire{Delay: 4 * time.Millisecond})
	n.Connect(x, c, Wire{Delay: 2 * time.Millisecond})
	x.Dial(c)
	n.Run(3 * time.Second)
	f := startPulse(n, x, b)
	n.Run(6 * time.Second)
	f.every = time.Millisecond
	n.Run(500 * time.Millisecond)
	r := carrier(n, rs)
	f.settle(n)
	r.Stop()
	n.Run(time.Second)
	t.Logf("gap %v", f.silence(n))
	if f.silence(n) > 300*time.Millisecond {
		t.Errorf("gap of %v behind a bridge, want below 300 ms", f.silence(n))
	}
}

// TestDeadStandby lets the standby die without a word, and soon after it the way in use: by then there must be another standby.
func TestDeadStandby(t *testing.T) {
	t.Parallel()
	n := New(66, testLog())
	a, b, rs := fan(n, Options{}, 3, Wire{Delay: 4 * time.Millisecond})
	n.Run(3 * time.Second)
	f := startPulse(n, a, b)
	n.Run(6 * time.Second)
	n.Drop = func(from, to *Node, _ []byte) bool { return from == rs[1] && to == b || from == b && to == rs[1] }
	n.Run(4 * time.Second)
	f.every = time.Millisecond
	n.Run(500 * time.Millisecond)
	f.settle(n)
	rs[0].Stop()
	n.Run(time.Second)
	t.Logf("gap %v", f.silence(n))
	if f.silence(n) > 300*time.Millisecond {
		t.Errorf("gap of %v, want below 300 ms: the dead standby was not noticed", f.silence(n))
	}
}
