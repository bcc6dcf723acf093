// Package supervisor is viscript's heart: the table of apps that run, were run, or wait to be run again.
//
// It does not parse commands or print (supervisor/cli), knows no app by name, and touches nothing that belongs to the
// process but its children. Rules: one goroutine, the loop of Run, writes the table; everything else asks it by a
// closure (do) or reports to it (post). A goroutine per running app waits for it and ends it; it holds no lock and
// owns the app's process tree. Nothing in the loop blocks: starting is a fork, all waiting is outside. A sequence id
// names one start command for ever, over restarts of the app and of viscript.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"skywire/signal"
	"skywire/signal/hub"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

const (
	// maxActive bounds the apps that run at once: a runaway script must not fill the machine.
	maxActive = 256
	// keepEnded is how many ended apps ps -a and logs still know.
	keepEnded = 32
	// maxArgs bounds the arguments of one start, in bytes.
	maxArgs = 128 << 10
)

// Inproc is an app that runs inside this process. It returns the exit status after all it started has ended; a
// cancelled ctx asks it to end.
type Inproc func(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int

// State of an app.
type State string

// The states; they are part of ps --json.
const (
	Starting State = "starting"
	Running  State = "running"
	Ready    State = "ready" // the app said by signal that it serves
	Stopping State = "stopping"
	Exited   State = "exited" // by itself with status 0, or because it was told to
	Failed   State = "failed"
	Backoff  State = "backoff" // ended, and waits to be started again
)

// Config of a Supervisor.
type Config struct {
	File      string // config.yaml; a missing one is an empty one unless FileNamed
	FileNamed bool
	StateDir  string // holds viscript.json: ids and what runs
	RunDir    string // holds the sockets and the pipes of the logs
	Dir       string // working directory for apps and relative paths; default the process's
	Environ   []string
	Log       *slog.Logger

	Inproc   map[string]Inproc      // by the base name of path
	Answers  func(name string) bool // names that our own binary answers to by argv[0]
	Self     string                 // our own binary
	LinkDirs []string               // where links to it may be

	Version string                       // of this program
	Exec    func(environ []string) error // replaces this program by the file at Self, with the same arguments; nil: no upgrade

	Subreaper  bool             // orphans of apps come to this process: only a main may say so
	ChildEnded <-chan os.Signal // SIGCHLD, needed with Subreaper
	// ReloadAsked is SIGHUP: config.yaml is read again.
	ReloadAsked <-chan os.Signal
	Sections    []string // sections of config.yaml that applets own, for check and reload

	// Check looks into the sections before Apply takes a file; nil: nobody does. SectionOf says which of them an app reads
	// when it starts, so that reload starts it again when that changes; nil: none.
	Check     func(f *config.File) error
	SectionOf func(a *config.App) string

	// Remote hands the streams of operators on other boxes to ServeStream until ctx ends; nil: there are none. It is
	// started again when settings.remote change.
	Remote func(ctx context.Context, s *Supervisor, r config.Remote) error

	// Page is the web page of this viscript; nil: there is none.
	Page Page

	// Mesh tells what the processes that has knows have carried in the mesh, in bytes; ok false or nil: nobody knows.
	Mesh func(ctx context.Context, has func(pid int) bool) (rx, tx uint64, ok bool)

	launch launcher         // tests
	now    func() time.Time // tests
}

// Page is a web page: Run serves it by ServeStream until ctx ends, Invite returns an address that opens it once.
type Page interface {
	Run(ctx context.Context, s *Supervisor) error
	Invite() (string, error)
}

// Supervisor is the table. Its exported methods may be called from any goroutine while Run runs.
type Supervisor struct {
	c     Config
	log   *slog.Logger
	host  *proc.Host
	hub   *hub.Hub
	bus   *Ring // events as JSON
	calls chan func()
	ended chan struct{} // closed when the loop has ended
	began time.Time

	desired sync.Mutex  // guards the config.yaml that Apply and Rollback write, what they keep, and confirm
	confirm *time.Timer // the return to what was before; nil: none was ever set

	manager *manager // what runs viscript

	trail *Ring // who asked for what, as JSON

	wg  sync.WaitGroup // everything that Run started
	ctx context.Context

	// Only the loop touches what follows.
	file      *config.File
	table     map[uint64]*entry
	nextID    uint64
	reserved  uint64 // ids up to here are written off in the state directory
	closing   bool
	restoring bool  // what an earlier viscript has left is being taken hold of
	frozen    bool  // an upgrade is under way: nothing is started
	ram       bool  // the run directory is RAM: lines of logs may be kept there
	saveErr   error // of the last save

	logFiles map[string]*logFile
	changed  bool                 // a state has: settle has something to do
	cron     *time.Timer          // the next start by schedule
	due      map[string]time.Time // the next start of an app with a schedule

	trailFile   string // where the audit goes, too
	endTrail    context.CancelFunc
	endRemote   context.CancelFunc
	remoteEnded chan struct{}

	sock, signalSock, signalTCP net.Listener // open from listen on

	generation int                 // how often this process was upgraded
	handed     map[string]*os.File // left by the program before; nil after the start
}

// entry is one start command.
type entry struct {
	id         uint64
	app        *config.App
	args       []string
	state      State
	note       string // the app's own status line
	run        running
	started    time.Time
	restarts   int
	policy     policy
	exit       *proc.Exit
	reason     string
	out        outlet
	mark       string
	token      string // hash of the SIGNAL_TOKEN
	adopted    bool
	minder     *minded
	endForward context.CancelFunc // of its lines
	broken     string             // why its run was broken off
	held       bool               // waits for others before its start
	ready      bool               // it said, or was seen, to serve
	asked      bool               // told to stop
	again      bool               // and then to start again
	timer      *time.Timer
	stop       chan time.Duration
	rest       chan struct{} // closed when nothing of it runs
}

func (e *entry) active() bool { return e.state != Exited && e.state != Failed }

// New reads the configuration and the state of the last run. Nothing runs before Run.
func New(c Config) (*Supervisor, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.Dir == "" {
		d, err := os.Getwd()
		if err != nil {
			return nil, err
		}
		c.Dir = d
	}
	for _, d := range []*string{&c.StateDir, &c.RunDir} {
		if *d == "" {
			return nil, errors.New("supervisor: no state or run directory given")
		}
		abs, err := filepath.Abs(*d)
		if err != nil {
			return nil, err
		}
		*d = abs
	}
	s := &Supervisor{
		c: c, log: c.Log, bus: NewRing(64 << 10), calls: make(chan func()), ended: make(chan struct{}),
		table: map[uint64]*entry{}, began: c.now(), due: map[string]time.Time{}, logFiles: map[string]*logFile{},
		cron: time.NewTimer(time.Hour), trail: NewRing(trailBytes), manager: newManager(c.Environ, c.Log),
	}
	s.cron.Stop()
	file, err := s.load()
	if err != nil {
		return nil, err
	}
	s.file = file
	return s, nil
}

// load reads config.yaml and looks at its sections.
func (s *Supervisor) load() (*config.File, error) {
	f, err := config.Load(s.c.File)
	if errors.Is(err, fs.ErrNotExist) && !s.c.FileNamed {
		return config.Empty(), nil
	}
	if err != nil {
		return nil, err
	}
	if s.c.Sections != nil {
		if err := f.CheckSections(s.c.Sections); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return f, nil
}

// ControlSocket is where the verbs connect, in the run directory.
func ControlSocket(runDir string) string { return filepath.Join(runDir, "viscript.sock") }

func (s *Supervisor) signalSocket() string { return filepath.Join(s.c.RunDir, "signal.sock") }

// Run is the daemon: it adopts what an earlier, killed run has left, starts the apps with autostart and serves the
// sockets until ctx ends; then it stops every app and returns when all have ended.
func (s *Supervisor) Run(ctx context.Context) error {
	s.takeOver()
	if err := s.listen(); err != nil {
		s.dropHanded()
		return err
	}
	s.host = proc.NewHost(s.log, s.c.Subreaper)
	s.hub = hub.New(hub.Config{Log: s.log, Verify: s.verify, Event: s.signalled})
	if s.c.launch == nil {
		s.c.launch = s.launchReal
	}
	if err := os.MkdirAll(s.c.StateDir, 0o700); err != nil {
		s.log.Warn("no state directory: ids will not outlive viscript", "err", err)
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.ctx = inner
	if s.ram = proc.InRAM(s.c.RunDir); s.ram {
		s.bus.restore(openJournal(filepath.Join(s.c.RunDir, "log", "events")+journalSuffix, s.bus.limit))
		s.trail.restore(openJournal(filepath.Join(s.c.RunDir, "log", "audit")+journalSuffix, s.trail.limit))
	}
	s.restore()
	s.dropHanded()
	if s.generation > 0 {
		s.log.Info("upgraded", "to", s.c.Version)
		s.event(nil, "upgraded", s.c.Version)
	}
	s.serve(inner)
	s.startRemote()
	s.keepTrail()
	if s.c.Page != nil {
		s.wg.Go(func() {
			if err := s.c.Page.Run(inner, s); err != nil {
				s.log.Error("no web page", "err", err)
			}
		})
	}
	defer s.cron.Stop()
	s.armSchedule()
	s.autostart()
	s.settle()
	s.manager.tell("READY=1\nMAINPID=" + strconv.Itoa(os.Getpid()))
	s.loop(ctx)
	cancel()
	close(s.ended)
	s.wg.Wait()
	s.endConfirm()
	s.saveEnd()
	return nil
}

// autostart starts what is configured so. What an earlier viscript of this boot has left, running or ended, stays as it
// is: a stopped app stays stopped when viscript is killed.
func (s *Supervisor) autostart() {
	known := map[string]bool{}
	for _, e := range s.table {
		known[e.app.Name] = true
	}
	for _, a := range sortedApps(s.file) {
		if !a.Autostart || known[a.Name] || s.runs(a.Name) { // others may have needed it
			continue
		}
		if e, err := s.start(a, nil, nil); err != nil {
			s.log.Error("app not started", "app", a.Name, "err", err)
			if e != nil {
				s.retry(e)
			}
		}
	}
}

func (s *Supervisor) runs(app string) bool {
	for _, e := range s.table {
		if e.app.Name == app && e.active() {
			return true
		}
	}
	return false
}

// verify judges a program that says at the signal socket that it is app h.ID.
func (s *Supervisor) verify(h hub.Hello, peer *signal.Cred) error {
	var token string
	var run running
	err := s.do(s.ctx, func() error {
		e := s.table[h.ID]
		if e == nil || e.run == nil {
			return signal.Errorf(signal.ErrNotFound, "no running app %d", h.ID)
		}
		token, run = e.token, e.run
		return nil
	})
	switch {
	case err != nil:
		return err
	case peer != nil && peer.UID != 0 && int(peer.UID) != os.Geteuid():
		return signal.Errorf(signal.ErrRefused, "user %d is not ours", peer.UID)
	case h.Token != "" && sameHash(token, h.Token):
		return nil
	case h.Token == "" && peer != nil && run.Has(peer.PID):
		return nil
	}
	return signal.Errorf(signal.ErrRefused, "neither token nor process tree is that of app %d", h.ID)
}

// signalled handles what an app said.
func (s *Supervisor) signalled(ev hub.Event) {
	s.do(s.ctx, func() error {
		e := s.table[ev.ID]
		if e == nil || e.run == nil {
			return nil
		}
		switch ev.Kind {
		case hub.Ready:
			s.heard(e, said{ready: true})
		case hub.Beat:
			s.heard(e, said{beat: true})
		case hub.Note:
			s.event(e, "said", ev.Text)
		case hub.Status:
			e.note = ev.Text
		case hub.Stopping:
			s.event(e, "stopping", "the app ends by itself")
		}
		return nil
	})
}
