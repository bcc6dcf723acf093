// Package socks speaks to the local programs that want a connection through the mesh: SOCKS5 (RFC 1928, RFC 1929) and
// HTTP CONNECT (RFC 9110, 9.3.6) on one port, told apart by the first byte.
//
// It negotiates and answers, nothing else: it opens no socket, resolves no name and knows no mesh. BIND and UDP ASSOCIATE
// are refused with the reply that says so.
//
// Rules: Negotiate reads from a connection whose deadline the caller has set, keeps at most bufferSize bytes, and gives
// back in Request.First whatever the program has sent beyond its request, so that no byte is lost when the caller hands
// the bare socket to someone else. Of go-socks5 only the exported pieces are used (UserPassAuthenticator, NewRequest): its
// ServeConn wraps the connection in a bufio.Reader that nobody else can drain, copies the bytes itself, resolves names
// here, and knows but three of the reply codes.
package socks

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
)

// bufferSize bounds one line of an HTTP request and the bytes sent ahead of an answer (Request.First). A stream's opening
// header holds 4 KiB, and the longest target takes 260 bytes of it.
const bufferSize = 3072

// MaxFirst is the largest length of Request.First.
const MaxFirst = bufferSize

// Protocol is what the program spoke.
type Protocol uint8

// The protocols that Negotiate understands.
const (
	SOCKS5 Protocol = iota + 1
	HTTP
)

// String returns the protocol's usual name.
func (p Protocol) String() string {
	switch p {
	case SOCKS5:
		return "socks5"
	case HTTP:
		return "http"
	}
	return "unknown"
}

// Request is what a program asks for: a TCP connection to Host at Port.
type Request struct {
	Protocol Protocol
	Host     string // a name as the program wrote it, never resolved here, or an address in text form without brackets
	Port     uint16
	User     string // who the program proved to be; empty without authentication
	First    []byte // what the program sent without waiting for the answer; belongs to the caller
}

// Address returns host and port in the form that net.Dial takes.
func (r *Request) Address() string {
	return net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
}

// Credentials is the one user who may use the proxy. The zero value asks for nobody's name.
type Credentials struct {
	User     string
	Password string
}

// Required reports whether programs have to authenticate.
func (c Credentials) Required() bool { return c.User != "" || c.Password != "" }

// Valid reports whether user and password are right, in a time that does not depend on how wrong they are. It has the
// signature of go-socks5's CredentialStore.
func (c Credentials) Valid(user, password string) bool {
	u, wu := sha256.Sum256([]byte(user)), sha256.Sum256([]byte(c.User))
	p, wp := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(c.Password))
	return subtle.ConstantTimeCompare(u[:], wu[:])&subtle.ConstantTimeCompare(p[:], wp[:]) == 1
}

// Negotiate reads a program's request from rw and authenticates it. On an error it has already told the program, in the
// program's own protocol, why it gets nothing; the caller closes the connection. On success the caller owes the program
// one Grant or Deny.
func Negotiate(rw io.ReadWriter, c Credentials) (*Request, error) {
	br := bufio.NewReaderSize(rw, bufferSize)
	first, err := br.Peek(1)
	if err != nil {
		return nil, fmt.Errorf("first byte: %w", err)
	}
	var r *Request
	switch b := first[0]; {
	case b == 0x05:
		r, err = negotiateSOCKS(br, rw, c)
	case b == 0x04:
		err = refuseSOCKS4(rw)
	case b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z':
		r, err = negotiateHTTP(br, rw, c)
	default:
		err = fmt.Errorf("%w: first byte 0x%02x", ErrProtocol, b)
	}
	if err != nil {
		return nil, err
	}
	if n := br.Buffered(); n > 0 {
		r.First = make([]byte, n)
		if _, err := io.ReadFull(br, r.First); err != nil {
			return nil, fmt.Errorf("bytes sent ahead: %w", err)
		}
	}
	return r, nil
}

// Grant tells the program that its connection stands: from here on the bytes are the target's.
func (r *Request) Grant(w io.Writer) error {
	var err error
	switch r.Protocol {
	case SOCKS5:
		err = replySOCKS(w, Granted)
	case HTTP:
		_, err = io.WriteString(w, "HTTP/1.1 200 Connection established\r\n\r\n")
	default:
		err = errors.New("request of no protocol")
	}
	if err != nil {
		return fmt.Errorf("grant: %w", err)
	}
	return nil
}

// Deny tells the program that it gets no connection, and why. SOCKS5 carries the code alone, HTTP the text as well.
func (r *Request) Deny(w io.Writer, code Code, text string) error {
	var err error
	switch r.Protocol {
	case SOCKS5:
		err = replySOCKS(w, code)
	case HTTP:
		err = replyHTTP(w, code.httpStatus(), nil, text)
	default:
		err = errors.New("request of no protocol")
	}
	if err != nil {
		return fmt.Errorf("deny: %w", err)
	}
	return nil
}
