package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	// maxOutput bounds what is kept of what a program prints.
	maxOutput = 16 << 10
	// killDelay is how long a program that was killed may keep its output open by a child.
	killDelay = 2 * time.Second
)

// Run runs a program to its end and returns what it printed, of both outputs the front; the error has that text too.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, program, args...)
	c.WaitDelay = killDelay
	var out limited
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; a daemon that an init script started keeps its output open
	}
	text := strings.TrimSpace(out.String())
	if err != nil {
		err = fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), errors.Join(err, ctx.Err()))
		if text != "" {
			err = fmt.Errorf("%w: %.500s", err, text)
		}
	}
	return text, err
}

// Find looks for a program on the PATH of this process; empty: it is not there.
func Find(name string) string {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	return path
}

// limited keeps the front of what is written.
type limited struct{ bytes.Buffer }

var _ io.Writer = (*limited)(nil)

func (l *limited) Write(b []byte) (int, error) {
	l.Buffer.Write(b[:min(len(b), max(0, maxOutput-l.Len()))])
	return len(b), nil
}
