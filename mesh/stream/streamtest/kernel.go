package streamtest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// Kernel returns the kernel of a node: TCP on loopback that looks as if it came from mesh addresses. It does not run in
// synctest bubbles.
func (n *Network) Kernel(self key.Public) *Kernel { return &Kernel{self: n.id.Address(self)} }

// Kernel is a stream.Kernel. Its fields are set before use.
type Kernel struct {
	self netip.Addr

	// From, if set, is what connections from here seem to come from.
	From netip.Addr
	// Broken fails all that is asked of it.
	Broken bool
	// Silent makes connections from here come up never.
	Silent bool
	// Listening, if set, is told the port of each listener.
	Listening func(port int)

	mu    sync.Mutex // guards conns
	conns []net.Conn
}

// ErrBroken is what a broken Kernel returns.
var ErrBroken = errors.New("broken")

var _ stream.Kernel = (*Kernel)(nil)

// Available implements stream.Kernel.
func (k *Kernel) Available() error {
	if k.Broken {
		return ErrBroken
	}
	return nil
}

// Listen implements stream.Kernel.
func (k *Kernel) Listen(context.Context) (net.Listener, error) {
	if k.Broken {
		return nil, ErrBroken
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	if k.Listening != nil {
		k.Listening(l.Addr().(*net.TCPAddr).Port)
	}
	return listener{l, k}, nil
}

// Dial implements stream.Kernel. The mesh address goes ahead of all else.
func (k *Kernel) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	switch {
	case k.Broken:
		return nil, ErrBroken
	case k.Silent:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", fmt.Sprintf("127.0.0.1:%d", to.Port()))
	if err != nil {
		return nil, err
	}
	from := k.self
	if k.From.IsValid() {
		from = k.From
	}
	a := from.As16()
	if _, err := c.Write(a[:]); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return k.keep(&conn{TCPConn: c.(*net.TCPConn), remote: to.Addr()}), nil
}

func (k *Kernel) keep(c net.Conn) net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(k.conns, c)
	return c
}

// Conns are all connections so far.
func (k *Kernel) Conns() []net.Conn {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]net.Conn(nil), k.conns...)
}

type listener struct {
	net.Listener
	k *Kernel
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	var a [16]byte
	for n := 0; n < len(a); {
		got, err := c.Read(a[n:])
		if err != nil {
			break // it comes from nowhere
		}
		n += got
	}
	return l.k.keep(&conn{TCPConn: c.(*net.TCPConn), remote: netip.AddrFrom16(a)}), nil
}

// conn is a TCP connection that says to come from a mesh address.
type conn struct {
	*net.TCPConn
	remote netip.Addr
}

func (c *conn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: c.remote.AsSlice(), Port: 1} }
