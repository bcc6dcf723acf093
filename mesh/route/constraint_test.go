package route

import (
	"math/rand/v2"
	"slices"
	"testing"

	"skywire/mesh/key"
)

// TestConstraintsAgainstEverySet compares with brute force: of the paths that the rules permit, as many as there are, with as few
// shared relays, at the least sum of what they count.
func TestConstraintsAgainstEverySet(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 5))
		n := 4 + r.IntN(4)
		g := NewGraph(randomMesh(r, n, 4+r.IntN(4*n)))
		k := 1 + r.IntN(3)
		c := randomConstraints(r, n)
		var permitted [][]int
		for _, p := range simplePaths(g, 0, n-1) {
			if c.Permits(keysOf(p)) {
				permitted = append(permitted, p)
			}
		}
		// The oracle weighs links as the constraints do.
		want := bestBy(t, g, permitted, k, c)
		got := Paths(g, node(0), node(n-1), k, c)
		sum, shared := uint64(0), 0
		relays := map[key.Public]int{}
		for i, p := range got {
			if !c.Permits(p.Hops) {
				t.Fatalf("seed %d: %v is not permitted by %+v", seed, hopsOf(got)[i], c)
			}
			if p.Rank != c.Rank(g, p.Hops) || p.Rank < p.Cost {
				t.Fatalf("seed %d: rank %d", seed, p.Rank)
			}
			sum += p.Rank
			for _, h := range p.Hops[1 : len(p.Hops)-1] {
				relays[h]++
			}
		}
		for _, times := range relays {
			shared += times - 1
		}
		if s := (score{paths: len(got), shared: shared, cost: sum}); s != want {
			t.Fatalf("seed %d, k %d, %+v: %v scores %+v, best is %+v", seed, k, c, hopsOf(got), s, want)
		}
	}
}

func randomConstraints(r *rand.Rand, n int) (c Constraints) {
	some := func() (keys []key.Public) {
		for i := range n {
			if r.IntN(3) == 0 {
				keys = append(keys, node(i))
			}
		}
		return keys
	}
	switch r.IntN(4) {
	case 0:
		c.Avoid = some()
	case 1:
		c.Only = some()
	case 2:
		c.AvoidLinks = [][2]key.Public{{node(r.IntN(n)), node(r.IntN(n))}}
	}
	if r.IntN(2) == 0 {
		c.Prefer = some()
	}
	return c
}

func keysOf(route []int) (hops []key.Public) {
	for _, n := range route {
		hops = append(hops, node(n))
	}
	return hops
}

// bestBy is best with the weights of constraints.
func bestBy(t *testing.T, g *Graph, all [][]int, k int, c Constraints) (top score) {
	t.Helper()
	var pick func(from int, chosen [][]int)
	pick = func(from int, chosen [][]int) {
		s, disjoint := judge(t, g, chosen)
		if !disjoint {
			return
		}
		s.cost = 0
		for _, p := range chosen {
			s.cost += c.Rank(g, keysOf(p))
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

func TestRefusalNamesWhatSpeaksAgainst(t *testing.T) {
	t.Parallel()
	hops := keysOf([]int{0, 1, 2, 3})
	for name, c := range map[string]struct {
		c    Constraints
		want *Refusal
	}{
		"nothing":        {Constraints{}, nil},
		"the ends":       {Constraints{Avoid: keysOf([]int{0, 3})}, nil},
		"a relay":        {Constraints{Avoid: keysOf([]int{2})}, &Refusal{Rule: RuleAvoid, Relay: node(2)}},
		"a link":         {Constraints{AvoidLinks: [][2]key.Public{{node(2), node(1)}}}, &Refusal{Rule: RuleAvoidLink, Relay: node(2)}},
		"not trusted":    {Constraints{Only: keysOf([]int{1})}, &Refusal{Rule: RuleTrusted, Relay: node(2)}},
		"trusted":        {Constraints{Only: keysOf([]int{1, 2})}, nil},
		"too many links": {Constraints{MaxHops: 2}, &Refusal{Rule: RuleMaxHops, Limit: 2}},
	} {
		got := c.c.Refusal(hops)
		if (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestPathsOfTheDegenerate: graphs without links, of one node, of two, complete, and stars give what there is.
func TestPathsOfTheDegenerate(t *testing.T) {
	t.Parallel()
	star, complete := map[[2]int]int{}, map[[2]int]int{}
	for i := 1; i < 6; i++ {
		star[[2]int{0, i}] = 1
	}
	for i := range 6 {
		for j := i + 1; j < 6; j++ {
			complete[[2]int{i, j}] = 1
		}
	}
	for name, c := range map[string]struct {
		n        int
		links    map[[2]int]int
		from, to int
		want     int
	}{
		"nobody": {0, nil, 0, 1, 0}, "one node": {1, nil, 0, 0, 0}, "no link": {2, nil, 0, 1, 0},
		"one link": {2, map[[2]int]int{{0, 1}: 1}, 0, 1, 1}, "two islands": {4, map[[2]int]int{{0, 1}: 1, {2, 3}: 1}, 0, 3, 0},
		"star": {6, star, 1, 5, 1}, "complete": {6, complete, 0, 5, 5},
	} {
		var records []*Record
		for i := range c.n {
			records = append(records, &Record{Key: node(i)})
		}
		for l := range c.links {
			records[l[0]].Links = append(records[l[0]].Links, Link{Peer: node(l[1])})
			records[l[1]].Links = append(records[l[1]].Links, Link{Peer: node(l[0])})
		}
		if got := Paths(NewGraph(records), node(c.from), node(c.to), MaxPaths, Constraints{}); len(got) != c.want {
			t.Errorf("%s: %v, want %d", name, hopsOf(got), c.want)
		}
	}
}
