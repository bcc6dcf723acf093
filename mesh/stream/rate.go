package stream

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Share is what several streams may carry together: bytes a second, in each direction. It is safe for concurrent use.
type Share struct {
	rate     float64
	up, down debt
}

// NewShare makes a share of rate bytes a second; rate is not 0.
func NewShare(rate uint64) *Share { return &Share{rate: float64(rate)} }

// burst is how long a share may have been idle and still make up for it.
const burst = 250 * time.Millisecond

// debt counts what was taken out in advance: whoever takes more than there is waits until the rate has made up for it, in
// the order of taking.
type debt struct {
	mu   sync.Mutex // guards the field below
	paid time.Time  // when all that was taken will be, or was, made up for
}

// take takes n bytes at rate, and returns how long to wait before they may go.
func (d *debt) take(now time.Time, n int, rate float64) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if earliest := now.Add(-burst); d.paid.Before(earliest) {
		d.paid = earliest
	}
	d.paid = d.paid.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	return d.paid.Sub(now)
}

// Limits is what Pump keeps a stream to. With either field set all bytes pass the node's own buffers, also once the stream
// is on TCP.
type Limits struct {
	Share *Share        // nil: no limit
	Idle  time.Duration // a stream without a byte for so long is reset; 0: never
}

// Limit sets what a Pump begun later keeps to.
func (s *Stream) Limit(l Limits) {
	if l != (Limits{}) {
		s.limits = &limited{Limits: l}
	}
}

// limited is a stream's Limits at work. Its methods do nothing on nil.
type limited struct {
	Limits
	done    <-chan struct{}
	started time.Time
	touched atomic.Int64 // time of the last byte, since started
}

// watch ends p when it has been idle for too long, until stop is called.
func (l *limited) watch(ctx context.Context, p *pump) (stop func()) {
	if l == nil {
		return func() {}
	}
	l.done, l.started = ctx.Done(), time.Now()
	if l.Idle == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		t := time.NewTimer(l.Idle)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			left := l.Idle - (time.Since(l.started) - time.Duration(l.touched.Load()))
			if left <= 0 {
				p.abort(CodeReset)
				return
			}
			t.Reset(left)
		}
	})
	return func() { cancel(); watching.Wait() }
}

// spend waits until n bytes may go on, or the node ends.
func (l *limited) spend(n int, up bool) {
	if l == nil || n == 0 {
		return
	}
	now := time.Now()
	l.touched.Store(int64(now.Sub(l.started)))
	if l.Share == nil {
		return
	}
	d := &l.Share.down
	if up {
		d = &l.Share.up
	}
	wait := d.take(now, n, l.Share.rate)
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
		l.touched.Store(int64(time.Since(l.started))) // it was not the program that was idle
	}
}
