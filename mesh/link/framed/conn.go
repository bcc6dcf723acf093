package framed

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"skywire/mesh/forward"
)

// What a connection may hold.
const (
	// outLimit bounds what waits to be written, beside what is being written; outLimitSmall the same on small boxes.
	outLimit      = 1 << 20
	outLimitSmall = 256 << 10
	// outLeast is what may wait on the slowest line: a few trains of a handshake, and one of data.
	outLeast = 16 << 10
	// outTime is how much of the line's time may wait: more would be a queue that nobody manages.
	outTime = 50 * time.Millisecond
	// inSize is what is read at once; inSmall the same on small boxes, and of a stranger.
	inSize  = 64 << 10
	inSmall = 2*MaxFrame + 2*lengthLen
	// strangerBytes is what is taken of a stranger before a key is proved: a handshake, twice.
	strangerBytes = 512
	// writeWait bounds one write: a peer that takes nothing for so long is gone.
	writeWait = 10 * time.Second
	// farewell is how long the last frames, which say that the node goes, may take.
	farewell = 300 * time.Millisecond
)

// Conn is one connection of a Set.
type Conn struct {
	set   *Set
	slot  *slot
	net   net.Conn
	ended chan struct{} // closed by close
	known chan struct{} // closed by prove

	proven atomic.Bool
	closed atomic.Bool
	last   atomic.Bool  // to be closed as soon as nothing waits
	used   atomic.Int64 // when a frame last came, in ns of the set's clock

	kick chan struct{} // capacity 1: out is no longer empty

	mu    sync.Mutex // guards the fields below; never held while calling out
	out   []byte     // frames to be written
	spare []byte     // its other half, while none is being written
	limit int        // of out
}

func newConn(s *Set, at *slot, c net.Conn, proven bool) *Conn {
	x := &Conn{set: s, slot: at, net: c, ended: make(chan struct{}), known: make(chan struct{}), kick: make(chan struct{}, 1), limit: s.outLimit()}
	if proven {
		x.prove()
	}
	return x
}

// prove makes the connection nobody's stranger any more; false: it was none.
func (c *Conn) prove() bool {
	if !c.proven.CompareAndSwap(false, true) {
		return false
	}
	_ = c.net.SetDeadline(time.Time{})
	close(c.known)
	return true
}

// finish has the writer write what waits, and close the connection then.
func (c *Conn) finish() {
	c.last.Store(true)
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (c *Conn) close() {
	if c.closed.CompareAndSwap(false, true) {
		close(c.ended)
		_ = c.net.Close()
	}
}

// send takes a train for the writer, or drops what finds no room.
func (c *Conn) send(train []byte, seg int) error {
	if seg <= 0 || seg > len(train) {
		seg = len(train)
	}
	if seg > MaxFrame {
		return syscall.EMSGSIZE
	}
	c.mu.Lock()
	had := len(c.out)
	for len(train) > 0 {
		n := min(seg, len(train))
		if len(c.out)+lengthLen+n > c.limit && len(c.out) > 0 {
			break
		}
		c.out = Append(c.out, train[:n])
		train = train[n:]
	}
	took := len(c.out) > had
	c.mu.Unlock()
	if left := len(train); left > 0 {
		if !took {
			return syscall.EAGAIN // the caller counts
		}
		c.set.cut.Add(uint64((left + seg - 1) / seg))
	}
	select {
	case c.kick <- struct{}{}:
	default:
	}
	return nil
}

// take gives the writer what waits.
func (c *Conn) take(done []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cap(done) > 0 {
		c.spare = done[:0]
	}
	b := c.out
	if len(b) == 0 {
		return nil
	}
	c.out, c.spare = c.spare, nil
	return b
}

// write is the writer: it sends what waits in one call, and lets no more wait than the line carries in outTime.
func (c *Conn) write() error {
	var b []byte
	var line pace
	for {
		if b = c.take(b); b == nil {
			line.rest()
			if c.last.Load() {
				return net.ErrClosed
			}
			select {
			case <-c.kick:
				continue
			case <-c.ended:
				return net.ErrClosed
			}
		}
		begun := time.Now()
		if c.proven.Load() && !c.last.Load() {
			_ = c.net.SetWriteDeadline(begun.Add(writeWait))
		}
		if _, err := c.net.Write(b); err != nil {
			return err
		}
		if rate := line.wrote(len(b), time.Since(begun)); rate > 0 {
			c.mu.Lock()
			c.limit = min(max(int(float64(rate)*outTime.Seconds()), outLeast), c.set.outLimit())
			c.mu.Unlock()
		}
	}
}

// pace measures how fast a connection takes what is written while it is the narrow place.
type pace struct {
	bytes int
	took  time.Duration
	rate  int // bytes a second; 0: never measured
}

// paceWindow is how much busy time makes a measurement.
const paceWindow = 50 * time.Millisecond

func (p *pace) rest() { p.bytes, p.took = 0, 0 }

// wrote returns the rate when a window has ended: a faster line is believed at once, a slower one by and by.
func (p *pace) wrote(n int, took time.Duration) int {
	p.bytes += n
	if p.took += took; p.took < paceWindow {
		return 0
	}
	rate := int(float64(p.bytes) / p.took.Seconds())
	if p.rate > rate {
		rate = p.rate - (p.rate-rate)/4
	}
	p.rate = rate
	p.rest()
	return rate
}

// Batch is what one read of a connection gave, in trains. It is used again when Take has returned.
type Batch struct {
	From   forward.Endpoint
	Trains []Train
	// Run hands the batch to a worker. It is the same function each time, so that a queue of functions takes it without an
	// allocation.
	Run  func(*forward.Worker)
	Done chan struct{} // capacity 1: Run has ended
}

func (s *Set) newBatch(from forward.Endpoint) *Batch {
	b := &Batch{From: from, Done: make(chan struct{}, 1)}
	b.Run = func(w *forward.Worker) {
		now := s.c.Now()
		for _, t := range b.Trains {
			w.Receive(now, b.From, t.B, t.Seg, 0)
		}
		w.Flush()
		b.Done <- struct{}{}
	}
	return b
}

// read is the reader. A stranger has a small buffer and may say strangerBytes; then it waits to be known.
func (c *Conn) read() error {
	buf := make([]byte, inSmall)
	batch := c.set.newBatch(c.slot.endpoint())
	have, strange := 0, 0
	for {
		if c.proven.Load() && len(buf) < c.set.inSize() {
			bigger := make([]byte, c.set.inSize())
			copy(bigger, buf[:have])
			buf = bigger
		}
		room := buf[have:]
		if !c.proven.Load() {
			if room = room[:min(len(room), strangerBytes-strange)]; len(room) == 0 {
				if err := c.wait(); err != nil {
					return err
				}
				continue
			}
		}
		n, err := c.net.Read(room)
		have += n
		if !c.proven.Load() {
			strange += n
		}
		if n > 0 {
			took, err := c.deliver(batch, buf[:have])
			if err != nil {
				return err
			}
			have = copy(buf, buf[took:have])
		}
		if err != nil {
			return err
		}
	}
}

// wait waits until somebody has proved a key on the connection, or its time is over.
func (c *Conn) wait() error {
	timer := time.NewTimer(c.set.c.Patience)
	defer timer.Stop()
	select {
	case <-c.known:
		return nil
	case <-timer.C:
		return os.ErrDeadlineExceeded
	case <-c.ended:
		return net.ErrClosed
	}
}

// deliver hands on the whole frames of b and returns how many bytes they were.
func (c *Conn) deliver(batch *Batch, b []byte) (int, error) {
	var n int
	var bad error
	batch.Trains, n, bad = Trains(batch.Trains[:0], b)
	if len(batch.Trains) > 0 {
		c.used.Store(int64(c.set.c.Now()))
		if err := c.set.c.Take(batch); err != nil {
			return 0, err
		}
	}
	if bad != nil && !c.proven.Load() && c.set.c.Strange != nil {
		c.set.c.Strange(c.net, b[n:])
	}
	return n, bad
}

// ordinary tells the ends of a connection that are nobody's fault.
func ordinary(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
