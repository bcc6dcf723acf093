package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"skywire/socks"
)

// speak sends what a program says and returns all that it hears.
func speak(t *testing.T, proxy, said string) string {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	if _, err := io.WriteString(c, said); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	return string(got)
}

// script is a server that answers each connection's n-th head with the n-th answer, and then ends it.
func script(t *testing.T, heard chan<- string, answers ...string) string {
	t.Helper()
	return target(t, func(c *net.TCPConn) {
		br := bufio.NewReader(c)
		for _, a := range answers {
			var head strings.Builder
			for {
				line, err := br.ReadString('\n')
				if err != nil {
					return
				}
				head.WriteString(line)
				if line == "\r\n" {
					break
				}
			}
			select {
			case heard <- head.String():
			default:
			}
			_, _ = io.WriteString(c, a)
		}
	})
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	const get = "GET http://%s/x HTTP/1.1\r\nHost: other\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nX-End: 2\r\n\r\n"
	tests := []struct {
		name   string
		said   string // %s: the server
		answer string
		want   string
		head   string // what the server hears, if it says so
	}{
		{"length", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi", "GET /x HTTP/1.1\r\nHost: %s\r\nX-End: 2\r\nConnection: close\r\n\r\n"},
		{"chunks", get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\nT: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n", ""},
		{"to the end", get, "HTTP/1.0 200 OK\r\n\r\nhi there", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi there", ""},
		{"no content", get, "HTTP/1.1 204 No Content\r\nKeep-Alive: 5\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", ""},
		{"head", "HEAD http://%s/ HTTP/1.1\r\nConnection: close\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n", ""},
		{"interim", get, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", ""},
		{"version 1.0", "GET http://%s HTTP/1.0\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "GET / HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n"},
		{"body", "POST http://%s/ HTTP/1.1\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "POST / HTTP/1.1\r\nHost: %s\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"},
		{"two lengths from the server", get, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", "HTTP/1.1 502 ", ""},
		{"not http", get, "hello\r\n\r\n", "HTTP/1.1 502 ", ""},
		{"no answer", get, "", "HTTP/1.1 502 ", ""},
		{"unasked change of protocol", get, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 502 ", ""},
	}
	proxy := chain(t, ClientConfig{Log: testLog(t)}, ExitConfig{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan string, 1)
			a := script(t, heard, tt.answer)
			got := speak(t, proxy, fmt.Sprintf(tt.said, a))
			if got != tt.want && !(strings.HasSuffix(tt.want, " ") && strings.HasPrefix(got, tt.want)) {
				t.Errorf("the program hears %q, want %q", got, tt.want)
			}
			if tt.head != "" {
				if h, want := <-heard, fmt.Sprintf(tt.head, a); h != want {
					t.Errorf("the server hears %q, want %q", h, want)
				}
			}
		})
	}
}

// TestPlainHTTPStays sends several requests over one connection, to servers that stay and that leave.
func TestPlainHTTPStays(t *testing.T) {
	t.Parallel()
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/leave" {
			w.Header().Set("Connection", "close")
		}
		fmt.Fprintf(w, "%s %s %d", r.Method, r.URL, len(b))
	}))
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	a := s.Listener.Addr().String()
	c, err := net.Dial("tcp", chain(t, ClientConfig{}, ExitConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	br := bufio.NewReader(c)
	say := func(method, path, rest, want string) {
		t.Helper()
		fmt.Fprintf(c, "%s http://%s%s HTTP/1.1\r\n%s", method, a, path, rest)
		r, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		b, err := io.ReadAll(r.Body)
		if err != nil || string(b) != want {
			t.Fatalf("%s %s: %q, %v; want %q", method, path, b, err, want)
		}
	}
	say("GET", "/a", "\r\n", "GET /a 0")
	say("GET", "/b?c", "\r\n", "GET /b?c 0")
	if n := conns.Load(); n != 1 {
		t.Errorf("%d connections for two requests", n)
	}
	say("POST", "/d", "Content-Length: 5\r\n\r\n12345", "POST /d 5")
	say("PUT", "/e", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x\r\ndefg\r\n0\r\n\r\n", "PUT /e 7")
	say("GET", "/leave", "\r\n", "GET /leave 0")
	say("GET", "/after", "\r\n", "GET /after 0")
	s.CloseClientConnections() // as a server does with idle ones
	say("GET", "/again", "\r\n", "GET /again 0")
}

// TestPlainHTTPExpect checks that the server's word to go on reaches a program that waits for it, and a refusal too.
func TestPlainHTTPExpect(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	proxy := chain(t, ClientConfig{}, ExitConfig{})
	for path, want := range map[string]string{"/yes": "HTTP/1.1 100 Continue\r\n", "/no": "HTTP/1.1 417 Expectation Failed\r\n"} {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		within(t, c)
		fmt.Fprintf(c, "POST %s%s HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", s.URL, path)
		br := bufio.NewReader(c)
		if line, err := br.ReadString('\n'); err != nil || line != want {
			t.Fatalf("%s: %q, %v; want %q", path, line, err, want)
		}
		if path == "/yes" {
			_, _ = br.ReadString('\n')
			fmt.Fprint(c, "hello")
			r, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			if b, _ := io.ReadAll(r.Body); string(b) != "hello" {
				t.Errorf("body %q", b)
			}
		}
	}
}

// TestPlainHTTPUpgrade passes a web socket's handshake and then bytes both ways.
func TestPlainHTTPUpgrade(t *testing.T) {
	t.Parallel()
	a := target(t, func(c *net.TCPConn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil || r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Connection") != "Upgrade" {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst")
		_, _ = io.Copy(c, c)
	})
	c, err := net.Dial("tcp", chain(t, ClientConfig{}, ExitConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	fmt.Fprintf(c, "GET http://%s/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n", a)
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil || r.StatusCode != 101 || r.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%+v, %v", r, err)
	}
	fmt.Fprint(c, "ping")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(br); err != nil || string(b) != "firstping" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestPlainHTTPEarlyAnswer checks that an answer before the end of a body arrives, and that the connection ends then.
func TestPlainHTTPEarlyAnswer(t *testing.T) {
	t.Parallel()
	a := script(t, nil, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno!")
	c, err := net.Dial("tcp", chain(t, ClientConfig{}, ExitConfig{}))
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	fmt.Fprintf(c, "POST http://%s/ HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nabc", a)
	br := bufio.NewReader(c)
	r, err := http.ReadResponse(br, nil)
	if err != nil || r.StatusCode != 413 {
		t.Fatalf("%+v, %v", r, err)
	}
	if b, err := io.ReadAll(r.Body); err != nil || string(b) != "no!" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := br.ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	rules, err := socks.ParseRules([]string{"suffix:example.com=direct"})
	if err != nil {
		t.Fatal(err)
	}
	proxy := chain(t, ClientConfig{Rules: rules, Credentials: socks.Credentials{"ann": "x"}}, ExitConfig{})
	got := speak(t, proxy, "GET /proxy.pac HTTP/1.1\r\nHost: "+proxy+"\r\n\r\n")
	for _, want := range []string{"HTTP/1.1 200 ", "\r\nContent-Type: " + socks.PACType, "PROXY " + proxy, `below(host, "example.com")`} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
	if got := speak(t, proxy, "GET / HTTP/1.1\r\nHost: "+proxy+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 404 ") {
		t.Errorf("%q", got)
	}
}

func TestCurlPlain(t *testing.T) {
	t.Parallel()
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("needs curl")
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case "POST":
			b, _ := io.ReadAll(r.Body) // the server of net/http does not read on while it answers
			w.Write(b)
		default:
			w.Write(big)
		}
	}))
	t.Cleanup(s.Close)
	proxy := chain(t, ClientConfig{Credentials: socks.Credentials{"ann": "x"}}, ExitConfig{})
	for name, args := range map[string][]string{
		"get":         {s.URL},
		"two":         {s.URL, "--next", "-s", "-o", "/dev/null", "-x", "http://ann:x@" + proxy, "--noproxy", "", s.URL},
		"post":        {"--data-binary", "@-", s.URL},
		"post chunks": {"-H", "Transfer-Encoding: chunked", "--data-binary", "@-", s.URL},
		"post expect": {"-H", "Expect: 100-continue", "--data-binary", "@-", s.URL},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), curl, append([]string{"-sS", "-f", "-m", "20", "--noproxy", "", "-x", "http://ann:x@" + proxy}, args...)...)
			cmd.Stdin = bytes.NewReader(big)
			var talk bytes.Buffer
			cmd.Stderr = &talk
			out, err := cmd.Output()
			if err != nil || !bytes.Equal(out, big) {
				t.Errorf("%d bytes, want %d; %v, %s", len(out), len(big), err, talk.String())
			}
		})
	}
}

// TestSlowRequest checks that a program which sends its request byte by byte is held to the same limit as a silent one.
func TestSlowRequest(t *testing.T) {
	t.Parallel()
	proxy := chain(t, ClientConfig{Negotiation: 200 * time.Millisecond}, ExitConfig{})
	for _, b := range []string{"G", "\x05\xff", "\x04\x01\x00\x50\x01\x01\x01\x01"} {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			t.Fatal(err)
		}
		within(t, c)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, c)
		}()
		_, _ = io.WriteString(c, b)
		tick := time.NewTicker(10 * time.Millisecond)
		for alive := true; alive; {
			select {
			case <-ended:
				alive = false
			case <-tick.C:
				_, _ = c.Write([]byte("x"))
			}
		}
		tick.Stop()
	}
}
