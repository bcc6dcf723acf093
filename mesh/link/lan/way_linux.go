package lan

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The sockets of Linux, with system calls of their own: golang.org/x/net would cost a small router's flash 40 kB. What the kernel does
// unasked: hop limit 1, and a copy to this box, where there may be more nodes.

// way4 is the socket of IPv4.
type way4 struct {
	c     *net.UDPConn
	group netip.AddrPort
}

func open4(port int) (way, error) {
	c, group, err := listenOn("udp4", Group4(), port)
	return way4{c, group}, err
}

// set makes a system call with the descriptor.
func set(c *net.UDPConn, call func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (w way4) join(i Interface) error {
	return set(w.c, func(fd int) error {
		m := unix.IPMreqn{Multiaddr: w.group.Addr().As4(), Ifindex: int32(i.Index)}
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &m)
	})
}

func (w way4) send(i Interface, b []byte) error {
	if !i.has(true) {
		return nil
	}
	err := set(w.c, func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(i.Index)})
	})
	if err == nil {
		_, err = w.c.WriteToUDPAddrPort(b, w.group)
	}
	return err
}

func (w way4) receive(b []byte) (int, netip.AddrPort, error) { return receive(w.c, b) }

func (w way4) close() { _ = w.c.Close() }

// way6 is the socket of IPv6.
type way6 struct {
	c     *net.UDPConn
	group netip.AddrPort
}

func open6(port int) (way, error) {
	c, group, err := listenOn("udp6", Group6(), port)
	return way6{c, group}, err
}

func (w way6) join(i Interface) error {
	return set(w.c, func(fd int) error {
		m := unix.IPv6Mreq{Multiaddr: w.group.Addr().As16(), Interface: uint32(i.Index)}
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &m)
	})
}

func (w way6) send(i Interface, b []byte) error {
	if !i.has(false) {
		return nil
	}
	_, err := w.c.WriteToUDPAddrPort(b, netip.AddrPortFrom(w.group.Addr().WithZone(i.Name), w.group.Port()))
	return err
}

func (w way6) receive(b []byte) (int, netip.AddrPort, error) { return receive(w.c, b) }

func (w way6) close() { _ = w.c.Close() }
