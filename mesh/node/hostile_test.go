package node_test

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/meshtest"
	"skywire/mesh/node"
	"skywire/mesh/route"
	"skywire/mesh/wire"
)

// answers wants a ping from one node to another to be answered.
func answers(t *testing.T, n *meshtest.Net, a, b *meshtest.Node) {
	t.Helper()
	done := false
	a.Ping(b.Key, func(_ time.Duration, err error) { done = err == nil })
	if !n.RunUntil(3*time.Second, func() bool { return done }) {
		t.Errorf("no ping from %s to %s is answered", a, b)
	}
}

// TestRecordLies has a neighbour send records that are wrong in one way each: what is held stays, it is counted, and
// others do not notice.
func TestRecordLies(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	held := func() *route.Entry { return r.Record(a) }
	truth := held()
	number := truth.Number
	sign := func(number uint64, change func(*route.Record)) []byte {
		x := *truth.Record
		x.Number = number
		change(&x)
		return route.Sign(&x, a.Identity(), key.Open())
	}
	same := func(*route.Record) {}
	forged := sign(number+1, same)
	forged[len(forged)-1] ^= 1
	stolen := sign(number+1, same)
	copy(stolen[1:], b.Key[:]) // a's words under b's name
	other := route.Sign(&route.Record{Number: number + 1}, a.Identity(), key.Cluster(c.Key))
	for _, x := range []struct {
		name  string
		raw   []byte
		count func(route.Stats) uint64
	}{
		{"forged", forged, func(s route.Stats) uint64 { return s.Bad }},
		{"of another network", other, func(s route.Stats) uint64 { return s.Bad }},
		{"under another name", stolen, func(s route.Stats) uint64 { return s.Bad }},
		{"replayed", sign(number-1, same), func(s route.Stats) uint64 { return s.Stale }},
		{"contradictory", sign(number, func(x *route.Record) { x.Name = "liar" }), func(s route.Stats) uint64 { return s.Conflicts }},
	} {
		before := x.count(r.Core.DB().Stats())
		r.Core.Inject(n.Now(), c.Key, wire.Record{Raw: x.raw})
		n.Run(300 * time.Millisecond)
		if got := x.count(r.Core.DB().Stats()) - before; got < 1 {
			t.Errorf("%s: not counted: %+v", x.name, r.Core.DB().Stats())
		}
		if got := held(); got == nil || !bytes.Equal(got.Raw, truth.Raw) {
			t.Fatalf("%s: it was taken", x.name)
		}
	}
	r.Core.Inject(n.Now(), c.Key, wire.Record{Raw: make([]byte, 8000)})
	r.Core.Inject(n.Now(), c.Key, wire.Record{})
	n.Run(time.Second)
	if got := held(); !bytes.Equal(got.Raw, truth.Raw) {
		t.Error("oversized: it was taken")
	}
	answers(t, n, a, b)
}

// TestOwnRecordAhead brings a node its own record with a number far ahead of its own (a store that was lost): it counts on
// from there, once, and everyone takes it.
func TestOwnRecordAhead(t *testing.T) {
	t.Parallel()
	n, a, r, b, _ := line(t)
	ahead := r.Record(a).Number + 5000
	raw := route.Sign(&route.Record{Boot: 77, Number: ahead, Name: "old"}, a.Identity(), key.Open())
	r.Core.Inject(n.Now(), b.Key, wire.Record{Raw: raw})
	n.Run(3 * time.Second)
	for _, nd := range []*meshtest.Node{a, r, b} {
		if e := nd.Record(a); e.Number <= ahead || e.Name != "a" {
			t.Errorf("%s holds number %d of %q", nd, e.Number, e.Name)
		}
	}
	after := a.Core.DB().Number()
	n.Run(time.Minute)
	if got := a.Core.DB().Number() - after; got > 2 {
		t.Errorf("%d more records within a minute", got)
	}
	answers(t, n, a, b)
}

// TestManagerLies has a manager propose ways that are none: they stay candidates that no measure supports.
func TestManagerLies(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	nobody := generate(t).Public()
	answers(t, n, a, b)
	long := []key.Public{a.Key}
	for range wire.MaxHops {
		long = append(long, generate(t).Public())
	}
	a.Core.Propose(n.Now(), b.Key, [][]key.Public{
		{a.Key, nobody, b.Key},                // no member, no node
		{a.Key, c.Key, b.Key},                 // links that are not there
		{a.Key, r.Key, c.Key, r.Key, b.Key},   // a circle
		{a.Key, r.Key, a.Key, r.Key, b.Key},   // over ourselves
		{c.Key, r.Key, b.Key},                 // not from us
		{a.Key, r.Key, c.Key},                 // not to it
		{a.Key, b.Key},                        // a link that is not there
		{a.Key}, {}, nil, append(long, b.Key), // no ways at all
	}, 100*time.Hour)
	a.Core.Propose(n.Now(), nobody, [][]key.Public{{a.Key, r.Key, nobody}}, time.Hour)
	for range 3 {
		n.Run(2 * time.Second)
		answers(t, n, a, b)
		hops := a.Core.PathTo(b.Key)
		if len(hops) != 3 || hops[1] != r.Key {
			t.Fatalf("the way is %v", hops)
		}
	}
	for range 3000 {
		a.Core.Propose(n.Now(), generate(t).Public(), nil, time.Hour)
		if got := a.Core.Sizes()["proposals"]; got > node.MaxSessions {
			t.Fatalf("%d proposals are held", got)
		}
	}
	if broken := n.Check(); len(broken) > 0 {
		t.Error(broken)
	}
}

// junk is a message of any type with any body.
type junk struct {
	kind uint8
	body []byte
}

func (j junk) Type() uint8              { return j.kind }
func (j junk) Append(dst []byte) []byte { return append(dst, j.body...) }

// TestJunkMessages has a neighbour send thousands of messages of every type with bodies of chance: tables stay small, and
// others' paths stand.
func TestJunkMessages(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	answers(t, n, a, b)
	ids := r.Core.RelayIDs()
	dice := rand.New(rand.NewPCG(5, 5))
	for i := range 20_000 {
		body := make([]byte, dice.IntN(200))
		for j := range body {
			body[j] = byte(dice.Uint32())
		}
		if len(body) > 50 && i%3 == 0 { // begin as something of ours does
			copy(body, ids[0][:])
		}
		r.Core.Inject(n.Now(), c.Key, junk{uint8(i), body})
		if i%100 == 0 {
			n.Run(10 * time.Millisecond)
		}
	}
	n.Run(2 * time.Second)
	answers(t, n, a, b)
	for what, most := range map[string]int{"relays": 8, "sessions": 8, "sources": 64, "records": 8, "flood": 64, "acks": 64, "addresses": 16} {
		if got := r.Core.Sizes()[what]; got > most {
			t.Errorf("%d %s, want at most %d", got, what, most)
		}
	}
	for _, id := range ids {
		found := false
		for _, o := range r.Core.RelayIDs() {
			found = found || o == id
		}
		if !found {
			t.Errorf("the path %x of others is gone", id[:4])
		}
	}
	if broken := n.Check(); len(broken) > 0 {
		t.Error(broken)
	}
}

// TestBadRelays has the better of two relays harm what passes it: the flow goes by the other one.
func TestBadRelays(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name string
		harm func(bad, to *meshtest.Node, w *meshtest.Wire, b []byte)
	}{
		{"corrupts", func(_, _ *meshtest.Node, _ *meshtest.Wire, b []byte) { b[len(b)-20] ^= 4 }},
		{"cuts short", func(_, _ *meshtest.Node, _ *meshtest.Wire, b []byte) { clear(b[24:]) }},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			n := meshtest.New(81, nil)
			a, b := n.Add("a", meshtest.Options{}), n.Add("b", meshtest.Options{})
			bad, good := n.Add("bad", meshtest.Options{}), n.Add("good", meshtest.Options{})
			for _, e := range []*meshtest.Node{a, b} {
				n.Join(e, bad, meshtest.Wire{Delay: 3 * time.Millisecond})
				n.Join(e, good, meshtest.Wire{Delay: 6 * time.Millisecond})
			}
			n.Run(3 * time.Second)
			f := n.Flow(a, b, 5*time.Millisecond, 300)
			n.Run(5 * time.Second)
			n.Tap = func(from, to *meshtest.Node, d []byte) {
				if from == bad && d[0] == wire.TypeSealed && len(d) > 200 {
					x.harm(from, to, n.Wire(from, to), d)
				}
			}
			n.Run(10 * time.Second) // to find out
			f.Mark()
			n.Run(20 * time.Second)
			lost, sent := f.Lost()
			t.Logf("%d of %d lost, longest silence %v", lost, sent, f.Silence())
			if lost > sent/20 || f.Silence() > time.Second {
				t.Errorf("%d of %d packets lost, a silence of %v: the relay is not found out", lost, sent, f.Silence())
			}
		})
	}
}
