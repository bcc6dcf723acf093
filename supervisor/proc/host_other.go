//go:build !linux

package proc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"syscall"
	"time"
)

// Host starts children of this process.
type Host struct{}

// Lacks names what this system does not give a supervisor, for people.
func Lacks() []string {
	return []string{
		"taking over apps after a kill of viscript, and upgrade", "limits, caps, no_new_privs, user and group of apps",
		"terminals of apps (tty)", "numbers that the kernel does not tell of a tree (null in ru)",
	}
}

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
	tree *tree
	done chan struct{} // closed when the first process has ended
}

// Start starts a program. The files stay the caller's.
func (h *Host) Start(s Spec) (*Child, error) {
	if s.User != nil {
		return nil, fmt.Errorf("start as another user: %w", errors.ErrUnsupported)
	}
	p, t, err := startTree(s.Path, s.Args, &os.ProcAttr{
		Dir: s.Dir, Env: append(s.Env[:len(s.Env):len(s.Env)], MarkVariable+"="+s.Mark),
		Files: append([]*os.File{s.Stdin, s.Stdout, s.Stderr}, s.Extra...),
	})
	if err != nil {
		return nil, err
	}
	c := &Child{p: p, tree: t, done: make(chan struct{})}
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
	if err != nil {
		return Exit{Unknown: true}
	}
	return c.tree.exit(st)
}

// Signal sends sig to the tree: to its group, or what the system has in its place.
func (c *Child) Signal(sig syscall.Signal) { c.tree.signal(c.p, sig) }

// SignalFirst sends sig to the process.
func (c *Child) SignalFirst(sig syscall.Signal) { c.p.Signal(sig) }

// Members returns who lives of the tree.
func (c *Child) Members(bool) (ids []ID) {
	for _, pid := range c.tree.pids() {
		ids = append(ids, ID{PID: pid})
	}
	return ids
}

// Has reports whether pid is of the tree.
func (c *Child) Has(pid int) bool { return slices.Contains(c.Members(true), ID{PID: pid}) }

// Empty waits until nothing of the tree lives, or ctx ends; it reports whether that is so.
func (c *Child) Empty(ctx context.Context) bool {
	t := time.NewTicker(scanEvery)
	defer t.Stop()
	for len(c.Members(true)) > 0 {
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Kill ends the tree and returns who survives.
func (c *Child) Kill() []ID {
	ctx, cancel := context.WithTimeout(context.Background(), killLimit)
	defer cancel()
	c.tree.kill(c.p)
	c.Empty(ctx)
	return c.Members(true)
}

// Release forgets the tree.
func (c *Child) Release() { c.tree.close() }

// Usage is what the system tells of the tree; all else is unknown here.
func (c *Child) Usage() Usage {
	u := Usage{Processes: len(c.Members(false)), Source: "none"}
	c.tree.usage(&u)
	return u
}

// FirstGone waits until the first process has ended, or ctx ends; it reports whether that is so.
func (c *Child) FirstGone(ctx context.Context) bool {
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
		return false
	}
}
