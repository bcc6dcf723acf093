//go:build unix

package app

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Duplicate returns a second, close-on-exec descriptor of what f has open.
func Duplicate(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var derr error
	if err := rc.Control(func(old uintptr) { fd, derr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, os.NewSyscallError("dup", derr)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// hungUp tells a node that has closed the connection from one that has only ended its direction.
func hungUp(c *net.UnixConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return false // closed here
	}
	p := []unix.PollFd{{Events: unix.POLLOUT}}
	var perr error
	if err := rc.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, perr = unix.Poll(p, 0)
	}); err != nil {
		return false
	}
	return perr == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// someWriter returns a function that writes what the kernel has room for, without waiting: 0 bytes if none. One goroutine
// calls it.
func someWriter(c *net.UnixConn) func(b []byte) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return func([]byte) (int, error) { return 0, err }
	}
	var b []byte
	var n int
	var werr error
	try := func(fd uintptr) bool {
		for {
			n, werr = unix.Write(int(fd), b)
			if werr != unix.EINTR {
				return true
			}
		}
	}
	return func(data []byte) (int, error) {
		b = data
		err := rc.Write(try)
		switch {
		case err != nil:
			return 0, err
		case werr == unix.EAGAIN:
			return 0, nil
		case werr != nil:
			return 0, os.NewSyscallError("write", werr)
		}
		return n, nil
	}
}
