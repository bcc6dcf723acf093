package forward

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"skywire/mesh/wire"
)

const (
	// maxDatagram is what UDP over IPv4 carries.
	maxDatagram = 65507
	// maxSegments is what one UDP_SEGMENT or UDP_GRO train holds on every kernel that has them.
	maxSegments = 64
	// maxTrain keeps a train and its headers below maxDatagram.
	maxTrain = 65000
	// hintsPerSecond bounds Upcalls.NoLabel of one worker.
	hintsPerSecond = 10
)

// Worker is the scratch of one goroutine: the train being built, the TUN it delivers to. Its methods are for that
// goroutine alone; several workers of one plane run beside each other.
type Worker struct {
	plane *Plane
	out   Output
	index int
	now   time.Duration // of the call under way
	ecn   uint8         // of the outer headers of the train under way
	tun   TUN
	held  bool // the TUN has packets since the last Flush
	full  bool // a send met a full socket since takeFull

	backlog *backlog // of a loop's worker; nil: what a full socket does not take is dropped

	trains [maxTrains]train
	train  *train // of them, the one that was added to last
	turn   int    // whose turn it is to make room for another endpoint
	tally  tally
	span   span
	piece  []byte // a packet that was put together from pieces
	twice  []byte // a packet that travels twice, behind its number
	open   openScratch
	nonce  [12]byte

	hintSecond time.Duration
	hints      int

	lastRoutes  *routes
	lastAddr    netip.Addr
	lastSession *Session
}

// TUN is a queue of a TUN device, as tun.Device implements it.
type TUN interface {
	FD() int
	// Receive reads one packet or super-packet and returns how many packets it holds; syscall.EAGAIN when there is none.
	Receive() (packets int, err error)
	// Packet copies the next of them into b; checksum: its transport checksum is not filled in; ok false: no more.
	Packet(b []byte) (n int, checksum bool, ok bool)
	// Send writes a packet, or holds a copy of it back until Flush for coalescing; p is not kept. An error of Send or Flush
	// stands for one packet that was dropped, held back or not, or for as many as its method Lost says.
	Send(p []byte, checksum bool) error
	Flush() error
	Close() error
}

// NewWorker returns a worker that sends through out. Workers are numbered as they are made; the number picks the lane.
// Control and streams have workers of their own, so that they need not enter the loops.
func (p *Plane) NewWorker(out Output) *Worker {
	return p.newWorker(out, maxDatagram+maxHeadroom, int(p.workers.Add(1)-1))
}

// newWorker sizes the train buffer, which bounds the longest frame too.
func (p *Plane) newWorker(out Output, size, index int) *Worker {
	w := &Worker{plane: p, out: out, index: index}
	w.train = &w.trains[0]
	w.train.buf = make([]byte, size) // the others when they are needed
	return w
}

// SetTUN says where opened packets go; nil: they are dropped and counted.
func (w *Worker) SetTUN(t TUN) { w.tun, w.held = t, false }

// Receive takes a train of datagrams, each seg bytes long, the last maybe shorter, with the ECN field of their outer
// headers. b is changed in place, and not kept: relayed frames have been sent when it returns, or copied to trains that
// Flush sends.
func (w *Worker) Receive(now time.Duration, from Endpoint, b []byte, seg int, ecn uint8) {
	w.now, w.ecn = now, ecn&ecnMask
	w.plane.Advance(now)
	if seg <= 0 {
		seg = len(b)
	}
	for len(b) > 0 {
		b = b[w.receiveRun(now, from, b, seg):]
	}
	w.sendSpan()
}

// receiveRun takes the segments at the head of b that share a type class and a label, and returns their length.
func (w *Worker) receiveRun(now time.Duration, from Endpoint, b []byte, seg int) int {
	first := b[:min(seg, len(b))]
	if !labelled(first[0]) {
		w.receiveOther(now, from, first)
		return len(first)
	}
	if len(first) < wire.SealedOverhead {
		w.plane.drop(DropShort, 1)
		return len(first)
	}
	label := binary.BigEndian.Uint32(first[4:])
	run := len(first)
	for n := 1; n < maxSegments && run < len(b); n++ {
		next := b[run:min(run+seg, len(b))]
		if len(next) < wire.SealedOverhead || !labelled(next[0]) || binary.BigEndian.Uint32(next[4:]) != label {
			break
		}
		run += len(next)
	}
	e := w.plane.entry(label)
	switch {
	case e == nil:
		w.plane.drop(DropNoLabel, segments(run, seg))
		w.hint(now, from, first)
	case e.relay != nil:
		w.relay(now, from, e, b[:run], seg)
	default:
		w.end(now, from, e, b[:run], seg)
	}
	return run
}

// labelled says whether frames of this type have a label of the table.
func labelled(t byte) bool { return t == wire.TypeSealed || t == wire.TypePresealed }

func segments(n, seg int) int { return (n + seg - 1) / seg }

// receiveOther hands control what is its own: handshakes, cookies, questions, hints and LINK frames.
func (w *Worker) receiveOther(now time.Duration, from Endpoint, b []byte) {
	if t := b[0]; t >= wire.TypeInit && t <= wire.TypeHint || t == wire.TypeLink {
		w.plane.up.Datagram(now, from, b)
		return
	}
	w.plane.drop(DropType, 1)
}

// hint tells control of a frame that can't be placed, at most 10 times a second.
func (w *Worker) hint(now time.Duration, from Endpoint, frame []byte) {
	if now-w.hintSecond >= time.Second || now < w.hintSecond {
		w.hintSecond, w.hints = now, 0
	}
	if w.hints < hintsPerSecond {
		w.hints++
		w.plane.up.NoLabel(now, from, frame[:16])
	}
}

// Flush sends what Originate and Receive left in the trains and has the TUN write what it held back. Call it at the end of
// each batch.
func (w *Worker) Flush() {
	_ = w.sendTrains()
	w.settle()
	w.flushTUN()
}

func (w *Worker) flushTUN() {
	if !w.held {
		return
	}
	w.held = false
	if err := w.tun.Flush(); err != nil {
		w.plane.drop(DropTUN, lostPackets(err))
	}
}

// lostPackets is how many packets an error of a TUN stands for.
func lostPackets(err error) int {
	if several, ok := err.(interface{ Lost() int }); ok {
		return several.Lost()
	}
	return 1
}

// takeFull reports whether a send met a full socket since the last call.
func (w *Worker) takeFull() bool {
	full := w.full
	w.full = false
	return full
}

// sent counts a train that went, or did not go, to l.
func (w *Worker) sent(l *Link, n, seg int, err error) {
	count := segments(n, seg)
	switch {
	case err == nil:
		l.sentN.Add(uint64(count))
		l.sentB.Add(uint64(n))
		l.lastSent.Store(int64(w.now))
	case errors.Is(err, syscall.EMSGSIZE):
		w.plane.drop(DropTooBig, count)
		w.plane.up.TooBig(w.now, nil, l, 0, seg, 0)
		l.shrink(seg)
	case errors.Is(err, syscall.EAGAIN):
		w.full = true
		w.plane.drop(DropSocketFull, count)
	default:
		w.plane.drop(DropSend, count)
	}
}

// sureMTU and leastMTU are what nearly every network carries, and what every one does that a link may use.
const (
	sureMTU  = 1232
	leastMTU = 548
)

// shrink has the next frames fit a network that refused one of size bytes. Control, which is told, finds out what passes.
func (l *Link) shrink(size int) {
	fits := int32(sureMTU)
	if size <= sureMTU {
		fits = leastMTU
	}
	for old := l.mtuOut.Load(); old > fits && int(old) >= size && !l.mtuOut.CompareAndSwap(old, fits); {
		old = l.mtuOut.Load()
	}
}
