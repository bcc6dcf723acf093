package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// recordLimit bounds what a Recording keeps, in bytes.
const recordLimit = 64 << 20

// Recording is what passes all interfaces of a box, from the IP header on, in both directions.
type Recording struct {
	f       *os.File
	done    sync.WaitGroup
	mu      sync.Mutex // guards the fields below
	packets [][]byte
	size    int
}

// Record starts a recording. It needs no program and no privileges beyond the box's.
func (b *Box) Record() (*Recording, error) {
	r := &Recording{}
	err := b.Enter(func() error {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<20) // as much as the kernel gives
		r.f = os.NewFile(uintptr(fd), "record:"+b.Name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", b.Name, err)
	}
	r.done.Go(r.read)
	return r, nil
}

func (r *Recording) read() {
	buf := make([]byte, 65536+64)
	for {
		n, err := r.f.Read(buf)
		if err != nil && !errors.Is(err, unix.ENETDOWN) { // an interface that goes down says so
			return
		}
		r.mu.Lock()
		if r.size < recordLimit && n > 0 {
			r.packets = append(r.packets, bytes.Clone(buf[:n]))
			r.size += n
		}
		r.mu.Unlock()
	}
}

// Stop ends the recording and returns the packets.
func (r *Recording) Stop() [][]byte {
	_ = r.f.Close()
	r.done.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.packets
}
