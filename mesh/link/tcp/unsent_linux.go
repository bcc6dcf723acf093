package tcp

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

// limitUnsent bounds what the kernel takes and has not sent.
func limitUnsent(c *net.TCPConn, n int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
	})
	if errors.Is(set, unix.ENOPROTOOPT) { // before Linux 3.12
		return errors.ErrUnsupported
	}
	return errors.Join(err, set)
}
