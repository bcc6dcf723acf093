package wss

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// Target is where and how to dial.
type Target struct {
	Secure     bool
	Host, Port string   // of the server, as written in its address
	Path       string   // begins with a slash
	SNI        string   // told instead of Host; empty: Host
	Proxy      *url.URL // HTTP CONNECT proxy that the connection below leads to; nil: it leads to the server
}

// Proxy reads the address of a proxy: http://[user:password@]host[:port], or host:port.
func Proxy(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("%w: proxy: its address can't be read", ErrConfig) // err would show the password
	}
	if u.Scheme != "http" || u.Hostname() == "" {
		return nil, fmt.Errorf("%w: proxy %q: want http://[user:password@]host:port", ErrConfig, u.Redacted())
	}
	return u, nil
}

// Client makes a WebSocket of a connection to the server or the proxy; it closes c where that fails.
func Client(ctx context.Context, c net.Conn, t Target) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	w, err := client(ctx, c, t)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return w, nil
}

func client(ctx context.Context, c net.Conn, t Target) (net.Conn, error) {
	if t.Proxy != nil {
		if err := connect(c, t); err != nil {
			return nil, fmt.Errorf("proxy %s: %w", t.Proxy.Host, err)
		}
	}
	name := t.SNI
	if name == "" {
		name = t.Host
	}
	if t.Secure {
		s := tls.Client(c, &tls.Config{
			ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
			InsecureSkipVerify:          true, // who the peer is shows the handshake inside
			DynamicRecordSizingDisabled: true,
		})
		if err := s.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c = s
	}
	return upgrade(c, t, name)
}

// connect asks a proxy for the connection (RFC 9110, 9.3.6).
func connect(c net.Conn, t Target) error {
	at := net.JoinHostPort(t.Host, t.Port)
	ask := "CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n"
	if t.Proxy.User != nil {
		password, _ := t.Proxy.User.Password()
		ask += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(t.Proxy.User.Username()+":"+password)) + "\r\n"
	}
	if _, err := c.Write([]byte(ask + "\r\n")); err != nil {
		return err
	}
	// Byte by byte: what follows the head belongs to whoever is asked next.
	h, err := readHead(bufio.NewReaderSize(oneByOne{c}, 16))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(h.Line[1], "2") {
		return fmt.Errorf("%w: %s %s", ErrRefused, h.Line[1], printable(h.Line[2]))
	}
	return nil
}

// oneByOne reads no further than it must.
type oneByOne struct{ net.Conn }

func (o oneByOne) Read(b []byte) (int, error) { return o.Conn.Read(b[:min(len(b), 1)]) }

// upgrade asks a server for the WebSocket.
func upgrade(c net.Conn, t Target, name string) (net.Conn, error) {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	key := base64.StdEncoding.EncodeToString(random[:])
	host := name
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if t.Secure && t.Port != "443" || !t.Secure && t.Port != "80" {
		host += ":" + t.Port
	}
	_, err := c.Write([]byte("GET " + t.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Mozilla/5.0\r\nUpgrade: websocket\r\n" +
		"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"))
	if err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(c, readerSize)
	h, err := readHead(r)
	if err != nil {
		return nil, err
	}
	if h.Line[1] != "101" || !h.has("upgrade", "websocket") || h.Get("sec-websocket-accept") != acceptFor(key) {
		return nil, fmt.Errorf("%w: %s %s", ErrRefused, h.Line[1], printable(h.Line[2]))
	}
	return newConn(c, r, true), nil
}

// printable keeps what a stranger says fit for a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s[:min(len(s), 64)])
}
