package stream

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// buffers holds the copy buffers of all pumps. It is the one thing shared by endpoints, and has no state.
var buffers = sync.Pool{New: func() any { return new([copyBuffer]byte) }}

// halfCloser is what TCP and unix connections can do and a net.Pipe can't.
type halfCloser interface {
	CloseRead() error
	CloseWrite() error
}

// pump moves the bytes of one stream and one connection.
type pump struct {
	stream         *Stream
	conn           net.Conn
	sent, received atomic.Uint64
}

// Pump joins a stream and a local connection until both directions have ended, and closes both. The end of one direction
// is passed on as half-close, a reset as a reset (on TCP with SO_LINGER 0), in either direction. A buffer is taken only
// when bytes are there. It returns what went into the stream and came out of it, and nil if both directions ended
// by io.EOF.
func Pump(ctx context.Context, s *Stream, conn net.Conn) (sent, received uint64, err error) {
	p := &pump{stream: s, conn: conn}
	stop := context.AfterFunc(ctx, func() { p.abort(CodeInternal) })
	defer stop()
	defer s.limits.watch(ctx, p)()
	var up error
	var other sync.WaitGroup
	other.Go(func() { up = p.up() })
	down := p.down()
	other.Wait()
	s.Close()
	conn.Close()
	if up == nil {
		up = down
	}
	return p.sent.Load(), p.received.Load(), up
}

// abort resets both sides.
func (p *pump) abort(code uint64) {
	p.stream.Reset(code)
	if tcp, ok := p.conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) // RST instead of FIN
	}
	p.conn.Close()
}

// up copies from the connection into the stream.
func (p *pump) up() error {
	read := chunkReader(p.conn)
	for {
		if p.stream.limits == nil {
			if m := p.stream.outgoing(); m != nil {
				return p.spliceUp(m)
			}
		}
		b, err := read()
		if b != nil {
			p.stream.limits.spend(b.n, true)
			n, werr := p.stream.Write(b.bytes())
			p.sent.Add(uint64(n))
			p.stream.tally.send(int64(n))
			b.free()
			if werr != nil {
				return p.unwanted(werr)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return p.stream.CloseWrite()
		case err != nil:
			p.abort(CodeReset)
			return err
		}
	}
}

// unwanted is the other node's word that it takes no more. If it just closed, what it has sent before still counts.
func (p *pump) unwanted(err error) error {
	var reset *ResetError
	h, ok := p.conn.(halfCloser)
	if ok && errors.As(err, &reset) && reset.Remote && reset.Code == CodeNone {
		h.CloseRead()
		return nil
	}
	p.abort(CodeReset)
	return err
}

// down copies from the stream to the connection.
func (p *pump) down() error {
	for {
		err := p.stream.wait()
		if m := p.stream.incoming(); m != nil && p.stream.limits == nil {
			return p.spliceDown(m)
		}
		if err == nil {
			err = p.chunk()
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if h, ok := p.conn.(halfCloser); ok {
				h.CloseWrite() // an error means that it is gone, which up notices
			}
			return nil
		default:
			p.abort(CodeReset)
			return err
		}
	}
}

// spliceUp is up once the stream is on TCP: two sockets of the kernel, which moves the bytes by itself.
func (p *pump) spliceUp(m *move) error {
	n, err := copyCounted(m.conn, p.conn, p.stream.tally.send)
	p.sent.Add(uint64(n))
	switch refused := m.refused(); {
	case err == nil:
		return p.stream.CloseWrite()
	case refused != nil:
		return p.unwanted(refused)
	}
	p.abort(CodeReset)
	return err
}

// spliceDown is down once the stream is on TCP.
func (p *pump) spliceDown(m *move) error {
	n, err := copyCounted(p.conn, m.conn, p.stream.tally.receive)
	p.received.Add(uint64(n))
	if err != nil {
		p.abort(CodeReset)
		return err
	}
	m.read.Store(true)
	if h, ok := p.conn.(halfCloser); ok {
		h.CloseWrite()
	}
	return nil
}

// countEvery is how many bytes the kernel moves by itself until they are counted.
const countEvery = 4 << 20

// copyCounted is io.Copy that tells of what it has moved while it goes on; into a unix socket at its end only, since the
// kernel moves bytes there for a copy without a limit alone.
func copyCounted(to, from net.Conn, count func(int64)) (all int64, err error) {
	if _, ok := to.(*net.TCPConn); !ok {
		all, err = io.Copy(to, from)
		count(all)
		return all, err
	}
	for {
		n, err := io.CopyN(to, from, countEvery)
		all += n
		count(n)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return all, err
		}
	}
}

// chunk moves what is there, at most one buffer.
func (p *pump) chunk() error {
	buf := buffers.Get().(*[copyBuffer]byte)
	defer buffers.Put(buf)
	n, err := p.stream.Read(buf[:])
	if n > 0 {
		p.stream.limits.spend(n, false)
		if _, werr := p.conn.Write(buf[:n]); werr != nil {
			return werr
		}
		p.received.Add(uint64(n))
		p.stream.tally.receive(int64(n))
	}
	return err
}

// chunk is a pooled buffer with bytes in it.
type chunk struct {
	buf *[copyBuffer]byte
	n   int
}

func (c *chunk) bytes() []byte { return c.buf[:c.n] }

func (c *chunk) free() {
	buffers.Put(c.buf)
	c.buf = nil
}

// chunkReader returns a function that waits for bytes and then takes a buffer for them.
func chunkReader(conn net.Conn) func() (*chunk, error) {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil && canReadRaw {
			return rawReader(raw)
		}
	}
	var c chunk
	return func() (*chunk, error) {
		c.buf = buffers.Get().(*[copyBuffer]byte)
		n, err := conn.Read(c.buf[:])
		if c.n = n; n == 0 {
			c.free()
			return nil, err
		}
		return &c, err
	}
}
