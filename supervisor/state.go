package supervisor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// saved is viscript.json: small, rewritten whole and atomically whenever an app starts or ends.
type saved struct {
	LastID uint64     `json:"last_id"`
	Boot   string     `json:"boot_id"`
	Apps   []savedApp `json:"apps"`
}

// savedApp is an app that runs: enough to take hold of it after viscript was killed.
type savedApp struct {
	ID       uint64    `json:"id"`
	App      string    `json:"app"`
	Args     []string  `json:"args"`
	Process  proc.ID   `json:"process"`
	Mark     string    `json:"mark"`
	Token    string    `json:"token_sha256"`
	Started  time.Time `json:"started"`
	Restarts int       `json:"restarts"`
	Ready    bool      `json:"ready,omitempty"`
}

func (s *Supervisor) stateFile() string { return filepath.Join(s.c.StateDir, "viscript.json") }

// save writes the state. When that fails (a full disk) viscript goes on and says so once: the apps matter more.
func (s *Supervisor) save() {
	st := saved{LastID: s.nextID, Boot: proc.BootID()}
	for _, e := range s.entries() {
		if e.run == nil || e.app.Inproc {
			continue
		}
		st.Apps = append(st.Apps, savedApp{
			ID: e.id, App: e.app.Name, Args: e.args, Process: e.run.ID(), Mark: e.mark, Token: e.token,
			Started: e.started.UTC(), Restarts: e.restarts, Ready: e.state == Ready,
		})
	}
	err := writeAtomic(s.stateFile(), st)
	if err != nil && s.saveErr == nil {
		s.log.Error("state not saved: after a restart ids may repeat and running apps are not found", "err", err)
	}
	s.saveErr = err
}

func writeAtomic(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".viscript") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// restore reads the state of the last run and adopts the apps that it has left running.
func (s *Supervisor) restore() {
	b, err := os.ReadFile(s.stateFile())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var st saved
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	if err != nil {
		// Ids must not repeat: go on far above any that can have been used.
		s.nextID = uint64(s.c.now().Unix())
		s.log.Error("state file is damaged: running apps of the last run are not found, ids go on at a high number",
			"file", s.stateFile(), "kept_as", s.stateFile()+".bad", "err", err)
		os.Rename(s.stateFile(), s.stateFile()+".bad")
		return
	}
	s.nextID = st.LastID
	for _, a := range st.Apps {
		s.nextID = max(s.nextID, a.ID)
		if st.Boot != "" && st.Boot == proc.BootID() {
			s.adopt(a)
		}
	}
	s.cleanPipes()
}

// adopt takes hold of one app of the last run. If its first process has ended meanwhile, what is left of the tree is
// ended too.
func (s *Supervisor) adopt(a savedApp) {
	app := s.file.Apps[a.App]
	if app == nil { // not configured any more: it can still be watched and stopped
		app = &config.App{Name: a.App, Daemon: true, Restart: config.Never}
		app.StopTimeout, app.LogBytes = config.Duration(config.DefaultStop), config.DefaultLogBytes
	}
	e := &entry{
		id: a.ID, app: app, args: a.Args, policy: newPolicy(app), ring: NewRing(app.LogBytes), tap: newTap(nil),
		mark: a.Mark, token: a.Token, started: a.Started, restarts: a.Restarts, adopted: true,
		stop: make(chan time.Duration, 1), rest: make(chan struct{}),
	}
	child, err := s.host.Adopt(a.Process, a.Mark)
	if child == nil {
		s.log.Error("app of the last run not adopted", "id", a.ID, "app", a.App, "err", err)
		return
	}
	p := &process{s: s, id: a.ID, child: child}
	stdout, _ := proc.Reopen(s.pipePath(a.ID, "stdout"))
	stderr, _ := proc.Reopen(s.pipePath(a.ID, "stderr"))
	p.pump(e.ring, e.tap, stdout, stderr)
	s.table[e.id] = e
	s.log.Info("app adopted", "id", a.ID, "app", a.App, "pid", a.Process.PID, "lives", err == nil)
	s.watch(e, p)
	if a.Ready && err == nil {
		s.setState(e, Ready, "")
	}
}

// cleanPipes removes the log pipes of apps that are gone.
func (s *Supervisor) cleanPipes() {
	dir := filepath.Join(s.c.RunDir, "log")
	list, _ := os.ReadDir(dir)
	keep := map[string]bool{}
	for id := range s.table {
		keep[filepath.Base(s.pipePath(id, "stdout"))] = true
		keep[filepath.Base(s.pipePath(id, "stderr"))] = true
	}
	for _, d := range list {
		if !keep[d.Name()] && (strings.HasSuffix(d.Name(), ".stdout") || strings.HasSuffix(d.Name(), ".stderr")) {
			os.Remove(filepath.Join(dir, d.Name()))
		}
	}
}
