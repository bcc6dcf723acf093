//go:build unix

package proc

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handing calls exec with the numbers of these descriptors, which stay open over it, -1 for one that was closed
// meanwhile. It returns, with everything as before, only when exec does. Nothing is forked meanwhile, so no child gets them.
func Handing(conns []syscall.Conn, exec func(fds []int) error) error {
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	fds := make([]int, len(conns))
	for i, c := range conns {
		fds[i] = -1
		rc, err := c.SyscallConn()
		if err != nil {
			continue
		}
		// The number is used after Control returns. When its owner closes it meanwhile, the next program finds a stranger
		// under a name that nobody asks for, and closes it.
		rc.Control(func(fd uintptr) {
			if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err == nil {
				fds[i] = int(fd)
			}
		})
	}
	err := exec(fds)
	for _, fd := range fds {
		if fd >= 0 {
			syscall.CloseOnExec(fd)
		}
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
