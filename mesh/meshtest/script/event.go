package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"skywire/mesh/meshtest"
)

// event reads "at T EVENT" or "every T [from T] [until T] EVENT" and notes when it happens.
func (s *Script) event(w *words, every bool) error {
	at := w.duration(MaxRun)
	from, until := at, at
	if every {
		until = s.Run
		if w.is("from") {
			from = w.duration(MaxRun)
		}
		if w.is("until") {
			until = w.duration(MaxRun)
		}
		if w.err == nil && (at < time.Millisecond || until < from) {
			w.fail("every needs a time above 1ms, and an end: until T, or run T above it")
		}
	}
	text := strings.Join(w.all[min(w.at, len(w.all)):], " ")
	do := s.action(w)
	if err := w.end(); err != nil {
		return err
	}
	if every && (until-from)/at > MaxEvents {
		return fmt.Errorf("%w: more than %d repetitions", ErrLimit, MaxEvents)
	}
	for t := from; t <= until; t += max(at, 1) {
		s.steps = append(s.steps, step{at: t, line: w.line, text: text, do: do})
		if !every {
			break
		}
	}
	return nil
}

type action func(x *world, at *step)

// action reads what happens.
func (s *Script) action(w *words) action {
	switch verb := w.next(); verb {
	case "kill", "start", "restart", "save", "move":
		return s.onNodes(w, verb)
	case "cut", "mend", "wire", "partition", "heal":
		return s.onWires(w, verb)
	case "mark":
		return func(x *world, _ *step) { x.mark() }
	case "stop":
		key := s.flowOf(w)
		return func(x *world, _ *step) { x.flows[key].Stop() }
	case "say":
		text := w.rest()
		return func(x *world, _ *step) { x.say("%s", text) }
	case "survey":
		return func(x *world, at *step) { x.survey(at) }
	case "print":
		return s.print(w)
	case "expect":
		return s.expect(w)
	default:
		w.fail("%q; events are kill, start, restart, save, move, cut, mend, partition, heal, wire, mark, stop, say, expect, print, survey", verb)
		return nil
	}
}

// chosen are the nodes of an event: names, or some that chance picks when it happens.
type chosen struct {
	names []string
	any   bool
	all   bool
	share float64
}

func (s *Script) choose(w *words) (c chosen) {
	for w.more() {
		word := w.peek()
		switch f, ok := share(word); {
		case word == "any":
			c.any = true
		case word == "all":
			c.all = true
		case s.nodes[word]:
			c.names = append(c.names, word)
		case ok && strings.HasSuffix(word, "%"):
			c.share = f
		case reserved[word]:
			return c
		default:
			w.fail("there is no node %q; name it in a statement above", word)
			return c
		}
		w.at++
	}
	if !c.any && !c.all && c.share == 0 && len(c.names) == 0 {
		w.fail("which nodes? names, any, all, or a share as 50%%")
	}
	return c
}

// of returns the nodes chosen now, of those that fit.
func (c chosen) of(x *world, fit func(*meshtest.Node) bool) (nodes []*meshtest.Node) {
	if len(c.names) > 0 {
		for _, name := range c.names {
			if nd := x.nodes[name]; fit(nd) {
				nodes = append(nodes, nd)
			}
		}
		return nodes
	}
	for _, nd := range x.net.Nodes() {
		if fit(nd) {
			nodes = append(nodes, nd)
		}
	}
	r := x.net.Rand()
	switch {
	case c.any && len(nodes) > 0:
		return []*meshtest.Node{nodes[r.IntN(len(nodes))]}
	case c.all:
		return nodes
	}
	return slices.DeleteFunc(nodes, func(*meshtest.Node) bool { return r.Float64() >= c.share })
}

func runs(nd *meshtest.Node) bool   { return nd.Core != nil }
func stands(nd *meshtest.Node) bool { return nd.Core == nil }

func (s *Script) onNodes(w *words, verb string) action {
	c := s.choose(w)
	how, down := "lost", time.Second
	for w.more() && (verb == "start" || verb == "restart") {
		switch word := w.next(); {
		case word == "down" && verb == "restart":
			down = w.duration(MaxRun)
		case word == "stored" || word == "lost" || word == "restored":
			how = word
		default:
			w.fail("%q: a node starts stored, lost or restored", word)
		}
	}
	return func(x *world, _ *step) {
		fit := runs
		if verb == "start" {
			fit = stands
		}
		for _, nd := range c.of(x, fit) {
			switch verb {
			case "kill":
				x.kill(nd)
			case "start":
				x.boot(nd, how)
			case "restart":
				if how == "stored" {
					nd.Save()
				}
				x.kill(nd)
				x.net.After(down, func() { x.boot(nd, how) })
			case "save":
				nd.Save()
			case "move":
				nd.Move()
				x.say("%s moves to %s", nd.Name, nd.Addr)
			}
		}
	}
}

func (s *Script) onWires(w *words, verb string) action {
	switch verb {
	case "heal":
		return func(x *world, _ *step) {
			x.net.Wires(func(_, _ *meshtest.Node, wire *meshtest.Wire) { wire.Down = false })
			x.say("all wires are whole")
		}
	case "partition":
		c := s.choose(w)
		return func(x *world, _ *step) { x.partition(c) }
	case "wire":
		a, b := s.pair(w)
		s.needWire(w, a, b)
		at := w.at
		w.wire(meshtest.Wire{}) // for its errors
		like := words{all: w.all[at:]}
		return func(x *world, st *step) {
			wire, again := x.net.Wire(x.nodes[a], x.nodes[b]), like
			*wire = again.wire(*wire)
			x.say("%s", st.text)
		}
	}
	a, b := s.name(w), ""
	if w.more() {
		b = s.name(w)
		s.needWire(w, a, b)
	}
	return func(x *world, st *step) {
		x.net.Wires(func(from, to *meshtest.Node, wire *meshtest.Wire) {
			if (from.Name == a && (b == "" || to.Name == b)) || (to.Name == a && (b == "" || from.Name == b)) {
				wire.Down = verb == "cut"
			}
		})
		x.say("%s", st.text)
	}
}

// needWire wants a wire between two nodes that link or mesh made; those of shapes are known only when they are built.
func (s *Script) needWire(w *words, a, b string) {
	if w.err == nil && len(s.wired) > 0 && !s.wired[[2]string{a, b}] && !s.shaped(a) && !s.shaped(b) {
		w.fail("there is no wire between %s and %s", a, b)
	}
}

func (s *Script) shaped(name string) bool { return s.shapes[name] }

func (s *Script) flowOf(w *words) [2]string {
	a, b := s.pair(w)
	if w.err == nil && !s.flows[[2]string{a, b}] {
		w.fail("there is no flow from %s to %s; say so above: flow %s %s", a, b, a, b)
	}
	return [2]string{a, b}
}

func (s *Script) print(w *words) action {
	switch what := w.next(); what {
	case "path":
		a, b := s.pair(w)
		return func(x *world, _ *step) { x.say("path %s to %s: %s", a, b, x.path(a, b)) }
	case "flows":
		return func(x *world, _ *step) {
			for _, f := range x.flowReports() {
				x.say("%s", f)
			}
		}
	case "nodes":
		return func(x *world, _ *step) {
			for _, nd := range x.nodeReports() {
				x.say("%s", nd)
			}
		}
	case "control":
		return func(x *world, _ *step) { x.say("%s", x.control()) }
	default:
		w.fail("%q; print path A B, flows, nodes, control", what)
		return nil
	}
}

func (s *Script) expect(w *words) action {
	switch what := w.next(); what {
	case "reach", "apart":
		a, b := s.pair(w)
		within := 2 * time.Second
		if w.is("within") {
			within = w.duration(time.Hour)
		}
		return func(x *world, st *step) { x.expectReach(st, a, b, within, what == "reach") }
	case "gap":
		key := s.flowOf(w)
		w.less()
		most := w.duration(MaxRun)
		return func(x *world, st *step) {
			got := x.flows[key].Silence()
			x.verdict(st, got < most, "%s without a packet", got.Round(10*time.Microsecond))
		}
	case "lost":
		key := s.flowOf(w)
		w.less()
		most := w.share()
		return func(x *world, st *step) {
			lost, sent := x.flows[key].Lost()
			x.verdict(st, float64(lost) <= most*float64(sent), "%d of %d lost", lost, sent)
		}
	case "path":
		return s.expectPath(w)
	case "equal":
		return func(x *world, st *step) { x.verdictOf(st, x.net.CheckEqual(), "connected nodes hold the same records") }
	case "idle":
		return func(x *world, st *step) { x.verdictOf(st, x.net.CheckIdle(), "no session, path or label is left") }
	default:
		w.fail("%q; expect reach, apart, gap, lost, path, equal or idle", what)
		return nil
	}
}

func (w *words) less() {
	if !w.is("<") {
		w.fail("a bound follows, as: < 300ms")
	}
}

func (s *Script) expectPath(w *words) action {
	a, b := s.pair(w)
	how, over := w.next(), ""
	switch how {
	case "via", "avoiding":
		over = s.name(w)
	case "direct":
	default:
		w.fail("%q; a path is expected via C, avoiding C, or direct", how)
	}
	return func(x *world, st *step) {
		hops := x.hops(a, b)
		between := hops[min(1, len(hops)) : max(1, len(hops)-1)*b2i(len(hops) > 0)]
		ok := len(hops) > 0 && (how == "direct" && len(between) == 0 || how == "via" && slices.Contains(between, over) ||
			how == "avoiding" && !slices.Contains(between, over))
		x.verdict(st, ok, "%s", x.path(a, b))
	}
}

// number prints figures as people read them.
func number(n uint64) string {
	switch {
	case n >= 10_000_000:
		return strconv.FormatUint(n/1_000_000, 10) + " MB"
	case n >= 10_000:
		return strconv.FormatUint(n/1000, 10) + " kB"
	}
	return strconv.FormatUint(n, 10) + " B"
}
