package meshtest

import (
	"testing"
	"time"
)

// TestCutHeals cuts a direct link under data, for less time than it takes to declare it dead, and for more. The flow is back on it soon
// after the cut ends: what was lost meanwhile says nothing of the link as it is now. A link that goes on losing is left alone.
func TestCutHeals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		cut   time.Duration
		after float64 // loss of the wire afterwards
		most  time.Duration
	}{
		{"300 ms", 300 * time.Millisecond, 0, 40 * time.Second},
		{"1 s", time.Second, 0, 40 * time.Second},
		{"3 s", 3 * time.Second, 0, 40 * time.Second},
		{"10 s", 10 * time.Second, 0, 40 * time.Second},
		{"1 s, lossy afterwards", time.Second, 0.1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := New(70, testLog())
			a, b, _ := twoWays(n, Wire{Delay: 5 * time.Millisecond})
			wire := n.Connect(a, b, Wire{Delay: 5 * time.Millisecond})
			a.Dial(b)
			p := startPulse(n, a, b)
			p.every = 2 * time.Millisecond
			direct := 0
			n.Tap = func(from, to *Node, f []byte) {
				if isData(f) && from == a && to == b {
					direct++
				}
			}
			share := func() float64 { // of the flow that goes the direct way
				direct = 0
				sent := p.sent
				n.Run(500 * time.Millisecond)
				return float64(direct) / float64(p.sent-sent)
			}
			wait := func(most time.Duration) time.Duration {
				start := n.Now()
				for share() < 0.9 && n.Now()-start < most {
				}
				return n.Now() - start
			}
			if wait(time.Minute) >= time.Minute {
				t.Fatal("never on the direct link")
			}
			n.Run(5 * time.Second)
			n.Drop = func(from, to *Node, _ []byte) bool { return from == a && to == b || from == b && to == a }
			n.Run(c.cut)
			n.Drop = nil
			wire.Loss = c.after
			if c.after == 0 {
				took := wait(c.most)
				t.Logf("cut of %v: back after %v", c.cut, took)
				if took >= c.most {
					t.Errorf("a cut of %v keeps the flow off the direct link for more than %v", c.cut, c.most)
				}
				return
			}
			n.Run(30 * time.Second)
			on := 0.0
			for range 600 {
				on += share() / 600
			}
			t.Logf("%.0f %% of 5 minutes on a link that loses %.0f %%", on*100, c.after*100)
			if on > 0.05 {
				t.Errorf("%.0f %% of the time on a link that loses %.0f %%", on*100, c.after*100)
			}
		})
	}
}
