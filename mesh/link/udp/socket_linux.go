package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is a UDP socket on a raw descriptor.
type Socket struct {
	fd      atomic.Int32 // -1 after Close
	v6      bool
	info    Info
	gso     atomic.Bool   // turned off for good by the first refusal
	refused atomic.Uint32 // the errno that turned it off
	mmsg    atomic.Bool   // turned off for good by ENOSYS
	inbox   *inbox        // where the kernel makes no trains; Receive's alone

	besieged atomic.Int64 // when MakeRoom last made room
}

// Listen makes a socket.
func Listen(c Config) (*Socket, error) {
	c = c.withDefaults()
	s, err := listen(c, c.Addr)
	if a := c.Addr.Addr(); err != nil && a.Is6() && a.IsUnspecified() && noIPv6(err) {
		s, err = listen(c, netip.AddrPortFrom(netip.IPv4Unspecified(), c.Addr.Port()))
	}
	if err != nil {
		return nil, fmt.Errorf("listen udp %s: %w", c.Addr, err)
	}
	return s, nil
}

// noIPv6 says whether an error means that this kernel or box has no IPv6.
func noIPv6(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EPROTONOSUPPORT)
}

func listen(c Config, at netip.AddrPort) (*Socket, error) {
	v6 := at.Addr().Is6()
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Socket{v6: v6}
	s.fd.Store(int32(fd))
	if err := s.setUp(c, at); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *Socket) setUp(c Config, at netip.AddrPort) error {
	if s.v6 {
		s.info.DualStack = at.Addr().IsUnspecified()
		only := 1
		if s.info.DualStack {
			only = 0
		}
		if err := unix.SetsockoptInt(s.FD(), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("IPV6_V6ONLY", err)
		}
	}
	if c.ReusePort {
		if err := unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("SO_REUSEPORT", err)
		}
	}
	if err := s.dontFragment(); err != nil {
		return err
	}
	s.setBuffers(c.Buffer)
	if err := s.bind(at); err != nil {
		return err
	}
	if !c.Plain {
		s.probe()
	}
	s.askECN()
	s.mmsg.Store(true)
	if !s.info.GRO {
		s.inbox = newInbox()
	}
	return s.local()
}

// askECN has the kernel tell the ECN field of what arrives. A dual-stack socket gets IPv4 under IPv4's option.
func (s *Socket) askECN() {
	s.info.ECN = true
	if s.v6 {
		s.info.ECN = unix.SetsockoptInt(s.FD(), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1) == nil
	}
	if !s.v6 || s.info.DualStack {
		err := unix.SetsockoptInt(s.FD(), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		s.info.ECN = s.info.ECN && err == nil
	}
}

// setBuffers asks for room. What arrives while the loop is busy has to lie somewhere, so it may go past the system's limit
// where we may; what is sent waits better where its age is seen, in the loop. Trimmed sizes are shown by Info; a program with more
// rights may raise them later, on a copy of the descriptor.
func (s *Socket) setBuffers(n int) {
	s.info.AskedBuffer, s.info.AskedSendBuffer = n, min(n, maxSendBuffer)
	if unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, n) != nil {
		_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, n)
	}
	_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, s.info.AskedSendBuffer)
	if n, err := unix.GetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
		s.info.SendBuffer = n / 2
	}
}

// LimitSend bounds the send buffer: a slow line that holds more than it sends in some milliseconds is a queue that nobody
// manages. It never becomes larger than it is asked to be at first.
func (s *Socket) LimitSend(n int) {
	_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, min(n, s.info.AskedSendBuffer))
}

// MakeRoom is for who answers strangers under load. Answers to addresses on the wire that nobody has wait in the send buffer for
// ARP, three seconds each: a flood from forged ones would shut the socket for all. The room lasts until LimitSend finds the
// line slow.
func (s *Socket) MakeRoom(now time.Duration) {
	last := s.besieged.Load()
	if last != 0 && now-time.Duration(last) < besiegedTime || !s.besieged.CompareAndSwap(last, int64(now)) {
		return
	}
	_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, max(s.info.AskedSendBuffer, besiegedBuffer))
}

// dontFragment sets DF on all that is sent, and has the kernel believe no path MTU but the device's: sizes are found by
// probes of our own, and an ICMP message that anybody can forge moves nothing.
func (s *Socket) dontFragment() error {
	if s.v6 {
		if err := unix.SetsockoptInt(s.FD(), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE); err != nil {
			return os.NewSyscallError("IPV6_MTU_DISCOVER", err)
		}
	}
	err := unix.SetsockoptInt(s.FD(), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	if err != nil && (!s.v6 || s.info.DualStack) {
		return os.NewSyscallError("IP_MTU_DISCOVER", err)
	}
	return nil
}

func (s *Socket) bind(at netip.AddrPort) error {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(at.Port()), Addr: v4(at.Addr())}
	if s.v6 {
		sa = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16(), ZoneId: zoneID(at.Addr().Zone())}
	}
	return os.NewSyscallError("bind", unix.Bind(s.FD(), sa))
}

// probe asks for each half of the train path.
func (s *Socket) probe() {
	// Reading the option back is harmless and fails before Linux 4.18.
	if _, err := unix.GetsockoptInt(s.FD(), unix.IPPROTO_UDP, unix.UDP_SEGMENT); err == nil {
		s.gso.Store(true)
		s.info.GSO = true
	}
	if unix.SetsockoptInt(s.FD(), unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil {
		s.info.GRO = true
	}
}

func (s *Socket) local() error {
	sa, err := unix.Getsockname(s.FD())
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4:
		s.info.Addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		s.info.Addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return nil
}

// FD returns the descriptor, for polling and for passing on. It stays the socket's.
func (s *Socket) FD() int { return int(s.fd.Load()) }

// Addr returns the address that the socket listens on.
func (s *Socket) Addr() netip.AddrPort { return s.info.Addr }

// Info returns what the socket is now; the receive buffer is read back, since another process may have raised it.
func (s *Socket) Info() Info {
	i := s.info
	i.GSO = s.gso.Load()
	i.MMsg = s.mmsg.Load()
	if e := unix.Errno(s.refused.Load()); e != 0 {
		i.GSORefused = e
	}
	// The kernel doubles what is asked, for its own books.
	if n, err := unix.GetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
		i.ReceiveBuffer = n / 2
	}
	return i
}

// Close closes the descriptor. The socket must be out of every poller by then, and nobody may be sending: the number can
// belong to another file at once.
func (s *Socket) Close() error {
	fd := s.fd.Swap(-1)
	if fd < 0 {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(int(fd)))
}
