//go:build unix

package auto

import (
	"net"
	"os"
	"syscall"
)

// inherit takes over the descriptor if it is a unix socket. Anything else is left alone: the number may be stale, and
// the descriptor behind it somebody else's.
func inherit(fd int) net.Conn {
	var st syscall.Stat_t
	if fd < 3 || syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFSOCK {
		return nil
	}
	if sa, err := syscall.Getsockname(fd); err != nil {
		return nil
	} else if _, ok := sa.(*syscall.SockaddrUnix); !ok {
		return nil
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "signal")
	defer f.Close() // FileConn has a duplicate, close-on-exec too
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return c
}

const canTerminate = true

func terminateSelf() { syscall.Kill(os.Getpid(), syscall.SIGTERM) }
