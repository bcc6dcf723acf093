//go:build unix

package api

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"skywire/signal"
)

// waitReadable returns nil when there is something to read, io.EOF at the end, or the error of a deadline. It takes
// nothing.
func waitReadable(c *net.UnixConn) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var perr error
	var one [1]byte
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, _, perr = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK)
			if !errors.Is(perr, unix.EINTR) {
				return !errors.Is(perr, unix.EAGAIN)
			}
		}
	})
	switch {
	case err != nil:
		return err
	case perr != nil:
		return os.NewSyscallError("recvfrom", perr)
	case n == 0:
		return io.EOF
	}
	return nil
}

// hungUp tells a program that has gone from one that has only ended its direction.
func hungUp(c *net.UnixConn) bool {
	rc, err := c.SyscallConn()
	if err != nil {
		return true
	}
	p := []unix.PollFd{{Events: unix.POLLOUT}}
	var perr error
	if err := rc.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, perr = unix.Poll(p, 0)
	}); err != nil {
		return true
	}
	return perr == nil && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

// watch calls gone if the program goes away before stop is called. Bytes that wait behind the line end the watch: what
// comes after them can't be seen.
func watch(c *net.UnixConn, gone context.CancelFunc) (stop func()) {
	done := make(chan struct{})
	go func() { // ends with stop, which every caller calls
		defer close(done)
		if errors.Is(waitReadable(c), io.EOF) && hungUp(c) {
			gone()
		}
	}()
	return func() {
		c.SetReadDeadline(time.Unix(1, 0))
		<-done
		c.SetReadDeadline(time.Time{})
	}
}

// passedSocket checks that a passed descriptor is a connected socket, of packets or a stream, and makes it a net.Conn of
// its own, non-blocking and close-on-exec. f stays the caller's.
func passedSocket(f *os.File, packets bool) (net.Conn, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	var typ, listening int
	var serr error
	err = rc.Control(func(fd uintptr) {
		if serr = unix.Fstat(int(fd), &st); serr != nil {
			return
		}
		if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
			serr = errors.New("not a socket")
			return
		}
		if typ, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); serr == nil {
			listening, serr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		}
	})
	if err == nil {
		err = serr
	}
	switch {
	case err != nil:
	case packets && typ != unix.SOCK_DGRAM:
		err = errors.New("not a socket of packets")
	case !packets && (typ != unix.SOCK_STREAM || listening != 0):
		err = errors.New("not a connected stream socket")
	}
	var conn net.Conn
	if err == nil {
		conn, err = net.FileConn(f)
	}
	if err != nil {
		return nil, signal.Errorf(signal.ErrRefused, "handed-over descriptor: %v", err)
	}
	return conn, nil
}
