package supervisor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// launch is what a launcher needs to know.
type launch struct {
	id    uint64
	app   *config.App
	args  []string
	out   outlet
	mark  string
	token string
}

// launcher starts an app; it does not block.
type launcher func(launch) (running, error)

// running is an app that was started: a process tree, or a function in this process.
type running interface {
	ID() proc.ID
	Wait(ctx context.Context) proc.Exit
	// Stop ends what is left and returns when nothing is: first asked by signal if the app speaks it and ask is set,
	// then by TERM, after grace by KILL. An error says what remains.
	Stop(grace time.Duration, ask bool) error
	Usage() (proc.Usage, bool)
	Has(pid int) bool
	Input() io.WriteCloser // nil: none
	Signal(syscall.Signal) error
	Release()
}

// waitOutput is how long the rest of the output is read after the end of an app.
const waitOutput = time.Second

// random returns 128 bits as hexadecimal digits.
func random() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func hash(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

func sameHash(stored, token string) bool {
	return subtle.ConstantTimeCompare([]byte(stored), []byte(hash(token))) == 1
}

func (s *Supervisor) launchReal(l launch) (running, error) {
	if l.app.Inproc {
		f := s.c.Inproc[filepath.Base(l.app.Path)]
		if f == nil {
			return nil, fmt.Errorf("inproc: %s is no applet of this binary", l.app.Path)
		}
		return s.launchInproc(l, f), nil
	}
	return s.launchProcess(l)
}

// environ is what apps get: ours, without what belongs to us alone, with the folders so that they find each other.
func (s *Supervisor) environ(l launch) []string {
	drop := map[string]bool{
		"NOTIFY_SOCKET": true, "WATCHDOG_USEC": true, "WATCHDOG_PID": true, // viscript's own, of systemd
		"LISTEN_FDS": true, "LISTEN_PID": true, "LISTEN_FDNAMES": true,
		proc.MarkVariable: true, "SKYWIRE_STATE": true, "SKYWIRE_RUN": true, "SKYWIRE_CONFIG": true,
	}
	var env []string
	for _, kv := range s.c.Environ {
		name, _, _ := strings.Cut(kv, "=")
		if _, set := l.app.Env[name]; !drop[name] && !set && !strings.HasPrefix(name, "SIGNAL_") {
			env = append(env, kv)
		}
	}
	env = append(env, "SKYWIRE_STATE="+s.c.StateDir, "SKYWIRE_RUN="+s.c.RunDir)
	if s.file.Path != "" { // naming a file that is not there would be an error to them
		env = append(env, "SKYWIRE_CONFIG="+s.file.Path)
	}
	for k, v := range l.app.Env {
		env = append(env, k+"="+v)
	}
	return env
}

func (s *Supervisor) pipePath(id uint64, stream string) string {
	return filepath.Join(s.c.RunDir, "log", strings.TrimSuffix(strconv.FormatUint(id, 10)+"."+stream, "."))
}

const (
	spoolSuffix   = ".spool"
	journalSuffix = ".lines"
)

func (s *Supervisor) spoolPath(id uint64, stream string) string {
	return s.pipePath(id, stream) + spoolSuffix
}

func (s *Supervisor) launchProcess(l launch) (_ running, err error) {
	file, argv0, err := s.program(l.app.Path)
	if err != nil {
		return nil, err
	}
	var mine, theirs []io.Closer
	defer func() {
		closeAll(theirs)
		if err != nil {
			closeAll(mine)
		}
	}()
	p := &process{s: s, id: l.id}
	spec := proc.Spec{
		Path: file, Args: append([]string{argv0}, l.args...), Dir: l.app.Cwd, Mark: l.mark,
		Env: append(s.environ(l), "SIGNAL_CLIENT=true", "SIGNAL_CLIENT_ID="+strconv.FormatUint(l.id, 10),
			"SIGNAL_SERVER_ADDRESS="+s.signalAddress(l.app), "SIGNAL_TOKEN="+l.token),
	}
	if spec.Dir == "" {
		spec.Dir = s.c.Dir
	}
	uid := -1
	if err = confine(&spec, l.app); err != nil {
		return nil, err
	}
	if spec.User != nil {
		uid = int(spec.User.UID)
	}
	spec.Limits = proc.Limits{
		Memory: uint64(l.app.Limits.Memory), PIDs: l.app.Limits.PIDs, CPU: l.app.Limits.CPU, Files: l.app.Limits.Files, Nice: l.app.Nice,
	}
	if err := p.openInput(&spec, l.app); err != nil {
		return nil, err
	}
	if theirs = append(theirs, spec.Stdin); p.input != nil {
		mine = append(mine, p.input)
	}
	var outs [2]*os.File
	for i, name := range []string{streamOut, streamErr} {
		if p.tty {
			spec.Stdout, spec.Stderr, outs[0] = spec.Stdin, spec.Stdin, p.input
			break
		}
		r, w, err := proc.Pipe(s.pipePath(l.id, name))
		if err != nil {
			return nil, err
		}
		outs[i], mine, theirs = r, append(mine, r), append(theirs, w)
		if i == 0 {
			spec.Stdout = w
		} else {
			spec.Stderr = w
		}
	}
	extra := make([]*os.File, 2)
	if n := l.app.Ready.FD; n > 0 {
		extra = make([]*os.File, max(2, n-2))
		r, w, err := proc.Pipe(s.pipePath(l.id, readySuffix))
		if err != nil {
			return nil, err
		}
		p.ready, extra[n-3] = r, w
		mine, theirs = append(mine, r), append(theirs, w)
	}
	conn, fd, perr := s.pair(l.app)
	if perr == nil {
		place := 0
		if extra[0] != nil { // the app's own
			place = 1
		}
		extra[place], theirs = fd, append(theirs, fd)
		spec.Env = append(spec.Env, "SIGNAL_FD="+strconv.Itoa(3+place))
		mine = append(mine, conn)
	} else if !errors.Is(perr, errors.ErrUnsupported) {
		return nil, perr
	}
	spec.Extra = extra
	secrets, err := s.putSecrets(l, uid)
	if err != nil {
		return nil, err
	}
	spec.Env = append(spec.Env, secrets...)
	env := p.listen(l.app, s.tells(l.id, l.mark), uid)
	spec.Env = append(spec.Env, env...)
	if p.child, err = s.host.Start(spec); err != nil {
		p.deafen()
		s.dropSecrets(l.id)
		return nil, err
	}
	if len(p.child.Missing) > 0 {
		text := "nothing here enforces: " + strings.Join(p.child.Missing, ", ")
		l.out.ring.Add(s.c.now(), streamNote, text)
		s.log.Warn(text, "id", l.id, "app", l.app.Name)
	}
	if conn != nil {
		s.wg.Go(func() { s.hub.Attach(s.ctx, l.id, conn) })
	}
	p.pumpAnew(l.out, outs)
	return p, nil
}

// pumpAnew reads the output of a new start.
func (p *process) pumpAnew(o outlet, outs [2]*os.File) {
	o.ring.add([]record{ // a new spool: nothing of it is done with
		{kind: kindMark, line: Line{Stream: streamOut}}, {kind: kindMark, line: Line{Stream: streamErr}},
	})
	for _, stream := range []string{streamOut, streamErr} {
		os.Remove(p.s.spoolPath(p.id, stream))
	}
	p.pump(o, outs[0], outs[1], offsets{})
}

// openInput gives a program its input: ours to write, a terminal, or nothing.
func (p *process) openInput(spec *proc.Spec, a *config.App) (err error) {
	switch {
	case a.Daemon:
		spec.Stdin, err = os.Open(os.DevNull)
	case a.TTY:
		p.tty, spec.TTY = true, true
		p.input, spec.Stdin, err = proc.OpenTTY()
	default:
		spec.Stdin, p.input, err = os.Pipe()
	}
	return err
}

// pair makes the connection that an app inherits; one that joins as in 2017 gets none.
func (s *Supervisor) pair(a *config.App) (*net.UnixConn, *os.File, error) {
	if a.Legacy {
		return nil, nil, errors.ErrUnsupported
	}
	return signal.Pair()
}

func (s *Supervisor) signalAddress(a *config.App) string {
	if a.Legacy && s.signalTCP != nil {
		return s.signalTCP.Addr().String()
	}
	return s.signalSocket()
}

func closeAll(list []io.Closer) {
	for _, c := range list {
		c.Close()
	}
}

// process is an app in a process tree of its own.
type process struct {
	s     *Supervisor
	id    uint64
	child *proc.Child
	input *os.File
	tty   bool     // input is a terminal, and the output too
	ready *os.File // readiness descriptor
	notes *net.UnixConn
	outs  []*os.File
	pumps sync.WaitGroup
}

// pump reads the output for as long as somebody can write, from where an earlier run was.
func (p *process) pump(o outlet, stdout, stderr *os.File, from offsets) {
	if p.tty {
		o.tap.remember()
	}
	for stream, f := range map[string]*os.File{streamOut: stdout, streamErr: stderr} {
		if f == nil {
			continue
		}
		p.outs = append(p.outs, f)
		sink := newSink(o, stream, p.s.c.now)
		var spool *proc.Spool // nil: a kill of viscript may cost what is being read
		if !p.tty {
			spool, _ = proc.OpenSpool(p.s.spoolPath(p.id, stream))
		}
		p.pumps.Go(func() {
			defer sink.flush()
			buf := make([]byte, 8<<10)
			if spool != nil {
				defer spool.Close()
				if sink.spooled(spool, buf, min(*from.of(stream), spool.Size()), f) == nil {
					return
				}
			}
			for {
				n, err := f.Read(buf)
				if n > 0 {
					sink.Write(buf[:n])
				}
				if err != nil {
					return
				}
			}
		})
	}
}

func (p *process) ID() proc.ID                        { return p.child.ID() }
func (p *process) Wait(ctx context.Context) proc.Exit { return p.child.Wait(ctx) }
func (p *process) Has(pid int) bool                   { return p.child.Has(pid) }
func (p *process) Usage() (proc.Usage, bool)          { return p.child.Usage(), true }

func (p *process) Signal(sig syscall.Signal) error {
	p.child.SignalFirst(sig)
	return nil
}

func (p *process) Input() io.WriteCloser {
	switch {
	case p.input == nil:
		return nil
	case p.tty:
		return ttyInput{p.input}
	}
	return p.input
}

// ttyInput is a terminal to write into: its end is a key, the terminal stays.
type ttyInput struct{ *os.File }

func (t ttyInput) Close() error {
	_, err := t.Write([]byte{4})
	return err
}

// Stop is described at running.
func (p *process) Stop(grace time.Duration, ask bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if ask && p.s.hub.Joined(p.id) {
		// The rest is for TERM, which many programs take as "at once" when it is the second request.
		most, cancel := context.WithTimeout(ctx, grace/5*4)
		err := p.s.hub.Call(most, p.id, "shutdown", map[string]any{"grace_ms": grace.Milliseconds(), "reason": "stop"}, nil)
		heard := err == nil || errors.Is(err, signal.ErrClosed) // it may be gone before the answer is out
		gone := heard && p.child.FirstGone(most)
		cancel()
		if gone && len(p.child.Members(true)) == 0 {
			return nil
		}
	}
	if len(p.child.Members(true)) == 0 {
		return nil
	}
	p.child.Signal(syscall.SIGTERM)
	if p.child.Empty(ctx) {
		return nil
	}
	left := p.child.Kill()
	if len(left) == 0 {
		return nil
	}
	var pids []string
	for _, id := range left {
		pids = append(pids, strconv.Itoa(id.PID))
	}
	return fmt.Errorf("still there after KILL: process %s (it hangs in the kernel)", strings.Join(pids, ", "))
}

// Follow is proc.Child's.
func (p *process) Follow(pid int) bool { return p.child.Follow(pid) }

// listen opens what the app may tell by, other than signal, and returns the environment that says so.
func (p *process) listen(a *config.App, tell func(said), uid int) (env []string) {
	if a.Ready.FD > 0 && p.ready == nil { // adopted
		p.ready, _ = proc.Reopen(p.s.pipePath(p.id, readySuffix))
	}
	if f := p.ready; f != nil {
		p.s.wg.Go(func() { awaitNewline(f, tell) })
	}
	if p.notes = p.s.listenNotify(p.id, uid); p.notes != nil {
		c := p.notes
		p.s.wg.Go(func() { hear(c, tell) })
		env = append(env, "NOTIFY_SOCKET="+p.s.notifyPath(p.id))
	}
	if a.Watchdog > 0 {
		env = append(env, "WATCHDOG_USEC="+strconv.FormatInt(time.Duration(a.Watchdog).Microseconds(), 10))
	}
	return env
}

// deafen undoes listen.
func (p *process) deafen() {
	if p.ready != nil {
		p.ready.Close()
		os.Remove(p.ready.Name())
	}
	if p.notes != nil {
		p.notes.Close()
		os.Remove(p.s.notifyPath(p.id))
	}
}

// Release reads what is left in the pipes and lets go.
func (p *process) Release() {
	p.deafen()
	if p.input != nil && !p.tty {
		p.input.Close()
	}
	deadline := time.Now().Add(waitOutput)
	for _, f := range p.outs {
		f.SetReadDeadline(deadline)
	}
	p.pumps.Wait()
	for _, f := range p.outs {
		f.Close()
		if p.tty { // its name is that of a device
			continue
		}
		os.Remove(f.Name())
		os.Remove(f.Name() + spoolSuffix)
	}
	p.child.Release()
}

// launchInproc runs f in this process. A panic of its first goroutine ends it alone.
func (s *Supervisor) launchInproc(l launch, f Inproc) running {
	ctx, cancel := context.WithCancel(s.ctx)
	stdin, input := io.Pipe()
	r := &inproc{cancel: cancel, input: input, done: make(chan struct{})}
	out, errs := newSink(l.out, streamOut, s.c.now), newSink(l.out, streamErr, s.c.now)
	if l.app.Daemon {
		input.Close()
	}
	env := s.environ(l)
	notes := s.listenNotify(l.id, -1) // it may tell by the same words as a process: its signal would be viscript's own
	if notes != nil {
		s.wg.Go(func() { hear(notes, s.tells(l.id, l.mark)) })
		env = append(env, "NOTIFY_SOCKET="+s.notifyPath(l.id))
	}
	s.wg.Go(func() {
		defer close(r.done)
		defer cancel()
		defer func() {
			if notes != nil {
				notes.Close()
				os.Remove(s.notifyPath(l.id))
			}
		}()
		defer func() {
			if p := recover(); p != nil {
				fmt.Fprintf(errs, "panic: %v\n%s", p, debug.Stack())
				r.code, r.panicked = 2, true
			}
			stdin.Close()
			out.flush()
			errs.flush()
		}()
		r.code = f(ctx, l.args, env, stdin, out, errs)
	})
	return r
}

// inproc is an app inside this process.
type inproc struct {
	cancel   context.CancelFunc
	input    *io.PipeWriter
	done     chan struct{}
	code     int // valid after done
	panicked bool
}

func (r *inproc) ID() proc.ID { return proc.ID{PID: os.Getpid()} }

func (r *inproc) Wait(context.Context) proc.Exit {
	<-r.done
	code := r.code
	return proc.Exit{Code: &code}
}

func (r *inproc) Stop(grace time.Duration, _ bool) error {
	r.cancel()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-r.done:
		return nil
	case <-t.C:
		return errors.New("it does not end, and runs inside viscript where it can't be killed")
	}
}

func (r *inproc) Usage() (proc.Usage, bool) { return proc.Usage{Source: "inproc"}, false }
func (r *inproc) Has(pid int) bool          { return pid == os.Getpid() }
func (r *inproc) Input() io.WriteCloser     { return r.input }
func (r *inproc) Release()                  {}

func (r *inproc) Signal(syscall.Signal) error {
	r.cancel()
	return nil
}
