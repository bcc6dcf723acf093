package socks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
)

// talk is a program that has sent all of in and reads what comes.
type talk struct {
	io.Reader
	bytes.Buffer
}

func (t *talk) Read(b []byte) (int, error) { return t.Reader.Read(b) }

func TestNegotiate(t *testing.T) {
	t.Parallel()
	user := Credentials{"ann": "secret"}
	tests := []struct {
		name  string
		in    string
		cred  Credentials
		want  Request
		err   error
		reply string // what the answer begins with
	}{
		{name: "socks5 name", in: "\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb", want: Request{Protocol: SOCKS5, Host: "example.com", Port: 443}, reply: "\x05\x00"},
		{name: "socks5 ipv4", in: "\x05\x02\x02\x00\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50", want: Request{Protocol: SOCKS5, Host: "1.2.3.4", Port: 80}, reply: "\x05\x00"},
		{name: "socks5 ipv6", in: "\x05\x01\x00\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50", want: Request{Protocol: SOCKS5, Host: "2001:db8::1", Port: 80}, reply: "\x05\x00"},
		{name: "socks5 bytes sent ahead", in: "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50GET / HTTP/1.0\r\n\r\n", want: Request{Protocol: SOCKS5, Host: "a", Port: 80, First: []byte("GET / HTTP/1.0\r\n\r\n")}, reply: "\x05\x00"},
		{name: "socks5 user", in: "\x05\x02\x00\x02\x01\x03ann\x06secret\x05\x01\x00\x03\x01a\x00\x50", cred: user, want: Request{Protocol: SOCKS5, Host: "a", Port: 80, User: "ann"}, reply: "\x05\x02\x01\x00"},
		{name: "socks5 wrong password", in: "\x05\x01\x02\x01\x03ann\x05wrong", cred: user, err: ErrAuth, reply: "\x05\x02\x01\x01"},
		{name: "socks5 no password offered", in: "\x05\x01\x00", cred: user, err: ErrAuth, reply: "\x05\xff"},
		{name: "socks5 no methods", in: "\x05\x00", err: ErrAuth, reply: "\x05\xff"},
		{name: "socks5 bind", in: "\x05\x01\x00\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50", err: ErrCommand, reply: "\x05\x00\x05\x07"},
		{name: "socks5 udp associate", in: "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", want: Request{Protocol: SOCKS5, Command: Associate, Host: "0.0.0.0"}, reply: "\x05\x00"},
		{name: "socks5 udp associate from", in: "\x05\x01\x00\x05\x03\x00\x01\x0a\x00\x00\x01\x12\x34", want: Request{Protocol: SOCKS5, Command: Associate, Host: "10.0.0.1", Port: 0x1234}, reply: "\x05\x00"},
		{name: "socks5 command 9", in: "\x05\x01\x00\x05\x09\x00\x01\x01\x02\x03\x04\x00\x50", err: ErrCommand, reply: "\x05\x00\x05\x07"},
		{name: "socks5 address type", in: "\x05\x01\x00\x05\x01\x00\x02\x01\x02\x03\x04\x00\x50", err: ErrAddress, reply: "\x05\x00\x05\x08"},
		{name: "socks5 empty name", in: "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", err: ErrAddress, reply: "\x05\x00\x05\x08"},
		{name: "socks5 name with newline", in: "\x05\x01\x00\x05\x01\x00\x03\x02a\n\x00\x50", err: ErrAddress, reply: "\x05\x00\x05\x08"},
		{name: "socks5 port 0", in: "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x00", err: ErrAddress, reply: "\x05\x00\x05\x08"},
		{name: "socks5 request version", in: "\x05\x01\x00\x04\x01\x00\x03\x01a\x00\x50", err: ErrProtocol, reply: "\x05\x00\x05\x01"},
		{name: "socks5 cut short", in: "\x05\x01\x00\x05\x01\x00\x03\x0bexam", err: io.ErrUnexpectedEOF, reply: "\x05\x00"},
		{name: "socks4", in: "\x04\x01\x00\x50\x01\x02\x03\x04ann\x00", want: Request{Protocol: SOCKS4, Host: "1.2.3.4", Port: 80}},
		{name: "socks4 bytes ahead", in: "\x04\x01\x00\x50\x01\x02\x03\x04\x00x", want: Request{Protocol: SOCKS4, Host: "1.2.3.4", Port: 80, First: []byte("x")}},
		{name: "socks4a", in: "\x04\x01\x00\x50\x00\x00\x00\x01\x00example.com\x00", want: Request{Protocol: SOCKS4, Host: "example.com", Port: 80}},
		{name: "socks4 address 0.0.0.0", in: "\x04\x01\x00\x50\x00\x00\x00\x00\x00", want: Request{Protocol: SOCKS4, Host: "0.0.0.0", Port: 80}},
		{name: "socks4 bind", in: "\x04\x02\x00\x50\x01\x02\x03\x04\x00", err: ErrCommand, reply: "\x00\x5b"},
		{name: "socks4 where a password is wanted", in: "\x04\x01\x00\x50\x01\x02\x03\x04ann\x00", cred: user, err: ErrAuth, reply: "\x00\x5b"},
		{name: "socks4a empty name", in: "\x04\x01\x00\x50\x00\x00\x00\x01\x00\x00", err: ErrAddress, reply: "\x00\x5b"},
		{name: "socks4 long user", in: "\x04\x01\x00\x50\x01\x02\x03\x04" + strings.Repeat("a", maxUserID+1) + "\x00", err: ErrProtocol, reply: "\x00\x5b"},
		{name: "socks4a long name", in: "\x04\x01\x00\x50\x00\x00\x00\x01\x00" + strings.Repeat("a", maxHost+1) + "\x00", err: ErrProtocol, reply: "\x00\x5b"},
		{name: "socks4 cut short", in: "\x04\x01\x00\x50\x01\x02\x03\x04ann", err: io.EOF},
		{name: "tls", in: "\x16\x03\x01", err: ErrProtocol},
		{name: "nothing", in: "", err: io.EOF},

		{name: "connect", in: "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", want: Request{Protocol: HTTP, Host: "example.com", Port: 443}},
		{name: "connect bare newlines", in: "CONNECT a:1 HTTP/1.0\n\n", want: Request{Protocol: HTTP, Host: "a", Port: 1}},
		{name: "connect ipv6, bytes ahead", in: "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n\r\n\x16\x03\x01", want: Request{Protocol: HTTP, Host: "2001:db8::1", Port: 443, First: []byte("\x16\x03\x01")}},
		{name: "connect user", in: "CONNECT a:1 HTTP/1.1\r\nproxy-authorization:  basic YW5uOnNlY3JldA==\r\n\r\n", cred: user, want: Request{Protocol: HTTP, Host: "a", Port: 1, User: "ann"}},
		{name: "connect wrong password", in: "CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic YW5uOndyb25n\r\n\r\n", cred: user, err: ErrAuth, reply: "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic"},
		{name: "connect no password", in: "CONNECT a:1 HTTP/1.1\r\n\r\n", cred: user, err: ErrAuth, reply: "HTTP/1.1 407 "},
		{name: "get", in: "GET http://example.com/a?b HTTP/1.1\r\nHost: other\r\n\r\n", want: Request{Protocol: HTTP, Command: Forward, Host: "example.com", Port: 80}},
		{name: "get with port", in: "GET http://[::1]:8080 HTTP/1.1\r\n\r\n", want: Request{Protocol: HTTP, Command: Forward, Host: "::1", Port: 8080}},
		{name: "get user", in: "GET http://a/ HTTP/1.1\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n", cred: user, want: Request{Protocol: HTTP, Command: Forward, Host: "a", Port: 80, User: "ann"}},
		{name: "get no password", in: "GET http://a/ HTTP/1.1\r\n\r\n", cred: user, err: ErrAuth, reply: "HTTP/1.1 407 "},
		{name: "get https", in: "GET https://a/ HTTP/1.1\r\n\r\n", err: ErrCommand, reply: "HTTP/1.1 501 "},
		{name: "get userinfo", in: "GET http://u:p@a/ HTTP/1.1\r\n\r\n", err: ErrAddress, reply: "HTTP/1.1 400 "},
		{name: "trace", in: "TRACE http://a/ HTTP/1.1\r\n\r\n", err: ErrCommand, reply: "HTTP/1.1 501 "},
		{name: "length and chunks", in: "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "two lengths", in: "POST http://a/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "negative length", in: "POST http://a/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "gzip transfer", in: "POST http://a/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "bare carriage return", in: "GET http://a/ HTTP/1.1\r\nA: b\rC: d\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "space before a colon", in: "GET http://a/ HTTP/1.1\r\nContent-Length : 5\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "own page", in: "GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1:1080\r\n\r\n", cred: user, want: Request{Protocol: HTTP, Command: Page}},
		{name: "own page, rebound", in: "GET /proxy.pac HTTP/1.1\r\nHost: evil.example:1080\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 421 "},
		{name: "post to the proxy", in: "POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", err: ErrCommand, reply: "HTTP/1.1 405 "},
		{name: "get lower case", in: "get / HTTP/1.1\r\n\r\n", err: ErrCommand, reply: "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, HEAD\r\n"},
		{name: "connect without port", in: "CONNECT example.com HTTP/1.1\r\n\r\n", err: ErrAddress, reply: "HTTP/1.1 400 "},
		{name: "connect port 99999", in: "CONNECT a:99999 HTTP/1.1\r\n\r\n", err: ErrAddress, reply: "HTTP/1.1 400 "},
		{name: "connect user@host", in: "CONNECT u@a:1 HTTP/1.1\r\n\r\n", err: ErrAddress, reply: "HTTP/1.1 400 "},
		{name: "not http", in: "SSH-2.0-OpenSSH_9.2\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "http/2 preface", in: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "folded header", in: "CONNECT a:1 HTTP/1.1\r\nA: b\r\n c\r\n\r\n", err: ErrProtocol, reply: "HTTP/1.1 400 "},
		{name: "long line", in: "CONNECT a:1 HTTP/1.1\r\nA: " + strings.Repeat("b", bufferSize) + "\r\n\r\n", err: ErrTooLong, reply: "HTTP/1.1 431 "},
		{name: "many headers", in: "CONNECT a:1 HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", maxHeaders+1) + "\r\n", err: ErrTooLong, reply: "HTTP/1.1 431 "},
		{name: "http cut short", in: "CONNECT a:1 HT", err: io.EOF},
	}
	for _, tt := range tests {
		for _, how := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{{"at once", func(r io.Reader) io.Reader { return r }}, {"byte by byte", iotest.OneByteReader}} {
			t.Run(tt.name+"/"+how.name, func(t *testing.T) {
				t.Parallel()
				c := &talk{Reader: how.wrap(strings.NewReader(tt.in))}
				r, err := Negotiate(c, tt.cred)
				if !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
					t.Fatalf("error %v, want %v", err, tt.err)
				}
				if got := c.String(); !strings.HasPrefix(got, tt.reply) {
					t.Errorf("reply %q, want it to begin with %q", got, tt.reply)
				}
				if err != nil {
					return
				}
				if r.Command == Forward || r.Command == Page {
					r.First = nil
				}
				rest, err := io.ReadAll(c.Reader) // what is still in the socket follows what was taken out of it
				if err != nil {
					t.Fatal(err)
				}
				if r.First = append(r.First, rest...); string(r.First) != string(tt.want.First) {
					t.Errorf("bytes ahead %q, want %q", r.First, tt.want.First)
				}
				if r.Protocol != tt.want.Protocol || r.Host != tt.want.Host || r.Port != tt.want.Port || r.User != tt.want.User || r.Command != max(tt.want.Command, Connect) {
					t.Errorf("request %+v, want %+v", r, tt.want)
				}
			})
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code Code
		http string
	}{
		{Failed, "503"},
		{NotAllowed, "403"},
		{NetworkUnreachable, "503"},
		{HostUnreachable, "502"},
		{Refused, "502"},
		{Expired, "504"},
	}
	for _, tt := range tests {
		var b bytes.Buffer
		if err := (&Request{Protocol: HTTP}).Deny(&b, tt.code, "why not"); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); !strings.HasPrefix(got, "HTTP/1.1 "+tt.http+" ") || !strings.HasSuffix(got, "\r\n\r\nwhy not\n") {
			t.Errorf("%s over HTTP: %q", tt.code, got)
		}
		b.Reset()
		if err := (&Request{Protocol: SOCKS5}).Deny(&b, tt.code, ""); err != nil {
			t.Fatal(err)
		}
		if got, want := b.Bytes(), []byte{5, byte(tt.code), 0, 1, 0, 0, 0, 0, 0, 0}; !bytes.Equal(got, want) {
			t.Errorf("%s over SOCKS5: %x, want %x", tt.code, got, want)
		}
	}
}

// TestNobodyLeft checks that a program that hangs up is an error and no more.
func TestNobodyLeft(t *testing.T) {
	t.Parallel()
	a, b := net.Pipe()
	a.Close()
	if _, err := Negotiate(b, Credentials{}); err == nil {
		t.Error("a closed connection negotiated")
	}
	if err := (&Request{Protocol: SOCKS5}).Grant(b); err == nil {
		t.Error("granted to nobody")
	}
}

func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{
		"\x05\x01\x00\x05\x01\x00\x03\x0bexample.com\x01\xbb", "\x05\x02\x00\x02\x01\x03ann\x06secret\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
		"\x04\x01\x00\x50\x01\x02\x03\x04\x00", "CONNECT [::1]:443 HTTP/1.1\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\nx",
		"GET http://example.com/ HTTP/1.1\r\nConnection: close, x\r\nX: y\r\n\r\n", "POST http://a:1/?x HTTP/1.0\nContent-Length: 3\n\nabc", "GET /proxy.pac HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"\x04\x01\x00\x50\x00\x00\x00\x01ann\x00example.com\x00x", "\x05\x01\x00\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, in []byte, password bool) {
		var cred Credentials
		if password {
			cred = Credentials{"ann": "secret"}
		}
		c := &talk{Reader: bytes.NewReader(in)}
		r, err := Negotiate(c, cred)
		if err != nil {
			return
		}
		if err := CheckTarget(r.Host, r.Port); err != nil && r.Command != Associate && r.Command != Page {
			t.Errorf("accepted %q: %v", r.Address(), err)
		}
		if password && r.User != "ann" && r.Command != Page {
			t.Errorf("accepted user %q", r.User)
		}
		if r.Exchange != nil {
			if b := r.Exchange.Head; bytes.Count(b, []byte("\r\n\r\n")) != 1 || !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
				t.Errorf("head %q", b)
			}
			return
		}
		rest, _ := io.ReadAll(c.Reader)
		if ahead := append(r.First, rest...); !bytes.HasSuffix(in, ahead) || len(r.First) > MaxFirst {
			t.Errorf("bytes ahead %q are not the end of %q", ahead, in)
		}
	})
}
