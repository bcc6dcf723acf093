package app_test

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// fakeNode answers at a socket like a node: the tests of mesh/node/api run the client against the real server.
type fakeNode struct {
	t    *testing.T
	run  string
	self key.Public
	work sync.WaitGroup

	// stream plays the node's part of a stream connection after its first line.
	stream func(c *net.UnixConn, first string)
}

func newFakeNode(t *testing.T, stream func(c *net.UnixConn, first string)) *fakeNode {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "app") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeNode{t: t, run: dir, self: k.Public(), stream: stream}
	l, err := signal.Listen(filepath.Join(dir, app.SocketName), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.work.Go(func() { f.serve(ctx, l) })
	t.Cleanup(func() { cancel(); l.Close(); f.work.Wait(); os.RemoveAll(dir) })
	return f
}

func (f *fakeNode) serve(ctx context.Context, l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		f.work.Go(func() {
			defer nc.Close()
			c := nc.(*net.UnixConn)
			line, files, err := signal.ReadLine(c, 1<<16)
			if err != nil {
				return
			}
			if strings.Contains(string(line), `"stream.`) {
				f.stream(c, string(line))
				return
			}
			signal.NewConnAfter(c, func(context.Context, *signal.Request) (any, error) {
				return app.Info{Key: f.self, Name: "fake"}, nil
			}, line, files).Run(ctx)
		})
	}
}

func (f *fakeNode) dial() *app.Client {
	f.t.Helper()
	c, err := app.Dial(f.t.Context(), f.run)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

func TestDialAnswers(t *testing.T) {
	t.Parallel()
	reply := base64.StdEncoding.EncodeToString([]byte("hello"))
	for _, tc := range []struct {
		name, answer string
		check        func(s *app.Stream, err error) bool
	}{
		{"taken", `{"result":{"key":"x","reply":"` + reply + `"}}` + "\nrest", func(s *app.Stream, err error) bool {
			if err != nil || string(s.Reply()) != "hello" {
				return false
			}
			got := make([]byte, 4)
			_, err = io.ReadFull(s, got)
			return err == nil && string(got) == "rest"
		}},
		{"refused", `{"error":{"code":-32002,"name":"refused","message":"no"}}` + "\n", func(_ *app.Stream, err error) bool {
			return errors.Is(err, signal.ErrRefused)
		}},
		{"neither", "{}\n", func(_ *app.Stream, err error) bool { return err != nil }},
		{"no JSON", "what\n", func(_ *app.Stream, err error) bool { return err != nil }},
		{"nothing", "", func(_ *app.Stream, err error) bool { return errors.Is(err, io.EOF) }},
		{"half a line", `{"res`, func(_ *app.Stream, err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"endless line", strings.Repeat("x", 1<<20), func(_ *app.Stream, err error) bool { return errors.Is(err, signal.ErrLineTooLong) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeNode(t, func(c *net.UnixConn, first string) {
				if !strings.Contains(first, `"service":"svc"`) {
					t.Errorf("first line %s", first)
				}
				io.WriteString(c, tc.answer)
			})
			s, err := f.dial().Dial(t.Context(), f.self, "svc", nil)
			if err == nil {
				defer s.Close()
			}
			if !tc.check(s, err) {
				t.Errorf("unexpected: %v", err)
			}
		})
	}
}

func TestDialCancelled(t *testing.T) {
	t.Parallel()
	f := newFakeNode(t, func(c *net.UnixConn, _ string) { io.Copy(io.Discard, c) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := f.dial().Dial(ctx, f.self, "svc", nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := f.dial().Dial(t.Context(), f.self, "svc", make([]byte, app.MaxHeader+1)); !errors.Is(err, app.ErrHeader) {
		t.Errorf("long header: %v", err)
	}
}

// TestReset: the end of both directions at once is no end of file.
func TestReset(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		node func(c *net.UnixConn)
		want error
	}{
		{"reset", func(c *net.UnixConn) {}, app.ErrReset},
		{"half-close", func(c *net.UnixConn) { c.CloseWrite(); io.Copy(io.Discard, c) }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeNode(t, func(c *net.UnixConn, _ string) {
				io.WriteString(c, `{"result":{"key":"x"}}`+"\nbytes")
				tc.node(c)
			})
			s, err := f.dial().Dial(t.Context(), f.self, "svc", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := io.ReadAll(s)
			if string(got) != "bytes" || !errors.Is(err, tc.want) {
				t.Errorf("got %q, %v, want %v", got, err, tc.want)
			}
		})
	}
}

func TestNotRunning(t *testing.T) {
	t.Parallel()
	if _, err := app.Dial(t.Context(), t.TempDir()); !errors.Is(err, app.ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
}

// TestDialWhileTheNodeEnds: who waits for a node must be able to tell one that ends from one that refuses.
func TestDialWhileTheNodeEnds(t *testing.T) {
	t.Parallel()
	run, err := os.MkdirTemp("", "app") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(run)
	l, err := signal.Listen(filepath.Join(run, app.SocketName), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accept sync.WaitGroup
	defer accept.Wait()
	accept.Go(func() {
		if c, err := l.Accept(); err == nil {
			c.Close()
		}
	})
	if _, err := app.Dial(t.Context(), run); !errors.Is(err, app.ErrNotRunning) {
		t.Error(err)
	}
}
