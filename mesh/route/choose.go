package route

import (
	"slices"
	"time"

	"skywire/mesh/key"
)

// Better tells whether a path that carries traffic should be left for a new one: it must be a fifth and 2 ms cheaper, or
// traffic would swing between equals with each measure.
func Better(old, fresh Path) bool { return BetterCost(old.Cost, fresh.Cost) }

// BetterCost is Better of two costs.
func BetterCost(old, fresh uint64) bool { return fresh < NeedCost(old) }

// NeedCost is what a path must cost less than to be better than one of that cost.
func NeedCost(old uint64) uint64 {
	if old < betterLeast {
		return 0
	}
	return min(old-old/5, old-betterLeast+1)
}

const (
	betterLeast = 2000 // µs

	settleFor  = time.Second // so long a path must have been the better one before traffic moves to it
	strikingly = 2           // unless it costs less than so many parts of the present one
	farBetter  = 4           // and so much cheaper, it waits less when traffic moved often
	moveBurst  = 3           // moves for the better, and then
	moveRate   = 1.0 / 120   // so many a second,
	urgentRate = 1.0 / 60    // or so many
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

// Judge says whether traffic should leave a path of one cost for another one. It takes nothing: tell Moved what was done.
func (m *Mover) Judge(now time.Duration, old, fresh uint64, to []key.Public) Move {
	if !BetterCost(old, fresh) {
		if slices.Equal(m.to, to) {
			m.to = nil
		}
		return MoveNo
	}
	if !slices.Equal(m.to, to) {
		m.to, m.since = to, now
	}
	if fresh > old/strikingly && now-m.since < settleFor {
		return MoveSettles
	}
	rate := moveRate
	if fresh < old/farBetter {
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
