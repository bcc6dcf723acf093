//go:build unix

package applets

import (
	"os"
	"os/signal"
	"syscall"
)

// childEnded tells when a child of this process has ended. One waiting signal is enough: whoever hears it looks at all.
func childEnded() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGCHLD)
	return c, func() { signal.Stop(c) }
}
