package proc

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hosts are the two ways to hold a tree: with a cgroup, where the machine has one, and without.
func hosts(t *testing.T, f func(t *testing.T, h *Host)) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	t.Run("proc", func(t *testing.T) {
		t.Parallel()
		h := NewHost(log, false)
		h.base = ""
		f(t, h)
	})
	t.Run("cgroup", func(t *testing.T) {
		t.Parallel()
		h := NewHost(log, false)
		if h.base == "" {
			t.Skip("no writable cgroup v2 here")
		}
		f(t, h)
	})
}

func mark(t *testing.T) string {
	t.Helper()
	return fmt.Sprintf("test%d-%d", os.Getpid(), time.Now().UnixNano())
}

// shell starts a script; it returns when the script has printed its first line.
func shell(t *testing.T, h *Host, script string) (*Child, string, <-chan Exit) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.Start(Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: os.Environ(),
		Stdin: null, Stdout: w, Stderr: w, Mark: mark(t),
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	exit := make(chan Exit, 1)
	go func() { exit <- c.Wait(context.Background()) }()
	t.Cleanup(func() {
		c.Kill()
		c.Release()
		r.Close()
	})
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("script said nothing: %v", err)
	}
	return c, strings.TrimSpace(line), exit
}

func TestExit(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		_, _, exit := shell(t, h, "echo; exit 7")
		if e := <-exit; e.Code == nil || *e.Code != 7 || e.OK() {
			t.Errorf("%+v", e)
		}
		_, _, exit = shell(t, h, "echo; kill -SEGV $$")
		if e := <-exit; e.Signal != "SEGV" || e.Code != nil {
			t.Errorf("%+v", e)
		}
	})
}

// escapees is every way to leave a tree: background, new session, double fork, TERM ignored.
const escapees = `trap '' TERM
sleep 1000 &
setsid sleep 1000 &
(setsid sh -c 'sleep 1000 & sleep 1000' &) 
setsid sh -c 'trap "" TERM; for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sleep 1000 &); done; while :; do sleep 1; done' &
sh -c 'sh -c "sh -c \"sleep 1000 & sleep 1000 & wait\" & wait" & wait' &
sleep 0.5
echo started
wait
`

func TestKillLeavesNobody(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		c, _, exit := shell(t, h, escapees)
		if n := len(c.Members(true)); n < 20 {
			t.Errorf("found %d members, expected at least 20", n)
		}
		c.Signal(syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if c.Empty(ctx) {
			t.Error("the ones that ignore TERM are not seen")
		}
		if left := c.Kill(); len(left) != 0 {
			t.Errorf("survivors: %v", left)
		}
		<-exit
		if n := countMarked(t, c.mark); n != 0 {
			t.Errorf("%d processes of the launch live", n)
		}
		c.Release()
		if c.group != "" {
			if _, err := os.Stat(c.group); err == nil {
				t.Errorf("%s is left", c.group)
			}
		}
	})
}

// TestKillForkBomb kills what forks as fast as it can.
func TestKillForkBomb(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		c, _, exit := shell(t, h, `echo; while :; do setsid sleep 2 & setsid sleep 2 & sleep 0.01; done`)
		if left := c.Kill(); len(left) != 0 {
			t.Errorf("survivors: %v", left)
		}
		<-exit
		if n := countMarked(t, c.mark); n != 0 {
			t.Errorf("%d processes of the launch live", n)
		}
	})
}

// countMarked looks for the mark in all environments, independently of the code under test.
func countMarked(t *testing.T, mark string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), mark) {
			n++
		}
	}
	return n
}

func TestEmptyAfterTheFirstHasEnded(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		c, _, exit := shell(t, h, "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo")
		<-exit
		if n := len(c.Members(true)); n != 2 {
			t.Errorf("%d members, want the two sleepers", n)
		}
		c.Signal(syscall.SIGTERM)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if !c.Empty(ctx) {
			t.Errorf("left: %v", c.Members(true))
		}
	})
}

func TestAdopt(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		c, _, _ := shell(t, h, "sleep 1000 & echo; wait")
		again, err := h.Adopt(c.ID(), c.mark)
		if err != nil {
			t.Fatal(err)
		}
		gone := make(chan Exit, 1)
		go func() { gone <- again.Wait(t.Context()) }()
		if n := len(again.Members(true)); n != 2 {
			t.Errorf("%d members, want shell and sleep", n)
		}
		if left := again.Kill(); len(left) != 0 {
			t.Errorf("survivors %v", left)
		}
		select {
		case e := <-gone:
			if !e.Unknown && e.Signal != "KILL" { // shell waits, too, and one of the two is told
				t.Errorf("%+v", e)
			}
		case <-time.After(10 * time.Second):
			t.Error("the end was not seen")
		}
		if _, err := h.Adopt(c.ID(), c.mark); !errors.Is(err, ErrGone) {
			t.Errorf("the dead: %v", err)
		}
		self, _ := readStat(os.Getpid())
		if _, err := h.Adopt(ID{os.Getpid(), self.start - 1}, "other"); !errors.Is(err, ErrGone) {
			t.Errorf("another process with the number: %v", err)
		}
	})
}

// TestAdoptTheNumberOfAnother: an app has ended while no viscript ran, and somebody else got its number, and has ended too but for
// what lives on in his session. That is none of ours.
func TestAdoptTheNumberOfAnother(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		other, child, exit := shell(t, h, "sleep 1000 >/dev/null 2>&1 & echo $!")
		<-exit
		c, err := h.Adopt(other.ID(), mark(t))
		if !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
		defer c.Release()
		if list := c.Members(true); len(list) != 0 {
			t.Errorf("it takes %v for its own", list)
		}
		if left := c.Kill(); len(left) != 0 {
			t.Errorf("survivors %v", left)
		}
		pid, err := strconv.Atoi(child)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := readStat(pid); !ok || st.state == 'Z' {
			t.Error("it killed another's process")
		}
	})
}

func TestUsage(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		c, _, _ := shell(t, h, `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; dd if=/dev/zero of=/dev/null bs=1M count=10 2>/dev/null; exec 9</dev/null; sleep 1000 & echo; wait`)
		u := c.Usage()
		if u.Processes != 2 || u.Threads != 2 || u.CPUUser < 50*time.Millisecond || u.RSS == nil || *u.RSS < 500<<10 {
			t.Errorf("%+v", u)
		}
		if u.IOWrite == nil || *u.IOWrite < 10<<20 || *u.IOWrite > 11<<20 {
			t.Errorf("io: %v", u.IOWrite)
		}
		if u.FDs == nil || *u.FDs < 7 {
			t.Errorf("fds: %v", u.FDs)
		}
		c.Kill()
		if u := c.Usage(); u.Processes != 0 || u.RSS != nil {
			t.Errorf("after the end: %+v", u)
		}
	})
}

// TestPipe: the child lives on when the reader is gone, and nothing it said meanwhile is lost.
func TestPipe(t *testing.T) {
	t.Parallel()
	h := NewHost(slog.New(slog.DiscardHandler), false)
	path := filepath.Join(t.TempDir(), "log", "1.out")
	r, w, err := Pipe(path)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c, err := h.Start(Spec{
		Path: "/bin/sh", Args: []string{"sh", "-c", "i=0; while [ $i -lt 10 ]; do i=$((i+1)); echo line $i; sleep 0.02; done"},
		Stdin: null, Stdout: w, Stderr: w, Mark: mark(t),
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Release()
	b := bufio.NewReader(r)
	if line, err := b.ReadString('\n'); err != nil || line != "line 1\n" {
		t.Fatalf("%q, %v", line, err)
	}
	r.Close()
	r2, err := Reopen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r2.Close()
	if e := c.Wait(t.Context()); !e.OK() {
		t.Errorf("ended with %+v", e)
	}
	b = bufio.NewReader(r2)
	for i := 2; i <= 10; i++ {
		if line, err := b.ReadString('\n'); err != nil || line != fmt.Sprintf("line %d\n", i) {
			t.Errorf("%q, %v", line, err)
		}
	}
}

// TestSubreaper runs alone in a process of its own: being a subreaper belongs to the process.
func TestSubreaper(t *testing.T) {
	if os.Getenv("PROC_TEST_SUBREAPER") == "" {
		t.Parallel()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		p, err := os.StartProcess(self, []string{self, "-test.run=^TestSubreaper$"}, &os.ProcAttr{
			Env: append(os.Environ(), "PROC_TEST_SUBREAPER=1"), Files: []*os.File{nil, os.Stdout, os.Stderr},
		})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); err != nil || !st.Success() {
			t.Errorf("%v, %v", st, err)
		}
		return
	}
	h := NewHost(slog.New(slog.DiscardHandler), true)
	_, _, exit := shell(t, h, "(sh -c 'sleep 0.1; exit 3' >/dev/null 2>&1 &) ; sleep 0.05; echo; sleep 0.5")
	// A direct child of another part of the process, ended but not waited for: not ours to take.
	other, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	<-exit // by then the orphan should have ended, long ago
	deadline := time.Now().Add(10 * time.Second)
	for h.Reap(); orphans(h) > 1 && time.Now().Before(deadline); h.Reap() { // "true" is one
		time.Sleep(10 * time.Millisecond)
	}
	if n := orphans(h); n > 1 {
		t.Errorf("%d zombies left", n)
	}
	if st, err := other.Wait(); err != nil || !st.Success() {
		t.Errorf("the child of another part was taken: %v, %v", st, err)
	}
}

func orphans(h *Host) (n int) {
	for _, st := range scan() {
		if st.ppid == h.self && st.state == 'Z' {
			n++
		}
	}
	return n
}

func FuzzParseStat(f *testing.F) {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("1 (a) b) (c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 18446744073709551615 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); ok && s.state == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestStartBesideSweep starts programs while another viscript in the same cgroup sweeps away what it does not know.
func TestStartBesideSweep(t *testing.T) {
	hosts(t, func(t *testing.T, h *Host) {
		ctx, stop := context.WithCancel(t.Context())
		var other sync.WaitGroup
		other.Go(func() {
			for ctx.Err() == nil {
				h.Sweep(func(mark string) bool { return !strings.HasPrefix(mark, "swept-") })
			}
		})
		for i := range 30 {
			c, err := h.Start(Spec{Path: "/bin/true", Args: []string{"true"}, Mark: fmt.Sprintf("swept-%s-%d", mark(t), i)})
			if err != nil {
				t.Error(err)
				continue
			}
			if e := c.Wait(t.Context()); e.Code == nil || *e.Code != 0 {
				t.Errorf("%+v", e)
			}
			c.Release()
		}
		stop()
		other.Wait()
	})
}

// TestSpoolNeedsMemoryBack: where what came through can't be given back (ramfs, the root of some routers) there is no spool.
func TestSpoolNeedsMemoryBack(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	for kind, want := range map[string]error{"tmpfs": nil, "ramfs": errors.ErrUnsupported} {
		dir := t.TempDir()
		if err := syscall.Mount("none", dir, kind, 0, ""); err != nil {
			t.Skipf("no %s: %v", kind, err)
		}
		t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
		s, err := OpenSpool(filepath.Join(dir, "spool"))
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: %v, want %v", kind, err, want)
		}
		if err == nil {
			s.Close()
		}
	}
}

// TestOutOfMemoryCounters: what each kind of cgroup says of a kill for want of memory, and what is none.
func TestOutOfMemoryCounters(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		file, text string
		want       bool
	}{
		"v2":                 {"memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n", true},
		"v2, at the limit":   {"memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 0\noom_group_kill 0\n", false},
		"v1":                 {"memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", true},
		"v1, none":           {"memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 0\n", false},
		"v1 of old":          {"memory.oom_control", "oom_kill_disable 0\nunder_oom 1\n", false},
		"not to be read":     {"other", "oom_kill 1\n", false},
		"nothing after it":   {"memory.events", "oom_kill\n", false},
		"another, like name": {"memory.events", "oom_kills 1\n", false},
	}
	for name, tt := range tests {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &Child{id: ID{PID: 1 << 30}}
		if c.extra = []string{dir}; tt.file == "memory.events" {
			c.group, c.extra = dir, nil
		}
		if got := c.outOfMemory(); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestLimitsHoldTheQuick: what a program has started before its limits were set has them too.
func TestLimitsHoldTheQuick(t *testing.T) {
	t.Parallel()
	hosts(t, func(t *testing.T, h *Host) {
		escaped := 0
		for range 10 {
			null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			c, err := h.Start(Spec{
				Path: "/bin/sh", Args: []string{"sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000 & wait"}, Env: os.Environ(),
				Stdin: null, Stdout: null, Stderr: null, Mark: mark(t), Limits: Limits{Files: 77, Nice: 5},
			})
			null.Close()
			if err != nil {
				t.Fatal(err)
			}
			for len(c.Members(true)) < 4 {
				time.Sleep(time.Millisecond)
			}
			for _, id := range c.Members(true) {
				b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", id.PID))
				if err != nil || !strings.Contains(string(b), "Max open files            77 ") {
					escaped++
				}
			}
			c.Kill()
			c.Wait(t.Context())
			c.Release()
		}
		if escaped > 0 {
			t.Errorf("%d of 30 have not the limits of their app", escaped)
		}
	})
}
