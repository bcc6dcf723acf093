package route

import (
	"math/rand/v2"
	"testing"
	"time"

	"skywire/mesh/key"
)

// TestMoverHoldsStill: over a link that swings between good and bad for ten minutes, at any pace and by any measure, traffic moves
// a few times and no more.
func TestMoverHoldsStill(t *testing.T) {
	t.Parallel()
	const ms = 1000
	for _, c := range []struct {
		name          string
		period        time.Duration
		good, bad     uint64 // costs of the link that swings
		steady        uint64
		least, atMost int
	}{
		{"by a little", time.Minute, 19 * ms, 21 * ms, 20 * ms, 0, 0},
		{"by less than a fifth", time.Minute, 17 * ms, 23 * ms, 20 * ms, 0, 0},
		{"faster than it can settle", 300 * time.Millisecond, 12 * ms, 28 * ms, 20 * ms, 0, 0},
		{"clearly", 20 * time.Second, 12 * ms, 40 * ms, 20 * ms, 3, 10},
		{"clearly and slowly", 4 * time.Minute, 12 * ms, 40 * ms, 20 * ms, 3, 6},
		{"by a lot", 5 * time.Second, 2 * ms, 400 * ms, 20 * ms, 3, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(1, 2))
			var m Mover
			onSteady, moves := true, 0
			for now := time.Second; now < 10*time.Minute; now += 250 * time.Millisecond {
				swinging := c.good
				if now/(c.period/2)%2 == 1 {
					swinging = c.bad
				}
				swinging += r.Uint64N(300)
				old, fresh, to := c.steady, swinging, node(1)
				if !onSteady {
					old, fresh, to = swinging, c.steady, node(2)
				}
				if m.Judge(now, over(old, node(3)), over(fresh, to)) == MoveNow {
					m.Moved(now)
					onSteady = !onSteady
					moves++
				}
			}
			if moves < c.least || moves > c.atMost {
				t.Errorf("%d moves in ten minutes, want %d to %d", moves, c.least, c.atMost)
			}
		})
	}
}

// over is a path over one relay.
func over(rank uint64, relay key.Public) Path {
	return Path{Hops: []key.Public{node(0), relay, node(9)}, Cost: rank, Rank: rank}
}

func TestMoverMoves(t *testing.T) {
	t.Parallel()
	var m Mover
	for i, step := range []struct {
		at         time.Duration
		old, fresh uint64
		relay      int
		want       Move
	}{
		{1 * time.Second, 20_000, 17_000, 1, MoveNo},
		{2 * time.Second, 20_000, 15_000, 1, MoveSettles},
		{2500 * time.Millisecond, 20_000, 14_000, 1, MoveSettles},
		{2600 * time.Millisecond, 20_000, 13_000, 2, MoveSettles}, // another one: its time begins
		{3700 * time.Millisecond, 20_000, 13_000, 2, MoveNow},
		{9 * time.Second, 20_000, 9_000, 1, MoveNow}, // strikingly better needs no time
		{10 * time.Second, 1_500, 100, 1, MoveNo},    // nothing over as many relays is 2 ms better than that
	} {
		if got := m.Judge(step.at, over(step.old, node(7)), over(step.fresh, node(step.relay))); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	direct := Path{Hops: []key.Public{node(0), node(9)}, Rank: 1200}
	if got := m.Judge(20*time.Second, over(2500, node(7)), direct); got != MoveNow {
		t.Errorf("a direct link on a quick network: %v", got)
	}
	if Better(direct, over(900, node(1))) {
		t.Error("a relay is better than a direct link by less than a millisecond")
	}
}
