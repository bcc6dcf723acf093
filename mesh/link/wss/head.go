package wss

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"strings"
)

// maxHead bounds the head of a request or an answer: a browser's with cookies, and what proxies add.
const maxHead = 4096

// Head is the head of a request or an answer of HTTP/1.
type Head struct {
	Line   [3]string // of a request: method, path, version; of an answer: version, status, reason
	fields [][2]string
}

// Get returns the first field of a name, which must be lower case.
func (h *Head) Get(name string) string {
	for _, f := range h.fields {
		if f[0] == name {
			return f[1]
		}
	}
	return ""
}

// has reports whether a field, or one of several of that name, lists a word.
func (h *Head) has(name, word string) bool {
	for _, f := range h.fields {
		if f[0] != name {
			continue
		}
		for w := range strings.SplitSeq(f[1], ",") {
			if strings.EqualFold(strings.TrimSpace(w), word) {
				return true
			}
		}
	}
	return false
}

// ParseHead reads the head of a request or an answer, without the empty line that ends it.
func ParseHead(b []byte) (Head, error) {
	var h Head
	if len(b) > maxHead {
		return Head{}, ErrHead
	}
	for i, c := range b {
		if c == 0 || c == '\r' && (i+1 == len(b) || b[i+1] != '\n') {
			return Head{}, ErrHead
		}
	}
	lines := strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n"), "\n")
	parts := strings.SplitN(lines[0], " ", 3)
	if len(parts) < 2 || parts[0] == "" || parts[1] == "" {
		return Head{}, ErrHead
	}
	copy(h.Line[:], parts)
	if !strings.HasPrefix(h.Line[0], "HTTP/1.") && !strings.HasPrefix(h.Line[2], "HTTP/1.") {
		return Head{}, ErrHead
	}
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return Head{}, ErrHead
		}
		h.fields = append(h.fields, [2]string{strings.ToLower(name), strings.TrimSpace(value)})
	}
	return h, nil
}

// readHead reads up to and with the empty line; what follows stays in r.
func readHead(r *bufio.Reader) (Head, error) {
	var all []byte
	for {
		line, err := r.ReadSlice('\n')
		all = append(all, line...)
		if err != nil && err != bufio.ErrBufferFull {
			return Head{}, err
		}
		if len(all) > maxHead {
			return Head{}, ErrHead
		}
		if err != nil {
			continue // a line longer than the buffer
		}
		for _, end := range []string{"\r\n", "\n"} {
			if head, ok := bytes.CutSuffix(all, []byte(end)); ok && bytes.HasSuffix(head, []byte("\n")) {
				return ParseHead(head)
			}
		}
		if bytes.Count(all, []byte("\n")) == 1 && !looksLikeHTTP(all) {
			return Head{}, ErrHead
		}
	}
}

func looksLikeHTTP(line []byte) bool { return bytes.Contains(line, []byte("HTTP/1.")) }

// acceptFor is what proves to a client that the server has read its request (RFC 6455, 4.2.2).
func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
