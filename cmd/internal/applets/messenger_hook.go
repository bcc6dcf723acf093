//go:build !mini

package applets

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"skywire/cmd/internal/applet"
)

// hookTalk is how much of what a hook says is told in the log when it fails.
const hookTalk = 1 << 10

// runHook runs a program for an event: no shell, an environment of its own, and nothing of it outlives its time.
func runHook(e *applet.Env) func(ctx context.Context, argv, environ []string, stdin []byte) error {
	return func(ctx context.Context, argv, environ []string, stdin []byte) error {
		c := exec.CommandContext(ctx, argv[0], argv[1:]...)
		for _, name := range []string{"PATH", "HOME", "USER", "LANG", "TZ"} {
			if v := e.Getenv(name); v != "" {
				c.Env = append(c.Env, name+"="+v)
			}
		}
		c.Env = append(c.Env, environ...)
		c.Stdin = bytes.NewReader(stdin)
		said := &firstBytes{most: hookTalk}
		c.Stdout, c.Stderr = said, said
		c.WaitDelay = 2 * time.Second
		ownGroup(c)
		if err := c.Run(); err != nil {
			return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(said.String()))
		}
		return nil
	}
}

// firstBytes keeps the beginning of what is written.
type firstBytes struct {
	bytes.Buffer
	most int
}

func (w *firstBytes) Write(b []byte) (int, error) {
	w.Buffer.Write(b[:min(len(b), w.most-w.Len())])
	return len(b), nil
}
