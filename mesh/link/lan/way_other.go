//go:build !linux

package lan

import (
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// way4 is the socket of IPv4.
type way4 struct {
	c     *net.UDPConn
	p     *ipv4.PacketConn
	group netip.AddrPort
}

func open4(port int) (way, error) {
	c, group, err := listenOn("udp4", Group4(), port)
	if err != nil {
		return nil, err
	}
	p := ipv4.NewPacketConn(c)
	return way4{c, p, group}, errors.Join(p.SetMulticastTTL(1), p.SetMulticastLoopback(true))
}

func (w way4) join(i Interface) error {
	return w.p.JoinGroup(&net.Interface{Index: i.Index, Name: i.Name}, net.UDPAddrFromAddrPort(w.group))
}

func (w way4) send(i Interface, b []byte) error {
	if !i.has(true) {
		return nil
	}
	if err := w.p.SetMulticastInterface(&net.Interface{Index: i.Index, Name: i.Name}); err != nil {
		return err
	}
	_, err := w.c.WriteToUDPAddrPort(b, w.group)
	return err
}

func (w way4) receive(b []byte) (int, netip.AddrPort, error) { return receive(w.c, b) }

func (w way4) close() { _ = w.c.Close() }

// way6 is the socket of IPv6.
type way6 struct {
	c     *net.UDPConn
	p     *ipv6.PacketConn
	group netip.AddrPort
}

func open6(port int) (way, error) {
	c, group, err := listenOn("udp6", Group6(), port)
	if err != nil {
		return nil, err
	}
	p := ipv6.NewPacketConn(c)
	return way6{c, p, group}, errors.Join(p.SetMulticastHopLimit(1), p.SetMulticastLoopback(true))
}

func (w way6) join(i Interface) error {
	return w.p.JoinGroup(&net.Interface{Index: i.Index, Name: i.Name}, net.UDPAddrFromAddrPort(w.group))
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
