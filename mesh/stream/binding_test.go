package stream_test

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
)

// TestBinding proves what invites rest on: both ends of a connection know the same 32 bytes, and no two connections share
// theirs.
func TestBinding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMesh(t, streamtest.Conditions{Delay: time.Millisecond})
		a, b, c := m.start(1), m.start(2), m.start(3)
		defer m.end(a, b, c)
		far := make(chan []byte, 1)
		b.handle(t, "bound", func(s *stream.Stream) { far <- s.Binding() })
		var seen [][]byte
		for _, n := range []*node{a, c} {
			s, err := n.Dial(t.Context(), b.key, "bound", nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := s.Binding(), <-far; len(got) != 32 || !bytes.Equal(got, want) {
				t.Errorf("ends disagree: %x, %x", got, want)
			}
			seen = append(seen, s.Binding())
			s.Close()
		}
		if bytes.Equal(seen[0], seen[1]) {
			t.Error("two connections have one binding")
		}
	})
}
