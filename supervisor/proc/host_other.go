//go:build !linux

package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"
)

// Host starts children of this process.
type Host struct{}

// NewHost returns a Host; there is nothing to look for here.
func NewHost(*slog.Logger, bool) *Host { return &Host{} }

// Reaping is false here.
func (h *Host) Reaping() bool { return false }

// Reap does nothing here.
func (h *Host) Reap() bool { return false }

// Sweep does nothing here.
func (h *Host) Sweep(func(string) bool) {}

// BootID is unknown here, so nothing is adopted.
func BootID() string { return "" }

// Uptime is not known here.
func Uptime() time.Duration { return 0 }

// Monotonic is not known here.
func Monotonic() time.Duration { return 0 }

// Pipe makes a plain pipe; it can't be opened again.
func Pipe(string) (r, w *os.File, err error) { return os.Pipe() }

// Reopen is not supported here.
func Reopen(string) (*os.File, error) {
	return nil, fmt.Errorf("reopen pipe: %w", errors.ErrUnsupported)
}

// Child is a started process.
type Child struct {
	// Missing are the limits that nothing here enforces.
	Missing []string

	p    *os.Process
	done chan struct{}
}

// Start starts a program. The files stay the caller's.
func (h *Host) Start(s Spec) (*Child, error) {
	if s.User != nil {
		return nil, fmt.Errorf("start as another user: %w", errors.ErrUnsupported)
	}
	p, err := os.StartProcess(s.Path, s.Args, &os.ProcAttr{
		Dir: s.Dir, Env: append(s.Env[:len(s.Env):len(s.Env)], MarkVariable+"="+s.Mark),
		Files: append([]*os.File{s.Stdin, s.Stdout, s.Stderr}, s.Extra...),
	})
	if err != nil {
		return nil, err
	}
	c := &Child{p: p, done: make(chan struct{})}
	if s.Limits != (Limits{}) {
		c.Missing = append(c.Missing, "limits")
	}
	if s.Caps != nil {
		c.Missing = append(c.Missing, "caps")
	}
	if s.NoNewPrivs {
		c.Missing = append(c.Missing, "no_new_privs")
	}
	return c, nil
}

// Adopt is not supported here.
func (h *Host) Adopt(ID, string) (*Child, error) {
	return nil, fmt.Errorf("adopt: %w", errors.ErrUnsupported)
}

// Ours is true: nothing is adopted here.
func (c *Child) Ours() bool { return true }

// Follow is not supported here.
func (c *Child) Follow(int) bool { return false }

// ID of the process; its start time is unknown here.
func (c *Child) ID() ID { return ID{PID: c.p.Pid} }

// Wait waits for the process. Call it once.
func (c *Child) Wait(context.Context) Exit {
	defer close(c.done)
	st, err := c.p.Wait()
	if err != nil || !st.Exited() {
		return Exit{Unknown: true}
	}
	code := st.ExitCode()
	return Exit{Code: &code}
}

// Signal sends sig to the process; its descendants are not known here.
func (c *Child) Signal(sig syscall.Signal) { c.p.Signal(sig) }

// SignalFirst sends sig to the process.
func (c *Child) SignalFirst(sig syscall.Signal) { c.p.Signal(sig) }

// Members returns the process while it lives.
func (c *Child) Members(bool) []ID {
	select {
	case <-c.done:
		return nil
	default:
		return []ID{c.ID()}
	}
}

// Has reports whether pid is the process.
func (c *Child) Has(pid int) bool { return pid == c.p.Pid }

// Empty waits until the process has ended, or ctx ends.
func (c *Child) Empty(ctx context.Context) bool {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// Kill ends the process and returns it if it survives.
func (c *Child) Kill() []ID {
	c.p.Kill()
	t := time.NewTimer(killLimit)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	return c.Members(true)
}

// Release forgets the process.
func (c *Child) Release() {}

// Usage is unknown here.
func (c *Child) Usage() Usage { return Usage{Processes: len(c.Members(false)), Source: "none"} }

// FirstGone is Empty here.
func (c *Child) FirstGone(ctx context.Context) bool { return c.Empty(ctx) }
