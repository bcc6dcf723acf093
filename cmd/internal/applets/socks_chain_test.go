//go:build linux

package applets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/node/api"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

// socksBox is a node as far as socks needs one: the real socket and its methods, real streams, no links.
type socksBox struct {
	api.Node // nil: what is not below is not asked
	self     key.Public
	run      string
	others   atomic.Pointer[[]app.Service]
}

func (b *socksBox) Info() app.Info {
	return app.Info{Key: b.self, Prefix: key.Open().Prefix(), Address: key.Open().Address(b.self), Network: key.Open()}
}

func (b *socksBox) Services(context.Context, string) ([]app.Service, error) {
	if all := b.others.Load(); all != nil {
		return *all, nil
	}
	return nil, nil
}

func (b *socksBox) Member(key.Public) bool { return true }
func (b *socksBox) Events(ctx context.Context, _ api.EventsParams) (api.Events, error) {
	<-ctx.Done()
	return api.Events{}, ctx.Err()
}

func (b *socksBox) Ping(context.Context, key.Public) (time.Duration, error) {
	return time.Millisecond, nil
}

func (b *socksBox) Resolve(_ context.Context, name string) (key.Public, error) {
	k, err := key.Parse(name)
	if err != nil {
		return k, signal.Errorf(signal.ErrNotFound, "no node %q", name)
	}
	return k, nil
}

func newSocksBox(t *testing.T, mesh *streamtest.Network) *socksBox {
	t.Helper()
	id, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	b := &socksBox{self: id.Public()}
	if b.run, err = os.MkdirTemp("", "sb"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.run) })
	e, err := stream.New(stream.Config{Identity: id, Network: key.Open(), Carrier: mesh.Carrier(b.self)})
	if err != nil {
		t.Fatal(err)
	}
	mesh.Join(b.self, e)
	s, err := api.New(api.Config{Path: filepath.Join(b.run, app.SocketName), Node: b, Streams: e, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, "endpoint", e.Run)
	inBackground(t, "api", s.Run)
	return b
}

// inBackground runs f until the test ends, or stop is called.
func inBackground(t *testing.T, what string, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f(ctx); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// applied runs the socks applet beside a box until the test ends, or stop is called.
func (b *socksBox) applied(t *testing.T, words ...string) (stop func()) {
	t.Helper()
	return inBackground(t, "socks "+words[0], func(ctx context.Context) error {
		for ctx.Err() == nil { // the node's socket may be a moment away
			code, _, talk := runSocks(ctx, b.run, words...)
			if code != 0 && code != 3 {
				return fmt.Errorf("status %d: %s", code, talk)
			}
		}
		return nil
	})
}

// socksChain is program, client, node, QUIC, node, exit; it returns where the client listens.
// stopClient and stopExit end the apps, not the nodes.
func socksChain(t *testing.T, mesh *streamtest.Network) (proxy string, exit *socksBox, stopClient, stopExit func()) {
	t.Helper()
	client, exit := newSocksBox(t, mesh), newSocksBox(t, mesh)
	client.others.Store(&[]app.Service{{Name: "socks", Type: "socks", Key: exit.self, Online: true}})
	proxy = "127.0.0.1:" + freePort(t)
	stopExit = exit.applied(t, "server", "--allow", client.self.String(), "--allow-private")
	stopClient = client.applied(t, "client", "--listen", proxy)
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", proxy)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	return proxy, exit, stopClient, stopExit
}

// through opens a connection to addr through the proxy, patient while the chain comes up.
func through(t *testing.T, proxy, addr string) *net.TCPConn {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", addr)
		const want = "HTTP/1.1 200 Connection established\r\n\r\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err == nil && string(got) == want {
			t.Cleanup(func() { c.Close() })
			return c.(*net.TCPConn)
		}
		rest, _ := io.ReadAll(c)
		c.Close()
		if time.Now().After(end) {
			t.Fatalf("%s%s", got, rest)
		}
	}
}

// serveTCP gives each connection to f.
func serveTCP(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	inBackground(t, "target", func(ctx context.Context) error {
		defer context.AfterFunc(ctx, func() { l.Close() })()
		var wg sync.WaitGroup
		defer wg.Wait()
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			wg.Go(func() {
				defer c.Close()
				defer context.AfterFunc(ctx, func() { c.Close() })()
				f(c.(*net.TCPConn))
			})
		}
	})
	return l.Addr().String()
}

// TestSocksChain runs the real applets over the real node socket and QUIC streams: what the packages' own tests fake.
func TestSocksChain(t *testing.T) {
	t.Parallel()
	proxy, _, _, _ := socksChain(t, streamtest.New(1, streamtest.Conditions{}))
	echo := serveTCP(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	through(t, proxy, echo).Close() // all is up

	t.Run("half-close", func(t *testing.T) {
		t.Parallel()
		a := serveTCP(t, func(c *net.TCPConn) {
			if b, err := io.ReadAll(c); err == nil {
				_, _ = c.Write(bytes.Repeat(b, 100_000))
			}
		})
		c := through(t, proxy, a)
		_, _ = io.WriteString(c, "abcd")
		_ = c.CloseWrite()
		if n, err := io.Copy(io.Discard, c); err != nil || n != 400_000 {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("reset by the target", func(t *testing.T) {
		t.Parallel()
		a := serveTCP(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		})
		c := through(t, proxy, a)
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("reset by the program", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		a := serveTCP(t, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			seen <- err
		})
		c := through(t, proxy, a)
		_, _ = io.WriteString(c, "x")
		_ = c.SetLinger(0)
		c.Close()
		select {
		case err := <-seen:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("target read: %v, want a reset", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("the target saw no end")
		}
	})
	t.Run("trickle", func(t *testing.T) {
		t.Parallel()
		c := through(t, proxy, echo)
		var b [1]byte
		for i := range 500 {
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != byte(i) {
				t.Fatalf("byte %d: %d, %v", i, b[0], err)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
		got, err := io.ReadAll(c)
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 502 ") || !strings.Contains(string(got), "127.0.0.1:1: connection refused") {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("curl", func(t *testing.T) {
		t.Parallel()
		curl, err := exec.LookPath("curl")
		if err != nil {
			t.Skip("needs curl")
		}
		web := serveTCP(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 4096))
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n")
		})
		_, port, _ := net.SplitHostPort(web)
		for _, how := range [][]string{{"--socks5-hostname", proxy}, {"--proxytunnel", "--proxy", "http://" + proxy}} {
			// localhost is resolved by the exit, which may lead to it here.
			args := append([]string{"-sS", "--max-time", "20", "--noproxy", "", "http://localhost:" + port + "/"}, how...)
			out, err := exec.CommandContext(t.Context(), curl, args...).CombinedOutput()
			if err != nil || string(out) != "hello\n" {
				t.Errorf("%v: %q, %v", how, out, err)
			}
		}
	})
}

func TestSocksChainBulk(t *testing.T) {
	t.Parallel()
	size := int64(64 << 20)
	if s := os.Getenv("SOCKS_BULK_MB"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		size = int64(n) << 20
	}
	if testing.Short() {
		size = 4 << 20
	}
	proxy, _, _, _ := socksChain(t, streamtest.New(2, streamtest.Conditions{}))
	want := make(chan uint32, 1)
	a := serveTCP(t, func(c *net.TCPConn) {
		h := crc32.NewIEEE()
		r := io.LimitReader(rand.NewChaCha8([32]byte{7}), size)
		_, _ = io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{c}, h), r, make([]byte, 64<<10))
		want <- h.Sum32()
	})
	c := through(t, proxy, a)
	_ = c.SetDeadline(time.Now().Add(4 * time.Minute))
	h := crc32.NewIEEE()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{c}, make([]byte, 64<<10))
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v; want %d", n, err, size)
	}
	if w := <-want; h.Sum32() != w {
		t.Errorf("checksum %08x, want %08x", h.Sum32(), w)
	}
}

func TestSocksChainThousand(t *testing.T) {
	t.Parallel()
	connections := 1000
	if testing.Short() {
		connections = 50
	}
	proxy, _, _, _ := socksChain(t, streamtest.New(3, streamtest.Conditions{}))
	echo := serveTCP(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	through(t, proxy, echo).Close()
	all := make([]*net.TCPConn, connections)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			all[i] = through(t, proxy, echo)
		})
	}
	wg.Wait()
	for i, c := range all {
		if c == nil {
			continue // reported already
		}
		wg.Go(func() {
			msg := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
			long := bytes.Repeat(msg[:], 200)
			go func() {
				_, _ = c.Write(long)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, long) {
				t.Errorf("connection %d: %d bytes back, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestSocksChainStrangers checks that an exit is closed to a node that nobody allowed, and says so.
func TestSocksChainStrangers(t *testing.T) {
	t.Parallel()
	mesh := streamtest.New(4, streamtest.Conditions{})
	_, exit, _, _ := socksChain(t, mesh)
	other := newSocksBox(t, mesh)
	proxy := "127.0.0.1:" + freePort(t)
	other.applied(t, "client", "--listen", proxy, "--server", exit.self.String())
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			if time.Now().After(end) {
				t.Fatal(err)
			}
			continue
		}
		fmt.Fprint(c, "CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
		got, err := io.ReadAll(c)
		c.Close()
		if strings.Contains(string(got), "not registered") || strings.Contains(string(got), "no service") {
			continue // the exit is not up yet
		}
		if err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 403 ") || !strings.Contains(string(got), exit.self.Short()) {
			t.Errorf("%q, %v", got, err)
		}
		return
	}
}

// TestSocksChainAppsEnd stops both apps under a connection: the sockets are the nodes', so it goes on.
func TestSocksChainAppsEnd(t *testing.T) {
	t.Parallel()
	proxy, _, stopClient, stopExit := socksChain(t, streamtest.New(5, streamtest.Conditions{}))
	c := through(t, proxy, serveTCP(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	for _, stop := range []func(){stopClient, stopExit, func() {}} {
		if _, err := io.WriteString(c, "still here"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("still here"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "still here" {
			t.Fatalf("%q, %v", got, err)
		}
		stop()
	}
}
