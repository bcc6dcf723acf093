package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// roundBytes bounds what one descriptor may take before the others have their turn: four full trains.
	roundBytes = 200_000
	// roundReads bounds the same in system calls, for datagrams and packets that come one by one.
	roundReads = 64
	// trainBuffer is what a socket with UDP_GRO may give at once; a smaller buffer loses the rest of the train silently.
	trainBuffer = 65536
	// smallMemory is a machine that gets short trains and small packets: routers with 64 or 128 MB.
	smallMemory = 192 << 20
	// postQueue bounds the calls that wait for a loop.
	postQueue = 64
	// tunIDs is where the poller ids of TUN queues start; below are sockets.
	tunIDs = 1 << 16
)

// Socket is a UDP socket, or what looks like one, as mesh/link/udp makes it. Send may be called from any goroutine,
// Receive from one.
type Socket interface {
	FD() int
	// Receive reads one train into b. syscall.EAGAIN: there is none.
	Receive(b []byte) (Arrival, error)
	// Send sends a train with that ECN field in its outer headers; its errors are those of Output.
	Send(to netip.AddrPort, train []byte, seg int, ecn uint8) error
}

// Arrival is a received train: N bytes in datagrams of Seg bytes, the last maybe shorter.
type Arrival struct {
	N, Seg int
	From   netip.AddrPort
	ECN    uint8 // of the outer headers of all its datagrams; 0 where the system does not tell
}

// Source is what a Poller watches.
type Source interface{ FD() int }

// Poller waits for descriptors. Only Wake may be called from another goroutine than the loop's.
type Poller interface {
	// Add watches s for reading; id comes back with its events.
	Add(id int, s Source) error
	// Interest changes what s is watched for.
	Interest(id int, s Source, read, write bool) error
	// Remove must come before s is closed: an epoll registration lives as long as any copy of the descriptor.
	Remove(s Source) error
	// Wait blocks until something is ready or Wake was called, and returns the number of events.
	Wait() (int, error)
	Event(i int) (id int, read, write, broken bool)
	Wake()
	Close() error
}

// LoopConfig is what a loop works with.
type LoopConfig struct {
	Plane   *Plane
	Poller  Poller   // closed by Run
	Number  int      // which of the plane's loops this is, from 0
	Sockets []Socket // Endpoint.Socket is the index here
	Own     []int    // which of them this loop receives from; nil: all
	Output  Output   // nil: Sockets
	Streams Output   // without Output: takes what goes to stream connections; nil: nothing goes there
	Now     func() time.Duration
	Memory  uint64 // of the machine, in bytes; 0: plenty
	// Detached is called from the loop when a TUN broke and was removed; it may be nil. The loop closes no TUN.
	Detached func(t TUN, err error)
	Log      *slog.Logger
}

// Loop is one event loop: it waits on its sockets and TUN queues and runs each train to completion.
type Loop struct {
	c      LoopConfig
	worker *Worker
	train  []byte // what a socket gave
	packet []byte // what a TUN gave
	tuns   []tunQueue
	nextID int
	paused bool // TUNs are not read until a socket takes more
	stuck  bool // by a socket that has no backlog
	count  loopCounters

	mu     sync.Mutex // guards the fields below; never held while calling out
	state  loopState
	posted []func(*Worker)
	spare  []func(*Worker)
}

type loopState uint8

const (
	loopNew loopState = iota
	loopRunning
	loopEnded
)

type tunQueue struct {
	id    int
	tun   TUN
	write bool // it is another loop's to read
}

// loopCounters are added to once a descriptor and round.
type loopCounters struct {
	socketTrains, socketBytes atomic.Uint64
	tunReads, tunBytes        atomic.Uint64
}

// LoopStats is what a loop took in so far.
type LoopStats struct {
	SocketTrains, SocketBytes uint64 // datagrams that came one by one are trains of one
	TUNReads, TUNBytes        uint64
}

// Stats returns the counts so far. Any goroutine may call it.
func (l *Loop) Stats() LoopStats {
	c := &l.count
	return LoopStats{
		SocketTrains: c.socketTrains.Load(), SocketBytes: c.socketBytes.Load(),
		TUNReads: c.tunReads.Load(), TUNBytes: c.tunBytes.Load(),
	}
}

// NewLoop makes a loop with its worker and buffers; nothing runs before Run.
func NewLoop(c LoopConfig) (*Loop, error) {
	if c.Plane == nil || c.Poller == nil || c.Now == nil {
		return nil, errors.New("forward: loop needs a plane, a poller and a clock")
	}
	if len(c.Sockets) > 256 {
		return nil, errors.New("forward: more than 256 sockets")
	}
	direct := c.Output == nil // so that Endpoint.Socket names what is polled here
	if direct {
		c.Output = sockets{c.Sockets, c.Streams}
	}
	if c.Own == nil {
		for i := range c.Sockets {
			c.Own = append(c.Own, i)
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	packet, build := trainBuffer, maxDatagram
	if c.Memory != 0 && c.Memory < smallMemory {
		packet, build = maxPacket+2048, 16<<10
	}
	l := &Loop{c: c, nextID: tunIDs, train: make([]byte, trainBuffer), packet: make([]byte, packet)}
	l.worker = c.Plane.newWorker(c.Output, build, c.Number)
	if direct {
		l.worker.backlog = newBacklog(l.worker, c.Sockets, c.Own, c.Memory, l.watchSocket)
	}
	for _, i := range c.Own {
		if err := c.Poller.Add(i, c.Sockets[i]); err != nil {
			return nil, fmt.Errorf("watch socket %d: %w", i, err)
		}
	}
	return l, nil
}

// sockets is the Output that sends through them.
type sockets struct {
	udp     []Socket
	streams Output
}

func (s sockets) Send(to Endpoint, train []byte, seg int, ecn uint8) error {
	switch {
	case to.Socket >= FirstTCP && s.streams != nil:
		return s.streams.Send(to, train, seg, ecn)
	case int(to.Socket) >= len(s.udp):
		return syscall.EBADF
	}
	return s.udp[to.Socket].Send(to.Addr, train, seg, ecn)
}

// Run works until ctx ends. It must be called once.
func (l *Loop) Run(ctx context.Context) error {
	l.mu.Lock()
	if l.state != loopNew {
		l.mu.Unlock()
		return ErrClosed
	}
	l.state = loopRunning
	l.mu.Unlock()
	stop := context.AfterFunc(ctx, l.c.Poller.Wake)
	defer stop()
	defer l.end()
	for {
		n, err := l.c.Poller.Wait()
		if err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		l.runPosted()
		if ctx.Err() != nil {
			return nil
		}
		now := l.c.Now()
		for i := range n {
			l.event(now, i)
		}
		// Without this a saturated loop on one processor starves every timer and the collector.
		runtime.Gosched()
	}
}

func (l *Loop) end() {
	l.worker.Flush()
	l.mu.Lock()
	l.state = loopEnded
	l.mu.Unlock()
	l.runPosted()
	for _, q := range l.tuns {
		if !q.write {
			_ = l.c.Poller.Remove(q.tun)
		}
	}
	if err := l.c.Poller.Close(); err != nil {
		l.c.Log.Warn("poller does not close", "err", err)
	}
}

func (l *Loop) event(now time.Duration, i int) {
	id, read, write, broken := l.c.Poller.Event(i)
	if write && id < tunIDs {
		l.resume(now, id)
	}
	if id < tunIDs {
		if read || broken {
			l.receiveSocket(now, id)
		}
		return
	}
	for _, q := range l.tuns {
		if q.id == id {
			l.receiveTUN(now, q, broken)
			return
		}
	}
}

// receiveSocket takes a few trains of a socket, or some more single datagrams.
func (l *Loop) receiveSocket(now time.Duration, id int) {
	reads, taken := 0, 0
	for ; reads < roundReads && taken < roundBytes; reads++ {
		a, err := l.c.Sockets[id].Receive(l.train)
		if err != nil {
			if !errors.Is(err, syscall.EAGAIN) {
				l.socketFailed(id, err)
			}
			break
		}
		if a.N > 0 {
			l.worker.Receive(now, Endpoint{Addr: a.From, Socket: uint16(id)}, l.train[:a.N], a.Seg, a.ECN)
		}
		taken += a.N
	}
	l.worker.Flush()
	l.count.socketTrains.Add(uint64(reads))
	l.count.socketBytes.Add(uint64(taken))
	l.pauseIfFull()
}

func (l *Loop) socketFailed(id int, err error) {
	l.c.Plane.drop(DropReceive, 1)
	if errors.Is(err, syscall.EBADF) || errors.Is(err, os.ErrClosed) {
		l.c.Log.Warn("socket is gone", "socket", id, "err", err)
		_ = l.c.Poller.Remove(l.c.Sockets[id])
	}
}

// receiveTUN takes a few super-packets of a TUN queue, or some more single packets, which become trains together.
func (l *Loop) receiveTUN(now time.Duration, q tunQueue, broken bool) {
	reads, taken := 0, 0
	for ; reads < roundReads && taken < roundBytes && (broken || !l.worker.backlog.full(false)); reads++ {
		packets, err := q.tun.Receive()
		if err != nil {
			if errors.Is(err, syscall.EAGAIN) && !broken {
				break
			}
			l.worker.Flush()
			l.removeTUN(q.tun, err)
			return
		}
		if packets == 0 {
			l.c.Plane.drop(DropPacket, 1) // what was read is no packet
		}
		for {
			n, checksum, ok := q.tun.Packet(l.packet)
			if !ok {
				break
			}
			l.worker.Originate(now, l.packet[:n], checksum)
			taken += n
		}
	}
	l.worker.Flush()
	l.count.tunReads.Add(uint64(reads))
	l.count.tunBytes.Add(uint64(taken))
	l.pauseIfFull()
}

// removeTUN forgets a TUN that broke: its device was deleted.
func (l *Loop) removeTUN(t TUN, err error) {
	if !l.forgetTUN(t) {
		return
	}
	l.c.Log.Warn("tun is gone", "err", err)
	if l.c.Detached != nil {
		l.c.Detached(t, err)
	}
}

func (l *Loop) forgetTUN(t TUN) bool {
	i := slices.IndexFunc(l.tuns, func(q tunQueue) bool { return q.tun == t })
	if i < 0 {
		return false
	}
	if !l.tuns[i].write {
		_ = l.c.Poller.Remove(t)
	}
	l.tuns = slices.Delete(l.tuns, i, i+1)
	if l.worker.tun == t {
		l.worker.SetTUN(nil)
		if len(l.tuns) > 0 {
			l.worker.SetTUN(l.tuns[0].tun)
		}
	}
	if len(l.tuns) == 0 {
		l.unpause()
	}
	return true
}

// Attach gives the loop a TUN queue to read; the first one attached also takes what is opened. It returns when it is read.
func (l *Loop) Attach(t TUN) error { return l.attach(t, false) }

// AttachWriter gives the loop a TUN for what is opened that it does not read: where there are fewer queues than loops, it
// is over a duplicate of a descriptor that another loop reads.
func (l *Loop) AttachWriter(t TUN) error { return l.attach(t, true) }

func (l *Loop) attach(t TUN, write bool) error {
	var err error
	posted := l.call(func(w *Worker) {
		l.nextID++
		if !write {
			err = l.c.Poller.Add(l.nextID, t)
		}
		if err != nil {
			err = fmt.Errorf("watch tun: %w", err)
			return
		}
		l.tuns = append(l.tuns, tunQueue{id: l.nextID, tun: t, write: write})
		if w.tun == nil {
			w.SetTUN(t)
		}
		if l.paused {
			l.interest()
		}
	})
	if posted != nil {
		return posted
	}
	return err
}

// Detach takes a TUN queue away. When it returns, the loop does not touch it any more and it may be closed.
func (l *Loop) Detach(t TUN) error {
	err := l.call(func(w *Worker) {
		w.Flush()
		l.forgetTUN(t)
	})
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}

// call runs f in the loop and waits for its end; before Run it runs at once.
func (l *Loop) call(f func(*Worker)) error {
	l.mu.Lock()
	if l.state == loopNew {
		defer l.mu.Unlock()
		f(l.worker)
		return nil
	}
	l.mu.Unlock()
	done := make(chan struct{})
	if err := l.Post(func(w *Worker) { f(w); close(done) }); err != nil {
		return err
	}
	<-done
	return nil
}

// Post has the loop run f soon, with its worker, and does not wait. ErrBusy: 64 are waiting already.
func (l *Loop) Post(f func(*Worker)) error {
	l.mu.Lock()
	switch {
	case l.state == loopEnded:
		l.mu.Unlock()
		return ErrClosed
	case len(l.posted) >= postQueue:
		l.mu.Unlock()
		return ErrBusy
	}
	l.posted = append(l.posted, f)
	l.mu.Unlock()
	l.c.Poller.Wake()
	return nil
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	l.posted, l.spare = l.spare[:0], l.posted
	l.mu.Unlock()
	for i, f := range l.spare {
		f(l.worker)
		l.spare[i] = nil
	}
}
