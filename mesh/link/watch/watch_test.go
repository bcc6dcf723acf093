package watch

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a box whose state the test sets.
type fake struct {
	mu     sync.Mutex
	state  State
	looks  int
	asleep time.Duration
	wake   chan<- struct{}
	mute   error // why it can't tell of changes
	events []Event
	w      *Watcher
}

func newFake(t *testing.T, mute error) *fake {
	t.Helper()
	f := &fake{mute: mute}
	start := time.Now()
	w, err := New(Config{
		Now: func() time.Duration {
			f.mu.Lock()
			defer f.mu.Unlock()
			return time.Since(start) + f.asleep
		},
		Changed: func(e Event) { f.events = append(f.events, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	w.look = func() (State, error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.looks++
		return f.state, nil
	}
	w.awake = func(ctx context.Context, wake chan<- struct{}) error {
		if f.mute != nil {
			return f.mute
		}
		f.wake = wake
		<-ctx.Done()
		return ctx.Err()
	}
	f.w = w
	return f
}

func (f *fake) set(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = State{Interfaces: []Interface{{Index: 2, Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}}}
}

func (f *fake) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *fake) run(t *testing.T, story func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.w.Run(ctx) }()
	synctest.Wait()
	story()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// sleep passes virtual time.
func sleep(d time.Duration) { time.Sleep(d); synctest.Wait() }

func TestChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		f.set("10.0.0.1/24")
		f.run(t, func() {
			if len(f.events) != 1 || !f.events[0].First {
				t.Fatalf("%+v", f.events)
			}
			sleep(time.Minute)
			f.poke()
			sleep(time.Second)
			if len(f.events) != 1 {
				t.Errorf("told of a change that was none: %+v", f.events)
			}
			f.set("10.0.1.1/24")
			f.poke()
			sleep(settle)
			if len(f.events) != 2 || !f.events[1].State.Has(netip.MustParseAddr("10.0.1.1")) {
				t.Errorf("not told at once: %+v", f.events)
			}
			looks := f.looks
			for range 1000 { // a storm
				f.poke()
				sleep(time.Millisecond)
			}
			if n := f.looks - looks; n > 11 {
				t.Errorf("%d looks in a second", n)
			}
		})
	})
}

// TestLast: what changes in the pause after a look is not missed.
func TestLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		f.set("10.0.0.1/24")
		f.run(t, func() {
			sleep(time.Minute)
			f.set("10.0.1.1/24")
			f.poke()
			sleep(settle + time.Millisecond)
			f.set("10.0.2.1/24")
			f.poke()
			sleep(gapLook)
			if n := len(f.events); n != 3 || !f.events[2].State.Has(netip.MustParseAddr("10.0.2.1")) {
				t.Errorf("%+v", f.events)
			}
		})
	})
}

func TestPolled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, errors.ErrUnsupported)
		f.set("10.0.0.1/24")
		f.run(t, func() {
			sleep(time.Minute)
			f.set("10.0.1.1/24")
			sleep(pollEvery)
			if len(f.events) != 2 {
				t.Errorf("%+v", f.events)
			}
		})
	})
}

func TestSlept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		f.run(t, func() {
			sleep(10 * time.Second)
			f.mu.Lock()
			f.asleep += time.Hour
			f.mu.Unlock()
			sleep(2 * wakeLook)
			if len(f.events) != 2 || f.events[1].Slept != time.Hour {
				t.Errorf("%+v", f.events)
			}
			sleep(time.Minute)
			if len(f.events) != 2 {
				t.Errorf("%+v", f.events)
			}
		})
	})
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	home := State{
		Interfaces: []Interface{{Index: 2, Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.1.7/24"), netip.MustParsePrefix("fe80::7/64")}}},
		Gateways:   []Gateway{{Interface: 2, Addr: netip.MustParseAddr("fe80::1%eth0")}, {Interface: 2, Addr: netip.MustParseAddr("192.168.1.1")}},
	}
	if got, want := home.Network(), "192.168.1.0/24 via 192.168.1.1 via fe80::1"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if (State{}).Network() != "" {
		t.Error("no network has a name")
	}
}

// TestHere looks at the real system: it must work for an ordinary user, and end when it is told to.
func TestHere(t *testing.T) {
	t.Parallel()
	got := make(chan Event, 1)
	w, err := New(Config{Changed: func(e Event) {
		select {
		case got <- e:
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	e := <-got
	cancel()
	if err := <-done; err != nil || !e.First {
		t.Error(err, e)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a watcher that tells nobody")
	}
}
