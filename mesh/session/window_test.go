package session

import (
	"math/rand/v2"
	"testing"
)

// model is the slow truth: a set and a highest.
type model struct {
	seen    map[uint64]bool
	highest uint64
	size    uint64
}

func (m *model) check(c uint64) bool {
	return !m.seen[c] && (c > m.highest || m.highest-c < m.size)
}

func (m *model) mark(c uint64) {
	m.seen[c] = true
	m.highest = max(m.highest, c)
}

func TestWindowAgainstModel(t *testing.T) {
	t.Parallel()
	for _, size := range []int{64, 100, RelayWindow, EndWindow} {
		random := rand.New(rand.NewPCG(1, uint64(size)))
		w := NewWindow(size)
		m := &model{seen: map[uint64]bool{}, size: uint64(size)}
		at := uint64(0)
		for i := range 200_000 {
			switch r := random.IntN(1000); {
			case r < 700:
				at++
			case r < 998:
				at = uint64(max(0, int64(m.highest)-random.Int64N(int64(size)*2)))
			default:
				at = m.highest + random.Uint64N(uint64(size)*3)
			}
			got, want := w.Check(at), m.check(at)
			if got != want {
				t.Fatalf("size %d, step %d: Check(%d) = %v with highest %d, want %v", size, i, at, got, m.highest, want)
			}
			if want && random.IntN(20) > 0 { // now and then a frame that does not open
				w.Mark(at)
				m.mark(at)
			}
		}
	}
}

func TestWindowEdges(t *testing.T) {
	t.Parallel()
	w := NewWindow(EndWindow)
	if !w.Check(0) {
		t.Fatal("first counter refused")
	}
	w.Mark(0)
	if w.Check(0) {
		t.Fatal("0 twice")
	}
	const top = 1<<64 - 1
	if !w.Check(top) { // Check alone never moves it: a forged counter costs nothing
		t.Fatal("jump refused")
	}
	if !w.Check(1) || w.Highest() != 0 {
		t.Fatal("Check moved the window")
	}
	w.Mark(top)
	for c, want := range map[uint64]bool{top: false, top - 1: true, top - EndWindow + 1: true, top - EndWindow: false, 1: false} {
		if w.Check(c) != want {
			t.Errorf("Check(%d) = %v", c, !want)
		}
	}
	w.Mark(5) // too old: must not touch the bitmap
	if !w.Check(top - 1) {
		t.Error("an old Mark changed the window")
	}
}

func BenchmarkWindow(b *testing.B) {
	w := NewWindow(RelayWindow)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		if w.Check(i) {
			w.Mark(i)
		}
	}
}
