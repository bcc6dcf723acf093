package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"skywire/mesh/forward"
)

// Socket is a UDP socket on a raw descriptor.
type Socket struct {
	fd   atomic.Int32 // -1 after Close
	v6   bool
	info Info
	gso  atomic.Bool // turned off for good by the first EIO
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
	// Refused or trimmed sizes are shown by Info; the vpn app may raise them with SO_RCVBUFFORCE.
	_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, c.Buffer)
	_ = unix.SetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF, c.Buffer)
	if err := s.bind(at); err != nil {
		return err
	}
	if !c.Plain {
		s.probe()
	}
	return s.local()
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

// Info returns what the socket is now; buffer sizes are read back, since another process may have raised them.
func (s *Socket) Info() Info {
	i := s.info
	i.GSO = s.gso.Load()
	// The kernel doubles what is asked, for its own books.
	if n, err := unix.GetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF); err == nil {
		i.ReceiveBuffer = n / 2
	}
	if n, err := unix.GetsockoptInt(s.FD(), unix.SOL_SOCKET, unix.SO_SNDBUF); err == nil {
		i.SendBuffer = n / 2
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

// controlRoom holds one control message with an int: the segment size. The room is made of words, since the kernel's
// headers in it are read and written as such.
const controlRoom = 64

type controlWords [controlRoom / 8]uint64

// Receive reads one datagram or train into b, which should have 64 KiB. The errors are bare: unix.EAGAIN when nothing is
// there, ErrTruncated.
func (s *Socket) Receive(b []byte) (forward.Arrival, error) {
	var (
		msg     unix.Msghdr
		iov     unix.Iovec
		name    unix.RawSockaddrInet6 // the larger of the two
		words   controlWords
		control = (*[controlRoom]byte)(unsafe.Pointer(&words))
	)
	iov.Base = unsafe.SliceData(b)
	iov.SetLen(len(b))
	msg.Name = (*byte)(unsafe.Pointer(&name))
	msg.Namelen = unix.SizeofSockaddrInet6
	msg.Iov = &iov
	msg.SetIovlen(1)
	if s.info.GRO {
		msg.Control = &control[0]
		msg.SetControllen(len(control))
	}
	var n int
	for {
		r, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(s.FD()), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return forward.Arrival{}, e
		}
		n = int(r)
		break
	}
	if msg.Flags&unix.MSG_TRUNC != 0 {
		return forward.Arrival{}, ErrTruncated
	}
	seg := n
	if s.info.GRO {
		if g := segmentSize(control[:msg.Controllen]); g > 0 && g < n {
			seg = g
		}
	}
	return forward.Arrival{N: n, Seg: seg, From: parseAddr(&name)}, nil
}

// segmentSize finds the UDP_GRO message among control messages; 0: there is none.
func segmentSize(b []byte) int {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return 0
		}
		data := unix.CmsgLen(0)
		if h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && n >= data+4 {
			return int(*(*int32)(unsafe.Pointer(&b[data])))
		}
		next := unix.CmsgSpace(n - data)
		if next > len(b) {
			return 0
		}
		b = b[next:]
	}
	return 0
}

// Send sends train, in datagrams of seg bytes, the last maybe shorter. It waits up to 2 ms for room. The errors are bare:
// unix.EAGAIN when there was none and the rest of the train is dropped, unix.EMSGSIZE when a datagram is too large for
// the device, ErrAddress.
func (s *Socket) Send(to netip.AddrPort, train []byte, seg int, _ uint8) error {
	if seg <= 0 || seg > len(train) {
		seg = len(train)
	}
	var name unix.RawSockaddrInet6
	size, ok := s.putAddr(&name, to)
	if !ok {
		return ErrAddress
	}
	refused := false
	for len(train) > seg && s.gso.Load() && !refused {
		n := min(MaxSegments, MaxTrain/seg) * seg
		if n <= seg {
			break
		}
		part := train[:min(n, len(train))]
		switch err := s.sendOne(&name, size, part, seg); err {
		case 0:
			train = train[len(part):]
		case unix.EIO:
			s.gso.Store(false) // a device without checksum offload, before Linux 6.11
		case unix.EINVAL:
			refused = true // too long for the device in older kernels, or really no UDP_SEGMENT: one by one tells
		default:
			return err
		}
	}
	for len(train) > 0 {
		part := train[:min(seg, len(train))]
		if err := s.sendOne(&name, size, part, 0); err != 0 {
			return err
		}
		train = train[len(part):]
	}
	if refused {
		s.gso.Store(false)
	}
	return nil
}

// sendOne makes the system call; segment 0 sends one datagram. errno 0 is success.
func (s *Socket) sendOne(name *unix.RawSockaddrInet6, size uint32, b []byte, segment int) unix.Errno {
	var (
		msg     unix.Msghdr
		iov     unix.Iovec
		words   controlWords
		control = (*[controlRoom]byte)(unsafe.Pointer(&words))
	)
	iov.Base = unsafe.SliceData(b)
	iov.SetLen(len(b))
	msg.Name = (*byte)(unsafe.Pointer(name))
	msg.Namelen = size
	msg.Iov = &iov
	msg.SetIovlen(1)
	if segment > 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		*(*uint16)(unsafe.Pointer(&control[unix.CmsgLen(0)])) = uint16(segment)
		msg.Control = &control[0]
		msg.SetControllen(unix.CmsgSpace(2))
	}
	waited := false
	for {
		_, _, e := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.FD()), uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case e == unix.EINTR:
			continue
		case (e == unix.EAGAIN || e == unix.ENOBUFS) && !waited:
			waited = true
			s.waitWritable()
			continue
		case e == unix.ENOBUFS:
			return unix.EAGAIN
		}
		return e
	}
}

// waitWritable waits for room, or for sendWait to pass.
func (s *Socket) waitWritable() {
	p := [1]unix.PollFd{{Fd: s.fd.Load(), Events: unix.POLLOUT}}
	_, _ = unix.Poll(p[:], int(sendWait.Milliseconds()))
}
