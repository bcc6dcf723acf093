package stream

import (
	"sync"
	"sync/atomic"
)

// flowQueue is the packets of a flow that wait for the program, each in memory of its own. Full: the oldest is dropped,
// for what is late is worth least.
type flowQueue struct {
	wake    chan struct{} // capacity 1: something has changed
	dropped *atomic.Uint64

	mu      sync.Mutex // guards the fields below
	packets [][]byte   // circular: count of them from first; nil while none wait for long
	first   int
	count   int
	bytes   int
	closed  bool
}

// put takes b over.
func (q *flowQueue) put(b []byte) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		q.dropped.Add(1)
		return
	}
	for q.count > 0 && (q.count == flowPackets || q.bytes+len(b) > flowBytes) {
		q.popLocked()
		q.dropped.Add(1)
	}
	if q.count == len(q.packets) {
		q.growLocked()
	}
	q.packets[(q.first+q.count)%len(q.packets)] = b
	q.count++
	q.bytes += len(b)
	q.mu.Unlock()
	q.signal()
}

func (q *flowQueue) popLocked() []byte {
	b := q.packets[q.first]
	q.packets[q.first] = nil
	q.first = (q.first + 1) % len(q.packets)
	q.count--
	q.bytes -= len(b)
	return b
}

func (q *flowQueue) growLocked() {
	next := make([][]byte, max(8, 2*len(q.packets)))
	for i := range q.count {
		next[i] = q.packets[(q.first+i)%len(q.packets)]
	}
	q.packets, q.first = next, 0
}

func (q *flowQueue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// get appends what waits to dst, at most cap(dst); nil after close, once all is taken. One goroutine gets.
func (q *flowQueue) get(dst [][]byte) [][]byte {
	for {
		q.mu.Lock()
		for q.count > 0 && len(dst) < cap(dst) {
			dst = append(dst, q.popLocked())
		}
		closed := q.closed
		q.mu.Unlock()
		if len(dst) > 0 {
			return dst
		}
		if closed {
			return nil
		}
		<-q.wake
	}
}

// close lets get return what waits, and then nil.
func (q *flowQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.signal()
}
