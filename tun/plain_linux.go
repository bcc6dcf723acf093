package tun

import (
	"os"

	"golang.org/x/sys/unix"
)

// plain is a device without virtio headers: one packet a system call.
type plain struct {
	file *os.File // keeps fd open
	fd   int
	has  Features
	buf  []byte // what Receive read, then scratch of Send when a checksum is to be filled in
	n    int    // bytes in buf that Packet has not given yet
}

func (d *plain) FD() int { return d.fd }

func (d *plain) Receive() (int, error) {
	d.n = 0
	n, err := ignoreInterrupt(unix.Read, d.fd, d.buf)
	if err != nil || n == 0 {
		return 0, err
	}
	d.n = n
	return 1, nil
}

func (d *plain) Packet(b []byte) (int, bool, bool) {
	n := d.n
	d.n = 0
	if n == 0 || n > len(b) {
		return 0, false, false
	}
	return copy(b, d.buf[:n]), false, true
}

func (d *plain) Send(p []byte, checksum bool) error {
	p, ok := sized(p)
	if !ok {
		return ErrPacket
	}
	if checksum {
		in, ok := parseInner(p)
		if !ok {
			return ErrPacket
		}
		d.n = 0
		p = d.buf[:copy(d.buf, p)] // the caller's buffer is not ours to change
		in.fill(p)
	}
	_, err := ignoreInterrupt(unix.Write, d.fd, p)
	return err
}

func (d *plain) Flush() error { return nil }

func (d *plain) Features() Features { return d.has }

func (d *plain) Close() error { return d.file.Close() }

func ignoreInterrupt(call func(int, []byte) (int, error), fd int, b []byte) (int, error) {
	for {
		n, err := call(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}
