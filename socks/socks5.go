package socks

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"

	socks5 "github.com/armon/go-socks5"
)

const version5 = 0x05

// noMethod answers a program whose ways of authenticating are not ours (RFC 1928, 3).
const noMethod = 0xff

// negotiateSOCKS reads greeting, authentication and request:
//
//	greeting  | 5 | n | methods (n) |
//	request   | 5 | command | 0 | type | address | port u16 |     type 1: 4 bytes, 3: length u8 and name, 4: 16 bytes
func negotiateSOCKS(br *bufio.Reader, w io.Writer, c Credentials) (*Request, error) {
	user, err := authenticate(br, w, c)
	if err != nil {
		return nil, err
	}
	head, err := br.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("socks5 request: %w", err)
	}
	// The checks that go-socks5 makes too late (after resolving a name) or without an error that can be told apart.
	switch {
	case head[0] != version5:
		return nil, refuseSOCKS(w, Failed, wrong(ErrProtocol, "request of another version"))
	case head[3] != 1 && head[3] != 3 && head[3] != 4:
		return nil, refuseSOCKS(w, AddressNotSupported, wrong(ErrAddress, "type of address"))
	}
	q, err := socks5.NewRequest(br)
	if err != nil {
		return nil, fmt.Errorf("socks5 request: %w", err)
	}
	r := &Request{Protocol: SOCKS5, Command: Connect, Host: q.DestAddr.FQDN, Port: uint16(q.DestAddr.Port), User: user}
	if a, ok := netip.AddrFromSlice(q.DestAddr.IP); ok {
		r.Host = a.String()
	}
	switch q.Command {
	case socks5.ConnectCommand:
	case socks5.AssociateCommand:
		r.Command = Associate
		return r, nil // whoever does not know its port yet says 0
	default:
		return nil, refuseSOCKS(w, CommandNotSupported, wrong(ErrCommand, commandName(q.Command)))
	}
	if err := CheckTarget(r.Host, r.Port); err != nil {
		return nil, refuseSOCKS(w, AddressNotSupported, err)
	}
	return r, nil
}

func commandName(c uint8) string {
	if c == socks5.BindCommand {
		return "BIND"
	}
	return "unknown"
}

// authenticate reads the greeting and proves the user where one is required.
func authenticate(br *bufio.Reader, w io.Writer, c Credentials) (user string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return "", fmt.Errorf("socks5 greeting: %w", err)
	}
	var a socks5.Authenticator = socks5.NoAuthAuthenticator{}
	if c.Required() {
		a = socks5.UserPassAuthenticator{Credentials: c}
	}
	offered := false
	for range int(head[1]) {
		m, err := br.ReadByte()
		if err != nil {
			return "", fmt.Errorf("socks5 greeting: %w", err)
		}
		offered = offered || m == a.GetCode()
	}
	if !offered {
		_, err := w.Write([]byte{version5, noMethod})
		return "", errors.Join(fmt.Errorf("%w: no common method", ErrAuth), err)
	}
	ac, err := a.Authenticate(br, w)
	if errors.Is(err, socks5.UserAuthFailed) {
		return "", fmt.Errorf("%w: wrong user or password", ErrAuth)
	}
	if err != nil {
		return "", fmt.Errorf("socks5 authentication: %w", err)
	}
	return ac.Payload["Username"], nil
}

// replySOCKS writes a reply. Its address is 0.0.0.0:0: the exit's own is nobody's business.
func replySOCKS(w io.Writer, c Code) error {
	_, err := w.Write([]byte{version5, byte(c), 0, 1, 0, 0, 0, 0, 0, 0})
	return err
}

// refuseSOCKS says no for the reason err, which it returns.
func refuseSOCKS(w io.Writer, c Code, err error) error { return errors.Join(err, replySOCKS(w, c)) }

// wrong names what is wrong with a request.
func wrong(kind error, what string) error { return fmt.Errorf("%w: %s", kind, what) }

// maxHost is the longest host: what SOCKS5's length byte can say.
const maxHost = 255

// CheckTarget reports whether host and port can be a target at all: a name or an address of 1 to 255 printable bytes of
// ASCII without separators, and a port. It says nothing of whether the target is allowed.
func CheckTarget(host string, port uint16) error {
	switch {
	case host == "":
		return fmt.Errorf("%w: no host", ErrAddress)
	case len(host) > maxHost:
		return fmt.Errorf("%w: host of %d bytes", ErrAddress, len(host))
	case port == 0:
		return fmt.Errorf("%w: port 0", ErrAddress)
	}
	for _, b := range []byte(host) {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '-', b == '.', b == '_', b == ':':
		default: // '%' too: a zone means something on the box that wrote it only
			return fmt.Errorf("%w: byte 0x%02x in the host", ErrAddress, b)
		}
	}
	return nil
}
