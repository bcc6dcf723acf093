package messenger

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestCallsAfterTheEnd: who asks for something to be kept while the messenger ends is told, and does not wait for a disk that
// nobody writes to any more.
func TestCallsAfterTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(nil)
		ea, eb := a.start(), b.start()
		befriend(t, ea, eb)
		waitState(t, ea, send(t, ea, eb, "text"), Delivered, time.Minute)
		a.stop()
		ea.call(func(c *core) { c.later(bMeta, []byte("late"), []byte{1}) }) // as a link that ends does
		answer := make(chan error, 1)
		go func() { answer <- ea.Book(func(*Book, time.Time) error { return nil }) }()
		select {
		case err := <-answer:
			if !errors.Is(err, ErrEnded) {
				t.Errorf("a call after the end: %v, want %v", err, ErrEnded)
			}
		case <-time.After(time.Minute):
			t.Error("a call after the end waits")
		}
		b.stop()
	})
}
