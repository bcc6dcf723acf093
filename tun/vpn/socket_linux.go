package vpn

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"skywire/mesh/app"
)

// socketBuffer holds some hundred trains of a burst; the node may not ask for more than net.core.rmem_max by itself.
const socketBuffer = 8 << 20

// markSocket marks a socket's packets and enlarges its buffer.
func markSocket(f *os.File, mark int) error {
	fd := int(f.Fd())
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) // only a gain
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark))
}

// nodeUsers gives the user of the node whose sockets lie in dir, if it is one that nothing else runs as: a system user or
// a dynamic one, neither root nor a person.
func nodeUsers(dir string) []uint32 {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(dir, app.SocketName), &st) != nil {
		return nil
	}
	if system := st.Uid > 0 && st.Uid < 1000; !system && (st.Uid < 61184 || st.Uid > 65519) {
		return nil
	}
	return []uint32{st.Uid}
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
