package supervisor

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"skywire/supervisor/config"
)

// Plan answers reload: what changes, or would.
type Plan struct {
	Added   []string `json:"added"`
	Removed []string `json:"removed"`
	Changed []string `json:"changed"`
	Stopped []string `json:"stopped"`   // running apps that are not configured any more
	Again   []string `json:"restarted"` // running apps whose program, arguments or environment change
	Started []string `json:"started"`   // new ones with autostart
	DryRun  bool     `json:"dry_run"`
}

// Reload reads config.yaml again and applies the difference; a file with an error changes nothing.
func (s *Supervisor) Reload(ctx context.Context, dry bool) (Plan, error) {
	if !dry {
		defer s.manager.reloading()()
	}
	file, err := s.load()
	if err != nil {
		return Plan{}, err
	}
	p := newPlan(dry)
	err = s.do(ctx, func() error {
		s.plan(file, &p)
		if !dry {
			s.apply(file, &p)
		}
		return nil
	})
	return p, err
}

func newPlan(dry bool) Plan {
	return Plan{Added: []string{}, Removed: []string{}, Changed: []string{}, Stopped: []string{}, Again: []string{}, Started: []string{}, DryRun: dry}
}

// plan and apply are only for the loop.
func (s *Supervisor) plan(file *config.File, p *Plan) {
	for _, a := range sortedApps(file) {
		old := s.file.Apps[a.Name]
		switch {
		case old == nil:
			p.Added = append(p.Added, a.Name)
		case !reflect.DeepEqual(old, a):
			p.Changed = append(p.Changed, a.Name)
		}
		if a.Autostart && !s.runs(a.Name) && (old == nil || !old.Autostart) {
			p.Started = append(p.Started, a.Name)
		}
	}
	for _, a := range sortedApps(s.file) {
		if file.Apps[a.Name] == nil {
			p.Removed = append(p.Removed, a.Name)
		}
	}
	for _, e := range slices.Backward(s.entries()) {
		if !e.active() {
			continue
		}
		name := fmt.Sprintf("%s#%d", e.app.Name, e.id)
		switch a := file.Apps[e.app.Name]; {
		case a == nil:
			p.Stopped = append(p.Stopped, name)
		case s.startsAnew(e, a, s.file, file):
			p.Again = append(p.Again, name)
		}
	}
}

// startsAnew reports whether a running entry has to start again to be as file says: with another program, or another
// section to read.
func (s *Supervisor) startsAnew(e *entry, a *config.App, old, file *config.File) bool {
	if !sameProgram(e, a) {
		return true
	}
	if s.c.SectionOf == nil {
		return false
	}
	section := s.c.SectionOf(a)
	return section != "" && !old.SameSection(file, section)
}

// sameProgram reports whether a running entry would be started in the same way from a.
func sameProgram(e *entry, a *config.App) bool {
	o := e.app
	sameArgs := !slices.Equal(e.args, o.DefaultArgs) || slices.Equal(o.DefaultArgs, a.DefaultArgs)
	return sameArgs && o.Path == a.Path && o.Cwd == a.Cwd && maps.Equal(o.Env, a.Env) && maps.Equal(o.Secrets, a.Secrets) &&
		o.Daemon == a.Daemon && o.TTY == a.TTY && o.Inproc == a.Inproc && o.Legacy == a.Legacy && o.Ready.FD == a.Ready.FD &&
		o.User == a.User && o.Group == a.Group && o.Nice == a.Nice && o.Limits == a.Limits &&
		(o.Caps == nil) == (a.Caps == nil) && slices.Equal(o.Caps, a.Caps) && o.NoNewPrivs == a.NoNewPrivs
}

func (s *Supervisor) apply(file *config.File, p *Plan) {
	changed := !reflect.DeepEqual(s.file.Settings.Remote, file.Settings.Remote)
	old := s.file
	s.file = file
	if changed {
		s.startRemote()
	}
	s.keepTrail()
	if a, b := old.Settings, file.Settings; a.SignalTCP != b.SignalTCP || a.Web != b.Web || a.RunHeadless != b.RunHeadless {
		s.log.Warn("settings of sockets and of the page take effect when viscript starts again", "file", file.Path)
	}
	for _, e := range s.entries() {
		a := file.Apps[e.app.Name]
		if !e.active() {
			continue
		}
		if a == nil {
			s.stop(e, 0, false)
			continue
		}
		again := s.startsAnew(e, a, old, file)
		if slices.Equal(e.args, e.app.DefaultArgs) {
			e.args = slices.Clone(a.DefaultArgs)
		}
		told := e.app.Log
		look := e.run != nil && !again && (!reflect.DeepEqual(e.app.Ready, a.Ready) || !reflect.DeepEqual(e.app.Health, a.Health) || e.app.Watchdog != a.Watchdog)
		e.app = a
		if told.File != a.Log.File || told.FileBytes != a.Log.FileBytes || told.Syslog != a.Log.Syslog {
			s.forward(e)
		}
		if look {
			e.minder.cancel()
			if s.mind(e, true); e.ready {
				close(e.minder.ready)
			}
		}
		e.out.gate.set(rulesOf(a))
		e.policy.restart, e.policy.delay, e.policy.maxDelay, e.policy.limit = a.Restart, time.Duration(a.Delay), time.Duration(a.MaxDelay), a.Limit
		if again {
			s.stop(e, 0, true)
		}
	}
	clear(s.due)
	s.armSchedule()
	for _, name := range p.Started {
		if e, err := s.start(file.Apps[name], nil, nil); err != nil {
			s.log.Error("app not started", "app", name, "err", err)
			if e != nil {
				s.retry(e)
			}
		}
	}
	s.event(nil, "reloaded", strings.Join(slices.Concat(p.Added, p.Changed, p.Removed), " "))
}
