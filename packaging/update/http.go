package update

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"skywire/mesh/link/wss"
)

const (
	dialTimeout  = 20 * time.Second
	idleTimeout  = 30 * time.Second // without a byte
	maxRedirects = 5
	maxLine      = 16 << 10 // forges send policies of many kilobytes
	maxLines     = 100
)

// Web is a release at an http or https address. It speaks HTTP/1.0 by itself: the builds for small routers have no net/http, and one
// client for all is one to test. It follows redirects (release pages of forges send elsewhere) and uses no proxy. https needs the
// certificates of the system; http will do, since the signature is what counts.
type Web struct {
	Base *url.URL
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// NewWeb reads the address of a release's folder.
func NewWeb(text string) (*Web, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q is no http or https address", text)
	}
	if u.Path = strings.TrimSuffix(u.Path, "/"+ManifestName); !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return &Web{Base: u, Dial: (&net.Dialer{Timeout: dialTimeout}).DialContext}, nil
}

// Open implements Source.
func (w *Web) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	if !plain(name, maxName) {
		return nil, fmt.Errorf("%w: the name %.80q", ErrFile, name)
	}
	u := *w.Base
	u.Path, u.RawPath = u.Path+name, ""
	at := &u
	for range maxRedirects {
		body, next, err := w.get(ctx, at)
		if err != nil {
			return nil, fmt.Errorf("get %s: %w", at.Redacted(), err)
		}
		if next == nil {
			return body, nil
		}
		at = next
	}
	return nil, fmt.Errorf("get %s: %w: more than %d redirects", u.Redacted(), ErrHTTP, maxRedirects)
}

// get asks once: for the body, or where else to ask.
func (w *Web) get(ctx context.Context, u *url.URL) (_ io.ReadCloser, next *url.URL, err error) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	raw, err := w.Dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, nil, err
	}
	b := &body{conn: raw, left: -1}
	b.stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		if err != nil || next != nil {
			err = errors.Join(err, ctx.Err())
			b.Close()
		}
	}()
	b.extend()
	if u.Scheme == "https" {
		s := tls.Client(raw, &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
		if err := s.HandshakeContext(ctx); err != nil {
			return nil, nil, err
		}
		b.conn = s
	}
	ask := "GET " + u.RequestURI() + " HTTP/1.0\r\nHost: " + u.Host + "\r\nUser-Agent: skywire-update\r\nAccept: */*\r\n\r\n"
	if _, err := io.WriteString(b.conn, ask); err != nil {
		return nil, nil, err
	}
	b.r = bufio.NewReaderSize(b.conn, maxLine)
	h, err := head(b.r)
	if err != nil {
		return nil, nil, err
	}
	switch status := h.Line[1]; {
	case strings.HasPrefix(status, "3") && h.Get("location") != "":
		next, err = u.Parse(h.Get("location"))
		if err == nil && (next.Host == "" || next.Scheme != "https" && next.Scheme != u.Scheme) {
			err = fmt.Errorf("%w: redirected to %.200q", ErrHTTP, next)
		}
		return nil, next, err
	case status != "200":
		return nil, nil, fmt.Errorf("%w: %.20q", ErrHTTP, status)
	case h.Get("transfer-encoding") != "": // no answer to HTTP/1.0 has it
		return nil, nil, fmt.Errorf("%w: it answers in chunks", ErrHTTP)
	}
	if text := h.Get("content-length"); text != "" {
		if b.left, err = strconv.ParseInt(text, 10, 64); err != nil || b.left < 0 {
			return nil, nil, fmt.Errorf("%w: length %.20q", ErrHTTP, text)
		}
	}
	return b, nil, nil
}

// head reads the lines before the body, and keeps those that matter.
func head(r *bufio.Reader) (wss.Head, error) {
	var all []byte
	for n := range maxLines {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return wss.Head{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return wss.ParseHead(all)
		}
		name, _, _ := strings.Cut(string(line), ":")
		switch strings.ToLower(name) {
		case "location", "content-length", "transfer-encoding":
			all = append(all, line...)
		default:
			if n == 0 {
				all = append(all, line...)
			}
		}
	}
	return wss.Head{}, fmt.Errorf("%w: its head is too long", ErrHTTP)
}

// body is what follows the head, up to its stated length or the end of the connection.
type body struct {
	conn net.Conn
	r    *bufio.Reader
	left int64 // not read yet; below 0: until the end
	stop func() bool
}

func (b *body) extend() { _ = b.conn.SetDeadline(time.Now().Add(idleTimeout)) }

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	b.extend()
	n, err := b.r.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
		if errors.Is(err, io.EOF) && b.left > 0 {
			err = io.ErrUnexpectedEOF
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.stop()
	return b.conn.Close()
}
