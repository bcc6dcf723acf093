package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
	"skywire/socks"
)

// page answers every HTTP request with its own head, as far as it fits, and closes.
func page(c *net.TCPConn) {
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		return
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	body := "you asked: " + line + "\n"
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestCurl(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("needs curl")
	}
	web := target(t, page)
	_, port, _ := net.SplitHostPort(web)
	x := ExitConfig{Resolver: names(t, map[string][]string{"web.test.": {"127.0.0.1"}})}
	open := chain(t, ClientConfig{}, x)
	closed := chain(t, ClientConfig{Credentials: socks.Credentials{"ann": "s3cret:x"}}, x)
	url := "http://web.test:" + port + "/page"
	const ok = "you asked: GET /page HTTP/1.1\n"
	tests := []struct {
		name string
		args []string
		out  string
		exit int
	}{
		{"socks5h", []string{"--socks5-hostname", open, url}, ok, 0},
		{"socks5 address", []string{"--socks5", open, "http://" + web + "/page"}, ok, 0},
		{"http connect", []string{"--proxytunnel", "--proxy", "http://" + open, url}, ok, 0},
		{"socks5h user", []string{"--proxy", "socks5h://ann:s3cret%3Ax@" + closed, url}, ok, 0},
		{"socks5h wrong password", []string{"--proxy", "socks5h://ann:wrong@" + closed, url}, "", 97},
		{"socks5h no password", []string{"--socks5-hostname", closed, url}, "", 97},
		{"http user", []string{"--proxytunnel", "--proxy", "http://" + closed, "--proxy-user", "ann:s3cret:x", url}, ok, 0},
		{"http wrong password", []string{"--proxytunnel", "--proxy", "http://" + closed, "--proxy-user", "ann:wrong", url}, "", 56},
		{"http no password", []string{"--proxytunnel", "--proxy", "http://" + closed, url}, "", 56},
		{"socks4", []string{"--proxy", "socks4://" + open, "http://" + web + "/page"}, ok, 0},
		{"socks4a", []string{"--proxy", "socks4a://" + open, url}, ok, 0},
		{"socks4 where a password is wanted", []string{"--proxy", "socks4a://" + closed, url}, "", 97},
		{"socks5h no such name", []string{"--socks5-hostname", open, "http://none.test/"}, "", 97},
		{"http no such name", []string{"--proxytunnel", "--proxy", "http://" + open, "http://none.test/"}, "", 56},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), curl, append([]string{"--silent", "--show-error", "--max-time", "20", "--noproxy", ""}, tt.args...)...)
			cmd.Env = []string{"HOME=/nonexistent"} // no .curlrc, no proxies of the environment
			var out, talk bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &talk
			err := cmd.Run()
			code := 0
			var e *exec.ExitError
			if errors.As(err, &e) {
				code = e.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tt.exit || !strings.Contains(out.String(), tt.out) {
				t.Errorf("exit %d, want %d; got %q, want it to contain %q; curl said %q", code, tt.exit, out.String(), tt.out, talk.String())
			}
		})
	}
}

func TestReplyCodes(t *testing.T) {
	t.Parallel()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := uint16(dead.Addr().(*net.TCPAddr).Port)
	dead.Close()
	x := ExitConfig{
		DialTimeout: 300 * time.Millisecond, AllowAny: true,
		Resolver: names(t, map[string][]string{"local.test.": {"127.0.0.1"}}),
	}
	m := newMesh(t)
	private, public, strange := m.node(t, true, 1), m.node(t, true, 1), m.node(t, true, 1)
	runExit(t, public, x)
	x.AllowPrivate = true
	runExit(t, private, x)
	x.AllowAny, x.Allow = false, []key.Public{newKey(t)}
	runExit(t, strange, x)
	tests := []struct {
		name string
		exit key.Public
		host string
		port uint16
		want socks.Code
	}{
		{"refused", private.key, "127.0.0.1", refusing, socks.Refused},
		{"refused by name", private.key, "local.test", refusing, socks.Refused},
		{"no such name", private.key, "none.test", 80, socks.HostUnreachable},
		{"no answer", private.key, "silent.test", 80, socks.Expired},
		{"loopback", public.key, "127.0.0.1", refusing, socks.NotAllowed},
		{"loopback by name", public.key, "local.test", refusing, socks.NotAllowed},
		{"mapped loopback", public.key, "::ffff:127.0.0.1", refusing, socks.NotAllowed},
		{"stranger", strange.key, "127.0.0.1", refusing, socks.NotAllowed},
		{"exit not there", newKey(t), "127.0.0.1", refusing, socks.NetworkUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, addr := runClient(t, m.node(t, false, 0), ClientConfig{Servers: []string{tt.exit.String()}, Log: testLog(t)})
			_, got := ask(t, addr, tt.host, tt.port, "")
			if socks.Code(got) != tt.want {
				t.Errorf("%v, want %v", socks.Code(got), tt.want)
			}
		})
	}
}

// TestSentAhead checks that what a program writes without waiting arrives first and in order, whichever way it took.
func TestSentAhead(t *testing.T) {
	t.Parallel()
	a := target(t, echo)
	proxy := chain(t, ClientConfig{}, ExitConfig{})
	tcp, err := net.ResolveTCPAddr("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 100, socks.MaxFirst, 100_000} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			ahead := strings.Repeat("0123456789", n/10+1)[:n]
			c, code := ask(t, proxy, "127.0.0.1", uint16(tcp.Port), ahead)
			if code != 0 {
				t.Fatalf("reply code %d", code)
			}
			if _, err := c.Write([]byte("end")); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != ahead+"end" {
				t.Errorf("%d bytes came back, want %d", len(got), n+3)
			}
		})
	}
}

func TestHalfClose(t *testing.T) {
	t.Parallel()
	const answer = 1 << 20
	a := target(t, func(c *net.TCPConn) {
		b, err := io.ReadAll(c) // answers only after the end of the question
		if err == nil {
			_, _ = c.Write(bytes.Repeat(b, answer/len(b)))
		}
	})
	c := askAddr(t, chain(t, ClientConfig{}, ExitConfig{}), a)
	if _, err := c.Write([]byte("abcd")); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, c); err != nil || n != answer {
		t.Errorf("%d bytes, %v; want %d", n, err, answer)
	}
}

// TestReset checks that a reset at one end is a reset at the other, and not an ordinary end that would pass half a file
// for a whole one. It fails as soon as an app keeps a descriptor of what it handed over.
func TestReset(t *testing.T) {
	t.Parallel()
	proxy := chain(t, ClientConfig{}, ExitConfig{})
	t.Run("by the target", func(t *testing.T) {
		t.Parallel()
		a := target(t, func(c *net.TCPConn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.SetLinger(0)
		})
		c := askAddr(t, proxy, a)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want a reset", err)
		}
	})
	t.Run("by the program", func(t *testing.T) {
		t.Parallel()
		seen := make(chan error, 1)
		a := target(t, func(c *net.TCPConn) {
			_, err := io.ReadAll(c)
			seen <- err
		})
		c := askAddr(t, proxy, a)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := c.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		c.Close()
		select {
		case err := <-seen:
			if !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("target read: %v, want a reset", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the target saw no end")
		}
	})
}

// TestTrickle sends single bytes both ways.
func TestTrickle(t *testing.T) {
	t.Parallel()
	c := askAddr(t, chain(t, ClientConfig{}, ExitConfig{}), target(t, echo))
	var b [1]byte
	for i := range 2000 {
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, b[:]); err != nil || b[0] != byte(i) {
			t.Fatalf("byte %d came back as %d, %v", byte(i), b[0], err)
		}
	}
}

// TestBulk moves a lot of bytes that are not zeros and compares checksums.
func TestBulk(t *testing.T) {
	t.Parallel()
	size := int64(256 << 20)
	if testing.Short() {
		size = 16 << 20
	}
	want := make(chan uint32, 1)
	a := target(t, func(c *net.TCPConn) {
		h := crc32.NewIEEE()
		r := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		_, _ = io.CopyBuffer(io.MultiWriter(struct{ io.Writer }{c}, h), r, make([]byte, 64<<10))
		want <- h.Sum32()
	})
	c := askAddr(t, chain(t, ClientConfig{}, ExitConfig{}), a)
	h := crc32.NewIEEE()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{c}, make([]byte, 64<<10))
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v; want %d", n, err, size)
	}
	if w := <-want; h.Sum32() != w {
		t.Errorf("checksum %08x, want %08x", h.Sum32(), w)
	}
}

// TestThousand holds a thousand connections open at once, all with something to say.
func TestThousand(t *testing.T) {
	t.Parallel()
	connections := 1000
	if testing.Short() {
		connections = 100
	}
	a, err := net.ResolveTCPAddr("tcp", target(t, echo))
	if err != nil {
		t.Fatal(err)
	}
	proxy := chain(t, ClientConfig{}, ExitConfig{})
	all := make([]*net.TCPConn, connections)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64) // as many dial at once as fit the backlog
	for i := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			c, code := ask(t, proxy, "127.0.0.1", uint16(a.Port), "")
			if code != 0 {
				t.Errorf("connection %d: reply code %d", i, code)
			}
			all[i] = c
		})
	}
	wg.Wait()
	for i, c := range all {
		wg.Go(func() {
			msg := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 5000)
			go func() {
				_, _ = c.Write(msg)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, msg) {
				t.Errorf("connection %d: %d bytes back, %v", i, len(got), err)
			}
		})
	}
	wg.Wait()
}

// TestLimits checks that whoever comes too many is told so.
func TestLimits(t *testing.T) {
	t.Parallel()
	a := target(t, echo)
	tcp, err := net.ResolveTCPAddr("tcp", a)
	if err != nil {
		t.Fatal(err)
	}
	m := newMesh(t)
	runExit(t, m.node(t, true, 1), ExitConfig{AllowAny: true, AllowPrivate: true, PerKey: 2})
	n := m.node(t, false, 0)
	p, client := runClient(t, n, ClientConfig{Connections: 3, Log: testLog(t)})
	askAddr(t, client, a)
	last := askAddr(t, client, a)
	if _, code := ask(t, client, "127.0.0.1", uint16(tcp.Port), ""); socks.Code(code) != socks.NetworkUnreachable {
		t.Errorf("third connection of one key: %v, want %v", socks.Code(code), socks.NetworkUnreachable)
	}
	idle, err := net.Dial("tcp", client) // takes the third slot
	if err != nil {
		t.Fatal(err)
	}
	within(t, idle)
	c, err := net.Dial("tcp", client)
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\n\r\n", a)
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 503 ") || !strings.Contains(string(got), "too many connections") {
		t.Errorf("fourth connection: %q, %v", got, err)
	}
	if got := p.stats.active.Load(); got != 3 {
		t.Errorf("%d connections active, want 3", got)
	}
	last.Close()
	eventually(t, "a slot to be free again", func() bool { return p.stats.active.Load() == 2 })
	askAddr(t, client, a)
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.After(10 * time.Second)
	for !ok() {
		select {
		case <-end:
			t.Fatalf("waited in vain for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestIdleProgram checks that a connection which says nothing does not stay.
func TestIdleProgram(t *testing.T) {
	t.Parallel()
	for _, said := range []string{"", "\x05", "\x05\x01\x00", "CONNECT "} {
		t.Run(fmt.Sprintf("%q", said), func(t *testing.T) {
			t.Parallel()
			proxy := chain(t, ClientConfig{Negotiation: 100 * time.Millisecond}, ExitConfig{})
			c, err := net.Dial("tcp", proxy)
			if err != nil {
				t.Fatal(err)
			}
			within(t, c)
			if _, err := io.WriteString(c, said); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(c); err != nil {
				t.Errorf("end of the connection: %v", err)
			}
		})
	}
}

func TestListenErrors(t *testing.T) {
	t.Parallel()
	n := newMesh(t).node(t, false, 0)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p, err := NewClient(ClientConfig{Node: n, Listen: taken.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Run(t.Context())
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "--listen") || !strings.Contains(err.Error(), "proxy.test (pid ") {
		t.Errorf("port in use: %v", err)
	}
	for _, l := range []string{"0.0.0.0:1080", ":1080", "192.0.2.1:1080", "example.com:1080"} {
		if _, err := NewClient(ClientConfig{Node: n, Listen: l}); !errors.Is(err, ErrExposed) {
			t.Errorf("listen on %s without a password: %v, want %v", l, err, ErrExposed)
		}
		if _, err := NewClient(ClientConfig{Node: n, Listen: l, Credentials: socks.Credentials{"a": "b"}}); err != nil {
			t.Errorf("listen on %s with a password: %v", l, err)
		}
	}
	if _, err := NewClient(ClientConfig{Node: n, Listen: "1080"}); err == nil {
		t.Error("listen on 1080 without a colon: no error")
	}
}

// TestVerdictCrosses checks that a verdict is the same at the client, and that a node's refusal is not taken for one.
func TestVerdictCrosses(t *testing.T) {
	t.Parallel()
	for code := range verdictNames() {
		sent := &Verdict{Code: code, Text: "a: why\r\nInjected: yes"}
		wire := fmt.Errorf("dial socks: %w", &signal.Error{Code: -32000, Name: verdictName(sent), Message: sent.Text})
		got := verdictFrom(wire)
		if got == nil || got.Code != code || got.Text != "a: why??Injected: yes" {
			t.Errorf("%v arrived as %+v", code, got)
		}
	}
	for _, err := range []error{nil, errors.New("x"), signal.ErrUnreachable, signal.ErrTimeout, signal.ErrNotFound} {
		if v := verdictFrom(err); v != nil {
			t.Errorf("%v taken for a verdict: %+v", err, v)
		}
	}
	if v := verdictFrom(fmt.Errorf("dial: %w", signal.ErrRefused)); v == nil || !v.elsewhere() || v.code() != socks.NotAllowed {
		t.Errorf("a node that refuses for its exit: %+v", v)
	}
	if n := len(clean(strings.Repeat("x", 4096))); n != maxText {
		t.Errorf("text of %d bytes", n)
	}
}
