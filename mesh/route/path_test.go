package route

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
)

// node makes a key for graphs, where nothing is signed.
func node(n int) (k key.Public) {
	binary.BigEndian.PutUint32(k[:], uint32(n+1))
	return k
}

// mesh makes records of n nodes with the links given as pairs, both ends stating cost as round trip.
func mesh(n int, links map[[2]int]time.Duration) []*Record {
	all := make([]*Record, n)
	for i := range all {
		all[i] = &Record{Key: node(i)}
	}
	for l, rtt := range links {
		all[l[0]].Links = append(all[l[0]].Links, Link{Peer: node(l[1]), RTT: rtt})
		all[l[1]].Links = append(all[l[1]].Links, Link{Peer: node(l[0]), RTT: rtt})
	}
	for _, r := range all {
		slices.SortFunc(r.Links, func(a, b Link) int { return order(a.Peer, b.Peer) })
	}
	return all
}

func randomMesh(r *rand.Rand, n, links int) []*Record {
	set := make(map[[2]int]time.Duration)
	for range links {
		if a, b := r.IntN(n), r.IntN(n); a < b {
			set[[2]int{a, b}] = time.Duration(r.IntN(20)) * time.Millisecond
		}
	}
	return mesh(n, set)
}

func hopsOf(paths []Path) (all [][]int) {
	for _, p := range paths {
		var hops []int
		for _, k := range p.Hops {
			hops = append(hops, int(binary.BigEndian.Uint32(k[:]))-1)
		}
		all = append(all, hops)
	}
	return all
}

func TestLinkCountsOnlyIfBothEndsStateIt(t *testing.T) {
	t.Parallel()
	g := NewGraph([]*Record{
		{Key: node(0), Links: []Link{
			{Peer: node(1), RTT: 10 * time.Millisecond, Loss: 0.01, Capacity: 5000},
			{Peer: node(2), RTT: time.Millisecond},
			{Peer: node(3)},
			{Peer: node(9)},
			{Peer: node(0)},
		}},
		{Key: node(1), Links: []Link{{Peer: node(0), RTT: 30 * time.Millisecond, Loss: 0.002, Capacity: 9000}}},
		{Key: node(2)},
		{Key: node(3), Links: []Link{{Peer: node(0), Loss: 1}}},
	})
	want := Edge{A: node(0), B: node(1), RTT: 30 * time.Millisecond, Loss: 0.01, Capacity: 5000, Cost: 30_000 + 20_000 + 9600 + HopCost}
	if got := g.Edges(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if e, ok := g.Edge(node(1), node(0)); !ok || e != want {
		t.Errorf("from the other end: %+v %v", e, ok)
	}
	if p := Paths(g, node(0), node(2), 2, Constraints{}); len(p) != 0 {
		t.Errorf("a one-sided claim pulls traffic: %v", hopsOf(p))
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	ms := time.Millisecond
	// The trap of shortest-path-first: 0-1-2-5 is best alone and leaves no second way.
	trap := map[[2]int]time.Duration{{0, 1}: ms, {1, 2}: ms, {2, 5}: ms, {0, 3}: 5 * ms, {2, 3}: 5 * ms, {1, 4}: 5 * ms, {4, 5}: 5 * ms}
	hourglass := map[[2]int]time.Duration{{0, 1}: ms, {0, 2}: ms, {1, 3}: ms, {2, 3}: ms, {3, 4}: ms, {3, 5}: ms, {4, 6}: ms, {5, 6}: ms}
	line := map[[2]int]time.Duration{}
	for i := range 39 {
		line[[2]int{i, i + 1}] = ms
	}
	for _, c := range []struct {
		name  string
		n     int
		links map[[2]int]time.Duration
		to, k int
		c     Constraints
		want  [][]int
	}{
		{"best alone", 6, trap, 5, 1, Constraints{}, [][]int{{0, 1, 2, 5}}},
		{"a pair beats the best", 6, trap, 5, 2, Constraints{}, [][]int{{0, 1, 4, 5}, {0, 3, 2, 5}}},
		{"no more than there are", 6, trap, 5, 9, Constraints{}, [][]int{{0, 1, 4, 5}, {0, 3, 2, 5}}},
		{"over one relay if there is no other", 7, hourglass, 6, 2, Constraints{}, [][]int{{0, 1, 3, 4, 6}, {0, 2, 3, 5, 6}}},
		{"avoided relay", 6, trap, 5, 2, Constraints{Avoid: []key.Public{node(1)}}, [][]int{{0, 3, 2, 5}}},
		{"avoided link", 6, trap, 5, 2, Constraints{AvoidLinks: [][2]key.Public{{node(5), node(2)}}}, [][]int{{0, 1, 4, 5}}},
		{"ends may be avoided in vain", 6, trap, 5, 1, Constraints{Avoid: []key.Public{node(0), node(5)}}, [][]int{{0, 1, 2, 5}}},
		{"only some relays", 6, trap, 5, 2, Constraints{Only: []key.Public{node(2), node(3)}}, [][]int{{0, 3, 2, 5}}},
		{"too long for a setup", 40, line, 32, 1, Constraints{}, nil},
		{"just short enough", 40, line, 31, 1, Constraints{}, [][]int{{
			0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
		}}},
		{"hop limit", 7, hourglass, 6, 1, Constraints{MaxHops: 3}, nil},
		{"to itself", 6, trap, 0, 1, Constraints{}, nil},
		{"to nobody", 6, trap, 77, 1, Constraints{}, nil},
		{"none asked for", 6, trap, 5, 0, Constraints{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := hopsOf(Paths(NewGraph(mesh(c.n, c.links)), node(0), node(c.to), c.k, c.c))
			slices.SortFunc(got, slices.Compare[[]int])
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %v\nwant %v", got, c.want)
			}
		})
	}
}

// simplePaths lists every path without loops, as node numbers of g.
func simplePaths(g *Graph, s, t int) (all [][]int) {
	on := make([]bool, len(g.keys))
	var walk func(path []int)
	walk = func(path []int) {
		at := path[len(path)-1]
		if at == t {
			all = append(all, slices.Clone(path))
			return
		}
		for _, a := range g.adj[at] {
			if !on[a.to] {
				on[a.to] = true
				walk(append(path, a.to))
				on[a.to] = false
			}
		}
	}
	on[s] = true
	walk([]int{s})
	return all
}

type score struct {
	paths, shared int
	cost          uint64
}

func (a score) better(b score) bool {
	if a.paths != b.paths {
		return a.paths > b.paths
	}
	if a.shared != b.shared {
		return a.shared < b.shared
	}
	return a.cost < b.cost
}

func judge(t *testing.T, g *Graph, routes [][]int) (score, bool) {
	t.Helper()
	used := map[[2]int]bool{}
	relays := map[int]int{}
	s := score{paths: len(routes)}
	for _, r := range routes {
		for i := range r[1:] {
			a, b := min(r[i], r[i+1]), max(r[i], r[i+1])
			if used[[2]int{a, b}] {
				return s, false
			}
			used[[2]int{a, b}] = true
			e, ok := g.Edge(g.keys[r[i]], g.keys[r[i+1]])
			if !ok {
				t.Fatalf("no link %v-%v", r[i], r[i+1])
			}
			s.cost += e.Cost
			if i > 0 {
				relays[r[i]]++
			}
		}
	}
	for _, n := range relays {
		s.shared += n - 1
	}
	return s, true
}

// best tries every set of at most k paths.
func best(t *testing.T, g *Graph, all [][]int, k int) (top score) {
	t.Helper()
	var pick func(from int, chosen [][]int)
	pick = func(from int, chosen [][]int) {
		s, disjoint := judge(t, g, chosen)
		if !disjoint {
			return
		}
		if s.better(top) {
			top = s
		}
		for i := from; i < len(all) && len(chosen) < k; i++ {
			pick(i+1, append(slices.Clone(chosen), all[i]))
		}
	}
	pick(0, nil)
	return top
}

// TestPathsAgainstEverySet compares with brute force on small random graphs: as many paths, as few shared relays, and
// then as cheap as any set can be.
func TestPathsAgainstEverySet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 1))
		n := 4 + r.IntN(4)
		g := NewGraph(randomMesh(r, n, 4+r.IntN(4*n)))
		k := 1 + r.IntN(3)
		all := simplePaths(g, 0, n-1)
		want := best(t, g, all, k)
		routes := hopsOf(Paths(g, node(0), node(n-1), k, Constraints{}))
		got, disjoint := judge(t, g, routes)
		if !disjoint || got != want {
			t.Fatalf("seed %d, k %d: %v scores %+v (disjoint %v), best is %+v", seed, k, routes, got, disjoint, want)
		}
	}
}

// TestPathsWithinALimit: the choice is greedy there, but its best path is the best, and no rule is broken.
func TestPathsWithinALimit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 2))
		n := 5 + r.IntN(4)
		g := NewGraph(randomMesh(r, n, 6+r.IntN(3*n)))
		limit, k := 1+r.IntN(4), 1+r.IntN(3)
		paths := Paths(g, node(0), node(n-1), k, Constraints{MaxHops: limit})
		routes := hopsOf(paths)
		if _, disjoint := judge(t, g, routes); !disjoint || len(routes) > k {
			t.Fatalf("seed %d: %v", seed, routes)
		}
		for _, hops := range routes {
			if len(hops)-1 > limit {
				t.Fatalf("seed %d: %v within %d", seed, hops, limit)
			}
		}
		cheapest, any := uint64(math.MaxUint64), false
		for _, p := range simplePaths(g, 0, n-1) {
			if s, _ := judge(t, g, [][]int{p}); len(p)-1 <= limit {
				cheapest, any = min(cheapest, s.cost), true
			}
		}
		if any != (len(paths) > 0) {
			t.Fatalf("seed %d: found %v, there are some: %v", seed, routes, any)
		}
		unlimited := Paths(g, node(0), node(n-1), k, Constraints{})
		fits := !slices.ContainsFunc(unlimited, func(p Path) bool { return len(p.Hops)-1 > limit })
		if any && !fits && paths[0].Cost != cheapest {
			t.Fatalf("seed %d: best costs %d, cheapest is %d", seed, paths[0].Cost, cheapest)
		}
	}
}

func TestMeasure(t *testing.T) {
	t.Parallel()
	g := NewGraph([]*Record{
		{Key: node(0), Links: []Link{{Peer: node(1), RTT: time.Millisecond, Loss: 0.5, Capacity: 8}}},
		{Key: node(1), Links: []Link{{Peer: node(0)}, {Peer: node(2), RTT: time.Millisecond, Loss: 0.5, Capacity: 4}}},
		{Key: node(2), Links: []Link{{Peer: node(1)}}},
	})
	p, ok := g.Measure([]key.Public{node(0), node(1), node(2)})
	if !ok || p.RTT != 2*time.Millisecond || p.Loss != 0.75 || p.Capacity != 4 || p.Cost != 2*(1000+1_000_000+HopCost)+CapacityCost/8+CapacityCost/4 {
		t.Errorf("got %+v %v", p, ok)
	}
	for name, hops := range map[string][]key.Public{
		"no such link": {node(0), node(2)}, "loop": {node(0), node(1), node(0)}, "one node": {node(0)}, "unknown": {node(0), node(8)},
	} {
		if p, ok := g.Measure(hops); ok {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestBetter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		old, fresh uint64
		want       bool
	}{{100_000, 79_000, true}, {100_000, 81_000, false}, {3000, 1500, false}, {5000, 2000, true}, {1000, 1000, false}, {1000, 2000, false}} {
		if got := Better(Path{Rank: c.old}, Path{Rank: c.fresh}); got != c.want {
			t.Errorf("from %d to %d: %v", c.old, c.fresh, got)
		}
	}
}

func BenchmarkPaths1000(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	records := randomMesh(r, 1000, 6000)
	g := NewGraph(records)
	b.Run("graph", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			NewGraph(records)
		}
	})
	for _, k := range []int{1, 2, 4} {
		b.Run(fmt.Sprint("k", k), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				Paths(g, node(i%500), node(500+i%499), k, Constraints{})
			}
		})
	}
}

// TestPathsOnLargerGraphs: too large for brute force, but a single path is the cheapest that Bellman-Ford finds, and
// several break no rule.
func TestPathsOnLargerGraphs(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 3))
		g := NewGraph(randomMesh(r, 300, 1500))
		from, to := node(r.IntN(150)), node(150+r.IntN(150))
		one := Paths(g, from, to, 1, Constraints{})
		s, okS := g.index[from]
		d, okD := g.index[to]
		if !okS || !okD {
			t.Fatal("no such node")
		}
		m := allowed(g, s, d, Constraints{})
		want := bounded(g, m, s, d, MaxHops)
		if (len(one) == 0) != (want == nil) {
			t.Fatalf("seed %d: %v, want %v", seed, hopsOf(one), want)
		}
		if want == nil {
			continue
		}
		if best, _ := judge(t, g, [][]int{want}); best.cost != one[0].Cost {
			t.Errorf("seed %d: costs %d, want %d", seed, one[0].Cost, best.cost)
		}
		several := Paths(g, from, to, 4, Constraints{})
		if _, disjoint := judge(t, g, hopsOf(several)); !disjoint || len(several) == 0 || several[0].Cost < one[0].Cost {
			t.Errorf("seed %d: %v", seed, hopsOf(several))
		}
		if !slices.IsSortedFunc(several, func(a, b Path) int { return int(a.Cost) - int(b.Cost) }) {
			t.Errorf("seed %d: not the cheapest first", seed)
		}
	}
}
