package socks

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Limits on the head of an HTTP request or answer. What programs send with cookies stays below them.
const (
	maxHeaders     = 128
	maxHeaderBytes = 32 << 10
	httpBuffer     = 16 << 10 // of a program that sends plain requests: one line, so an address or a cookie
)

// negotiateHTTP reads a request's head. net/http is not used: its server owns the connection and its buffers, and would be
// a third of a router's binary.
func negotiateHTTP(br *bufio.Reader, w io.Writer, c Credentials) (*Request, error) {
	if b, err := br.Peek(len("CONNECT ")); err == nil && string(b) != "CONNECT " || err != nil && len(b) > 0 && b[0] != 'C' {
		br = bufio.NewReaderSize(br, httpBuffer)
	}
	line, err := readLine(br)
	if err != nil {
		return nil, refuseHead(w, err)
	}
	method, target, minor, ok := splitRequestLine(line)
	if !ok {
		return nil, refuseHead(w, wrong(ErrProtocol, "request line"))
	}
	h := head{line: line}
	if h.headers, err = readHeaders(br); err != nil {
		return nil, refuseHead(w, err)
	}
	if target[0] == '/' { // asked of the proxy itself: a browser does so before it knows any password
		return page(h, method, target, w)
	}
	r := &Request{Protocol: HTTP, Command: Connect}
	if c.Required() {
		user, password, ok := parseBasic(h.get("Proxy-Authorization"))
		if !ok || !c.Valid(user, password) {
			return nil, refuseHTTP(w, 407, `Proxy-Authenticate: Basic realm="skywire"`, wrong(ErrAuth, "wrong user or password, or none"))
		}
		r.User = user
	}
	if method != "CONNECT" {
		r.Command = Forward
		r.Exchange = &Exchange{br: br}
		if err := r.Exchange.take(h, method, target, minor); err != nil {
			return nil, refuseHead(w, err)
		}
		r.Host, r.Port = r.Exchange.Host, r.Exchange.Port
		return r, nil
	}
	if r.Host, r.Port, err = parseAuthority(target); err != nil {
		return nil, refuseHTTP(w, 400, "", err)
	}
	return r, nil
}

// page lets GET and HEAD of the proxy's own pages through. A Host that is a name is refused: it would be a web page of
// somebody else's that has been pointed at this address (DNS rebinding).
func page(h head, method, target string, w io.Writer) (*Request, error) {
	host, _, err := net.SplitHostPort(h.get("Host"))
	if err != nil {
		host = h.get("Host")
	}
	_, err = netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case method != "GET" && method != "HEAD":
		return nil, refuseHTTP(w, 405, "Allow: GET, HEAD", wrong(ErrCommand, plainText))
	case err != nil && host != "localhost":
		return nil, refuseHTTP(w, 421, "", wrong(ErrProtocol, plainText))
	}
	return &Request{Protocol: HTTP, Command: Page, Path: target}, nil
}

const plainText = "This port is a proxy (SOCKS5, SOCKS4a, HTTP): tell your program to use it as one.\n" +
	"Browsers can take its rules from /proxy.pac.\n"

// Answer sends a page of the proxy's own, or the word that there is none where body is empty. Scripts of other sites can
// ask for it but not read it.
func (r *Request) Answer(w io.Writer, kind, body string) error {
	if body == "" {
		return replyHTTP(w, 404, "", plainText)
	}
	_, err := fmt.Fprintf(w, "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"+
		"Cross-Origin-Resource-Policy: same-origin\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
	return err
}

// splitRequestLine cuts "METHOD TARGET HTTP/1.x" at its spaces.
func splitRequestLine(line string) (method, target string, minor int, ok bool) {
	f := strings.Split(line, " ")
	if len(f) != 3 || f[0] == "" || f[1] == "" || len(f[2]) != len("HTTP/1.x") || !strings.HasPrefix(f[2], "HTTP/1.") {
		return "", "", 0, false
	}
	for _, b := range []byte(f[0]) {
		if !isToken(b) {
			return "", "", 0, false
		}
	}
	minor = int(f[2][7] - '0')
	return f[0], f[1], minor, minor >= 0 && minor <= 9
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

// refuseHead answers what readHead and take found wrong, where there is anybody left to hear it.
func refuseHead(w io.Writer, err error) error {
	status := 0
	switch {
	case errors.Is(err, ErrTooLong):
		status = 431
	case errors.Is(err, ErrCommand):
		status = 501
	case errors.Is(err, ErrProtocol), errors.Is(err, ErrAddress):
		status = 400
	default:
		return err
	}
	return refuseHTTP(w, status, "", err)
}

// refuseHTTP says no for the reason err, which it returns.
func refuseHTTP(w io.Writer, status int, header string, err error) error {
	return errors.Join(err, replyHTTP(w, status, header, err.Error()))
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

// statusText is the reason phrase of what this proxy says.
func statusText(status int) string {
	switch status {
	case 400:
		return "Bad Request"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 407:
		return "Proxy Authentication Required"
	case 421:
		return "Misdirected Request"
	case 431:
		return "Request Header Fields Too Large"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 504:
		return "Gateway Timeout"
	}
	return "Service Unavailable"
}

// replyHTTP writes a refusal with a text for people, and a header line where there is one. The connection ends after it.
func replyHTTP(w io.Writer, status int, header, text string) error {
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if header != "" {
		header += "\r\n"
	}
	_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\n%sProxy-Agent: skywire\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s",
		status, statusText(status), header, len(text), text)
	return err
}
