package route

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
)

// MaxHops is the most links a path may have: a setup lists at most 32 nodes.
const MaxHops = 31

// MaxPaths bounds k.
const MaxPaths = 16

// Path is a way through the mesh, ends included.
type Path struct {
	Hops     []key.Public // source … destination
	RTT      time.Duration
	Loss     float64
	Cost     uint64 // µs, see HopCost
	Rank     uint64 // Cost as the constraints weigh it: what paths are compared by
	Capacity uint64 // kbit/s of its narrowest link, 0 unknown
}

// Paths returns up to k paths from one node to another, no two over one link, the cheapest first. Among all sets of as
// many paths as there are (up to k) it takes one with the fewest relays in common, and of these the one of least total
// cost: a minimum-cost flow by successive shortest augmentation (Bhandari's method for any k), in which each relay is
// split in two halves joined by a free arc and by a dear one for its second use. So the best single path is left if it
// would block a second one: a standby is worth more than the last millisecond.
//
// Paths longer than MaxHops make the flow's answer unusable, and the problem with a limit is hard; then the choice is
// greedy: the cheapest path within the limit, without its links and relays, then again; links alone if that ends early.
func Paths(g *Graph, from, to key.Public, k int, c Constraints) []Path {
	s, okS := g.index[from]
	t, okT := g.index[to]
	if !okS || !okT || s == t || k <= 0 {
		return nil
	}
	k = min(k, MaxPaths)
	limit := c.limit()
	a := allowed(g, s, t, c)
	routes := disjoint(g, a, s, t, k)
	if slices.ContainsFunc(routes, func(r []int) bool { return len(r)-1 > limit }) {
		routes = greedy(g, a, s, t, k, limit)
	}
	paths := make([]Path, 0, len(routes))
	for _, r := range routes {
		hops := make([]key.Public, len(r))
		for i, n := range r {
			hops[i] = g.keys[n]
		}
		if p, ok := g.Measure(hops); ok {
			p.Rank = c.Rank(g, hops)
			paths = append(paths, p)
		}
	}
	sort.SliceStable(paths, func(i, j int) bool {
		a, b := &paths[i], &paths[j]
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(len(a.Hops), len(b.Hops)),
			slices.CompareFunc(a.Hops, b.Hops, order)) < 0
	})
	return paths
}

// sharedCost is the dear arc through a relay that another path uses. It outweighs any sum of link costs, which stay
// below 2^28 × 2^12.
const sharedCost = int64(1) << 44

// flow is a residual network. Arc i and arc i^1 are each other's reverse.
type flow struct {
	head  [][]int32 // arcs leaving a vertex
	to    []int32
	room  []int16
	price []int64
}

func (f *flow) add(a, b int, room int16, price int64) {
	f.head[a] = append(f.head[a], int32(len(f.to)))
	f.head[b] = append(f.head[b], int32(len(f.to)+1))
	f.to = append(f.to, int32(b), int32(a))
	f.room = append(f.room, room, 0)
	f.price = append(f.price, price, -price)
}

// newFlow splits node n into vertices 2n (in) and 2n+1 (out). A link is used in one direction by one path: the flow is
// cancelled where two paths would use it in opposite ones, which costs less.
func newFlow(g *Graph, m mask, s, t int) *flow {
	f := &flow{head: make([][]int32, 2*len(g.keys))}
	for n := range g.keys {
		switch {
		case n == s || n == t:
			f.add(2*n, 2*n+1, MaxPaths, 0)
		case m.node[n]:
			f.add(2*n, 2*n+1, 1, 0)
			f.add(2*n, 2*n+1, MaxPaths, sharedCost)
		}
	}
	for n := range g.keys {
		if !m.node[n] || n == t {
			continue
		}
		for _, a := range g.adj[n] {
			if m.edge[a.edge] && m.node[a.to] && a.to != s {
				f.add(2*n+1, 2*a.to, 1, int64(m.cost[a.edge]))
			}
		}
	}
	return f
}

// disjoint returns up to k link-disjoint routes of least shared relays, then cost.
func disjoint(g *Graph, m mask, s, t, k int) [][]int {
	f := newFlow(g, m, s, t)
	source, sink := 2*s, 2*t+1
	potential := make([]int64, len(f.head))
	found := 0
	for ; found < k; found++ {
		if !f.augment(source, sink, potential) {
			break
		}
	}
	routes := make([][]int, 0, found)
	for range found {
		routes = append(routes, f.walk(s, t))
	}
	return routes
}

// augment sends one unit along a cheapest path of the residual network: Dijkstra over reduced costs, which the
// potentials keep from being negative. The search ends at the sink; vertices not settled count as far as the sink.
func (f *flow) augment(source, sink int, potential []int64) bool {
	dist := make([]int64, len(f.head))
	via := make([]int32, len(f.head))
	done := make([]bool, len(f.head))
	for i := range dist {
		dist[i], via[i] = math.MaxInt64, -1
	}
	dist[source] = 0
	q := queue{{vertex: source}}
	for len(q) > 0 && !done[sink] {
		at := heap.Pop(&q).(item)
		if done[at.vertex] {
			continue
		}
		done[at.vertex] = true
		for _, a := range f.head[at.vertex] {
			v := int(f.to[a])
			if f.room[a] == 0 || done[v] {
				continue
			}
			if d := at.dist + f.price[a] + potential[at.vertex] - potential[v]; d < dist[v] {
				dist[v], via[v] = d, a
				heap.Push(&q, item{vertex: v, dist: d})
			}
		}
	}
	if !done[sink] {
		return false
	}
	for v := range potential {
		if done[v] {
			potential[v] += dist[v]
		} else {
			potential[v] += dist[sink]
		}
	}
	for v := sink; v != source; v = int(f.to[via[v]^1]) {
		f.room[via[v]]--
		f.room[via[v]^1]++
	}
	return true
}

// walk takes one unit of flow out of the network and returns its nodes. Forward arcs are the even ones; their reverse
// has room if they carry flow. A node met twice closes a loop, which is cut out.
func (f *flow) walk(s, t int) []int {
	route := []int{s}
	for v := 2*s + 1; v != 2*t; {
		for _, a := range f.head[v] {
			if a&1 == 0 && f.room[a^1] > 0 && f.to[a] != int32(v) {
				f.room[a^1]--
				v = int(f.to[a])
				break
			}
		}
		if v&1 == 0 && v != 2*t {
			if i := slices.Index(route, v/2); i >= 0 {
				route = route[:i]
			}
			route = append(route, v/2)
			v++
		}
	}
	return append(route, t)
}

type item struct {
	vertex int
	dist   int64
}

// queue is a heap of vertices by distance, then number, so that equal costs give the same answer everywhere.
type queue []item

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].dist < q[j].dist || q[i].dist == q[j].dist && q[i].vertex < q[j].vertex
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(item)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// greedy takes cheapest routes within a limit of links one by one.
func greedy(g *Graph, m mask, s, t, k, limit int) (routes [][]int) {
	m = m.clone()
	links := m.clone()
	for len(routes) < k {
		r := bounded(g, m, s, t, limit)
		if r == nil && len(routes) > 0 {
			m = links
			r = bounded(g, m, s, t, limit)
		}
		if r == nil {
			return routes
		}
		routes = append(routes, r)
		for i := range r[1:] {
			for _, a := range g.adj[r[i]] {
				if a.to == r[i+1] {
					m.edge[a.edge], links.edge[a.edge] = false, false
				}
			}
			if i > 0 {
				m.node[r[i]] = false
			}
		}
	}
	return routes
}

// bounded is Bellman-Ford by number of links: the cheapest route of at most limit of them.
func bounded(g *Graph, m mask, s, t, limit int) []int {
	const far = math.MaxUint64
	dist := make([][]uint64, limit+1)
	prev := make([][]int, limit+1)
	for h := range dist {
		dist[h], prev[h] = make([]uint64, len(g.keys)), make([]int, len(g.keys))
		for n := range dist[h] {
			dist[h][n] = far
		}
	}
	dist[0][s] = 0
	best := -1
	for h := 1; h <= limit; h++ {
		for n, d := range dist[h-1] {
			if d == far || n == t {
				continue
			}
			for _, a := range g.adj[n] {
				if c := d + m.cost[a.edge]; m.edge[a.edge] && m.node[a.to] && c < dist[h][a.to] {
					dist[h][a.to], prev[h][a.to] = c, n
				}
			}
		}
		if dist[h][t] != far && (best < 0 || dist[h][t] < dist[best][t]) {
			best = h
		}
	}
	if best < 0 {
		return nil
	}
	route := make([]int, best+1)
	for h, n := best, t; h >= 0; h-- {
		route[h] = n
		n = prev[h][n]
	}
	return route
}
