// Package socks speaks to the local programs that want connections through the mesh: SOCKS5 (RFC 1928, RFC 1929) with
// UDP ASSOCIATE, SOCKS4 and 4a, HTTP CONNECT (RFC 9110, 9.3.6) and plain HTTP through a proxy (RFC 9112, 3.2.2), all on one
// port, told apart by the first byte.
//
// It negotiates, answers and frames, nothing else: it opens no socket, resolves no name and knows no mesh. BIND is refused
// with the reply that says so: exits rarely have an address that others could connect to.
//
// Rules: Negotiate reads from a connection whose deadline the caller has set, keeps at most bufferSize bytes (a plain HTTP
// program has httpBuffer), and gives back in Request.First whatever the program has sent beyond its request, so that no
// byte is lost when the caller hands the bare socket to someone else. Of go-socks5 only the exported pieces are used
// (UserPassAuthenticator, NewRequest): its ServeConn wraps the connection in a bufio.Reader that nobody else can drain,
// copies the bytes itself, resolves names here, and knows but three of the reply codes.
package socks

import (
	"bufio"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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
	SOCKS4
	Diverted // none: the kernel led the connection here, and the program knows of no proxy
)

// String returns the protocol's usual name.
func (p Protocol) String() string {
	switch p {
	case SOCKS5:
		return "socks5"
	case HTTP:
		return "http"
	case SOCKS4:
		return "socks4"
	case Diverted:
		return "diverted"
	}
	return "unknown"
}

// Command is what the program wants.
type Command uint8

// The commands that Negotiate lets through.
const (
	Connect   Command = iota + 1 // a TCP connection, whose bytes are the target's after the grant
	Associate                    // SOCKS5: a UDP association
	Forward                      // HTTP: single requests, see Exchange
	Page                         // HTTP: a page of the proxy's own, such as /proxy.pac
)

// Request is what a program asks for. With Associate, Host and Port are where it says that its packets will come from, and
// may be 0.0.0.0 and 0.
type Request struct {
	Protocol Protocol
	Command  Command
	Host     string // a name as the program wrote it, never resolved here, or an address in text form without brackets
	Port     uint16
	User     string // who the program proved to be; empty without authentication
	First    []byte // what the program sent without waiting for the answer; belongs to the caller

	Exchange *Exchange // with Forward
	Path     string    // with Page
}

// Address returns host and port in the form that net.Dial takes.
func (r *Request) Address() string {
	return net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port)))
}

// Credentials are the passwords of the users who may use the proxy. Empty, it asks for nobody's name.
type Credentials map[string]string

// Required reports whether programs have to authenticate.
func (c Credentials) Required() bool { return len(c) > 0 }

// Valid reports whether user and password are right, in a time that does not depend on how wrong the password is. It has
// the signature of go-socks5's CredentialStore.
func (c Credentials) Valid(user, password string) bool {
	want, known := c[user]
	p, w := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want))
	return subtle.ConstantTimeCompare(p[:], w[:]) == 1 && known
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
		r, err = negotiateSOCKS4(br, rw, c)
	case b >= 'A' && b <= 'Z' || b >= 'a' && b <= 'z':
		r, err = negotiateHTTP(br, rw, c)
	default:
		err = fmt.Errorf("%w: first byte 0x%02x", ErrProtocol, b)
	}
	if err != nil {
		return nil, err
	}
	if n := br.Buffered(); n > 0 && r.Exchange == nil {
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
	case SOCKS4:
		err = replySOCKS4(w, granted4)
	case Diverted:
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

// GrantUDP tells the program where its association takes packets.
func (r *Request) GrantUDP(w io.Writer, at netip.AddrPort) error {
	_, err := w.Write(Datagram{Addr: at.Addr(), Port: at.Port()}.Append([]byte{version5, byte(Granted), 0}))
	return err
}

// Deny tells the program that it gets no connection, and why. SOCKS5 carries the code alone,
// SOCKS4 a bare no, HTTP the text as well.
func (r *Request) Deny(w io.Writer, code Code, text string) error {
	var err error
	switch r.Protocol {
	case SOCKS5:
		err = replySOCKS(w, code)
	case SOCKS4:
		err = replySOCKS4(w, refused4)
	case Diverted:
	case HTTP:
		err = replyHTTP(w, code.httpStatus(), "", text)
	default:
		err = errors.New("request of no protocol")
	}
	if err != nil {
		return fmt.Errorf("deny: %w", err)
	}
	return nil
}
