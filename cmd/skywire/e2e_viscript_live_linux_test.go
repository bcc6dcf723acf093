package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// live is the real binary as viscript, in directories of its own; its run directory is RAM, as it is where it belongs.
type live struct {
	t           *testing.T
	binary, dir string
	wrap        []string // a program that becomes it, or its parent
	environ     []string
	uid         int // 0: as we are

	log sync.Mutex // guards out
	out bytes.Buffer
	cmd *exec.Cmd
}

func newLive(t *testing.T, yaml string) *live {
	t.Helper()
	binary, err := builtBinary()
	if err != nil {
		t.Fatal(err)
	}
	ram := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		ram = "/dev/shm"
	}
	dir, err := os.MkdirTemp(ram, "live")
	if err != nil {
		t.Fatal(err)
	}
	v := &live{t: t, binary: binary, dir: dir}
	v.write(yaml)
	t.Cleanup(func() {
		v.kill()
		if t.Failed() {
			v.log.Lock()
			t.Logf("--- log of viscript\n%s", tail(v.out.String(), 25))
			v.log.Unlock()
		}
		os.RemoveAll(dir)
	})
	return v
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (v *live) write(yaml string) {
	v.t.Helper()
	if err := os.WriteFile(filepath.Join(v.dir, "config.yaml"), []byte(yaml), 0o600); err != nil {
		v.t.Fatal(err)
	}
}

func (v *live) run() string { return filepath.Join(v.dir, "run") }

// words are a command of the binary with the directories of this viscript.
func (v *live) words(words ...string) []string {
	return append([]string{v.binary, "viscript"}, words...)
}

func (v *live) command(ctx context.Context, argv ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "SKYWIRE_STATE=" + filepath.Join(v.dir, "state"), "SKYWIRE_RUN=" + v.run(),
		"SKYWIRE_CONFIG=" + filepath.Join(v.dir, "config.yaml"),
	}, v.environ...)
	if v.uid != 0 {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(v.uid), Gid: uint32(v.uid)}}
	}
	return c
}

// Write takes what viscript says.
func (v *live) Write(b []byte) (int, error) {
	v.log.Lock()
	defer v.log.Unlock()
	return v.out.Write(b)
}

// start starts it and waits until it answers.
func (v *live) start() {
	v.t.Helper()
	v.cmd = v.command(context.Background(), append(slices.Clone(v.wrap), v.words("run", "--headless")...)...)
	v.cmd.Stdout, v.cmd.Stderr = v, v
	v.cmd.WaitDelay = time.Second
	if err := v.cmd.Start(); err != nil {
		v.t.Fatal(err)
	}
	v.wait("viscript", func(ctx context.Context) error { return v.ask(ctx, nil, "status") })
}

func (v *live) wait(what string, check func(context.Context) error) {
	v.t.Helper()
	if err := lab.Wait(v.t.Context(), patience, what, check); err != nil {
		v.t.Fatal(err)
	}
}

// ask runs a verb with --json.
func (v *live) ask(ctx context.Context, into any, words ...string) error {
	c := v.command(ctx, v.words(append(words, "--json")...)...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", words, err, stderr.String())
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(out, into)
}

// verb runs a verb that has to work.
func (v *live) verb(words ...string) string {
	v.t.Helper()
	c := v.command(v.t.Context(), v.words(words...)...)
	out, err := c.CombinedOutput()
	if err != nil {
		v.t.Fatalf("viscript %v: %v: %s", words, err, out)
	}
	return strings.TrimSpace(string(out))
}

// ends waits for its exit status.
func (v *live) ends() int {
	v.t.Helper()
	done := make(chan struct{})
	go func() {
		v.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		v.t.Fatal("viscript does not end")
	}
	c := v.cmd
	v.cmd = nil
	return c.ProcessState.ExitCode()
}

// kill ends viscript and all its apps, whatever state they are in.
func (v *live) kill() {
	if v.cmd != nil {
		v.cmd.Process.Kill()
		v.cmd.Wait()
		v.cmd = nil
	}
	for range 20 {
		apps := v.apps()
		if len(apps) == 0 {
			return
		}
		for _, pid := range apps {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// apps are the processes that live in the apps, by their environment, and not what viscript says.
func (v *live) apps() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		b, err := os.ReadFile(f)
		vars := strings.Split(string(b), "\x00")
		if err != nil || !slices.Contains(vars, "SKYWIRE_RUN="+v.run()) ||
			!slices.ContainsFunc(vars, func(kv string) bool { return strings.HasPrefix(kv, "VISCRIPT_LAUNCH=") }) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		pids = append(pids, pid)
	}
	return pids
}

// pid of viscript, as this machine sees it.
func (v *live) pid() int {
	if len(v.wrap) == 0 {
		return v.cmd.Process.Pid
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", v.cmd.Process.Pid, v.cmd.Process.Pid))
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		v.t.Fatalf("no child of %v: %q", v.wrap, b)
	}
	return pid
}

// orderApps say when they are told to end; web needs db, which needs net.
const orderApps = `apps:
  web: {path: /bin/sh, default_args: [-c, 'trap "echo web >>$0; exit" TERM; while :; do sleep 0.05; done', ORDER], depends_on: [db], autostart: true}
  db: {path: /bin/sh, default_args: [-c, 'trap "sleep 0.2; echo db >>$0; exit" TERM; while :; do sleep 0.05; done', ORDER], depends_on: [net], autostart: true}
  net: {path: /bin/sh, default_args: [-c, 'trap "echo net >>$0; exit" TERM; while :; do sleep 0.05; done', ORDER], autostart: true}
  deaf: {path: /bin/sh, default_args: [-c, 'trap "" TERM; setsid sleep 1000 & while :; do sleep 1; done'], stop_timeout: 0.3, autostart: true}
  orphans: {path: /bin/sh, default_args: [-c, 'while :; do (setsid sleep 0.05 &); sleep 0.05; done'], autostart: true}
`

// TestE2EViscriptPID1: as the first process of a system viscript waits for every orphan, of its apps and of nobody, and
// SIGTERM and SIGINT end all apps in order, and it.
func TestE2EViscriptPID1(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root: process namespaces")
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			v := newLive(t, "")
			order := filepath.Join(v.dir, "order")
			v.write(strings.ReplaceAll(orderApps, "ORDER", order))
			v.wrap = []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child"}
			v.start()
			var in struct{ PID int }
			if err := v.ask(t.Context(), &in, "status"); err != nil || in.PID != 1 {
				t.Fatalf("it is process %d, %v", in.PID, err)
			}
			v.running("web", "db", "net", "deaf", "orphans")
			pid := v.pid()
			// An orphan of nobody: what was started beside viscript and left its parent.
			for range 5 {
				out, err := exec.Command("nsenter", "-t", strconv.Itoa(pid), "-p", "-m", "sh", "-c", "(setsid sleep 0.1 &) ; exit 0").CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			old := zombiesOf(pid)
			v.wait("every orphan is waited for", func(context.Context) error {
				for _, z := range zombiesOf(pid) {
					if slices.Contains(old, z) {
						return fmt.Errorf("zombie %s", z)
					}
				}
				return nil
			})
			syscall.Kill(pid, sig)
			if code := v.ends(); code != 0 {
				t.Errorf("status %d", code)
			}
			b, _ := os.ReadFile(order)
			if string(b) != "web\ndb\nnet\n" {
				t.Errorf("they ended in the order %q", b)
			}
			v.clean()
		})
	}
}

// running waits until these apps run.
func (v *live) running(apps ...string) {
	v.t.Helper()
	v.wait("the apps", func(ctx context.Context) error {
		var list []psEntry
		if err := v.ask(ctx, &list, "ps"); err != nil {
			return err
		}
		for _, app := range apps {
			if !slices.ContainsFunc(list, func(p psEntry) bool { return p.Name == app && (p.State == "running" || p.State == "ready") }) {
				return fmt.Errorf("%s: %+v", app, list)
			}
		}
		return nil
	})
}

// clean wants nothing to be left of a viscript that has ended.
func (v *live) clean() {
	v.t.Helper()
	if left := v.apps(); len(left) != 0 {
		v.t.Errorf("processes %v are left", left)
	}
	filepath.WalkDir(v.run(), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			v.t.Errorf("%s is left", path)
		}
		return nil
	})
}

// zombiesOf are the children of a process that have ended and are not waited for, as "pid start".
func zombiesOf(parent int) (list []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, _ := os.ReadFile(f)
		head, rest, _ := strings.Cut(string(b), " (")
		_, rest, _ = strings.Cut(rest, ") ")
		if fields := strings.Fields(rest); len(fields) > 20 && fields[0] == "Z" && fields[1] == strconv.Itoa(parent) {
			list = append(list, head+" "+fields[19])
		}
	}
	return list
}

// manager is what procd or systemd is to viscript.
type manager struct {
	t *testing.T
	c *net.UnixConn
}

func (m *manager) hears(prefix string) string {
	m.t.Helper()
	buf := make([]byte, 500)
	for {
		m.c.SetReadDeadline(time.Now().Add(patience))
		n, err := m.c.Read(buf)
		if err != nil {
			m.t.Fatalf("%s was not said: %v", prefix, err)
		}
		if strings.HasPrefix(string(buf[:n]), prefix) {
			return string(buf[:n])
		}
	}
}

// TestE2EViscriptManaged: as a service manager treats its services, with an environment of nothing: it is told when viscript
// serves, lives, reads its file again (by SIGHUP, as procd and ExecReload do) and ends; killed and started again it has its
// apps. As root, and as a user who may nothing.
func TestE2EViscriptManaged(t *testing.T) {
	t.Parallel()
	for name, uid := range map[string]int{"root": 0, "plain user": 65534} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if os.Geteuid() != 0 {
				t.Skip("needs root to become somebody")
			}
			v := newLive(t, "apps:\n  a: {path: /bin/sleep, default_args: [1000], autostart: true, limits: {memory: 50MiB}}\n")
			v.asUser(uid)
			path := filepath.Join(v.dir, "manager")
			c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			os.Chmod(path, 0o777)
			m := &manager{t, c}
			v.environ = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=400000"}
			v.start()
			if got := m.hears("READY=1"); got != fmt.Sprintf("READY=1\nMAINPID=%d", v.pid()) {
				t.Errorf("%q", got)
			}
			m.hears("STATUS=1 apps run, 0 failed")
			m.hears("WATCHDOG=1")
			v.running("a")
			before := v.apps()
			v.write("apps:\n  a: {path: /bin/sleep, default_args: [1000], autostart: true, limits: {memory: 50MiB}}\n  b: {path: /bin/cat, autostart: true}\n")
			v.cmd.Process.Signal(syscall.SIGHUP)
			m.hears("RELOADING=1\nMONOTONIC_USEC=")
			m.hears("READY=1")
			v.running("a", "b")
			v.write("apps: [")
			v.cmd.Process.Signal(syscall.SIGHUP)
			m.hears("RELOADING=1")
			m.hears("READY=1")
			v.write("apps:\n  a: {path: /bin/sleep, default_args: [1000], autostart: true, limits: {memory: 50MiB}}\n  b: {path: /bin/cat, autostart: true}\n")
			v.cmd.Process.Kill()
			v.ends()
			v.start()
			v.running("a")
			if after := v.apps(); len(before) != 1 || !slices.Contains(after, before[0]) {
				t.Errorf("the apps were %v and are %v", before, after)
			}
			m.hears("READY=1")
			v.verb("upgrade")
			if got := m.hears("READY=1"); got != fmt.Sprintf("READY=1\nMAINPID=%d", v.pid()) {
				t.Errorf("after the upgrade: %q", got)
			}
			m.hears("WATCHDOG=1")
			v.cmd.Process.Signal(syscall.SIGTERM)
			m.hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=")
			if code := v.ends(); code != 0 {
				t.Errorf("status %d", code)
			}
			v.clean()
		})
	}
}

// asUser has viscript run as somebody else, who may read the binary and owns the directories.
func (v *live) asUser(uid int) {
	v.t.Helper()
	if uid == 0 {
		return
	}
	v.uid = uid
	for _, path := range []string{v.dir, filepath.Join(v.dir, "config.yaml")} {
		if err := os.Chown(path, uid, uid); err != nil {
			v.t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "live")
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(func() { os.RemoveAll(dir) })
	from := v.binary
	v.binary = filepath.Join(dir, "skywire")
	if err := errors.Join(os.Chmod(dir, 0o755), copyProgram(v.t, from, v.binary)); err != nil {
		v.t.Fatal(err)
	}
}

// TestE2EViscriptIdle is T-S11: with eight apps, one of which speaks signal, viscript takes less than 20 MB and next to no
// CPU, and wakes up no more than once a second.
func TestE2EViscriptIdle(t *testing.T) {
	t.Parallel()
	text := "apps:\n  speaks: {path: apptracker, default_args: [\"127.0.0.1:0\"], autostart: true}\n"
	for i := range 7 {
		text += fmt.Sprintf("  quiet%d: {path: /bin/sleep, default_args: [1000], autostart: true}\n", i)
	}
	v := newLive(t, text)
	v.start()
	v.running("speaks", "quiet6")
	look := 8 * time.Second
	if full() {
		look = time.Minute
	}
	time.Sleep(3 * time.Second) // what the start has left to do
	before, begin := taskCost(t, v.pid()), time.Now()
	time.Sleep(look)
	after, wall := taskCost(t, v.pid()), time.Since(begin)
	rss := v.status("VmRSS:") << 10
	wakes := float64(after.wakes(before)) / wall.Seconds()
	share := 100 * (after.cpu - before.cpu).Seconds() / wall.Seconds()
	t.Logf("RSS %.1f MB, %.4f %% of a CPU, %.2f wake-ups of threads a second", float64(rss)/1e6, share, wakes)
	if rss > 20e6 {
		t.Errorf("RSS %d", rss)
	}
	if share > 0.1 {
		t.Errorf("%.3f %% of a CPU", share)
	}
	if wakes > 1 {
		t.Errorf("%.2f wake-ups a second", wakes)
	}
}

func (v *live) status(name string) int {
	v.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", v.pid()))
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if w := strings.Fields(lines.Text()); len(w) > 1 && w[0] == name {
			n, _ := strconv.Atoi(w[1])
			return n
		}
	}
	return 0
}

// tasks is what the threads of a process have cost.
type tasks struct {
	cpu      time.Duration
	switches map[string]int // by thread: it had nothing to do
}

func taskCost(t *testing.T, pid int) tasks {
	t.Helper()
	c := tasks{switches: map[string]int{}}
	dirs, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, dir := range dirs {
		b, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			t.Skip("this kernel does not count: ", err)
		}
		var ns int64
		fmt.Sscan(string(b), &ns)
		c.cpu += time.Duration(ns)
		status, _ := os.ReadFile(filepath.Join(dir, "status"))
		_, rest, _ := strings.Cut(string(status), "\nvoluntary_ctxt_switches:")
		n := 0
		fmt.Sscan(rest, &n)
		c.switches[dir] = n
	}
	return c
}

// wakes is how often threads have begun to do something since before. The one that did so most often is Go's own watcher,
// which naps for microseconds while another works and sleeps when none does: it wakes for none.
func (c tasks) wakes(before tasks) (sum int) {
	most := 0
	for dir, n := range c.switches {
		n -= before.switches[dir]
		sum, most = sum+n, max(most, n)
	}
	return sum - most
}
