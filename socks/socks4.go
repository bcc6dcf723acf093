package socks

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// Reply codes of SOCKS4. It has two more, which speak of identd, and none that says why.
const (
	granted4 = 0x5a
	refused4 = 0x5b
)

// maxUserID bounds SOCKS4's user id. It proves nothing and is not used.
const maxUserID = 255

// negotiateSOCKS4 reads a request of SOCKS4 or 4a (an address 0.0.0.x with x ≠ 0 says that a name follows):
//
//	| 4 | command | port u16 | address 4 | user id | 0 |  and in 4a  | name | 0 |
//
// It carries no password, so where one is wanted it is refused.
func negotiateSOCKS4(br *bufio.Reader, w io.Writer, c Credentials) (*Request, error) {
	var head [8]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return nil, fmt.Errorf("socks4 request: %w", err)
	}
	_, err := readNul(br, maxUserID)
	r := &Request{Protocol: SOCKS4, Command: Connect, Port: binary.BigEndian.Uint16(head[2:])}
	a := netip.AddrFrom4([4]byte(head[4:]))
	r.Host = a.String()
	if err == nil && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] != 0 {
		r.Host, err = readNul(br, maxHost)
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, fmt.Errorf("socks4 request: %w", err)
	case err != nil:
	case c.Required():
		err = wrong(ErrAuth, "socks4 carries no password")
	case head[1] != 1:
		err = wrong(ErrCommand, "socks4 knows more, this proxy does not")
	default:
		err = CheckTarget(r.Host, r.Port)
	}
	if err != nil {
		return nil, errors.Join(err, replySOCKS4(w, refused4))
	}
	return r, nil
}

// readNul reads up to a zero byte, which it takes too.
func readNul(br *bufio.Reader, most int) (string, error) {
	var b []byte
	for {
		c, err := br.ReadByte()
		switch {
		case err != nil:
			return "", err
		case c == 0:
			return string(b), nil
		case len(b) == most:
			return "", wrong(ErrProtocol, "too many bytes without a zero")
		}
		b = append(b, c)
	}
}

func replySOCKS4(w io.Writer, code byte) error {
	_, err := w.Write([]byte{0, code, 0, 0, 0, 0, 0, 0})
	return err
}
