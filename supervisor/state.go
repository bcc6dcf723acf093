package supervisor

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// reserveIDs is how many ids are written off at once, so that starting apps does not wear out flash.
const reserveIDs = 32

// savedIDs is viscript.json in the state directory: the one thing that must survive a reboot.
type savedIDs struct {
	LastID uint64 `json:"last_id"`
}

// saved is viscript.json in the run directory, which lies in RAM: what runs. It is rewritten whole and atomically.
type saved struct {
	LastID uint64     `json:"last_id"`
	Boot   string     `json:"boot_id"`
	Apps   []savedApp `json:"apps"`
}

// savedApp is a row of the table: enough to take hold of an app after viscript was killed, and to know the end of one
// that has ended. One that is active without a process waited, or ran inside viscript.
type savedApp struct {
	ID       uint64     `json:"id"`
	App      string     `json:"app"`
	Args     []string   `json:"args"`
	State    State      `json:"state"`
	Process  proc.ID    `json:"process,omitzero"`
	Mark     string     `json:"mark"`
	Token    string     `json:"token_sha256"`
	Started  time.Time  `json:"started"`
	Restarts int        `json:"restarts"`
	Row      int        `json:"row,omitempty"` // of the policy
	Ready    bool       `json:"ready,omitempty"`
	Asked    bool       `json:"asked,omitempty"` // to stop
	Again    bool       `json:"again,omitempty"` // and to start again
	Exit     *proc.Exit `json:"exit,omitempty"`
	Reason   string     `json:"reason,omitempty"`
}

func (s *Supervisor) idFile() string  { return filepath.Join(s.c.StateDir, "viscript.json") }
func (s *Supervisor) runFile() string { return filepath.Join(s.c.RunDir, "viscript.json") }

// save writes what runs, and the ids when more are needed. When that fails (a full disk) viscript goes on and says so
// once: the apps matter more.
func (s *Supervisor) save() {
	if s.restoring { // half of the table would be written over the whole of it
		return
	}
	var err error
	if s.nextID > s.reserved {
		if err = writeAtomic(s.idFile(), savedIDs{s.nextID + reserveIDs}, true); err == nil {
			s.reserved = s.nextID + reserveIDs
		}
	}
	st := saved{LastID: s.nextID, Boot: proc.BootID()}
	for _, e := range s.entries() {
		a := savedApp{
			ID: e.id, App: e.app.Name, Args: e.args, State: e.state, Mark: e.mark, Token: e.token,
			Started: e.started.UTC(), Restarts: e.restarts, Row: e.policy.row, Ready: e.ready,
			Asked: e.asked, Again: e.again, Exit: e.exit, Reason: e.reason,
		}
		if e.run != nil && !e.app.Inproc {
			a.Process = e.run.ID()
		}
		st.Apps = append(st.Apps, a)
	}
	err = errors.Join(err, writeAtomic(s.runFile(), st, false))
	if err != nil && s.saveErr == nil {
		s.log.Error("state not saved: after a restart ids may repeat and running apps are not found", "err", err)
	}
	s.saveErr = err
}

// saveEnd writes the last id exactly, after a clean end.
func (s *Supervisor) saveEnd() {
	if err := writeAtomic(s.idFile(), savedIDs{s.nextID}, true); err != nil {
		s.log.Error("state not saved", "err", err)
	}
	os.Remove(s.runFile())
	for _, e := range s.table {
		e.out.ring.close(true)
		for _, name := range []string{"file", "syslog"} {
			os.Remove(s.pipePath(e.id, name) + cursorSuffix)
		}
	}
	s.bus.close(true)
	s.trail.close(true)
}

func writeAtomic(path string, v any, sync bool) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".viscript") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if sync && err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// readJSON reads a file that writeAtomic wrote; one that is not there leaves v as it is.
func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// restore reads the state of the last run and adopts the apps that it has left running.
func (s *Supervisor) restore() {
	var ids savedIDs
	if err := readJSON(s.idFile(), &ids); err != nil {
		// Ids must not repeat: go on far above any that can have been used.
		ids.LastID = uint64(s.c.now().Unix())
		s.log.Error("state file is damaged: ids go on at a high number", "file", s.idFile(), "kept_as", s.idFile()+".bad", "err", err)
		os.Rename(s.idFile(), s.idFile()+".bad")
	}
	s.nextID = ids.LastID
	var st saved
	if err := readJSON(s.runFile(), &st); err != nil {
		s.log.Error("what ran before is not known", "file", s.runFile(), "err", err)
	}
	if st.Boot == "" || st.Boot != proc.BootID() {
		st = saved{} // autostart says what runs after a boot
	} else if ids.LastID <= st.LastID+reserveIDs {
		s.nextID = st.LastID // killed: no need to skip what was only reserved
	}
	s.restoring = true
	for _, a := range st.Apps {
		s.nextID = max(s.nextID, a.ID)
		e, from := s.restored(a)
		s.table[e.id] = e
		switch {
		case a.State == Exited, a.State == Failed:
			close(e.rest)
		case a.Process.PID > 0:
			s.adopt(e, a, from)
		default:
			s.resume(e, a)
		}
	}
	s.restoring = false
	s.save()
	s.forget()
	s.cleanPipes()
	s.cleanSecrets()
	marks := map[string]bool{}
	for _, e := range s.table {
		marks[e.mark] = true
	}
	s.host.Sweep(func(mark string) bool { return marks[mark] })
}

// restored makes the entry of an app of the last run.
func (s *Supervisor) restored(a savedApp) (*entry, offsets) {
	app := s.file.Apps[a.App]
	if app == nil { // not configured any more: it can still be watched and stopped
		app = &config.App{Name: a.App, Daemon: true, Restart: config.Never}
		app.StopTimeout, app.LogBytes = config.Duration(config.DefaultStop), config.DefaultLogBytes
	}
	e := &entry{
		id: a.ID, app: app, args: a.Args, policy: newPolicy(app), state: a.State,
		out:  outlet{ring: NewRing(app.LogBytes), gate: newGate(s.c.now, rulesOf(app)), tap: newTap(nil)},
		mark: a.Mark, token: a.Token, started: a.Started, restarts: a.Restarts, exit: a.Exit, reason: a.Reason,
		stop: make(chan time.Duration, 1), rest: make(chan struct{}),
	}
	e.policy.row = a.Row
	from := s.keepLines(e)
	s.forward(e)
	return e, from
}

// keepLines has the lines of an entry outlive viscript, where the run directory is RAM, and returns how far an earlier
// run has read its output.
func (s *Supervisor) keepLines(e *entry) offsets {
	if !s.ram {
		return offsets{}
	}
	return e.out.ring.restore(openJournal(s.pipePath(e.id, "")+journalSuffix, e.app.LogBytes))
}

// resume lets the policy decide about an app that ended with the last run, and has one that waited wait on.
func (s *Supervisor) resume(e *entry, a savedApp) {
	if a.State == Starting && a.Mark == "" { // it waited for others
		e.held, s.changed = true, true
		return
	}
	if a.State == Backoff {
		close(e.rest)
		if a.Again { // stopped for an upgrade
			s.again(e, 0)
			return
		}
		s.again(e, e.policy.wait())
		return
	}
	// Killed in the middle of a start: the process may be there though its number was not written yet.
	if c, _ := s.host.Adopt(proc.ID{}, e.mark); c != nil && e.mark != "" {
		c.Kill()
		c.Release()
	}
	close(e.rest)
	s.afterEnd(e, proc.Exit{Unknown: true}, 0, "ended with viscript, which was killed")
}

// adopt takes hold of one app of the last run. If its first process has ended meanwhile, what is left of the tree is
// ended too, and the policy decides.
func (s *Supervisor) adopt(e *entry, a savedApp, from offsets) {
	child, err := s.host.Adopt(a.Process, a.Mark)
	if child == nil {
		s.log.Error("app of the last run not adopted", "id", a.ID, "app", a.App, "err", err)
		close(e.rest)
		s.setState(e, Failed, "not adopted: "+err.Error())
		return
	}
	e.adopted = !child.Ours()
	p := &process{s: s, id: a.ID, child: child}
	if name := strconv.FormatUint(a.ID, 10); s.handed[name] != nil {
		p.input = s.handed[name]
		delete(s.handed, name)
	}
	var stdout, stderr *os.File
	if p.tty = e.app.TTY && p.input != nil; p.tty {
		stdout = p.input
	} else {
		stdout, _ = proc.Reopen(s.pipePath(a.ID, streamOut))
		stderr, _ = proc.Reopen(s.pipePath(a.ID, streamErr))
	}
	p.pump(e.out, stdout, stderr, from)
	s.log.Info("app adopted", "id", a.ID, "app", a.App, "pid", a.Process.PID, "lives", err == nil)
	p.listen(e.app, s.tells(e.id, e.mark), -1) // before it is watched: one that has ended is released at once, and what is opened then stays
	s.watch(e, p, true)
	switch {
	case a.Asked: // it was being stopped
		s.stop(e, 0, a.Again)
	case a.Ready && err == nil:
		s.becomeReady(e)
	}
}

// cleanPipes removes what is left of the output of apps that are gone.
func (s *Supervisor) cleanPipes() {
	dir := filepath.Join(s.c.RunDir, "log")
	list, _ := os.ReadDir(dir)
	for _, d := range list {
		id, rest, _ := strings.Cut(d.Name(), ".")
		n, err := strconv.ParseUint(id, 10, 64)
		kept := strings.HasPrefix(rest, strings.TrimPrefix(journalSuffix, ".")) || strings.HasSuffix(rest, cursorSuffix)
		if e := s.table[n]; err != nil || e != nil && (e.run != nil || kept) {
			continue
		}
		os.Remove(filepath.Join(dir, d.Name()))
	}
	notes := filepath.Dir(s.notifyPath(0))
	list, _ = os.ReadDir(notes)
	for _, d := range list {
		if n, err := strconv.ParseUint(d.Name(), 10, 64); err != nil || s.table[n] == nil || s.table[n].run == nil {
			os.Remove(filepath.Join(notes, d.Name()))
		}
	}
}
