package route

import (
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
)

// Edge is a link that both of its ends state, at the worse of what they measured.
type Edge struct {
	A, B     key.Public // A is the lower key
	RTT      time.Duration
	Loss     float64
	Capacity uint64 // kbit/s, 0 unknown
	Jitter   time.Duration
	Flaps    float64
	Up       uint8 // see Link
	MTU      int
	Carrier  uint8
	Cost     uint64
}

// Graph is the mesh as its records agree on it. It is immutable.
type Graph struct {
	keys  []key.Public // rising
	index map[key.Public]int
	edges []Edge
	adj   [][]arc
}

type arc struct {
	to, edge int
}

// NewGraph builds the graph of records. Of several records of one node the last counts.
func NewGraph(records []*Record) *Graph {
	g := &Graph{index: make(map[key.Public]int, len(records))}
	byKey := make(map[key.Public]*Record, len(records))
	for _, r := range records {
		if byKey[r.Key] == nil {
			g.keys = append(g.keys, r.Key)
		}
		byKey[r.Key] = r
	}
	sort.Slice(g.keys, func(i, j int) bool { return order(g.keys[i], g.keys[j]) < 0 })
	stated := make(map[[2]key.Public]Link)
	for i, k := range g.keys {
		g.index[k] = i
		for _, l := range byKey[k].Links {
			stated[[2]key.Public{k, l.Peer}] = l
		}
	}
	g.adj = make([][]arc, len(g.keys))
	for i, k := range g.keys {
		for _, l := range byKey[k].Links {
			j, known := g.index[l.Peer]
			back, mutual := stated[[2]key.Public{l.Peer, k}]
			if !known || !mutual || j <= i {
				continue
			}
			if e := worse(k, l, back); e.Loss < 1 {
				g.adj[i] = append(g.adj[i], arc{to: j, edge: len(g.edges)})
				g.adj[j] = append(g.adj[j], arc{to: i, edge: len(g.edges)})
				g.edges = append(g.edges, e)
			}
		}
	}
	return g
}

func worse(a key.Public, ab, ba Link) Edge {
	w := ab.worse(ba)
	return Edge{A: a, B: w.Peer, RTT: w.RTT, Loss: w.Loss, Capacity: w.Capacity, Jitter: w.Jitter, Flaps: w.Flaps, Up: w.Up, MTU: w.MTU, Carrier: w.Carrier, Cost: w.Cost()}
}

// Nodes returns all nodes with a record, in order of their keys. The caller must not change it.
func (g *Graph) Nodes() []key.Public { return g.keys }

// Edges returns all links. The caller must not change it.
func (g *Graph) Edges() []Edge { return g.edges }

// Edge returns the link between two nodes.
func (g *Graph) Edge(a, b key.Public) (Edge, bool) {
	i, okA := g.index[a]
	j, okB := g.index[b]
	if !okA || !okB {
		return Edge{}, false
	}
	for _, n := range g.adj[i] {
		if n.to == j {
			return g.edges[n.edge], true
		}
	}
	return Edge{}, false
}

// Measure returns the path over hops as the graph measures it; ok is false if a link of it is missing. It is how a
// source checks a proposal.
func (g *Graph) Measure(hops []key.Public) (p Path, ok bool) {
	if len(hops) < 2 {
		return Path{}, false
	}
	seen := make(map[key.Public]bool, len(hops))
	delivered := 1.0
	for i, k := range hops {
		if seen[k] {
			return Path{}, false
		}
		if seen[k] = true; i == 0 {
			continue
		}
		e, ok := g.Edge(hops[i-1], k)
		if !ok {
			return Path{}, false
		}
		p.RTT += e.RTT
		p.Cost += e.Cost
		delivered *= 1 - e.Loss
		if e.Capacity != 0 && (p.Capacity == 0 || e.Capacity < p.Capacity) {
			p.Capacity = e.Capacity
		}
	}
	p.Hops, p.Loss, p.Rank = slices.Clone(hops), 1-delivered, p.Cost
	return p, true
}
