package session

import "time"

// Limiter allows so many events a second with a burst, in eight bytes of state. The zero value allows nothing.
type Limiter struct {
	every time.Duration
	burst time.Duration
	next  time.Duration // when the bucket is full again
}

// NewLimiter allows perSecond events a second and burst at once.
func NewLimiter(perSecond, burst int) Limiter {
	if perSecond <= 0 || burst <= 0 {
		return Limiter{}
	}
	every := time.Second / time.Duration(perSecond)
	return Limiter{every: every, burst: every * time.Duration(burst)}
}

// Allow takes one event at now, if there is room.
func (l *Limiter) Allow(now time.Duration) bool {
	if l.every == 0 {
		return false
	}
	next := max(l.next, now) + l.every
	if next-now > l.burst {
		return false
	}
	l.next = next
	return true
}
