package meshtcp

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Available tells whether the address is on the device in this network namespace, and the kernel grants what we need.
func (o Opener) Available() error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := o.prepare(fd); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Addr: o.Address.As16()}); err != nil {
		return fmt.Errorf("%s on %s: %w", o.Address, o.Device, os.NewSyscallError("bind", err))
	}
	return nil
}

// Listen listens on a port of the kernel's choice.
func (o Opener) Listen(ctx context.Context) (net.Listener, error) {
	l := net.ListenConfig{Control: o.control}
	l.SetMultipathTCP(false) // has no congestion control of its own, and one way is all there is
	return l.Listen(ctx, "tcp6", netip.AddrPortFrom(o.Address, 0).String())
}

// Dial connects.
func (o Opener) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Address, 0)), Control: o.control}
	return d.DialContext(ctx, "tcp6", to.String())
}

func (o Opener) control(_, _ string, c syscall.RawConn) error {
	var err error
	if cerr := c.Control(func(fd uintptr) { err = o.prepare(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

func (o Opener) prepare(fd int) error {
	if o.Device == "" {
		return ErrNoDevice
	}
	if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, o.Device); err != nil {
		return fmt.Errorf("bind to %s: %w", o.Device, os.NewSyscallError("setsockopt", err))
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds())); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if o.Congestion == "" {
		return nil
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, o.Congestion); err != nil {
		return fmt.Errorf("congestion control %s: %w", o.Congestion, os.NewSyscallError("setsockopt", err))
	}
	return nil
}
