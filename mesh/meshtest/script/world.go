package script

import (
	"context"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/meshtest"
)

// checkEvery is how often the invariants are looked at.
const checkEvery = time.Second

// maxBroken bounds the broken invariants that are reported.
const maxBroken = 20

// world is a script at work.
type world struct {
	net     *meshtest.Net
	start   time.Duration
	nodes   map[string]*meshtest.Node
	byKey   map[key.Public]string
	flows   map[[2]string]*meshtest.Flow
	report  *Report
	out     func(string)
	broken  map[string]bool
	surveys []survey
	pending int // expectations without a verdict
}

// Execute runs a script and returns what came of it. out, if not nil, hears the story line by line while it happens.
func Execute(ctx context.Context, s *Script, log *slog.Logger, out func(line string)) (*Report, error) {
	began := time.Now()
	x := &world{
		net: meshtest.New(s.Seed, log), nodes: map[string]*meshtest.Node{}, byKey: map[key.Public]string{},
		flows: map[[2]string]*meshtest.Flow{}, report: &Report{Seed: s.Seed}, out: out, broken: map[string]bool{},
	}
	x.start = x.net.Now()
	for _, f := range s.build {
		f(x)
	}
	for i := range s.steps {
		st := &s.steps[i]
		x.net.After(st.at, func() { st.do(x, st) })
	}
	var check func()
	check = func() { x.check(); x.net.After(checkEvery, check) }
	x.net.After(checkEvery, check)
	end := x.start + s.Run
	for x.net.Now() < end {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		x.net.Run(min(100*time.Millisecond, end-x.net.Now()))
	}
	x.net.RunUntil(time.Hour, func() bool { return x.pending == 0 }) // answers to what was asked last
	x.check()
	x.finish(time.Since(began))
	return x.report, nil
}

func (x *world) add(nd *meshtest.Node) {
	x.nodes[nd.Name] = nd
	x.byKey[nd.Key] = nd.Name
}

// now is the time of the script.
func (x *world) now() time.Duration { return x.net.Now() - x.start }

func (x *world) say(format string, args ...any) {
	e := Event{At: x.now().Seconds(), Text: fmt.Sprintf(format, args...)}
	x.report.Events = append(x.report.Events, e)
	if x.out != nil {
		x.out(e.String())
	}
}

func (x *world) kill(nd *meshtest.Node) {
	if nd.Core == nil {
		return
	}
	nd.Stop()
	x.say("%s is dead", nd.Name)
}

func (x *world) boot(nd *meshtest.Node, how string) {
	switch how {
	case "lost":
		nd.Lose()
	case "restored":
		nd.Restore()
	}
	nd.Start()
	nd.Redial()
	x.say("%s starts, store %s", nd.Name, how)
}

func (x *world) mark() {
	for _, f := range x.flows {
		f.Mark()
	}
}

func (x *world) partition(c chosen) {
	inside := map[*meshtest.Node]bool{}
	var names []string
	for _, nd := range c.of(x, func(*meshtest.Node) bool { return true }) {
		inside[nd] = true
		names = append(names, nd.Name)
	}
	cut := 0
	x.net.Wires(func(a, b *meshtest.Node, w *meshtest.Wire) {
		if inside[a] != inside[b] {
			w.Down = true
			cut++
		}
	})
	x.say("%d wires cut around %s", cut, strings.Join(names, " "))
}

// hops are the names of the nodes of the path that a uses to b.
func (x *world) hops(a, b string) (names []string) {
	c := x.nodes[a].Core
	if c == nil {
		return nil
	}
	for _, k := range c.PathTo(x.nodes[b].Key) {
		names = append(names, x.byKey[k])
	}
	return names
}

func (x *world) path(a, b string) string {
	hops := x.hops(a, b)
	if len(hops) == 0 {
		return "none"
	}
	return strings.Join(hops, " > ")
}

// check holds the mesh against its invariants. What is broken is told once.
func (x *world) check() {
	for _, b := range x.net.Check() {
		if !x.broken[b] && len(x.broken) < maxBroken {
			x.broken[b] = true
			x.report.Broken = append(x.report.Broken, b)
			x.say("BROKEN: %s", b)
		}
	}
}

// expectReach pings until there is an answer, or time is up.
func (x *world) expectReach(st *step, a, b string, within time.Duration, want bool) {
	began, done := x.net.Now(), false
	x.pending++
	end := func(ok bool, format string, args ...any) {
		if !done {
			done = true
			x.pending--
			x.verdict(st, ok == want, format, args...)
		}
	}
	var ask func()
	ask = func() {
		from := x.nodes[a]
		if done {
			return
		}
		if from.Core != nil && x.nodes[b].Core != nil {
			from.Ping(x.nodes[b].Key, func(rtt time.Duration, err error) {
				if err == nil {
					end(true, "an answer after %v, round trip %v, over %s", x.net.Now()-began, rtt, x.path(a, b))
				}
			})
		}
		x.net.After(100*time.Millisecond, ask)
	}
	ask()
	x.net.After(within, func() { end(false, "no answer within %v", within) })
}

func (x *world) verdict(st *step, ok bool, format string, args ...any) {
	v := Verdict{Line: st.line, At: st.at.Seconds(), Expect: strings.TrimPrefix(st.text, "expect "), OK: ok, Got: fmt.Sprintf(format, args...)}
	x.report.Expect = append(x.report.Expect, v)
	x.say("%s", v)
}

func (x *world) verdictOf(st *step, broken []string, good string) {
	if len(broken) == 0 {
		x.verdict(st, true, "%s", good)
		return
	}
	x.verdict(st, false, "%s (%d such)", broken[0], len(broken))
}

// A survey pings all pairs of a small mesh, some of a big one, and not all at once: relays refuse setups that come too fast.
const (
	surveyMost = 150
	surveyStep = 20 * time.Millisecond
	surveyLast = 3 * time.Second // for the last pair
)

// survey is which pairs answered, and how fast; 0: not.
type survey map[[2]string]time.Duration

// pairs returns the pairs that a survey pings; the same each time.
func (x *world) pairs() (all [][2]string) {
	nodes := x.net.Nodes()
	n := len(nodes)
	step := (n*(n-1)/2 + surveyMost - 1) / surveyMost
	i := 0
	for a := range nodes {
		for b := a + 1; b < n; b++ {
			if i++; i%step == 0 {
				all = append(all, [2]string{nodes[a].Name, nodes[b].Name})
			}
		}
	}
	return all
}

// survey pings pairs, three times each, and tells what it found.
func (x *world) survey(*step) {
	found := survey{}
	x.pending++
	all := x.pairs()
	for i, p := range all {
		a, b := x.nodes[p[0]], x.nodes[p[1]]
		if a.Core == nil || b.Core == nil {
			continue
		}
		found[p] = 0
		var ask func()
		left := 3
		ask = func() {
			if left--; left < 0 || a.Core == nil {
				return
			}
			a.Ping(b.Key, func(rtt time.Duration, err error) {
				if err == nil && (found[p] == 0 || rtt < found[p]) {
					found[p] = rtt
				}
			})
			x.net.After(time.Second, ask)
		}
		x.net.After(time.Duration(i)*surveyStep, ask)
	}
	x.net.After(time.Duration(len(all))*surveyStep+surveyLast, func() {
		x.pending--
		x.surveyed(found)
	})
}

func (x *world) surveyed(found survey) {
	var rtts []time.Duration
	for _, d := range found {
		if d > 0 {
			rtts = append(rtts, d)
		}
	}
	sort.Slice(rtts, func(i, j int) bool { return rtts[i] < rtts[j] })
	if len(rtts) == 0 {
		x.say("survey: none of %d pairs answers", len(found))
	} else {
		x.say("survey: %d of %d pairs answer, round trip median %v, longest %v", len(rtts), len(found), rtts[len(rtts)/2], rtts[len(rtts)-1])
	}
	if len(x.surveys) > 0 {
		x.compare(x.surveys[len(x.surveys)-1], found)
	}
	x.surveys = append(x.surveys, found)
}

// surveyLines bounds what a survey tells pair by pair.
const surveyLines = 20

func (x *world) compare(was, is survey) {
	var lost, slower, back []string
	for _, p := range x.pairs() {
		before, known := was[p]
		now, asked := is[p]
		switch {
		case !known || !asked:
		case before > 0 && now == 0:
			lost = append(lost, fmt.Sprintf("%s and %s are apart", p[0], p[1]))
		case before == 0 && now > 0:
			back = append(back, fmt.Sprintf("%s and %s reach each other, %v", p[0], p[1], now))
		case now > before+before/5+time.Millisecond:
			slower = append(slower, fmt.Sprintf("%s to %s takes %v, was %v", p[0], p[1], now, before))
		}
	}
	x.say("since the last survey: %d pairs lost, %d slower, %d gained", len(lost), len(slower), len(back))
	for _, line := range append(append(lost, back...), slower...)[:min(surveyLines, len(lost)+len(back)+len(slower))] {
		x.say("  %s", line)
	}
}
