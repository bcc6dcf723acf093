package node_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/meshtest"
	"skywire/mesh/node"
	"skywire/mesh/route"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

func generate(t testing.TB) *key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// line returns a – r – b, c – r, all linked.
func line(t *testing.T) (n *meshtest.Net, a, r, b, c *meshtest.Node) {
	t.Helper()
	n = meshtest.New(1, nil)
	a, r, b, c = n.Add("a", meshtest.Options{}), n.Add("r", meshtest.Options{}), n.Add("b", meshtest.Options{}), n.Add("c", meshtest.Options{})
	for _, x := range []*meshtest.Node{a, b, c} {
		n.Connect(x, r, meshtest.Wire{Delay: 2 * time.Millisecond})
		x.Dial(r)
	}
	n.Run(3 * time.Second)
	return n, a, r, b, c
}

// setup is a true setup of source's over hops, as it reaches the node at index.
func setup(source *key.Private, number uint64, index uint8, hops ...key.Public) wire.Setup {
	return setupOn(source, number, uint16(number*2), index, hops...)
}

// setupOn is setup with a number of its own for the path.
func setupOn(source *key.Private, number uint64, path uint16, index uint8, hops ...key.Public) wire.Setup {
	core := wire.SetupCore{Flags: wire.SetupStream, Forward: 2, Backward: 2, Path: path, Number: number, Idle: 300, Hops: hops}
	_, noise, err := session.Initiate(session.Config{Identity: source, Network: key.Open(), Purpose: session.Session, Bind: bindOf(core)},
		hops[len(hops)-1], wire.Payload{Key: 1, Ports: 2, MTU: 1472, Boot: 5})
	if err != nil {
		panic(err)
	}
	s := wire.Setup{Core: core, Index: index, MTU: 1400, BackBase: 0x00100001, End: noise}
	s.Sign(source, key.Open())
	return s
}

func bindOf(c wire.SetupCore) []byte { b := c.Bind(); return b[:] }

// TestSetupChecks sends setups that are wrong in one way each (E11): none may leave a rule, and forged ones bar the
// neighbour who passed them on.
func TestSetupChecks(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	src := generate(t)
	good := func(number uint64) wire.Setup { return setup(src, number, 2, src.Public(), a.Key, r.Key, b.Key) }
	number := uint64(100)
	cases := []struct {
		name string
		from *meshtest.Node
		s    func() wire.Setup
	}{
		{"wrong index", a, func() wire.Setup { s := good(number); s.Index = 1; return s }},
		{"index past the end", a, func() wire.Setup { s := good(number); s.Index = 200; return s }},
		{"wrong neighbour", c, func() wire.Setup { return good(number) }},
		{"key twice", a, func() wire.Setup {
			return setup(src, number, 2, src.Public(), a.Key, r.Key, b.Key, a.Key, generate(t).Public())
		}},
		{"loop to the source", a, func() wire.Setup { return setup(src, number, 2, src.Public(), a.Key, r.Key, src.Public(), c.Key) }},
		{"next is no neighbour", a, func() wire.Setup { return setup(src, number, 2, src.Public(), a.Key, r.Key, generate(t).Public()) }},
		{"not me", a, func() wire.Setup { return setup(src, number, 2, src.Public(), a.Key, b.Key, c.Key) }},
	}
	for _, x := range cases {
		number++
		r.Core.Inject(n.Now(), x.from.Key, x.s())
		if got := r.Core.Sizes(); got["relays"] != 0 || got["sources"] != 0 {
			t.Errorf("%s: %d rules, %d sources", x.name, got["relays"], got["sources"])
		}
		n.Run(time.Second)
	}
	number++
	first := good(number)
	r.Core.Inject(n.Now(), a.Key, first)
	if got := r.Core.Sizes()["relays"]; got != 1 {
		t.Fatalf("a true setup leaves %d rules", got)
	}
	n.Run(7 * time.Second) // b refuses (it is no true end) or it expires
	if got := r.Core.Sizes()["relays"]; got > 1 {
		t.Errorf("%d rules", got)
	}
	before, _, _ := r.Core.Refused()
	for range 3 {
		r.Core.Inject(n.Now(), a.Key, setup(src, number, 2, src.Public(), a.Key, r.Key, c.Key)) // number used
	}
	if after, _, _ := r.Core.Refused(); after-before != 3 {
		t.Errorf("%d of 3 replays refused", after-before)
	}
	for range 5 {
		number++
		s := good(number)
		s.Signature[7] ^= 1
		r.Core.Inject(n.Now(), a.Key, s)
	}
	if _, _, bad := r.Core.Refused(); bad != 3 {
		t.Errorf("%d signatures of forged setups checked, want 3 and then none", bad)
	}
	number++
	rules := r.Core.Sizes()["relays"]
	r.Core.Inject(n.Now(), a.Key, good(number))
	if r.Core.Sizes()["relays"] != rules {
		t.Error("a barred neighbour's setup was taken")
	}
	r.Core.Inject(n.Now(), c.Key, setup(src, number, 2, src.Public(), c.Key, r.Key, b.Key))
	if r.Core.Sizes()["relays"] != rules+1 {
		t.Error("another neighbour suffers")
	}
	n.Run(61 * time.Second)
	number++
	rules = r.Core.Sizes()["relays"]
	r.Core.Inject(n.Now(), a.Key, good(number))
	if r.Core.Sizes()["relays"] != rules+1 {
		t.Error("barred for longer than a minute")
	}
}

// TestWithheldSetup has a relay deliver a true setup of a start that is over: its handshake proves nothing, so the session
// that stands goes on as if nothing had come.
func TestWithheldSetup(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		number uint16 // of the path
	}{
		{"of another boot", 500},
		{"of another boot, with a number used", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n, a, r, b, _ := line(t)
			done := false
			a.Ping(b.Key, func(_ time.Duration, err error) { done = err == nil })
			n.Run(time.Second)
			before := b.Core.PathIDs()
			if !done || len(before) == 0 {
				t.Fatal("no path")
			}
			path := tc.number * 2
			if bytes.Compare(a.Key[:], b.Key[:]) > 0 {
				path++
			}
			for i := range 3 {
				s := setupOn(a.Identity(), a.Core.Number()+10+uint64(i), path+uint16(i)*2, 2, a.Key, r.Key, b.Key)
				b.Core.Inject(n.Now(), r.Key, s)
			}
			if got := len(b.Core.PathIDs()); got <= len(before) {
				t.Fatalf("%d paths: the setups were not taken at all", got)
			}
			done = false
			a.Ping(b.Key, func(d time.Duration, err error) { done = err == nil && d < 20*time.Millisecond })
			n.Run(100 * time.Millisecond)
			if !done {
				t.Error("the session does not carry a ping any more")
			}
			n.Run(10 * time.Second)
			if got := b.Core.PathIDs(); !slices.Equal(got, before) {
				t.Errorf("paths %x, want those of before %x", got, before)
			}
		})
	}
}

// TestSetupFlood sends ten thousand setups in a second: few are looked at.
func TestSetupFlood(t *testing.T) {
	t.Parallel()
	n, a, r, b, _ := line(t)
	src := generate(t)
	s := setup(src, 1, 2, src.Public(), a.Key, r.Key, b.Key)
	_, before, _ := r.Core.Refused()
	began := time.Now()
	for i := range 10_000 {
		s.Core.Number = uint64(1000 + i)
		r.Core.Inject(n.Now(), a.Key, s)
		if i%10 == 0 {
			n.Run(time.Millisecond)
		}
	}
	_, after, bad := r.Core.Refused()
	if after-before < 9900 {
		t.Errorf("%d of 10,000 dropped unread", after-before)
	}
	if bad > 3 {
		t.Errorf("%d signatures checked", bad)
	}
	t.Logf("%v for 10,000 setups", time.Since(began))
}

// TestRuleQuota lets one neighbour set up as much as it can: a quarter of the rules, and no more by coming again.
func TestRuleQuota(t *testing.T) {
	t.Parallel()
	n, a, r, b, _ := line(t)
	src := generate(t)
	for i := range 1600 {
		r.Core.Inject(n.Now(), a.Key, setup(src, uint64(i+1), 2, src.Public(), a.Key, r.Key, b.Key))
		if got := r.Core.Sizes()["relays"]; got > node.MaxRelays/node.QuotaShare {
			t.Fatalf("%d rules of one neighbour", got)
		}
		n.Run(3 * time.Millisecond)
	}
}

// TestStrangers: REMOVE, EVENT, REFUSE and ACCEPT from a neighbour that is not on the path change nothing.
func TestStrangers(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	done := false
	a.Ping(b.Key, func(_ time.Duration, err error) { done = err == nil })
	n.Run(time.Second)
	ids := r.Core.RelayIDs()
	if !done || len(ids) == 0 {
		t.Fatal("no path")
	}
	given, used := r.Core.LabelsOf()
	for _, m := range []wire.Message{
		wire.Remove{ID: ids[0], Reason: wire.ReasonClosed},
		wire.Refuse{ID: ids[0], Reason: wire.ReasonEnd},
		wire.Accept{ID: ids[0], ForwardBase: 5, MTU: 100},
		wire.Event{Label: given, Kind: wire.EventLinkDown},
		wire.Event{Label: used, Kind: wire.EventTooBig, Value: 600},
		wire.Rules{Request: 1, Count: 9},
		wire.RulesList{Request: 1, Pages: 1},
		wire.Ack{Request: 77},
	} {
		r.Core.Inject(n.Now(), c.Key, m)
		n.Run(200 * time.Millisecond)
	}
	if got := r.Core.RelayIDs(); len(got) != len(ids) {
		t.Errorf("%d of %d rules left", len(got), len(ids))
	}
	done = false
	a.Ping(b.Key, func(_ time.Duration, err error) { done = err == nil })
	n.Run(time.Second)
	if !done {
		t.Error("the path does not work any more")
	}
}

// TestRefuseLoop has a first hop that refuses every setup with a hint: neither numbers nor work may run away.
func TestRefuseLoop(t *testing.T) {
	t.Parallel()
	n, a, r, b, _ := line(t)
	before := a.Core.Number()
	setups := map[wire.PathID]bool{}
	a.Core.Want(n.Now(), b.Key, nil)
	for range 5000 {
		for _, id := range a.Core.PathIDs() {
			setups[id] = true
			a.Core.Inject(n.Now(), r.Key, wire.Refuse{ID: id, Index: 1, Reason: wire.ReasonReplay, Hint: 1 << 63})
			a.Core.Inject(n.Now(), r.Key, wire.Refuse{ID: id, Index: 1, Reason: wire.ReasonReplay, Hint: a.Core.Number() + 1<<32 + 9})
		}
		n.Run(100 * time.Microsecond)
	}
	if len(setups) > 12 {
		t.Errorf("%d setups refused within half a second", len(setups))
	}
	if got := a.Core.Number() - before; got > 100 {
		t.Errorf("hints moved the number by %d", got)
	}
}

// TestRecordFlood sends true records of thousands of fresh keys through one neighbour.
func TestRecordFlood(t *testing.T) {
	t.Parallel()
	n, a, r, b, _ := line(t)
	for i := range 3000 {
		k := generate(t)
		r.Core.Inject(n.Now(), a.Key, wire.Record{Raw: route.Sign(&route.Record{Key: k.Public(), Boot: 1, Number: 1, Name: fmt.Sprint(i)}, k, key.Open())})
		n.Run(time.Millisecond)
	}
	for _, nd := range []*meshtest.Node{r, b} {
		if got := nd.Core.Sizes(); got["records"] > 1200 || got["addresses"] > got["records"]+8 || got["flood"] > 4*4096 {
			t.Errorf("%s: %v", nd, got)
		}
	}
	done := false
	a.Ping(b.Key, func(_ time.Duration, err error) { done = err == nil })
	n.Run(2 * time.Second)
	if !done {
		t.Error("after the flood no ping gets through")
	}
}

// TestRulesLies answers RULES in every wrong way: rules that others use stay, and what is gathered is bounded.
func TestRulesLies(t *testing.T) {
	t.Parallel()
	n, a, r, b, c := line(t)
	for _, x := range []*meshtest.Node{a, b} {
		x.Core.Want(n.Now(), c.Key, nil)
	}
	a.Core.Want(n.Now(), b.Key, nil)
	n.Run(time.Second)
	rules := len(r.Core.RelayIDs())
	if rules < 3 {
		t.Fatalf("%d rules", rules)
	}
	req := r.Core.RulesRequest(n.Now(), c.Key)
	for i := range uint16(400) {
		var junk []wire.Rule
		for range wire.MaxRules {
			var x wire.Rule
			_, _ = rand.Read(x.ID[:])
			junk = append(junk, x)
		}
		r.Core.Inject(n.Now(), c.Key, wire.RulesList{Request: req + 1, Page: 0, Pages: 1, Rules: junk})
		r.Core.Inject(n.Now(), c.Key, wire.RulesList{Request: req, Page: i, Pages: 65535, Rules: junk})
		r.Core.Inject(n.Now(), c.Key, wire.RulesList{Request: req, Page: i % 340, Pages: 341, Rules: junk})
	}
	if got := r.Core.Sizes()["listed"]; got > 341*wire.MaxRules {
		t.Errorf("%d rules gathered", got)
	}
	if got := len(r.Core.RelayIDs()); got != rules {
		t.Errorf("%d of %d rules left", got, rules)
	}
	// An empty list is c's right: it ends c's paths, and no one else's.
	req = r.Core.RulesRequest(n.Now(), c.Key)
	r.Core.Inject(n.Now(), c.Key, wire.RulesList{Request: req, Page: 0, Pages: 1})
	if got := len(r.Core.RelayIDs()); got == 0 {
		t.Error("the path of a and b is gone too")
	}
	n.Run(8 * time.Second)
	for _, to := range []*meshtest.Node{b, c} {
		done := false
		a.Ping(to.Key, func(_ time.Duration, err error) { done = err == nil })
		n.Run(3 * time.Second)
		if !done {
			t.Errorf("no way to %s any more", to)
		}
	}
}

// numbered makes an IPv6 packet between two nodes.
func numbered(from, to *meshtest.Node, i uint32) []byte {
	p := make([]byte, 100)
	p[0], p[6], p[7] = 6<<4, 253, 64
	binary.BigEndian.PutUint16(p[4:], 60)
	copy(p[8:], key.Open().Address(from.Key).AsSlice())
	copy(p[24:], key.Open().Address(to.Key).AsSlice())
	binary.BigEndian.PutUint32(p[40:], i)
	return p
}

// TestForgottenSession has one end forget a session that the other holds, and count path numbers from 0 again: the old
// keys must go before the old numbers come back, and data flow at once.
func TestForgottenSession(t *testing.T) {
	t.Parallel()
	n, a, _, b, _ := line(t)
	got := 0
	b.Stack = func(*meshtest.Node, []byte) { got++ }
	a.Stack = func(*meshtest.Node, []byte) { got++ }
	var i uint32
	run := func(d time.Duration) (came int) {
		was := got
		for end := n.Now() + d; n.Now() < end; n.Run(10 * time.Millisecond) {
			i++
			a.Send(numbered(a, b, i))
			b.Send(numbered(b, a, i))
		}
		return got - was
	}
	run(2 * time.Second)
	for round := range 20 {
		x, y := a, b
		if round%2 == 1 {
			x, y = b, a
		}
		x.Core.EndSession(n.Now(), y.Key)
		run(2 * time.Second)
		if came := run(time.Second); came < 195 {
			t.Fatalf("round %d: %d of 200 packets in a second, three seconds after a session was forgotten", round, came)
		}
	}
}

// TestWantMany asks for sessions with thousands of nodes that do not exist, thousands of times.
func TestWantMany(t *testing.T) {
	t.Parallel()
	n, a, _, _, _ := line(t)
	asked, told, busy := 0, 0, 0
	ask := func(k key.Public) {
		asked++
		a.Core.Want(n.Now(), k, func(err error) {
			told++
			if errors.Is(err, node.ErrBusy) {
				busy++
			}
			if err == nil {
				t.Error("a session with nobody")
			}
		})
	}
	for i := range 3000 {
		ask(key.Public{byte(i), byte(i >> 8), 9})
		ask(key.Public{7})
		if i%300 == 0 {
			n.Run(time.Second)
		}
	}
	if got := a.Core.Sizes(); got["sessions"] > node.MaxSessions || got["waiters"] > node.MaxSessions+node.MaxWaiters {
		t.Errorf("%v", got)
	}
	n.Run(30 * time.Second)
	if told != asked {
		t.Errorf("%d of %d were told", told, asked)
	}
	if busy == 0 {
		t.Error("no bound on those who wait")
	}
	n.Run(5 * time.Minute)
	if got := a.Core.Sizes(); got["sessions"] > 0 || got["addresses"] > 8 {
		t.Errorf("five minutes later: %v", got)
	}
}

// TestChurn runs an 8×8 grid for ten minutes with nodes that come and go, and wants all flows after a quiet time, no
// packet at a wrong node, and no table that grows.
func TestChurn(t *testing.T) {
	t.Parallel()
	minutes := 1
	if os.Getenv("MESHTEST_LONG") != "" {
		minutes = 10
	}
	n := meshtest.New(77, nil)
	var all [64]*meshtest.Node
	near := map[*meshtest.Node][]*meshtest.Node{}
	for i := range all {
		all[i] = n.Add(fmt.Sprint(i), meshtest.Options{Core: node.CoreConfig{StoreAfter: 5 * time.Second}, Skew: time.Duration(i) * time.Hour})
		for _, j := range []int{i - 1, i - 8} {
			if j < 0 || j == i-1 && i%8 == 0 {
				continue
			}
			n.Connect(all[i], all[j], meshtest.Wire{Delay: 3 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 0.002})
			all[i].Dial(all[j])
			near[all[i]] = append(near[all[i]], all[j])
			near[all[j]] = append(near[all[j]], all[i])
		}
	}
	n.Run(5 * time.Second)
	ends := [][2]int{{0, 63}, {7, 56}, {24, 31}, {3, 59}, {63, 0}}
	fixed := map[int]bool{}
	counts := make([]int, len(ends))
	for _, e := range ends {
		fixed[e[0]], fixed[e[1]] = true, true
	}
	for i, nd := range all {
		nd.Stack = func(at *meshtest.Node, p []byte) {
			for f, e := range ends {
				if p[44] == byte(f) && e[1] == i {
					counts[f]++
					return
				}
			}
			t.Errorf("a packet of flow %d came out at %s", p[44], at)
		}
	}
	var i uint32
	run := func(d time.Duration) {
		for end := n.Now() + d; n.Now() < end; n.Run(50 * time.Millisecond) {
			i++
			for f, e := range ends {
				p := numbered(all[e[0]], all[e[1]], i)
				p[44] = byte(f)
				all[e[0]].Send(p)
			}
		}
	}
	seed := uint32(1)
	next := func(k int) int { seed = seed*1664525 + 1013904223; return int(seed>>8) % k }
	for minute := range minutes {
		for range 6 {
			v := all[next(64)]
			for fixed[indexOf(all[:], v)] {
				v = all[next(64)]
			}
			if next(3) > 0 {
				v.Save() // else an older snapshot, maybe minutes old, or none (E10)
			}
			v.Stop()
			run(time.Duration(500+next(4000)) * time.Millisecond)
			v.Start()
			for _, o := range near[v] {
				v.Dial(o)
			}
			run(3 * time.Second)
		}
		run(10 * time.Second)
		was := append([]int(nil), counts...)
		run(5 * time.Second)
		for f := range ends {
			if got := counts[f] - was[f]; got < 85 {
				t.Errorf("minute %d: flow %d: %d of 100 packets in five quiet seconds", minute, f, got)
			}
		}
		for _, nd := range all {
			s := nd.Core.Sizes()
			for what, most := range map[string]int{
				"sessions": 8, "addresses": 66, "plane_paths": 40, "paths": 40, "relays": 120, "sources": 66, "links": 4,
				"flood": 300, "acks": 64, "listed": 0, "waiters": 0, "echoes": 0, "records": 64, "failed": 60, "keys": 32,
			} {
				if s[what] > most {
					t.Errorf("minute %d: %s holds %d %s, want at most %d", minute, nd, s[what], what, most)
				}
			}
		}
	}
}

func indexOf(all []*meshtest.Node, v *meshtest.Node) int {
	for i, nd := range all {
		if nd == v {
			return i
		}
	}
	return -1
}
