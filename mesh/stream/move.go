package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
)

// Kernel opens connections of the box's own TCP over the mesh: from its mesh address, through its TUN and no other
// device. Its methods may be called from several goroutines. An error means that they can't be had now.
type Kernel interface {
	// Available tells cheaply whether the others would work.
	Available() error
	Listen(ctx context.Context) (net.Listener, error)
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Prefer says what carries streams.
type Prefer string

// The values of Prefer.
const (
	PreferMeasured Prefer = ""     // TCP for those that loss makes QUIC too slow for, where both ends have it
	PreferQUIC     Prefer = "quic" // never TCP
	PreferTCP      Prefer = "tcp"  // TCP for all, as soon as it is there
)

// move is a stream's change from QUIC to TCP, and from then on its TCP side. Each end moves its own direction: it ends the
// direction of the QUIC stream and goes on over TCP with its next byte. So a reader goes on where QUIC's bytes end.
type move struct {
	stream  *Stream
	decided chan struct{} // closed when it is done or given up
	failed  chan struct{} // closed once err is set
	left    chan struct{} // closed when the stream was closed or reset here
	read    atomic.Bool   // to the end of the other end's direction

	// Set before decided is closed, if it is done.
	control *Stream // carries resets, and the word that no more is wanted, as the QUIC stream did
	conn    net.Conn

	mu       sync.Mutex // guards the fields below
	err      error      // what ended it
	unwanted error      // the other end's word
	gone     bool       // Close or Reset was called; left is closed soon after
}

func newMove(s *Stream) *move {
	return &move{stream: s, decided: make(chan struct{}), failed: make(chan struct{}), left: make(chan struct{})}
}

// mover is the part of a Stream that moves.
type mover struct {
	next    atomic.Pointer[move] // the TCP side, once decided
	in, out atomic.Bool          // that direction has gone over to it
	sent    atomic.Int64         // on QUIC
	look    atomic.Int64         // what sent must reach for the next look at the connection

	mu              sync.Mutex // guards the fields below
	trying          *move
	proven          bool // the other end of trying may decide before we do
	ended           bool // our direction, by CloseWrite
	state           streamState
	readBy, writeBy time.Time
}

type streamState uint8

const (
	streamOpen streamState = iota
	streamClosed
	streamReset
)

// begin makes m the stream's try; false: there is another, which goes first, or nothing left to move. When both ends want
// to move a stream at once, the end that dialled it goes first.
func (s *Stream) begin(m *move, asked bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state != streamOpen || s.next.Load() != nil || s.proven:
		return false
	case s.trying != nil && (!asked || s.dialled):
		return false
	}
	s.trying = m
	return true
}

// prove says that the other end has what it needs to decide; false: too late.
func (s *Stream) prove(m *move) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trying != m || s.state != streamOpen {
		return false
	}
	s.proven = true
	return true
}

// giveUp makes room for another try.
func (s *Stream) giveUp(m *move) {
	s.mu.Lock()
	if s.trying == m {
		s.trying, s.proven = nil, false
	}
	s.mu.Unlock()
	close(m.decided)
}

// decide makes TCP the stream's way from here on; a direction that has ended on QUIC ends on TCP too. Once the other end
// has decided, that holds for a stream that was closed meanwhile as well.
func (s *Stream) decide(m *move, control *Stream, conn net.Conn) bool {
	s.mu.Lock()
	if s.trying != m || s.state == streamReset || s.state == streamClosed && !s.proven {
		s.mu.Unlock()
		return false
	}
	m.control, m.conn = control, conn
	conn.SetReadDeadline(s.readBy)
	conn.SetWriteDeadline(s.writeBy)
	s.next.Store(m)
	ended, closed := s.ended, s.state == streamClosed
	s.mu.Unlock()
	close(m.decided)
	switch {
	case closed:
		m.leave()
	case ended:
		m.closeWrite()
	}
	return true
}

// successor is where a stream goes on whose QUIC direction has ended; nil: that was its end.
func (s *Stream) successor() *move {
	if m := s.next.Load(); m != nil {
		return m
	}
	s.mu.Lock()
	m, proven := s.trying, s.proven
	s.mu.Unlock()
	if m == nil || !proven {
		return nil
	}
	<-m.decided // within decideTimeout
	return s.next.Load()
}

// outgoing is the TCP side, if our direction is to go there: then QUIC's ends here.
func (s *Stream) outgoing() *move {
	m := s.next.Load()
	if m != nil && !s.out.Swap(true) {
		s.quic.Close()
	}
	return m
}

// incoming is the TCP side, if the other direction has come to it.
func (s *Stream) incoming() *move {
	if !s.in.Load() {
		return nil
	}
	return s.next.Load()
}

// finish notes that the stream was closed or reset here, and returns the TCP side.
func (s *Stream) finish(state streamState) *move {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != streamOpen {
		return nil
	}
	s.state = state
	return s.next.Load()
}

// serve lives as long as the TCP side. It hears what the other end says on the control stream.
func (m *move) serve(base context.Context) {
	stop := context.AfterFunc(m.control.quic.Context(), m.stopSending)
	defer stop()
	end := context.AfterFunc(base, func() { m.fail(ErrClosed) })
	defer end()
	qc := m.control.conn.quic
	lost := context.AfterFunc(qc.Context(), func() { m.fail(translate(context.Cause(qc.Context()))) })
	defer lost()
	var one [1]byte
	_, err := m.control.Read(one[:])
	var reset *ResetError
	switch {
	case err == nil:
		m.fail(ErrFrame) // nothing comes after goByte
	case errors.Is(err, io.EOF), errors.As(err, &reset) && !reset.Remote:
	default:
		m.fail(err)
	}
	select {
	case <-m.left:
	case <-base.Done():
	}
	if !m.read.Load() {
		m.drain(base)
	}
	m.conn.Close()
	m.control.Close()
}

// drain gives up what was not read: closed with bytes unread, the kernel would reset the connection, and what we wrote
// might not arrive.
func (m *move) drain(base context.Context) {
	m.conn.SetReadDeadline(time.Now().Add(lingerTime))
	stop := context.AfterFunc(base, func() { m.conn.Close() })
	defer stop()
	io.Copy(io.Discard, m.conn)
}

// stopSending is called when our direction of the control stream has ended.
func (m *move) stopSending() {
	var r *quic.StreamError
	if !errors.As(context.Cause(m.control.quic.Context()), &r) || !r.Remote {
		return // ended by us
	}
	m.mu.Lock()
	m.unwanted = &ResetError{Code: uint64(r.ErrorCode), Remote: true}
	m.mu.Unlock()
	m.conn.SetWriteDeadline(time.Unix(1, 0))
}

// fail ends both directions.
func (m *move) fail(err error) {
	m.mu.Lock()
	if m.gone || m.err != nil {
		m.mu.Unlock()
		return
	}
	m.err = err
	m.mu.Unlock()
	close(m.failed)
	abort(m.conn)
}

// leave is Close, reset is Reset of the stream.
func (m *move) leave() {
	if m.depart() {
		m.conn.SetReadDeadline(time.Unix(1, 0)) // wakes a Read; drain, which waits for left, sets its own
		m.closeWrite()
		m.control.CloseWrite()
		m.control.CloseRead(CodeNone)
		close(m.left)
	}
}

func (m *move) reset(code uint64) {
	if m.depart() {
		m.control.Reset(code)
		abort(m.conn)
		close(m.left)
	}
}

// depart notes that the stream is no longer ours, before left is closed; false: known.
func (m *move) depart() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return false
	}
	m.gone = true
	return true
}

// abort closes a connection with a reset.
func abort(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		c.SetLinger(0)
	}
	conn.Close()
}

func (m *move) closeWrite() error {
	if h, ok := m.conn.(halfCloser); ok {
		if err := h.CloseWrite(); err != nil {
			return m.why(err)
		}
	}
	return nil
}

func (m *move) Read(b []byte) (int, error) {
	m.mu.Lock()
	gone := m.gone
	m.mu.Unlock()
	if gone {
		return 0, ErrClosed
	}
	n, err := m.conn.Read(b)
	if errors.Is(err, io.EOF) {
		m.read.Store(true)
		return n, err
	}
	return n, m.why(err)
}

func (m *move) Write(b []byte) (int, error) {
	n, err := m.conn.Write(b)
	if err != nil {
		if u := m.refused(); u != nil {
			return n, u
		}
	}
	return n, m.why(err)
}

// refused is the other end's word that it takes no more, nil if there is none.
func (m *move) refused() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unwanted
}

// why turns an error of the TCP connection into the stream's. The code of a reset comes on the control stream.
func (m *move) why(err error) error {
	if err == nil {
		return nil
	}
	m.mu.Lock()
	known, gone := m.err, m.gone
	m.mu.Unlock()
	var timeout net.Error
	switch {
	case known != nil:
		return known
	case gone:
		return ErrClosed
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	}
	t := time.NewTimer(codeWait)
	defer t.Stop()
	select {
	case <-m.failed:
	case <-m.left:
	case <-t.C:
	}
	m.fail(&ResetError{Code: CodeReset, Remote: true})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		return ErrClosed
	}
	return m.err
}
