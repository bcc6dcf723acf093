package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// stormApps end as soon as they begin, again and again, one of them by a signal; the last is given up.
const stormApps = `apps:
  a: {path: /bin/sh, default_args: [-c, 'echo a fails; exit 3'], autostart: true, restart: always}
  b: {path: /bin/sh, default_args: [-c, 'echo b fails; exit 3'], autostart: true}
  c: {path: /bin/sh, default_args: [-c, 'kill -SEGV $$'], autostart: true}
  d: {path: /bin/false, autostart: true}
  e: {path: /bin/true, autostart: true, restart: always}
  f: {path: /nonexistent, autostart: true}
  g: {path: /bin/sh, default_args: [-c, 'sleep 1000 & exit 1'], autostart: true, stop_timeout: 0.1}
  spent: {path: /bin/sh, default_args: [-c, 'i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "line $i"; done; exit 7'], autostart: true, restart_delay: 0.05, restart_limit: 3}
`

// TestRestartStorm is T-S7: eight apps that end at once cost next to nothing, each waits twice as long as before, and what
// is given up is told of, with the last it said.
func TestRestartStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, stormApps)
	d := w.daemon()
	t.Cleanup(func() {
		d.Process.Kill()
		d.Wait()
	})
	eventually(t, func() error { return asked(t.Context(), w.config.RunDir, "viscript.status", nil, nil) })
	var events []Event
	first, before := time.Now(), cpuOf(t, d.Process.Pid)
	begin := first
	eventually(t, func() error { // the fourth start of a: after 1, 2 and 4 s
		time.Sleep(time.Until(begin.Add(7200 * time.Millisecond))) // asking costs more than the storm
		if err := asked(t.Context(), w.config.RunDir, "viscript.events", nil, &events); err != nil {
			return err
		}
		if n := len(timesOf(events, "a", string(Starting))); n < 4 {
			begin = time.Now()
			return fmt.Errorf("%d starts of a", n)
		}
		return nil
	})
	wall, cpu := time.Since(first), cpuOf(t, d.Process.Pid)-before
	t.Logf("viscript used %v of CPU in %v, %.1f %%", cpu, wall, 100*cpu.Seconds()/wall.Seconds())
	if cpu.Seconds() > 0.05*wall.Seconds() && !slow() {
		t.Errorf("%v of CPU in %v", cpu, wall)
	}
	for _, app := range []string{"a", "b", "c", "d", "e", "f"} {
		at := timesOf(events, app, string(Starting))
		for i := 1; i < len(at); i++ {
			if gap, least := at[i].Sub(at[i-1]), time.Second<<(i-1); gap < least {
				t.Errorf("%s: start %d came after %v, want %v", app, i+1, gap, least)
			}
		}
		if len(at) < 2 {
			t.Errorf("%s was not started again: %v", app, at)
		}
	}
	w.givenUp(events)
}

func (w *world) givenUp(events []Event) {
	w.t.Helper()
	const reason = "exit status 7; given up after 3 restarts"
	i := slices.IndexFunc(events, func(e Event) bool { return e.App == "spent" && e.Event == string(Failed) })
	if i < 0 {
		w.t.Fatalf("no event: %+v", events)
	}
	if e := events[i]; e.Reason != reason || !slices.Equal(e.Last, []string{"line 36", "line 37", "line 38", "line 39", "line 40"}) {
		w.t.Errorf("%+v", e)
	}
	var list []Item
	if err := asked(w.t.Context(), w.config.RunDir, "viscript.ps", nil, &list); err != nil {
		w.t.Fatal(err)
	}
	for _, it := range list {
		if it.App == "spent" && (it.State != Failed || *it.ExitReason != reason || *it.ExitCode != 7 || it.Restarts != 3) {
			b, _ := json.Marshal(it)
			w.t.Errorf("ps: %s", b)
		}
	}
	var lines []Line // all that it said stays to be read
	if err := asked(w.t.Context(), w.config.RunDir, "viscript.logs", params{ID: "spent"}, &lines); err != nil {
		w.t.Fatal(err)
	}
	said := 0
	for _, l := range lines {
		if l.Stream == streamOut {
			said++
		}
	}
	if last := lines[len(lines)-1]; said != 4*40 || last.Stream != streamNote || last.Text != "failed: "+reason {
		w.t.Errorf("%d lines, the last is %+v", said, last)
	}
}

func timesOf(events []Event, app, what string) (at []time.Time) {
	for _, e := range events {
		if e.App == app && e.Event == what {
			at = append(at, e.Time)
		}
	}
	return at
}

// cpuOf is what the threads of a process have used so far.
func cpuOf(t *testing.T, pid int) time.Duration {
	t.Helper()
	f := statOf(t, pid)
	user, err := strconv.Atoi(f[11])
	sys, serr := strconv.Atoi(f[12])
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+sys) * 10 * time.Millisecond
}

// slow tells whether this binary was built with -race: one that is many times slower than the real one.
func slow() bool {
	in, ok := debug.ReadBuildInfo()
	return ok && slices.ContainsFunc(in.Settings, func(s debug.BuildSetting) bool { return s.Key == "-race" && s.Value == "true" })
}

// TestOutOfMemory: a kill by the kernel for want of memory is told as that, of a program and of what a shell ran; a kill by
// somebody else is not.
func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w := newWorld(t, `apps:
  greedy: {path: /usr/bin/tail, default_args: [/dev/zero], limits: {memory: 20MiB}, restart: never}
  wrapped: {path: /bin/sh, default_args: [-c, 'tail /dev/zero; exit $?'], limits: {memory: 20MiB}, restart: never}
  killed: {path: /bin/sh, default_args: [-c, 'kill -KILL $$'], limits: {memory: 20MiB}, restart: never}
`)
	s, _ := w.run()
	for _, app := range []string{"greedy", "wrapped", "killed"} {
		s.mustStart(t, app)
	}
	s.reaches(t, "killed", Failed, "signal SIGKILL")
	greedy := s.reaches(t, "greedy", Failed, "")
	if text := s.text(t, "greedy"); strings.Contains(text, "emory") && *greedy.ExitReason == "exit status 1" {
		t.Skip("no memory controller here, the limit is one of each process: ", text)
	}
	for _, app := range []string{"greedy", "wrapped"} {
		s.reaches(t, app, Failed, "out of memory: killed by the kernel")
	}
}
