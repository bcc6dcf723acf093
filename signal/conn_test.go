package signal

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe returns two running connections; both end with the test.
func pipe(t *testing.T, a, b Handler) (*Conn, *Conn) {
	t.Helper()
	x, y := net.Pipe()
	ca, cb := NewConn(x, a), NewConn(y, b)
	var wg sync.WaitGroup
	wg.Go(func() { ca.Run(context.Background()) })
	wg.Go(func() { cb.Run(context.Background()) })
	t.Cleanup(func() {
		ca.Close()
		cb.Close()
		wg.Wait()
	})
	return ca, cb
}

func echo(_ context.Context, r *Request) (any, error) {
	switch r.Method {
	case "echo":
		return r.Params, nil
	case "who":
		return nil, Errorf(ErrNotFound, "no app %q", "x")
	case "panic":
		panic("boom")
	case "strict":
		var p struct{ A int }
		return p, r.Bind(&p)
	}
	return nil, ErrUnknownMethod
}

func TestCall(t *testing.T) {
	t.Parallel()
	a, b := pipe(t, echo, echo)
	for name, c := range map[string]*Conn{"one way": a, "other way": b} {
		var got string
		if err := c.Call(t.Context(), "echo", "Grüße", &got); err != nil || got != "Grüße" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for method, want := range map[string]error{"who": ErrNotFound, "panic": ErrInternal, "nothing": ErrUnknownMethod} {
		if err := a.Call(t.Context(), method, nil, nil); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", method, err, want)
		}
	}
	if err := a.Call(t.Context(), "strict", map[string]int{"B": 1}, nil); !errors.Is(err, ErrUsage) {
		t.Errorf("unknown member: got %v", err)
	}
	var got string
	if err := a.Call(t.Context(), "echo", strings.Repeat("x", MaxLine), &got); !errors.Is(err, ErrLineTooLong) {
		t.Errorf("long line: got %v", err)
	}
	if err := a.Call(t.Context(), "echo", "still there", &got); err != nil {
		t.Errorf("after a refused line: %v", err)
	}
}

// TestAnswersBelongToTheirCalls: in 2017 two pings at once stole each other's answer.
func TestAnswersBelongToTheirCalls(t *testing.T) {
	t.Parallel()
	a, _ := pipe(t, nil, echo)
	var wg sync.WaitGroup
	for w := range 32 {
		wg.Go(func() {
			for i := range 50 {
				want, got := fmt.Sprint(w, "-", i), ""
				if err := a.Call(t.Context(), "echo", want, &got); err != nil || got != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestDeadlineAndCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := make(chan error, 2)
		a, _ := pipe(t, nil, func(ctx context.Context, _ *Request) (any, error) {
			<-ctx.Done()
			seen <- ctx.Err()
			return nil, ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Call(ctx, "hang", nil, nil); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrTimeout) {
			t.Errorf("got %v", err)
		}
		if err := <-seen; err == nil {
			t.Error("the handler was not told of the deadline")
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := a.Call(ctx, "hang", nil, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if err := <-seen; !errors.Is(err, context.Canceled) {
			t.Errorf("the handler was not told that nobody waits: %v", err)
		}
	})
}

// TestSlowReader: a peer that reads nothing is disconnected, and costs nobody more than WriteTimeout.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		c := NewConn(x, nil)
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(t.Context()) })
		start := time.Now()
		if err := c.Notify("log", "line"); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != WriteTimeout {
			t.Errorf("took %v", took)
		}
		wg.Wait()
	})
}

func TestSlowLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		c := NewConn(x, nil)
		result := make(chan error, 1)
		go func() { result <- c.Run(t.Context()) }()
		time.Sleep(time.Hour) // an idle peer is fine
		start := time.Now()
		y.Write([]byte(`{"jsonrpc":"2.0",`))
		if err := <-result; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != LineTimeout {
			t.Errorf("took %v", took)
		}
	})
}

// TestBusy: a peer that asks too much at once is told so; our own calls wait for their turn instead.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		wait := func(ctx context.Context, r *Request) (any, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return "done", nil
		}
		x, y := net.Pipe()
		c := NewConn(x, wait)
		var wg sync.WaitGroup
		wg.Go(func() { c.Run(t.Context()) })
		for id := range MaxRequests + 1 {
			fmt.Fprintf(y, `{"jsonrpc":"2.0","id":%d,"method":"wait"}`+"\n", id)
		}
		line, err := bufio.NewReader(y).ReadString('\n')
		if err != nil || !strings.Contains(line, fmt.Sprintf(`"id":%d,"error":{"code":-32005`, MaxRequests)) {
			t.Errorf("one too many: %s, %v", line, err)
		}
		y.Close()
		c.Close()
		wg.Wait()

		a, _ := pipe(t, nil, wait)
		for range 3 * MaxRequests {
			wg.Go(func() {
				if err := a.Call(t.Context(), "wait", nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Call(ctx, "wait", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that can't wait for its turn: %v", err)
		}
		close(release)
		wg.Wait()
	})
}

func TestNotesInOrder(t *testing.T) {
	t.Parallel()
	got := make(chan int, 1000)
	a, _ := pipe(t, nil, func(_ context.Context, r *Request) (any, error) {
		var n int
		json.Unmarshal(r.Params, &n)
		got <- n
		return nil, nil
	})
	for i := range 1000 {
		if err := a.Notify("n", i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		if n := <-got; n != i {
			t.Fatalf("got %d, want %d", n, i)
		}
	}
}

// TestHandled: an answer does not wait for the notifications that came before it, Handled does.
func TestHandled(t *testing.T) {
	t.Parallel()
	release, done := make(chan struct{}), 0
	server := func(_ context.Context, r *Request) (any, error) {
		for i := range 3 {
			if err := r.Conn.Notify("n", i); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}
	a, _ := pipe(t, func(context.Context, *Request) (any, error) {
		<-release
		done++
		return nil, nil
	}, server)
	if err := a.Handled(t.Context()); err != nil {
		t.Fatalf("with none: %v", err)
	}
	if err := a.Call(t.Context(), "go", nil, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Handled(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while the handler is at the first: %v", err)
	}
	close(release)
	if err := a.Handled(t.Context()); err != nil || done != 3 {
		t.Errorf("%v after %d of 3", err, done)
	}
	a.Close()
	if err := a.Handled(t.Context()); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestHostileLines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, send string
		want       string // part of the answer; "" the connection ends without one
		end        error  // nil: it goes on
	}{
		{"http", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "", ErrNotJSON},
		{"binary", "\x00\x00\x00\x01\n", "", ErrNotJSON},
		{"broken json", `{"jsonrpc":` + "\n", `"code":-32700`, nil},
		{"batch", `[{"jsonrpc":"2.0","id":1,"method":"echo"}]` + "\n", `"code":-32600`, nil},
		{"no method", `{"jsonrpc":"2.0"}` + "\n", `"code":-32600`, nil},
		{"method is a number", `{"jsonrpc":"2.0","id":1,"method":5}` + "\n", `"code":-32600`, nil},
		{"id is null", `{"jsonrpc":"2.0","id":null,"method":"echo"}` + "\n", `"id":null,"error":{"code":-32600`, nil},
		{"id is an object", `{"jsonrpc":"2.0","id":{"a":1},"method":"echo"}` + "\n", `"id":null,"error":{"code":-32600`, nil},
		{"id is below zero", `{"id":-7.5e3,"method":"echo","params":[1]}` + "\n", `"id":-7.5e3,"result":[1]`, nil},
		{"longest line", longest(0), `"id":7,"error":{"code":-32601`, nil},
		{"a byte longer", longest(1), "", ErrLineTooLong},
		{"unknown method", `{"jsonrpc":"2.0","id":"a","method":"x"}` + "\n", `"id":"a","error":{"code":-32601`, nil},
		{"empty lines", "\n\r\n" + `{"jsonrpc":"2.0","id":7,"method":"echo","params":[1]}` + "\n", `"id":7,"result":[1]`, nil},
		{"answer to nothing", `{"jsonrpc":"2.0","id":99,"result":1}` + "\n" + `{"jsonrpc":"2.0","id":7,"method":"echo"}` + "\n", `"id":7`, nil},
		{"too long", strings.Repeat("{", MaxLine+10), "", ErrLineTooLong},
		{"deep", strings.Repeat(`{"a":`, 20000) + "\n", `"code":-32`, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			x, y := net.Pipe()
			defer y.Close()
			c := NewConn(x, echo)
			result := make(chan error, 1)
			go func() { result <- c.Run(t.Context()) }()
			go io.WriteString(y, tt.send)
			if tt.end != nil {
				if err := <-result; !errors.Is(err, tt.end) {
					t.Errorf("got %v, want %v", err, tt.end)
				}
				return
			}
			line, err := bufio.NewReader(y).ReadString('\n')
			if err != nil || !strings.Contains(line, tt.want) {
				t.Errorf("got %q, %v, want %q", line, err, tt.want)
			}
			y.Close()
			if err := <-result; err != nil {
				t.Errorf("end: %v", err)
			}
		})
	}
}

// longest is a request of the greatest length, newline included, and so many bytes more.
func longest(more int) string {
	const head, foot = `{"id":7,"method":"size","params":["`, `"]}` + "\n"
	return head + strings.Repeat("x", MaxLine+more-len(head)-len(foot)) + foot
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "signal") // t.TempDir is often too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "sock")
}

func TestListenServeDial(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", st.Mode(), err)
	}
	if _, err := Listen(path, 0o600); !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, func(c *Conn) Handler {
			if cred, err := c.Peer(); err != nil || cred.PID != os.Getpid() || cred.UID != uint32(os.Getuid()) {
				t.Errorf("peer: %+v, %v", cred, err)
			}
			return echo
		})
	}()
	c, err := Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var got int
	if err := c.Call(t.Context(), "echo", 5, &got); err != nil || got != 5 {
		t.Errorf("got %d, %v", got, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	<-c.Done()
	if err := c.Call(t.Context(), "echo", 5, &got); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListenReplacesTheDead(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o600); err == nil {
		t.Error("replaced a file that is no socket")
	}
	if _, err := Listen(filepath.Join(path[:4], strings.Repeat("x", 120)), 0o600); err == nil || !strings.Contains(err.Error(), "--run") {
		t.Errorf("long path: %v", err)
	}
}
