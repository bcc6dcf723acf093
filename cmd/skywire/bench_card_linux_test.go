//go:build bench

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noOffload has devices cut trains when they send and join datagrams where they arrive, as network cards without
// segmentation do: BOX DEVICE each. veth joins only where it could not have kept a train whole.
func (w *world) noOffload(devices ...string) {
	w.t.Helper()
	for _, d := range devices {
		box, dev, _ := strings.Cut(d, " ")
		w.must(w.box[box].Enter(func() error {
			return setFeatures(dev, map[string]bool{
				"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-tcp-ecn-segmentation": false,
				"tx-tcp-mangleid-segmentation": false, "tx-udp-segmentation": false, "rx-gro": true,
			})
		}))
	}
}

const (
	featureSet = 4  // ETH_SS_FEATURES
	nameLen    = 32 // ETH_GSTRING_LEN
)

// setFeatures does what `ethtool -K DEV NAME on|off` does.
func setFeatures(dev string, features map[string]bool) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := append(words(unix.ETHTOOL_GSSET_INFO, 0), binary.NativeEndian.AppendUint64(nil, 1<<featureSet)...)
	info = append(info, words(0)...) // the answer: how many there are
	if err := ethtool(fd, dev, info); err != nil {
		return err
	}
	n := int(binary.NativeEndian.Uint32(info[16:]))
	names := append(words(unix.ETHTOOL_GSTRINGS, featureSet, uint32(n)), make([]byte, n*nameLen)...)
	if err := ethtool(fd, dev, names); err != nil {
		return err
	}
	blocks := (n + 31) / 32
	set := make([]uint32, 2*blocks) // which are meant, and what they shall be, of 32 at a time
	for i := range n {
		name, _, _ := bytes.Cut(names[12+i*nameLen:][:nameLen], []byte{0})
		if on, ok := features[string(name)]; ok {
			set[i/32*2] |= 1 << (i % 32)
			if on {
				set[i/32*2+1] |= 1 << (i % 32)
			}
		}
	}
	return ethtool(fd, dev, words(append([]uint32{unix.ETHTOOL_SFEATURES, uint32(blocks)}, set...)...))
}

func words(w ...uint32) []byte {
	var b []byte
	for _, x := range w {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

func ethtool(fd int, dev string, data []byte) error {
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&data[0])}
	copy(request.name[:], dev)
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if e != 0 {
		return os.NewSyscallError("SIOCETHTOOL", e)
	}
	return nil
}

// TestBenchCard looks whether a wire without offload does what its comment says.
func TestBenchCard(t *testing.T) {
	w := newWorld(t, "card")
	w.plain("a", "b")
	w.must(w.lab.Wire(w.end("a", "wire", "10.1.0.1/24"), w.end("b", "wire", "10.1.0.2/24")))
	w.noOffload("a wire", "b wire")
	var gone error
	for _, f := range []string{"tx-tcp-segmentation: off", "tx-udp-segmentation: off", "generic-receive-offload: on", "generic-segmentation-offload: on"} {
		if out := w.exec("a", "ethtool", "-k", "wire"); !strings.Contains(out, f) {
			gone = errors.Join(gone, errors.New(f))
		}
	}
	w.must(gone)
}
