package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// Limits of one UDP association.
const (
	associationIdle = 10 * time.Minute // without a packet; the program's TCP connection usually ends it long before
	directIdle      = 30 * time.Second // of a flow from this box, of which each target has its own
	maxFlows        = 64
	maxKnown        = 1024 // targets whose way is remembered
	flowWaiting     = 32   // packets that wait for a flow to open, a round trip
	flowRetry       = time.Second
	udpSocketBuffer = 1 << 20
)

// roomBefore is what stands before a datagram in a program's packets: two reserved bytes and the fragment number.
const roomBefore = 3

// associate opens a port for a program and carries its packets until its TCP connection ends. The port takes packets from
// the address of that connection alone, and from one port: the one that the program has named, or that it uses first.
func (c *Client) associate(ctx context.Context, r *socks.Request, conn Stream) error {
	local, peer := addrPort(conn.LocalAddr()), addrPort(conn.RemoteAddr())
	if !local.IsValid() || !peer.IsValid() {
		return &Verdict{Code: socks.CommandNotSupported} // a unix socket has no address to bind to
	}
	sock, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), 0)))
	if err != nil {
		return &Verdict{socks.Failed, "no port for UDP"}
	}
	defer sock.Close()
	_ = sock.SetReadBuffer(udpSocketBuffer) // as much as the kernel allows
	at := sock.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := r.GrantUDP(conn, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())); err != nil {
		conn.Close()
		return nil
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { sock.Close(); conn.Close() })()
	p := &programPort{sock: sock, peer: peer.Addr()}
	if r.Host == p.peer.String() || r.Host == "0.0.0.0" || r.Host == "::" {
		p.port = r.Port
	}
	a := c.newPackets(ctx, socks.Query{User: r.User, From: p.peer, UDP: true}, p.deliver)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, conn)
	})
	p.take(a, c.c.UDPIdle)
	cancel()
	a.wg.Wait()
	wg.Wait()
	return nil
}

// programPort is the port of one association.
type programPort struct {
	sock *net.UDPConn
	peer netip.Addr
	port uint16 // 0: not known yet
	at   atomic.Pointer[netip.AddrPort]
}

// take reads the program's packets until the socket is closed, or nothing came for too long.
func (p *programPort) take(a *packets, idle time.Duration) {
	buf := make([]byte, roomBefore+datagramRoom)
	for {
		if p.sock.SetReadDeadline(time.Now().Add(idle)) != nil {
			return
		}
		n, from, err := p.sock.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			continue // an ICMP error that some kernels report here
		}
		if from.Addr().Unmap() != p.peer || p.port != 0 && from.Port() != p.port {
			a.drop()
			continue
		}
		d, err := socks.ParseUDP(buf[:n])
		if err != nil {
			a.drop()
			continue
		}
		if p.port == 0 || p.at.Load() == nil {
			p.port = from.Port()
			p.at.Store(&from)
		}
		a.send(d, buf[roomBefore:n])
	}
}

// deliver sends an answer; it stands in b behind roomBefore.
func (p *programPort) deliver(b []byte) {
	to := p.at.Load()
	if to == nil {
		return
	}
	clear(b[:roomBefore])
	_, _ = p.sock.WriteToUDPAddrPort(b, *to)
}

// packets are one program's: each target has a way, and each way a flow.
type packets struct {
	c       *Client
	ctx     context.Context
	from    socks.Query
	deliver func(b []byte) // an answer in socks.Datagram's form behind roomBefore; not kept
	wg      sync.WaitGroup // flows

	mu    sync.Mutex // guards the fields below
	known map[udpTo]*flow
	flows map[string]*flow
}

// udpTo is a target.
type udpTo struct {
	addr netip.Addr
	name string
	port uint16
}

func (c *Client) newPackets(ctx context.Context, from socks.Query, deliver func([]byte)) *packets {
	c.stats.associations.Add(1)
	context.AfterFunc(ctx, func() { c.stats.associations.Add(-1) })
	return &packets{c: c, ctx: ctx, from: from, deliver: deliver, known: make(map[udpTo]*flow), flows: make(map[string]*flow)}
}

func (a *packets) drop() { a.c.stats.dropped.Add(1) }

// send passes on d, whose encoding is b. It keeps neither. One goroutine calls it.
func (a *packets) send(d socks.Datagram, b []byte) {
	to := udpTo{d.Addr, d.Name, d.Port}
	a.mu.Lock()
	f := a.known[to]
	a.mu.Unlock()
	if f == nil {
		if f = a.find(to, d); f == nil {
			a.drop()
			return
		}
	}
	if !f.headed {
		b = d.Payload
	}
	if f.send(b) {
		a.c.stats.packets.Add(1)
	} else {
		a.drop()
	}
}

// find returns the flow for a target, opening it if it is not there. A target that is blocked, or one too many, has none.
func (a *packets) find(to udpTo, d socks.Datagram) *flow {
	q := a.from
	q.Host, q.Port = d.Host(), d.Port
	target := net.JoinHostPort(q.Host, strconv.Itoa(int(q.Port)))
	w, err := a.c.wayTo(a.ctx, q)
	if err != nil {
		a.c.c.Log.Debug("packet refused", "target", target, "err", err)
		return nil
	}
	name := "exit " + w.exitNames()
	f := &flow{headed: true, idle: a.c.c.UDPIdle, open: func(ctx context.Context) (net.Conn, error) { return a.c.openPackets(ctx, w) }}
	switch {
	case w.service != "":
		name, f.headed = "service "+target, false
	case w.action == socks.Direct:
		name, f.headed, f.idle = "direct "+target, false, directIdle
		f.open = func(ctx context.Context) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "udp", target)
		}
	}
	if !f.headed {
		d.Payload = nil
		f.head = d.Append(nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.known) >= maxKnown {
		clear(a.known)
	}
	if old := a.flows[name]; old != nil {
		a.known[to] = old
		return old
	}
	if len(a.flows) >= maxFlows {
		return nil
	}
	a.flows[name], a.known[to] = f, f
	a.wg.Go(func() {
		f.run(a)
		a.forget(name, f)
	})
	return f
}

// forget removes a flow that has ended.
func (a *packets) forget(name string, f *flow) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flows, name)
	for to, k := range a.known {
		if k == f {
			delete(a.known, to)
		}
	}
}

// openPackets opens a flow over the mesh.
func (c *Client) openPackets(ctx context.Context, w way) (conn net.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.c.OpenTimeout)
	defer cancel()
	if w.service != "" {
		return c.c.Node.DialPackets(ctx, w.key, w.service, nil)
	}
	err = c.overExits(ctx, w.exits, func(exit key.Public) (bool, error) {
		var err error
		conn, err = c.c.Node.DialPackets(ctx, exit, ServiceUDP, HeaderUDP())
		return err == nil, err
	})
	return conn, err
}

// flow is packets on one way.
type flow struct {
	headed bool   // packets carry their target, and answers their source
	head   []byte // else: what stands before the answers
	idle   time.Duration
	open   func(ctx context.Context) (net.Conn, error)
	used   atomic.Bool // since somebody looked

	mu      sync.Mutex // guards the fields below
	conn    net.Conn   // nil: not open yet
	waiting [][]byte
	ended   bool
}

// send passes a packet on, or lets it wait for the opening. Not ok: it is lost.
func (f *flow) send(b []byte) bool {
	f.mu.Lock()
	conn := f.conn
	ok := !f.ended && (conn != nil || len(f.waiting) < flowWaiting)
	if ok && conn == nil {
		f.waiting = append(f.waiting, append([]byte(nil), b...))
	}
	f.mu.Unlock()
	if !ok || conn == nil {
		return ok
	}
	f.used.Store(true)
	_, err := conn.Write(b)
	return err == nil
}

// run opens the flow and reads answers until it ends, or the association does.
func (f *flow) run(a *packets) {
	conn, err := f.open(a.ctx)
	if err != nil {
		a.c.c.Log.Debug("no flow of packets", "err", err)
		f.end()
		pause(a.ctx, flowRetry) // meanwhile packets are dropped, not tried one by one
		return
	}
	defer conn.Close()
	defer context.AfterFunc(a.ctx, func() { conn.Close() })()
	f.flush(conn)
	defer f.end()
	at := roomBefore + len(f.head)
	buf := make([]byte, at+datagramRoom)
	copy(buf[roomBefore:], f.head)
	for {
		if conn.SetReadDeadline(time.Now().Add(f.idle)) != nil {
			return
		}
		n, err := conn.Read(buf[at:])
		if errors.Is(err, os.ErrDeadlineExceeded) && f.used.Swap(false) {
			continue
		}
		if err != nil {
			return
		}
		a.c.stats.packets.Add(1)
		a.deliver(buf[:at+n])
	}
}

// flush sends what has waited, in order, and lets send go on from there.
func (f *flow) flush(conn net.Conn) {
	for {
		f.mu.Lock()
		waiting := f.waiting
		f.waiting = nil
		if len(waiting) == 0 {
			f.conn = conn
		}
		f.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		for _, b := range waiting {
			_, _ = conn.Write(b)
		}
	}
}

func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.waiting = true, nil
}
