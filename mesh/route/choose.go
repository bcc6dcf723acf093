package route

import (
	"slices"
	"time"

	"skywire/mesh/key"
)

// Better tells whether a path that carries traffic should be left for a new one: it must be a fifth cheaper, and by 2 ms unless it
// has fewer hops, or traffic would swing between equals with each measure. What is compared is the Rank.
func Better(old, fresh Path) bool {
	return fresh.Rank < NeedRank(old, len(fresh.Hops) < len(old.Hops))
}

// NeedRank is what a path must rank below to be better than old.
func NeedRank(old Path, fewerHops bool) uint64 {
	need := old.Rank - old.Rank/5
	switch {
	case fewerHops:
		return need
	case old.Rank < betterLeast:
		return 0
	}
	return min(need, old.Rank-betterLeast+1)
}

const (
	betterLeast = 2000 // µs

	settleFor  = time.Second // so long a path must have been the better one before traffic moves to it
	strikingly = 2           // unless it costs less than so many parts of the present one
	farBetter  = 4           // and so much cheaper, it waits less when traffic moved often
	moveBurst  = 5           // moves for the better, and then
	moveRate   = 1.0 / 120   // so many a second,
	urgentRate = 1.0 / 60    // or so many,
	fewerRate  = 1.0 / 20    // or so many to a path of fewer hops: where a link came back, it is missed
)

// Mover keeps the traffic of one session from swinging. A path that is better moves it only after it has been the better one for a
// while, and not more often than a few times in a few minutes. Moves that failures force are no concern of it. The zero Mover is ready.
type Mover struct {
	to    []key.Public  // the better path as last seen
	since time.Duration // since when it is
	moves bucket
}

// Move is what a Mover says.
type Move uint8

// What becomes of a better path.
const (
	MoveNo      Move = iota // not better by enough
	MoveSettles             // better, for too short a time
	MoveWaits               // better, but traffic moved too often lately
	MoveNow
)

// Judge says whether traffic should leave one path for another one. It takes nothing: tell Moved what was done.
func (m *Mover) Judge(now time.Duration, old, fresh Path) Move {
	if !Better(old, fresh) {
		if slices.Equal(m.to, fresh.Hops) {
			m.to = nil
		}
		return MoveNo
	}
	if !slices.Equal(m.to, fresh.Hops) {
		m.to, m.since = fresh.Hops, now
	}
	if fresh.Rank > old.Rank/strikingly && now-m.since < settleFor {
		return MoveSettles
	}
	rate := moveRate
	switch {
	case len(fresh.Hops) < len(old.Hops):
		rate = fewerRate
	case fresh.Rank < old.Rank/farBetter:
		rate = urgentRate
	}
	if m.moves.left(now, rate, moveBurst) < 1 {
		return MoveWaits
	}
	return MoveNow
}

// Moved notes that traffic went to a better path.
func (m *Mover) Moved(now time.Duration) {
	m.to = nil
	m.moves.take(now, moveRate, moveBurst)
}
