package applets

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"skywire/cmd/internal/applet"
)

// TestReady hears what a service manager is told.
func TestReady(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	heard := func() string {
		b := make([]byte, 100)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	e := &applet.Env{Environ: []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=20000", "WATCHDOG_PID=" + strconv.Itoa(os.Getpid())}}
	ready(e)
	if got := heard(); got != "READY=1" {
		t.Errorf("heard %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		watched(ctx, e, func(context.Context) error {
			if looks++; looks < 3 {
				return errors.New("hangs")
			}
			return nil
		})
	}()
	if got := heard(); got != "WATCHDOG=1" {
		t.Errorf("heard %q", got)
	}
	cancel()
	<-done
	if looks < 3 {
		t.Errorf("a sign of life after %d looks, the first two of which failed", looks)
	}
}

// TestWatchedBySomebodyElse ends at once where no sign of life is asked of this process.
func TestWatchedBySomebodyElse(t *testing.T) {
	t.Parallel()
	for _, environ := range [][]string{nil, {"WATCHDOG_USEC=1000000", "WATCHDOG_PID=1"}, {"WATCHDOG_USEC=soon"}} {
		synctest.Test(t, func(t *testing.T) {
			watched(t.Context(), &applet.Env{Environ: environ}, func(context.Context) error {
				t.Errorf("%v: asked", environ)
				return nil
			})
		})
	}
}
