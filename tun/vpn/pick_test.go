package vpn

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// pickNode is a mesh with servers of the keys' numbers; those in down do not answer.
type pickNode struct {
	Node
	services []app.Service
	down     map[key.Public]bool
	unknown  map[string]bool
}

func pickKey(n byte) key.Public {
	for i := byte(0); ; i++ {
		if k, err := key.FromSeed([32]byte{n, i}); err == nil {
			return k.Public()
		}
	}
}

func (n *pickNode) Self() app.Info { return app.Info{Key: pickKey(99)} }

func (n *pickNode) Resolve(_ context.Context, word string) (key.Public, error) {
	if n.unknown[word] {
		return key.Public{}, signal.ErrNotFound
	}
	return pickKey(word[0] - '0'), nil
}

func (n *pickNode) Services(context.Context, string) ([]app.Service, error) { return n.services, nil }

func (n *pickNode) Ping(_ context.Context, k key.Public) (time.Duration, error) {
	if n.down[k] {
		return 0, signal.ErrUnreachable
	}
	return time.Millisecond, nil
}

func (n *pickNode) Dial(_ context.Context, k key.Public, _ string, _ []byte) (io.ReadCloser, []byte, error) {
	if n.down[k] {
		return nil, nil, signal.ErrUnreachable
	}
	reply, err := Answer{
		Version: Version, IPv4: netip.MustParseAddr("100.64.0.2"), Gateway: netip.MustParseAddr("100.64.0.1"), Exit: true,
	}.Append(nil)
	return io.NopCloser(strings.NewReader("")), reply, err
}

// TestBetter: the first server is returned to when it has answered for a while, not sooner, and not where that is not
// wished.
func TestBetter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		node := &pickNode{down: map[key.Public]bool{}}
		c := &client{a: &App{node: node}, c: &ClientConfig{Exit: true}, choice: choice{words: []string{"1", "2"}}}
		first, err := c.next(t.Context(), node)
		if err != nil {
			t.Fatal(err)
		}
		second := c.list[1]
		returned := func(used candidate, d time.Duration) bool {
			for end := time.Now().Add(d); time.Now().Before(end); {
				if l, ok := c.better(t.Context(), used); ok {
					if l.key != first.key {
						t.Errorf("moves to %v", l.candidate)
					}
					return true
				}
				<-time.After(hastyLook)
			}
			return false
		}
		node.down[first.key] = true
		c.proved(second)
		if returned(second, time.Minute) {
			t.Error("returned to a server that does not answer")
		}
		node.down[first.key] = false
		if returned(second, preferEvery) {
			t.Error("returned at its first answer")
		}
		if !returned(second, preferTimes*preferEvery) {
			t.Error("not returned to a server that is back")
		}
		if returned(first, time.Minute) {
			t.Error("moves away from the first")
		}
		c.c.Stay = true
		if returned(second, time.Minute) {
			t.Error("returned though it was told to stay")
		}
	})
}

func ranks(list []candidate) (out []int) {
	for _, c := range list {
		for i := byte(0); i < 100; i++ {
			if pickKey(i) == c.key {
				out = append(out, int(i))
			}
		}
	}
	return out
}

func TestNext(t *testing.T) {
	t.Parallel()
	node := &pickNode{
		services: []app.Service{
			{Key: pickKey(4), Online: true, RTT: 9},
			{Key: pickKey(5), Online: true, RTT: 2},
			{Key: pickKey(6), RTT: 1},
			{Key: pickKey(7), Online: true},
			{Key: pickKey(99), Online: true, RTT: 0.1},
		},
		unknown: map[string]bool{"8": true},
	}
	for _, c := range []struct {
		words []string
		want  []int
		err   error
	}{
		{[]string{"1"}, []int{1}, nil},
		{[]string{"2", "1", "2"}, []int{2, 1}, nil},
		{[]string{"8", "1"}, []int{1}, nil},
		{[]string{"8"}, nil, signal.ErrNotFound},
		{[]string{"auto"}, []int{5, 4, 7}, nil},
		{[]string{"4", "auto"}, []int{4, 5, 7}, nil},
	} {
		o := choice{words: c.words}
		first, err := o.next(t.Context(), node)
		if !errors.Is(err, c.err) || err == nil && (first != o.list[0] || !reflect.DeepEqual(ranks(o.list), c.want)) {
			t.Errorf("%v: %v %v, want %v %v", c.words, ranks(o.list), err, c.want, c.err)
		}
	}
	empty := choice{words: []string{"auto"}}
	if _, err := empty.next(t.Context(), &pickNode{}); !errors.Is(err, ErrNoServer) {
		t.Errorf("nobody offers a vpn: %v", err)
	}
}

// TestStandBack: who failed stands back for a while, longer each time, who refused the longest; the best that does not is
// next, and where all do, the one that has the least to wait.
func TestStandBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := choice{words: []string{"1", "2", "3"}}
		if _, err := o.next(t.Context(), &pickNode{}); err != nil {
			t.Fatal(err)
		}
		one, two, three := o.list[0], o.list[1], o.list[2]
		is := func(what string, want candidate) {
			t.Helper()
			if got := o.pick(time.Now()); got != want {
				t.Errorf("%s: rank %d, want %d", what, got.rank, want.rank)
			}
		}
		is("at first", one)
		o.failed(candidate{}, one, errLost)
		is("one failed", two)
		if !o.another() {
			t.Error("two waits")
		}
		o.failed(two, one, signal.ErrRefused)
		is("two refused", three)
		if o.allRefused() {
			t.Error("one and three have not refused")
		}
		o.failed(three, three, errLost)
		is("all stand back", one)
		if o.another() {
			t.Error("nobody waits")
		}
		<-time.After(avoidFirst)
		is("after the first wait", one)
		o.failed(candidate{}, one, errLost)
		<-time.After(avoidFirst)
		is("one stands back longer", three)
		o.proved(three)
		<-time.After(avoidFirst)
		is("one is back", one)
		o.failed(candidate{}, one, errForced)
		is("a forced reconnection is no failure", one)
		<-time.After(avoidMost)
		o.proved(one)
		o.failed(candidate{}, one, signal.ErrRefused)
		is("two is back", two)
		for _, c := range o.list {
			o.failed(candidate{}, c, ErrRefused)
		}
		if !o.allRefused() {
			t.Error("all have refused")
		}
	})
}

func TestBelow(t *testing.T) {
	t.Parallel()
	list := []string{"direct.example", "local"}
	for name, want := range map[string]bool{
		"direct.example": true, "www.Direct.example.": true, "indirect.example": false, "example": false, "a.b.local": true,
		"local.example": false, "": false,
	} {
		if got := below(name, list); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// TestWatch: what is sent and not answered makes a hasty watch ask at once; else it asks as seldom as a patient one.
func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWatch("no-such-device", true, time.Millisecond)
		asked := 0
		for range 20 {
			<-time.After(w.wait())
			if w.due() {
				asked++
				w.answered(time.Millisecond)
			}
		}
		if asked != 4 {
			t.Errorf("asked %d times in 20 s of silence", asked)
		}
		w.lost = 1
		if w.wait() != 0 || w.within() != hastyProbe {
			t.Errorf("in doubt: wait %v, within %v", w.wait(), w.within())
		}
		w.rtt = 400 * time.Millisecond
		if w.within() != 1600*time.Millisecond {
			t.Errorf("long way: within %v", w.within())
		}
		w.lost = silentAfter
		if w.wait() != probeAgain {
			t.Errorf("silent: wait %v", w.wait())
		}
		slow := newWatch("no-such-device", false, time.Second)
		if slow.wait() != probeEvery || slow.within() != probeWithin || !slow.due() {
			t.Errorf("patient: %v %v", slow.wait(), slow.within())
		}
	})
}
