package forward

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"skywire/mesh/session"
)

const (
	// backlogBytes bounds what waits for one socket: 8 ms at 1 Gbit/s, and a relay's burst at less. Half of it is for what
	// the TUNs give.
	backlogBytes = 1 << 20
	// backlogBytesSmall is the same on machines with smallMemory.
	backlogBytesSmall = 256 << 10
	// backlogTrains bounds the trains that this may be.
	backlogTrains = 512
	// backlogAge is how long a train may wait at all: what CoDel can't talk to (floods, below 1 Mbit/s) must not hold up
	// the rest, and nobody misses what is a second late.
	backlogAge = time.Second
	// drainBytes is the most that one event of a writable socket sends. Such a socket is at most half full; the rest of its room is
	// left to control and streams, which send beside the loop.
	drainBytes = maxTrain

	// rateWindow is how long the line's rate is measured at a time, while something waits and the socket is never empty.
	rateWindow = 50 * time.Millisecond
	// drainTime is what one event sends of the line's time, and half of what a socket's buffer may hold of it.
	drainTime = 10 * time.Millisecond
	// minSendBuffer leaves room for a few datagrams.
	minSendBuffer = 8 << 10
)

// trying is a socket that can send without waiting: n bytes of the train went, in whole datagrams. syscall.EAGAIN: the
// socket took no more.
type trying interface {
	TrySend(to netip.AddrPort, train []byte, seg int, ecn uint8) (n int, err error)
	// LimitSend bounds its buffer, which is no larger than it was at first.
	LimitSend(n int)
}

// backlog holds the trains of one loop that full sockets did not take, for each socket in the order in which they were
// sealed. It is the queue of the node: a socket's own buffer is the device's business, and a TUN's drops what it can't hold.
// What waits too long is dropped or marked from the front by the law of CoDel, frame by frame.
type backlog struct {
	w      *Worker
	watch  func(socket int) // the queue of a socket became empty, or is no more
	queues []*queue         // by socket; nil where the loop does not poll the socket, or it can't try
}

// queue is the trains for one socket, in a ring of bytes: each lies in one piece.
type queue struct {
	out    trying
	ring   []byte // made when the socket is full for the first time
	size   int    // of ring
	trains []waiting
	head   int // index of the oldest
	n      int
	bytes  int
	codel  codel
	line   line
}

// line is how fast the socket empties, measured while something waits for it: bytes a second, 0 before it is known.
type line struct {
	rate  int
	limit int           // of the socket's buffer, as set last
	since time.Duration // when the window under way began; 0: with the next event
	bytes int           // sent in it
}

// waiting is a train, or what is left of it.
type waiting struct {
	at     time.Duration
	link   *Link
	to     netip.AddrPort
	off, n int // where in the ring
	seg    int
	ecn    uint8 // of all its frames
	judged bool  // CoDel has seen it
}

// newBacklog makes a backlog for those of a loop's own sockets that can send without waiting.
func newBacklog(w *Worker, all []Socket, own []int, memory uint64, watch func(int)) *backlog {
	size := backlogBytes
	if memory < smallMemory {
		size = backlogBytesSmall
	}
	b := &backlog{w: w, watch: watch, queues: make([]*queue, len(all))}
	for _, i := range own {
		if out, ok := all[i].(trying); ok {
			b.queues[i] = &queue{out: out, size: size}
		}
	}
	return b
}

// send sends a train, or has it wait where others wait already or the socket is full. Only what was sent is counted as such.
func (w *Worker) send(l *Link, to Endpoint, train []byte, seg int, ecn uint8) error {
	var q *queue
	if w.backlog != nil && int(to.Socket) < len(w.backlog.queues) {
		q = w.backlog.queues[to.Socket]
	}
	if q == nil {
		err := w.out.Send(to, train, seg, ecn)
		w.sent(l, len(train), seg, err)
		return err
	}
	if q.n > 0 {
		w.backlog.push(q, waiting{at: w.now, link: l, to: to.Addr, n: len(train), seg: seg, ecn: ecn}, train)
		return nil
	}
	n, err := q.out.TrySend(to.Addr, train, seg, ecn)
	q.line.bytes += n
	if err == nil {
		w.sent(l, n, seg, nil)
		return nil
	}
	w.sentPart(l, n, seg)
	train = train[n:]
	if !errors.Is(err, syscall.EAGAIN) {
		w.sent(l, len(train), seg, err)
		return err
	}
	w.backlog.push(q, waiting{at: w.now, link: l, to: to.Addr, n: len(train), seg: seg, ecn: ecn}, train)
	w.backlog.watch(int(to.Socket))
	return nil
}

func (w *Worker) sentPart(l *Link, n, seg int) {
	if n > 0 {
		w.sent(l, n, seg, nil)
	}
}

// push puts a train behind the others. Where there is no room, the oldest ones make it: what waited longest is worth least.
func (b *backlog) push(q *queue, t waiting, train []byte) {
	if q.ring == nil {
		q.ring, q.trains = make([]byte, q.size), make([]waiting, backlogTrains)
	}
	for {
		off, ok := q.room(t.n)
		if ok {
			t.off = off
			break
		}
		b.w.plane.drop(DropBacklog, segments(q.front().n, q.front().seg))
		q.pop()
	}
	copy(q.ring[t.off:], train)
	q.trains[(q.head+q.n)%len(q.trains)] = t
	q.n++
	q.bytes += t.n
}

// room finds a place for n bytes behind the youngest train, or at the beginning of the ring.
func (q *queue) room(n int) (off int, ok bool) {
	if q.n == 0 {
		return 0, true
	}
	if q.n == len(q.trains) {
		return 0, false
	}
	last := q.trains[(q.head+q.n-1)%len(q.trains)]
	first, end := q.front().off, last.off+last.n
	switch {
	case end <= first:
		return end, end+n <= first
	case end+n <= len(q.ring):
		return end, true
	}
	return 0, n <= first
}

func (q *queue) front() *waiting { return &q.trains[q.head] }

func (q *queue) pop() {
	q.bytes -= q.front().n
	*q.front() = waiting{}
	q.head = (q.head + 1) % len(q.trains)
	q.n--
}

// full reports whether the TUNs must wait: their half of a queue is taken. It stays so until half of that is free.
func (b *backlog) full(was bool) bool {
	if b == nil {
		return false
	}
	for _, q := range b.queues {
		if q == nil {
			continue
		}
		bytes, trains := q.size/2, backlogTrains/2
		if was {
			bytes, trains = bytes/2, trains/2
		}
		if q.bytes > bytes || q.n > trains {
			return true
		}
	}
	return false
}

// waits reports whether trains wait for a socket.
func (b *backlog) waits(socket int) bool {
	return b != nil && socket < len(b.queues) && b.queues[socket] != nil && b.queues[socket].n > 0
}

// drain sends what a writable socket takes, not more than drainBytes.
func (b *backlog) drain(now time.Duration, socket int) {
	if !b.waits(socket) {
		return
	}
	b.w.now = now
	q := b.queues[socket]
	q.line.measure(now, q.out)
	sent := 0
	for room := q.line.quantum(); q.n > 0 && room > 0; {
		t := q.front()
		if !t.judged {
			b.judge(now, q, t)
		}
		if t.n == 0 {
			q.pop()
			continue
		}
		part := min(t.n, max(1, room/t.seg)*t.seg)
		n, err := q.out.TrySend(t.to, q.ring[t.off:t.off+part], min(t.seg, part), t.ecn)
		b.w.sentPart(t.link, n, t.seg)
		room -= n
		sent += n
		q.cut(t, n)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			q.line.bytes += sent
			return
		case err != nil:
			b.w.sent(t.link, t.n, min(t.seg, t.n), err)
			q.pop()
		case t.n == 0:
			q.pop()
		}
	}
	q.line.bytes += sent
	if q.n == 0 {
		q.codel.rest()
		if sent > 0 { // else all was too old, and the line is slow enough to go on measuring
			q.line.since = 0
		}
		b.watch(socket)
	}
}

// measure begins a window, or ends one that is long enough: a faster line is believed at once, a slower one by and by. The
// socket's buffer follows.
func (l *line) measure(now time.Duration, out trying) {
	took := now - l.since
	if l.since != 0 && took < rateWindow {
		return
	}
	if l.since != 0 {
		rate := int(float64(l.bytes) / took.Seconds())
		if l.rate > rate {
			rate = l.rate - (l.rate-rate)/4
		}
		l.rate = rate
		want := max(minSendBuffer, int(float64(rate)*2*drainTime.Seconds()))
		if want > l.limit+l.limit/4 || want < l.limit-l.limit/4 {
			l.limit = want
			out.LimitSend(want)
		}
	}
	l.since, l.bytes = now, 0
}

// quantum is what one event sends.
func (l *line) quantum() int {
	if l.rate == 0 {
		return drainBytes
	}
	return min(drainBytes, int(float64(l.rate)*drainTime.Seconds()))
}

// cut takes n bytes off the front of a train.
func (q *queue) cut(t *waiting, n int) {
	t.off += n
	t.n -= n
	q.bytes -= n
}

// judge asks CoDel what becomes of the train that is to be sent next: frames that can carry the mark of congestion get it, of
// others the first ones are dropped. All frames of a train came at once, so the time it waited is theirs.
func (b *backlog) judge(now time.Duration, q *queue, t *waiting) {
	t.judged = true
	sojourn := now - t.at
	key := t.link.outKey()
	switch {
	case key == nil:
		b.w.plane.drop(DropLinkDown, segments(t.n, t.seg))
		q.cut(t, t.n)
		return
	case sojourn > backlogAge:
		b.w.plane.drop(DropBacklog, segments(t.n, t.seg))
		q.cut(t, t.n)
		return
	}
	for at := 0; at < t.n && q.codel.due(now, sojourn, q.n > 1); {
		f := q.ring[t.off+at : t.off+min(at+t.seg, t.n)]
		if t.ecn == 0 {
			b.w.plane.drop(DropBacklog, 1)
			q.cut(t, len(f))
			continue
		}
		f[3] |= ecnCE
		binary.BigEndian.PutUint64(f[16:], key.Tag(f[:16], len(f)))
		b.w.plane.total.marked.Add(1)
		at += len(f)
	}
}

// outKey is the key that tags frames sent on the link, nil while it is down.
func (l *Link) outKey() *session.HopKey {
	w, ok := l.way(0)
	if !ok {
		return nil
	}
	return w.key
}
