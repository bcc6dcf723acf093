package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// maxLine bounds a line of a stream connection: a header or reply in base64 and what stands around it.
const maxLine = 16 << 10

// verdictTimeout bounds the lines around a handover or a verdict: both ends are on this box.
const verdictTimeout = 10 * time.Second

// Stream is a connection to a service on another node. CloseWrite ends one direction. When the other side resets the
// stream, Read returns ErrReset, but io.EOF after CloseWrite: a unix connection has no reset, only an end of both
// directions at once. Who needs to tell a cut answer from a short one then says its length, or hands over a TCP connection.
type Stream struct {
	*net.UnixConn
	peer    key.Public
	service string
	reply   []byte
	ended   atomic.Bool // our direction, by CloseWrite
}

// Read reads what the other side has written.
func (s *Stream) Read(b []byte) (int, error) {
	n, err := s.UnixConn.Read(b)
	if errors.Is(err, io.EOF) && !s.ended.Load() && hungUp(s.UnixConn) {
		err = ErrReset // the node ends our direction only when the stream is no more
	}
	return n, err
}

// CloseWrite ends our direction.
func (s *Stream) CloseWrite() error {
	s.ended.Store(true)
	return s.UnixConn.CloseWrite()
}

// Reply is what the service answered when it took the stream.
func (s *Stream) Reply() []byte { return s.reply }

// Peer is the node at the other end.
func (s *Stream) Peer() key.Public { return s.peer }

// RemoteAddr names the node and service.
func (s *Stream) RemoteAddr() net.Addr { return Addr{s.peer, s.service} }

// Addr is a service of a node.
type Addr struct {
	Key     key.Public
	Service string
}

// Network is "mesh".
func (Addr) Network() string { return "mesh" }

func (a Addr) String() string { return a.Key.String() + "/" + a.Service }

// open connects to the node's socket for one stream. The caller has to call done when the lines are over; until then
// the end of ctx closes the connection.
func (c *Client) open(ctx context.Context) (conn *net.UnixConn, done func() bool, err error) {
	if _, _, err := c.current(); err != nil {
		return nil, nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, nil, notRunning(c.path, err)
	}
	conn = nc.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return conn, stop, nil
}

// ask writes one line and reads the answer.
func ask(conn *net.UnixConn, line any) (*Result, error) {
	if err := signal.WriteLine(conn, line, nil); err != nil {
		return nil, err
	}
	var r Response
	if err := readJSON(conn, &r); err != nil {
		return nil, err
	}
	if r.Error != nil {
		return nil, r.Error
	}
	if r.Result == nil {
		return nil, fmt.Errorf("node's answer: neither result nor error")
	}
	return r.Result, nil
}

// dial asks the node for a stream; the connection it returns is the stream, or waits for the handover.
func (c *Client) dial(ctx context.Context, to key.Public, service string, header []byte, handOver bool) (*Stream, error) {
	r, conn, err := c.request(ctx, to, Request{Method: "stream.dial", Params: RequestParams{
		Key: to.String(), Service: service, Header: header, HandOver: handOver,
	}})
	if err != nil {
		return nil, err
	}
	return &Stream{UnixConn: conn, peer: to, service: service, reply: r.Reply}, nil
}

// request asks the node for a stream or a flow on a connection of its own.
func (c *Client) request(ctx context.Context, to key.Public, req Request) (*Result, *net.UnixConn, error) {
	if len(req.Params.Header) > MaxHeader {
		return nil, nil, ErrHeader
	}
	conn, done, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	r, err := ask(conn, req)
	if !done() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("dial %s on %s: %w", req.Params.Service, to.Short(), err)
	}
	return r, conn, nil
}

// Dial opens a stream to a service of a node. A refusal is a *signal.Error.
func (c *Client) Dial(ctx context.Context, to key.Public, service string, header []byte) (*Stream, error) {
	return c.dial(ctx, to, service, header, false)
}

// DialHandOver opens a stream, gives the reply to prepare (which may still write to the local program), and hands the
// connection that prepare returns to the node, which moves the bytes. It returns when both directions have ended; the
// connection is closed here at once, the node has its own descriptor of it.
func (c *Client) DialHandOver(ctx context.Context, to key.Public, service string, header []byte, prepare func(reply []byte) (*net.TCPConn, error)) (Traffic, error) {
	return c.DialHandOverSocket(ctx, to, service, header, func(reply []byte) (Socket, error) {
		conn, err := prepare(reply)
		if err != nil {
			return nil, err
		}
		return conn, nil
	})
}

// DialHandOverSocket is DialHandOver for any kind of connected stream socket.
func (c *Client) DialHandOverSocket(ctx context.Context, to key.Public, service string, header []byte, prepare func(reply []byte) (Socket, error)) (Traffic, error) {
	s, err := c.dial(ctx, to, service, header, true)
	if err != nil {
		return Traffic{}, err
	}
	defer s.Close()
	socket, err := prepare(s.reply)
	if err != nil {
		return Traffic{}, err
	}
	return handOver(ctx, s.UnixConn, socket, struct {
		HandOver bool `json:"handover"`
	}{true})
}

// Socket is a connection that has a descriptor to hand over: *net.TCPConn, *net.UnixConn, *net.UDPConn.
type Socket interface {
	File() (*os.File, error)
	Close() error
}

// handOver sends line with the descriptor of a socket, closes the socket here, and waits for the node to say how it ended.
func handOver(ctx context.Context, conn *net.UnixConn, socket Socket, line any) (Traffic, error) {
	f, err := socket.File()
	socket.Close()
	if err != nil {
		return Traffic{}, fmt.Errorf("hand over: %w", err)
	}
	conn.SetWriteDeadline(time.Now().Add(verdictTimeout))
	err = signal.WriteLine(conn, line, f)
	f.Close()
	if err != nil {
		return Traffic{}, fmt.Errorf("hand over: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var end struct {
		Traffic
		Error *signal.Error `json:"error"`
	}
	if err := readJSON(conn, &end); err != nil {
		if ctx.Err() != nil {
			return Traffic{}, ctx.Err()
		}
		return Traffic{}, fmt.Errorf("handed over: %w", err)
	}
	if end.Error != nil {
		return end.Traffic, end.Error
	}
	return end.Traffic, nil
}

// Incoming is a stream that waits for a verdict: exactly one of Accept, HandOver, Refuse or Close.
type Incoming struct {
	Peer    key.Public
	Header  []byte
	Binding []byte // of the connection under the stream, see stream.Binding
	Packets bool   // a flow of packets: AcceptPackets or HandOverPackets takes it

	service string
	conn    *net.UnixConn
	limits  Limits
}

// Limits is what the node keeps a stream to that is handed over to it.
type Limits struct {
	Rate uint64        // bytes a second and direction, for all streams of this peer to the service together; 0: no limit
	Idle time.Duration // a stream without a byte for so long is reset, to the second; 0: never
}

// Limit sets the limits of a HandOver that follows. Who refuses or accepts has no use for it.
func (in *Incoming) Limit(l Limits) { in.limits = l }

// Accept waits for the next stream to a service that this program has registered. While the node is away it waits for
// it to come back. Several may wait at once.
func (c *Client) Accept(ctx context.Context, service string) (*Incoming, error) {
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		in, err := c.accept(ctx, service)
		var refusal *signal.Error
		switch {
		case err == nil:
			return in, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, ErrClosed):
			return nil, err
		case errors.As(err, &refusal) && !errors.Is(err, signal.ErrNotFound):
			return nil, err
		case errors.As(err, &refusal) && !c.registered(service):
			return nil, err // else the node is new and Run is about to register again
		}
		if !pause(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

func (c *Client) registered(service string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reg == nil {
		return false
	}
	for _, s := range c.reg.Services {
		if s.Name == service {
			return true
		}
	}
	return false
}

func (c *Client) accept(ctx context.Context, service string) (*Incoming, error) {
	conn, done, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	r, err := ask(conn, Request{Method: "stream.accept", Params: RequestParams{Service: service}})
	if !done() && err == nil {
		err = ctx.Err()
	}
	var peer key.Public
	if err == nil {
		peer, err = key.Parse(r.Key)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("accept %s: %w", service, err)
	}
	return &Incoming{Peer: peer, Header: r.Header, Binding: r.Binding, Packets: r.Packets, service: service, conn: conn}, nil
}

// take returns the connection for the one verdict.
func (in *Incoming) take(reply []byte) (*net.UnixConn, error) {
	if len(reply) > MaxHeader {
		return nil, ErrHeader
	}
	if in.conn == nil {
		return nil, ErrAnswered
	}
	conn := in.conn
	in.conn = nil
	return conn, nil
}

// Accept takes the stream; the connection returned is the stream.
func (in *Incoming) Accept(reply []byte) (net.Conn, error) {
	if in.Packets {
		return nil, ErrKind
	}
	conn, err := in.accept(reply)
	if err != nil {
		return nil, err
	}
	return &Stream{UnixConn: conn, peer: in.Peer, service: in.service}, nil
}

func (in *Incoming) accept(reply []byte) (*net.UnixConn, error) {
	conn, err := in.take(reply)
	if err != nil {
		return nil, err
	}
	conn.SetWriteDeadline(time.Now().Add(verdictTimeout))
	if err := signal.WriteLine(conn, Verdict{OK: true, Reply: reply}, nil); err != nil {
		conn.Close()
		return nil, fmt.Errorf("accept %s: %w", in.service, err)
	}
	conn.SetWriteDeadline(time.Time{})
	return conn, nil
}

// HandOver takes the stream and gives the node the connection to join it with; see Client.DialHandOver.
func (in *Incoming) HandOver(reply []byte, socket Socket) (Traffic, error) {
	if in.Packets {
		socket.Close()
		return Traffic{}, ErrKind
	}
	return in.handOver(reply, socket)
}

func (in *Incoming) handOver(reply []byte, socket Socket) (Traffic, error) {
	conn, err := in.take(reply)
	if err != nil {
		socket.Close()
		return Traffic{}, err
	}
	defer conn.Close()
	v := Verdict{OK: true, Reply: reply, HandOver: true, Rate: in.limits.Rate}
	v.Idle = int((in.limits.Idle + time.Second - 1) / time.Second)
	return handOver(context.Background(), conn, socket, v)
}

// Refuse answers with a stable name (signal's, such as "refused", or the service's own) and a text for people.
func (in *Incoming) Refuse(name, text string) error {
	conn, err := in.take(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(verdictTimeout))
	return signal.WriteLine(conn, Verdict{Error: refusal(name, text)}, nil)
}

// refusal gives a name of signal's its code, and every other the one for errors of the service's own.
func refusal(name, text string) *signal.Error {
	for _, e := range []*signal.Error{
		signal.ErrUsage, signal.ErrInternal, signal.ErrNotFound, signal.ErrRefused, signal.ErrUnreachable,
		signal.ErrTimeout, signal.ErrBusy, signal.ErrUnsupported, signal.ErrNotRunning,
	} {
		if e.Name == name {
			return signal.Errorf(e, "%s", text)
		}
	}
	return &signal.Error{Code: -32000, Name: name, Message: text}
}

// Close drops the stream without a word; it does nothing after a verdict.
func (in *Incoming) Close() error {
	conn, err := in.take(nil)
	if err != nil {
		return nil
	}
	return conn.Close()
}
