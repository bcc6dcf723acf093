package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"skywire/mesh/key"
	"skywire/signal"
)

// Stream is a reliable connection to a service of a node: a net.Conn with half-close and reset codes. Whoever has one
// ends it with Close or Reset. Read and Write may run at once, each from one goroutine.
type Stream struct {
	conn    *connection
	quic    *quic.Stream
	dialled bool   // by us
	tally   *Tally // nil: nobody counts
	service string
	header  []byte
	reply   []byte
	writing atomic.Int32
	end     sync.Once
	limits  *limited
	mover
}

func newStream(c *connection, qs *quic.Stream, dialled bool) *Stream {
	s := &Stream{conn: c, quic: qs, dialled: dialled}
	c.opened(s)
	return s
}

// Peer is the node at the other end.
func (s *Stream) Peer() key.Public { return s.conn.peer.key }

// Service is the name that the stream was opened for.
func (s *Stream) Service() string { return s.service }

// Binding is what both ends of a stream, and nobody else, know of the connection under it: 32 bytes that the TLS handshake
// of the two keys yields (RFC 9266). A proof over it is worth nothing in any other connection.
func (s *Stream) Binding() []byte {
	state := s.conn.quic.ConnectionState().TLS
	b, err := state.ExportKeyingMaterial(bindingLabel, nil, 32)
	if err != nil {
		return nil // no handshake, no stream: only a stub in a test gets here
	}
	return b
}

// Header is what the opening side sent along, Reply what the other answered.
func (s *Stream) Header() []byte { return s.header }

// Reply see Header.
func (s *Stream) Reply() []byte { return s.reply }

func (s *Stream) Read(b []byte) (int, error) {
	if m := s.incoming(); m != nil {
		return m.Read(b)
	}
	n, err := s.quic.Read(b)
	if errors.Is(err, io.EOF) {
		if n > 0 {
			return n, nil // whether it is the end shows next time
		}
		if m := s.successor(); m != nil {
			s.in.Store(true)
			return m.Read(b)
		}
	}
	return n, translate(err)
}

// wait returns when there is something to read, so that who has nothing needs no buffer.
func (s *Stream) wait() error {
	var one [1]byte
	if _, err := s.quic.Peek(one[:]); err != nil {
		_, rerr := s.quic.Read(nil) // Peek does not settle the stream's end
		if rerr != nil {
			err = rerr
		}
		if errors.Is(err, io.EOF) && s.successor() != nil {
			s.in.Store(true)
			return nil
		}
		return translate(err)
	}
	return nil
}

func (s *Stream) Write(b []byte) (int, error) {
	s.writing.Add(1)
	defer s.writing.Add(-1)
	if m := s.outgoing(); m != nil {
		return m.Write(b)
	}
	n, err := s.quic.Write(b)
	s.consider(n)
	return n, translate(err)
}

// writeFrame writes what opens, answers or moves a stream.
func (s *Stream) writeFrame(b []byte) error {
	s.writing.Add(1)
	defer s.writing.Add(-1)
	_, err := s.quic.Write(b)
	return translate(err)
}

// CloseWrite ends our direction; what was written arrives, then the other side reads io.EOF.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	s.ended = true
	m := s.next.Load()
	s.mu.Unlock()
	err := translate(s.quic.Close())
	if m != nil {
		err = m.closeWrite()
	}
	return err
}

// CloseRead tells the other side that nothing more is wanted of its direction.
func (s *Stream) CloseRead(code uint64) {
	s.quic.CancelRead(quic.StreamErrorCode(code))
	if m := s.next.Load(); m != nil {
		m.control.CloseRead(code)
	}
}

// Close ends both directions: what was written arrives, what was not read is given up.
func (s *Stream) Close() error {
	m := s.finish(streamClosed)
	if s.writing.Load() > 0 { // the bytes of a Write that is under way have no end
		s.quic.CancelWrite(CodeNone)
		if m != nil {
			m.reset(CodeNone)
		}
	} else {
		s.quic.Close()
		if m != nil {
			m.leave()
		}
	}
	s.quic.CancelRead(CodeNone)
	s.end.Do(func() { s.conn.ended(s) })
	return nil
}

// Reset ends both directions at once; the other side's calls return a ResetError with the code.
func (s *Stream) Reset(code uint64) {
	m := s.finish(streamReset)
	s.quic.CancelWrite(quic.StreamErrorCode(code))
	s.quic.CancelRead(quic.StreamErrorCode(code))
	if m != nil {
		m.reset(code)
	}
	s.end.Do(func() { s.conn.ended(s) })
}

// LocalAddr and RemoteAddr are mesh addresses; the port means nothing.
func (s *Stream) LocalAddr() net.Addr { return s.conn.quic.LocalAddr() }

// RemoteAddr see LocalAddr. It is no identity; Peer is.
func (s *Stream) RemoteAddr() net.Addr { return s.conn.quic.RemoteAddr() }

// SetDeadline and its kind work as on any net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline see SetDeadline.
func (s *Stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readBy = t
	if m := s.next.Load(); m != nil {
		m.conn.SetReadDeadline(t)
	}
	return s.quic.SetReadDeadline(t)
}

// SetWriteDeadline see SetDeadline.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
	if m := s.next.Load(); m != nil {
		m.conn.SetWriteDeadline(t)
	}
	return s.quic.SetWriteDeadline(t)
}

// translate turns quic-go's errors into this package's; io.EOF and deadlines pass.
func translate(err error) error {
	var reset *quic.StreamError
	var timeout net.Error
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.As(err, &reset):
		return &ResetError{Code: uint64(reset.ErrorCode), Remote: reset.Remote}
	case errors.Is(err, quic.ErrStreamClosed):
		return ErrClosed
	case isConnectionError(err):
		return fmt.Errorf("%w: %w", ErrLost, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return err
	}
	return fmt.Errorf("%w: %w", ErrLost, err)
}

func isConnectionError(err error) bool {
	var idle *quic.IdleTimeoutError
	var app *quic.ApplicationError
	var transport *quic.TransportError
	var stateless *quic.StatelessResetError
	return errors.As(err, &idle) || errors.As(err, &app) || errors.As(err, &transport) || errors.As(err, &stateless)
}

// Dial opens a stream to a service of a peer and waits for its answer, a refusal of which is a *signal.Error. There is
// one connection to a peer, brought up if needed.
func (e *Endpoint) Dial(ctx context.Context, to key.Public, service string, header []byte) (*Stream, error) {
	s, err := e.open(ctx, to, Open{Service: service, Header: header})
	if err == nil {
		s.consider(0)
	}
	return s, err
}

// open is Dial for streams and flows.
func (e *Endpoint) open(ctx context.Context, to key.Public, o Open) (*Stream, error) {
	frame, err := o.Append(nil)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", o.Service, err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	select {
	case <-e.started:
	case <-e.ended:
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p := e.peer(to)
	if p == nil {
		return nil, fmt.Errorf("dial %s: %d peers at once", to.Short(), maxPeers)
	}
	for {
		c, used, err := e.connect(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("dial %s: %w", to.Short(), err)
		}
		s, err := c.open(ctx, frame, o.Packets)
		if err == nil {
			s.service = o.Service
			return s, nil
		}
		// A connection from before may turn out to be dead, or to be replaced, exactly now.
		if !used || !errors.Is(err, ErrLost) || ctx.Err() != nil {
			return nil, fmt.Errorf("dial %s on %s: %w", o.Service, to.Short(), err)
		}
		c.drop()
	}
}

// drop makes the next Dial look for another connection.
func (c *connection) drop() {
	c.peer.mu.Lock()
	defer c.peer.mu.Unlock()
	if c.peer.current == c {
		c.peer.current = nil
	}
}

// open sends the first frame and waits for the answer to it.
func (c *connection) open(ctx context.Context, frame []byte, packets bool) (*Stream, error) {
	if packets && !c.quic.ConnectionState().SupportsDatagrams.Remote {
		return nil, ErrNoPackets
	}
	qs, err := c.quic.OpenStreamSync(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, translate(err)
	}
	s := newStream(c, qs, true)
	if packets {
		newFlow(s) // before the answer: packets may overtake it
	}
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	answer, err := s.ask(frame)
	if !stop() {
		err = ctx.Err()
	}
	if err == nil && answer.Refusal != nil {
		err = answer.Refusal
	}
	if err != nil {
		s.Reset(CodeNone)
		return nil, err
	}
	s.reply = answer.Reply
	return s, nil
}

func (s *Stream) ask(frame []byte) (Answer, error) {
	if err := s.writeFrame(frame); err != nil {
		return Answer{}, err
	}
	b, err := readFrame(streamReader{s})
	if err != nil {
		return Answer{}, err
	}
	return ParseAnswer(b)
}

// streamReader makes the end of a stream inside a frame an error of the stream.
type streamReader struct{ s *Stream }

func (r streamReader) Read(b []byte) (int, error) { return r.s.Read(b) }

// Incoming is a stream that waits for a verdict.
type Incoming struct {
	stream   *Stream
	answered atomic.Bool
	packets  bool
}

// Peer is who opened the stream: the key that the connection has proved.
func (in *Incoming) Peer() key.Public { return in.stream.Peer() }

// Service is the name it was opened for.
func (in *Incoming) Service() string { return in.stream.service }

// Header is what came along.
func (in *Incoming) Header() []byte { return in.stream.header }

// Binding is that of the stream, see Stream.Binding.
func (in *Incoming) Binding() []byte { return in.stream.Binding() }

// Done is closed when the dialling side has given up.
func (in *Incoming) Done() <-chan struct{} { return in.stream.quic.Context().Done() }

// Packets tells that a flow of packets is wanted: AcceptFlow takes it, Accept does not.
func (in *Incoming) Packets() bool { return in.packets }

// Accept takes the stream. It ends when Service.Handle returns, if not before.
func (in *Incoming) Accept(reply []byte) (*Stream, error) {
	if in.packets {
		return nil, ErrKind
	}
	return in.accept(reply)
}

func (in *Incoming) accept(reply []byte) (*Stream, error) {
	frame, err := Answer{Reply: reply}.Append(nil)
	if err != nil {
		return nil, err
	}
	if in.answered.Swap(true) {
		return nil, ErrClosed
	}
	in.stream.SetWriteDeadline(time.Now().Add(openTimeout)) // a peer may give no window even for that
	if err := in.stream.writeFrame(frame); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	in.stream.SetWriteDeadline(time.Time{})
	return in.stream, nil
}

// Refuse answers no.
func (in *Incoming) Refuse(why *signal.Error) error {
	frame, err := Answer{Refusal: why}.Append(nil)
	if err != nil {
		return err
	}
	if in.answered.Swap(true) {
		return ErrClosed
	}
	in.stream.SetWriteDeadline(time.Now().Add(openTimeout))
	if err := in.stream.writeFrame(frame); err != nil {
		in.stream.Reset(CodeInternal)
		return fmt.Errorf("refuse: %w", err)
	}
	return in.stream.Close()
}

// crowded reports whether a stream is one too many, of all there are and of its peer's. A peer may have as many as there
// are places left, so that those who fill the node, even with streams that say nothing, leave some to who comes next.
func (e *Endpoint) crowded(all, peers int64) bool { return peers > max(2*e.most-all, 0) }

// serveStream reads the first frame and finds who takes the stream.
func (e *Endpoint) serveStream(ctx context.Context, s *Stream) {
	defer s.Close()
	in := &Incoming{stream: s}
	busy := e.crowded(e.queued.Add(1), s.conn.peer.streams.Add(1))
	leave := func() {
		e.queued.Add(-1)
		s.conn.peer.streams.Add(-1)
	}
	if busy { // at once: a stream that says nothing would keep its place
		leave()
		in.Refuse(signal.Errorf(signal.ErrBusy, "too many streams"))
		return
	}
	defer leave()
	s.SetDeadline(time.Now().Add(openTimeout))
	b, err := readFrame(streamReader{s})
	var open Open
	if err == nil {
		open, err = ParseOpen(b)
	}
	if err != nil {
		e.log.Debug("stream without a first frame", "peer", s.Peer().Short(), "err", err)
		s.Reset(CodeFrame)
		return
	}
	s.SetDeadline(time.Time{})
	s.service, s.header, in.packets = open.Service, open.Header, open.Packets
	e.mu.RLock()
	service := e.services[open.Service]
	e.mu.RUnlock()
	switch {
	case open.Service == moveService:
		e.serveMove(ctx, in)
	case service == nil:
		in.Refuse(signal.Errorf(signal.ErrNotFound, "no service %q here", open.Service))
	case service.Allow == nil || !service.Allow(s.Peer()):
		in.Refuse(signal.Errorf(signal.ErrRefused, "service %q does not admit %s", open.Service, s.Peer().Short()))
	case in.packets && !service.Packets:
		in.Refuse(signal.Errorf(signal.ErrUnsupported, "service %q takes no packets", open.Service))
	default:
		service.Handle(ctx, in)
		in.Refuse(signal.Errorf(signal.ErrInternal, "service %q gave no answer", open.Service)) // does nothing after a verdict
	}
}
