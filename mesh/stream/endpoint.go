// Package stream carries reliable streams between nodes: QUIC, ended in the node, over packets that travel on the paths
// of the mesh. It is the only importer of quic-go.
//
// It chooses no path, opens no socket to the network and knows nothing of apps: packets leave by a Carrier and arrive by
// Endpoint.Deliver, streams leave by Dial and arrive at the Service registered under their name. It does not encrypt for
// the path: QUIC's own 1-RTT protection is what the carrier may leave as it is (first bit 0, PRESEALED).
//
// Rules: one connection to a peer; identities are the node keys and nothing else; every queue, window and number of
// streams is bounded by a constant of limits.go. Lock order: Endpoint.mu, then peer.mu, then connection.mu; nothing is
// called out with a lock held.
package stream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/quic-go/quic-go"

	"skywire/mesh/key"
)

// Carrier moves QUIC packets to a peer. Its methods may be called from several goroutines.
type Carrier interface {
	// SendQUIC sends packets of seg bytes each, the last may be shorter, before it returns; it does not keep train.
	// All packets of a train have the same first bit: 0 short header, which QUIC has sealed, 1 anything else, which the
	// carrier has to seal. syscall.EAGAIN: the path is full, nothing was sent, try again; syscall.EMSGSIZE: seg is above
	// what the path takes. Any other error counts as loss.
	SendQUIC(peer key.Public, train []byte, seg int) error
	// MTU is the largest packet with a short header that the path to the peer takes now; 0: not known.
	MTU(peer key.Public) int
	// Ready returns when packets can be sent to the peer; it starts a session if there is none.
	Ready(ctx context.Context, peer key.Public) error
	// Address and Peer map between keys and mesh addresses.
	Address(peer key.Public) netip.Addr
	Peer(addr netip.Addr) (key.Public, bool)
}

// Config is what New needs.
type Config struct {
	Identity *key.Private
	Network  key.NetworkID
	Carrier  Carrier
	Kernel   Kernel // the second carrier of streams; nil: there is none
	Prefer   Prefer
	Small    bool         // a box with little memory: smaller windows
	Most     int          // streams of one peer at once; 0 means MaxStreams
	Log      *slog.Logger // nil: silent
}

// Service takes the streams of one name.
type Service struct {
	// Packets: flows of packets are taken too, beside streams.
	Packets bool
	// Allow is asked before Handle hears of the stream; nil refuses everyone.
	Allow func(peer key.Public) bool
	// Handle runs in a goroutine of the Endpoint's, which waits for it; it accepts or refuses. When it returns, the
	// stream is closed.
	Handle func(ctx context.Context, in *Incoming)
}

// Stats are counters since the start, and gauges as of now.
type Stats struct {
	PacketsReceived, PacketsDropped uint64 // handed up; dropped because quic-go was behind
	PacketsSent, PacketsLost        uint64 // taken by the carrier; given up
	PacketsCut                      uint64 // sent in pieces
	CarrierFull                     uint64 // times the carrier was full
	Connections, Streams            int
	Moved, Unmoved                  uint64 // streams that went over to TCP; that wanted to and could not
	Strangers                       uint64 // connections to an offered port that were not the peer's
	OnTCP                           int    // streams that TCP carries, or is about to
	Flows                           int    // of packets; they count as streams too
	FlowSent, FlowReceived          uint64 // packets of flows
	FlowInStream                    uint64 // of those sent, the ones too long for a DATAGRAM
	FlowDropped                     uint64 // of those received, the ones that no program took in time
	FlowStray                       uint64 // that arrived for no flow
}

// Endpoint is the node's end of all streams.
type Endpoint struct {
	carrier Carrier
	kernel  Kernel
	prefer  Prefer
	self    key.Public
	log     *slog.Logger
	cert    tls.Certificate
	share   int   // of windows and ring: 1, or smallShare
	most    int64 // streams of one peer
	conn    *packetConn
	quic    *quic.Transport
	count   counters
	windows atomic.Int64 // flow control granted beyond connWindow
	streams atomic.Int64
	queued  atomic.Int64 // incoming streams being served
	started chan struct{}
	ended   chan struct{}
	running atomic.Bool
	work    sync.WaitGroup
	base    context.Context // of Run; set before started closes

	mu       sync.RWMutex // guards the fields below
	peers    map[key.Public]*peer
	byAddr   map[netip.Addr]*peer
	services map[string]*Service
	moves    map[*move]struct{}
	closing  bool
}

// New returns an Endpoint; nothing happens before Run.
func New(c Config) (*Endpoint, error) {
	if c.Identity == nil || c.Carrier == nil {
		return nil, errors.New("stream: identity and carrier are required")
	}
	switch c.Prefer {
	case PreferMeasured, PreferQUIC, PreferTCP:
	default:
		return nil, fmt.Errorf("stream: carrier %q: it is quic or tcp, or not said", c.Prefer)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	cert := certificate(c.Identity)
	reset, err := resetKey(c.Identity)
	if err != nil {
		return nil, err
	}
	self := c.Identity.Public()
	e := &Endpoint{
		carrier: c.Carrier, kernel: c.Kernel, prefer: c.Prefer, self: self, log: c.Log, cert: cert, share: 1,
		started: make(chan struct{}), ended: make(chan struct{}),
		peers: map[key.Public]*peer{}, byAddr: map[netip.Addr]*peer{}, services: map[string]*Service{},
		moves: map[*move]struct{}{},
	}
	if c.Small {
		e.share = smallShare
	}
	e.most = int64(cmp.Or(c.Most, MaxStreams))
	e.conn, err = newPacketConn(c.Carrier, c.Network.Address(self), ringSize/e.share, e.lookup, &e.count)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	e.quic = &quic.Transport{
		Conn: e.conn, StatelessResetKey: reset,
		DisableVersionNegotiationPackets: true, // see cut.go
	}
	return e, nil
}

// Run serves until ctx ends, and returns after every connection, handler and goroutine has ended. It runs once.
func (e *Endpoint) Run(ctx context.Context) error {
	if e.running.Swap(true) {
		return errors.New("stream: Run called twice")
	}
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	e.base = base
	ln, err := e.quic.Listen(e.serverTLS(), e.quicConfig())
	if err != nil {
		close(e.ended)
		e.conn.Close()
		return fmt.Errorf("stream: %w", err)
	}
	close(e.started)
	for {
		qc, aerr := ln.Accept(base)
		if aerr != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("stream: %w", aerr)
			}
			break
		}
		e.accepted(qc)
	}
	cancel()
	e.closeAll()
	ln.Close()
	e.quic.Close()
	e.conn.Close()
	e.work.Wait()
	return err
}

// closeAll says goodbye on every connection; no new one is taken after.
func (e *Endpoint) closeAll() {
	close(e.ended)
	e.mu.Lock()
	e.closing = true
	var conns []*connection
	for _, p := range e.peers {
		conns = append(conns, p.all()...)
	}
	e.mu.Unlock()
	for _, c := range conns {
		c.close(closeDone, "node ends")
	}
}

// start runs f in a goroutine that Run waits for; false: too late.
func (e *Endpoint) start(f func()) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closing {
		return false
	}
	e.work.Go(f)
	return true
}

func (e *Endpoint) quicConfig() *quic.Config {
	return &quic.Config{
		Versions:                       []quic.Version{quic.Version1},
		HandshakeIdleTimeout:           handshakeIdle,
		MaxIdleTimeout:                 idleTimeout,
		KeepAlivePeriod:                keepAlive,
		InitialStreamReceiveWindow:     uint64(streamWindow / e.share),
		MaxStreamReceiveWindow:         uint64(maxStreamWindow / e.share),
		InitialConnectionReceiveWindow: uint64(connWindow / e.share),
		MaxConnectionReceiveWindow:     uint64(maxConnWindow / e.share),
		AllowConnectionWindowIncrease:  e.allowWindow,
		MaxIncomingStreams:             e.most,
		MaxIncomingUniStreams:          -1,
		InitialPacketSize:              minPacket, // as a floor: smaller paths carry it in pieces
		Allow0RTT:                      false,
		EnableDatagrams:                true, // see flow.go
	}
}

// Deliver takes a train of QUIC packets from a peer's session. It copies, never blocks, and drops and counts when
// quic-go is behind. Packets whose frames nobody authenticated must not come here.
func (e *Endpoint) Deliver(peer key.Public, train []byte, seg int) {
	e.mu.RLock()
	p := e.peers[peer]
	e.mu.RUnlock()
	if p == nil {
		if p = e.peer(peer); p == nil {
			e.count.dropped.Add(1)
			return
		}
	}
	e.conn.deliver(p, train, seg)
}

// Handle registers a service until remove is called.
func (e *Endpoint) Handle(service string, s Service) (remove func(), err error) {
	if service == "" || len(service) > maxService || s.Handle == nil {
		return nil, fmt.Errorf("service %q: %w", service, ErrHeader)
	}
	if service == moveService {
		return nil, fmt.Errorf("service %q: %w", service, ErrRegistered)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.services[service] != nil {
		return nil, fmt.Errorf("service %q: %w", service, ErrRegistered)
	}
	entry := &s
	e.services[service] = entry
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.services[service] == entry {
			delete(e.services, service)
		}
	}, nil
}

// Forget closes the connections to a peer without waiting for an answer: its session tells that it has restarted. It
// does not block.
func (e *Endpoint) Forget(peer key.Public) {
	e.mu.RLock()
	p := e.peers[peer]
	e.mu.RUnlock()
	if p == nil {
		return
	}
	conns := p.all()
	for _, c := range conns {
		c.drop()
	}
	e.start(func() { // quic-go waits for its own loop, which may be waiting for a carrier that is full
		for _, c := range conns {
			c.close(closeDone, "peer restarted")
		}
	})
}

// Stats returns the counters.
func (e *Endpoint) Stats() Stats {
	s := Stats{
		PacketsReceived: e.count.received.Load(), PacketsDropped: e.count.dropped.Load(),
		PacketsSent: e.count.sent.Load(), PacketsLost: e.count.lost.Load(),
		PacketsCut: e.count.cut.Load(), CarrierFull: e.count.full.Load(),
		Streams: int(e.streams.Load()), Flows: int(e.count.flows.Load()),
		FlowSent: e.count.flowSent.Load(), FlowReceived: e.count.flowReceived.Load(),
		FlowInStream: e.count.flowInStream.Load(), FlowDropped: e.count.flowDropped.Load(), FlowStray: e.count.flowStray.Load(),
		Moved: e.count.moved.Load(), Unmoved: e.count.unmoved.Load(), Strangers: e.count.strangers.Load(),
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	s.OnTCP = len(e.moves)
	for _, p := range e.peers {
		s.Connections += len(p.all())
	}
	return s
}

// lookup returns what is known of the peer with a mesh address, or nil.
func (e *Endpoint) lookup(a netip.Addr) *peer {
	e.mu.RLock()
	p := e.byAddr[a]
	e.mu.RUnlock()
	if p != nil {
		return p
	}
	if k, ok := e.carrier.Peer(a); ok {
		return e.peer(k)
	}
	return nil
}

// peer returns the entry of a peer and makes one if there is room, which there is unless maxPeers have connections.
func (e *Endpoint) peer(k key.Public) *peer {
	a := e.carrier.Address(k)
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.peers[k]; p != nil {
		return p
	}
	if len(e.peers) >= maxPeers {
		e.sweepLocked()
	}
	if len(e.peers) >= maxPeers {
		return nil
	}
	p := &peer{key: k, addr: a, udp: udpAddr(a)}
	p.proven.Store(minPacket)
	e.peers[k], e.byAddr[a] = p, p
	return p
}

// sweepLocked forgets peers that have neither a connection nor one coming up.
func (e *Endpoint) sweepLocked() {
	for k, p := range e.peers {
		if p.unused() {
			delete(e.peers, k)
			delete(e.byAddr, p.addr)
		}
	}
}

// accepted takes a connection that a peer has dialled.
func (e *Endpoint) accepted(qc *quic.Conn) {
	from, ok := qc.RemoteAddr().(*net.UDPAddr)
	if !ok {
		qc.CloseWithError(closeKey, "")
		return
	}
	a, _ := netip.AddrFromSlice(from.IP)
	p := e.lookup(a)
	if p == nil || verify(qc.ConnectionState().TLS, p.key) != nil {
		qc.CloseWithError(closeKey, "")
		return
	}
	if _, err := e.adopt(p, qc, false); err != nil {
		e.log.Debug("connection refused", "peer", p.key.Short(), "err", err)
	}
}
