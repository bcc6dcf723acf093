package socks

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// fixed is a connection whose other side has said all it will.
type fixed struct {
	net.Conn // nil: what is not below is not called
	in       io.Reader
	out      bytes.Buffer
}

func (f *fixed) Read(b []byte) (int, error)       { return f.in.Read(b) }
func (f *fixed) Write(b []byte) (int, error)      { return f.out.Write(b) }
func (f *fixed) SetReadDeadline(time.Time) error  { return nil }
func (f *fixed) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer checks that whatever a server says, the program gets one whole answer or none, as net/http reads it.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nto the end", "HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 101 x\r\n\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		c := &fixed{in: strings.NewReader(method + " http://a/ HTTP/1.1\r\n\r\n")}
		r, err := Negotiate(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.out.Reset()
		s := &fixed{in: bytes.NewReader(in)}
		o, answered, err := r.Exchange.Do(c, s, bufio.NewReaderSize(s, httpBuffer), 0)
		if !answered && c.out.Len() > 0 {
			t.Errorf("wrote %q without an answer", c.out.Bytes())
		}
		if err != nil || o != Again {
			return
		}
		// The connection goes on: what the program got has to be whole messages and nothing more.
		br := bufio.NewReader(&c.out)
		for {
			a, err := http.ReadResponse(br, &http.Request{Method: method})
			if err != nil {
				t.Fatalf("%q: %v", in, err)
			}
			if _, err := io.Copy(io.Discard, a.Body); err != nil {
				t.Fatalf("%q: %v", in, err)
			}
			if a.StatusCode >= 200 {
				break
			}
		}
		if rest, _ := io.ReadAll(br); len(rest) > 0 {
			t.Errorf("%q: %q after the answer", in, rest)
		}
	})
}
