package stream

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/signal"
)

// How a move comes to be: one end asks, the other opens a port and offers it, the first connects, both prove themselves.

// consider looks whether the stream should move, after n more bytes went out on QUIC.
func (s *Stream) consider(n int) {
	e := s.conn.endpoint
	if e.kernel == nil || e.prefer == PreferQUIC {
		return
	}
	sent := s.sent.Add(int64(n))
	if look := s.look.Load(); sent < look && e.prefer != PreferTCP {
		return
	}
	s.look.Store(sent + moveAfter)
	if sent < moveAfter && e.prefer != PreferTCP {
		return
	}
	now := time.Now()
	p := s.conn.peer
	if p.noMoveUntil.Load() > now.UnixNano() || e.prefer != PreferTCP && !s.conn.heldBack(now) || e.kernel.Available() != nil {
		return
	}
	m := newMove(s)
	if s.begin(m, false) && !e.start(func() { e.ask(m) }) {
		s.giveUp(m)
	}
}

// admit counts a move in, unless there are too many.
func (e *Endpoint) admit(m *move) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.moves) >= maxMoves || e.closing {
		return false
	}
	e.moves[m] = struct{}{}
	return true
}

func (e *Endpoint) dismiss(m *move) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.moves, m)
}

// TUNGone ends the streams that have moved: the device that carried them is no longer there.
func (e *Endpoint) TUNGone() {
	e.mu.Lock()
	var done []*move
	for m := range e.moves {
		if m.stream.next.Load() == m {
			done = append(done, m)
		}
	}
	e.mu.Unlock()
	for _, m := range done {
		m.fail(fmt.Errorf("%w: the TUN is gone", ErrLost))
	}
}

// ask moves a stream, and serves its TCP side.
func (e *Endpoint) ask(m *move) {
	s := m.stream
	if !e.admit(m) {
		s.giveUp(m)
		return
	}
	defer e.dismiss(m)
	ctx, cancel := context.WithTimeout(e.base, moveTimeout)
	err := e.reach(ctx, m)
	cancel()
	if err == nil {
		e.count.moved.Add(1)
		e.log.Debug("stream moved to tcp", "peer", s.Peer().Short(), "service", s.service)
		m.serve(e.base)
		return
	}
	s.giveUp(m)
	var timeout net.Error
	if errors.Is(err, signal.ErrNotFound) || errors.As(err, &timeout) && timeout.Timeout() {
		// Not this stream's own affair, which may just have ended: there is no TCP there, or nothing comes through.
		e.count.unmoved.Add(1)
		s.conn.peer.noMoveUntil.Store(time.Now().Add(moveAgain).UnixNano())
	}
	e.log.Debug("stream stays on quic", "peer", s.Peer().Short(), "service", s.service, "err", err)
}

func (e *Endpoint) reach(ctx context.Context, m *move) error {
	s := m.stream
	frame, err := Open{Service: moveService, Header: Ask{uint64(s.quic.StreamID())}.Append(nil)}.Append(nil)
	if err != nil {
		return err
	}
	control, err := s.conn.open(ctx, frame, false)
	if err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	offer, err := ParseOffer(control.Reply())
	var conn net.Conn
	if err == nil {
		conn, err = e.knock(ctx, s.conn.peer.addr, offer)
	}
	if err == nil && !s.decide(m, control, conn) {
		abort(conn)
		err = ErrClosed
	}
	if err != nil {
		control.Reset(CodeNone)
		return err
	}
	// From here on the other end waits for this word before it takes an end of the QUIC stream for the end of all.
	if err := control.writeFrame([]byte{goByte}); err != nil {
		m.fail(err)
	}
	return nil
}

// knock connects to what was offered and says the token; who listens there must answer with the proof.
func (e *Endpoint) knock(ctx context.Context, to netip.Addr, offer Offer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := e.kernel.Dial(ctx, netip.AddrPortFrom(to, offer.Port))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	var proof [secretLen]byte
	_, err = conn.Write(offer.Token[:])
	if err == nil {
		_, err = io.ReadFull(conn, proof[:])
	}
	if err == nil && subtle.ConstantTimeCompare(proof[:], offer.Proof[:]) != 1 {
		err = ErrIdentity
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		abort(conn)
		return nil, fmt.Errorf("connect: %w", err)
	}
	return conn, nil
}

// stream is the open stream of that number.
func (c *connection) stream(id uint64) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[quic.StreamID(id)]
}

// serveMove answers an Ask and serves the TCP side.
func (e *Endpoint) serveMove(ctx context.Context, in *Incoming) {
	if e.kernel == nil || e.prefer == PreferQUIC {
		in.Refuse(signal.Errorf(signal.ErrNotFound, "no tcp here"))
		return
	}
	ask, err := ParseAsk(in.Header())
	s := in.stream.conn.stream(ask.Stream)
	if err != nil || s == nil {
		in.Refuse(signal.Errorf(signal.ErrBusy, "no such stream"))
		return
	}
	m := newMove(s)
	if !s.begin(m, true) {
		in.Refuse(signal.Errorf(signal.ErrBusy, "stream moves already, or has ended"))
		return
	}
	if !e.admit(m) {
		s.giveUp(m)
		in.Refuse(signal.Errorf(signal.ErrBusy, "%d streams have moved", maxMoves))
		return
	}
	defer e.dismiss(m)
	if err := e.offer(ctx, m, in); err != nil {
		s.giveUp(m)
		in.stream.Reset(CodeNone)
		e.log.Debug("stream stays on quic", "peer", s.Peer().Short(), "service", s.service, "err", err)
		return
	}
	e.count.moved.Add(1)
	e.log.Debug("stream moved to tcp", "peer", s.Peer().Short(), "service", s.service)
	m.serve(ctx)
}

// offer opens a port for one connection and waits for it, and for the word that it counts.
func (e *Endpoint) offer(ctx context.Context, m *move, in *Incoming) error {
	var o Offer
	rand.Read(o.Token[:])
	rand.Read(o.Proof[:])
	ln, err := e.kernel.Listen(ctx)
	if err != nil {
		in.Refuse(signal.Errorf(signal.ErrNotFound, "no tcp here: %v", err))
		return err
	}
	defer ln.Close()
	if a, ok := ln.Addr().(*net.TCPAddr); ok {
		o.Port = uint16(a.Port)
	}
	control, err := in.Accept(o.Append(nil))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(control.quic.Context(), func() { ln.Close() }) // the other end has given up
	defer stop()
	conn, err := e.answer(ctx, ln, m.stream.conn.peer.addr, &o)
	if err != nil {
		return err
	}
	ln.Close()
	if !m.stream.prove(m) {
		abort(conn)
		return ErrClosed
	}
	conn.SetWriteDeadline(time.Now().Add(connectTimeout))
	control.SetReadDeadline(time.Now().Add(decideTimeout))
	var word [1]byte
	if _, err = conn.Write(o.Proof[:]); err == nil {
		_, err = io.ReadFull(control, word[:])
	}
	control.SetReadDeadline(time.Time{})
	if err == nil && word[0] != goByte {
		err = ErrFrame
	}
	if err == nil && !m.stream.decide(m, control, conn) {
		err = ErrClosed
	}
	if err != nil {
		abort(conn)
	}
	return err
}

// answer takes the one connection that comes from the right mesh address and knows the token. Others are closed and
// counted: whoever may send to this box may try the port.
func (e *Endpoint) answer(ctx context.Context, ln net.Listener, from netip.Addr, o *Offer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for range maxKnocks {
		conn, err := ln.Accept()
		if err != nil {
			return nil, err
		}
		if knows(ctx, conn, from, o.Token[:]) {
			return conn, nil
		}
		e.count.strangers.Add(1)
		abort(conn)
	}
	return nil, fmt.Errorf("%d strangers: %w", maxKnocks, ErrIdentity)
}

func knows(ctx context.Context, conn net.Conn, from netip.Addr, token []byte) bool {
	a, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || a.AddrPort().Addr().Unmap() != from {
		return false
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	conn.SetReadDeadline(time.Now().Add(knockTimeout))
	var b [secretLen]byte
	_, err := io.ReadFull(conn, b[:])
	return stop() && err == nil && subtle.ConstantTimeCompare(b[:], token) == 1
}
