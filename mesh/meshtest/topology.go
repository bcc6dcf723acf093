package meshtest

import "fmt"

// Shapes of networks. Each node dials those it is joined to that were made before it.

// Join puts a wire between two nodes and has the first dial the second.
func (n *Net) Join(a, b *Node, w Wire) *Wire {
	p := n.Connect(a, b, w)
	a.Dial(b)
	return p
}

// Line adds k nodes in a row, Ring closes it.
func (n *Net) Line(name string, k int, o Options, w Wire) []*Node {
	all := make([]*Node, k)
	for i := range all {
		all[i] = n.Add(fmt.Sprint(name, i), o)
		if i > 0 {
			n.Join(all[i], all[i-1], w)
		}
	}
	return all
}

// Ring adds k nodes in a circle.
func (n *Net) Ring(name string, k int, o Options, w Wire) []*Node {
	all := n.Line(name, k, o, w)
	if k > 2 {
		n.Join(all[k-1], all[0], w)
	}
	return all
}

// Star adds a centre and k nodes around it.
func (n *Net) Star(name string, k int, o Options, w Wire) []*Node {
	all := []*Node{n.Add(name+"0", o)}
	for i := 1; i <= k; i++ {
		all = append(all, n.Add(fmt.Sprint(name, i), o))
		n.Join(all[i], all[0], w)
	}
	return all
}

// Grid adds w×h nodes joined to their neighbours, row by row.
func (n *Net) Grid(name string, w, h int, o Options, wire Wire) []*Node {
	var all []*Node
	for y := range h {
		for x := range w {
			nd := n.Add(fmt.Sprintf("%s%d.%d", name, x, y), o)
			all = append(all, nd)
			if x > 0 {
				n.Join(nd, all[len(all)-2], wire)
			}
			if y > 0 {
				n.Join(nd, all[len(all)-1-w], wire)
			}
		}
	}
	return all
}

// Random adds k nodes, connected, each joined to so many others on average.
func (n *Net) Random(name string, k, degree int, o Options, w Wire) []*Node {
	all := make([]*Node, k)
	for i := range all {
		all[i] = n.Add(fmt.Sprint(name, i), o)
		if i > 0 {
			n.Join(all[i], all[n.rand.IntN(i)], w)
		}
	}
	for range k * max(0, degree-2) / 2 {
		a, b := all[n.rand.IntN(k)], all[n.rand.IntN(k)]
		if a != b && n.Wire(a, b) == nil {
			n.Join(a, b, w)
		}
	}
	return all
}
