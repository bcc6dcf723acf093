package publish

import (
	"errors"
	"net"
	"syscall"
)

var (
	// ErrSpec is returned for words that do not say what to publish or to forward.
	ErrSpec = errors.New("cannot read")
	// ErrService is returned when a node publishes nothing under a name or port.
	ErrService = errors.New("no such service")
	// ErrListen is returned when a local address cannot be listened on.
	ErrListen = errors.New("cannot listen")
	// ErrNotPublished is returned by Grant and Revoke for a name that is not published here.
	ErrNotPublished = errors.New("not published here")
	// errStranger is for who is not on a service's list.
	errStranger = errors.New("the service does not admit that node")
)

func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// isUnreachable is what ICMP says of a UDP socket that is connected: the next packet may arrive.
func isUnreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
