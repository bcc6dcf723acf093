package messenger

import (
	"slices"
	"testing"
	"time"

	"skywire/mesh/store"
)

// copyKV copies what a store holds.
func copyKV(t *testing.T, from *store.KV) *store.KV {
	t.Helper()
	to, err := store.OpenKV("", store.KVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = to.Batch(func(tx *store.KVTx) error {
		for _, b := range []string{bMeta, bAcc, bDev, bCard, bAuth, bOut, bQueue, bWait, bIn, bEarly, bMsg, bBy, bID, bIDDay, bTodo, bBox, bFiles, bBook, bTok} {
			if err := from.Range(b, nil, nil, func(k, v []byte) bool { tx.Put(b, k, v); return true }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// TestRolledBack: a sender's flash goes back to an old state, so it gives numbers again that the receiver has seen with other
// texts. What it says from then on arrives all the same, once and in order.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	for _, more := range []int{1, 5, 20} { // fewer, as many, and more than were lost
		s := newSim(t, uint64(more))
		a, b := s.node("a", nil), s.node("b", nil)
		s.befriend(a, b)
		s.run(5*time.Second, nil)
		a.send(b, "before")
		s.run(s.now+10*time.Second, nil)
		old := copyKV(t, a.cfg.Store)
		want := []string{"before"}
		for _, x := range numbered(5) {
			a.send(b, "lost "+x)
			want = append(want, "lost "+x)
		}
		s.run(s.now+10*time.Second, nil)
		a.cfg.Store = old
		b.turn(false)
		s.run(s.now+time.Second, nil)
		a.crash()
		for _, x := range numbered(more) {
			a.send(b, "new "+x)
			want = append(want, "new "+x)
		}
		b.turn(true)
		s.run(s.now+time.Hour, func() bool { return a.delivered() && len(b.texts(a)) >= len(want) })
		if got := b.texts(a); !slices.Equal(got, want) || !a.delivered() {
			t.Errorf("%d new: b has %q, want %q; a %v, b %v", more, got, want, a.c.counters, b.c.counters)
		}
		if a.c.counters["epochs"] == 0 {
			t.Errorf("%d new: the loss was not noticed", more)
		}
	}
}
