package manager

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// TestPathUnderRules: a path can be asked for with what relays it may take.
func TestPathUnderRules(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 5)
		w := &world{managers: map[key.Public]*hostNode{}}
		_, host, stopManager := w.start(t, ids[4], nil)
		defer stopManager()
		_, _, stop := square(t, w, ids[:4], ids[4].Public())
		defer stop()
		settle(2 * time.Second)
		for _, c := range []struct {
			name string
			p    PathParams
			over string // the relay of the best path
			err  error
		}{
			{"none", PathParams{}, "b", nil},
			{"avoid", PathParams{Avoid: []string{"b"}}, "c", nil},
			{"trust", PathParams{Trusted: []string{"c"}}, "c", nil},
			{"prefer by little", PathParams{Prefer: []string{"b"}}, "b", nil},
			{"both", PathParams{Avoid: []string{"b"}, Prefer: []string{"b"}}, "c", nil},
			{"hops", PathParams{MaxHops: 1}, "", signal.ErrUnreachable},
			{"nobody", PathParams{Avoid: []string{"b", "c"}}, "", signal.ErrUnreachable},
			{"unknown", PathParams{Avoid: []string{"x"}}, "", signal.ErrNotFound},
			{"too many hops", PathParams{MaxHops: 99}, "", signal.ErrUsage},
		} {
			c.p.From, c.p.To = "a", "d"
			var all []PathInfo
			err := host.ask(t, MethodPath, c.p, &all)
			switch {
			case c.err != nil:
				if !errors.Is(err, c.err) {
					t.Errorf("%s: %v, want %v", c.name, err, c.err)
				}
			case err != nil || len(all) == 0 || all[0].Names[1] != c.over:
				t.Errorf("%s: %+v, %v, want the best over %s", c.name, all, err, c.over)
			}
		}
	})
}
