//go:build unix

package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handing calls exec with the numbers of these descriptors, which stay open over it. It returns, with everything as
// before, only when exec does. Nothing is forked meanwhile, so no child gets them.
func Handing(conns []syscall.Conn, exec func(fds []int) error) error {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	fds := make([]int, len(conns))
	for i, c := range conns {
		rc, err := c.SyscallConn()
		if err != nil {
			return err
		}
		// The number is used after Control returns: the caller holds the descriptors open.
		if err := rc.Control(func(fd uintptr) { fds[i] = int(fd) }); err != nil {
			return err
		}
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	err := exec(fds)
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	return err
}

// Handed takes over a descriptor that Handing left open for this program; nil if it is none.
func Handed(fd int, name string) *os.File {
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
		return nil
	}
	syscall.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}
