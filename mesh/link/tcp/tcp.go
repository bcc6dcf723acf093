// Package tcp makes the TCP connections that carry links where UDP does not pass.
//
// It listens and dials, with the settings that a tunnel wants: no delay, and little in the kernel's buffer, so that what
// waits does so where it can be dropped. mesh/link/framed moves the frames.
package tcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

const (
	// unsent is how much the kernel keeps that it has not sent yet: more would be a queue that nobody manages.
	unsent = 32 << 10
	// keepAlive finds connections whose other end has vanished, where no link uses them.
	keepAlive = 15 * time.Second
)

// Listen listens on an address; the zero address is every one, of both families.
func Listen(a netip.AddrPort) (net.Listener, error) {
	network := "tcp"
	if a.Addr().Is4() {
		network = "tcp4"
	}
	c := net.ListenConfig{KeepAlive: keepAlive}
	c.SetMultipathTCP(false)
	at := a.String()
	if !a.Addr().IsValid() || a.Addr().IsUnspecified() && !a.Addr().Is4() {
		at = fmt.Sprintf(":%d", a.Port())
	}
	l, err := c.Listen(context.Background(), network, at)
	if err != nil {
		return nil, fmt.Errorf("listen tcp %s: %w", a, err)
	}
	return l, nil
}

// Dial connects to an address.
func Dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: keepAlive}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	return Prepare(c)
}

// Prepare sets what a tunnel wants on a connection, dialled or accepted. What the system lacks is left out.
func Prepare(c net.Conn) (net.Conn, error) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return c, nil
	}
	if err := t.SetNoDelay(true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := limitUnsent(t, unsent); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
