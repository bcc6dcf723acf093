package meshtest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
)

// kite is a – r1, r2 – b, and a – r3 – r4 – b; delays of r1 are the best, those over r3 and r4 the worst.
type kite struct {
	*Net
	a, b, r1, r2, r3, r4 *Node
}

func newKite(seed uint64, rules func(d *kite) route.Constraints) *kite {
	d := &kite{Net: New(seed, testLog())}
	d.b, d.r1, d.r2 = d.Add("b", Options{}), d.Add("r1", Options{}), d.Add("r2", Options{})
	d.r3, d.r4 = d.Add("r3", Options{}), d.Add("r4", Options{})
	var o Options
	if rules != nil {
		o.Core.Paths = rules(d)
	}
	d.a = d.Add("a", o)
	for _, w := range []struct {
		x, y  *Node
		delay time.Duration
	}{
		{d.a, d.r1, 5 * time.Millisecond},
		{d.r1, d.b, 5 * time.Millisecond},
		{d.a, d.r2, 10 * time.Millisecond},
		{d.r2, d.b, 10 * time.Millisecond},
		{d.a, d.r3, 10 * time.Millisecond},
		{d.r3, d.r4, 10 * time.Millisecond},
		{d.r4, d.b, 10 * time.Millisecond},
	} {
		d.Connect(w.x, w.y, Wire{Delay: w.delay})
		w.x.Dial(w.y)
	}
	d.Run(3 * time.Second)
	return d
}

func (d *kite) why() api.Why { return d.a.Core.Why(d.Now(), d.b.Key) }

// over names the relays of the path in use.
func over(w api.Why) string {
	if w.InUse == nil {
		return "nothing"
	}
	return strings.Join(w.InUse.Names[1:len(w.InUse.Names)-1], " ")
}

// TestPathsKeepToRules: what a node sends goes over relays that its rules permit, also where the other side set the path up.
func TestPathsKeepToRules(t *testing.T) {
	t.Parallel()
	keys := func(nodes ...*Node) (all []key.Public) {
		for _, nd := range nodes {
			all = append(all, nd.Key)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		rules func(d *kite) route.Constraints
		want  string
	}{
		{"none", nil, "r1"},
		{"avoid", func(d *kite) route.Constraints { return route.Constraints{Avoid: keys(d.r1)} }, "r2"},
		{"trusted", func(d *kite) route.Constraints { return route.Constraints{Only: keys(d.r3, d.r4)} }, "r3 r4"},
		{"prefer", func(d *kite) route.Constraints { return route.Constraints{Prefer: keys(d.r2)} }, "r1"}, // twice 22 is more than 42
		{"prefer two", func(d *kite) route.Constraints { return route.Constraints{Prefer: keys(d.r2), Avoid: keys(d.r1)} }, "r2"},
		{"max hops", func(*kite) route.Constraints { return route.Constraints{MaxHops: 1} }, "nothing"},
	} {
		for _, first := range []string{"a", "b"} {
			t.Run(c.name+", first "+first, func(t *testing.T) {
				t.Parallel()
				d := newKite(21, c.rules)
				relayed := map[*Node]int{}
				from, to := d.a, d.b
				if first == "b" {
					from, to = d.b, d.a
				}
				d.Flow(from, to, 20*time.Millisecond, 100)
				d.Run(2 * time.Second)
				d.Flow(to, from, 20*time.Millisecond, 100)
				d.Run(10 * time.Second)
				d.Tap = func(x, y *Node, b []byte) {
					if x == d.a && b[0] == 0x18 {
						relayed[y]++
					}
				}
				d.Run(5 * time.Second)
				w := d.why()
				for _, f := range d.flows {
					if f.From == d.a && (f.Arrived == 0) != (c.want == "nothing") {
						t.Errorf("%d of %d packets of ours arrived", f.Arrived, f.Sent)
					}
				}
				if got := over(w); got != c.want {
					t.Errorf("over %s, want %s; %+v", got, c.want, w)
				}
				for r, k := range relayed {
					if !strings.HasPrefix(c.want, r.Name) && k > 125 { // its reports of what the other side sends there are 20 a second
						t.Errorf("%d frames went to %s", k, r)
					}
				}
			})
		}
	}
}

// TestWhyExplains: each candidate has its reason.
func TestWhyExplains(t *testing.T) {
	t.Parallel()
	d := newKite(22, func(d *kite) route.Constraints { return route.Constraints{Avoid: []key.Public{d.r4.Key}} })
	d.Flow(d.a, d.b, 20*time.Millisecond, 100)
	d.Run(5 * time.Second)
	reason := func(w api.Why, first *Node) (state, why string) {
		for _, p := range w.Paths {
			if p.Hops[1] == first.Key {
				return p.State, p.Reason
			}
		}
		return "", "absent"
	}
	check := func(what string, first *Node, state, word string) {
		t.Helper()
		if s, why := reason(d.why(), first); s != state || !strings.Contains(why, word) {
			t.Errorf("%s: over %s it is %q: %q, want %q with %q", what, first.Name, s, why, state, word)
		}
	}
	w := d.why()
	if over(w) != "r1" || !strings.Contains(w.Summary, "over one relay since") || !strings.Contains(w.Direct, "no link") {
		t.Errorf("summary %q, direct %q", w.Summary, w.Direct)
	}
	check("at first", d.r1, "used", "")
	check("at first", d.r2, "standby", "costs 20.0 more")
	check("at first", d.r3, "refused", "to be avoided: r4")
	d.Wire(d.r1, d.b).Down = true
	d.Run(time.Second)
	if got := over(d.why()); got != "r2" {
		t.Errorf("after the cut over %s", got)
	}
	if s, why := reason(d.why(), d.r1); s == "used" || !strings.Contains(why, " ago") {
		t.Errorf("the cut path is %q: %q", s, why)
	}
	kinds := map[string]int{}
	for _, e := range d.a.Core.EventsAfter(d.Now(), api.EventsParams{Limit: api.MaxEvents}).Events {
		kinds[e.Kind]++
	}
	for _, k := range []string{node.EventLinkUp, node.EventPathReady, node.EventPathUsed, node.EventPathSuspect} {
		if kinds[k] == 0 {
			t.Errorf("no event %q among %v", k, kinds)
		}
	}
}

// TestWhyUnreachable says what is known of nodes that can't be reached.
func TestWhyUnreachable(t *testing.T) {
	t.Parallel()
	n := New(23, testLog())
	a, b, c := n.Add("a", Options{}), n.Add("b", Options{}), n.Add("c", Options{})
	n.Run(2 * time.Second)
	if w := a.Core.Why(n.Now(), b.Key); !strings.Contains(w.Summary, "no link at all") || !strings.Contains(w.Direct, "nothing is known") {
		t.Errorf("alone: %q, %q", w.Summary, w.Direct)
	}
	n.Connect(a, b, Wire{})
	a.Dial(b)
	n.Run(3 * time.Second)
	if w := a.Core.Why(n.Now(), b.Key); !strings.Contains(w.Direct, "there is a link, up for") {
		t.Errorf("linked: %q", w.Direct)
	}
	if w := a.Core.Why(n.Now(), c.Key); !strings.Contains(w.Summary, "not been heard of") {
		t.Errorf("unheard of: %q", w.Summary)
	}
	if w := a.Core.Why(n.Now(), a.Key); w.Summary != "this is the node itself" {
		t.Errorf("itself: %q", w.Summary)
	}
	w := n.Wire(a, b)
	w.Down = true
	n.Run(time.Minute)
	if w := a.Core.Why(n.Now(), b.Key); !strings.Contains(w.Direct, "there was a link") || !strings.Contains(w.Direct, "pings unanswered") {
		t.Errorf("cut: %q", w.Direct)
	}
}

// TestSwingingLinkMovesLittle: over a link whose delay swings for ten minutes, traffic moves a bounded number of times, and none of it
// is lost by that.
func TestSwingingLinkMovesLittle(t *testing.T) {
	t.Parallel()
	d := newKite(24, nil)
	f := d.Flow(d.a, d.b, 50*time.Millisecond, 100)
	d.Run(5 * time.Second)
	f.Mark()
	for i := range 30 {
		d.Wire(d.a, d.r1).Delay = []time.Duration{60 * time.Millisecond, 5 * time.Millisecond}[i%2]
		d.Run(20 * time.Second)
	}
	var moves []string
	for _, e := range d.a.Core.EventsAfter(d.Now(), api.EventsParams{Limit: api.MaxEvents}).Events {
		if e.Kind == node.EventPathUsed && slices.Contains(e.Hops, d.b.Key) {
			moves = append(moves, e.Cause)
		}
	}
	t.Logf("%d moves in ten minutes: %q", len(moves)-1, moves)
	if len(moves) < 2 || len(moves) > 12 {
		t.Errorf("%d moves in ten minutes, want 2 to 12", len(moves)-1)
	}
	if lost, sent := f.Lost(); lost > 4 { // those under way
		t.Errorf("%d of %d lost", lost, sent)
	}
	d.Run(5 * time.Minute)
	if w := d.why(); over(w) != "r1" {
		t.Errorf("five minutes after the swings ended over %s: %+v", over(w), w.Paths)
	}
}
