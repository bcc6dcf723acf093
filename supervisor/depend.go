package supervisor

import (
	"slices"
	"strings"
	"time"

	"skywire/supervisor/config"
)

// Dependencies: an app with depends_on is held in the state starting until each of them serves, and stopped before them
// when viscript ends. All of this file is only for the loop.

// newest returns the last entry of an app that was started, nil if there is none.
func (s *Supervisor) newest(app string) *entry {
	for _, e := range s.entries() {
		if e.app.Name == app {
			return e
		}
	}
	return nil
}

// serves reports whether an app does what others wait for.
func (e *entry) serves() bool {
	switch {
	case e == nil:
		return false
	case e.app.Oneshot:
		return e.state == Exited && e.exit != nil && e.exit.OK()
	case e.app.Ready.Wanted():
		return e.state == Ready
	}
	return e.state == Ready || e.state == Running
}

// startNeeded starts what an app depends on and does not run.
func (s *Supervisor) startNeeded(a *config.App) error {
	for _, name := range a.DependsOn {
		e := s.newest(name)
		d := s.file.Apps[name]
		if d == nil || e != nil && (e.active() || e.serves()) {
			continue
		}
		if _, err := s.start(d, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

// waitsFor says which apps an app has to wait for, and which has failed for good.
func (s *Supervisor) waitsFor(a *config.App) (missing []string, failed string) {
	for _, name := range a.DependsOn {
		e := s.newest(name)
		if e.serves() {
			continue
		}
		missing = append(missing, name)
		if e != nil && (e.state == Failed || e.app.Oneshot && e.state == Exited) {
			failed = name
		}
	}
	return missing, failed
}

// hold keeps an entry from being launched while it waits; it reports whether it does.
func (s *Supervisor) hold(e *entry) bool {
	missing, _ := s.waitsFor(e.app)
	if len(missing) == 0 {
		return false
	}
	e.held, e.mark = true, ""
	s.setState(e, Starting, "waits for "+strings.Join(missing, ", "))
	s.save()
	return true
}

// settle launches what was held and need not wait any more, and, when viscript ends, stops what nobody needs any more.
// The loop calls it after each event.
func (s *Supervisor) settle() {
	for s.changed {
		s.changed = false
		for _, e := range slices.Backward(s.entries()) {
			switch missing, failed := s.waitsFor(e.app); {
			case !e.held || e.state != Starting:
			case failed != "":
				e.held = false
				s.setState(e, Failed, "not started: it depends on "+failed+", which has failed")
				s.rest(e)
			case len(missing) == 0 && !s.frozen:
				e.held = false
				if err := s.launch(e); err != nil {
					s.log.Error("app not started", "id", e.id, "app", e.app.Name, "err", err)
					s.retry(e)
				}
			}
		}
		if s.closing {
			s.stopUnneeded()
		}
	}
}

// stopUnneeded tells every app to end that no other active one depends on.
func (s *Supervisor) stopUnneeded() {
	needed := map[string]bool{}
	for _, e := range s.table {
		if e.active() {
			for _, name := range e.app.DependsOn {
				needed[name] = true
			}
		}
	}
	for _, e := range s.entries() {
		if e.active() && !needed[e.app.Name] && (!e.asked || e.again) {
			s.stop(e, 0, false)
		}
	}
}

// rest ends an entry that has nothing running.
func (s *Supervisor) rest(e *entry) {
	if e.rest != nil {
		select {
		case <-e.rest:
		default:
			close(e.rest)
		}
	}
	e.out.tap.end()
	s.save()
}

// The schedule: a timer no longer than cronMost, so that a clock that is set (a router has none at boot) is noticed.
const (
	cronMost = time.Minute
	// cronLate is how late a start may still happen: what fell into a time when viscript did not run, or into a jump
	// of the clock, is left out.
	cronLate = 2 * time.Minute
)

// plan arms the timer for the next start by schedule.
func (s *Supervisor) armSchedule() {
	wait := time.Duration(0)
	now := s.c.now()
	for _, a := range s.file.Apps {
		if sched, err := config.ParseSchedule(a.Schedule); a.Schedule != "" && err == nil {
			if _, known := s.due[a.Name]; !known {
				s.due[a.Name] = sched.Next(now)
			}
			if next := s.due[a.Name]; !next.IsZero() && (wait == 0 || next.Sub(now) < wait) {
				wait = max(next.Sub(now), time.Millisecond)
			}
		}
	}
	if wait == 0 {
		s.cron.Stop()
		return
	}
	s.cron.Reset(min(wait, cronMost))
}

// scheduled starts what is due.
func (s *Supervisor) scheduled() {
	now := s.c.now()
	for _, a := range sortedApps(s.file) {
		sched, err := config.ParseSchedule(a.Schedule)
		if a.Schedule == "" || err != nil {
			continue
		}
		due := s.due[a.Name]
		next := sched.Next(now)
		if now.Before(due) && !next.Before(due) {
			continue // not yet
		}
		s.due[a.Name] = next // also when the clock went back
		if late := now.Sub(due); due.IsZero() || late < 0 || late > cronLate || s.closing || s.frozen {
			continue
		}
		s.startScheduled(a)
	}
	s.armSchedule()
}

// startScheduled starts an app again under the id that it had.
func (s *Supervisor) startScheduled(a *config.App) {
	e := s.newest(a.Name)
	var err error
	switch {
	case e == nil:
		e, err = s.start(a, nil, nil)
	case e.active():
		s.event(e, "skipped", "it runs still, and is due again")
		return
	default:
		e.out.tap = newTap(nil)
		err = s.launch(e)
	}
	if err != nil {
		s.log.Error("app not started", "app", a.Name, "err", err)
		if e != nil {
			s.retry(e)
		}
	}
}
