package proxy

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

func TestChoice(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	far, near, silent := m.node(t, true, 80*time.Millisecond), m.node(t, true, 20*time.Millisecond), m.node(t, true, 0)
	silent.set(0, errors.New("no answer"))
	e := newExits(m.node(t, false, 0), nil, nil, slog.New(slog.DiscardHandler))
	check := func(why string, want ...*meshNode) {
		t.Helper()
		got, err := e.pick(t.Context())
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d exits, %v", why, len(got), err)
		}
		for i := range want {
			if got[i].key != want[i].key {
				t.Errorf("%s: exit %d is the wrong one", why, i)
			}
		}
	}
	measure := func() {
		t.Helper()
		if err := e.refresh(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	check("the nearest first, the silent last", near, far, silent)
	far.set(15*time.Millisecond, nil)
	measure()
	check("a little better is not worth a change", near, far, silent)
	far.set(5*time.Millisecond, nil)
	measure()
	check("much better is", far, near, silent)
	far.set(0, errors.New("no answer"))
	measure()
	check("the silent loses its place", near, far, silent)
	e.failed(near.key, errors.New("broken"))
	check("what failed comes last", far, silent, near)
	e.worked(near.key)
	check("until it works", near, far, silent)
}

// TestFailover checks that a connection does not fail while any exit works, and that the one that worked stays in use.
func TestFailover(t *testing.T) {
	t.Parallel()
	a := target(t, echo)
	m := newMesh(t)
	near, far := m.node(t, true, time.Millisecond), m.node(t, true, 90*time.Millisecond)
	stranger := m.node(t, true, 30*time.Millisecond)
	x := ExitConfig{AllowAny: true, AllowPrivate: true}
	runExit(t, near, x)
	runExit(t, far, x)
	runExit(t, stranger, ExitConfig{AllowPrivate: true})
	p, proxy := runClient(t, m.node(t, false, 0), ClientConfig{Log: testLog(t)})
	eventually(t, "the first measuring", func() bool { return len(p.exits.order()) == 3 })
	askAddr(t, proxy, a)
	if near.dialled() != 1 || far.dialled() != 0 {
		t.Fatalf("dialled near %d, far %d", near.dialled(), far.dialled())
	}
	near.set(0, errors.New("no path"))
	askAddr(t, proxy, a)
	if stranger.dialled() != 1 || far.dialled() != 1 {
		t.Fatalf("dialled stranger %d, far %d", stranger.dialled(), far.dialled())
	}
	tries := near.dialled()
	askAddr(t, proxy, a)
	if near.dialled() != tries || far.dialled() != 2 {
		t.Errorf("a connection after a failover tried the dead exit again")
	}
	// A target that refuses is no fault of the exit's: no other is asked.
	if _, code := ask(t, proxy, "127.0.0.1", 1, ""); socks.Code(code) != socks.Refused {
		t.Errorf("reply %v", socks.Code(code))
	}
	if near.dialled() != tries || stranger.dialled() != 1 {
		t.Error("another exit was asked for a target that refuses")
	}
}

func TestNoExit(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	e := newExits(m.node(t, false, 0), nil, nil, slog.New(slog.DiscardHandler))
	e.wait = time.Millisecond
	if _, err := e.pick(t.Context()); !errors.Is(err, ErrNoExit) {
		t.Errorf("nobody offers: %v", err)
	}
	k := newKey(t)
	err := &noExitError{faults: map[key.Public]error{k: errors.New("no path")}, order: []candidate{{key: k}}}
	if code, text := denial(err); code != socks.NetworkUnreachable || !strings.Contains(text, k.Short()+": no path") {
		t.Errorf("denial: %v, %q", code, text)
	}
	e = newExits(m.node(t, false, 0), []string{"no-such-petname"}, nil, slog.New(slog.DiscardHandler))
	e.wait = 0
	if _, err := e.pick(t.Context()); err == nil || !strings.Contains(err.Error(), "no-such-petname") {
		t.Errorf("unknown server: %v", err)
	}
}

// TestLateExit checks that an exit which appears after the start is found soon, and that a connection waits for it.
func TestLateExit(t *testing.T) {
	t.Parallel()
	a := target(t, echo)
	m := newMesh(t)
	p, proxy := runClient(t, m.node(t, false, 0), ClientConfig{})
	eventually(t, "the first question", func() bool {
		p.exits.mu.Lock()
		defer p.exits.mu.Unlock()
		return !p.exits.asked.IsZero()
	})
	n := m.node(t, true, time.Millisecond)
	runExit(t, n, ExitConfig{AllowAny: true, AllowPrivate: true})
	began := time.Now()
	askAddr(t, proxy, a)
	if d := time.Since(began); d > 3*emptyFresh {
		t.Errorf("found after %s", d)
	}
}

// TestChoiceByLoad checks that a busy exit counts as a farther one, and that a full one is taken last.
func TestChoiceByLoad(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	near, far := m.node(t, true, 20*time.Millisecond), m.node(t, true, 45*time.Millisecond)
	busy := func(n *meshNode, percent int) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.load = &Load{Percent: percent}
	}
	first := func(why string, want *meshNode) {
		t.Helper()
		e := newExits(m.node(t, false, 0), nil, nil, slog.New(slog.DiscardHandler))
		got, err := e.pick(t.Context())
		if err != nil || len(got) != 2 || got[0].key != want.key {
			t.Errorf("%s: the wrong exit of %d, %v", why, len(got), err)
		}
	}
	first("no loads known", near)
	busy(near, 10)
	busy(far, 0)
	first("a little busy", near)
	busy(near, 80)
	first("busy: 20 ms feel like 52", far)
	busy(far, 95)
	first("the other one is full", near)
	busy(near, 100)
	first("both are full", near)
}

// TestServersInOrder tries the named exits in their order, whatever is measured, and goes back to the first.
func TestServersInOrder(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b, other := m.node(t, true, 90*time.Millisecond), m.node(t, true, 50*time.Millisecond), m.node(t, true, time.Millisecond)
	check := func(e *exits, why string, want ...*meshNode) {
		t.Helper()
		got, err := e.pick(t.Context())
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d exits, %v", why, len(got), err)
		}
		for i := range want {
			if got[i].key != want[i].key {
				t.Errorf("%s: exit %d is the wrong one", why, i)
			}
		}
	}
	e := newExits(m.node(t, false, 0), []string{a.key.String(), "nobody", b.key.String()}, nil, slog.New(slog.DiscardHandler))
	check(e, "named", a, b)
	e.failed(a.key, errors.New("broken"))
	check(e, "the first has failed", b, a)
	e.worked(b.key)
	e.worked(a.key)
	check(e, "the first is back", a, b)
	e = newExits(m.node(t, false, 0), []string{a.key.String(), auto}, nil, slog.New(slog.DiscardHandler))
	check(e, "named, then the best", a, other, b)
	e.failed(a.key, errors.New("broken"))
	check(e, "the named one has failed", other, b, a)
}
