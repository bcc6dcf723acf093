//go:build !linux

package udp

import (
	"errors"
	"sync"

	"skywire/mesh/forward"
)

// Poller waits for sockets whose readers run in goroutines; it knows no other sources. It implements forward.Poller.
type Poller struct {
	wake chan struct{} // one place: a wake-up is remembered, not counted
	ids  []int

	mu      sync.Mutex // guards sources
	sources map[int]*Socket
}

// NewPoller makes an empty poller.
func NewPoller() (*Poller, error) {
	return &Poller{wake: make(chan struct{}, 1), sources: map[int]*Socket{}}, nil
}

// Add watches a Socket; anything else is errors.ErrUnsupported.
func (p *Poller) Add(id int, s forward.Source) error {
	u, ok := s.(*Socket)
	if !ok {
		return errors.ErrUnsupported
	}
	p.mu.Lock()
	p.sources[id] = u
	p.mu.Unlock()
	u.setReady(p.Wake)
	p.Wake()
	return nil
}

// Interest does nothing: a socket here is always read, and writing waits by itself.
func (p *Poller) Interest(int, forward.Source, bool, bool) error { return nil }

// Remove stops watching s.
func (p *Poller) Remove(s forward.Source) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, u := range p.sources {
		if forward.Source(u) == s {
			u.setReady(nil)
			delete(p.sources, id)
		}
	}
	return nil
}

// Wait blocks until a socket has something or Wake was called.
func (p *Poller) Wait() (int, error) {
	if n := p.collect(); n > 0 {
		return n, nil
	}
	<-p.wake
	return p.collect(), nil
}

func (p *Poller) collect() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids = p.ids[:0]
	for id, s := range p.sources {
		if s.pending() {
			p.ids = append(p.ids, id)
		}
	}
	return len(p.ids)
}

// Event returns the i-th event of the last Wait.
func (p *Poller) Event(i int) (id int, read, write, broken bool) { return p.ids[i], true, false, false }

// Wake makes Wait return. It may be called from any goroutine.
func (p *Poller) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close ends the poller.
func (p *Poller) Close() error { return nil }
