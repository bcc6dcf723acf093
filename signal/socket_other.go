//go:build !linux

package signal

import (
	"errors"
	"fmt"
	"net"
	"os"
)

func readFiles(c *net.UnixConn, b []byte) (int, []*os.File, error) {
	n, err := c.Read(b)
	return n, nil, err
}

func writeFiles(*net.UnixConn, []byte, []*os.File) (int, error) {
	return 0, fmt.Errorf("pass a descriptor: %w", errors.ErrUnsupported)
}

// peekLine can't look ahead here, so a line is taken byte by byte.
func peekLine(*net.UnixConn, int) (int, error) { return 1, nil }

// PeerCred is not supported here.
func PeerCred(net.Conn) (Cred, error) {
	return Cred{}, fmt.Errorf("peer credentials: %w", errors.ErrUnsupported)
}

// Pair is not supported here: apps connect by address.
func Pair() (*net.UnixConn, *os.File, error) {
	return nil, nil, fmt.Errorf("socket pair: %w", errors.ErrUnsupported)
}

func trustedPlace(string, int) error { return nil }

func lockDir(string) (func(), error) { return func() {}, nil }

// listenerLives is not known here.
func listenerLives(net.Conn) bool { return true }
