package socks

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Limits on an HTTP request. A CONNECT is a few hundred bytes; whoever sends more is no client of ours.
const (
	maxHeaders     = 64
	maxHeaderBytes = 16 << 10
)

// negotiateHTTP reads a request's head. net/http is not used: its server owns the connection and its buffers, and would be
// a third of a router's binary.
func negotiateHTTP(br *bufio.Reader, w io.Writer, c Credentials) (*Request, error) {
	line, err := readLine(br)
	if err != nil {
		return nil, refuseLine(w, err)
	}
	method, target, ok := splitRequestLine(line)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%w: request line", ErrProtocol), replyHTTP(w, 400, nil, "This is no HTTP request."))
	}
	authorization, err := readHeaders(br)
	if err != nil {
		return nil, refuseLine(w, err)
	}
	if method != "CONNECT" {
		return nil, errors.Join(fmt.Errorf("%w: HTTP %s", ErrCommand, method), replyHTTP(w, 405, []string{"Allow: CONNECT"}, plainText))
	}
	r := &Request{Protocol: HTTP}
	if c.Required() {
		user, password, ok := parseBasic(authorization)
		if !ok || !c.Valid(user, password) {
			return nil, errors.Join(fmt.Errorf("%w: wrong user or password, or none", ErrAuth),
				replyHTTP(w, 407, []string{`Proxy-Authenticate: Basic realm="skywire"`}, "User and password, please."))
		}
		r.User = user
	}
	if r.Host, r.Port, err = parseAuthority(target); err != nil {
		return nil, errors.Join(err, replyHTTP(w, 400, nil, "CONNECT wants HOST:PORT."))
	}
	return r, nil
}

const plainText = "This port is a proxy that carries connections (SOCKS5 and HTTP CONNECT), not single requests.\n" +
	"Tell your program to tunnel: curl --proxytunnel --proxy http://…, or curl --proxy socks5h://…;\n" +
	"https:// addresses work as they are.\n"

// splitRequestLine cuts "METHOD TARGET HTTP/1.x" at its spaces. 1.0 and 1.1 mean the same for CONNECT.
func splitRequestLine(line string) (method, target string, ok bool) {
	f := strings.Split(line, " ")
	if len(f) != 3 || f[1] == "" || !strings.HasPrefix(f[2], "HTTP/1.") {
		return "", "", false
	}
	return f[0], f[1], true
}

// readHeaders reads to the empty line and returns the value of Proxy-Authorization.
func readHeaders(br *bufio.Reader) (authorization string, err error) {
	total := 0
	for range maxHeaders {
		line, err := readLine(br)
		if err != nil {
			return "", err
		}
		if line == "" {
			return authorization, nil
		}
		if total += len(line); total > maxHeaderBytes {
			return "", ErrTooLong
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return "", fmt.Errorf("%w: header line", ErrProtocol)
		}
		if strings.EqualFold(name, "Proxy-Authorization") {
			authorization = strings.Trim(value, " \t")
		}
	}
	return "", ErrTooLong
}

// readLine returns a line without its end. It never holds more than the reader's buffer.
func readLine(br *bufio.Reader) (string, error) {
	b, err := br.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", ErrTooLong
	}
	if err != nil {
		return "", fmt.Errorf("http request: %w", err)
	}
	return strings.TrimSuffix(string(b[:len(b)-1]), "\r"), nil
}

// refuseLine answers what readLine and readHeaders found wrong, where there is anybody left to hear it.
func refuseLine(w io.Writer, err error) error {
	switch {
	case errors.Is(err, ErrTooLong):
		return errors.Join(err, replyHTTP(w, 431, nil, "Request too long."))
	case errors.Is(err, ErrProtocol):
		return errors.Join(err, replyHTTP(w, 400, nil, "This is no HTTP request."))
	}
	return err
}

// parseBasic opens "Basic base64(user:password)" (RFC 7617).
func parseBasic(s string) (user, password string, ok bool) {
	scheme, token, _ := strings.Cut(s, " ")
	if !strings.EqualFold(scheme, "basic") {
		return "", "", false
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimLeft(token, " "))
	if err != nil {
		return "", "", false
	}
	return strings.Cut(string(b), ":")
}

// parseAuthority opens CONNECT's target, host:port with an IPv6 host in brackets.
func parseAuthority(s string) (host string, port uint16, err error) {
	h, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %q", ErrAddress, s)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%w: port %q", ErrAddress, p)
	}
	return h, uint16(n), CheckTarget(h, uint16(n))
}

var statusText = map[int]string{
	400: "Bad Request", 403: "Forbidden", 405: "Method Not Allowed", 407: "Proxy Authentication Required",
	431: "Request Header Fields Too Large", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
	504: "Gateway Timeout",
}

// replyHTTP writes a refusal with a text for people. The connection ends after it.
func replyHTTP(w io.Writer, status int, headers []string, text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", status, statusText[status])
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Proxy-Agent: skywire\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	_, err := io.WriteString(w, b.String())
	return err
}
