package api_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skywire/signal"
)

// openTUN makes a device that lives as long as the descriptor.
func openTUN(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skip("no TUN here:", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		unix.Close(fd)
		t.Skip("no right to make a TUN:", err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// TestAttachTUN hands over a real device, to the node and to the one that follows it.
func TestAttachTUN(t *testing.T) {
	t.Parallel()
	b := one(t)
	c := b.client(t)
	f := openTUN(t, "apitest0")
	if err := c.AttachTUN(t.Context(), []*os.File{f}, "other0", 1400); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("under another name: %v", err)
	}
	if err := c.AttachTUN(t.Context(), []*os.File{f}, "apitest0", 1400); err != nil {
		t.Fatal(err)
	}
	f.Close() // the client has kept its own
	done := make(chan struct{})
	go func() { defer close(done); c.Run(t.Context()) }()
	b.stopAPI()
	b.start()
	eventually(t, "the device is attached again", func() bool {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		return len(b.node.tuns) == 2 && b.node.tuns[1] == b.node.tuns[0] && b.node.tuns[0].MTU == 1400
	})
	c.Close()
	<-done
}
