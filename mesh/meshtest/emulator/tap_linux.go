package emulator

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// OpenTAP creates the TAP device name in the namespace of the calling thread. Closing it deletes the device.
func OpenTAP(name string) (*os.File, error) {
	// Non-blocking, so that the runtime waits for frames and a Close wakes a reader.
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create TAP %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tap:"+name), nil
}

// write hands a frame to the kernel. A device that is down drops it, as a cable would.
func write(f *os.File, frame []byte) error {
	if _, err := f.Write(frame); err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("emulator: write: %w", err)
	}
	return nil
}
