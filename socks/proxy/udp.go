package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// ServiceUDP is the service whose packet flows are UDP associations: one flow is one port of the exit. The flow opens with
// the version byte alone; every packet is a socks.Datagram, both ways.
const ServiceUDP = "socks-udp"

// versionUDP is the only one there is.
const versionUDP = 1

// HeaderUDP opens a flow to ServiceUDP.
func HeaderUDP() []byte { return []byte{versionUDP} }

// Limits of one association.
const (
	udpIdle     = 5 * time.Minute // without a packet from the client (RFC 4787, REQ-5)
	maxTargets  = 256             // addresses that may answer
	maxPinned   = 64              // names, each of which keeps its address
	maxWaiting  = 8               // packets to a name that is being asked for
	policyFresh = 5 * time.Second // the policy is asked again for an address after this: the exit's own addresses change
)

// datagramRoom is what a packet with its target takes at most.
const datagramRoom = socks.MaxDatagram + socks.MaxDatagramHeader

// association is one client's UDP port at the exit. The port is the same for all targets (endpoint-independent mapping), and
// only addresses that the client has sent to may answer (address-dependent filtering, RFC 4787): programs that meet by an
// address learnt elsewhere still can, strangers can't reach the client.
type association struct {
	e    *Exit
	peer key.Public
	flow net.Conn
	sock *net.UDPConn
	ctx  context.Context // ends with the association
	wg   sync.WaitGroup  // lookups

	mu      sync.Mutex // guards the fields below
	last    time.Time  // packet of the client
	targets map[netip.Addr]*udpTarget
	pinned  map[string]*pin
}

// udpTarget is an address that the client has sent to.
type udpTarget struct {
	last, checked time.Time
	port          uint16 // that was checked
	name          string // for which it was checked
}

// pin ties a name to one address for the association's life: a name that changes its answer would tear a program's
// connection.
type pin struct {
	last    time.Time  // use
	told    time.Time  // that there is none
	addr    netip.Addr // invalid: there is none, or it is being asked for
	asking  bool
	waiting []socks.Datagram
}

// acceptUDP takes flows until ctx ends.
func (e *Exit) acceptUDP(ctx context.Context, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		in, err := e.c.Node.AcceptPackets(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				e.c.Log.Debug("no flows from the node", "err", err)
				pause(ctx, acceptPause)
			}
			continue
		}
		wg.Go(func() { e.serveUDP(ctx, in) })
	}
}

func (e *Exit) serveUDP(ctx context.Context, in IncomingPackets) {
	peer := in.Peer()
	v := e.admitUDP(in)
	if v != nil {
		e.stats.refused.Add(1)
		if err := in.Refuse(v); err != nil {
			e.c.Log.Debug("refusal not delivered", "peer", peer.Short(), "err", err)
		}
		return
	}
	defer e.accounts.close(peer, true)
	sock, err := net.ListenUDP("udp", nil)
	if err != nil {
		e.c.Log.Warn("no port for UDP", "err", err)
		_ = in.Refuse(&Verdict{verdictBusy, "the exit has no port"})
		return
	}
	defer sock.Close()
	flow, err := in.Accept()
	if err != nil {
		e.c.Log.Debug("flow not taken", "peer", peer.Short(), "err", err)
		return
	}
	defer flow.Close()
	ctx, cancel := context.WithCancel(ctx)
	a := &association{
		e: e, peer: peer, flow: flow, sock: sock, ctx: ctx, last: time.Now(),
		targets: make(map[netip.Addr]*udpTarget), pinned: make(map[string]*pin),
	}
	e.accounts.note(peer, 1, 0, 0, 0)
	stop := context.AfterFunc(ctx, func() { flow.Close(); sock.Close() })
	defer stop()
	a.wg.Go(func() { defer cancel(); a.down() })
	a.up()
	cancel()
	a.wg.Wait()
}

// admitUDP says why a flow is refused, or counts it.
func (e *Exit) admitUDP(in IncomingPackets) *Verdict {
	peer, h := in.Peer(), in.Header()
	if !e.knows(peer) {
		return &Verdict{verdictStranger, "this exit does not know you: its owner can allow your key " + peer.String()}
	}
	if len(h) != 1 || h[0] != versionUDP {
		return &Verdict{socks.Failed, "this exit speaks version 1 of UDP"}
	}
	if err := e.accounts.open(peer, true); err != nil {
		return &Verdict{verdictBusy, err.Error()}
	}
	return nil
}

// up takes packets from the client until the flow ends.
func (a *association) up() {
	buf := make([]byte, datagramRoom)
	for {
		n, err := a.flow.Read(buf)
		if err != nil {
			return
		}
		d, err := socks.ParseDatagram(buf[:n])
		if err != nil {
			a.drop()
			continue
		}
		now := time.Now()
		a.mu.Lock()
		a.last = now
		addr, ready := d.Addr, true
		if d.Name != "" {
			addr, ready = a.addressLocked(d, now)
		}
		a.mu.Unlock()
		if ready {
			a.send(d, addr, now)
		}
	}
}

// addressLocked is the address of d's name. Not ready: the packet waits for it, or was dropped.
func (a *association) addressLocked(d socks.Datagram, now time.Time) (netip.Addr, bool) {
	name := foldName(d.Name)
	p := a.pinned[name]
	if p == nil || !p.asking && !p.addr.IsValid() && now.Sub(p.told) > silentServers {
		if len(a.pinned) >= maxPinned && !a.unpinLocked() {
			a.drop()
			return netip.Addr{}, false
		}
		p = &pin{asking: true}
		a.pinned[name] = p
		to := dest{network: "udp", name: name, port: d.Port}
		a.wg.Go(func() { a.resolve(to, p) })
	}
	p.last = now
	switch {
	case p.addr.IsValid():
		return p.addr, true
	case p.asking && len(p.waiting) < maxWaiting:
		d.Payload = append([]byte(nil), d.Payload...)
		p.waiting = append(p.waiting, d)
	default:
		a.drop()
	}
	return netip.Addr{}, false
}

// unpinLocked forgets the name that was used longest ago, unless all are being asked for.
func (a *association) unpinLocked() bool {
	var oldest string
	for n, p := range a.pinned {
		if !p.asking && (oldest == "" || p.last.Before(a.pinned[oldest].last)) {
			oldest = n
		}
	}
	delete(a.pinned, oldest)
	return oldest != ""
}

// resolve finds p's address and sends what waited. There is no race as for TCP, nobody says whether a packet arrived; IPv4
// comes first since an exit without IPv6 would lose packets in silence.
func (a *association) resolve(to dest, p *pin) {
	var addr netip.Addr
	if a.e.policy.CheckName(to) == nil {
		addr = a.pick(to)
	}
	now := time.Now()
	a.mu.Lock()
	p.asking, p.addr, p.told = false, addr, now
	waiting := p.waiting
	p.waiting = nil
	a.mu.Unlock()
	for _, d := range waiting {
		if addr.IsValid() {
			a.send(d, addr, now)
		} else {
			a.drop()
		}
	}
}

func (a *association) pick(to dest) netip.Addr {
	for _, family := range [...]string{"ip4", "ip6"} {
		addrs, err := a.e.names.lookup(a.ctx, to.name, family)
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			if a.e.policy.Check(to, addr) == nil {
				return addr
			}
		}
	}
	return netip.Addr{}
}

// send is one packet to its target, if policy and rate allow it.
func (a *association) send(d socks.Datagram, addr netip.Addr, now time.Time) {
	addr = addr.Unmap()
	if !a.mayAnswer(d, addr, now) || !a.e.accounts.spend(a.peer, len(d.Payload), true, a.e.c.Limits.Rate) {
		a.drop()
		return
	}
	if _, err := a.sock.WriteToUDPAddrPort(d.Payload, netip.AddrPortFrom(addr, d.Port)); err != nil {
		a.drop()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		a.e.c.Log.Debug("datagram not sent", "peer", a.peer.Short(), "err", err)
		return
	}
	a.e.count(a.peer, 0, len(d.Payload))
}

// mayAnswer checks the policy and opens the filter for the target's answers.
func (a *association) mayAnswer(d socks.Datagram, addr netip.Addr, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.targets[addr]
	if t == nil || t.port != d.Port || t.name != d.Name || now.Sub(t.checked) > policyFresh {
		to := dest{network: "udp", name: foldName(d.Name), port: d.Port}
		if a.e.policy.Check(to, addr) != nil {
			return false
		}
		if t == nil {
			a.forgetLocked()
			t = &udpTarget{}
			a.targets[addr] = t
		}
		t.checked, t.port, t.name = now, d.Port, d.Name
	}
	t.last = now
	return true
}

// forgetLocked makes room for a target: the one used longest ago goes.
func (a *association) forgetLocked() {
	if len(a.targets) < maxTargets {
		return
	}
	var oldest netip.Addr
	for addr, t := range a.targets {
		if o := a.targets[oldest]; o == nil || t.last.Before(o.last) {
			oldest = addr
		}
	}
	delete(a.targets, oldest)
}

// down brings answers to the client until the socket is closed or the client has been silent for too long.
func (a *association) down() {
	const head = 1 + 16 + 2 // of an answer's address
	buf := make([]byte, head+socks.MaxDatagram)
	for {
		if a.sock.SetReadDeadline(a.deadline()) != nil {
			return
		}
		n, from, err := a.sock.ReadFromUDPAddrPort(buf[head:])
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !time.Now().Before(a.deadline()) {
				return
			}
			continue
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			continue // an ICMP error that some kernels report here
		}
		from = netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port())
		if !a.wanted(from.Addr()) || !a.e.accounts.spend(a.peer, n, false, a.e.c.Limits.Rate) {
			a.drop()
			continue
		}
		var room [head]byte
		h := socks.Datagram{Addr: from.Addr(), Port: from.Port()}.Append(room[:0])
		copy(buf[head-len(h):], h)
		if _, err := a.flow.Write(buf[head-len(h) : head+n]); err != nil {
			return
		}
		a.e.count(a.peer, n, 0)
	}
}

func (a *association) wanted(from netip.Addr) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.targets[from] != nil
}

func (a *association) deadline() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last.Add(a.e.c.UDPIdle)
}

func (a *association) drop() { a.e.stats.dropped.Add(1) }

// count adds a datagram to the figures, seen from this box: sent into the mesh, received from it.
func (e *Exit) count(peer key.Public, sent, received int) {
	e.stats.datagrams.Add(1)
	e.stats.sent.Add(uint64(sent))
	e.stats.received.Add(uint64(received))
	e.accounts.note(peer, 0, 0, uint64(sent), uint64(received))
}
