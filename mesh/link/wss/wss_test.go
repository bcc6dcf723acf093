package wss

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pipe is two ends of a connection in memory that have room, as TCP's do.
func pipe(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, far} {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		t.Cleanup(func() { _ = c.Close() })
	}
	return near, far
}

// joined makes a WebSocket of a pipe.
func joined(t *testing.T, secure bool) (client, server net.Conn) {
	t.Helper()
	near, far := pipe(t)
	s, err := NewServer("/x", secure)
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := s.Upgrade(far)
		done <- result{c, err}
	}()
	client, err = Client(t.Context(), near, Target{Secure: secure, Host: "box.example", Port: "443", Path: "/x"})
	if err != nil {
		t.Fatal(err)
	}
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	return client, r.c
}

func TestBytesPass(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		client, server := joined(t, secure)
		sent := bytes.Repeat([]byte("0123456789abcdefghij~"), 9000)
		for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
			go func() {
				for rest, n := sent, 1; len(rest) > 0; n = n*3 + 1 {
					n = min(n, len(rest))
					_, _ = way[0].Write(rest[:n])
					rest = rest[n:]
				}
			}()
			got := make([]byte, len(sent))
			if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("secure %v: bytes differ, %v", secure, err)
			}
		}
	}
}

// TestOthersFrames reads what other programs may send: pieces, pings between them, closes; and refuses what breaks the rules.
func TestOthersFrames(t *testing.T) {
	t.Parallel()
	frame := func(op byte, final bool, body string) string {
		h := Header{Opcode: op, Final: final, Masked: true, Key: [4]byte{1, 2, 3, 4}, Length: int64(len(body))}
		b := []byte(body)
		mask(b, h.Key, 0)
		return string(append(h.Append(nil), b...))
	}
	for _, c := range []struct {
		name, in, want string
		err            error
	}{
		{"pieces", frame(opBinary, false, "ab") + frame(opContinue, false, "") + frame(opPing, true, "hi") + frame(opContinue, true, "cd"), "abcd", io.EOF},
		{"close", frame(opBinary, true, "ab") + frame(opClose, true, "\x03\xe8") + frame(opBinary, true, "cd"), "ab", io.EOF},
		{"text", frame(opText, true, "ab"), "", ErrFrame},
		{"continuation of nothing", frame(opContinue, true, "ab"), "", ErrFrame},
		{"message in a message", frame(opBinary, false, "ab") + frame(opBinary, true, "cd"), "ab", ErrFrame},
		{"not masked", string(Header{Opcode: opBinary, Final: true, Length: 1}.Append(nil)) + "a", "", ErrFrame},
		{"endless", string(Header{Opcode: opBinary, Final: true, Masked: true, Length: 1 << 40}.Append(nil)), "", ErrFrame},
		{"long ping", "\x89\xfe\x00\x7e", "", ErrFrame},
		{"reserved bit", "\xc2\x80\x00\x00\x00\x00", "", ErrFrame},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			near, far := pipe(t)
			_, _ = near.Write([]byte(c.in))
			_ = near.(*net.TCPConn).CloseWrite()
			got, err := io.ReadAll(newConn(far, bufio.NewReader(far), false))
			if err == nil {
				err = io.EOF
			}
			if string(got) != c.want || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", got, err, c.want, c.err)
			}
		})
	}
}

// TestStrangers are answered as a web server would, and nobody else gets in.
func TestStrangers(t *testing.T) {
	t.Parallel()
	const good = "GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, c := range []struct{ name, ask, want string }{
		{"upgrade", good, "101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"},
		{"page", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"},
		{"our page", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n", "404 Not Found"},
		{"other page", strings.Replace(good, "/x", "/y", 1), "404 Not Found"},
		{"old version", strings.Replace(good, ": 13", ": 8", 1), "404 Not Found"},
		{"post", strings.Replace(good, "GET", "POST", 1), "404 Not Found"},
		{"junk", "\x16\x03\x01\x02\x00\x01\r\n\r\n", "400 Bad Request"},
		{"long line", "GET /" + strings.Repeat("a", 2*maxHead) + " HTTP/1.1\r\n\r\n", "400 Bad Request"},
		{"many fields", "GET / HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxHead/4) + "\r\n", "400 Bad Request"},
		{"no end of lines", "GET / HTTP/1.1\r\n" + strings.Repeat("a", 2*maxHead), "400 Bad Request"},
		{"smuggling", "GET / HTTP/1.1\r\nA b: c\r\n\r\n", "400 Bad Request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			near, far := pipe(t)
			s, err := NewServer("/x", false)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = near.Write([]byte(c.ask))
				_ = near.(*net.TCPConn).CloseWrite()
			}()
			up, err := s.Upgrade(far)
			if (err == nil) != (c.name == "upgrade") {
				t.Errorf("upgraded: %v", err)
			}
			if up != nil {
				_ = up.Close()
			}
			_ = far.(*net.TCPConn).CloseWrite()
			got, _ := io.ReadAll(near)
			if !strings.HasPrefix(string(got), "HTTP/1.1 "+c.want) {
				t.Errorf("answered %q, want %q", got, c.want)
			}
		})
	}
}

// TestBrowser asks the TLS port as a browser does, and in plain HTTP.
func TestBrowser(t *testing.T) {
	t.Parallel()
	s, err := NewServer("/x", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{true, false} {
		near, far := pipe(t)
		go func() {
			_, _ = s.Upgrade(far)
			_ = far.Close()
		}()
		if secure {
			near = tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
		}
		_, _ = near.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		line, err := bufio.NewReader(near).ReadString('\n')
		if want := map[bool]string{true: "HTTP/1.1 404 Not Found\r\n", false: "HTTP/1.1 400 Bad Request\r\n"}[secure]; line != want {
			t.Errorf("secure %v: %q, %v; want %q", secure, line, err, want)
		}
	}
}

// TestProxy goes through a CONNECT proxy that wants a password.
func TestProxy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, proxy, says string
		want              error
	}{
		{"good", "http://me:pass%20word@proxy:3128", "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", nil},
		{"refused", "proxy:3128", "HTTP/1.0 407 Proxy Authentication Required\r\n\r\n", ErrRefused},
		{"no HTTP", "proxy:3128", "SSH-2.0-x\r\n\r\n", ErrHead},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			near, far := pipe(t)
			u, err := Proxy(c.proxy)
			if err != nil {
				t.Fatal(err)
			}
			asked := make(chan Head, 1)
			go func() {
				h, err := readHead(bufio.NewReaderSize(oneByOne{far}, 16))
				asked <- h
				_, _ = far.Write([]byte(c.says))
				if err != nil || c.want != nil {
					return
				}
				s, _ := NewServer("/x", true)
				_, _ = s.Upgrade(far)
			}()
			_, err = Client(t.Context(), near, Target{Secure: true, Host: "box.example", Port: "443", Path: "/x", Proxy: u})
			if !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			h := <-asked
			if h.Line[0] != "CONNECT" || h.Line[1] != "box.example:443" {
				t.Errorf("asked %q", h.Line)
			}
			if got := h.Get("proxy-authorization"); u.User != nil && got != "Basic bWU6cGFzcyB3b3Jk" {
				t.Errorf("authorization %q", got)
			}
		})
	}
}

func TestProxyAddress(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"http://proxy:3128": true, "proxy:3128": true, "http://u:p@proxy": true, "https://proxy:3128": false, "http://": false, "http://u:se cret@%zz": false,
	} {
		_, err := Proxy(s)
		if (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
		if err != nil && strings.Contains(err.Error(), "se cret") {
			t.Errorf("the password is told: %v", err)
		}
	}
}

// TestDialEnds shows that a server which says nothing holds nobody up for longer than was asked for.
func TestDialEnds(t *testing.T) {
	t.Parallel()
	near, _ := pipe(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Client(ctx, near, Target{Host: "a", Port: "80", Path: "/"}); err == nil {
		t.Error("no error")
	}
}

// Not parallel: allocations are counted.
func TestNoAllocations(t *testing.T) {
	client, server := joined(t, false)
	b := make([]byte, 1400)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = client.Write(b)
		_, _ = io.ReadFull(server, b)
		_, _ = server.Write(b)
		_, _ = io.ReadFull(client, b)
	}); n > 0 {
		t.Errorf("%v allocations a round", n)
	}
}

func FuzzHeader(f *testing.F) {
	for _, h := range []Header{
		{Opcode: opBinary, Final: true, Length: 5},
		{Opcode: opContinue, Masked: true, Length: 300},
		{Opcode: opPing, Final: true},
		{Opcode: opBinary, Final: true, Masked: true, Length: 1 << 20},
	} {
		f.Add(h.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := ParseHeader(b)
		if err != nil || n == 0 {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:n]) {
			t.Errorf("%x becomes %x", b[:n], got)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n"))
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHead(b)
		if err != nil {
			return
		}
		if len(h.fields) > maxHead || strings.ContainsAny(h.Line[0]+h.Line[1], "\r\n") {
			t.Errorf("%q", h)
		}
		_ = h.has("connection", "upgrade")
	})
}
