package route

import (
	"math/rand/v2"
	"testing"
)

// TestReach: one search says what a search for each node says.
func TestReach(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		n := 2 + r.IntN(30)
		g := NewGraph(randomMesh(r, n, n+r.IntN(2*n)))
		from := g.keys[0]
		all := Reach(g, from)
		for _, k := range g.keys[1:] {
			paths := Paths(g, from, k, 1, Constraints{})
			rtt, ok := all[k]
			switch {
			case ok != (len(paths) > 0):
				t.Errorf("%s: reached %v, %d paths", k.Short(), ok, len(paths))
			case ok && rtt != paths[0].RTT:
				if p := paths[0]; p.Cost < uint64(rtt.Microseconds()) { // another of the same cost may have another round trip
					t.Errorf("%s: %v, want %v", k.Short(), rtt, p.RTT)
				}
			}
		}
	}
	if Reach(NewGraph(nil), node(1)) != nil {
		t.Error("a graph without the node reaches something")
	}
}

func BenchmarkReach1000(b *testing.B) {
	b.ReportAllocs()
	g := NewGraph(randomMesh(rand.New(rand.NewPCG(1, 2)), 1000, 4000))
	for b.Loop() {
		if len(Reach(g, g.keys[0])) == 0 {
			b.Fatal("nothing reached")
		}
	}
}
