//go:build profile && linux

package main

import (
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"syscall"
)

// profile lets the benchmarks look into a node: with SKYWIRE_PROFILE=DIR, SIGUSR1 starts a profile of the processor and the
// next SIGUSR1 ends it as DIR/PID.pprof. It is not in what is shipped: runtime/pprof alone would cost a router's flash
// more than the whole vpn. The returned function stops listening.
func profile() (stop func()) {
	dir := os.Getenv("SKYWIRE_PROFILE")
	if dir == "" {
		return func() {}
	}
	toggle, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(toggle, syscall.SIGUSR1)
	go func() { // ends at stop
		defer close(done)
		for range toggle {
			if err := profileOnce(filepath.Join(dir, strconv.Itoa(os.Getpid())+".pprof"), toggle); err != nil {
				slog.Error("profile", "err", err)
			}
		}
	}()
	return func() {
		signal.Stop(toggle)
		close(toggle)
		<-done
	}
}

// profileOnce profiles until the next signal; the file appears complete.
func profileOnce(path string, toggle <-chan os.Signal) error {
	f, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	<-toggle
	pprof.StopCPUProfile()
	return os.Rename(f.Name(), path)
}
