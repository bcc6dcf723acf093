package publish

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a relay of packets.
const (
	// relayIdle ends what has carried nothing for so long: RFC 4787 5 asks for two minutes at least.
	relayIdle = 3 * time.Minute
	// maxRelayed bounds the programs that a socket serves at once; one more has the packets of its first moments dropped.
	maxRelayed = 1024
	// relayQueue is how many packets of a program wait while its connection is opened.
	relayQueue = 32
	// relayDirect is the longest packet that who reads the socket writes itself: longer ones may have to wait for the node.
	relayDirect = 4 << 10
	// relayPause keeps errors that don't end from being a load.
	relayPause = time.Millisecond
	// relayAgain is how long a program for which there was no connection is not listened to.
	relayAgain = time.Second
	// relayBuffer takes any packet of UDP.
	relayBuffer = 64 << 10
)

// dialPackets opens the connection of a program; done, if not nil, is called when it has ended.
type dialPackets func(ctx context.Context, from net.Addr) (conn net.Conn, done func(), err error)

// udpRelay gives every program that sends to a socket a connection of packets of its own, and its answers back.
type udpRelay struct {
	socket         net.PacketConn
	dial           dialPackets
	sent, received atomic.Uint64 // bytes towards the connections, and back
	dropped        atomic.Uint64 // packets

	mu  sync.Mutex // guards the fields below
	per map[netip.AddrPort]*relayed
}

// relayed is one program. Its goroutine owns the connection; writes of a packet never wait, so who reads the socket makes
// them itself once there is one.
type relayed struct {
	from  net.Addr
	queue chan []byte // relayQueue; full: dropped
	conn  atomic.Pointer[net.Conn]
	last  atomic.Int64 // unix ns of the last packet, either way
	end   context.CancelFunc
}

func newUDPRelay(socket net.PacketConn, dial dialPackets) *udpRelay {
	return &udpRelay{socket: socket, dial: dial, per: map[netip.AddrPort]*relayed{}}
}

func (r *udpRelay) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.per)
}

// run serves until the socket is closed or ctx ends.
func (r *udpRelay) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	buf := make([]byte, relayBuffer)
	for {
		n, from, err := r.socket.ReadFrom(buf)
		if err != nil {
			if ctx.Err() != nil || isClosed(err) {
				return
			}
			pause(ctx, relayPause) // ICMP's word about one program is no reason to leave the others
			continue
		}
		u, ok := from.(*net.UDPAddr)
		if !ok {
			continue
		}
		c := r.of(ctx, u, &wg)
		if c == nil {
			r.dropped.Add(1)
			continue
		}
		if conn := c.conn.Load(); conn != nil && n <= relayDirect {
			r.write(c, *conn, buf[:n])
			continue
		}
		select {
		case c.queue <- append([]byte(nil), buf[:n]...):
		default:
			r.dropped.Add(1)
		}
	}
}

// write sends a packet of a program; an error of the connection itself shows where it is read.
func (r *udpRelay) write(c *relayed, conn net.Conn, b []byte) {
	c.last.Store(time.Now().UnixNano())
	if _, err := conn.Write(b); err != nil {
		r.dropped.Add(1)
		return
	}
	r.sent.Add(uint64(len(b)))
}

// of finds the program's entry, or makes one; nil: there are too many.
func (r *udpRelay) of(ctx context.Context, from *net.UDPAddr, wg *sync.WaitGroup) *relayed {
	at := from.AddrPort()
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.per[at]; c != nil {
		return c
	}
	if len(r.per) >= maxRelayed {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &relayed{from: from, queue: make(chan []byte, relayQueue), end: cancel}
	r.per[at] = c
	wg.Go(func() {
		defer cancel()
		r.serve(ctx, c)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.per, at)
	})
	return c
}

// serve carries one program's packets until it has been quiet for relayIdle or its connection ends.
func (r *udpRelay) serve(ctx context.Context, c *relayed) {
	conn, done, err := r.dial(ctx, c.from)
	if err != nil {
		pause(ctx, relayAgain)
		return
	}
	if done != nil {
		defer done()
	}
	c.last.Store(time.Now().UnixNano())
	var back sync.WaitGroup
	defer back.Wait()
	defer conn.Close()
	back.Go(func() {
		defer c.end()
		r.answer(c, conn)
	})
	t := time.NewTicker(relayIdle / 4)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if time.Since(time.Unix(0, c.last.Load())) > relayIdle {
				return
			}
		case b := <-c.queue:
			r.write(c, conn, b)
			if len(c.queue) == 0 {
				c.conn.Store(&conn)
			}
		}
	}
}

// answer sends back what the connection says.
func (r *udpRelay) answer(c *relayed, conn net.Conn) {
	buf := make([]byte, relayBuffer)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			if isUnreachable(err) {
				continue
			}
			return
		}
		c.last.Store(time.Now().UnixNano())
		if _, err := r.socket.WriteTo(buf[:n], c.from); err == nil {
			r.received.Add(uint64(n))
		}
	}
}
