package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

// serveEcho accepts streams of a service until the test ends, and echoes.
func serveEcho(t testing.TB, c *app.Client, name string) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); work.Wait() })
	for range 4 {
		work.Go(func() {
			for {
				in, err := c.Accept(ctx, name)
				if err != nil {
					return
				}
				work.Go(func() {
					conn, err := in.Accept(append([]byte("re:"), in.Header...))
					if err != nil {
						return
					}
					defer conn.Close()
					io.Copy(conn, conn)
				})
			}
		})
	}
}

func two(t testing.TB) (a, b *box) {
	n := streamtest.New(1, streamtest.Conditions{})
	return newBox(t, n, 1), newBox(t, n, 2)
}

func TestStream(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server := b.client(t)
	offer(t, server, "echo")
	serveEcho(t, server, "echo")
	client := a.client(t)
	header := bytes.Repeat([]byte{0, '\n', '"'}, 1300)
	s, err := client.Dial(t.Context(), b.key, "echo", header)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := append([]byte("re:"), header...); !bytes.Equal(s.Reply(), want) {
		t.Errorf("reply %q", s.Reply())
	}
	var w sync.WaitGroup
	const size = 20 << 20
	w.Go(func() {
		io.Copy(s, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
		s.CloseWrite()
	})
	got, want := sha256.New(), sha256.New()
	n, err := io.Copy(got, s)
	w.Wait()
	io.Copy(want, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
	if err != nil || n != size || !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
		t.Errorf("%d bytes of %d, %v", n, size, err)
	}
}

func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	friend := identity(t, 9).Public().String()
	err := server.Register(t.Context(), app.Registration{Name: "x", Kind: "test", Services: []app.Service{
		{Name: "closed", Type: "test"},
		{Name: "friends", Type: "test", Allow: []string{friend}},
		{Name: "members", Type: "test", Allow: []string{app.AnyMember}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]*signal.Error{
		"closed": signal.ErrRefused, "friends": signal.ErrRefused, "none": signal.ErrNotFound,
	} {
		if _, err := client.Dial(t.Context(), b.key, name, nil); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %s", name, err, want.Name)
		}
	}
	var w sync.WaitGroup
	w.Go(func() {
		in, err := server.Accept(t.Context(), "members")
		if err != nil {
			t.Error(err)
			return
		}
		if in.Peer != a.key {
			t.Errorf("peer %s, want %s", in.Peer, a.key)
		}
		in.Refuse("my_reason", "no such host")
	})
	_, err = client.Dial(t.Context(), b.key, "members", nil)
	w.Wait()
	var refusal *signal.Error
	if !errors.As(err, &refusal) || refusal.Name != "my_reason" || refusal.Message != "no such host" {
		t.Errorf("own refusal: %v", err)
	}
	b.node.mu.Lock()
	b.node.strange[a.key] = true
	b.node.mu.Unlock()
	if _, err := client.Dial(t.Context(), b.key, "members", nil); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("no member: %v", err)
	}
	if _, err := client.Dial(t.Context(), identity(t, 77).Public(), "x", nil); !errors.Is(err, signal.ErrUnreachable) {
		t.Errorf("unknown node: %v", err)
	}
	if _, err := client.Accept(t.Context(), "not mine"); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("accept without registering: %v", err)
	}
}

// TestTags: a service for a tag is for members who have it.
func TestTags(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	reg := app.Registration{Name: "tagged", Kind: "test", Services: []app.Service{{Name: "tagged", Type: "test", Allow: []string{"@family"}}}}
	if err := server.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	serveEcho(t, server, "tagged")
	for _, c := range []struct {
		name    string
		tags    []string
		strange bool
		ok      bool
	}{
		{"without", nil, false, false},
		{"another", []string{"famil", "work"}, false, false},
		{"with", []string{"family", "work"}, false, true},
		{"no member any more", []string{"family"}, true, false},
	} {
		b.node.mu.Lock()
		b.node.tags, b.node.strange[a.key] = map[key.Public][]string{a.key: c.tags}, c.strange
		b.node.mu.Unlock()
		s, err := client.Dial(t.Context(), b.key, "tagged", nil)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, signal.ErrRefused) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			s.Close()
		}
	}
	i, err := client.Whois(t.Context(), b.key.String())
	if err != nil || i.Key != b.key || !i.Member {
		t.Errorf("whois: %+v %v", i, err)
	}
}

// TestDeadWaiters: a program that waited for a stream and died must not be given one.
func TestDeadWaiters(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "echo")
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := server.Accept(ctx, "echo"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("accept: %v", err)
		}
		cancel()
	}
	serveEcho(t, server, "echo")
	for range 20 {
		s, err := client.Dial(t.Context(), b.key, "echo", nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

// tcpPair is two ends of a real TCP connection.
func tcpPair(t testing.TB) (x, y *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// handedOver joins two TCP connections through the mesh as proxies do: it returns their outer ends and the two reports.
func handedOver(t testing.TB, a, b *box) (near, far *net.TCPConn, traffic func() (app.Traffic, app.Traffic, error)) {
	t.Helper()
	near, innerNear := tcpPair(t)
	far, innerFar := tcpPair(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "proxy")
	var w sync.WaitGroup
	var dialled, accepted app.Traffic
	var err error
	ready := make(chan struct{})
	w.Go(func() {
		in, aerr := server.Accept(context.Background(), "proxy")
		if aerr != nil {
			t.Error(aerr)
			return
		}
		accepted, _ = in.HandOver([]byte("verdict"), innerFar)
	})
	w.Go(func() {
		dialled, err = client.DialHandOver(context.Background(), b.key, "proxy", []byte("target"), func(reply []byte) (*net.TCPConn, error) {
			if string(reply) != "verdict" {
				t.Errorf("reply %q", reply)
			}
			close(ready)
			return innerNear, nil
		})
	})
	<-ready
	return near, far, func() (app.Traffic, app.Traffic, error) { w.Wait(); return dialled, accepted, err }
}

func TestHandOver(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	near, far, traffic := handedOver(t, a, b)
	io.WriteString(near, "request")
	near.CloseWrite()
	if got, err := io.ReadAll(far); string(got) != "request" || err != nil {
		t.Fatalf("far got %q, %v", got, err)
	}
	io.WriteString(far, "the answer, after the half-close")
	far.Close()
	if got, err := io.ReadAll(near); string(got) != "the answer, after the half-close" || err != nil {
		t.Fatalf("near got %q, %v", got, err)
	}
	d, ac, err := traffic()
	if err != nil || d != (app.Traffic{Sent: 7, Received: 32}) || ac != (app.Traffic{Sent: 32, Received: 7}) {
		t.Errorf("dialled %+v, accepted %+v, %v", d, ac, err)
	}
}

func TestHandOverReset(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		pick func(near, far *net.TCPConn) (resets, sees *net.TCPConn)
	}{
		{"by the near end", func(n, f *net.TCPConn) (*net.TCPConn, *net.TCPConn) { return n, f }},
		{"by the far end", func(n, f *net.TCPConn) (*net.TCPConn, *net.TCPConn) { return f, n }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, b := two(t)
			near, far, traffic := handedOver(t, a, b)
			resets, sees := tc.pick(near, far)
			io.WriteString(resets, "half a mess")
			if _, err := io.ReadFull(sees, make([]byte, 11)); err != nil {
				t.Fatal(err)
			}
			resets.SetLinger(0)
			resets.Close()
			sees.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := sees.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the other end got %v, want a reset", err)
			}
			if _, _, err := traffic(); err == nil {
				t.Error("the proxy heard of no reset")
			}
		})
	}
}

func TestHandOverChecksDescriptor(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server := b.client(t)
	offer(t, server, "echo")
	serveEcho(t, server, "echo")
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	file, err := udp.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c, err := net.Dial("unix", a.run+"/node.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	uc := c.(*net.UnixConn)
	req := app.Request{Method: "stream.dial", Params: app.RequestParams{Key: b.key.String(), Service: "echo", HandOver: true}}
	if err := signal.WriteLine(uc, req, nil); err != nil {
		t.Fatal(err)
	}
	if line, _, err := signal.ReadLine(uc, 1<<16); err != nil || !bytes.Contains(line, []byte(`"result"`)) {
		t.Fatalf("dial: %s, %v", line, err)
	}
	signal.WriteLine(uc, map[string]bool{"handover": true}, file)
	if line, _, err := signal.ReadLine(uc, 1<<16); err != nil || !bytes.Contains(line, []byte(`"refused"`)) {
		t.Errorf("a UDP socket as a stream: %s, %v", line, err)
	}
}

func TestThousandStreams(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "echo")
	serveEcho(t, server, "echo")
	const streams, atOnce = 1000, 100 // what waits longer than takeTimeout on a busy machine is refused
	hold, dialling := make(chan struct{}), make(chan struct{}, atOnce)
	var open, done sync.WaitGroup
	open.Add(streams)
	for i := range streams {
		done.Go(func() {
			dialling <- struct{}{}
			s, err := client.Dial(t.Context(), b.key, "echo", nil)
			<-dialling
			open.Done()
			if err != nil {
				t.Errorf("stream %d: %v", i, err)
				return
			}
			defer s.Close()
			<-hold
			fmt.Fprintf(s, "stream %d", i)
			s.CloseWrite()
			if got, err := io.ReadAll(s); string(got) != fmt.Sprintf("stream %d", i) || err != nil {
				t.Errorf("stream %d: %q, %v", i, got, err)
			}
		})
	}
	open.Wait()
	close(hold)
	done.Wait()
	eventually(t, "all streams end", func() bool { return a.endpoint.Stats().Streams+b.endpoint.Stats().Streams == 0 })
}

// TestKilledProgram: its end of the stream ends, as a TCP connection's would.
func TestKilledProgram(t *testing.T) {
	t.Parallel()
	a, b := two(t)
	server, client := b.client(t), a.client(t)
	offer(t, server, "sink")
	var w sync.WaitGroup
	w.Go(func() {
		in, err := server.Accept(t.Context(), "sink")
		if err != nil {
			t.Error(err)
			return
		}
		conn, err := in.Accept(nil)
		if err != nil {
			t.Error(err)
			return
		}
		conn.Close() // dies without reading
	})
	s, err := client.Dial(t.Context(), b.key, "sink", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.Wait()
	s.SetDeadline(time.Now().Add(10 * time.Second))
	for err == nil {
		_, err = s.Write(make([]byte, 64<<10))
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("writing to a dead program never fails: %v", err)
	}
}

func TestPython(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	a, b := two(t)
	server := b.client(t)
	offer(t, server, "echo")
	serveEcho(t, server, "echo")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "../../app/testdata/dial.py", a.run, b.key.String(), "echo")
	cmd.Stdin = bytes.NewBufferString("from another language\n")
	out, err := cmd.CombinedOutput()
	if string(out) != "from another language\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	cmd = exec.CommandContext(ctx, python, "../../app/testdata/dial.py", a.run, b.key.String(), "nothing")
	out, err = cmd.CombinedOutput()
	if !bytes.Contains(out, []byte("not_found")) || err == nil {
		t.Errorf("refused: got %q, %v", out, err)
	}
}

func pythonScript(t *testing.T, script string, args ...string) string {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, append([]string{"-c", script}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}
