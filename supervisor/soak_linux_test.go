package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// TestSoak does at random what people and machines do to a viscript: start, stop, restart, reload, upgrade, kill an
// app, kill viscript. At the end nothing is left that should not be: no process, cgroup, pipe or descriptor, and no id
// was given twice. SKYWIRE_SOAK says for how long, 10m for instance; without it is a few seconds.
func TestSoak(t *testing.T) {
	t.Parallel()
	length := 8 * time.Second
	if text := os.Getenv("SKYWIRE_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		length = d
	} else if testing.Short() {
		t.Skip("the whole run has it")
	}
	w := newWorld(t, soakApps+"  extra: {path: /bin/sleep, default_args: [1000], autostart: true}\n")
	x := &soak{t: t, w: w, d: w.daemon(), ids: map[uint64]bool{}, marks: map[string]string{}}
	x.up()
	fds := x.fds()
	for end := time.Now().Add(length); time.Now().Before(end); {
		x.step()
		x.note()
	}
	x.up()
	w.write(soakApps) // nothing that starts by itself
	x.allow(x.ask("viscript.reload", nil, nil))
	for _, app := range []string{"tree", "crash", "web", "db", "good", "extra"} {
		x.stopAll(app)
	}
	eventually(t, func() error { // viscript holds what it held at first, give or take what is under way
		if n := x.fds(); n > fds+3 {
			return fmt.Errorf("%d descriptors, %d at first", n, fds)
		}
		return nil
	})
	if rss := x.rss(); rss > 64<<20 {
		t.Errorf("viscript takes %d bytes", rss)
	}
	if n := x.zombies(); n != 0 {
		t.Errorf("%d processes that ended were not waited for", n)
	}
	x.d.Process.Kill() // nothing runs any more
	x.d.Wait()
	s, stop := w.run() // and the next one cleans up
	x.did("end")
	if list, err := s.List(t.Context(), false); err == nil {
		for _, it := range list {
			if it.PID != nil {
				t.Errorf("runs: %+v", it)
			}
		}
	}
	stop()
	x.strays()
	left, _ := filepath.Glob(filepath.Join(w.config.RunDir, "*", "*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	t.Logf("%d steps: %v", x.steps, x.counts)
}

// strays are processes and cgroups of launches that are over.
func (x *soak) strays() {
	x.t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for kv := range strings.SplitSeq(string(b), "\x00") {
			mark, ok := strings.CutPrefix(kv, proc.MarkVariable+"=")
			if what := x.marks[mark]; ok && what != "" {
				dir := filepath.Dir(f)
				words, _ := os.ReadFile(dir + "/cmdline")
				stat, _ := os.ReadFile(dir + "/stat")
				group, _ := os.ReadFile(dir + "/cgroup")
				x.t.Errorf("left of launch %s: %s: %q %s %s", mark, what, words, stat, group)
			}
		}
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"} {
		list, _ := filepath.Glob(filepath.Join(root, "viscript-*"))
		for _, dir := range list {
			if what := x.marks[strings.TrimPrefix(filepath.Base(dir), "viscript-")]; what != "" {
				x.t.Errorf("left behind: %s: %s", dir, what)
			}
		}
	}
}

// zombies counts the children of viscript that have ended and that it does not wait for.
func (x *soak) zombies() (n int) {
	for range 300 { // those of no known tree are left alone for a while
		n = 0
		files, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, f := range files {
			b, _ := os.ReadFile(f)
			_, rest, _ := strings.Cut(string(b), ") ")
			if strings.HasPrefix(rest, fmt.Sprintf("Z %d ", x.d.Process.Pid)) {
				n++
			}
		}
		if n == 0 {
			return 0
		}
		time.Sleep(50 * time.Millisecond)
	}
	return n
}

const soakApps = `apps:
  tree: {path: /bin/sh, daemon: true, default_args: [-c, 'trap "" TERM; sleep 1000 & setsid sleep 1000 & (setsid sleep 1000 &) ; while :; do sleep 1; done'], stop_timeout: 0.1, restart: never}
  crash: {path: /bin/sh, default_args: [-c, 'echo x; sleep 0.1; exit 3'], restart: on-failure, restart_delay: 0.05, restart_max_delay: 0.2, restart_limit: 5}
  db: {path: /bin/sh, default_args: [-c, 'echo up; exec sleep 1000'], ready: {log: up}, restart_delay: 0.05, restart: on-failure}
  web: {path: /bin/sleep, default_args: [1000], depends_on: [db], health: {exec: [/bin/true], every: 0.2}, restart: never}
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, restart: on-failure, restart_delay: 0.05}
`

type soak struct {
	t      *testing.T
	w      *world
	d      *exec.Cmd
	ids    map[uint64]bool
	marks  map[string]string // of launches → what they were
	steps  int
	counts map[string]int
	last   []string
}

func (x *soak) did(what string) {
	if x.counts == nil {
		x.counts = map[string]int{}
	}
	x.last = append(x.last, what)
	x.last = x.last[max(0, len(x.last)-6):]
	x.counts[what]++
	x.steps++
}

func (x *soak) ask(method string, p, result any) error {
	ctx, cancel := context.WithTimeout(x.t.Context(), time.Minute)
	defer cancel()
	return asked(ctx, x.w.config.RunDir, method, p, result)
}

// up waits until viscript answers.
func (x *soak) up() {
	x.t.Helper()
	eventually(x.t, func() error { return x.ask("viscript.status", nil, nil) })
}

func (x *soak) step() {
	apps := []string{"tree", "crash", "web", "db", "good"}
	app := apps[rand.N(len(apps))]
	switch n := rand.N(100); {
	case n < 35:
		x.did("start")
		var st Started
		err := x.ask("viscript.start", map[string]any{"app": app}, &st)
		if err == nil && x.ids[st.ID] {
			x.t.Errorf("id %d twice", st.ID)
		}
		if err == nil {
			x.ids[st.ID] = true
		}
		x.allow(err)
		if len(x.ids)%20 == 0 {
			x.stopAll(app)
		}
	case n < 60:
		x.did("stop")
		x.stopAll(app)
	case n < 75:
		x.did("restart")
		x.allow(x.ask("viscript.restart", map[string]any{"id": app}, nil))
	case n < 82:
		x.did("reload")
		text := soakApps
		if rand.N(2) == 0 {
			text += "  extra: {path: /bin/sleep, default_args: [1000], autostart: true}\n"
		}
		x.w.write(text)
		x.allow(x.ask("viscript.reload", nil, nil))
	case n < 88:
		x.did("kill an app")
		var list []Item
		x.allow(x.ask("viscript.ps", nil, &list))
		for _, it := range list {
			if it.App == app && it.PID != nil {
				if p, err := os.FindProcess(*it.PID); err == nil {
					p.Kill()
				}
			}
		}
	case n < 92:
		x.did("upgrade")
		var up Upgraded
		if err := x.ask("viscript.upgrade", nil, &up); err != nil {
			x.allow(err)
			return
		}
		eventually(x.t, func() error {
			var in Info
			err := x.ask("viscript.status", nil, &in)
			if err == nil && in.Generation < up.Generation {
				err = errors.New("not yet")
			}
			return err
		})
	default:
		x.did("kill viscript")
		time.Sleep(time.Duration(rand.N(20)) * time.Millisecond)
		x.d.Process.Kill()
		x.d.Wait()
		x.d = x.w.daemon()
		x.up()
	}
}

// stopAll ends every run of an app.
func (x *soak) stopAll(app string) {
	x.t.Helper()
	for {
		err := x.ask("viscript.stop", map[string]any{"id": app}, nil)
		switch {
		case err == nil:
		case errors.Is(err, signal.ErrUsage): // more than one
			text := err.Error()
			_, text, _ = strings.Cut(text, ": say ")
			ref, _, _ := strings.Cut(text, " or ")
			x.allow(x.ask("viscript.stop", map[string]any{"id": ref}, nil))
		default:
			x.allow(err)
			return
		}
	}
}

// allow lets pass what may happen: not running, not configured any more, being upgraded.
func (x *soak) allow(err error) {
	x.t.Helper()
	for _, ok := range []error{nil, signal.ErrNotRunning, signal.ErrNotFound, signal.ErrBusy, signal.ErrUsage, signal.ErrClosed} {
		if errors.Is(err, ok) {
			return
		}
	}
	x.t.Errorf("%v", err)
}

// note remembers which launches there were.
func (x *soak) note() {
	if st, err := x.w.savedNow(); err == nil {
		for _, a := range st.Apps {
			if a.Mark != "" {
				x.marks[a.Mark] = fmt.Sprintf("%s#%d, last seen %s with process %d after %v", a.App, a.ID, a.State, a.Process.PID, x.last)
			}
		}
	}
}

func (x *soak) fds() int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", x.d.Process.Pid))
	return len(list)
}

func (x *soak) rss() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", x.d.Process.Pid))
	var size, pages int
	fmt.Sscan(string(b), &size, &pages)
	return pages * os.Getpagesize()
}
