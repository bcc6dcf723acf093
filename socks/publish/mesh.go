package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// By the vpn: a service listens at the box's mesh addresses too, once there is a TUN with them. What is accepted there came
// through the TUN, for the socket is bound to that device, and from the node whose address it has, for the node drops all
// else.

// meshAgain is how often a mesh address that is not there is tried.
const meshAgain = 2 * time.Second

// meshConn is a TCP connection that came by the vpn, or a program there that sends packets.
type meshConn struct {
	service *service
	from    netip.Addr
	end     func()
}

// add remembers one until forget is called.
func (p *Publisher) add(s *service, from netip.Addr, end func()) (forget func()) {
	m := &meshConn{s, from, end}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[m] = struct{}{}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.live, m)
	}
}

// serveMesh keeps listening at the addresses of this node.
func (p *Publisher) serveMesh(ctx context.Context, s *service, wg *sync.WaitGroup) {
	self := p.c.Node.Self()
	certified := func() netip.Addr { // comes with the certificate
		step, cancel := context.WithTimeout(ctx, backendDial)
		defer cancel()
		who, err := p.c.Node.Whois(step, self.Key.String())
		if err != nil {
			return netip.Addr{}
		}
		return who.IPv4
	}
	for _, address := range []func() netip.Addr{func() netip.Addr { return self.Address }, certified} {
		if s.stream != nil {
			wg.Go(func() { p.keep(ctx, s, address, p.serveTCP) })
		}
		if s.packets != nil {
			wg.Go(func() { p.keep(ctx, s, address, p.serveUDP) })
		}
	}
}

// keep runs one listener, again and again: the TUN comes and goes.
func (p *Publisher) keep(ctx context.Context, s *service, address func() netip.Addr, run func(ctx context.Context, s *service, at netip.AddrPort, device string) error) {
	var told string
	for ctx.Err() == nil {
		at := netip.AddrPortFrom(address(), s.port)
		var err error
		if device := deviceOf(at.Addr()); device != "" {
			err = run(ctx, s, at, device)
		}
		if err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			p.c.Log.Warn("not reachable by the vpn", "service", s.name, "addr", at, "err", explain(err))
		}
		pause(ctx, meshAgain)
	}
}

// explain says what to do.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another program listens there, maybe on all addresses, and then every member reaches it by the vpn", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need CAP_NET_BIND_SERVICE", err)
	}
	return err
}

// deviceOf names the device that has an address; empty: none is up.
func deviceOf(a netip.Addr) string {
	all, err := net.Interfaces()
	if err != nil || !a.IsValid() {
		return ""
	}
	for _, i := range all {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, _ := i.Addrs()
		for _, o := range addrs {
			if n, ok := o.(*net.IPNet); ok && n.IP.Equal(a.AsSlice()) {
				return i.Name
			}
		}
	}
	return ""
}

// onDevice makes sockets that only the device's packets reach.
func onDevice(device string) net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var berr error
		if err := c.Control(func(fd uintptr) { berr = bindToDevice(fd, device) }); err != nil {
			return err
		}
		return berr
	}}
}

// whileThere ends ctx when the device no longer has the address.
func whileThere(ctx context.Context, a netip.Addr, device string, end func()) {
	t := time.NewTicker(meshAgain)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			end()
			return
		case <-t.C:
			if deviceOf(a) != device {
				end()
				return
			}
		}
	}
}

func (p *Publisher) serveTCP(ctx context.Context, s *service, at netip.AddrPort, device string) error {
	c := onDevice(device)
	ln, err := c.Listen(ctx, "tcp", at.String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { whileThere(ctx, at.Addr(), device, func() { ln.Close() }) })
	s.atMesh.Add(1)
	defer s.atMesh.Add(-1)
	for {
		conn, err := ln.Accept()
		if err != nil {
			if isClosed(err) {
				return nil
			}
			pause(ctx, again)
			continue
		}
		if p.all.Add(1) > maxPublished {
			p.all.Add(-1)
			refuseTCP(conn.(*net.TCPConn))
			continue
		}
		wg.Go(func() {
			defer p.all.Add(-1)
			p.serveConn(ctx, s, conn.(*net.TCPConn))
		})
	}
}

// refuseTCP says what a port where nobody listens says.
func refuseTCP(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// admit finds who has an address of the mesh, and whether the service is for them.
func (p *Publisher) admit(ctx context.Context, s *service, from netip.Addr) (key.Public, error) {
	ctx, cancel := context.WithTimeout(ctx, backendDial)
	defer cancel()
	who, err := p.c.Node.Whois(ctx, from.String())
	if err == nil && (who.Via || !admits(p.allowed(s.name), who)) { // Via: one of the hosts behind a node
		err = errStranger
	}
	return who.Key, err
}

// open admits a peer and dials the program behind the service for it.
func (p *Publisher) open(ctx context.Context, s *service, spec *Spec, from netip.Addr) (net.Conn, error) {
	k, err := p.admit(ctx, s, from)
	if err != nil {
		s.refused.Add(1)
		p.c.Log.Debug("connection refused", "addr", from, "service", s.name, "err", err)
		return nil, err
	}
	return p.backend(ctx, s, spec, from, k)
}

// admits reports whether the words of an allow list let a node in.
func admits(words []string, who app.Identity) bool {
	return who.Member && slices.Contains(words, app.AnyMember) || who.Member && slices.Contains(words, who.Key.String()) || who.Tagged(words)
}

// serveConn joins a connection with the program behind the service.
func (p *Publisher) serveConn(ctx context.Context, s *service, conn *net.TCPConn) {
	from := addrOf(conn.RemoteAddr())
	back, err := p.open(ctx, s, s.stream, from)
	if err != nil {
		refuseTCP(conn)
		return
	}
	end := func() { refuseTCP(conn) }
	defer p.add(s, from, end)()
	defer context.AfterFunc(ctx, end)()
	s.connections.Add(1)
	defer s.connections.Add(-1)
	sent, received := splice(conn, back)
	s.sent.Add(sent)
	s.received.Add(received)
}

// addrOf is the address of a peer, as the node knows it.
func addrOf(a net.Addr) netip.Addr {
	var ip netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort()
	case *net.UDPAddr:
		ip = a.AddrPort()
	}
	return ip.Addr().Unmap().WithZone("")
}

// splice moves bytes both ways until both directions have ended; a reset on one side becomes one on the other.
func splice(conn *net.TCPConn, back net.Conn) (sent, received uint64) {
	var wg sync.WaitGroup
	wg.Go(func() { received = oneWay(back, conn) })
	sent = oneWay(conn, back)
	wg.Wait()
	conn.Close()
	back.Close()
	return sent, received
}

func oneWay(dst, src net.Conn) uint64 {
	n, err := io.Copy(dst, src)
	if err != nil {
		for _, c := range []net.Conn{dst, src} {
			if tcp, ok := c.(*net.TCPConn); ok {
				tcp.SetLinger(0)
			}
			c.Close()
		}
		return uint64(n)
	}
	if h, ok := dst.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
	return uint64(n)
}

func (p *Publisher) serveUDP(ctx context.Context, s *service, at netip.AddrPort, device string) error {
	c := onDevice(device)
	socket, err := c.ListenPacket(ctx, "udp", at.String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { whileThere(ctx, at.Addr(), device, func() { socket.Close() }) })
	relay := newUDPRelay(socket, func(ctx context.Context, from net.Addr) (net.Conn, func(), error) {
		a := addrOf(from)
		conn, err := p.open(ctx, s, s.packets, a)
		if err != nil {
			return nil, nil, err
		}
		return conn, p.add(s, a, func() { conn.Close() }), nil
	})
	s.atMesh.Add(1)
	defer s.atMesh.Add(-1)
	relay.run(ctx)
	return nil
}

// recheck ends what came by the vpn from those who may no longer.
func (p *Publisher) recheck(ctx context.Context) {
	var all []*meshConn
	p.mu.Lock()
	for m := range p.live {
		all = append(all, m)
	}
	p.mu.Unlock()
	for _, m := range all {
		if _, err := p.admit(ctx, m.service, m.from); err != nil {
			m.end()
		}
	}
}

// followMembers looks again at each news of a certificate.
func (p *Publisher) followMembers(ctx context.Context) {
	var after uint64
	for ctx.Err() == nil {
		next, changed, err := p.c.Node.MembersChanged(ctx, after)
		if err != nil {
			after = 0
			pause(ctx, again)
			continue
		}
		if after = next; changed {
			p.recheck(ctx)
		}
	}
}
