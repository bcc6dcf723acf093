package tun

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

const tunPath = "/dev/net/tun"

// Create makes the device and returns its descriptor and name. The device lives as long as a copy of the descriptor is
// open anywhere; it is down and has no address yet.
func Create(c Config) (*os.File, string, error) {
	for try := 1; ; try++ {
		f, name, err := create(c)
		if err == nil || !errors.Is(err, unix.EBUSY) || try == busyTries {
			return f, name, err
		}
		<-time.After(busyPause)
	}
}

// A child of this process holds copies of all that is open between its fork and its exec, a device just closed among it:
// that is over in milliseconds. Who holds it longer is another program.
const (
	busyTries = 5
	busyPause = 10 * time.Millisecond
)

func create(c Config) (*os.File, string, error) {
	params := water.PlatformSpecificParams{Name: c.Name, Persist: !c.Plain, MultiQueue: c.Queues > 1}
	if c.Owner != 0 {
		params.Permissions = &water.DevicePermissions{Owner: uint(c.Owner), Group: ^uint(0)}
	}
	f, name, err := throughWater(c.Plain, params)
	if err != nil {
		return nil, "", fmt.Errorf("make TUN device %s: %w", c.Name, err)
	}
	if c.Plain {
		return f, name, nil
	}
	f, err = attach(name, c.flags())
	if err != nil {
		return nil, "", fmt.Errorf("attach to TUN device %s: %w", name, errors.Join(explain(err), remove(c, name)))
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 0); err != nil {
		return nil, "", fmt.Errorf("make TUN device %s last only while open: %w", name, errors.Join(err, f.Close()))
	}
	return f, name, nil
}

// throughWater makes the device with the library. A plain device keeps the library's descriptor; of another one it is
// closed, since the flags of a device are set by the attach that finds no queue attached, and the device is persistent for
// that moment only. The library opens without close-on-exec: a child forked meanwhile would hold the device busy.
func throughWater(plain bool, params water.PlatformSpecificParams) (*os.File, string, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	w, err := water.New(water.Config{DeviceType: water.TUN, PlatformSpecificParams: params})
	if err != nil {
		return nil, "", explain(err)
	}
	f, ok := w.ReadWriteCloser.(*os.File)
	if !ok {
		return nil, "", ErrNotTUN
	}
	if plain {
		unix.CloseOnExec(int(f.Fd()))
		return f, w.Name(), nil
	}
	return nil, w.Name(), f.Close()
}

// flags are those of the device's queues.
func (c Config) flags() uint16 {
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if !c.Plain {
		flags |= unix.IFF_VNET_HDR
	}
	if c.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
	}
	return flags
}

// AddQueue opens a further queue of the device of that name that Create made with this Config. From then on the kernel
// gives it a share of the flows, so it has to be read.
func AddQueue(c Config, name string) (*os.File, error) {
	f, err := attach(name, c.flags())
	if err != nil {
		return nil, fmt.Errorf("add a queue to TUN device %s: %w", name, explain(err))
	}
	return f, nil
}

// attach opens a queue of the named device with exactly these flags.
func attach(name string, flags uint16) (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open", err)
	}
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		ifr.SetUint16(flags)
		err = os.NewSyscallError("ioctl", unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "tun"), nil
}

// remove takes back a persistent device that attach could not use.
func remove(c Config, name string) error {
	c.Plain = true
	f, err := attach(name, c.flags())
	if err != nil {
		return nil //nolint:nilerr // somebody else's, or gone: not ours to remove
	}
	return errors.Join(unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 0), f.Close())
}

// explain adds the remedy to the errors that people meet.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w (%w)", ErrNoDevice, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w (%w)", ErrNoRights, err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w (%w)", ErrBusy, err)
	}
	return err
}

// Available says why no TUN device can be made here, or nil. It makes none: a box without the right to make one finds
// out at Create.
func Available() error {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", tunPath, explain(err))
	}
	return unix.Close(fd)
}

// FromFile wraps an open TUN descriptor, in the form that the device's own flags demand. It needs no rights. It takes f
// over, also when it fails. mtu is that of the device; packets that the kernel cuts larger are passed on as they are.
func FromFile(f *os.File, mtu int) (Device, error) {
	d, err := fromFile(f, mtu)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

func fromFile(f *os.File, mtu int) (Device, error) {
	if mtu < MinMTU || mtu > MaxMTU {
		return nil, fmt.Errorf("TUN mtu %d: %w: want %d to %d", mtu, ErrNotTUN, MinMTU, MaxMTU)
	}
	fd := int(f.Fd())
	flags, name, err := deviceFlags(fd)
	if err != nil {
		return nil, err
	}
	// IFF_NO_PI can't be read back: TUNGETIFF says IFF_NOFILTER with the same bit. Packets with a header of that kind
	// have no IP version in front, and are dropped one by one.
	if flags&(unix.IFF_TUN|unix.IFF_TAP) != unix.IFF_TUN {
		return nil, fmt.Errorf("%w: %s has flags %#x, want IFF_TUN", ErrNotTUN, name, flags)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("set %s non-blocking: %w", name, err)
	}
	has := Features{MultiQueue: flags&unix.IFF_MULTI_QUEUE != 0}
	if flags&unix.IFF_VNET_HDR == 0 {
		// Offloads belong to the device and outlive queues: an earlier owner's would bring 64 KB packets without a header.
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
			return nil, fmt.Errorf("turn offloads of %s off: %w", name, err)
		}
		return &plain{file: f, fd: fd, has: has, buf: make([]byte, bufferSize)}, nil
	}
	return newVnet(f, fd, name, has)
}

// deviceFlags reads back what the device behind fd really is.
func deviceFlags(fd int) (flags uint16, name string, err error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return 0, "", err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return 0, "", fmt.Errorf("%w: TUNGETIFF: %w", ErrNotTUN, err)
	}
	return ifr.Uint16(), ifr.Name(), nil
}

// noDevice reports whether a write failed because the device is down, or gone: then it takes no other packet either.
func noDevice(err error) bool { return errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADFD) }
