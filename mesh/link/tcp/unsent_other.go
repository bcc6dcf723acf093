//go:build !linux

package tcp

import (
	"errors"
	"net"
)

// limitUnsent is not known to be possible here.
func limitUnsent(*net.TCPConn, int) error { return errors.ErrUnsupported }
