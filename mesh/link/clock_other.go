//go:build !linux

package link

import "time"

// Now returns the time since the program's start. Where the system's monotonic clock stands still during sleep, so does it.
func Now() time.Duration { return time.Since(start) }

var start = time.Now()
