package supervisor

import (
	"context"
	"sync"

	"skywire/signal"
)

// attachments are the subscriptions of one control connection: they end with it.
type attachments struct {
	mu   sync.Mutex // guards the fields below
	subs []*Subscriber
	over bool
}

func (a *attachments) add(s *Subscriber) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		s.Leave()
		return
	}
	a.subs = append(a.subs, s)
}

func (a *attachments) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	for _, s := range a.subs {
		s.Leave()
	}
}

// Attach subscribes to the raw output of a running app that is no daemon.
func (s *Supervisor) Attach(ctx context.Context, ref string, sub *Subscriber) (uint64, error) {
	var id uint64
	err := s.do(ctx, func() error {
		e, err := s.find(ref)
		switch {
		case err != nil:
			return err
		case e.run == nil:
			return signal.Errorf(signal.ErrNotRunning, "%s#%d is not running (%s)", e.app.Name, e.id, e.state)
		case e.app.Daemon:
			return signal.Errorf(signal.ErrRefused, "%s is a daemon, it can't be attached to; see its output with: logs -f", e.app.Name)
		}
		e.out.tap.add(sub)
		id = e.id
		return nil
	})
	return id, err
}

// runningOf returns what runs under ref.
func (s *Supervisor) runningOf(ctx context.Context, ref string) (running, error) {
	var run running
	err := s.do(ctx, func() error {
		e, err := s.find(ref)
		if err != nil {
			return err
		}
		if e.run == nil {
			return signal.Errorf(signal.ErrNotRunning, "%s#%d is not running (%s)", e.app.Name, e.id, e.state)
		}
		run = e.run
		return nil
	})
	return run, err
}
