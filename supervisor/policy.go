package supervisor

import (
	"time"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// wrongUsage is the exit status of a program that can't do anything with its arguments: trying again changes nothing.
const wrongUsage = 2

// policy decides what follows the end of an app. It is pure: no clock, no timer.
type policy struct {
	restart  config.Restart
	delay    time.Duration // before a restart, doubles with each that follows soon; none before the first after a longer run
	maxDelay time.Duration
	limit    int // restarts in a row, 0: no limit
	row      int // restarts so far without a long run between
}

func newPolicy(a *config.App) policy {
	return policy{restart: a.Restart, delay: time.Duration(a.Delay), maxDelay: time.Duration(a.MaxDelay), limit: a.Limit}
}

// next returns the state that an app goes to which ended by itself after it ran for this long, and, for backoff, how
// long to wait. A run longer than maxDelay is a good one: the next delay is the first again.
func (p *policy) next(e proc.Exit, ran time.Duration) (State, time.Duration) {
	if ran > p.maxDelay {
		p.row = 0
	}
	end := Failed
	if e.OK() {
		end = Exited
	}
	switch {
	case p.restart == config.Never, p.restart == config.OnFailure && (e.OK() || e.Code != nil && *e.Code == wrongUsage):
		return end, 0
	case p.limit > 0 && p.row >= p.limit:
		return Failed, 0
	}
	p.row++
	if p.row == 1 && ran >= p.delay {
		return Backoff, 0 // it has worked: nothing speaks for waiting, and people wait for it
	}
	return Backoff, p.wait()
}

// wait is how long to wait before the restart that comes after row-1 others.
func (p *policy) wait() time.Duration {
	d := p.delay
	for range min(p.row-1, 40) {
		d = min(2*d, p.maxDelay)
	}
	return min(d, p.maxDelay)
}
