package meshtest

import (
	"fmt"
	"testing"
	"time"

	"skywire/mesh/link"
)

// linked is two nodes with a link between them.
func linked(t *testing.T, seed uint64, w Wire) (n *Net, a, b *Node, x *Wire) {
	t.Helper()
	n = New(seed, testLog())
	a, b = n.Add("a", Options{}), n.Add("b", Options{})
	x = n.Connect(a, b, w)
	a.Dial(b)
	n.Run(2 * time.Second)
	return n, a, b, x
}

func (nd *Node) linkTo(t *testing.T, to *Node) *link.Link {
	t.Helper()
	l := nd.Core.LinkTo(to.Key)
	if l == nil || l.State() != link.Up {
		t.Fatalf("%s has no link to %s", nd, to)
	}
	return l
}

// near tells whether a measure is within a share of what was set.
func near(got, want, share float64) bool { return got >= want*(1-share) && got <= want*(1+share) }

// TestMeasuresAreRight: what a link says of its round trip and losses is within 20 % of what the wire does, over data.
func TestMeasuresAreRight(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		delay, jitter time.Duration
		loss          float64
	}{
		{2 * time.Millisecond, 0, 0}, {40 * time.Millisecond, 0, 0.02}, {5 * time.Millisecond, time.Millisecond, 0.05}, {20 * time.Millisecond, 2 * time.Millisecond, 0.2},
	} {
		t.Run(fmt.Sprint(c.delay, " ", c.loss), func(t *testing.T) {
			t.Parallel()
			n, a, b, _ := linked(t, 11, Wire{Delay: c.delay, Jitter: c.jitter, Loss: c.loss})
			n.Flow(a, b, 2500*time.Microsecond, 100)
			n.Flow(b, a, 2500*time.Microsecond, 100)
			n.Run(40 * time.Second)
			for _, l := range []*link.Link{a.linkTo(t, b), b.linkTo(t, a)} {
				want := 2*c.delay + c.jitter // jitter delays by half of it on average, each way
				if !near(float64(l.RTT()), float64(want), 0.2) {
					t.Errorf("round trip %v, want %v", l.RTT(), want)
				}
				for name, got := range map[string]float64{"in": l.LossIn(), "out": l.LossOut(), "worse": l.Loss()} {
					if c.loss == 0 && got > 0.001 || c.loss != 0 && !near(got, c.loss, 0.2) {
						t.Errorf("loss %s %.4f, want %.4f", name, got, c.loss)
					}
				}
				if c.jitter == 0 && l.Jitter() != 0 || c.jitter != 0 && (l.Jitter() < c.jitter/10 || l.Jitter() > 2*c.jitter) {
					t.Errorf("jitter %v of %v", l.Jitter(), c.jitter)
				}
			}
		})
	}
}

// TestLossHasADirection: both ends know which way it is.
func TestLossHasADirection(t *testing.T) {
	t.Parallel()
	n, a, b, _ := linked(t, 12, Wire{Delay: 5 * time.Millisecond})
	n.Drop = func(from, _ *Node, _ []byte) bool { return from == a && n.Rand().Float64() < 0.1 }
	n.Flow(a, b, 2500*time.Microsecond, 100)
	n.Run(40 * time.Second)
	la, lb := a.linkTo(t, b), b.linkTo(t, a)
	if !near(la.LossOut(), 0.1, 0.2) || !near(lb.LossIn(), 0.1, 0.2) {
		t.Errorf("lost on the way there: %.3f by the sender, %.3f by the receiver, want 0.1", la.LossOut(), lb.LossIn())
	}
	if la.LossIn() > 0.02 || lb.LossOut() > 0.02 {
		t.Errorf("lost on the way back: %.3f, %.3f, want none", la.LossIn(), lb.LossOut())
	}
	n.Drop = nil
	n.Run(time.Minute)
	if la.Loss() > 0.02 {
		t.Errorf("a minute after the losses ended %.3f is said to be lost", la.Loss())
	}
}

// TestOutageIsNoLoss: a wire that is cut and comes back is down for that time, and not a lossy one afterwards.
func TestOutageIsNoLoss(t *testing.T) {
	t.Parallel()
	n, a, b, x := linked(t, 13, Wire{Delay: 5 * time.Millisecond})
	for _, long := range []time.Duration{500 * time.Millisecond, 30 * time.Second} {
		n.Run(20 * time.Second)
		x.Down = true
		n.Run(long)
		x.Down = false
		n.Run(20 * time.Second)
		if la, lb := a.linkTo(t, b), b.linkTo(t, a); la.Loss() > 0.1 || lb.Loss() > 0.1 {
			t.Errorf("after %v without wire %.3f and %.3f are said to be lost", long, la.Loss(), lb.Loss())
		}
	}
}

// TestCapacityShowsUnderLoad: a link that is full tells how much it carries, and one that is not tells nothing.
func TestCapacityShowsUnderLoad(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		rate uint64 // bit/s of the wire
		load time.Duration
		full bool
	}{{"full", 4_000_000, 2 * time.Millisecond, true}, {"half full", 10_000_000, 2 * time.Millisecond, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, a, b, _ := linked(t, 14, Wire{Delay: 10 * time.Millisecond, Rate: c.rate})
			n.Run(5 * time.Second)
			f := n.Flow(a, b, c.load, 1200) // 5 Mbit/s with what is around them
			n.Run(15 * time.Second)
			got := b.linkTo(t, a).Capacity(n.Now())
			if !c.full {
				if got != 0 {
					t.Errorf("%d kbit/s of a link that was not full", got)
				}
				return
			}
			if !near(float64(got), float64(c.rate)/1000, 0.2) {
				t.Errorf("%d kbit/s, want %d", got, c.rate/1000)
			}
			f.Stop()
			n.Run(20 * time.Second)
			if b.linkTo(t, a).Capacity(n.Now()) == 0 {
				t.Error("it is forgotten as soon as the load ends")
			}
			n.Run(11 * time.Minute)
			if k := b.linkTo(t, a).Capacity(n.Now()); k != 0 {
				t.Errorf("%d kbit/s are still believed after eleven minutes", k)
			}
		})
	}
}

// TestFlapsShowAndFade: a link that keeps coming back is told apart from one that broke once.
func TestFlapsShowAndFade(t *testing.T) {
	t.Parallel()
	n, a, b, x := linked(t, 15, Wire{Delay: 5 * time.Millisecond})
	n.Flow(a, b, 50*time.Millisecond, 100)
	for range 4 {
		x.Down = true
		n.Run(4 * time.Second)
		x.Down = false
		n.Run(3 * time.Second)
	}
	l := a.linkTo(t, b)
	if f := l.Flaps(n.Now()); f < 2 || f > 4 {
		t.Errorf("%.2f flaps after four", f)
	}
	n.Run(3 * time.Minute)
	if f := l.Flaps(n.Now()); f > 0.1 {
		t.Errorf("%.2f flaps three minutes later", f)
	}
}

// TestIdleLinkCostsLittle prints what a link without traffic costs: pings, keys, records.
func TestIdleLinkCostsLittle(t *testing.T) {
	t.Parallel()
	n, _, _, _ := linked(t, 16, Wire{Delay: 10 * time.Millisecond})
	n.Run(5 * time.Minute)
	bytes, datagrams := 0, 0
	n.Tap = func(_, _ *Node, b []byte) {
		bytes += len(b) + 28 // IPv4 and UDP
		datagrams++
	}
	n.Run(time.Hour)
	t.Logf("an idle link costs %d bytes and %d datagrams an hour, both ways together, with IPv4 and UDP headers", bytes, datagrams)
	if bytes > 120_000 {
		t.Errorf("an idle link costs %d bytes an hour", bytes)
	}
}
