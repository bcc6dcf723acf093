package wss

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
)

// Server makes WebSockets of accepted connections.
type Server struct {
	path string
	tls  *tls.Config // nil: plain
}

// NewServer returns a server for one path; secure: with TLS and a certificate of its own, else plain, behind somebody who
// does that.
func NewServer(path string, secure bool) (*Server, error) {
	s := &Server{path: path}
	if !secure {
		return s, nil
	}
	cert, err := certificate()
	if err != nil {
		return nil, err
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		CurvePreferences: []tls.CurveID{tls.X25519},
	}
	return s, nil
}

// readerSize is the buffer of what is read: heads, and the headers of frames; payload passes by it.
const readerSize = 4096

// Upgrade makes the WebSocket, or answers as a web server without pages would. The connection's deadline bounds it. On an
// error the caller closes c.
func (s *Server) Upgrade(c net.Conn) (net.Conn, error) {
	if s.tls != nil {
		t := tls.Server(c, s.tls)
		if err := t.Handshake(); err != nil {
			var wrong tls.RecordHeaderError
			if errors.As(err, &wrong) && wrong.Conn != nil && looksLikeRequest(wrong.RecordHeader[:]) {
				answer(wrong.Conn, "400 Bad Request", "plain HTTP was sent to a TLS port\n")
			}
			return nil, fmt.Errorf("tls: %w", err)
		}
		c = t
	}
	r := bufio.NewReaderSize(c, readerSize)
	h, err := readHead(r)
	if err != nil {
		if errors.Is(err, ErrHead) {
			answer(c, "400 Bad Request", "bad request\n")
		}
		return nil, err
	}
	key := h.Get("sec-websocket-key")
	path, _, _ := strings.Cut(h.Line[1], "?")
	if h.Line[0] != "GET" || path != s.path || key == "" || len(key) > maxControl || !h.has("upgrade", "websocket") ||
		!h.has("connection", "upgrade") || h.Get("sec-websocket-version") != "13" {
		answer(c, "404 Not Found", "404 page not found\n")
		return nil, ErrNotForUs
	}
	if r.Buffered() > 0 {
		return nil, ErrFrame // nobody speaks before he is answered
	}
	_, err = c.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		acceptFor(key) + "\r\n\r\n"))
	if err != nil {
		return nil, err
	}
	return newConn(c, r, false), nil
}

func looksLikeRequest(b []byte) bool {
	switch string(b[:4]) {
	case "GET ", "HEAD", "POST", "PUT ", "OPTI":
		return true
	}
	return false
}

// answer says goodbye in HTTP.
func answer(c net.Conn, status, text string) {
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", status, len(text), text)
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
