package socks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// exchangeIdle is how long either side of an exchange may be silent before it is given up: long polls are minutes long.
const exchangeIdle = 10 * time.Minute

// Exchange is what a program of plain HTTP asks for: one request to Host at Port after another, each answered before the
// next is read. No Via is added and nothing said of the program: who reads the server's log learns the exit and no more.
type Exchange struct {
	Host string
	Port uint16
	Head []byte // the request's head as the server gets it

	br      *bufio.Reader // the program's side
	method  string
	minor   int    // the program's HTTP/1.x
	size    int64  // of the body; -1: in chunks
	keep    bool   // the program's connection stays after the answer
	upgrade string // the protocol asked for, if it is one that is let through
}

// Repeatable reports whether the request may be sent a second time, when nothing shows that the first has arrived.
func (x *Exchange) Repeatable() bool {
	return x.size == 0 && (x.method == "GET" || x.method == "HEAD" || x.method == "OPTIONS")
}

// Rest reads what the program sends after Switched.
func (x *Exchange) Rest() io.Reader { return x.br }

// take opens the head of a request with a whole address in it.
func (x *Exchange) take(h head, method, target string, minor int) error {
	scheme, rest, ok := strings.Cut(target, "://")
	switch {
	case !ok:
		return wrong(ErrProtocol, "want a whole address, http://…")
	case !strings.EqualFold(scheme, "http"):
		return wrong(ErrCommand, "what is not http: needs CONNECT")
	case method == "CONNECT" || method == "TRACE":
		return wrong(ErrCommand, "HTTP "+method)
	}
	i := strings.IndexAny(rest, "/?#")
	if i < 0 {
		i = len(rest)
	}
	authority, path := rest[:i], rest[i:]
	path, _, _ = strings.Cut(path, "#")
	switch {
	case path == "" && method == "OPTIONS":
		path = "*"
	case path == "" || path[0] != '/':
		path = "/" + path
	}
	if !allBytes(path, func(b byte) bool { return b > ' ' && b != 0x7f }) {
		return wrong(ErrProtocol, "address")
	}
	var err error
	if x.Host, x.Port, err = parseHTTPAuthority(authority); err != nil {
		return err
	}
	x.method, x.minor = method, min(minor, 1)
	if x.size, err = bodySize(h, x.minor); err != nil {
		return err
	}
	x.keep = x.minor == 1 && !h.has("Connection", "close") && !h.has("Proxy-Connection", "close")
	x.upgrade = ""
	if h.has("Connection", "upgrade") && strings.EqualFold(h.get("Upgrade"), "websocket") {
		x.upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
	}
	b := h.write(fmt.Sprintf("%s %s HTTP/1.%d\r\nHost: %s", method, path, x.minor, authority),
		func(name string) bool { return strings.EqualFold(name, "Host") })
	b.WriteString(x.upgrade)
	if !x.keep {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	x.Head = []byte(b.String())
	return nil
}

// parseHTTPAuthority opens host[:port] of an http address.
func parseHTTPAuthority(s string) (host string, port uint16, err error) {
	if strings.LastIndexByte(s, ':') <= strings.LastIndexByte(s, ']') {
		s = strings.TrimSuffix(s, ":") + ":80"
	}
	if strings.HasSuffix(s, ":") {
		s += "80"
	}
	return parseAuthority(s)
}

// bodySize reads how a request's body is framed. Whatever two readers could read in two ways is refused (RFC 9112, 6.3).
func bodySize(h head, minor int) (int64, error) {
	size, sized, chunked := int64(0), false, false
	for _, x := range h.headers {
		switch {
		case strings.EqualFold(x.name, "Transfer-Encoding"):
			if chunked || minor == 0 || !strings.EqualFold(x.value, "chunked") {
				return 0, wrong(ErrProtocol, "transfer encoding")
			}
			chunked = true
		case strings.EqualFold(x.name, "Content-Length"):
			n, err := strconv.ParseUint(x.value, 10, 62)
			if err != nil || sized && int64(n) != size {
				return 0, wrong(ErrProtocol, "content length")
			}
			size, sized = int64(n), true
		}
	}
	switch {
	case chunked && sized:
		return 0, wrong(ErrProtocol, "both a length and chunks")
	case chunked:
		return -1, nil
	}
	return size, nil
}

// Outcome is how an exchange went.
type Outcome uint8

// The outcomes.
const (
	Ended    Outcome = iota // both connections are to be closed
	Again                   // both are good for another request
	OnceMore                // the program's alone is
	Switched                // 101: from here on both carry bytes of another protocol
)

// Do moves one request and its answer. The head has been sent up to sent bytes. answered reports whether the program has
// heard anything: if not, the caller owes it a Deny or another try. from is where more bytes of the server's are read from
// after Switched.
func (x *Exchange) Do(program, server net.Conn, from *bufio.Reader, sent int) (o Outcome, answered bool, err error) {
	if _, err := server.Write(x.Head[sent:]); err != nil {
		return Ended, false, err
	}
	src := &source{Conn: program}
	var body sync.WaitGroup
	var upload error
	if x.size != 0 {
		body.Go(func() { upload = x.sendBody(src, server) })
	}
	o, answered, err = x.answer(program, &source{Conn: server}, from)
	if o == Again || o == OnceMore {
		src.end(time.Now().Add(earlyAnswer))
	} else {
		src.end(time.Unix(1, 0)) // nobody waits for the rest of the body
	}
	body.Wait()
	if upload != nil && o != Switched {
		o = Ended
	}
	return o, answered, errors.Join(err, program.SetReadDeadline(time.Time{}), server.SetReadDeadline(time.Time{}))
}

// earlyAnswer is how long the rest of a body may take after the answer to it.
const earlyAnswer = time.Second

// source is a side that is read from, with a limit on its silence that can be cut short.
type source struct {
	net.Conn
	mu    sync.Mutex // guards ended, and the deadline's order
	ended bool
}

// waiting allows another exchangeIdle, unless the end has been called.
func (s *source) waiting() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	return s.SetReadDeadline(time.Now().Add(exchangeIdle))
}

// end lets nobody wait beyond t.
func (s *source) end(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	_ = s.SetReadDeadline(t)
}

// sendBody copies the request's body.
func (x *Exchange) sendBody(program *source, server net.Conn) error {
	if x.size < 0 {
		return copyChunks(server, x.br, program)
	}
	return copyN(server, x.br, x.size, program)
}

// answer copies the server's answer, with whatever comes before it (RFC 9110, 15.2).
func (x *Exchange) answer(program net.Conn, server *source, from *bufio.Reader) (o Outcome, answered bool, err error) {
	for {
		if err := server.waiting(); err != nil {
			return Ended, answered, err
		}
		h, err := readHead(from)
		if err != nil {
			return Ended, answered, fmt.Errorf("answer: %w", err)
		}
		status, ok := statusOf(h.line)
		if !ok {
			return Ended, answered, wrong(ErrProtocol, "answer: status line")
		}
		switch {
		case status == 101 && x.upgrade != "":
			b := h.write("HTTP/1.1"+h.line[8:], never)
			b.WriteString(x.upgrade + "\r\n")
			_, err := io.WriteString(program, b.String())
			return Switched, true, err
		case status == 101:
			return Ended, answered, wrong(ErrProtocol, "answer: a change of protocol that nobody asked for")
		case status < 200:
			if x.minor == 0 {
				continue // HTTP/1.0 does not know them
			}
			b := h.write("HTTP/1.1"+h.line[8:], never)
			b.WriteString("\r\n")
			if _, err := io.WriteString(program, b.String()); err != nil {
				return Ended, true, err
			}
			answered = true
			continue
		}
		o, err := x.final(h, status, program, server, from)
		return o, true, err
	}
}

func never(string) bool { return false }

// statusOf opens "HTTP/1.x NNN …".
func statusOf(line string) (int, bool) {
	if len(line) < 12 || !strings.HasPrefix(line, "HTTP/1.") || line[7] < '0' || line[7] > '9' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' || !allBytes(line, isText) {
		return 0, false
	}
	n, err := strconv.Atoi(line[9:12])
	return n, err == nil && n >= 100
}

// final copies the last head of an answer and its body.
func (x *Exchange) final(h head, status int, program net.Conn, server *source, from *bufio.Reader) (Outcome, error) {
	size, err := answerSize(h, status, x.method)
	if err != nil {
		return Ended, refuseHTTP(program, 502, "", err)
	}
	serverStays := size != untilEnd && !h.has("Connection", "close") && strings.HasPrefix(h.line, "HTTP/1.1")
	programStays := x.keep && size != untilEnd
	chunked := h.has("Transfer-Encoding", "chunked")
	b := h.write("HTTP/1.1"+h.line[8:], func(name string) bool {
		return chunked && strings.EqualFold(name, "Content-Length")
	})
	if !programStays {
		b.WriteString("Connection: close\r\n")
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(program, b.String()); err != nil {
		return Ended, err
	}
	switch size {
	case 0:
	case untilEnd:
		return Ended, copyN(program, from, untilEnd, server)
	case inChunks:
		err = copyChunks(program, from, server)
	default:
		err = copyN(program, from, size, server)
	}
	switch {
	case err != nil || !programStays:
		return Ended, err
	case serverStays:
		return Again, nil
	}
	return OnceMore, nil
}

// Sizes of an answer's body that are none.
const (
	inChunks int64 = -1
	untilEnd int64 = -2
)

// answerSize reads how an answer's body is framed (RFC 9112, 6.3).
func answerSize(h head, status int, method string) (int64, error) {
	size, chunked := untilEnd, false
	for _, x := range h.headers {
		switch {
		case strings.EqualFold(x.name, "Transfer-Encoding"):
			if !strings.EqualFold(x.value, "chunked") || chunked {
				return 0, wrong(ErrProtocol, "answer: transfer encoding")
			}
			chunked = true
		case strings.EqualFold(x.name, "Content-Length"):
			n, err := strconv.ParseUint(x.value, 10, 62)
			if err != nil || size != untilEnd && int64(n) != size {
				return 0, wrong(ErrProtocol, "answer: content length")
			}
			size = int64(n)
		}
	}
	switch {
	case method == "HEAD" || status == 204 || status == 304:
		return 0, nil
	case chunked:
		return inChunks, nil
	}
	return size, nil
}

// Next reads the program's next request on a connection that stays. Its user has to be the one of the first, or to prove
// himself. It returns io.EOF when the program has no more.
func (r *Request) Next(program net.Conn, c Credentials, idle time.Duration) error {
	x := r.Exchange
	if err := program.SetReadDeadline(time.Now().Add(idle)); err != nil {
		return err
	}
	if _, err := x.br.Peek(1); err != nil {
		return io.EOF
	}
	next, err := negotiateHTTP(x.br, program, c)
	if err != nil {
		return err
	}
	if next.Command != Forward {
		return refuseHTTP(program, 400, "", wrong(ErrCommand, "one kind of request a connection"))
	}
	*r = *next
	return program.SetReadDeadline(time.Time{})
}
