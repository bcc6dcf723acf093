package route

import (
	"slices"

	"skywire/mesh/key"
)

// Constraints narrow the choice of paths. The ends are always allowed.
type Constraints struct {
	Avoid      []key.Public    // not as relays
	AvoidLinks [][2]key.Public // in either direction
	Only       []key.Public    // if not empty, no other relays: those that are trusted
	Prefer     []key.Public    // if not empty, links of other relays count PreferFactor times their cost
	MaxHops    int             // links; 0 means MaxHops, as does more
}

// PreferFactor is how much dearer a path without preferred relays may be before one over them is taken all the same.
const PreferFactor = 2

// limit is the most links that a path may have.
func (c *Constraints) limit() int {
	if c.MaxHops <= 0 || c.MaxHops > MaxHops {
		return MaxHops
	}
	return c.MaxHops
}

// Permits tells whether a path may be used at all.
func (c *Constraints) Permits(hops []key.Public) bool { return c.Refusal(hops) == nil }

// Refusal says what speaks against a path, nil if nothing does.
func (c *Constraints) Refusal(hops []key.Public) *Refusal {
	if len(hops)-1 > c.limit() {
		return &Refusal{Rule: RuleMaxHops, Limit: c.limit()}
	}
	for i, k := range hops {
		if i == 0 {
			continue
		}
		for _, l := range c.AvoidLinks {
			if l[0] == k && l[1] == hops[i-1] || l[1] == k && l[0] == hops[i-1] {
				return &Refusal{Rule: RuleAvoidLink, Relay: k}
			}
		}
		if i == len(hops)-1 {
			break
		}
		switch {
		case slices.Contains(c.Avoid, k):
			return &Refusal{Rule: RuleAvoid, Relay: k}
		case len(c.Only) > 0 && !slices.Contains(c.Only, k):
			return &Refusal{Rule: RuleTrusted, Relay: k}
		}
	}
	return nil
}

// Rule names what a path breaks.
type Rule uint8

// Rules of Constraints.
const (
	RuleAvoid     Rule = iota + 1 // a relay is to be avoided
	RuleAvoidLink                 // a link is
	RuleTrusted                   // a relay is none of those trusted
	RuleMaxHops                   // more links than allowed
)

// Refusal is why a path is not allowed.
type Refusal struct {
	Rule  Rule
	Relay key.Public // the first one that breaks the rule
	Limit int        // of links, for RuleMaxHops
}

// Rank is the cost of a path as its chooser weighs it: relays that are not preferred count more. The hops must be those of a path
// that the graph measures.
func (c *Constraints) Rank(g *Graph, hops []key.Public) uint64 {
	rank := uint64(0)
	for i := 1; i < len(hops); i++ {
		e, ok := g.Edge(hops[i-1], hops[i])
		if !ok {
			return maxLinkCost * MaxHops
		}
		rank += c.weigh(e.Cost, i > 1 && c.strange(hops[i-1]) || i < len(hops)-1 && c.strange(hops[i]))
	}
	return rank
}

func (c *Constraints) strange(relay key.Public) bool {
	return len(c.Prefer) > 0 && !slices.Contains(c.Prefer, relay)
}

func (c *Constraints) weigh(cost uint64, strange bool) uint64 {
	if strange {
		return cost * PreferFactor
	}
	return cost
}

// mask says which nodes and links a search may use, and what links count in it.
type mask struct {
	node, edge []bool
	cost       []uint64
}

func (m mask) clone() mask {
	return mask{node: slices.Clone(m.node), edge: slices.Clone(m.edge), cost: m.cost}
}

func allowed(g *Graph, s, t int, c Constraints) mask {
	m := mask{node: make([]bool, len(g.keys)), edge: make([]bool, len(g.edges)), cost: make([]uint64, len(g.edges))}
	for i := range m.node {
		m.node[i] = len(c.Only) == 0
	}
	g.set(m.node, c.Only, true)
	g.set(m.node, c.Avoid, false)
	m.node[s], m.node[t] = true, true
	for i := range m.edge {
		m.edge[i], m.cost[i] = true, g.edges[i].Cost
	}
	if len(c.Prefer) > 0 {
		g.weighStrange(m, s, t, c)
	}
	for _, l := range c.AvoidLinks {
		i, okI := g.index[l[0]]
		j, okJ := g.index[l[1]]
		if !okI || !okJ {
			continue
		}
		for _, n := range g.adj[i] {
			if n.to == j {
				m.edge[n.edge] = false
			}
		}
	}
	return m
}

func (g *Graph) set(nodes []bool, keys []key.Public, v bool) {
	for _, k := range keys {
		if i, ok := g.index[k]; ok {
			nodes[i] = v
		}
	}
}

// weighStrange makes links of relays that are not preferred dearer.
func (g *Graph) weighStrange(m mask, s, t int, c Constraints) {
	preferred := make([]bool, len(g.keys))
	g.set(preferred, c.Prefer, true)
	preferred[s], preferred[t] = true, true
	for i, all := range g.adj {
		for _, a := range all {
			if i < a.to {
				m.cost[a.edge] = c.weigh(m.cost[a.edge], !preferred[i] || !preferred[a.to])
			}
		}
	}
}

// And returns c with what o avoids beside it.
func (c Constraints) And(o Constraints) Constraints {
	c.Avoid = append(slices.Clone(c.Avoid), o.Avoid...)
	c.AvoidLinks = append(slices.Clone(c.AvoidLinks), o.AvoidLinks...)
	return c
}
