package supervisor

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
)

const (
	// lookFirst and lookMost are between two looks at an app that is to become ready.
	lookFirst = 100 * time.Millisecond
	lookMost  = 2 * time.Second
)

// minded is one run of an app as its minder sees it: a goroutine that awaits readiness and then looks after health and
// watchdog, and tells the loop. It ends with the run.
type minded struct {
	s       *Supervisor
	e       *entry // only inside act
	id      uint64
	app     *config.App
	out     outlet
	cursor  uint64 // of the first line of this run
	adopted bool

	ready    chan struct{}      // closed when the app serves
	beat     chan time.Duration // it lives; how long it may be silent from now on, 0: as before
	extended chan time.Duration // it needs longer to start
	cancel   context.CancelFunc
}

// mind starts the minder of a run. Only for the loop, as is act's f.
func (s *Supervisor) mind(e *entry, adopted bool) {
	_, cursor := e.out.ring.Last(0)
	ctx, cancel := context.WithCancel(s.ctx)
	m := &minded{
		s: s, e: e, id: e.id, app: e.app, out: e.out, cursor: cursor, adopted: adopted, ready: make(chan struct{}),
		beat: make(chan time.Duration, 1), extended: make(chan time.Duration, 1), cancel: cancel,
	}
	e.minder = m
	s.wg.Go(func() { m.run(ctx) })
}

// act runs f in the loop if the run is still this one.
func (m *minded) act(f func(e *entry)) {
	m.s.post(func() {
		if m.e.minder == m && m.e.run != nil {
			f(m.e)
		}
	})
}

func (m *minded) run(ctx context.Context) {
	if m.app.Ready.Wanted() && !m.awaitReady(ctx) {
		return
	}
	if ctx.Err() != nil {
		return
	}
	if hook := m.app.Hooks.Ready; len(hook) > 0 && !m.adopted {
		m.s.hook(ctx, m.app, m.out.ring, m.id, "ready", "", hook)
	}
	m.keep(ctx)
}

// awaitReady returns true when the app serves. One that an earlier viscript started may have said so to nobody: then the
// time is not held against it.
func (m *minded) awaitReady(ctx context.Context) bool {
	r := &m.app.Ready
	limit := time.Duration(r.Timeout)
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	looking, stop := context.WithCancel(ctx)
	defer stop()
	seen := make(chan struct{})
	go func() { // ends with looking
		if m.seesReady(looking, r) {
			close(seen)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-m.ready:
			return true
		case <-seen:
			m.act(func(e *entry) { m.s.becomeReady(e) })
			return true
		case d := <-m.extended:
			limit += d
			deadline.Reset(d)
		case <-m.beat:
		case <-deadline.C:
			if m.adopted {
				continue
			}
			m.act(func(e *entry) { m.s.breakOff(e, fmt.Sprintf("not ready within %v", limit)) })
			return false
		}
	}
}

// seesReady looks until the app is seen to serve. It reports false for kinds that only the app can tell.
func (m *minded) seesReady(ctx context.Context, r *config.Ready) bool {
	if r.Log != "" {
		return m.readsReady(ctx, r.Log)
	}
	if r.TCP == "" && r.HTTP == "" && len(r.Exec) == 0 {
		return false
	}
	for pause := lookFirst; ; pause = min(2*pause, lookMost) {
		one, cancel := context.WithTimeout(ctx, config.DefaultTimeout)
		err := m.s.look(one, m.app, r.Probe)
		cancel()
		if err == nil {
			return true
		}
		if !sleep(ctx, pause) {
			return false
		}
	}
}

// readsReady waits for a line of this run that matches.
func (m *minded) readsReady(ctx context.Context, expression string) bool {
	re, err := regexp.Compile(expression)
	if err != nil {
		return false
	}
	for cursor := m.cursor; ; {
		lines, next, err := m.out.ring.After(ctx, cursor)
		if err != nil {
			return false
		}
		for _, l := range lines {
			if l.Stream != streamNote && re.MatchString(l.Text) {
				return true
			}
		}
		cursor = next
	}
}

// sleep reports whether d has passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// keep looks after an app that serves.
func (m *minded) keep(ctx context.Context) {
	silence := time.Duration(m.app.Watchdog)
	dog := time.NewTimer(time.Hour)
	dog.Stop()
	defer dog.Stop()
	if silence > 0 {
		dog.Reset(silence)
	}
	var every <-chan time.Time
	if m.app.Health.Wanted() {
		t := time.NewTicker(time.Duration(m.app.Health.Every))
		defer t.Stop()
		every = t.C
	}
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-m.beat:
			if d > 0 {
				silence = d
			}
			if silence > 0 {
				dog.Reset(silence)
			}
		case <-m.extended:
		case <-dog.C:
			m.act(func(e *entry) { m.s.breakOff(e, fmt.Sprintf("watchdog: silent for %v", silence)) })
			return
		case <-every:
			err := m.healthy(ctx)
			if err == nil || ctx.Err() != nil {
				failures = 0
				continue
			}
			if failures++; failures >= m.app.Health.Failures && m.unhealthy(fmt.Sprintf("health: %v, %d times in a row", err, failures)) {
				return
			}
		}
	}
}

func (m *minded) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(m.app.Health.Timeout))
	defer cancel()
	if !m.app.Health.Ping {
		return m.s.look(ctx, m.app, m.app.Health.Probe)
	}
	err := m.s.hub.Call(ctx, m.id, "ping", struct{}{}, nil)
	if errors.Is(err, signal.ErrUnknownMethod) {
		return nil // it answers
	}
	return err
}

// unhealthy acts, and reports whether that ends the run.
func (m *minded) unhealthy(reason string) bool {
	switch m.app.Health.Action {
	case config.ActionLog:
		m.act(func(e *entry) {
			m.s.event(e, "unhealthy", reason)
			m.s.log.Warn("app unhealthy", "id", e.id, "app", e.app.Name, "reason", reason)
			e.out.ring.Add(m.s.c.now(), streamNote, "unhealthy: "+reason)
		})
		return false
	case config.ActionStop:
		m.act(func(e *entry) {
			m.s.event(e, "unhealthy", reason)
			m.s.stop(e, 0, false)
		})
	default:
		m.act(func(e *entry) { m.s.breakOff(e, reason) })
	}
	return true
}

// breakOff ends a run that does not do what it should; then the restart policy decides, as after any failure. Only for
// the loop, as is heard.
func (s *Supervisor) breakOff(e *entry, reason string) {
	if e.run == nil || e.asked || e.broken != "" {
		return
	}
	e.broken = reason
	s.setState(e, Stopping, reason)
	select {
	case e.stop <- time.Duration(e.app.StopTimeout):
	default:
	}
}

// heard takes what an app said.
func (s *Supervisor) heard(e *entry, w said) {
	m := e.minder
	if e.run == nil || m == nil {
		return
	}
	if w.main > 0 {
		if f, ok := e.run.(interface{ Follow(pid int) bool }); ok && !f.Follow(w.main) && w.main != e.run.ID().PID {
			s.log.Warn("app names a main process that is not its own", "id", e.id, "app", e.app.Name, "pid", w.main)
		}
		s.save()
	}
	if w.status != nil {
		e.note = signal.Printable((*w.status)[:min(len(*w.status), 256)], "")
	}
	if w.stopping {
		s.event(e, "stopping", "the app ends by itself")
	}
	if w.beat || w.watchdog > 0 {
		select {
		case m.beat <- w.watchdog:
		default: // one is on its way
		}
	}
	if w.extend > 0 {
		select {
		case m.extended <- w.extend:
		default:
		}
	}
	if w.silence {
		s.breakOff(e, "watchdog: the app asked for it")
	}
	if w.ready {
		s.becomeReady(e)
	}
}

// tells returns what hands the words of one run to the loop.
func (s *Supervisor) tells(id uint64, mark string) func(said) {
	return func(w said) {
		s.post(func() {
			if e := s.table[id]; e != nil && e.mark == mark {
				s.heard(e, w)
			}
		})
	}
}
