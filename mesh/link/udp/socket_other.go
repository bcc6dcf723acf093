//go:build !linux

package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"skywire/mesh/forward"
)

// queueLen bounds what a reader has read and nobody took; then it stops reading and the kernel drops.
const queueLen = 256

// datagramRoom is the longest datagram that is taken here.
const datagramRoom = 2048

// Socket is a UDP socket on a net.UDPConn, read by a goroutine of its own that Close ends.
type Socket struct {
	conn  *net.UDPConn
	addr  netip.AddrPort
	asked int
	queue chan datagram
	free  chan []byte
	done  sync.WaitGroup

	mu    sync.Mutex // guards ready
	ready func()     // tells a poller that the queue has something
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

// Listen makes a socket and starts its reader.
func Listen(c Config) (*Socket, error) {
	c = c.withDefaults()
	network := "udp"
	if a := c.Addr.Addr(); !a.IsUnspecified() || a.Is4() {
		network = map[bool]string{true: "udp4", false: "udp6"}[a.Is4()]
	}
	host := c.Addr.Addr().String()
	if network == "udp" {
		host = ""
	}
	pc, err := (&net.ListenConfig{}).ListenPacket(context.Background(), network, net.JoinHostPort(host, fmt.Sprint(c.Addr.Port())))
	if err != nil {
		return nil, fmt.Errorf("listen udp %s: %w", c.Addr, err)
	}
	conn, ok := pc.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen udp %s: %w", c.Addr, errors.ErrUnsupported), pc.Close())
	}
	_ = conn.SetReadBuffer(c.Buffer)
	_ = conn.SetWriteBuffer(c.Buffer)
	s := &Socket{conn: conn, asked: c.Buffer, queue: make(chan datagram, queueLen), free: make(chan []byte, queueLen+2)}
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		s.addr = a.AddrPort()
	}
	for range queueLen + 2 {
		s.free <- make([]byte, datagramRoom)
	}
	s.done.Go(s.read)
	return s, nil
}

func (s *Socket) read() {
	for {
		b := <-s.free
		n, from, err := s.conn.ReadFromUDPAddrPort(b[:datagramRoom])
		if errors.Is(err, net.ErrClosed) {
			close(s.queue)
			s.wake()
			return
		}
		if err != nil || n == 0 {
			s.free <- b
			continue
		}
		// The queue holds fewer than there are buffers in flight only when Receive lags; then this waits and the kernel drops.
		s.queue <- datagram{b: b[:n], from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
		s.wake()
	}
}

func (s *Socket) wake() {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	if ready != nil {
		ready()
	}
}

func (s *Socket) setReady(f func()) {
	s.mu.Lock()
	s.ready = f
	s.mu.Unlock()
}

// pending says whether Receive would return something.
func (s *Socket) pending() bool { return len(s.queue) > 0 }

// FD returns -1: there is no descriptor to poll here.
func (s *Socket) FD() int { return -1 }

// Addr returns the address that the socket listens on.
func (s *Socket) Addr() netip.AddrPort { return s.addr }

// Info returns what is known: the kernel's buffer sizes are not.
func (s *Socket) Info() Info {
	return Info{Addr: s.addr, DualStack: s.addr.Addr().Is6(), AskedBuffer: s.asked}
}

// Receive takes one datagram that the reader has read; syscall.EAGAIN: there is none.
func (s *Socket) Receive(b []byte) (forward.Arrival, error) {
	select {
	case d, ok := <-s.queue:
		if !ok {
			return forward.Arrival{}, os.ErrClosed
		}
		n := copy(b, d.b)
		cut := n < len(d.b)
		s.free <- d.b[:cap(d.b)]
		if cut {
			return forward.Arrival{}, ErrTruncated
		}
		return forward.Arrival{N: n, Seg: n, From: d.from}, nil
	default:
		return forward.Arrival{}, syscall.EAGAIN
	}
}

// Send sends train one datagram of seg bytes a call, the last maybe shorter, waiting up to 2 ms for room. The ECN field
// is not set here.
func (s *Socket) Send(to netip.AddrPort, train []byte, seg int, _ uint8) error {
	if seg <= 0 || seg > len(train) {
		seg = len(train)
	}
	if !to.IsValid() {
		return ErrAddress
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(sendWait))
	for len(train) > 0 {
		part := train[:min(seg, len(train))]
		_, err := s.conn.WriteToUDPAddrPort(part, to)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return syscall.EAGAIN
		case tooLong(err):
			return syscall.EMSGSIZE
		default:
			return err
		}
		train = train[len(part):]
	}
	return nil
}

// tooLong knows the system's own number for a datagram that does not fit; Windows has 10040.
func tooLong(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && (errno == syscall.EMSGSIZE || errno == 10040)
}

// MakeRoom does nothing: the send buffer is what the system gives.
func (s *Socket) MakeRoom(time.Duration) {}

// Close ends the socket and its reader.
func (s *Socket) Close() error {
	err := s.conn.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	for d := range s.queue { // the reader may wait for room
		s.free <- d.b[:cap(d.b)]
	}
	s.done.Wait()
	return err
}

// Zone is the zone of link-local addresses on an interface, as Receive tells it.
func Zone(_ int, name string) string { return name }
