package vpn

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// socketBuffer holds some hundred trains of a burst; the node may not ask for more than net.core.rmem_max by itself.
const socketBuffer = 8 << 20

// markSocket marks a socket's packets and enlarges its buffer.
func markSocket(f *os.File, mark int) error {
	fd := int(f.Fd())
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) // only a gain
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark))
}

// counters reads what went through the device; the kernel's receive side is what the mesh delivered.
func counters(device string) (rx, tx uint64) {
	read := func(name string) uint64 {
		b, err := os.ReadFile(filepath.Join("/sys/class/net", device, "statistics", name))
		if err != nil {
			return 0 // the device is gone, or sysfs of another namespace
		}
		n, _ := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return n
	}
	return read("rx_bytes"), read("tx_bytes")
}
