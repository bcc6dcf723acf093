package applets

import (
	"bytes"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

// TestStartWait: what a service manager has started waits for a node that starts beside it, and a person is told at once.
func TestStartWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		socket string
		waits  bool
	}{{"", false}, {"/run/systemd/notify", true}} {
		e := &applet.Env{Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Environ: []string{"NOTIFY_SOCKET=" + c.socket}}
		if got := startWait(e) > 0; got != c.waits {
			t.Errorf("with %s: waits %v, want %v", strings.Join(e.Environ, " "), got, c.waits)
		}
	}
}
