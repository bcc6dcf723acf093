package stream

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// errTooLong is what quic-go recognises as a packet above the path's size.
const errTooLong = unix.EMSGSIZE

// probeSocket is never bound and never used: nothing can reach it.
type probeSocket struct{ *os.File }

func newProbeSocket() (*probeSocket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil { // a kernel without IPv6
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	return &probeSocket{os.NewFile(uintptr(fd), "quic probe")}, nil
}

// segmentSize finds the UDP_SEGMENT control message; 0: none.
func segmentSize(oob []byte) int {
	for len(oob) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return 0
		}
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_SEGMENT && len(body) >= 2 {
			return int(binary.NativeEndian.Uint16(body))
		}
		oob = rest
	}
	return 0
}
