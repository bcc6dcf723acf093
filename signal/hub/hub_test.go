package hub

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/signal"
)

// app is the other end: it answers ping.
func app(t *testing.T, nc net.Conn) *signal.Conn {
	t.Helper()
	c := signal.NewConn(nc, func(_ context.Context, r *signal.Request) (any, error) {
		if r.Method == "ping" {
			return map[string]int{"pid": 1}, nil
		}
		return nil, signal.ErrUnknownMethod
	})
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(context.Background()) })
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return c
}

func greeting(id uint64, token string) Hello {
	return Hello{Proto: []int{1, 2}, ID: id, Token: token, Name: "test"}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		events := make(chan Event, 10)
		h := New(Config{Event: func(e Event) { events <- e }})
		mine, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() { h.Attach(t.Context(), 3, mine) })
		c := app(t, theirs)
		if err := h.Call(t.Context(), 3, "ping", nil, nil); !errors.Is(err, signal.ErrNotRunning) {
			t.Errorf("before hello: %v", err)
		}
		if err := c.Call(t.Context(), "ready", nil, nil); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("ready before hello: %v", err)
		}
		if err := c.Call(t.Context(), "hello", greeting(4, ""), nil); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("with the id of another: %v", err)
		}
		var w Welcome
		if err := c.Call(t.Context(), "hello", greeting(0, ""), &w); err != nil || w.ID != 3 || w.Proto != 1 {
			t.Errorf("%+v, %v", w, err)
		}
		c.Notify("ready", nil)
		c.Notify("status", map[string]string{"text": "fine"})
		if err := h.Call(t.Context(), 3, "ping", nil, nil); err != nil || !h.Joined(3) {
			t.Errorf("ping: %v", err)
		}
		synctest.Wait()
		h.Drop(3)
		wg.Wait()
		close(events)
		var got []Event
		for e := range events {
			got = append(got, e)
		}
		want := []Event{{3, Joined, "test"}, {3, Ready, ""}, {3, Status, "fine"}, {3, Left, ""}}
		if len(got) != len(want) {
			t.Fatalf("%+v", got)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("event %d: %+v, want %+v", i, got[i], want[i])
			}
		}
	})
}

// TestHungApp: an app that never answers costs its caller the deadline and others nothing.
func TestHungApp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		var wg sync.WaitGroup
		for id := range uint64(2) {
			mine, theirs := net.Pipe()
			wg.Go(func() { h.Attach(t.Context(), id+1, mine) })
			c := app(t, theirs)
			if id == 0 {
				c.SetHandler(func(ctx context.Context, _ *signal.Request) (any, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				})
			}
			if err := c.Call(t.Context(), "hello", greeting(0, ""), nil); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		hung := make(chan error, 1)
		go func() { hung <- h.Call(ctx, 1, "ping", nil, nil) }()
		if err := h.Call(t.Context(), 2, "ping", nil, nil); err != nil {
			t.Error(err)
		}
		if err := <-hung; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, signal.ErrTimeout) {
			t.Errorf("got %v", err)
		}
		h.Drop(1)
		h.Drop(2)
		wg.Wait()
	})
}

// TestServeTCP: without credentials only the token counts.
func TestServeTCP(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{}, 10)
	h := New(Config{
		Verify: func(hi Hello, peer *signal.Cred) error {
			if peer != nil || hi.Token != "secret" {
				return errors.New("no")
			}
			return nil
		},
		Event: func(e Event) {
			if e.Kind == Left {
				left <- struct{}{}
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	dial := func() *signal.Conn {
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return app(t, nc)
	}
	if err := dial().Call(t.Context(), "hello", greeting(3, "guess"), nil); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("wrong token: %v", err)
	}
	if err := dial().Call(t.Context(), "ready", nil, nil); err == nil {
		t.Error("no hello")
	}
	for range 2 { // the second joins after the first has left
		c := dial()
		if err := c.Call(t.Context(), "hello", greeting(3, "secret"), nil); err != nil {
			t.Errorf("right token: %v", err)
		}
		if err := h.Call(t.Context(), 3, "ping", nil, nil); err != nil {
			t.Errorf("ping: %v", err)
		}
		if err := dial().Call(t.Context(), "hello", greeting(3, "secret"), nil); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("second while the first lives: %v", err)
		}
		c.Close()
		<-left
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestServeUnixHasCredentials(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := signal.Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{Verify: func(_ Hello, peer *signal.Cred) error {
		if peer == nil || peer.PID != os.Getpid() {
			return errors.New("not us")
		}
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx, l) }()
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if err := app(t, nc).Call(t.Context(), "hello", greeting(3, ""), nil); err != nil {
		t.Error(err)
	}
	cancel()
	<-ended
}

// TestFilesOfApps: an app that passes descriptors gets them closed, with whatever it sends them.
func TestFilesOfApps(t *testing.T) {
	t.Parallel()
	mine, theirs, err := signal.Pair()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := New(Config{})
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() { h.Attach(ctx, 7, mine) })
	nc, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	c := signal.NewConn(nc, nil)
	wg.Go(func() { c.Run(ctx) })
	defer c.Close()
	for _, method := range []string{"ready", "hello", "status", "ready", "watchdog", "nosuch"} {
		r, p, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		c.CallFile(ctx, method, map[string]any{"proto": []int{1}, "text": "x"}, nil, p)
		p.Close()
		r.SetReadDeadline(time.Now().Add(15 * time.Second))
		if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the descriptor stays open: %v", method, err)
		}
	}
}

// TestReadyBehindHello: a program may say all at once, over the descriptor and at the address.
func TestReadyBehindHello(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, inherited := range []bool{true, false} {
			for range 50 {
				var mu sync.Mutex
				var heard []Kind
				h := New(Config{
					Verify: func(Hello, *signal.Cred) error { return nil },
					Event: func(e Event) {
						mu.Lock()
						defer mu.Unlock()
						heard = append(heard, e.Kind)
					},
				})
				mine, theirs := net.Pipe()
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				if inherited {
					wg.Go(func() { h.Attach(ctx, 7, theirs) })
				} else {
					wg.Go(func() { h.Serve(ctx, &oneConn{c: theirs, end: ctx.Done()}) })
				}
				wg.Go(func() { io.Copy(io.Discard, mine) })
				io.WriteString(mine, `{"id":1,"method":"hello","params":{"proto":[1],"id":7}}
{"method":"status","params":{"text":"x"}}
{"method":"ready"}
`)
				synctest.Wait()
				mu.Lock()
				if want := []Kind{Joined, Status, Ready}; !slices.Equal(heard, want) {
					t.Errorf("inherited %v: %v, want %v", inherited, heard, want)
				}
				mu.Unlock()
				cancel()
				mine.Close()
				wg.Wait()
			}
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	c   net.Conn
	end <-chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.c; c != nil {
		l.c = nil
		return c, nil
	}
	<-l.end
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }
