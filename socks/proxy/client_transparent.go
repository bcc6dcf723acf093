package proxy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"skywire/socks"
)

// How the kernel diverts connections to a Client.
const (
	byTPROXY   = "tproxy"   // TCP and UDP, addresses kept; needs CAP_NET_ADMIN
	byRedirect = "redirect" // TCP; conntrack knows the target; needs no privilege here
)

// Limits on diverted packets.
const (
	divertedIdle    = 2 * time.Minute // of one program's port
	maxDiverted     = 1024            // programs' ports at once
	maxDivertedFrom = 32              // sources that answer to one port at once
)

// transparent is where the kernel diverts to.
type transparent struct {
	how  string
	port uint16
	tcp  net.Listener
	udp  []*net.UDPConn
	own  ownAddresses
}

// parseTransparent opens "tproxy:PORT" or "redirect:PORT"; empty means neither.
func parseTransparent(s string) (how string, port uint16, err error) {
	if s == "" {
		return "", 0, nil
	}
	how, text, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(text, 10, 16)
	if how != byTPROXY && how != byRedirect || err != nil || n == 0 {
		return "", 0, fmt.Errorf("transparent %q: want tproxy:PORT or redirect:PORT", s)
	}
	return how, uint16(n), nil
}

// serveDiverted carries a connection whose program knows of no proxy.
func (c *Client) serveDiverted(ctx context.Context, t *transparent, conn Stream) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	to, err := t.target(conn)
	if err != nil {
		c.stats.bad.Add(1)
		c.c.Log.Debug("diverted connection without a target", "from", conn.RemoteAddr().String(), "err", err)
		stop()
		abort(conn)
		return
	}
	r := &socks.Request{Protocol: socks.Diverted, Command: socks.Connect, Host: to.Addr().String(), Port: to.Port()}
	if err := c.connect(ctx, r, conn, stop); err != nil {
		stop()
		c.stats.denied.Add(1)
		c.c.Log.Debug("connection denied", "target", to.String(), "err", err)
		abort(conn)
	}
}

// checkTarget refuses connections that nobody has diverted: whoever dials the port itself would be led back to it.
func (t *transparent) checkTarget(to netip.AddrPort) (netip.AddrPort, error) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for _, a := range t.own.list() {
		if to.Port() == t.port && a == to.Addr() {
			return to, fmt.Errorf("%s is the proxy's own port", to)
		}
	}
	return to, nil
}

// diverted are the programs' ports from which packets came.
type diverted struct {
	c  *Client
	t  *transparent
	wg sync.WaitGroup

	mu  sync.Mutex // guards the field below
	all map[netip.AddrPort]*divertedPort
}

// divertedPort is one of them. Its packets are sent by the goroutine that reads the socket of its family.
type divertedPort struct {
	*packets
	from   netip.AddrPort
	cancel context.CancelFunc
	idle   *time.Timer

	mu      sync.Mutex // guards the field below
	sources map[netip.AddrPort]*net.UDPConn
}

// divertedPackets carries packets until ctx ends.
func (c *Client) divertedPackets(ctx context.Context, t *transparent) {
	d := &diverted{c: c, t: t, all: make(map[netip.AddrPort]*divertedPort)}
	defer d.wg.Wait()
	var readers sync.WaitGroup
	defer readers.Wait()
	for _, sock := range t.udp {
		readers.Go(func() {
			defer context.AfterFunc(ctx, func() { sock.Close() })()
			d.take(ctx, sock)
		})
	}
}

// take reads packets until the socket is closed.
func (d *diverted) take(ctx context.Context, sock *net.UDPConn) {
	buf := make([]byte, socks.MaxDatagramHeader+socks.MaxDatagram)
	oob := make([]byte, 256)
	at := socks.MaxDatagramHeader
	for ctx.Err() == nil {
		n, from, to, err := readDiverted(sock, buf[at:], oob)
		if err != nil {
			pause(ctx, time.Millisecond) // the socket is closed, or an error of one packet
			continue
		}
		if to, err = d.t.checkTarget(to); err != nil {
			d.c.stats.dropped.Add(1)
			continue
		}
		p := d.port(ctx, from)
		if p == nil {
			d.c.stats.dropped.Add(1)
			continue
		}
		g := socks.Datagram{Addr: to.Addr(), Port: to.Port()}
		var room [socks.MaxDatagramHeader]byte
		head := g.Append(room[:0])
		copy(buf[at-len(head):], head)
		g.Payload = buf[at : at+n]
		p.send(g, buf[at-len(head):at+n])
	}
}

// port returns the program's port, a new one if there is room.
func (d *diverted) port(ctx context.Context, from netip.AddrPort) *divertedPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.all[from]
	if p != nil {
		p.idle.Reset(divertedIdle)
		return p
	}
	if len(d.all) >= maxDiverted {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	p = &divertedPort{from: from, cancel: cancel, sources: make(map[netip.AddrPort]*net.UDPConn)}
	p.packets = d.c.newPackets(ctx, socks.Query{From: from.Addr().Unmap(), UDP: true}, p.deliver)
	p.idle = time.AfterFunc(divertedIdle, cancel)
	d.all[from] = p
	d.wg.Go(func() {
		<-ctx.Done()
		d.mu.Lock()
		delete(d.all, from)
		d.mu.Unlock()
		p.idle.Stop()
		p.packets.wg.Wait()
		p.close()
	})
	return p
}

// deliver sends an answer as if it came straight from its source.
func (p *divertedPort) deliver(b []byte) {
	d, err := socks.ParseDatagram(b[roomBefore:])
	if err != nil || !d.Addr.IsValid() {
		p.drop()
		return
	}
	p.idle.Reset(divertedIdle)
	sock, err := p.source(netip.AddrPortFrom(d.Addr, d.Port))
	if err == nil {
		_, err = sock.WriteToUDPAddrPort(d.Payload, p.from)
	}
	if err != nil {
		p.drop()
	}
}

// source returns a socket that sends from an address which is not this box's.
func (p *divertedPort) source(from netip.AddrPort) (*net.UDPConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sources[from]; s != nil {
		return s, nil
	}
	if len(p.sources) >= maxDivertedFrom {
		for a, s := range p.sources {
			s.Close()
			delete(p.sources, a)
		}
	}
	s, err := listenAs(p.ctx, from)
	if err == nil {
		p.sources[from] = s
	}
	return s, err
}

func (p *divertedPort) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sources {
		s.Close()
	}
}

// DivertingRules is a shell script that diverts what is forwarded from a device to a client with this Transparent setting,
// but for what is local.
func DivertingRules(setting, device string) (string, error) {
	how, port, err := parseTransparent(setting)
	if err != nil {
		return "", err
	}
	hook, verdict := "filter hook prerouting priority mangle", fmt.Sprintf("meta l4proto { tcp, udp } meta mark set 0x534b tproxy to :%d accept", port)
	routes, undo := "", ""
	if how == byRedirect {
		hook, verdict = "nat hook prerouting priority dstnat", fmt.Sprintf("meta l4proto tcp redirect to :%d", port)
	} else {
		for _, v := range []string{"-4", "-6"} {
			routes += fmt.Sprintf("ip %s rule add fwmark 0x534b lookup 21323\nip %s route add local default dev lo table 21323\n", v, v)
			undo += fmt.Sprintf("#   ip %s rule del fwmark 0x534b lookup 21323; ip %s route flush table 21323\n", v, v)
		}
	}
	return fmt.Sprintf(divertingRules, routes, hook, device, verdict, undo), nil
}

const divertingRules = `#!/bin/sh -e
# Leads what other boxes send through this one to the socks client. Local addresses stay as they are.
%[1]snft -f - <<'END'
table inet skywire_socks {
	chain divert {
		type %[2]s; policy accept;
		iifname != "%[3]s" return
		fib daddr type { local, broadcast, multicast, anycast } return
		ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 224.0.0.0/3 } return
		ip6 daddr { ::/127, fc00::/7, fe80::/10, ff00::/8 } return
		%[4]s
	}
}
END
# To undo it:
#   nft delete table inet skywire_socks
%[5]s`
