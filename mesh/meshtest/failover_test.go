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
