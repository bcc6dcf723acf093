package udp

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// File returns a duplicate of the descriptor, for a program with more rights to set SO_MARK or a larger buffer on. The
// caller closes it.
func (s *Socket) File() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(s.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate socket %s: %w", s.info.Addr, err)
	}
	return os.NewFile(uintptr(fd), "udp "+s.info.Addr.String()), nil
}
