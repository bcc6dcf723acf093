package supervisor

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// Item is a row of ps.
type Item struct {
	ID         uint64     `json:"id"`
	Name       string     `json:"name"`
	App        string     `json:"app"`
	State      State      `json:"state"`
	PID        *int       `json:"pid"`
	Started    *time.Time `json:"started"`
	Restarts   int        `json:"restarts"`
	ExitCode   *int       `json:"exit_code"`
	ExitReason *string    `json:"exit_reason"`
	CPUPercent *float64   `json:"cpu_percent"`
	RSS        *uint64    `json:"rss_bytes"`
	Args       []string   `json:"args"`
	Status     string     `json:"status,omitempty"`
	Adopted    bool       `json:"adopted,omitempty"`
}

// List returns the apps that run, wait or have failed, with all also those that have ended, by id.
func (s *Supervisor) List(ctx context.Context, all bool) ([]Item, error) {
	return s.items(ctx, func(e *entry) bool { return all || e.state != Exited })
}

func (s *Supervisor) items(ctx context.Context, want func(*entry) bool) ([]Item, error) {
	items, runs := []Item{}, []running{}
	err := s.do(ctx, func() error {
		for _, e := range slices.Backward(s.entries()) {
			if want(e) {
				items, runs = append(items, e.item()), append(runs, e.run)
			}
		}
		return nil
	})
	for i, m := range usages(runs) { // outside the loop: it reads /proc
		if m.known {
			items[i].RSS = m.RSS
			pct := percent(m.CPUUser+m.CPUSys, s.c.now().Sub(*items[i].Started))
			items[i].CPUPercent = &pct
		}
	}
	return items, err
}

// measured is the usage of one of several apps.
type measured struct {
	proc.Usage
	known bool
}

// usages measures apps, all at the same time: so they share the reading of /proc. A nil run is not known.
func usages(runs []running) []measured {
	all := make([]measured, len(runs))
	var wg sync.WaitGroup
	for i, run := range runs {
		if run != nil {
			wg.Go(func() { all[i].Usage, all[i].known = run.Usage() })
		}
	}
	wg.Wait()
	return all
}

// item is only for the loop.
func (e *entry) item() Item {
	started := e.started.UTC()
	it := Item{
		ID: e.id, Name: e.app.Name, App: e.app.Name, State: e.state, Started: &started, Restarts: e.restarts,
		Args: e.args, Status: e.note, Adopted: e.adopted,
	}
	if it.Args == nil {
		it.Args = []string{}
	}
	if e.run != nil {
		pid := e.run.ID().PID
		it.PID = &pid
	}
	if e.exit != nil {
		it.ExitCode = e.exit.Code
	}
	if reason := e.reason; reason != "" { // a copy: the entry goes on
		it.ExitReason = &reason
	}
	return it
}

// percent is the share of one CPU since the start, with one decimal.
func percent(cpu, wall time.Duration) float64 {
	if wall < time.Millisecond {
		return 0
	}
	return float64(int(1000*cpu.Seconds()/wall.Seconds())) / 10
}

// AppInfo is a configured app.
type AppInfo struct {
	Name      string   `json:"name"`
	Desc      string   `json:"desc"`
	Daemon    bool     `json:"daemon"`
	Autostart bool     `json:"autostart"`
	Inproc    bool     `json:"inproc"`
	Restart   string   `json:"restart"`
	Path      string   `json:"path"`
	Args      []string `json:"default_args"`
	Help      string   `json:"help,omitempty"`
}

func info(a *config.App) AppInfo {
	args := a.DefaultArgs
	if args == nil {
		args = []string{}
	}
	return AppInfo{
		Name: a.Name, Desc: a.Desc, Daemon: a.Daemon, Autostart: a.Autostart, Inproc: a.Inproc,
		Restart: string(a.Restart), Path: a.Path, Args: args,
	}
}

// Apps returns the configured apps by name.
func (s *Supervisor) Apps(ctx context.Context) ([]AppInfo, error) {
	list := []AppInfo{}
	err := s.do(ctx, func() error {
		for _, a := range sortedApps(s.file) {
			list = append(list, info(a))
		}
		return nil
	})
	return list, err
}

// Help returns all about one configured app.
func (s *Supervisor) Help(ctx context.Context, name string) (AppInfo, error) {
	var out AppInfo
	err := s.do(ctx, func() error {
		a, err := s.configured(name)
		if err == nil {
			out = info(a)
			out.Help = a.Help
		}
		return err
	})
	return out, err
}

// configured is only for the loop.
func (s *Supervisor) configured(name string) (*config.App, error) {
	if a := s.file.Apps[name]; a != nil {
		return a, nil
	}
	return nil, signal.Errorf(signal.ErrNotFound, "no app %q in %s%s; see: viscript apps", name, s.configName(),
		config.Meant(name, slices.Collect(maps.Keys(s.file.Apps))))
}

func (s *Supervisor) configName() string {
	if s.file.Path == "" {
		return s.c.File + " (there is no such file)"
	}
	return s.file.Path
}

// Start starts an app; user arguments replace the default ones. sub, if not nil, is attached from the first byte on.
func (s *Supervisor) Start(ctx context.Context, app string, args []string, sub *Subscriber) (uint64, error) {
	var id uint64
	err := s.do(ctx, func() error {
		a, err := s.configured(app)
		if err != nil {
			return err
		}
		e, err := s.start(a, args, sub)
		if err == nil {
			id = e.id
		}
		return err
	})
	return id, err
}

// Stop ends an app and returns when nothing of its process tree is left; an error says what is.
func (s *Supervisor) Stop(ctx context.Context, ref string, grace time.Duration) (Item, error) {
	return s.end(ctx, ref, grace, false)
}

// Restart stops an app and starts it again under the same id, also one that has ended.
func (s *Supervisor) Restart(ctx context.Context, ref string) (Item, error) {
	return s.end(ctx, ref, 0, true)
}

func (s *Supervisor) end(ctx context.Context, ref string, grace time.Duration, again bool) (Item, error) {
	var e *entry
	var rest chan struct{}
	err := s.do(ctx, func() (err error) {
		if e, err = s.find(ref); err != nil {
			return err
		}
		if !e.active() {
			if again {
				if err := s.closed(); err != nil {
					return err
				}
				e.restarts++
				e.out.tap = newTap(nil)
				return s.launch(e)
			}
			return signal.Errorf(signal.ErrNotRunning, "%s#%d is not running (%s)", e.app.Name, e.id, e.state)
		}
		if rest = e.rest; e.held && again {
			rest = nil
		}
		s.stop(e, grace, again)
		return nil
	})
	if err != nil {
		return Item{}, err
	}
	if rest != nil {
		select {
		case <-rest:
		case <-ctx.Done():
			return Item{}, ctx.Err()
		}
	}
	var it Item
	err = s.do(ctx, func() error {
		it = e.item()
		if e.state == Failed {
			return signal.Errorf(signal.ErrInternal, "%s#%d: %s", e.app.Name, e.id, e.reason)
		}
		return nil
	})
	if errors.Is(err, signal.ErrNotRunning) { // viscript itself is ending; the app has
		err = nil
	}
	return it, err
}

// Info answers status.
type Info struct {
	PID     int     `json:"pid"`
	Uptime  float64 `json:"uptime_s"`
	Config  string  `json:"config"`
	State   string  `json:"state"`
	Run     string  `json:"run"`
	Socket  string  `json:"socket"`
	Apps    int     `json:"apps"`
	Running int     `json:"running"`
	Failed  int     `json:"failed"`
	LastID  uint64  `json:"last_id"`
	Version string  `json:"version"`
	// Generation counts the upgrades of this process.
	Generation int      `json:"generation"`
	LogsKept   bool     `json:"logs_kept"` // lines outlive a killed viscript
	Saved      bool     `json:"state_saved"`
	Problem    string   `json:"problem,omitempty"`
	Lacks      []string `json:"lacks,omitempty"` // what this system does not give
}

// Status describes the supervisor itself.
func (s *Supervisor) Status(ctx context.Context) (Info, error) {
	in := Info{
		Lacks: proc.Lacks(),
		PID:   os.Getpid(), Uptime: s.c.now().Sub(s.began).Seconds(), State: s.c.StateDir, Run: s.c.RunDir,
		Socket: ControlSocket(s.c.RunDir), Version: s.c.Version,
	}
	err := s.do(ctx, func() error {
		in.Generation, in.LogsKept = s.generation, s.ram
		in.Config, in.Apps, in.LastID, in.Saved = s.configName(), len(s.file.Apps), s.nextID, s.saveErr == nil
		if s.saveErr != nil {
			in.Problem = "state not saved: " + s.saveErr.Error()
		}
		for _, e := range s.table {
			if e.run != nil {
				in.Running++
			}
			if e.state == Failed {
				in.Failed++
			}
		}
		return nil
	})
	return in, err
}
