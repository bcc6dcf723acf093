package meshtest

import (
	"os"
	"runtime"
	"testing"
	"time"

	"skywire/mesh/node"
)

// sound wants the invariants to hold now, and connected nodes to hold the same records.
func sound(t *testing.T, n *Net) {
	t.Helper()
	for _, b := range append(n.Check(), n.CheckEqual()...) {
		t.Error(b)
	}
}

// known reports whether every node holds the record of every other.
func known(all []*Node) bool {
	for _, nd := range all {
		if nd.Core.DB().Len() < len(all) {
			return false
		}
	}
	return true
}

// pings pings so many random pairs and returns how many answer in time.
func pings(n *Net, all []*Node, count int, within time.Duration) (answered int) {
	for range count {
		a, b := all[n.rand.IntN(len(all))], all[n.rand.IntN(len(all))]
		if a == b {
			answered++
			continue
		}
		a.Ping(b.Key, func(_ time.Duration, err error) {
			if err == nil {
				answered++
			}
		})
		n.Run(50 * time.Millisecond) // relays take twenty setups a second from a neighbour
	}
	n.Run(within)
	return answered
}

// TestColdStart starts fifty nodes at once, with nothing but addresses of neighbours, and no manager.
func TestColdStart(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*Net, Wire) []*Node{
		"ring":   func(n *Net, w Wire) []*Node { return n.Ring("n", 50, Options{}, w) },
		"random": func(n *Net, w Wire) []*Node { return n.Random("n", 50, 4, Options{}, w) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := New(71, testLog())
			all := make(n, Wire{Delay: 2 * time.Millisecond, Jitter: time.Millisecond})
			at := n.Now()
			for !known(all) && n.Now()-at < 20*time.Second {
				n.Run(50 * time.Millisecond)
			}
			t.Logf("all know all after %v", n.Now()-at)
			if n.Now()-at > 2*time.Second {
				t.Errorf("all know all after %v, want within 2 s", n.Now()-at)
			}
			if got := pings(n, all, 40, 3*time.Second); got < 40 {
				t.Errorf("%d of 40 pings answered", got)
			}
			sound(t, n)
		})
	}
}

// TestGrowth says what a mesh costs as it grows: 10 and 100 nodes, a thousand with MESHTEST_LONG.
func TestGrowth(t *testing.T) {
	sizes := []int{10, 100}
	if os.Getenv("MESHTEST_LONG") != "" {
		sizes = append(sizes, 1000)
	}
	perRecord := map[int]float64{}
	for _, size := range sizes {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		n := New(72, nil)
		began := time.Now()
		all := n.Random("n", size, 4, Options{}, Wire{Delay: 5 * time.Millisecond})
		at := n.Now()
		for !known(all) && n.Now()-at < time.Minute {
			n.Run(50 * time.Millisecond)
		}
		full := n.Now() - at
		n.Run(20*time.Second - full)
		first := sent(all)
		n.Run(time.Minute)
		n.Run(20 * time.Second)
		idle := (sent(all) - first) * 60 / 80
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / int64(size)
		perRecord[size] = float64(first) / float64(size) / float64(size)
		t.Logf("%4d nodes: all known to all after %v; control a node: %d kB to begin with (%.0f bytes a record), %.1f kB a minute after that; memory a node %d kB; %v",
			size, full, first/uint64(size)/1000, perRecord[size], float64(idle)/float64(size)/1000, heap/1000, time.Since(began).Round(time.Millisecond))
		if full > 5*time.Second {
			t.Errorf("%d nodes know each other after %v", size, full)
		}
		if idle/uint64(size) > 30_000 {
			t.Errorf("%d nodes: %d bytes a minute and node when nothing happens", size, idle/uint64(size))
		}
		sound(t, n)
		runtime.KeepAlive(all)
	}
	// What each record costs each node must not grow with the mesh: a degree of four is four copies at most each way.
	if perRecord[100] > 3500 {
		t.Errorf("%.0f bytes of control a record and node", perRecord[100])
	}
}

func sent(all []*Node) (bytes uint64) {
	for _, nd := range all {
		bytes += nd.SentControl
	}
	return bytes
}

// TestHealsOnce cuts a mesh in two for longer than links live, and joins it: the halves hold the same records at once, and
// nobody goes on saying new things.
func TestHealsOnce(t *testing.T) {
	t.Parallel()
	n := New(73, testLog())
	all := n.Grid("g", 6, 4, Options{}, Wire{Delay: 3 * time.Millisecond, Jitter: time.Millisecond})
	n.Run(10 * time.Second)
	half := func(down bool) {
		n.Wires(func(a, b *Node, w *Wire) {
			if (a.index-1)/12 != (b.index-1)/12 {
				w.Down = down
			}
		})
	}
	half(true)
	n.Run(3 * time.Minute)
	for _, nd := range all[:4] { // and news on both sides
		nd.Save()
		nd.Stop()
		nd.Start()
		nd.Redial()
	}
	n.Run(time.Minute)
	half(false)
	at := n.Now()
	if !n.RunUntil(time.Minute, func() bool { return len(n.CheckEqual()) == 0 }) {
		t.Fatal("a minute after the wires are whole the halves hold different records")
	}
	t.Logf("one mesh again after %v", n.Now()-at)
	n.Run(10 * time.Second)
	said := func() (numbers uint64) {
		for _, nd := range all {
			numbers += nd.Core.DB().Number()
		}
		return numbers
	}
	before := said()
	n.Run(time.Minute)
	if got := said() - before; got > 4*uint64(len(all)) { // measures drift: losses of the time apart fade
		t.Errorf("%d new records within a minute in which nothing happened, of %d nodes", got, len(all))
	}
	sound(t, n)
}

// TestHalfRestarts has half of the nodes restart every ten seconds, with their store, an old one, or none: pings between
// nodes that stay are answered, and nothing is left of it all when it is over. 12 nodes for 160 s, of which the share of
// answers varies by half a percent; a hundred for ten minutes with MESHTEST_LONG.
func TestHalfRestarts(t *testing.T) {
	t.Parallel()
	size, rounds := 12, 16
	if testing.Short() { // with the race detector
		size, rounds = 10, 6
	}
	if os.Getenv("MESHTEST_LONG") != "" {
		size, rounds = 100, 60
	}
	n := New(74, testLog())
	all := n.Random("n", size, 5, Options{Core: node.CoreConfig{StoreAfter: time.Second}}, Wire{Delay: 4 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.001})
	n.Run(5 * time.Second)
	asked, answered, apart := 0, 0, 0
	ask := func(a, b *Node) {
		lives := [2]int{a.alive, b.alive}
		done := false
		a.Ping(b.Key, func(_ time.Duration, err error) { done = done || err == nil })
		n.After(5*time.Second, func() {
			if a.alive != lives[0] || b.alive != lives[1] {
				return // one of them restarted meanwhile
			}
			if !n.Connected(a, b) {
				apart++
				return
			}
			asked++
			if done {
				answered++
			}
		})
	}
	for range rounds {
		for _, nd := range all {
			if n.rand.IntN(2) == 0 {
				continue
			}
			n.After(time.Duration(n.rand.Int64N(int64(4*time.Second))), func() { restart(n, nd) })
		}
		for end := n.Now() + 10*time.Second; n.Now() < end; n.Run(100 * time.Millisecond) {
			a, b := all[n.rand.IntN(size)], all[n.rand.IntN(size)]
			if a != b && a.Core != nil && b.Core != nil && n.Connected(a, b) {
				ask(a, b)
			}
		}
		for _, b := range n.Check() {
			t.Error(b)
		}
	}
	n.Run(10 * time.Second)
	t.Logf("%d of %d pings answered (%.1f %%), %d pairs were apart", answered, asked, 100*float64(answered)/float64(asked), apart)
	if float64(answered) < 0.95*float64(asked) {
		t.Errorf("%d of %d pings answered", answered, asked)
	}
	n.Run(IdleAfter)
	// Nodes have news now and then: at some moment of ten seconds none is on its way.
	if !n.RunUntil(10*time.Second, func() bool { return len(n.CheckEqual()) == 0 && len(n.CheckIdle()) == 0 }) {
		for _, b := range append(n.CheckEqual(), n.CheckIdle()...) {
			t.Error(b)
		}
	}
	for _, b := range n.Check() {
		t.Error(b)
	}
}

// restart kills a node and starts it half a second later.
func restart(n *Net, nd *Node) {
	if nd.Core == nil {
		return
	}
	switch n.rand.IntN(4) {
	case 0:
		nd.Lose()
	case 1:
		nd.Restore()
	default:
		nd.Save()
	}
	nd.Stop()
	n.After(500*time.Millisecond, func() {
		nd.Start()
		nd.Redial()
	})
}
