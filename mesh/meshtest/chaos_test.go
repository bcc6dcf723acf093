package meshtest

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"skywire/mesh/node"
)

// grid returns w×h nodes linked to their right and lower neighbours.
func grid(n *Net, w, h int, o Options, wire Wire) [][]*Node {
	all := make([][]*Node, h)
	for y := range h {
		for x := range w {
			nd := n.Add(fmt.Sprintf("%d.%d", x, y), o)
			all[y] = append(all[y], nd)
			if x > 0 {
				n.Connect(nd, all[y][x-1], wire)
				nd.Dial(all[y][x-1])
			}
			if y > 0 {
				n.Connect(nd, all[y-1][x], wire)
				nd.Dial(all[y-1][x])
			}
		}
	}
	return all
}

// seeds returns the seeds to run: those of SEED, or a few.
func seeds(t *testing.T) []uint64 {
	t.Helper()
	if s := os.Getenv("SEED"); s != "" {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{v}
	}
	return []uint64{1, 2, 3, 4, 5, 6, 7, 8}
}

// TestChaos kills and restarts relays of a grid at random, half of them with old state, and wants the flow between two
// corners back each time, and no packet at a node that it was not for.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n := New(seed, testLog())
			all := grid(n, 4, 3, Options{Core: node.CoreConfig{StoreAfter: time.Second}}, Wire{Delay: 3 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.005})
			a, b := all[0][0], all[2][3]
			n.Run(5 * time.Second)
			f := startFlow(n, a, b, 20*time.Millisecond)
			var relays []*Node
			for _, row := range all {
				for _, nd := range row {
					if nd == a || nd == b {
						continue
					}
					relays = append(relays, nd)
					nd.Stack = func(at *Node, _ []byte) { t.Errorf("a packet for %s came out at %s", b, at) }
				}
			}
			neighbours := map[*Node][]*Node{}
			for pair := range n.wires {
				neighbours[pair[0]] = append(neighbours[pair[0]], pair[1])
			}
			for round := range 12 {
				victim := relays[n.rand.IntN(len(relays))]
				if n.rand.IntN(2) == 0 {
					victim.Save() // else an older snapshot, or none
				}
				victim.Stop()
				n.Run(time.Duration(n.rand.Int64N(int64(4 * time.Second))))
				victim.Start()
				for _, o := range neighbours[victim] {
					if n.rand.IntN(2) == 0 {
						victim.Dial(o)
					}
				}
				n.Run(3 * time.Second)
				was := len(f.seen)
				n.Run(2 * time.Second)
				if got := len(f.seen) - was; got < 90 {
					t.Fatalf("round %d, %s restarted: %d of 100 packets came in two quiet seconds", round, victim, got)
				}
			}
		})
	}
}

// TestThousandNodes runs a grid for a minute: 240 nodes, or a thousand with MESHTEST_LONG, whose first flood of records is
// two million datagrams and takes more than a unit test may.
func TestThousandNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	w, h := 16, 15
	if os.Getenv("MESHTEST_LONG") != "" {
		w, h = 40, 25
	}
	n := New(9, nil)
	began := time.Now()
	all := grid(n, w, h, Options{}, Wire{Delay: 5 * time.Millisecond})
	n.Run(20 * time.Second)
	t.Logf("a corner knows %d of %d after 20 s; %v so far", all[h-1][w-1].Core.DB().Len(), w*h, time.Since(began))
	f := startFlow(n, all[h/2][w/4], all[h/2][w/2], 100*time.Millisecond)
	n.Run(40 * time.Second)
	t.Logf("%d of %d packets arrived, %d datagrams, %v", len(f.seen), f.sent, n.Datagrams, time.Since(began))
	if len(f.seen) < int(f.sent)-30 {
		t.Errorf("%d of %d packets arrived", len(f.seen), f.sent)
	}
}
