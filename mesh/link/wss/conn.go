package wss

import (
	"bufio"
	"io"
	"math/rand/v2"
	"net"
	"sync"
)

const (
	// maxPiece bounds the payload of one frame that is sent: a record of TLS, less the header.
	maxPiece = 16<<10 - maxHeader
	// maxPayload bounds a frame that is taken: reverse proxies may join what was sent in pieces.
	maxPayload = 1 << 24
)

// Conn is a WebSocket whose binary messages are joined to one stream of bytes.
type Conn struct {
	net.Conn               // what it runs over
	r        *bufio.Reader // of it
	client   bool

	head   Header // of the frame that is being read
	left   int64  // of its payload
	begun  bool   // a message is under way: continuations may come
	header [maxHeader]byte

	mu  sync.Mutex // guards buf and the order of what is written
	buf []byte
}

func newConn(c net.Conn, r *bufio.Reader, client bool) *Conn {
	return &Conn{Conn: c, r: r, client: client, buf: make([]byte, 0, maxPiece+maxHeader)}
}

// Read reads payload.
func (c *Conn) Read(b []byte) (int, error) {
	for c.left == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	if int64(len(b)) > c.left {
		b = b[:c.left]
	}
	n, err := c.r.Read(b)
	if c.head.Masked {
		mask(b[:n], c.head.Key, c.head.Length-c.left)
	}
	c.left -= int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// next reads the header of the next frame with data, and answers those without.
func (c *Conn) next() error {
	have := 0
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return err
		}
		c.header[have] = b
		have++
		h, n, err := ParseHeader(c.header[:have])
		if err != nil {
			return err
		}
		if n == 0 {
			continue
		}
		if h.Masked == c.client || h.Length > maxPayload {
			return ErrFrame
		}
		if h.Opcode >= opClose {
			return c.control(h)
		}
		if h.Opcode == opText || (h.Opcode == opContinue) != c.begun {
			return ErrFrame
		}
		c.head, c.left, c.begun = h, h.Length, !h.Final
		return nil
	}
}

// control reads the rest of a close, ping or pong, and answers a ping.
func (c *Conn) control(h Header) error {
	var body [maxControl]byte
	b := body[:h.Length]
	if _, err := io.ReadFull(c.r, b); err != nil {
		return err
	}
	if h.Masked {
		mask(b, h.Key, 0)
	}
	switch h.Opcode {
	case opClose:
		return io.EOF
	case opPing:
		return c.send(opPong, b)
	}
	return nil
}

// Write sends b as binary messages of at most maxPiece.
func (c *Conn) Write(b []byte) (int, error) {
	sent := 0
	for len(b) > 0 {
		n := min(len(b), maxPiece)
		if err := c.send(opBinary, b[:n]); err != nil {
			return sent, err
		}
		sent += n
		b = b[n:]
	}
	return sent, nil
}

// send writes one frame by one call, so that it is one record.
func (c *Conn) send(opcode byte, b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := Header{Opcode: opcode, Final: true, Masked: c.client, Length: int64(len(b))}
	if c.client {
		k := rand.Uint32()
		h.Key = [4]byte{byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
	}
	c.buf = h.Append(c.buf[:0])
	at := len(c.buf)
	c.buf = append(c.buf, b...)
	if h.Masked {
		mask(c.buf[at:], h.Key, 0)
	}
	_, err := c.Conn.Write(c.buf)
	return err
}
