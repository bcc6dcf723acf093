package portmap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	natpmp "github.com/jackpal/go-nat-pmp"
)

// Waits for an answer. A gateway is one hop away; RFC 6887's 3 s are for worse.
const (
	pcpFirst   = 250 * time.Millisecond // doubling
	pcpTries   = 3
	natPMPWait = 700 * time.Millisecond
)

// pcpGrant asks by PCP.
func pcpGrant(ctx context.Context, c *client, wish netip.AddrPort, life time.Duration) (netip.AddrPort, time.Duration, error) {
	if !wish.IsValid() && life > 0 { // outside as inside, if it may be
		wish = netip.AddrPortFrom(unspecified(c.Local), c.port)
	}
	q := MapRequest{Client: c.Local, Nonce: c.nonce, Internal: c.port, External: wish, Lifetime: life}
	a, err := c.askPCP(ctx, q.Append(nil))
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	if a.Result != 0 {
		return netip.AddrPort{}, 0, fmt.Errorf("%w: %s", ErrRefused, resultName(a.Result))
	}
	if c.epoch.lost(c.mapper.now(), a.Epoch) {
		c.mapper.c.Log.Info("gateway restarted", "addr", c.Addr)
	}
	return a.External, a.Lifetime, nil
}

// unspecified is the address of all zeros of a family.
func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// askPCP sends a request until it is answered. The socket is connected: the kernel takes nothing but from the gateway's port.
func (c *client) askPCP(ctx context.Context, request []byte) (MapAnswer, error) {
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.Local, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.Addr, serverPort)))
	if err != nil {
		return MapAnswer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	b := make([]byte, pcpMost+1)
	for try := range pcpTries {
		_ = conn.SetDeadline(time.Now().Add(pcpFirst << try))
		if ctx.Err() != nil {
			return MapAnswer{}, ctx.Err()
		}
		if _, err := conn.Write(request); err != nil {
			return MapAnswer{}, err // refused: nobody is there
		}
		for {
			n, err := conn.Read(b)
			if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				break
			}
			if err != nil {
				return MapAnswer{}, err
			}
			a, err := ParseMapAnswer(b[:n])
			if errors.Is(err, ErrVersion) {
				return MapAnswer{}, err
			}
			if err == nil && a.Nonce == c.nonce && a.Internal == c.port {
				return a, nil
			}
		}
	}
	return MapAnswer{}, ErrNoAnswer
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// natPMPGrant asks by NAT-PMP. The library's socket is connected, too.
func natPMPGrant(ctx context.Context, c *client, wish netip.AddrPort, life time.Duration) (netip.AddrPort, time.Duration, error) {
	p := natpmp.NewClientWithLocalAndTimeout(c.Addr.AsSlice(), c.Local.AsSlice(), natPMPWait)
	external := int(wish.Port())
	if external == 0 && life > 0 {
		external = int(c.port)
	}
	m, err := p.AddPortMapping("udp", int(c.port), external, int(life/time.Second))
	if err != nil || ctx.Err() != nil {
		return netip.AddrPort{}, 0, errors.Join(err, ctx.Err())
	}
	if c.epoch.lost(c.mapper.now(), m.SecondsSinceStartOfEpoc) {
		c.mapper.c.Log.Info("gateway restarted", "addr", c.Addr)
	}
	if life == 0 {
		return netip.AddrPort{}, 0, nil
	}
	if m.InternalPort != c.port {
		return netip.AddrPort{}, 0, fmt.Errorf("%w: it is about port %d", ErrMalformed, m.InternalPort)
	}
	e, err := p.GetExternalAddress()
	if err != nil {
		return netip.AddrPort{}, 0, err
	}
	at := netip.AddrPortFrom(netip.AddrFrom4(e.ExternalIPAddress), m.MappedExternalPort)
	return at, time.Duration(m.PortMappingLifetimeInSeconds) * time.Second, nil
}

// announcePort is where gateways announce that they restarted or have another address: RFC 6886, 3.2.1 and RFC 6887, 14.1.
const announcePort = 5350

// hear listens for announcements until ctx ends. They prove nothing: each only has the gateway asked again, now and then.
func (m *Mapper) hear(ctx context.Context) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4allsys, Port: announcePort}) // of a group: others may have the port as well
	if err != nil {
		m.c.Log.Debug("announcements of gateways are not heard", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	b := make([]byte, pcpMost)
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if n < 8 || b[1] != pcpAnswer || from.Port() != serverPort { // ANNOUNCE, or NAT-PMP's external address
			continue
		}
		select {
		case m.pokes <- from.Addr().Unmap():
		default: // enough of them
		}
	}
}
