package meshtest

import (
	"testing"
	"time"
)

// TestGreetingsRepeated loses the first words of a node over its new link, up to half a second of them: it is told of those behind its
// neighbour soon all the same, not with the comparison of each minute.
func TestGreetingsRepeated(t *testing.T) {
	t.Parallel()
	for _, lost := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond} {
		n := New(1, testLog())
		a, r, b := n.Add("a", Options{}), n.Add("r", Options{}), n.Add("b", Options{})
		n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
		n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
		a.Dial(r)
		n.Run(30 * time.Second) // a's record is no news any more
		b.Dial(r)
		up := func() bool { return b.Core.Linked(r.Key) }
		until := time.Duration(0)
		n.Drop = func(from, to *Node, _ []byte) bool {
			if until == 0 && up() {
				until = n.Now() + lost
			}
			return from == b && to == r && n.Now() < until
		}
		n.RunUntil(10*time.Second, up)
		n.Run(4 * time.Second)
		if b.Record(a) == nil || a.Record(b) == nil {
			t.Errorf("%v of first words lost: after 4 s a is known to b: %v, b to a: %v", lost, b.Record(a) != nil, a.Record(b) != nil)
		}
	}
}
