package meshtest

import (
	"fmt"
	"testing"
	"time"

	"skywire/mesh/link"
)

// TestSlowLineCarriesData has the line between two nodes become one of half a second each way that loses a third, for ten minutes with a
// flow of half of 20 kbit/s: the link is not called down, no path is given up for longer than a moment, and what the nodes say
// themselves is little.
func TestSlowLineCarriesData(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			n, a, b, w := linked(t, 200+seed, Wire{Delay: 5 * time.Millisecond})
			const size, every = 500, 400 * time.Millisecond
			f := n.Flow(a, b, every, size)
			n.Run(5 * time.Second)
			w.Delay, w.Loss = 500*time.Millisecond, 0.3
			n.Run(time.Minute)
			was := a.linkTo(t, b).UpSince()

			lengths, said := map[int]int{}, map[*Node]int{}
			n.Tap = func(from, _ *Node, p []byte) {
				if from == a && isData(p) {
					lengths[len(p)]++
				}
				said[from] += len(p) + 42 // Ethernet, IPv4 and UDP
			}
			f.Mark()
			const lasts = 10 * time.Minute
			n.Run(lasts)
			n.Tap = nil

			for _, l := range []*link.Link{a.linkTo(t, b), b.linkTo(t, a)} {
				if l.UpSince() > n.Now()-lasts {
					t.Errorf("the link was down: up since %v, before since %v", n.Now()-l.UpSince(), n.Now()-was)
				}
			}
			if lost, sent := f.Lost(); lost > sent*40/100 {
				t.Errorf("%d of %d packets lost where the line loses three of ten", lost, sent)
			}
			if s := f.Silence(); s > 15*time.Second {
				t.Errorf("nothing came for %v", s)
			}
			data, frames := 0, 0
			for l, k := range lengths {
				if k > frames {
					data, frames = l, k
				}
			}
			said[a] -= frames * (data + 42)
			if rate := (said[a] + said[b]) / int(lasts/time.Second); rate > 2*375 { // 15 % of the line
				t.Errorf("the nodes say %d bytes/s themselves, both ways together", rate)
			}
		})
	}
}
