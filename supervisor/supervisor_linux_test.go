package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/signal"
	"skywire/signal/auto"
	"skywire/supervisor/proc"
)

// TestMain makes the test binary the apps of the tests, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("2")
		return
	}
	switch os.Getenv("SUPERVISOR_TEST_APP") {
	case "":
		os.Exit(m.Run())
	case "signal": // an app that joins by the blank import
		c := make(chan os.Signal, 1)
		ossignal.Notify(c, syscall.SIGTERM)
		for _, kv := range os.Environ() {
			if strings.HasPrefix(kv, "SIGNAL_") {
				fmt.Println("left in the environment:", kv)
			}
		}
		auto.Status("3 peers")
		auto.Ready()
		fmt.Println("serving")
		<-c
		fmt.Println("bye")
		os.Exit(0)
	case "hook":
		auto.OnShutdown(func(time.Duration) {
			fmt.Println("hook ran")
			os.Exit(5)
		})
		fmt.Println("serving")
		select {}
	case "deaf": // speaks signal, ignores shutdown and TERM
		ossignal.Ignore(syscall.SIGTERM)
		auto.OnShutdown(func(time.Duration) {})
		fmt.Println("serving")
		select {}
	case "count": // numbered lines, written in pieces that are no lines
		b := []byte{}
		for i := 1; ; i++ {
			b = fmt.Appendln(b, i)
			if len(b) > 1000 {
				os.Stdout.Write(b[:777])
				b = append(b[:0], b[777:]...)
				time.Sleep(4 * time.Millisecond)
			}
		}
	case "notify": // speaks sd_notify, by the words of its arguments
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		for _, w := range os.Args[1:] {
			if d, err := time.ParseDuration(w); err == nil {
				time.Sleep(d)
				continue
			}
			c.Write([]byte(strings.ReplaceAll(w, "%pid", strconv.Itoa(os.Getpid()))))
		}
		select {}
	case "truth":
		truthApp()
	case "viscript": // a daemon to be killed
		ended := make(chan os.Signal, 1)
		ossignal.Notify(ended, syscall.SIGCHLD)
		s, err := New(Config{
			ChildEnded: ended,
			File:       os.Getenv("TEST_CONFIG"), FileNamed: true, StateDir: os.Getenv("TEST_STATE"), RunDir: os.Getenv("TEST_RUN"),
			Environ: os.Environ(), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Subreaper: true, Self: os.Args[0],
			Version: "2", Exec: func(environ []string) error { return syscall.Exec(os.Args[0], os.Args, environ) },
		})
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is the folders of one viscript.
type world struct {
	t      *testing.T
	dir    string
	config Config
}

func newWorld(t *testing.T, yaml string) *world {
	t.Helper()
	ram := ""
	if proc.InRAM("/dev/shm") { // as run directories are
		ram = "/dev/shm"
	}
	dir, err := os.MkdirTemp(ram, "visc") // short: sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		sweep(filepath.Join(dir, "r"))
		os.RemoveAll(dir)
	})
	w := &world{t: t, dir: dir}
	w.write(yaml)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.config = Config{
		File: filepath.Join(dir, "config.yaml"), FileNamed: true, StateDir: filepath.Join(dir, "s"), RunDir: filepath.Join(dir, "r"),
		Dir: dir, Environ: []string{"PATH=" + os.Getenv("PATH"), "SELF=" + self}, Self: self,
	}
	return w
}

// sweep ends the apps of a viscript that was killed and that no other took over.
func sweep(run string) {
	list, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range list {
		b, err := os.ReadFile(dir + "/environ")
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == os.Getpid() || !slices.Contains(strings.Split(string(b), "\x00"), "SKYWIRE_RUN="+run) {
			continue
		}
		groups, _ := os.ReadFile(dir + "/cgroup")
		syscall.Kill(pid, syscall.SIGKILL)
		if _, name, ok := strings.Cut(string(groups), "0::"); ok && strings.Contains(name, "/viscript-") {
			for range 100 {
				if err := os.Remove("/sys/fs/cgroup/unified" + strings.TrimSpace(name)); err == nil || errors.Is(err, os.ErrNotExist) {
					break
				}
				time.Sleep(10 * time.Millisecond)
			}
		}
	}
}

func (w *world) write(yaml string) {
	w.t.Helper()
	self, _ := os.Executable()
	yaml = strings.ReplaceAll(yaml, "SELF", self)
	if err := os.WriteFile(filepath.Join(w.dir, "config.yaml"), []byte(yaml), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// run starts a viscript; the returned function ends it and waits.
func (w *world) run() (*Supervisor, func()) {
	w.t.Helper()
	s, err := New(w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				w.t.Errorf("run: %v", err)
			}
		case <-time.After(time.Minute): // far sooner than go test's own limit, which names no test
			stacks := make([]byte, 1<<20)
			w.t.Errorf("viscript does not end:\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	})
	w.t.Cleanup(stop)
	if _, err := s.Status(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return s, stop
}

// eventually waits until f returns nil.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second) // of a loaded machine
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *Supervisor) text(t *testing.T, ref string) string {
	t.Helper()
	var out []string
	err := s.do(t.Context(), func() error {
		e, err := s.find(ref)
		if err != nil {
			return err
		}
		lines, _ := e.out.ring.Last(-1)
		for _, l := range lines {
			if l.Stream != "viscript" {
				out = append(out, l.Text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

func (s *Supervisor) says(t *testing.T, ref, want string) {
	t.Helper()
	eventually(t, func() error {
		if got := s.text(t, ref); !strings.Contains(got, want) {
			return fmt.Errorf("%s said %q, want %q", ref, got, want)
		}
		return nil
	})
}

func (s *Supervisor) mustStart(t *testing.T, app string, args ...string) uint64 {
	t.Helper()
	id, err := s.Start(t.Context(), app, args, nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (s *Supervisor) joined(t *testing.T, id uint64) {
	t.Helper()
	eventually(t, func() error {
		if !s.hub.Joined(id) {
			return errors.New("not joined")
		}
		return nil
	})
}

const shells = `apps:
  sh: {path: /bin/sh, default_args: [-c, "echo default"], stop_timeout: 0.3}
`

func TestArgumentsAndLogs(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, shells).run()
	id := s.mustStart(t, "sh")
	s.says(t, strconv.FormatUint(id, 10), "default")
	eventually(t, func() error {
		if it := stateOf(t, s, id); it.State != Exited || it.ExitCode == nil || *it.ExitCode != 0 {
			return fmt.Errorf("%+v", it)
		}
		return nil
	})
	id = s.mustStart(t, "sh", "-c", `for a; do echo "[$a]"; done; exit 9`, "x", "MiXed Case", "it's", "", "-n", `"q"`, "ключ")
	s.says(t, fmt.Sprint("sh#", id), "[MiXed Case]\n[it's]\n[]\n[-n]\n[\"q\"]\n[ключ]")
	eventually(t, func() error {
		if it := stateOf(t, s, id); it.State != Failed || *it.ExitCode != 9 || *it.ExitReason != "exit status 9" {
			return fmt.Errorf("%+v", it)
		}
		return nil
	})
	s.mustStart(t, "sh", "-c", "echo oops >&2")
	s.says(t, "3", "oops")
	if _, err := s.Start(t.Context(), "hs", nil, nil); !errors.Is(err, signal.ErrNotFound) || !strings.Contains(err.Error(), "see: viscript apps") {
		t.Errorf("unknown app: %v", err)
	}
	for _, ref := range []string{"99", "sh#99", "nothing", "other#1"} {
		if _, err := s.Ping(t.Context(), ref); !errors.Is(err, signal.ErrNotFound) {
			t.Errorf("ping %s: %v", ref, err)
		}
	}
	if _, err := s.Stop(t.Context(), "1", 0); !errors.Is(err, signal.ErrNotRunning) {
		t.Errorf("stop of the ended: %v", err)
	}
}

func TestStopMeansStopped(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, shells).run()
	script := `trap '' TERM; sleep 1000 & setsid sh -c 'trap "" TERM; sleep 1000 & wait; while :; do sleep 1; done' & (setsid sleep 1000 &); echo up; while :; do sleep 1; done`
	a, b := s.mustStart(t, "sh", "-c", script), s.mustStart(t, "sh", "-c", "echo up; exec sleep 1000")
	s.says(t, fmt.Sprint(a), "up")
	s.says(t, fmt.Sprint(b), "up")
	eventually(t, func() error {
		if r, err := s.Usage(t.Context(), fmt.Sprint(a)); err != nil || *r.Processes < 6 {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
	var mark string
	s.do(t.Context(), func() error { mark = s.table[a].mark; return nil })
	begin := time.Now()
	if it, err := s.Stop(t.Context(), fmt.Sprint(a), 0); err != nil || it.State != Exited {
		t.Errorf("%+v, %v", it, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	if n := marked(t, mark); n != 0 {
		t.Errorf("%d processes survive", n)
	}
	if p, err := s.Ping(t.Context(), fmt.Sprint("sh#", b)); err != nil || p.AnsweredBy != "process" || p.ID != b {
		t.Errorf("the other: %+v, %v", p, err)
	}
	if it, err := s.Stop(t.Context(), "sh", 0); err != nil || *it.ExitReason != "stopped, signal SIGTERM" {
		t.Errorf("%+v, %v", it, err)
	}
}

func marked(t *testing.T, mark string) (n int) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), mark) {
			n++
		}
	}
	return n
}

// TestEndOfViscript: everything is stopped, nothing is left in the folders but the state.
func TestEndOfViscript(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shells)
	s, stop := w.run()
	id := s.mustStart(t, "sh", "-c", "trap '' TERM; setsid sleep 1000 & while :; do sleep 1; done")
	var mark string
	s.do(t.Context(), func() error { mark = s.table[id].mark; return nil })
	second, err := New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Run(t.Context()); !errors.Is(err, signal.ErrRefused) || !strings.Contains(err.Error(), "--run") {
		t.Errorf("a second viscript: %v", err)
	}
	stop()
	if n := marked(t, mark); n != 0 {
		t.Errorf("%d processes survive", n)
	}
	var left []string
	filepath.WalkDir(w.config.RunDir, func(path string, d os.DirEntry, _ error) error {
		if !d.IsDir() {
			left = append(left, path)
		}
		return nil
	})
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := s.Start(t.Context(), "sh", nil, nil); !errors.Is(err, signal.ErrNotRunning) {
		t.Errorf("start after the end: %v", err)
	}
}

func TestIDsAreNeverReused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shells)
	last := uint64(0)
	for i := range 3 {
		s, stop := w.run()
		for range 3 {
			id := s.mustStart(t, "sh")
			if id <= last {
				t.Errorf("run %d: id %d after %d", i, id, last)
			}
			last = id
		}
		stop()
	}
	if last != 9 {
		t.Errorf("last id %d", last)
	}
	if err := os.WriteFile(filepath.Join(w.config.StateDir, "viscript.json"), []byte("{half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := w.run()
	if id := s.mustStart(t, "sh"); id <= last {
		t.Errorf("after a damaged state file: id %d", id)
	}
	b, err := os.ReadFile(filepath.Join(w.config.StateDir, "viscript.json"))
	var ids savedIDs
	if err != nil || json.Unmarshal(b, &ids) != nil || ids.LastID <= last {
		t.Errorf("while it runs, for the case of a power cut: %s, %v", b, err)
	}
}

func TestSignalApp(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, `apps:
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}}
  old: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, legacy: true}
  hook: {path: SELF, env: {SUPERVISOR_TEST_APP: hook}}
  deaf: {path: SELF, env: {SUPERVISOR_TEST_APP: deaf}, stop_timeout: 0.6}
settings: {signal_tcp: "127.0.0.1:0"}
`).run()
	id := s.mustStart(t, "good")
	eventually(t, func() error {
		if it := stateOf(t, s, id); it.State != Ready || it.Status != "3 peers" {
			return fmt.Errorf("%+v", it)
		}
		return nil
	})
	if p, err := s.Ping(t.Context(), "good"); err != nil || p.AnsweredBy != "signal" {
		t.Errorf("ping: %+v, %v", p, err)
	}
	var said struct{ Goroutines int }
	if r, err := s.Usage(t.Context(), "good"); err != nil || json.Unmarshal(r.App, &said) != nil || said.Goroutines < 1 {
		t.Errorf("ru: %+v, %v", r, err)
	}
	if it, err := s.Stop(t.Context(), "good", 0); err != nil || it.State != Exited || *it.ExitReason != "stopped" {
		t.Errorf("stop: %+v, %v", it, err)
	}
	if got := s.text(t, "good"); got != "serving\nbye" {
		t.Errorf("said %q", got)
	}
	s.joined(t, s.mustStart(t, "old"))
	if p, err := s.Ping(t.Context(), "old"); err != nil || p.AnsweredBy != "signal" {
		t.Errorf("by TCP: %+v, %v", p, err)
	}
	s.joined(t, s.mustStart(t, "hook"))
	if it, err := s.Stop(t.Context(), "hook", 0); err != nil || it.ExitCode == nil || *it.ExitCode != 5 || s.text(t, "hook") != "serving\nhook ran" {
		t.Errorf("hook: %+v, %v", it, err)
	}
	s.joined(t, s.mustStart(t, "deaf"))
	s.says(t, "deaf", "serving")
	if it, err := s.Stop(t.Context(), "deaf", 0); err != nil || *it.ExitReason != "stopped, signal SIGKILL" {
		t.Errorf("deaf: %+v, %v", it, err)
	}
}

// hello tries to join at the address.
func hello(t *testing.T, path string, params map[string]any) (*signal.Conn, error) {
	t.Helper()
	c, err := signal.Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	return c, c.Call(ctx, "hello", params, nil)
}

func TestHostileSignalClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  quiet: {path: /bin/sh, default_args: [-c, 'echo $SIGNAL_TOKEN; exec sleep 1000']}
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}}
`)
	s, _ := w.run()
	id := s.mustStart(t, "quiet")
	s.says(t, "quiet", "\n"[:0])
	eventually(t, func() error {
		if len(s.text(t, "quiet")) != 32 {
			return errors.New("no token")
		}
		return nil
	})
	token, path := s.text(t, "quiet"), filepath.Join(w.config.RunDir, "signal.sock")
	good := s.mustStart(t, "good")
	eventually(t, func() error {
		if stateOf(t, s, good).State != Ready {
			return errors.New("not ready")
		}
		return nil
	})
	v1 := []int{1}
	for name, p := range map[string]map[string]any{
		"no token":          {"proto": v1, "id": id},
		"wrong token":       {"proto": v1, "id": id, "token": strings.Repeat("0", 32)},
		"token of another":  {"proto": v1, "id": good, "token": token},
		"unknown id":        {"proto": v1, "id": 99, "token": token},
		"connected already": {"proto": v1, "id": good},
		"no id":             {"proto": v1, "token": token},
	} {
		if _, err := hello(t, path, p); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := hello(t, path, map[string]any{"proto": []int{7}, "id": id, "token": token}); !errors.Is(err, signal.ErrUnsupported) {
		t.Errorf("other version: %v", err)
	}
	c, err := hello(t, path, map[string]any{"proto": v1, "id": id, "token": token})
	if err != nil {
		t.Fatalf("the right token: %v", err)
	}
	if _, err := hello(t, path, map[string]any{"proto": v1, "id": id, "token": token}); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("a second one with the right token: %v", err)
	}
	// It joined and answers nothing it knows: ping falls back, others are unharmed.
	if p, err := s.Ping(t.Context(), "quiet"); err != nil || p.AnsweredBy != "process" {
		t.Errorf("ping: %+v, %v", p, err)
	}
	if err := c.Call(t.Context(), "viscript.stop", map[string]any{"id": "good"}, nil); !errors.Is(err, signal.ErrUnknownMethod) {
		t.Errorf("an app tries to operate: %v", err)
	}
	for name, line := range map[string]string{
		"http": "POST / HTTP/1.1\r\n", "long": strings.Repeat("x", signal.MaxLine+1), "no hello": `{"jsonrpc":"2.0","id":1,"method":"ready"}` + "\n",
	} {
		raw, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		raw.SetDeadline(time.Now().Add(8 * time.Second))
		go io.WriteString(raw, line)
		if _, err := io.Copy(io.Discard, raw); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays open", name)
		}
		raw.Close()
	}
	silent, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	silent.SetDeadline(time.Now().Add(8 * time.Second))
	if _, err := io.Copy(io.Discard, silent); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("one that says nothing stays connected")
	}
	if p, err := s.Ping(t.Context(), "good"); err != nil || p.AnsweredBy != "signal" {
		t.Errorf("ping: %+v, %v", p, err)
	}
}

// TestOtherUser connects as another user, where the mode of the sockets would let it.
func TestOtherUser(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	w := newWorld(t, shells)
	s, _ := w.run()
	s.mustStart(t, "sh", "-c", "echo $SIGNAL_TOKEN; exec sleep 1000")
	eventually(t, func() error {
		if len(s.text(t, "sh")) != 32 {
			return errors.New("no token")
		}
		return nil
	})
	for _, name := range []string{"viscript.sock", "signal.sock"} {
		path := filepath.Join(w.config.RunDir, name)
		for _, p := range []string{w.dir, w.config.RunDir, path} {
			os.Chmod(p, 0o777)
		}
		for _, method := range []string{"viscript.ps", "hello"} {
			nc, err := dialAs(65534, path)
			if err != nil {
				t.Fatal(err)
			}
			c := signal.NewConn(nc, nil)
			go c.Run(t.Context())
			p := map[string]any{}
			if method == "hello" {
				p = map[string]any{"proto": []int{1}, "id": 1, "token": s.text(t, "sh")}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if err := c.Call(ctx, method, p, nil); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s on %s as another user: %v", method, name, err)
			}
			cancel()
			c.Close()
		}
	}
}

// dialAs connects with the credentials of uid: those of the thread that calls connect.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	out := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
				err = e
			}
		}
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			out <- result{nil, err}
			return
		}
		f := os.NewFile(uintptr(fd), path)
		defer f.Close()
		c, err := net.FileConn(f)
		out <- result{c, err}
	}()
	r := <-out
	return r.c, r.err
}

func TestInproc(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  say: {path: bin/say, inproc: true, default_args: [Hello]}
  panics: {path: panics, inproc: true}
  stays: {path: stays, inproc: true, stop_timeout: 0.2}
  missing: {path: missing, inproc: true}
`)
	release := make(chan struct{})
	w.config.Inproc = map[string]Inproc{
		"say": func(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
			fmt.Fprintln(stdout, args[0], slices.Contains(environ, "SKYWIRE_RUN="+w.config.RunDir))
			line, _ := bufio.NewReader(stdin).ReadString('\n')
			fmt.Fprint(stderr, "got ", line)
			<-ctx.Done()
			return 0
		},
		"panics": func(context.Context, []string, []string, io.Reader, io.Writer, io.Writer) int { panic("boom") },
		"stays": func(context.Context, []string, []string, io.Reader, io.Writer, io.Writer) int {
			<-release
			return 0
		},
	}
	s, _ := w.run()
	s.mustStart(t, "say")
	s.says(t, "say", "Hello true")
	if err := s.input(t.Context(), params{ID: "say", Data: []byte("typed\n")}); err != nil {
		t.Error(err)
	}
	s.says(t, "say", "got typed")
	if r, err := s.Usage(t.Context(), "say"); err != nil || r.RSS != nil || r.Source != "inproc" || r.PID != os.Getpid() {
		t.Errorf("%+v, %v", r, err)
	}
	if it, err := s.Stop(t.Context(), "say", 0); err != nil || it.State != Exited {
		t.Errorf("%+v, %v", it, err)
	}
	s.mustStart(t, "panics")
	s.says(t, "panics", "panic: boom")
	eventually(t, func() error {
		if it := stateOf(t, s, 2); it.State != Failed {
			return fmt.Errorf("%+v", it)
		}
		return nil
	})
	s.mustStart(t, "stays")
	if it, err := s.Stop(t.Context(), "stays", 0); err == nil || !strings.Contains(err.Error(), "does not end") {
		t.Errorf("%+v, %v", it, err)
	}
	close(release)
	if _, err := s.Start(t.Context(), "missing", nil, nil); err == nil || !strings.Contains(err.Error(), "no applet") {
		t.Error(err)
	}
}

// TestInprocReady: an app inside viscript says that it serves as a process would, and what depends on it waits for that.
func TestInprocReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  server: {path: server, inproc: true, ready: {notify: true}}
  client: {path: client, inproc: true, depends_on: [server]}
`)
	serve := make(chan struct{})
	started := make(chan bool, 1)
	var ready atomic.Bool
	w.config.Inproc = map[string]Inproc{
		"server": func(ctx context.Context, _, environ []string, _ io.Reader, _, stderr io.Writer) int {
			<-serve
			ready.Store(true)
			for _, kv := range environ {
				if path, ok := strings.CutPrefix(kv, "NOTIFY_SOCKET="); ok {
					if err := signal.Notify(path, "READY=1"); err != nil {
						fmt.Fprintln(stderr, err)
					}
				}
			}
			<-ctx.Done()
			return 0
		},
		"client": func(ctx context.Context, _, _ []string, _ io.Reader, _, _ io.Writer) int {
			started <- ready.Load()
			<-ctx.Done()
			return 0
		},
	}
	s, _ := w.run()
	s.mustStart(t, "client")
	if it := stateOf(t, s, 1); it.State == Ready {
		t.Errorf("%+v before it said so", it)
	}
	close(serve)
	select {
	case after := <-started:
		if !after {
			t.Error("the client was started before the server was ready")
		}
	case <-time.After(20 * time.Second):
		t.Error("the client never started: nobody heard that the server is ready")
	}
}

func TestProgramLookup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, shells)
	links := filepath.Join(w.dir, "links")
	cwd := filepath.Join(w.dir, "cwd")
	for _, f := range []string{"bin/here", "cwd/bin/there", "cwd/bin/here", "links/meshnet-run-node"} {
		p := filepath.Join(w.dir, f)
		os.MkdirAll(filepath.Dir(p), 0o755)
		if err := os.WriteFile(p, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	os.MkdirAll(filepath.Join(w.dir, "node"), 0o755)
	os.WriteFile(filepath.Join(w.dir, "text"), nil, 0o644)
	w.config.Dir, w.config.LinkDirs, w.config.Self = cwd, []string{links}, "/opt/skywire"
	w.config.Answers = func(name string) bool { return name == "meshnet-run-vpn-server" || name == "node" }
	s, err := New(w.config)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, file, argv0 string }{
		{"bin/here", w.dir + "/bin/here", w.dir + "/bin/here"},
		{"bin/there", cwd + "/bin/there", cwd + "/bin/there"},
		{"bin/meshnet/meshnet-run-node", links + "/meshnet-run-node", links + "/meshnet-run-node"},
		{"bin/meshnet/meshnet-run-vpn-server", "/opt/skywire", "meshnet-run-vpn-server"},
		{"node", "/opt/skywire", "node"},
		{"/bin/sh", "/bin/sh", "/bin/sh"},
		{"bin/none", "", ""},
		{"text", "", ""},
	}
	for _, tt := range tests {
		file, argv0, err := s.program(tt.path)
		if file != tt.file || argv0 != tt.argv0 || (err != nil) != (tt.file == "") {
			t.Errorf("%s: %s %s %v", tt.path, file, argv0, err)
		}
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  stays: {path: /bin/sleep, default_args: [1000], autostart: true}
  changes: {path: /bin/sleep, default_args: [1000], autostart: true, restart: never}
  goes: {path: /bin/sleep, default_args: [1000], autostart: true}
`)
	s, _ := w.run()
	before, err := s.List(t.Context(), false)
	if err != nil || len(before) != 3 {
		t.Fatalf("%+v, %v", before, err)
	}
	w.write("apps:\n  stays: {pth: x}\n")
	if _, err := s.Reload(t.Context(), false); err == nil || !strings.Contains(err.Error(), `did you mean "path"?`) {
		t.Errorf("a wrong file: %v", err)
	}
	w.write(`apps:
  stays: {path: /bin/sleep, default_args: [1000], autostart: true, desc: described now}
  changes: {path: /bin/sleep, default_args: [2000], autostart: true, restart: never}
  comes: {path: /bin/sleep, default_args: [1000], autostart: true}
`)
	for _, dry := range []bool{true, false} {
		p, err := s.Reload(t.Context(), dry)
		got := fmt.Sprint(p.Added, p.Removed, p.Changed, p.Stopped, p.Again, p.Started)
		if want := "[comes] [goes] [changes stays] [goes#2] [changes#1] [comes]"; err != nil || got != want {
			t.Errorf("dry %v: %s, want %s, %v", dry, got, want, err)
		}
	}
	eventually(t, func() error {
		list, err := s.List(t.Context(), false)
		if err != nil || len(list) != 3 {
			return fmt.Errorf("%+v, %v", list, err)
		}
		for _, it := range list {
			if it.State != Running || it.App == "stays" && *it.PID != *before[2].PID || it.App == "changes" && it.Args[0] != "2000" {
				return fmt.Errorf("%+v", it)
			}
		}
		return nil
	})
}

// daemon starts a viscript that can be killed.
func (w *world) daemon() *exec.Cmd { return w.daemonBy(exec.Command(w.config.Self)) }

// daemonBy starts it by a command that becomes it.
func (w *world) daemonBy(c *exec.Cmd) *exec.Cmd {
	w.t.Helper()
	c.Env = append(os.Environ(), "SUPERVISOR_TEST_APP=viscript", "TEST_CONFIG="+w.config.File, "TEST_STATE="+w.config.StateDir, "TEST_RUN="+w.config.RunDir)
	if testing.Verbose() {
		c.Stderr = os.Stderr
	}
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// savedNow reads what a viscript has written of itself.
func (w *world) savedNow() (st saved, err error) {
	b, err := os.ReadFile(filepath.Join(w.config.RunDir, "viscript.json"))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	return st, err
}

// TestKilledAtAnyMoment: viscript is killed again and again while an app writes; it keeps its pid and its id, and every
// line is there once.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  count: {path: SELF, daemon: true, env: {SUPERVISOR_TEST_APP: count}, autostart: true, log_bytes: 60000000, log: {rate: 0}}
`)
	if !proc.InRAM(w.dir) {
		t.Skip("no folder in RAM")
	}
	kills := 100
	if testing.Short() || slow() {
		kills = 8
	}
	var pid proc.ID
	for i := range kills {
		c := w.daemon()
		eventually(t, func() error {
			_, err := os.Stat(ControlSocket(w.config.RunDir))
			return err
		})
		time.Sleep(time.Duration(rand.N(60)) * time.Millisecond)
		if i == 0 {
			eventually(t, func() error {
				st, err := w.savedNow()
				if err == nil && (len(st.Apps) != 1 || st.Apps[0].Process.PID == 0) {
					err = fmt.Errorf("%+v", st)
				}
				if err == nil {
					pid = st.Apps[0].Process
				}
				return err
			})
		}
		c.Process.Kill()
		c.Wait()
		if st, err := w.savedNow(); err != nil || len(st.Apps) != 1 || st.Apps[0].Process != pid || st.Apps[0].ID != 1 {
			t.Fatalf("after kill %d: %+v, %v; the pid was %+v", i, st, err, pid)
		}
	}
	s, _ := w.run()
	if it := stateOf(t, s, 1); it.PID == nil || *it.PID != pid.PID {
		t.Errorf("%+v", it)
	}
	if it, err := s.Stop(t.Context(), "1", 0); err != nil {
		t.Errorf("%+v, %v", it, err)
	}
	n := 0
	var lines []Line
	s.do(t.Context(), func() error {
		lines, _ = s.table[1].out.ring.Last(-1)
		return nil
	})
	for _, l := range lines {
		if l.Stream != streamOut {
			continue
		}
		if n++; l.Text != strconv.Itoa(n) {
			if n > 1 && l == lines[len(lines)-1] || l.Seq+3 > lines[len(lines)-1].Seq {
				break // cut off by the end of the app
			}
			t.Fatalf("line %d is %q: lost or twice", n, l.Text)
		}
	}
	t.Logf("%d lines, %d kills", n, kills)
	if n < 1000 {
		t.Errorf("only %d lines", n)
	}
}

// TestKilledViscript: apps live on when viscript is killed, and the next one has them with all they said meanwhile.
func TestKilledViscript(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  tick: {path: /bin/sh, daemon: true, default_args: [-c, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done'], autostart: true}
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, autostart: true}
  short: {path: /bin/sh, default_args: [-c, 'sleep 0.6; setsid sleep 1000 & sleep 0.2'], autostart: true, restart: never}
`)
	c := w.daemon()
	var before saved
	eventually(t, func() (err error) {
		before, err = w.savedNow() // anew: what it leaves out would stay from the last look
		if err == nil && (len(before.Apps) != 3 || slices.ContainsFunc(before.Apps, func(a savedApp) bool { return a.Process.PID == 0 })) {
			err = fmt.Errorf("%+v", before)
		}
		return err
	})
	time.Sleep(200 * time.Millisecond)
	c.Process.Kill()
	c.Wait()
	time.Sleep(time.Second) // "short" ends, its child lives
	s, _ := w.run()
	pids := map[string]int{}
	for _, a := range before.Apps {
		pids[a.App] = a.Process.PID
	}
	list, err := s.List(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range list {
		if it.App != "short" && (it.PID == nil || *it.PID != pids[it.App] || !it.Adopted) {
			t.Errorf("not adopted: %+v", it)
		}
	}
	eventually(t, func() error {
		it := stateOf(t, s, idOf(list, "short"))
		if it.State != Failed || *it.ExitReason != "exit unknown (adopted)" {
			return fmt.Errorf("%+v", it)
		}
		return nil
	})
	for _, a := range before.Apps {
		if n := marked(t, proc.MarkVariable+"="+a.Mark); a.App == "short" && n != 0 {
			t.Errorf("what %q left behind lives: %d", a.App, n)
		}
	}
	eventually(t, func() error { // it joins again by its token
		p, err := s.Ping(t.Context(), "good")
		if err == nil && p.AnsweredBy != "signal" {
			err = errors.New("not joined again")
		}
		return err
	})
	eventually(t, func() error {
		if n := strings.Count(s.text(t, "tick"), "\n"); n < 60 {
			return fmt.Errorf("%d lines", n)
		}
		return nil
	})
	lines := strings.Split(s.text(t, "tick"), "\n")
	first, _ := strconv.Atoi(lines[0])
	for i, l := range lines {
		if l != strconv.Itoa(first+i) {
			t.Fatalf("line %d is %q, the first was %d: lost or twice", i, l, first)
		}
	}
	for _, app := range []string{"tick", "good"} {
		if it, err := s.Stop(t.Context(), app, 0); err != nil || it.State != Exited {
			t.Errorf("%+v, %v", it, err)
		}
	}
	if id := s.mustStart(t, "tick"); id <= before.LastID {
		t.Errorf("id %d again", id)
	}
}

func idOf(list []Item, app string) uint64 {
	for _, it := range list {
		if it.App == app {
			return it.ID
		}
	}
	return 0
}

// TestControlSocket drives the daemon as the verbs do.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "apps:\n  cat: {path: /bin/cat}\n  d: {path: /bin/cat, daemon: true}\n")
	s, _ := w.run()
	out := make(chan Output, 100)
	c, err := signal.Dial(t.Context(), ControlSocket(w.config.RunDir), func(_ context.Context, r *signal.Request) (any, error) {
		var o Output
		if json.Unmarshal(r.Params, &o) == nil {
			out <- o
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var st Started
	if err := c.Call(t.Context(), "viscript.start", params{App: "cat", Attach: true}, &st); err != nil {
		t.Fatal(err)
	}
	if err := c.Call(t.Context(), "viscript.input", params{ID: "cat", Data: []byte("no newline")}, nil); err != nil {
		t.Fatal(err)
	}
	if o := <-out; string(o.Data) != "no newline" || o.Stream != "stdout" {
		t.Errorf("%+v", o)
	}
	if err := c.Call(t.Context(), "viscript.input", params{ID: "cat"}, nil); err != nil {
		t.Fatal(err)
	}
	if o := <-out; o.Ended == nil || o.Ended.State != Exited || *o.Ended.ExitCode != 0 {
		t.Errorf("%+v", o)
	}
	for method, want := range map[string]error{"viscript.start": signal.ErrRefused, "viscript.nothing": signal.ErrUnknownMethod} {
		if err := c.Call(t.Context(), method, params{App: "d", Attach: true}, &st); !errors.Is(err, want) {
			t.Errorf("%s: %v", method, err)
		}
	}
	if err := c.Call(t.Context(), "viscript.ps", map[string]int{"al": 1}, nil); !errors.Is(err, signal.ErrUsage) {
		t.Errorf("unknown parameter: %v", err)
	}
	if _, err := s.Start(t.Context(), "cat", []string{strings.Repeat("x", maxArgs+1)}, nil); !errors.Is(err, signal.ErrUsage) {
		t.Errorf("long arguments: %v", err)
	}
}

// TestManyClients: a thousand pings at once, beside a client that follows a flood of lines and does not read, and one
// that sends garbage.
func TestManyClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  good: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}}
  flood: {path: /bin/sh, default_args: [-c, 'while :; do echo flood; done'], daemon: true}
`)
	s, _ := w.run()
	s.joined(t, s.mustStart(t, "good"))
	s.mustStart(t, "flood")
	deaf, err := net.Dial("unix", ControlSocket(w.config.RunDir))
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	io.WriteString(deaf, `{"jsonrpc":"2.0","id":1,"method":"viscript.logs","params":{"id":"flood","follow":true}}`+"\n")
	garbage, err := net.Dial("unix", ControlSocket(w.config.RunDir))
	if err != nil {
		t.Fatal(err)
	}
	defer garbage.Close()
	go io.WriteString(garbage, strings.Repeat("\x00garbage\n", 1000))
	w.thousandPings(w.pingers())
	if lines, _ := func() ([]Line, error) {
		var r *Ring
		err := s.do(t.Context(), func() error { r = s.table[2].out.ring; return nil })
		l, _ := r.Last(-1)
		return l, err
	}(); len(lines) == 0 || len(lines) > 2000 {
		t.Errorf("the ring holds %d lines", len(lines))
	}
	if _, err := s.Stop(t.Context(), "flood", 0); err != nil {
		t.Error(err)
	}
}
