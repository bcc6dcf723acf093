package forward

import (
	"math"
	"time"
)

// CoDel's two numbers, those of RFC 8289. A path of the mesh has the round-trip times of the Internet below it, for which
// 100 ms is right up to some 300 ms; 5 ms is one train at 100 Mbit/s, and below that rate the queue is let be while it
// is no longer than one train.
const (
	codelTarget   = 5 * time.Millisecond
	codelInterval = 100 * time.Millisecond
)

// codel is the state of RFC 8289, section 5, for one queue. It counts signals, whether they drop or mark.
type codel struct {
	above    time.Duration // when frames will have waited longer than the target for an interval
	isAbove  bool
	next     time.Duration // when the next signal is due
	count    uint32        // signals since it began to give them
	last     uint32        // count when it began
	dropping bool
}

// due reports whether the frame at the front, which waited for sojourn, has to give a signal. standing says that others
// wait behind its train: a queue of one train is no queue.
func (c *codel) due(now, sojourn time.Duration, standing bool) bool {
	if sojourn < codelTarget || !standing {
		c.rest()
		return false
	}
	if !c.isAbove {
		c.isAbove, c.above = true, now+codelInterval
	}
	switch {
	case c.dropping && now < c.next, !c.dropping && now < c.above:
		return false
	case c.dropping:
		c.count++
		c.next = c.after(c.next)
		return true
	}
	c.dropping = true
	// What it came to the last time is taken up where that was not long ago.
	if since := c.count - c.last; since > 1 && now-c.next < 16*codelInterval {
		c.count = since
	} else {
		c.count = 1
	}
	c.last = c.count
	c.next = c.after(now)
	return true
}

// rest ends the signals: the queue is short enough.
func (c *codel) rest() { c.isAbove, c.dropping = false, false }

// after is the control law: the more signals there were, the sooner comes the next one.
func (c *codel) after(t time.Duration) time.Duration {
	return t + time.Duration(float64(codelInterval)/math.Sqrt(float64(c.count)))
}
