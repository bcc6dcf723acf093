package api

import (
	"context"
	"slices"
	"time"

	"skywire/signal"
)

// waiter is a connection that said stream.accept. Its own goroutine watches whether the program is still there, until
// somebody takes it.
type waiter struct {
	client   *client
	released chan struct{} // closed when its goroutine no longer touches the connection
	dead     bool          // read after released
	taken    bool          // guarded by service.mu: by a stream, or withdrawn
}

// take stops the watching goroutine; false: the program has gone.
func (w *waiter) take() bool {
	w.client.SetReadDeadline(time.Unix(1, 0))
	<-w.released
	w.client.SetReadDeadline(time.Time{})
	return !w.dead
}

// add puts a waiter in line, or gives it to the stream that has waited longest. Full or gone: false.
func (s *service) add(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.left || len(s.waiters) >= maxWaiting:
		return false
	case len(s.pending) > 0:
		w.taken = true
		s.pending[0] <- w // capacity 1, and taken out of the list by this one send
		s.pending = slices.Delete(s.pending, 0, 1)
	default:
		s.waiters = append(s.waiters, w)
	}
	return true
}

// withdraw takes a waiter out of line; false: a stream has taken it.
func (s *service) withdraw(w *waiter) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.taken {
		return false
	}
	w.taken = true
	if i := slices.Index(s.waiters, w); i >= 0 {
		s.waiters = slices.Delete(s.waiters, i, i+1)
	}
	return true
}

// next returns a program to take a stream, or why there is none; done closes when the stream is given up.
func (s *service) next(ctx context.Context, done <-chan struct{}) (*waiter, *signal.Error) {
	s.mu.Lock()
	if len(s.waiters) > 0 {
		w := s.waiters[0]
		w.taken = true
		s.waiters = slices.Delete(s.waiters, 0, 1)
		s.mu.Unlock()
		return w, nil
	}
	if s.left || len(s.pending) >= maxPending {
		s.mu.Unlock()
		return nil, signal.Errorf(signal.ErrBusy, "service %q: %d streams wait already", s.Name, maxPending)
	}
	ch := make(chan *waiter, 1)
	s.pending = append(s.pending, ch)
	s.mu.Unlock()
	t := time.NewTimer(takeTimeout)
	defer t.Stop()
	var why *signal.Error
	select {
	case w := <-ch:
		return w, nil
	case <-t.C:
		why = signal.Errorf(signal.ErrBusy, "service %q takes no streams at the moment", s.Name)
	case <-s.gone:
		why = signal.Errorf(signal.ErrNotFound, "service %q has just ended", s.Name)
	case <-done:
		why = signal.Errorf(signal.ErrTimeout, "given up")
	case <-ctx.Done():
		why = signal.Errorf(signal.ErrNotRunning, "the node ends")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.pending, ch); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
		return nil, why
	}
	return <-ch, nil // it came at the last moment
}

// leave wakes everyone who waits at the service.
func (s *service) leave() {
	s.mu.Lock()
	s.left = true
	waiters := slices.Clone(s.waiters)
	s.mu.Unlock()
	close(s.gone)
	for _, w := range waiters {
		w.client.SetReadDeadline(time.Unix(1, 0)) // its goroutine withdraws it
	}
}

// count changes the number of streams and returns it.
func (s *service) count(by int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams += by
	return s.streams
}
