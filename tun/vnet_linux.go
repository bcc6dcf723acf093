package tun

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// vnet is a device with virtio headers.
type vnet struct {
	file    *os.File // keeps fd open
	fd      int
	headLen int
	has     Features
	buf     []byte // what Receive read
	in      segmenter
	out     *coalescer
}

// offloads in the order they are tried: UDP ones came with Linux 6.2, and a kernel refuses the whole set for one bit.
var offloads = [...]int{
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN | unix.TUN_F_USO4 | unix.TUN_F_USO6,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN,
	unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6,
	unix.TUN_F_CSUM,
	0,
}

func newVnet(f *os.File, fd int, name string, has Features) (*vnet, error) {
	headLen, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
	if err != nil {
		return nil, fmt.Errorf("virtio header length of %s: %w", name, err)
	}
	if headLen < virtioLen || headLen > maxVirtioLen {
		return nil, fmt.Errorf("%w: %s has virtio headers of %d bytes", ErrNotTUN, name, headLen)
	}
	granted := 0
	for _, o := range offloads {
		granted = o
		if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, o); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("set offloads of %s: %w", name, err)
	}
	d := &vnet{file: f, fd: fd, headLen: headLen, has: has.with(granted), buf: make([]byte, bufferSize)}
	d.out = newCoalescer(headLen, d.has.USO4 && d.has.USO6, func(b []byte) error {
		_, err := ignoreInterrupt(unix.Write, fd, b)
		return err
	})
	return d, nil
}

// with adds what TUNSETOFFLOAD granted.
func (f Features) with(granted int) Features {
	f.VnetHdr = true
	f.Checksum = granted&unix.TUN_F_CSUM != 0
	f.TSO4 = granted&unix.TUN_F_TSO4 != 0
	f.TSO6 = granted&unix.TUN_F_TSO6 != 0
	f.TSOECN = granted&unix.TUN_F_TSO_ECN != 0
	f.USO4 = granted&unix.TUN_F_USO4 != 0
	f.USO6 = granted&unix.TUN_F_USO6 != 0
	return f
}

func (d *vnet) FD() int { return d.fd }

func (d *vnet) Receive() (int, error) {
	d.in = segmenter{}
	n, err := ignoreInterrupt(unix.Read, d.fd, d.buf)
	if err != nil {
		return 0, err
	}
	h, ok := parseVirtio(d.buf[:n])
	if !ok || n < d.headLen {
		return 0, nil
	}
	return d.in.load(h, d.buf[d.headLen:n]), nil
}

func (d *vnet) Packet(b []byte) (int, bool, bool) {
	for {
		n, more := d.in.packet(b)
		if n > 0 || !more {
			return n, d.in.checksum, more
		}
	}
}

func (d *vnet) Send(p []byte, checksum bool) error { return d.out.send(p, checksum) }

func (d *vnet) Flush() error { return d.out.flush() }

func (d *vnet) Features() Features {
	has := d.has
	has.JoinUDP = d.out.joinUDP.Load()
	return has
}

func (d *vnet) Close() error { return d.file.Close() }
