package route

import (
	"container/heap"
	"time"

	"skywire/mesh/key"
)

// Reach returns the round trip of the cheapest path from one node to every other that it can reach within MaxHops. It is
// what Paths would say of each, for the cost of one search: who lists a thousand nodes can't afford a thousand. Where the
// cheapest path is too long and a dearer one would not be, the node is left out.
func Reach(g *Graph, from key.Public) map[key.Public]time.Duration {
	s, ok := g.index[from]
	if !ok {
		return nil
	}
	all := make(map[key.Public]time.Duration, len(g.keys))
	cost, rtt := make([]int64, len(g.keys)), make([]time.Duration, len(g.keys))
	hops, done := make([]int, len(g.keys)), make([]bool, len(g.keys))
	for i := range cost {
		cost[i] = -1
	}
	cost[s] = 0
	q := queue{{vertex: s}}
	for len(q) > 0 {
		at := heap.Pop(&q).(item).vertex
		if done[at] {
			continue
		}
		if done[at] = true; at != s && hops[at] <= MaxHops {
			all[g.keys[at]] = rtt[at]
		}
		for _, n := range g.adj[at] {
			e := g.edges[n.edge]
			if c := cost[at] + int64(e.Cost); cost[n.to] < 0 || c < cost[n.to] {
				cost[n.to], rtt[n.to], hops[n.to] = c, rtt[at]+e.RTT, hops[at]+1
				heap.Push(&q, item{vertex: n.to, dist: c})
			}
		}
	}
	return all
}
