package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// asked calls the control socket of a viscript in another process.
func asked(ctx context.Context, run, method string, p, result any) error {
	c, err := signal.Dial(ctx, ControlSocket(run), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, p, result)
}

// TestUpgrade: viscript replaces its own program under load; apps keep pid, input and every line, clients find a
// listening socket all the time, and exit statuses are known as before.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  count: {path: SELF, daemon: true, env: {SUPERVISOR_TEST_APP: count}, autostart: true, log_bytes: 60000000, log: {rate: 0}}
  reader: {path: /bin/sh, default_args: [-c, 'read word; exit "$word"'], autostart: true, restart: never}
  dead: {path: /bin/sh, default_args: [-c, 'exit 9'], autostart: true, restart: never}
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, autostart: true}
`)
	if !proc.InRAM(w.dir) {
		t.Skip("no folder in RAM")
	}
	d := w.daemon()
	defer func() {
		d.Process.Kill()
		d.Wait()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ask := func(method string, p, result any) error { return asked(ctx, w.config.RunDir, method, p, result) }
	pids := func() map[string]string {
		var list []Item
		out := map[string]string{}
		if err := ask("viscript.ps", map[string]any{"all": true}, &list); err != nil {
			t.Fatal(err)
		}
		for _, it := range list {
			out[it.App] = fmt.Sprint(it.ID, " ", it.State, " ", it.Adopted)
			if it.PID != nil {
				out[it.App] += " pid " + strconv.Itoa(*it.PID)
			}
			if it.ExitCode != nil {
				out[it.App] += " code " + strconv.Itoa(*it.ExitCode)
			}
		}
		return out
	}
	var before map[string]string
	eventually(t, func() error {
		var in Info
		if err := ask("viscript.status", nil, &in); err != nil {
			return err
		}
		if before = pids(); before["dead"] != "2 failed false code 9" || len(before["good"]) < 10 || before["good"][:7] != "3 ready" {
			return fmt.Errorf("%v", before)
		}
		return nil
	})
	upgrades := 5
	if testing.Short() || slow() {
		upgrades = 2
	}
	for i := 1; i <= upgrades; i++ {
		var up Upgraded
		if err := ask("viscript.upgrade", nil, &up); err != nil || up.Generation != i || up.To != "2" {
			t.Fatalf("%+v, %v", up, err)
		}
		eventually(t, func() error {
			var in Info
			err := ask("viscript.status", nil, &in)
			if err != nil && !errors.Is(err, signal.ErrClosed) {
				t.Errorf("while it is replaced: %v", err)
			}
			if err == nil && (in.Generation != i || in.PID != d.Process.Pid) {
				err = fmt.Errorf("%+v", in)
			}
			return err
		})
		if after := pids(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("after upgrade %d: %v, before %v", i, after, before)
		}
	}
	if err := ask("viscript.input", map[string]any{"id": "reader", "data": []byte("7\n")}, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if s := pids()["reader"]; s != "4 failed false code 7" {
			return errors.New(s)
		}
		return nil
	})
	var it Item
	if err := ask("viscript.stop", map[string]any{"id": "count"}, &it); err != nil {
		t.Fatal(err)
	}
	if *it.ExitReason != "stopped, signal SIGTERM" {
		t.Errorf("%q", *it.ExitReason)
	}
	numbered(t, w.config.RunDir, "count")
	if err := ask("viscript.stop", map[string]any{"id": "good"}, nil); err != nil {
		t.Error(err)
	}
}

// numbered checks that an app's lines are 1, 2, 3 …
func numbered(t *testing.T, run, app string) {
	t.Helper()
	c, err := signal.Dial(t.Context(), ControlSocket(run), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cursor, n, odd := uint64(1), 0, ""
	for {
		var lines []Line
		if err := c.Call(t.Context(), "viscript.logs", map[string]any{"id": app, "cursor": cursor, "first": 1000}, &lines); err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			break
		}
		for _, l := range lines {
			if l.Seq != cursor {
				t.Fatalf("line %d where %d was expected", l.Seq, cursor)
			}
			cursor++
			if l.Stream != streamOut {
				continue
			}
			if odd != "" { // only the last may be cut off, by the end of the app
				t.Fatalf("line %d is %q: lost or twice", n, odd)
			}
			if n++; l.Text != strconv.Itoa(n) {
				odd = l.Text
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d lines", n)
	}
}
