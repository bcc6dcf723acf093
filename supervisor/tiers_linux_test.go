package supervisor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// reaches waits until an app is in a state, and returns it then.
func (s *Supervisor) reaches(t *testing.T, app string, want State, reason string) Item {
	t.Helper()
	var it Item
	eventually(t, func() error {
		list, err := s.List(t.Context(), true)
		if err != nil {
			return err
		}
		for _, i := range list {
			if i.App == app {
				it = i
			}
		}
		got := ""
		if it.ExitReason != nil {
			got = *it.ExitReason
		}
		if it.State != want || !strings.Contains(got, reason) {
			return fmt.Errorf("%s is %s (%q), want %s (%q)", app, it.State, got, want, reason)
		}
		return nil
	})
	return it
}

// happened lists the events as "app event reason".
func (s *Supervisor) happened() (out []string) {
	lines, _ := s.bus.Last(-1)
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return out
}

// TestReadiness: every way in which an app can tell, or be seen, to serve.
func TestReadiness(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // a small web server; ends with the listener
		for n := 0; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				b := make([]byte, 1000)
				k, _ := c.Read(b)
				status := "503 Not Yet"
				if n > 2 && strings.HasPrefix(string(b[:k]), "GET /up?x=1 HTTP/1.0\r\nHost: ") {
					status = "200 OK"
				}
				fmt.Fprintf(c, "HTTP/1.0 %s\r\n\r\n", status)
				c.Close()
			}()
		}
	}()
	yaml := `apps:
  notify: {path: SELF, env: {SUPERVISOR_TEST_APP: notify}, default_args: ["STATUS=warming up\nX=1", 50ms, READY=1], ready: {notify: true}}
  fd: {path: /bin/sh, default_args: [-c, 'sleep 0.05; echo up >&5; exec sleep 1000'], ready: {fd: 5}}
  fd3: {path: /bin/sh, default_args: [-c, 'echo up >&3; test "$SIGNAL_FD" = 4 && exec sleep 1000'], ready: {fd: 3}}
  log: {path: /bin/sh, default_args: [-c, 'echo "x listening"; sleep 0.05; echo "listening on 80"; exec sleep 1000'], ready: {log: "^listening"}}
  exec: {path: /bin/sh, default_args: [-c, 'sleep 0.1; touch up; exec sleep 1000'], ready: {exec: [/bin/sh, -c, 'test -e up']}}
  tcp: {path: /bin/sleep, default_args: [1000], ready: {tcp: ADDR}}
  http: {path: /bin/sleep, default_args: [1000], ready: {http: "http://ADDR/up?x=1"}}
  signal: {path: SELF, env: {SUPERVISOR_TEST_APP: signal}, ready: {signal: true}}
  never: {path: /bin/sleep, default_args: [1000], ready: {log: "no such line", timeout: 0.2}, restart: never, stop_timeout: 1}
`
	s, _ := newWorld(t, strings.ReplaceAll(yaml, "ADDR", l.Addr().String())).run()
	apps := []string{"notify", "fd", "fd3", "log", "exec", "tcp", "http", "signal"}
	for _, app := range append(apps, "never") {
		if _, err := s.Start(t.Context(), app, nil, nil); err != nil {
			t.Errorf("%s: %v", app, err)
		}
	}
	for _, app := range apps {
		s.reaches(t, app, Ready, "")
	}
	if it := s.reaches(t, "notify", Ready, ""); it.Status != "warming up" {
		t.Errorf("%+v", it)
	}
	s.reaches(t, "never", Failed, "not ready within 200ms; signal SIGTERM")
}

// TestWatchdogAndHealth: an app that falls silent or fails its check is started again, with a hook before.
func TestWatchdogAndHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  beats: {path: SELF, env: {SUPERVISOR_TEST_APP: notify}, default_args: [READY=1, WATCHDOG=1, 100ms, WATCHDOG=1, 100ms, WATCHDOG=1, 100ms, WATCHDOG=1], watchdog: 0.3, restart: on-failure, restart_delay: 0.05, restart_limit: 1}
  asks: {path: SELF, env: {SUPERVISOR_TEST_APP: notify}, default_args: [READY=1, WATCHDOG=trigger], restart: never}
  sick: {path: /bin/sh, default_args: [-c, 'echo run; rm -f sick; sleep 0.2; touch sick; exec sleep 1000'], restart: on-failure, restart_delay: 0.05, restart_limit: 1,
    health: {exec: [/bin/sh, -c, 'test ! -e sick || { echo it is sick; exit 3; }'], every: 0.05, failures: 2},
    hooks: {restart: [/bin/sh, -c, 'echo "$EVENT $APP $REASON" >>hooked'], failed: [/bin/sh, -c, 'echo "$EVENT $APP_ID" >>hooked']}}
  told: {path: /bin/sleep, default_args: [1000], health: {exec: [/bin/false], every: 0.05, failures: 1, action: log}}
  ended: {path: /bin/sleep, default_args: [1000], health: {tcp: "127.0.0.1:1", every: 0.05, failures: 1, action: stop}}
`)
	s, _ := w.run()
	for _, app := range []string{"beats", "asks", "sick", "told", "ended"} {
		if _, err := s.Start(t.Context(), app, nil, nil); err != nil {
			t.Errorf("%s: %v", app, err)
		}
	}
	if it := s.reaches(t, "beats", Failed, "watchdog: silent for 300ms; signal SIGTERM; given up after 1 restarts"); it.Restarts != 1 {
		t.Errorf("%+v", it)
	}
	s.reaches(t, "asks", Failed, "watchdog: the app asked for it")
	if it := s.reaches(t, "sick", Failed, "exit status 3: it is sick, 2 times in a row; signal SIGTERM; given up"); it.Restarts != 1 {
		t.Errorf("%+v", it)
	}
	s.reaches(t, "told", Running, "")
	s.reaches(t, "ended", Exited, "stopped")
	eventually(t, func() error {
		b, err := os.ReadFile(filepath.Join(w.dir, "hooked"))
		if err == nil && (!strings.HasPrefix(string(b), "restart sick health: /bin/sh: exit status 3") || !strings.HasSuffix(string(b), "failed 3\n")) {
			err = errors.New(string(b))
		}
		return err
	})
	if !slices.ContainsFunc(s.happened(), func(e string) bool {
		return strings.Contains(e, `"sick"`) && strings.Contains(e, `"last":["run","run"]`)
	}) {
		t.Errorf("no last words: %q", s.happened())
	}
}

// TestDependencies: others first, held until they serve, failed with them, and stopped before them.
func TestDependencies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `apps:
  web: {path: /bin/sh, default_args: [-c, 'test -e db.up || exit 9; exec sleep 1000'], depends_on: [db, setup], autostart: true, restart: never}
  db: {path: /bin/sh, default_args: [-c, 'test -e setup.done || exit 8; sleep 0.2; touch db.up; echo up; exec sleep 1000'], ready: {log: up}, depends_on: [setup], restart: never}
  setup: {path: /bin/sh, default_args: [-c, 'sleep 0.1; touch setup.done'], oneshot: true}
  bad: {path: /bin/false, oneshot: true}
  after: {path: /bin/sleep, default_args: [1000], depends_on: [bad]}
  last: {path: /bin/sleep, default_args: [1000], depends_on: [after]}
  forever: {path: /bin/sleep, default_args: [1000], ready: {log: never}}
  held: {path: /bin/sleep, default_args: [1000], depends_on: [forever]}
`)
	s, stop := w.run()
	s.reaches(t, "web", Running, "")
	s.reaches(t, "db", Ready, "")
	s.reaches(t, "setup", Exited, "")
	s.mustStart(t, "last")
	s.reaches(t, "last", Failed, "it depends on after, which has failed")
	s.reaches(t, "after", Failed, "it depends on bad, which has failed")
	s.mustStart(t, "held")
	s.reaches(t, "held", Starting, "waits for forever")
	if it, err := s.Stop(t.Context(), "held", 0); err != nil || it.State != Exited {
		t.Errorf("%+v, %v", it, err)
	}
	s.mustStart(t, "held")
	stop()
	var order []string
	for _, e := range s.happened() {
		if strings.Contains(e, `"stopping"`) || strings.Contains(e, `"exited"`) {
			for _, app := range []string{"web", "db"} {
				if strings.Contains(e, `"`+app+`"`) {
					order = append(order, app)
				}
			}
		}
	}
	if got := strings.Join(order, " "); got != "web web db db" {
		t.Errorf("order of the end: %s", got)
	}
}

// TestMainProcess: a daemon that goes to the background and names its main process is followed there.
func TestMainProcess(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, `apps:
  daemon: {path: /bin/sh, daemon: true, restart: never,
    default_args: [-c, 'SUPERVISOR_TEST_APP=notify setsid SELF "MAINPID=%pid" READY=1 & sleep 0.5; exit 0']}
`).run()
	s.mustStart(t, "daemon")
	it := s.reaches(t, "daemon", Ready, "")
	time.Sleep(700 * time.Millisecond)
	again := s.reaches(t, "daemon", Ready, "")
	if *again.PID != *it.PID || it.Restarts != 0 {
		t.Errorf("%+v, then %+v", it, again)
	}
	if it, err := s.Stop(t.Context(), "daemon", 0); err != nil || it.State != Exited {
		t.Errorf("%+v, %v", it, err)
	}
}

// TestUserAndLimits needs root.
func TestUserAndLimits(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	w := newWorld(t, `apps:
  who: {path: /bin/sh, user: nobody, default_args: [-c, 'id -u; sleep 0.2; nice'], nice: 5, restart: never}
  few: {path: /bin/sh, default_args: [-c, 'sleep 0.2; ulimit -n'], limits: {files: 77}, restart: never}
  greedy: {path: /bin/sh, default_args: [-c, 'echo begin; exec tail /dev/zero'], limits: {memory: 20MiB}, restart: never}
  none: {path: /bin/true, user: no_such_user_x, restart: never}
`)
	if err := os.Chmod(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s, _ := w.run()
	s.mustStart(t, "who")
	s.reaches(t, "who", Exited, "")
	if got := s.text(t, "who"); !strings.HasPrefix(got, "65534\n5") {
		t.Errorf("%q", got)
	}
	s.mustStart(t, "few")
	s.reaches(t, "few", Exited, "")
	if got := s.text(t, "few"); !strings.HasPrefix(got, "77") {
		t.Errorf("%q", got)
	}
	if _, err := s.Start(t.Context(), "none", nil, nil); err == nil || !strings.Contains(err.Error(), `user "no_such_user_x": not in /etc/passwd`) {
		t.Errorf("%v", err)
	}
	s.mustStart(t, "greedy")
	it := s.reaches(t, "greedy", Failed, "")
	t.Logf("greedy: %s; %q", *it.ExitReason, s.text(t, "greedy"))
	if r := *it.ExitReason; r != "out of memory: killed by the kernel" && r != "exit status 1" { // without a cgroup: by rlimit
		t.Errorf("%q", r)
	}
}

func TestScheduled(t *testing.T) {
	t.Parallel()
	s, _ := newWorld(t, `apps:
  tick: {path: /bin/echo, default_args: [tock], schedule: "@every 1s"}
`).run()
	s.reaches(t, "tick", Exited, "")
	eventually(t, func() error {
		if n := strings.Count(s.text(t, "tick"), "tock"); n < 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	if it := stateOf(t, s, 1); it.App != "tick" {
		t.Errorf("%+v", it)
	}
}

// TestNotifyDescriptors: what passes descriptors beside its words (BARRIER, FDSTORE) gets them closed, and costs none here.
func TestNotifyDescriptors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "apps: {sh: {path: /bin/sleep, default_args: [1000], ready: {notify: true}}}\n")
	s, _ := w.run()
	s.mustStart(t, "sh")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, text := range []string{"READY=1", "BARRIER=1", "FDSTORE=1\nFDNAME=x", "STATUS=with one", "no variable"} {
		r, p, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if err := unix.Sendmsg(fd, []byte(text), unix.UnixRights(int(p.Fd())), &unix.SockaddrUnix{Name: s.notifyPath(1)}, 0); err != nil {
			t.Fatal(err)
		}
		p.Close()
		r.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%q: the descriptor stays open: %v", text, err)
		}
	}
	if it := s.reaches(t, "sh", Ready, ""); it.Status != "with one" {
		t.Errorf("%+v", it)
	}
}

// TestSystemdNotify: the program that shell scripts use, which waits until it was heard.
func TestSystemdNotify(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Skip("systemd-notify is not installed")
	}
	s, _ := newWorld(t, "apps: {sh: {path: /bin/sh, default_args: [-c, '"+path+" --ready --status=\"3 peers\" && echo heard; exec sleep 1000'], ready: {notify: true}}}\n").run()
	s.mustStart(t, "sh")
	if it := s.reaches(t, "sh", Ready, ""); it.Status != "3 peers" {
		t.Errorf("%+v", it)
	}
	s.says(t, "sh", "heard")
}

func FuzzNotify(f *testing.F) {
	f.Add("READY=1\nSTATUS=a b\nMAINPID=7\nWATCHDOG_USEC=99999999999999999999")
	f.Fuzz(func(t *testing.T, text string) {
		s := parseNotify(text)
		if s.watchdog < 0 || s.extend < 0 {
			t.Errorf("%+v", s)
		}
	})
}
