package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// maxFrame is the largest frame a TAP device hands over.
const maxFrame = 65535 + headerLen

// backlog frames may wait between a reader and the loop; then the reader waits, and the kernel's own queue fills.
const backlog = 1024

// Link is a link between two devices: what A and B read and write are whole Ethernet frames.
type Link struct {
	a, b   *os.File
	mu     sync.Mutex // guards ab and ba, which the loop and the callers of Set and Stats share
	ab, ba *Direction
}

// NewLink joins two open devices; Run closes them. ab is what happens to frames from a to b.
func NewLink(a, b *os.File, ab, ba Profile, seed uint64) (*Link, error) {
	l := &Link{a: a, b: b}
	var err error
	if l.ab, err = NewDirection(ab, seed); err != nil {
		return nil, err
	}
	if l.ba, err = NewDirection(ba, seed+1); err != nil {
		return nil, err
	}
	return l, nil
}

// Set changes both profiles while the link runs.
func (l *Link) Set(ab, ba Profile) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.ab.Set(ab), l.ba.Set(ba))
}

// Stats returns the counts of both directions.
func (l *Link) Stats() (ab, ba Stats) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ab.Stats(), l.ba.Stats()
}

type arrival struct {
	fromA bool
	frame []byte
}

// Run carries frames until ctx ends or a device is gone, and closes both devices.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	in := make(chan arrival, backlog)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(read(ctx, l.a, true, in)) })
	wg.Go(func() { cancel(read(ctx, l.b, false, in)) })
	err := l.loop(ctx, in)
	cancel(nil)
	closed := errors.Join(l.a.Close(), l.b.Close()) // wakes the readers
	wg.Wait()
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return errors.Join(err, closed)
}

// read passes frames on until the file is closed.
func read(ctx context.Context, f *os.File, fromA bool, in chan<- arrival) error {
	buf := make([]byte, maxFrame)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return fmt.Errorf("emulator: read: %w", err)
		}
		frame := append([]byte(nil), buf[:n]...)
		select {
		case in <- arrival{fromA, frame}:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *Link) loop(ctx context.Context, in <-chan arrival) error {
	start := time.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-in:
			l.put(time.Since(start), a)
			for range len(in) {
				l.put(time.Since(start), <-in)
			}
		case <-timer.C:
		}
		next, err := l.deliver(time.Since(start))
		if err != nil {
			return err
		}
		timer.Reset(max(0, next-time.Since(start)))
	}
}

func (l *Link) put(now time.Duration, a arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.fromA {
		l.ab.Put(now, a.frame)
	} else {
		l.ba.Put(now, a.frame)
	}
}

// deliver writes what has arrived by now and returns when the next frame is due.
func (l *Link) deliver(now time.Duration) (time.Duration, error) {
	next := now + time.Hour
	for _, way := range []struct {
		d  *Direction
		to *os.File
	}{{l.ab, l.b}, {l.ba, l.a}} {
		for {
			l.mu.Lock()
			frame, ok := way.d.Take(now)
			if !ok {
				if at, waiting := way.d.Next(); waiting {
					next = min(next, at)
				}
				l.mu.Unlock()
				break
			}
			l.mu.Unlock()
			if err := write(way.to, frame); err != nil {
				return 0, err
			}
		}
	}
	return next, nil
}
