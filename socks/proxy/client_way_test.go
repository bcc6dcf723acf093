package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"skywire/socks"
)

func mustRules(t *testing.T, lines ...string) socks.Rules {
	t.Helper()
	rules, err := socks.ParseRules(lines)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestWays sends connections over different exits, directly and nowhere, as rules and users say.
func TestWays(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	x := ExitConfig{AllowAny: true, AllowPrivate: true}
	alice, bob := m.node(t, true, time.Millisecond), m.node(t, true, 50*time.Millisecond)
	runExit(t, alice, x)
	runExit(t, bob, x)
	a := target(t, echo)
	_, port, _ := net.SplitHostPort(a)
	rules := mustRules(t, "user:eve=block", "user:bob="+bob.key.String(), "name:localhost,port:"+port+"=direct", "cidr:127.0.0.2=block")
	p, proxy := runClient(t, m.node(t, false, 0), ClientConfig{
		Rules: rules, Servers: []string{alice.key.String()}, Credentials: socks.Credentials{"ann": "x", "bob": "y", "eve": "z"}, Log: testLog(t),
	})
	ask := func(user, password, host string) string {
		t.Helper()
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		within(t, c)
		q := fmt.Sprintf("\x05\x01\x02\x01%c%s%c%s\x05\x01\x00\x03%c%s", len(user), user, len(password), password, len(host), host)
		var n uint16
		fmt.Sscan(port, &n)
		q += string([]byte{byte(n >> 8), byte(n)})
		if _, err := io.WriteString(c, q+"hello"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimPrefix(string(b), "\x05\x02\x01\x00")
	}
	const ok = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello"
	for _, tt := range []struct {
		name, user, password, host, want string
		alice, bob                       int
	}{
		{"as configured", "ann", "x", "127.0.0.1", ok, 1, 0},
		{"by user", "bob", "y", "127.0.0.1", ok, 0, 1},
		{"direct", "ann", "x", "localhost", ok, 0, 0},
		{"blocked user", "eve", "z", "127.0.0.1", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", 0, 0},
		{"blocked target", "ann", "x", "127.0.0.2", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00", 0, 0},
	} {
		wa, wb := alice.dialled(), bob.dialled()
		if got := ask(tt.user, tt.password, tt.host); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		if alice.dialled()-wa != tt.alice || bob.dialled()-wb != tt.bob {
			t.Errorf("%s: alice dialled %d times, bob %d", tt.name, alice.dialled()-wa, bob.dialled()-wb)
		}
	}
	if d, b := p.stats.direct.Load(), p.stats.blocked.Load(); d != 1 || b != 2 {
		t.Errorf("%d direct, %d blocked", d, b)
	}
}

// TestDirectEnds checks reply codes, ends and resets of connections that leave from this box.
func TestDirectEnds(t *testing.T) {
	t.Parallel()
	proxy := chain(t, ClientConfig{Rules: mustRules(t, "any=direct")}, ExitConfig{})
	if _, code := ask(t, proxy, "127.0.0.1", 1, ""); socks.Code(code) != socks.Refused {
		t.Errorf("a closed port: %v", socks.Code(code))
	}
	c := askAddr(t, proxy, target(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c)
		if err == nil {
			_, _ = c.Write(append(b, '!'))
		}
	}))
	_, _ = io.WriteString(c, "half")
	_ = c.CloseWrite()
	if b, err := io.ReadAll(c); err != nil || string(b) != "half!" {
		t.Errorf("half close: %q, %v", b, err)
	}
	c = askAddr(t, proxy, target(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	}))
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
}

// TestPublished checks that names of the mesh lead to its services, whatever bytes were sent ahead.
func TestPublished(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	alice := m.node(t, true, 1)
	web := target(t, echo)
	run(t, func(ctx context.Context) error {
		for ctx.Err() == nil {
			in, err := alice.Accept(ctx)
			if err != nil {
				return nil
			}
			if len(in.Header()) != 0 {
				t.Errorf("a published service got a header: %x", in.Header())
			}
			c, err := net.Dial("tcp", web)
			if err != nil {
				return err
			}
			m.wg.Add(1)
			go func() {
				defer m.wg.Done()
				_, _ = in.HandOver(ctx, c.(*net.TCPConn), Limits{})
			}()
		}
		return nil
	})
	for _, optimistic := range []bool{false, true} {
		_, proxy := runClient(t, m.node(t, false, 0), ClientConfig{Names: fakeNames{"web.alice.mesh", alice.key}, Optimistic: optimistic})
		for _, ahead := range []string{"", "ahead,"} {
			c, code := ask(t, proxy, "web.alice.mesh", 80, ahead)
			if code != 0 {
				t.Fatalf("reply %v", socks.Code(code))
			}
			_, _ = io.WriteString(c, "and after")
			_ = c.CloseWrite()
			if b, err := io.ReadAll(c); err != nil || string(b) != ahead+"and after" {
				t.Errorf("%q, %v", b, err)
			}
		}
		if _, code := ask(t, proxy, "web.alice.mesh", 81, ""); socks.Code(code) != socks.HostUnreachable {
			t.Errorf("a port of nothing: %v", socks.Code(code))
		}
	}
}

// TestOptimistic checks that first bytes travel with the target, and that a target which cannot be reached breaks the
// connection: the program has had its answer.
func TestOptimistic(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	exit := m.node(t, true, 1)
	client := m.node(t, false, 0)
	_, proxy := runClient(t, client, ClientConfig{Optimistic: true, Servers: []string{exit.key.String()}, Log: testLog(t)})
	for _, protocol := range []string{"\x05\x01\x00\x05\x01\x00\x03\x06target\x00\x50", "\x04\x01\x00\x50\x00\x00\x00\x01\x00target\x00", "CONNECT target:80 HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		within(t, c)
		_, _ = io.WriteString(c, protocol)
		want := map[byte]string{5: "\x05\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00", 4: "\x00\x5a\x00\x00\x00\x00\x00\x00", 'C': "HTTP/1.1 200 Connection established\r\n\r\n"}[protocol[0]]
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want { // before any exit has answered
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
		_, _ = io.WriteString(c, "first")
		in, err := exit.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHeader(in.Header())
		if err != nil || h.Host != "target" || h.Port != 80 {
			t.Fatalf("header %+v, %v", h, err)
		}
		if string(h.First) != "first" {
			t.Logf("the first bytes came late: %q", h.First) // a loaded machine; the exit gets them all the same
		}
		if err := in.Refuse(&Verdict{Code: socks.Refused}); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after a refusal: %q, %v; want a reset", b, err)
		}
	}
}

// TestListenUnix serves programs at a unix socket: nobody else's, and without a port.
func TestListenUnix(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "sc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socks")
	m := newMesh(t)
	runExit(t, m.node(t, true, 1), ExitConfig{AllowAny: true, AllowPrivate: true})
	c, err := NewClient(ClientConfig{Node: m.node(t, false, 0), Listen: "127.0.0.1:0,unix:" + path})
	if err != nil {
		t.Fatal(err)
	}
	run(t, c.Run)
	eventually(t, "the socket", func() bool { _, err := os.Stat(path); return err == nil })
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", i.Mode(), err)
	}
	a := target(t, echo)
	dial := func(said string) *bufio.Reader {
		u, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		within(t, u)
		_, _ = io.WriteString(u, said)
		if said[0] == 'C' {
			_ = u.(*net.UnixConn).CloseWrite()
		}
		return bufio.NewReader(u)
	}
	if b, err := io.ReadAll(dial("CONNECT " + a + " HTTP/1.1\r\n\r\nhello")); err != nil || !strings.HasSuffix(string(b), "\r\n\r\nhello") {
		t.Errorf("%q, %v", b, err)
	}
	var r [12]byte
	if _, err := io.ReadFull(dial("\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00"), r[:]); err != nil || socks.Code(r[3]) != socks.CommandNotSupported {
		t.Errorf("an association without an address: %x, %v", r, err)
	}
	if _, err := NewClient(ClientConfig{Node: m.node(t, false, 0), Listen: "unix:"}); err == nil {
		t.Error("a path of nothing")
	}
}

func TestTransparentSetting(t *testing.T) {
	t.Parallel()
	n := newMesh(t).node(t, false, 0)
	for _, s := range []string{"tproxy", "tproxy:", "tproxy:0", "tproxy:70000", "nat:1", ":1"} {
		if _, err := NewClient(ClientConfig{Node: n, Transparent: s}); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
	for s, want := range map[string]string{"tproxy:1081": "tproxy to :1081", "redirect:1081": "redirect to :1081"} {
		if got, err := DivertingRules(s, "br-lan"); err != nil || !strings.Contains(got, want) || !strings.Contains(got, `iifname != "br-lan"`) {
			t.Errorf("%s: %q, %v", s, got, err)
		}
	}
}
