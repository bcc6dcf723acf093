package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/supervisor"
)

// terminal opens a pseudo-terminal: what a person types into and sees, and what the shell gets as its terminal.
func terminal(t *testing.T) (person, shell *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	person = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: 200})
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	shell = os.NewFile(uintptr(tty), "tty")
	t.Cleanup(func() { shell.Close() })
	return person, shell
}

// screen collects what the shell prints.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *screen) follow(f *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := f.Read(b)
		s.mu.Lock()
		s.buf.Write(b[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// shows waits until the text is there, behind what was seen before, and forgets up to it.
func (s *screen) shows(t *testing.T, want string) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		s.mu.Lock()
		i := bytes.Index(s.buf.Bytes(), []byte(want))
		text := s.buf.String()
		if i >= 0 {
			s.buf.Next(i + len(want))
		}
		s.mu.Unlock()
		if i >= 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q does not appear in %q", want, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func daemon(t *testing.T, yaml string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := supervisor.New(supervisor.Config{File: file, FileNamed: true, StateDir: dir, RunDir: dir, Environ: os.Environ()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if _, err := s.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	return dir
}

const apps2 = `apps:
  cat: {path: /bin/cat}
  tick: {path: /bin/sh, daemon: true, default_args: [-c, 'while :; do echo tick; sleep 0.05; done']}
`

// TestTop looks at top in the shell's terminal.
func TestTop(t *testing.T) {
	t.Parallel()
	dir := daemon(t, apps2)
	person, tty := terminal(t)
	s := &screen{}
	go s.follow(person)
	ended := make(chan int, 1)
	go func() { ended <- Main(t.Context(), Config{RunDir: dir, Stdin: tty, Stdout: tty, Stderr: tty}, nil) }()
	s.shows(t, "viscript> ")
	fmt.Fprint(person, "start tick\r")
	s.shows(t, "viscript> ")
	fmt.Fprint(person, "top -d 0.2\r")
	s.shows(t, screenOpen)
	s.shows(t, "1 apps, 1 running")
	s.shows(t, "tick")
	s.shows(t, "1 apps, 1 running") // by itself
	fmt.Fprint(person, "m")
	s.shows(t, "q quits")
	fmt.Fprint(person, "q")
	s.shows(t, screenClose)
	s.shows(t, "viscript> ")
	fmt.Fprint(person, "top\r")
	s.shows(t, "1 apps, 1 running")
	fmt.Fprint(person, "\x03")
	s.shows(t, screenClose)
	fmt.Fprint(person, "sd tick\r")
	s.shows(t, "tick#1 stopped")
	fmt.Fprint(person, "exit\r")
	if code := <-ended; code != 0 {
		t.Errorf("status %d", code)
	}
}

func TestParseSince(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	tests := []struct{ text, want string }{
		{"10m", "2026-03-01 11:50:00"},
		{"-10m", "2026-03-01 11:50:00"},
		{"09:30", "2026-03-01 09:30:00"},
		{"2026-02-01", "2026-02-01 00:00:00"},
		{"2026-02-01 10:11", "2026-02-01 10:11:00"},
		{"soon", ""},
		{"", ""},
	}
	for _, tt := range tests {
		at, err := parseSince(tt.text, now)
		if got := at.Format(time.DateTime); (err == nil) != (tt.want != "") || err == nil && got != tt.want {
			t.Errorf("parseSince(%q) = %s, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

// TestShell types at a terminal.
func TestShell(t *testing.T) {
	t.Parallel()
	dir := daemon(t, apps2)
	person, tty := terminal(t)
	var s screen
	go s.follow(person)
	status := make(chan int, 1)
	go func() {
		status <- Main(context.Background(), Config{RunDir: dir, Stdin: tty, Stdout: tty, Stderr: tty}, nil)
	}()
	typed := func(text string) { person.WriteString(text) }
	s.shows(t, "viscript> ")
	typed("apps\t\r")
	s.shows(t, "tick")
	s.shows(t, "viscript> ")
	typed("s -a c\t\r")
	s.shows(t, "cat#1 started; Ctrl-Z detaches")
	typed("Hello There\r")
	s.shows(t, "Hello There\r\n") // typed
	s.shows(t, "Hello There\r\n") // and back
	typed("\x1a")
	s.shows(t, "detached from 1")
	s.shows(t, "viscript> ")
	typed("attach cat\t\r")
	typed("again\r")
	s.shows(t, "again\r\n")
	s.shows(t, "again\r\n")
	typed("\x04") // ends the input of cat, and so cat; the shell goes on
	s.shows(t, "cat#1 exited")
	s.shows(t, "viscript> ")
	typed("garbage\x03start tick\r")
	s.shows(t, "2\r\n")
	typed("logs tick -f\r")
	s.shows(t, "tick\r\ntick\r\n")
	typed("\x03")
	s.shows(t, "viscript> ")
	typed("ping 99\r")
	s.shows(t, "no app with id 99")
	typed("\x1b[A\r") // the line before
	s.shows(t, "no app with id 99")
	typed("sd 2\r")
	s.shows(t, "tick#2 stopped")
	typed("exit\r")
	select {
	case got := <-status:
		if got != 4 {
			t.Errorf("status %d, want that of the last that failed", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the shell does not end")
	}
}

// TestAttachedInterrupt: Ctrl-C goes to the app.
func TestAttachedInterrupt(t *testing.T) {
	t.Parallel()
	dir := daemon(t, apps2)
	person, tty := terminal(t)
	var s screen
	go s.follow(person)
	status := make(chan int, 1)
	go func() {
		status <- Main(context.Background(), Config{RunDir: dir, Stdin: tty, Stdout: tty, Stderr: tty}, []string{"start", "-a", "cat"})
	}()
	s.shows(t, "started")
	person.WriteString("x\r")
	s.shows(t, "x\r\n")
	s.shows(t, "x\r\n")
	person.WriteString("\x03")
	s.shows(t, "signal SIGINT")
	if got := <-status; got != 1 {
		t.Errorf("status %d", got)
	}
}

// TestGivenUp: a verb that waits ends with its context.
func TestGivenUp(t *testing.T) {
	t.Parallel()
	dir := daemon(t, apps2)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var errs bytes.Buffer
	out := &until{want: "tick\ntick\n", then: cancel}
	c := Config{RunDir: dir, Stdin: strings.NewReader(""), Stdout: out, Stderr: &errs}
	if got := Main(t.Context(), c, []string{"start", "tick"}); got != 0 {
		t.Fatalf("status %d: %s", got, errs.String())
	}
	if got := Main(ctx, c, []string{"logs", "-f", "tick"}); got != 0 || errs.Len() != 0 || !out.seen {
		t.Errorf("status %d: %s %s", got, out.buf.String(), errs.String())
	}
}

// until calls then when want was written.
type until struct {
	want string
	then func()
	buf  bytes.Buffer
	seen bool
}

func (u *until) Write(b []byte) (int, error) {
	u.buf.Write(b)
	if !u.seen && strings.Contains(u.buf.String(), u.want) {
		u.seen = true
		u.then()
	}
	return len(b), nil
}
