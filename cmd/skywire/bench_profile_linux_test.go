//go:build bench

package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// profileDir is where SKYWIRE_BENCH_PROFILE wants profiles of our nodes: DIR/PART-WAY-MEASURE-BOX.pprof. With it the nodes are
// built with the tag profile, and figures taken then are not for comparing.
func profileDir() string {
	dir := os.Getenv("SKYWIRE_BENCH_PROFILE")
	if dir == "" {
		return ""
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	return abs
}

// profileTime is long enough for some hundred samples of a node that has half a processor.
const profileTime = 4 * time.Second

// profiled runs work with the profiles of the way's nodes on, or not at all.
func (b *bench) profiled(y *way, name string, work func()) {
	b.t.Helper()
	dir := profileDir()
	if dir == "" || !y.ours {
		return
	}
	for _, p := range y.programs {
		p.Signal(syscall.SIGUSR1)
	}
	work()
	for _, p := range y.programs {
		p.Signal(syscall.SIGUSR1)
		from := filepath.Join(dir, strconv.Itoa(p.PID())+".pprof")
		to := filepath.Join(dir, slug(strings.Join([]string{b.part, y.name, name, p.Box.Name}, "-"))+".pprof")
		b.wait(from, func(context.Context) error { return os.Rename(from, to) })
	}
}
