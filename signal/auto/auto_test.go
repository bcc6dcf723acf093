package auto

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	sig "skywire/signal"
)

// TestMain makes the test binary an app: its init function has run by now.
func TestMain(m *testing.M) {
	if os.Getenv("AUTO_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "SIGNAL_") {
			os.Exit(3)
		}
	}
	if fd := os.Getenv("AUTO_TEST_FD"); fd != "" { // not inherited by programs of the app
		if err := exec.Command("/bin/sh", "-c", "test ! -e /proc/self/fd/"+fd).Run(); err != nil {
			os.Exit(4)
		}
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	Status("up")
	Ready()
	<-term
	os.Exit(7)
}

// server is viscript's side by hand.
type server struct {
	hello chan map[string]any
	notes chan string
}

func newServer() *server {
	return &server{hello: make(chan map[string]any, 5), notes: make(chan string, 5)}
}

func (s *server) handle(_ context.Context, r *sig.Request) (any, error) {
	if r.Method != "hello" {
		s.notes <- r.Method
		return nil, nil
	}
	var p map[string]any
	err := r.Bind(&p)
	s.hello <- p
	return map[string]int{"proto": 1, "id": 3}, err
}

func child(t *testing.T, f *os.File, env ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(append(os.Environ(), "AUTO_TEST_CHILD=1"), env...)
	if f != nil {
		c.ExtraFiles = []*os.File{f}
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestInheritedDescriptor(t *testing.T) {
	t.Parallel()
	nc, f, err := sig.Pair()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := newServer()
	conn := sig.NewConn(nc, s.handle)
	defer conn.Close()
	go conn.Run(t.Context())
	c := child(t, f, "SIGNAL_FD=3", "SIGNAL_CLIENT_ID=3", "SIGNAL_TOKEN=secret", "AUTO_TEST_FD=3")
	f.Close()
	if p := <-s.hello; p["pid"] != float64(c.Process.Pid) || p["id"] != nil || p["token"] != nil { // the descriptor says it all
		t.Errorf("hello: %v", p)
	}
	if a, b := <-s.notes, <-s.notes; a == b { // ready and status, as the connection comes before or after them
		t.Errorf("got %s twice", a)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var pong struct{ PID int }
	if err := conn.Call(ctx, "ping", nil, &pong); err != nil || pong.PID != c.Process.Pid {
		t.Errorf("ping: %+v, %v", pong, err)
	}
	var ru map[string]any
	if err := conn.Call(ctx, "ru", struct{}{}, &ru); err != nil || ru["heap_bytes"] == nil {
		t.Errorf("ru: %v, %v", ru, err)
	}
	if err := conn.Call(ctx, "loglevel", nil, nil); !errors.Is(err, sig.ErrUnknownMethod) {
		t.Errorf("unknown method: %v", err)
	}
	if err := conn.Call(ctx, "shutdown", map[string]any{"grace_ms": 1000, "reason": "test"}, nil); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if c.Wait(); c.ProcessState.ExitCode() != 7 {
		t.Errorf("ended with %v", c.ProcessState)
	}
}

// TestAddress joins as in 2017, by the three variables, and again when the server was restarted.
func TestAddress(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "auto")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	s := newServer()
	serve := func() func() {
		l, err := sig.Listen(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { sig.Serve(ctx, l, func(*sig.Conn) sig.Handler { return s.handle }) })
		return func() {
			cancel()
			wg.Wait()
		}
	}
	stop := serve()
	c := child(t, nil, "SIGNAL_CLIENT=true", "SIGNAL_CLIENT_ID=3", "SIGNAL_SERVER_ADDRESS="+path)
	defer c.Wait()
	defer c.Process.Kill()
	for i := range 2 {
		select {
		case p := <-s.hello:
			if p["id"] != float64(3) {
				t.Errorf("hello: %v", p)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("no hello %d", i)
		}
		if a, b := <-s.notes, <-s.notes; a == b {
			t.Errorf("got %s twice", a)
		}
		stop()
		if i == 0 {
			stop = serve()
		}
	}
}

func TestFromEnvironment(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tests := []struct {
		name string
		env  map[string]string
		join bool
	}{
		{"nothing", nil, false},
		{"2017", map[string]string{"SIGNAL_CLIENT": "true", "SIGNAL_CLIENT_ID": "2", "SIGNAL_SERVER_ADDRESS": "localhost:7999"}, true},
		{"switched off", map[string]string{"SIGNAL_CLIENT": "false", "SIGNAL_CLIENT_ID": "2", "SIGNAL_SERVER_ADDRESS": "localhost:7999"}, false},
		{"no address", map[string]string{"SIGNAL_CLIENT": "true", "SIGNAL_CLIENT_ID": "2"}, false},
		{"address alone", map[string]string{"SIGNAL_SERVER_ADDRESS": "localhost:7999"}, false},
		{"descriptor that is none", map[string]string{"SIGNAL_FD": "9999"}, false},
		{"descriptor of standard error", map[string]string{"SIGNAL_FD": "2"}, false},
		{"no number", map[string]string{"SIGNAL_FD": "x"}, false},
	}
	for _, tt := range tests {
		m, nc := fromEnvironment(func(k string) (string, bool) { v, ok := tt.env[k]; return v, ok })
		if (m != nil) != tt.join || nc != nil {
			t.Errorf("%s: %+v, %v", tt.name, m, nc)
		}
	}
}

// TestRetries: an absent viscript is asked for seldom, and the wait has an end.
func TestRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &member{address: "/nonexistent/skywire/test.sock"}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { m.run(ctx, nil) })
		time.Sleep(time.Hour)
		cancel()
		wg.Wait()
	})
}
