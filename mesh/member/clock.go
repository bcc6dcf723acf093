package member

import "time"

// Times of the floor clock.
const (
	// Epoch is when this package was written: no statement is older, so it is the floor of a box that knows nothing.
	Epoch = 1795392000 // 2026-11-23

	// maxJump bounds how far signed statements alone lift the floor in one run of a program; beyond it the box's own clock
	// has to agree. An admin key in wrong hands can't so run out every certificate at once.
	maxJump = 400 * 24 * 3600
	// confirmed is how long a signed time lets a clock that is not below it expire certificates.
	confirmed = 30 * 24 * 3600
	// slack is how far a clock may be behind a statement and still agree with it.
	slack = 24 * 3600
)

// Instant is when something happens: on a clock that only counts (CLOCK_BOOTTIME), and on the box's own, which may say
// anything.
type Instant struct {
	Up   time.Duration
	Wall time.Time
}

// clock knows the earliest time it can be. It has no way to be set: only signed statements move it, and only upward.
type clock struct {
	base     int64 // floor at the start
	floor    int64
	signed   int64 // latest signed time that was believed; 0: none
	estimate int64 // of the time, when at was
	at       time.Duration
}

func newClock(floor int64, at Instant) clock {
	floor = max(floor, Epoch)
	return clock{base: floor, floor: floor, estimate: floor, at: at.Up}
}

// hear takes the time of a valid statement of an admin or the cluster key.
func (c *clock) hear(at Instant, issued int64) (raised bool) {
	if issued > c.base+maxJump && at.Wall.Unix()+slack < issued {
		return false
	}
	c.signed = max(c.signed, issued)
	if issued <= c.floor {
		return false
	}
	c.estimate, c.at = max(c.counted(at), issued), at.Up
	c.floor = issued
	return true
}

// counted is the floor and the time that has passed since it was known.
func (c *clock) counted(at Instant) int64 { return c.estimate + int64((at.Up-c.at)/time.Second) }

// now is the box's clock if that is possible, else the floor and the time since.
func (c *clock) now(at Instant) int64 {
	if w := at.Wall.Unix(); w >= c.floor {
		return w
	}
	return c.counted(at)
}

// sure tells whether a signed time of the last 30 days confirms the clock.
func (c *clock) sure(at Instant) bool { return c.signed > 0 && c.now(at) <= c.signed+confirmed }

// over tells whether a time has passed for certain.
func (c *clock) over(at Instant, unix int64) bool {
	return unix < c.floor || unix < c.now(at) && c.sure(at)
}

// stamp is the time to sign with: a clock that is far beyond everything signed so far is not believed.
func (c *clock) stamp(at Instant) int64 {
	if w := at.Wall.Unix(); w >= c.floor && w <= c.floor+maxJump {
		return w
	}
	return c.counted(at)
}

// ClockState says in one word what the clock of this box is worth.
type ClockState string

// States of a clock.
const (
	ClockBehind      ClockState = "behind"      // below the floor, and so not used
	ClockConfirmed   ClockState = "confirmed"   // by a time signed in the last 30 days
	ClockUnconfirmed ClockState = "unconfirmed" // possible; it expires nothing
)

func (c *clock) state(at Instant) ClockState {
	switch {
	case at.Wall.Unix() < c.floor:
		return ClockBehind
	case c.sure(at):
		return ClockConfirmed
	}
	return ClockUnconfirmed
}
