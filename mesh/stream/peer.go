package stream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/mesh/key"
)

// peer is a node at the other end of connections: usually one, more while one takes over from another.
type peer struct {
	key     key.Public
	addr    netip.Addr
	udp     *net.UDPAddr
	proven  atomic.Int32  // the largest packet that has ever left uncut
	pieceID atomic.Uint32 // of the last packet that was cut
	joiner  joiner
	streams atomic.Int64 // incoming ones being served

	heldUntil   atomic.Int64 // unix ns: its path loses too much for QUIC, as last measured
	noMoveUntil atomic.Int64 // unix ns: TCP to it did not come up

	mu      sync.Mutex // guards the fields below
	conns   []*connection
	current *connection // where new streams go; nil: dial
	dialing *dialing
}

// dialing is a connection on its way; all that want one wait for done.
type dialing struct {
	done chan struct{}
	conn *connection
	err  error
}

func (p *peer) all() []*connection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.conns)
}

func (p *peer) unused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) == 0 && p.dialing == nil
}

// connection is one QUIC connection.
type connection struct {
	endpoint *Endpoint
	peer     *peer
	quic     *quic.Conn
	dialled  bool // by us
	at       time.Time
	window   atomic.Int64 // of Endpoint.windows, ours
	health   health

	mu      sync.Mutex // guards the fields below
	streams int
	byID    map[quic.StreamID]*Stream // those that are open
	flows   map[quic.StreamID]*Flow   // those of packets
	retired bool
	idle    *time.Timer // runs while there are no streams
}

func (c *connection) close(code quic.ApplicationErrorCode, text string) {
	c.quic.CloseWithError(code, text)
}

// canonical tells which of two connections of a pair both ends keep: the one that the smaller key has dialled.
func (c *connection) canonical() bool {
	return c.dialled == c.endpoint.self.Less(c.peer.key)
}

// adopt takes a finished connection into service.
func (e *Endpoint) adopt(p *peer, qc *quic.Conn, dialled bool) (*connection, error) {
	c := &connection{endpoint: e, peer: p, quic: qc, dialled: dialled, at: time.Now(), byID: map[quic.StreamID]*Stream{}, flows: map[quic.StreamID]*Flow{}}
	p.mu.Lock()
	if len(p.conns) >= maxConnsPerPeer {
		p.mu.Unlock()
		c.close(closeBusy, "too many connections")
		return nil, fmt.Errorf("%s: %d connections at once", p.key.Short(), maxConnsPerPeer)
	}
	retire := c
	if old := p.current; old == nil || c.replaces(old) {
		p.current, retire = c, old
	}
	p.conns = append(p.conns, c)
	p.mu.Unlock()
	c.rest()
	if retire != nil {
		retire.retire()
	}
	if qc.ConnectionState().SupportsDatagrams.Remote {
		e.start(func() { c.receivePackets(e.base) })
	}
	if !e.start(func() { c.serve(e.base) }) {
		c.remove()
		c.close(closeDone, "node ends")
		return nil, ErrClosed
	}
	if dialled {
		e.log.Debug("connection dialled", "peer", p.key.Short())
	} else {
		e.log.Debug("connection accepted", "peer", p.key.Short())
	}
	return c, nil
}

// replaces decides between two live connections. Dialled by both at once, both ends must choose the same; otherwise the
// newer wins, for the peer would not dial if it still had the other.
func (c *connection) replaces(old *connection) bool {
	if old.quic.Context().Err() != nil || c.dialled == old.dialled || c.at.Sub(old.at) > crossing {
		return true
	}
	return c.canonical()
}

// serve hands out the peer's streams until the connection ends.
func (c *connection) serve(ctx context.Context) {
	e := c.endpoint
	for {
		qs, err := c.quic.AcceptStream(ctx)
		if err != nil {
			break
		}
		s := newStream(c, qs, false)
		if !e.start(func() { e.serveStream(ctx, s) }) {
			s.Reset(CodeInternal)
		}
	}
	c.remove()
	c.close(closeDone, "")
	e.log.Debug("connection down", "peer", c.peer.key.Short(), "cause", context.Cause(c.quic.Context()))
}

// remove forgets the connection.
func (c *connection) remove() {
	p := c.peer
	p.mu.Lock()
	if p.current == c {
		p.current = nil
	}
	if i := slices.Index(p.conns, c); i >= 0 {
		p.conns = slices.Delete(p.conns, i, i+1)
	}
	p.mu.Unlock()
	c.endpoint.windows.Add(-c.window.Swap(0))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		c.idle.Stop()
	}
}

// retire lets the connection end once its streams have.
func (c *connection) retire() {
	c.mu.Lock()
	c.retired = true
	c.mu.Unlock()
	c.rest()
}

// rest starts the clock of a connection without streams.
func (c *connection) rest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.streams > 0 {
		return
	}
	after := idleClose
	if c.retired {
		after = retireGrace
	}
	if c.idle == nil {
		c.idle = time.AfterFunc(after, c.expire)
		return
	}
	c.idle.Reset(after)
}

func (c *connection) expire() {
	c.mu.Lock()
	busy, retired := c.streams > 0, c.retired
	c.mu.Unlock()
	switch {
	case busy:
	case retired:
		c.close(closeRetired, "")
	default:
		c.close(closeDone, "idle")
	}
}

// opened and ended count streams.
func (c *connection) opened(s *Stream) {
	c.endpoint.streams.Add(1)
	c.mu.Lock()
	c.streams++
	c.byID[s.quic.StreamID()] = s
	c.mu.Unlock()
}

func (c *connection) ended(s *Stream) {
	c.endpoint.streams.Add(-1)
	c.mu.Lock()
	c.streams--
	delete(c.byID, s.quic.StreamID())
	f := c.flows[s.quic.StreamID()]
	delete(c.flows, s.quic.StreamID())
	last := c.streams == 0
	c.mu.Unlock()
	if f != nil {
		c.endpoint.count.flows.Add(-1)
		f.queue.close()
	}
	if last {
		c.rest()
	}
}

// allowWindow keeps the flow-control windows of all connections together within maxWindows.
func (e *Endpoint) allowWindow(qc *quic.Conn, delta uint64) bool {
	from, ok := qc.RemoteAddr().(*net.UDPAddr)
	if !ok {
		return false
	}
	a, _ := netip.AddrFromSlice(from.IP)
	p := e.lookup(a)
	if p == nil {
		return false
	}
	for _, c := range p.all() {
		if c.quic != qc {
			continue
		}
		if e.windows.Add(int64(delta)) > int64(maxWindows/e.share) {
			e.windows.Add(-int64(delta))
			return false
		}
		c.window.Add(int64(delta))
		return true
	}
	return false
}

// connect returns the connection to a peer, dialling if there is none. used tells that it was there before.
func (e *Endpoint) connect(ctx context.Context, p *peer) (c *connection, used bool, err error) {
	p.mu.Lock()
	if c := p.current; c != nil && c.quic.Context().Err() == nil {
		p.mu.Unlock()
		return c, true, nil
	}
	d := p.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		p.dialing = d
		p.mu.Unlock()
		if !e.start(func() { e.dial(p, d) }) {
			p.mu.Lock()
			p.dialing = nil
			p.mu.Unlock()
			return nil, false, ErrClosed
		}
	} else {
		p.mu.Unlock()
	}
	select {
	case <-d.done:
		return d.conn, false, d.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// dial brings up a connection for everyone who waits for it.
func (e *Endpoint) dial(p *peer, d *dialing) {
	ctx, cancel := context.WithTimeout(e.base, answerTimeout)
	defer cancel()
	d.conn, d.err = e.dialOnce(ctx, p)
	p.mu.Lock()
	p.dialing = nil
	if c := p.current; c != nil && d.err == nil {
		d.conn = c // a crossing one may have won
	}
	p.mu.Unlock()
	close(d.done)
}

func (e *Endpoint) dialOnce(ctx context.Context, p *peer) (*connection, error) {
	if err := e.carrier.Ready(ctx, p.key); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	qc, err := e.quic.Dial(ctx, p.udp, tlsFor(e.cert, p.key), e.quicConfig())
	if err != nil {
		if errors.Is(err, ErrIdentity) || isTLSAlert(err) {
			return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	return e.adopt(p, qc, true)
}

// isTLSAlert tells a failed handshake from a silent peer.
func isTLSAlert(err error) bool {
	var t *quic.TransportError
	return errors.As(err, &t) && t.ErrorCode.IsCryptoError()
}
