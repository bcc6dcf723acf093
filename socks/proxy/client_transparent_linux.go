package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// newTransparent opens the sockets that the kernel diverts to.
func newTransparent(ctx context.Context, setting string) (*transparent, error) {
	how, port, err := parseTransparent(setting)
	if err != nil {
		return nil, err
	}
	t := &transparent{how: how, port: port}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	if how == byTPROXY {
		lc.Control = beTransparent
	}
	if t.tcp, err = lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", port)); err != nil || how == byRedirect {
		return t, explainTransparent(err)
	}
	for _, network := range []string{"udp4", "udp6"} {
		pc, err := lc.ListenPacket(ctx, network, fmt.Sprintf(":%d", port))
		if errors.Is(err, unix.EAFNOSUPPORT) && len(t.udp) > 0 {
			break // a kernel without IPv6
		}
		if err != nil {
			t.close()
			return nil, explainTransparent(err)
		}
		t.udp = append(t.udp, pc.(*net.UDPConn))
	}
	return t, nil
}

func (t *transparent) close() {
	t.tcp.Close()
	for _, u := range t.udp {
		u.Close()
	}
}

func explainTransparent(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w; tproxy needs CAP_NET_ADMIN, redirect does not", err)
	}
	return err
}

// beTransparent lets a socket have addresses that are not this box's, and tells where its packets were going.
func beTransparent(network, _ string, raw syscall.RawConn) error {
	var err error
	set := func(fd uintptr) {
		level, transparent, tell := unix.SOL_IP, unix.IP_TRANSPARENT, unix.IP_RECVORIGDSTADDR
		if strings.HasSuffix(network, "6") {
			level, transparent, tell = unix.SOL_IPV6, unix.IPV6_TRANSPARENT, unix.IPV6_RECVORIGDSTADDR
		}
		err = unix.SetsockoptInt(int(fd), level, transparent, 1)
		if err == nil && strings.HasPrefix(network, "udp") {
			err = errors.Join(unix.SetsockoptInt(int(fd), level, tell, 1), unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
		}
	}
	return errors.Join(raw.Control(set), err)
}

// listenAs opens a socket that sends from an address of somebody else.
func listenAs(ctx context.Context, from netip.AddrPort) (*net.UDPConn, error) {
	network := "udp4"
	if from.Addr().Is6() {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: beTransparent}
	pc, err := lc.ListenPacket(ctx, network, from.String())
	if err != nil {
		return nil, err
	}
	return pc.(*net.UDPConn), nil
}

// target is where a diverted connection was going: with TPROXY its own local address, else what conntrack remembers.
func (t *transparent) target(s Stream) (netip.AddrPort, error) {
	conn, ok := s.(*net.TCPConn)
	if !ok {
		return netip.AddrPort{}, errors.ErrUnsupported
	}
	local := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if t.how == byTPROXY {
		return t.checkTarget(local)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	var optErr error
	err = raw.Control(func(fd uintptr) { to, optErr = originalTarget(int(fd), local.Addr().Unmap().Is4()) })
	if err := errors.Join(err, optErr); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original target: %w", err)
	}
	return t.checkTarget(to)
}

// originalTarget reads SO_ORIGINAL_DST. The structs that x/sys offers for other options have the size of the addresses: a
// sockaddr_in begins the 20 bytes of an IPv6Mreq, a sockaddr_in6 an IPv6MTUInfo.
func originalTarget(fd int, v4 bool) (netip.AddrPort, error) {
	if v4 {
		m, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			return netip.AddrPort{}, err
		}
		b := m.Multiaddr // family, port, address
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
	}
	m, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], m.Addr.Port) // as it stands in memory: big endian
	return netip.AddrPortFrom(netip.AddrFrom16(m.Addr.Addr), binary.BigEndian.Uint16(port[:])), nil
}

// readDiverted reads a packet and where it was going.
func readDiverted(sock *net.UDPConn, b, oob []byte) (n int, from, to netip.AddrPort, err error) {
	n, oobn, _, from, err := sock.ReadMsgUDPAddrPort(b, oob)
	if err != nil {
		return 0, from, to, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, from, to, err
	}
	for i := range messages {
		sa, err := unix.ParseOrigDstAddr(&messages[i])
		if err != nil {
			continue
		}
		switch a := sa.(type) {
		case *unix.SockaddrInet4:
			return n, from, netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
		case *unix.SockaddrInet6:
			return n, from, netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
		}
	}
	return 0, from, to, errors.New("no original target")
}
