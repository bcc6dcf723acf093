package socks

import (
	"bufio"
	"strings"
)

// head is the first line and the header lines of a message (RFC 9112, 2.1), in the order they came.
type head struct {
	line    string
	headers []header
}

type header struct{ name, value string }

// get returns the value of a header's first line, or an empty string.
func (h head) get(name string) string {
	for _, x := range h.headers {
		if strings.EqualFold(x.name, name) {
			return x.value
		}
	}
	return ""
}

// has reports whether one of a header's lines lists the word, as Connection and Transfer-Encoding do.
func (h head) has(name, word string) bool {
	for _, x := range h.headers {
		if !strings.EqualFold(x.name, name) {
			continue
		}
		for _, w := range strings.Split(x.value, ",") {
			if strings.EqualFold(strings.Trim(w, " \t"), word) {
				return true
			}
		}
	}
	return false
}

// readHead reads a first line and the headers.
func readHead(br *bufio.Reader) (head, error) {
	line, err := readLine(br)
	if err != nil {
		return head{}, err
	}
	h := head{line: line}
	h.headers, err = readHeaders(br)
	return h, err
}

// readHeaders reads to the empty line. Lines that continue the one before are refused (RFC 9112, 5.2), and so is every byte
// that a second reader could take for the end of something.
func readHeaders(br *bufio.Reader) ([]header, error) {
	var all []header
	for total := 0; ; {
		line, err := readLine(br)
		if err != nil || line == "" {
			return all, err
		}
		if total += len(line); total > maxHeaderBytes || len(all) == maxHeaders {
			return nil, ErrTooLong
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || !allBytes(name, isToken) || !allBytes(value, isText) {
			return nil, wrong(ErrProtocol, "header line")
		}
		all = append(all, header{name, strings.Trim(value, " \t")})
	}
}

// write encodes line and the headers that travel on, and leaves room for more: the empty line is the caller's.
func (h head) write(line string, drop func(name string) bool) *strings.Builder {
	var b strings.Builder
	b.WriteString(line + "\r\n")
	for _, x := range h.headers {
		if !h.oneHop(x.name) && !drop(x.name) {
			b.WriteString(x.name + ": " + x.value + "\r\n")
		}
	}
	return &b
}

// oneHop reports whether a header is between a program and this proxy, or between this proxy and a server (RFC 9110,
// 7.6.1). What frames the message is none of these, even where Connection names it.
func (h head) oneHop(name string) bool {
	switch strings.ToLower(name) {
	case "connection", "proxy-connection", "keep-alive", "proxy-authorization", "proxy-authenticate", "te", "upgrade", "http2-settings":
		return true
	case "host", "content-length", "transfer-encoding", "trailer":
		return false
	}
	return h.has("Connection", name)
}

func allBytes(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

// isToken reports whether b may stand in a method or a header's name (RFC 9110, 5.6.2).
func isToken(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// isText reports whether b may stand in a header's value.
func isText(b byte) bool { return b == '\t' || b >= ' ' && b != 0x7f }
