//go:build unix

package stream

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// canReadRaw tells that a descriptor can be read without Go's own buffer.
const canReadRaw = true

// rawReader tries with a buffer and gives it back before it waits.
func rawReader(raw syscall.RawConn) func() (*chunk, error) {
	var c chunk
	var rerr error
	try := func(fd uintptr) bool {
		c.buf = buffers.Get().(*[copyBuffer]byte)
		for {
			c.n, rerr = unix.Read(int(fd), c.buf[:])
			if rerr != unix.EINTR {
				break
			}
		}
		if rerr == nil && c.n > 0 {
			return true
		}
		c.free()
		return rerr != unix.EAGAIN
	}
	return func() (*chunk, error) {
		if err := raw.Read(try); err != nil {
			return nil, err
		}
		switch {
		case rerr != nil:
			return nil, os.NewSyscallError("read", rerr)
		case c.n <= 0:
			return nil, io.EOF
		}
		return &c, nil
	}
}
