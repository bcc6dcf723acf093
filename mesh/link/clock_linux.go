package link

import (
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the time since the machine's start, CLOCK_BOOTTIME: it goes on while the machine sleeps, as the age of a
// key must, and no one can set it.
func Now() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return time.Since(start)
	}
	return time.Duration(t.Nano())
}

// start serves kernels without CLOCK_BOOTTIME.
var start = time.Now()
