package script

import (
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"skywire/mesh/meshtest"
)

// Limits of a script.
const (
	MaxNodes  = 5000
	MaxEvents = 100_000 // repetitions of every included
	MaxRun    = 24 * time.Hour

	maxLine  = 4096
	maxLines = 10_000
)

// Script is a script that was understood.
type Script struct {
	Seed   uint64
	Run    time.Duration
	build  []func(w *world)
	steps  []step
	nodes  map[string]bool
	order  []string // of the nodes
	wired  map[[2]string]bool
	shapes map[string]bool // nodes whose wires chance or a shape makes
	flows  map[[2]string]bool
}

// step is something that happens at a time.
type step struct {
	at   time.Duration
	line int
	text string
	do   func(w *world, s *step)
}

// Source is text with a name for errors.
type Source struct{ Name, Text string }

// Parse reads a script from its parts, in order. open reads the file that a mesh statement names.
func Parse(open func(file string) ([]byte, error), parts ...Source) (*Script, error) {
	s := &Script{
		Seed: 1, nodes: map[string]bool{}, wired: map[[2]string]bool{}, shapes: map[string]bool{}, flows: map[[2]string]bool{},
	}
	for _, part := range parts {
		if err := s.read(part, open); err != nil {
			return nil, err
		}
	}
	if len(s.order) == 0 {
		return nil, fmt.Errorf("%w: no nodes: say node, line, ring, star, grid, random or mesh", ErrSyntax)
	}
	if s.Run == 0 {
		for _, st := range s.steps {
			s.Run = max(s.Run, st.at+5*time.Second)
		}
		s.Run = max(s.Run, 10*time.Second)
	}
	sort.SliceStable(s.steps, func(i, j int) bool { return s.steps[i].at < s.steps[j].at })
	return s, nil
}

func (s *Script) read(part Source, open func(string) ([]byte, error)) error {
	lines := strings.Split(part.Text, "\n")
	if len(lines) > maxLines {
		return fmt.Errorf("%s: %w: %d lines, at most %d", part.Name, ErrLimit, len(lines), maxLines)
	}
	for i, line := range lines {
		line, _, _ = strings.Cut(line, "#")
		if len(line) > maxLine {
			return fmt.Errorf("%s:%d: %w: longer than %d bytes", part.Name, i+1, ErrLimit, maxLine)
		}
		w := &words{all: strings.Fields(line), line: i + 1}
		if len(w.all) == 0 {
			continue
		}
		if err := s.statement(w, open); err != nil {
			return fmt.Errorf("%s:%d: %w", part.Name, i+1, err)
		}
		if len(s.order) > MaxNodes || len(s.steps) > MaxEvents {
			return fmt.Errorf("%s:%d: %w: at most %d nodes and %d events", part.Name, i+1, ErrLimit, MaxNodes, MaxEvents)
		}
	}
	return nil
}

// statement reads one line.
func (s *Script) statement(w *words, open func(string) ([]byte, error)) (err error) {
	switch verb := w.next(); verb {
	case "seed":
		s.Seed = uint64(w.count(math.MaxInt))
	case "run":
		s.Run = w.duration(MaxRun)
	case "node":
		s.node(w)
	case "line", "ring", "star", "grid", "random":
		s.shape(w, verb)
	case "mesh":
		err = s.mesh(w.next(), open)
	case "link":
		s.link(w)
	case "flow":
		s.flow(w)
	case "at", "every":
		err = s.event(w, verb == "every")
	default:
		return fmt.Errorf("%w: %q; statements are seed, run, node, line, ring, star, grid, random, mesh, link, flow, at, every", ErrSyntax, verb)
	}
	if err != nil {
		return err
	}
	return w.end()
}

func (s *Script) node(w *words) {
	var o meshtest.Options
	var names []string
	for w.more() {
		switch word := w.next(); word {
		case "skew":
			o.Skew = w.duration(1 << 62)
		case "clock":
			at := time.Date(w.count(9999), 1, 1, 0, 0, 0, 0, time.UTC)
			o.Core.Wall = func() time.Time { return at }
		default:
			names = append(names, word)
		}
	}
	if len(names) == 0 {
		w.fail("a node needs a name")
	}
	for _, name := range names {
		s.add(w, name)
		s.build = append(s.build, func(x *world) { x.add(x.net.Add(name, o)) })
	}
}

// reserved are words that are no names, since they stand where names do.
var reserved = map[string]bool{
	"any": true, "all": true, "within": true, "via": true, "avoiding": true, "direct": true, "stored": true, "lost": true,
	"restored": true, "down": true, "<": true, "from": true, "until": true, "skew": true, "clock": true,
}

func (s *Script) add(w *words, name string) {
	switch {
	case s.nodes[name]:
		w.fail("there is a node %q already", name)
	case reserved[name] || strings.HasSuffix(name, "%") || len(name) > 63:
		w.fail("%q can't be the name of a node", name)
	default:
		s.nodes[name] = true
		s.order = append(s.order, name)
	}
}

func (s *Script) shape(w *words, kind string) {
	prefix, k := w.next(), w.count(MaxNodes)
	second := 0
	if kind == "grid" || kind == "random" {
		second = w.count(MaxNodes)
	}
	wire := w.wire(meshtest.Wire{Delay: 5 * time.Millisecond})
	if w.err != nil {
		return
	}
	if kind == "grid" && k*second > MaxNodes || k < 1 {
		w.fail("%d by %d nodes are too many, or too few", k, second)
		return
	}
	make := map[string]func(n *meshtest.Net) []*meshtest.Node{
		"line":   func(n *meshtest.Net) []*meshtest.Node { return n.Line(prefix, k, meshtest.Options{}, wire) },
		"ring":   func(n *meshtest.Net) []*meshtest.Node { return n.Ring(prefix, k, meshtest.Options{}, wire) },
		"star":   func(n *meshtest.Net) []*meshtest.Node { return n.Star(prefix, k, meshtest.Options{}, wire) },
		"grid":   func(n *meshtest.Net) []*meshtest.Node { return n.Grid(prefix, k, second, meshtest.Options{}, wire) },
		"random": func(n *meshtest.Net) []*meshtest.Node { return n.Random(prefix, k, second, meshtest.Options{}, wire) },
	}[kind]
	if kind == "star" {
		k++
	}
	for i := range k * max(1, second*b2i(kind == "grid")) {
		name := fmt.Sprint(prefix, i)
		if kind == "grid" {
			name = fmt.Sprintf("%s%d.%d", prefix, i%k, i/k)
		}
		s.add(w, name)
		s.shapes[name] = true
	}
	s.build = append(s.build, func(x *world) {
		for _, nd := range make(x.net) {
			x.add(nd)
		}
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *Script) link(w *words) {
	a, b := s.pair(w)
	wire := w.wire(meshtest.Wire{Delay: 5 * time.Millisecond})
	s.join(a, b, wire)
}

func (s *Script) join(a, b string, wire meshtest.Wire) {
	s.wired[[2]string{a, b}], s.wired[[2]string{b, a}] = true, true
	s.build = append(s.build, func(x *world) { x.net.Join(x.nodes[a], x.nodes[b], wire) })
}

func (s *Script) flow(w *words) {
	a, b := s.pair(w)
	every, size := 20*time.Millisecond, 200
	for w.more() {
		switch word := w.next(); word {
		case "every":
			every = max(w.duration(time.Hour), 100*time.Microsecond)
		case "size":
			size = w.count(1400)
		default:
			w.fail("%q: a flow has every D and size N", word)
		}
	}
	if s.flows[[2]string{a, b}] {
		w.fail("there is a flow from %s to %s already", a, b)
	}
	s.flows[[2]string{a, b}] = true
	s.build = append(s.build, func(x *world) { x.flows[[2]string{a, b}] = x.net.Flow(x.nodes[a], x.nodes[b], every, size) })
}

// pair reads two nodes that there are.
func (s *Script) pair(w *words) (a, b string) {
	a, b = s.name(w), s.name(w)
	if a == b && w.err == nil {
		w.fail("%s and %s are one node", a, b)
	}
	return a, b
}

func (s *Script) name(w *words) string {
	name := w.next()
	if w.err == nil && !s.nodes[name] {
		w.fail("there is no node %q; name it in a statement above", name)
	}
	return name
}
