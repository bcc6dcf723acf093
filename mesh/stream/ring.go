package stream

import (
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
)

// ringTrains bounds the trains in a ring; with ringSize it means 1 KiB a train on average before bytes are the limit.
const ringTrains = 1024

// ring holds received trains until quic-go fetches them. Many put, one gets. Full: the train is dropped and the caller
// counts it. Nothing is allocated after newRing; of the bytes, only as much is touched as waits at once.
type ring struct {
	wake chan struct{} // capacity 1: something has changed

	mu      sync.Mutex // guards the fields below
	buf     []byte
	trains  []train // circular: count of them from first
	first   int
	count   int
	head    int // where the next train's bytes go
	expired bool
	closed  bool
	timer   *time.Timer
}

// train is a run of packets, buf[at:end], of seg bytes each.
type train struct {
	from    *net.UDPAddr
	at, end int
	pos     int // first byte not fetched yet
	seg     int
}

func newRing(size int) *ring {
	return &ring{wake: make(chan struct{}, 1), buf: make([]byte, size), trains: make([]train, ringTrains)}
}

// put copies packets. It never blocks and reports false if there is no room.
func (r *ring) put(from *net.UDPAddr, packets []byte, seg int) bool {
	r.mu.Lock()
	at, ok := r.roomLocked(len(packets))
	if ok {
		copy(r.buf[at:], packets)
		r.trains[(r.first+r.count)%len(r.trains)] = train{from: from, at: at, pos: at, end: at + len(packets), seg: seg}
		r.head = at + len(packets)
		r.count++
	}
	r.mu.Unlock()
	if ok {
		r.signal()
	}
	return ok
}

// roomLocked finds n bytes in a row. Used bytes run from the first train to head, around the end of buf.
func (r *ring) roomLocked(n int) (at int, ok bool) {
	switch {
	case n == 0 || r.closed || r.count == len(r.trains):
		return 0, false
	case r.count == 0:
		return 0, n <= len(r.buf) // from the start: a quiet node touches few pages
	}
	tail := r.trains[r.first].at
	switch {
	case r.head <= tail:
		return r.head, r.head+n < tail // never equal: that would look empty
	case r.head+n <= len(r.buf):
		return r.head, true
	}
	return 0, n < tail
}

func (r *ring) signal() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// get waits for packets and fills ms with as many as there are. After expire it returns os.ErrDeadlineExceeded, after
// close net.ErrClosed.
func (r *ring) get(ms []ipv4.Message) (int, error) {
	for {
		r.mu.Lock()
		n, err := r.fetchLocked(ms)
		r.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		<-r.wake
	}
}

func (r *ring) fetchLocked(ms []ipv4.Message) (n int, err error) {
	switch {
	case r.closed:
		return 0, net.ErrClosed
	case r.expired:
		return 0, os.ErrDeadlineExceeded
	}
	for n < len(ms) && r.count > 0 {
		t := &r.trains[r.first]
		size := min(t.seg, t.end-t.pos)
		if m := &ms[n]; size <= len(m.Buffers[0]) { // else no QUIC packet of ours
			m.N = copy(m.Buffers[0], r.buf[t.pos:t.pos+size])
			m.NN, m.Flags, m.Addr = 0, 0, t.from
			n++
		}
		if t.pos += size; t.pos == t.end {
			*t = train{}
			r.first = (r.first + 1) % len(r.trains)
			r.count--
		}
	}
	return n, nil
}

// setDeadline makes get return os.ErrDeadlineExceeded from t on; the zero time takes that back.
func (r *ring) setDeadline(t time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.timer != nil {
		r.timer.Stop()
		r.timer = nil
	}
	r.expired = false
	switch wait := time.Until(t); {
	case t.IsZero():
	case wait <= 0:
		r.expired = true
		r.signal()
	default:
		r.timer = time.AfterFunc(wait, func() { r.setDeadline(t) })
	}
}

func (r *ring) close() {
	r.setDeadline(time.Time{})
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.signal()
}
