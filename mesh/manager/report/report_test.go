package report

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/signal"
)

// fakeNode reaches a manager that the test plays.
type fakeNode struct {
	dial func() (io.ReadWriteCloser, error)

	mu       sync.Mutex
	own      []byte
	proposed []Proposal
	dials    []time.Time
}

func (n *fakeNode) OwnRecord() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.own
}
func (n *fakeNode) Digests() (uint64, []route.Digest) { return 1, []route.Digest{{}} }
func (n *fakeNode) Records([]key.Public) []Record     { return nil }
func (n *fakeNode) PutRecord(key.Public, Record)      {}
func (n *fakeNode) DialService(context.Context, key.Public, string) (io.ReadWriteCloser, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	n.mu.Unlock()
	return n.dial()
}

func (n *fakeNode) Propose(p Proposal) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proposed = append(n.proposed, p)
}

func newReporter(t *testing.T, n *fakeNode, managers ...key.Public) *Reporter {
	t.Helper()
	r, err := New(Config{Node: n, Network: key.Open(), Managers: managers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func identity(t *testing.T) key.Public {
	t.Helper()
	p, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return p.Public()
}

func TestBackoffGrowsAndIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNode{dial: func() (io.ReadWriteCloser, error) { return nil, errors.New("no route") }}
		r := newReporter(t, n, identity(t))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if err := r.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(n.dials) < 15 || len(n.dials) > 60 {
			t.Errorf("%d dials in 10 minutes", len(n.dials))
		}
		for i := range n.dials[1:] {
			if gap := n.dials[i+1].Sub(n.dials[i]); gap < backoffFirst/2 || gap > backoffMost*3/2 {
				t.Errorf("gap %d: %v", i, gap)
			}
		}
		if first := n.dials[1].Sub(n.dials[0]); first > 2*time.Second {
			t.Errorf("first retry after %v", first)
		}
		if s := r.Status()[0]; s.State != Unreachable || s.Reason != "dial: no route" {
			t.Errorf("status %+v", s)
		}
	})
}

func TestProposalsThatAreNoneOfOurs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		manager, wanted, other := identity(t), identity(t), identity(t)
		var conn *signal.Conn
		var playing sync.WaitGroup
		defer playing.Wait()
		puts := 0
		n := &fakeNode{dial: func() (io.ReadWriteCloser, error) {
			here, there := net.Pipe()
			conn = signal.NewConn(there, func(_ context.Context, r *signal.Request) (any, error) {
				switch r.Method {
				case MethodHello:
					return Welcome{Version: 1, Manager: manager}, nil
				case MethodGet:
					return News{Equal: true}, nil
				case MethodPut:
					puts++
					return nil, signal.Errorf(signal.ErrUsage, "don't want it")
				}
				return Proposal{Manager: manager, Number: 5, LifeS: 60, To: wanted}, nil
			})
			playing.Go(func() { _ = conn.Run(t.Context()) })
			return here, nil
		}}
		n.own = []byte("record 1")
		r := newReporter(t, n, manager)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = r.Run(ctx) })
		r.Want(wanted, 2)
		time.Sleep(time.Second)
		synctest.Wait()
		for _, p := range []Proposal{
			{Manager: manager, Number: 4, LifeS: 60, To: wanted},
			{Manager: manager, Number: 6, LifeS: 60, To: other},
			{Manager: other, Number: 7, LifeS: 60, To: wanted},
			{Manager: manager, Number: 8, LifeS: 0, To: wanted},
			{Manager: manager, Number: 9, LifeS: 60, To: wanted, Paths: make([]Path, 100)},
			{Manager: manager, Number: 10, LifeS: 60, To: wanted},
		} {
			if err := conn.Notify(NotifyPropose, p); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		synctest.Wait()
		n.mu.Lock()
		if len(n.proposed) != 2 || n.proposed[0].Number != 5 || n.proposed[1].Number != 10 {
			t.Errorf("proposed %+v", n.proposed)
		}
		n.own = []byte("record 2")
		n.mu.Unlock()
		r.OwnChanged()
		time.Sleep(time.Minute)
		synctest.Wait()
		if s, _ := r.Preferred(); puts != 2 || s.State != Registered || len(n.dials) != 1 {
			t.Errorf("%d records put, %d dials, %+v: a refused record must not end the tie", puts, len(n.dials), s)
		}
		cancel()
		running.Wait()
	})
}

func TestWantsAreBounded(t *testing.T) {
	t.Parallel()
	r := newReporter(t, &fakeNode{})
	for i := range maxWants {
		if !r.Want(key.Public{1, byte(i >> 8), byte(i)}, 2) {
			t.Fatalf("refused want %d", i)
		}
	}
	if r.Want(key.Public{2}, 2) || !r.Want(key.Public{1}, 3) || !r.Want(key.Public{1}, 0) || !r.Want(key.Public{2}, 2) {
		t.Error("one too many was taken, or a change was not")
	}
	if _, ok := r.Preferred(); ok {
		t.Error("prefers a manager that is not there")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	k := identity(t)
	log := slog.New(slog.DiscardHandler)
	for name, c := range map[string]Config{
		"no node": {Log: log}, "no log": {Node: &fakeNode{}}, "twice": {Node: &fakeNode{}, Log: log, Managers: []key.Public{k, k}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAgeOfARecord(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]time.Duration{1.5: 1500 * time.Millisecond, -3: 0, 1e300: 365 * 24 * time.Hour} {
		if got := (Record{AgeS: in}).Age(); got != want {
			t.Errorf("%g: %v, want %v", in, got, want)
		}
	}
}
