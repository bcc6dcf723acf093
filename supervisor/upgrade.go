package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"skywire/signal"
	"skywire/supervisor/proc"
)

// handoverVariable tells the next program of this process which descriptors it was left: "pid=7 generation=1 control=5 3=9",
// where a number is an app whose input the descriptor is.
const handoverVariable = "VISCRIPT_HANDOVER"

const (
	// answerFirst lets the answer to the upgrade out before the program is replaced.
	answerFirst = 100 * time.Millisecond
	// versionTimeout is how long the new program may take to say its version.
	versionTimeout = 20 * time.Second
	// maxVersion is how much of it is read.
	maxVersion = 4 << 10
)

// Upgraded answers viscript.upgrade, before it happens.
type Upgraded struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Apps       int    `json:"apps"`       // that go on
	Generation int    `json:"generation"` // that status will tell when it has happened
}

// Upgrade replaces the program of this process by the file it was started from, which may be a new one. The process
// keeps its number and its children, so they go on and their exit status will be known; apps inside viscript are
// stopped before and started after. It returns before that happens.
func (s *Supervisor) Upgrade(ctx context.Context) (Upgraded, error) {
	if s.c.Exec == nil {
		return Upgraded{}, signal.Errorf(signal.ErrUnsupported, "upgrade: not on this system")
	}
	to, err := s.newVersion(ctx)
	if err != nil {
		return Upgraded{}, signal.Errorf(signal.ErrRefused, "the new program does not work, nothing was changed: %v", err)
	}
	if _, err := s.load(); err != nil {
		return Upgraded{}, signal.Errorf(signal.ErrRefused, "viscript would not start again, nothing was changed: %v", err)
	}
	up := Upgraded{From: s.c.Version, To: to}
	var rests []chan struct{}
	err = s.do(ctx, func() error {
		if err := s.closed(); err != nil {
			return err
		}
		s.frozen = true
		up.Generation = s.generation + 1
		for _, e := range s.entries() {
			if e.run == nil {
				continue
			}
			up.Apps++
			if e.app.Inproc {
				s.stop(e, 0, e.again || !e.asked)
				rests = append(rests, e.rest)
			}
		}
		return nil
	})
	if err != nil {
		return Upgraded{}, err
	}
	for _, rest := range rests {
		select {
		case <-rest:
		case <-ctx.Done():
			s.post(s.thaw)
			return Upgraded{}, ctx.Err()
		}
	}
	s.wg.Go(func() {
		t := time.NewTimer(answerFirst)
		defer t.Stop()
		select {
		case <-t.C:
		case <-s.ctx.Done():
		}
		s.post(s.replace)
	})
	return up, nil
}

// newVersion has the file say which version it is: one that can't is not worth the apps' lives.
func (s *Supervisor) newVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := s.output(ctx, []string{"skywire", "--version"}) // the name that knows the flag; the file may be called viscript
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", s.c.Self, err)
	}
	return signal.Printable(strings.TrimSpace(string(out[:min(len(out), 200)])), ""), nil
}

// output runs this program's file and reads what it prints, by os alone: os/exec costs a small box 28 kB more.
func (s *Supervisor) output(ctx context.Context, argv []string) ([]byte, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, err := os.StartProcess(s.c.Self, argv, &os.ProcAttr{Env: s.c.Environ, Files: []*os.File{nil, w, nil}})
	w.Close()
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() {
		_ = p.Kill()
		r.Close()
	})
	defer stop()
	out, err := io.ReadAll(io.LimitReader(r, maxVersion))
	if err != nil {
		_ = p.Kill()
	}
	st, waitErr := p.Wait()
	if waitErr == nil && !st.Success() {
		waitErr = errors.New(st.String())
	}
	return out, errors.Join(ctx.Err(), err, waitErr)
}

// replace is only for the loop, which stands still while it happens: the table is the one that was saved.
func (s *Supervisor) replace() {
	if s.closing {
		return
	}
	s.event(nil, "upgrading", s.c.Self)
	s.save()
	var names []string
	var conns []syscall.Conn
	add := func(name string, v any) {
		if c, ok := v.(syscall.Conn); ok {
			names, conns = append(names, name), append(conns, c)
		}
	}
	add("control", s.sock)
	add("signal", s.signalSock)
	if s.signalTCP != nil {
		add("tcp", s.signalTCP)
	}
	for _, e := range s.table {
		if p, ok := e.run.(*process); ok && p.input != nil {
			add(strconv.FormatUint(e.id, 10), p.input)
		}
	}
	err := errors.New("the state is not saved")
	if s.saveErr == nil {
		err = proc.Handing(conns, func(fds []int) error {
			text := fmt.Sprintf("pid=%d generation=%d", os.Getpid(), s.generation+1)
			for i, name := range names {
				text += fmt.Sprintf(" %s=%d", name, fds[i])
			}
			return s.c.Exec(append(withoutHandover(s.c.Environ), handoverVariable+"="+text))
		})
	}
	s.log.Error("not upgraded", "err", err)
	s.thaw()
}

// thaw lets apps start again after an upgrade that did not happen.
func (s *Supervisor) thaw() {
	s.frozen = false
	for _, e := range s.entries() {
		if e.state == Backoff {
			s.again(e, 0)
		}
	}
}

// closed says why nothing may be started now. Only for the loop.
func (s *Supervisor) closed() error {
	switch {
	case s.closing:
		return signal.Errorf(signal.ErrNotRunning, "viscript is shutting down")
	case s.frozen:
		return signal.Errorf(signal.ErrBusy, "an upgrade is under way")
	}
	return nil
}

func withoutHandover(environ []string) []string {
	var out []string
	for _, kv := range environ {
		if !strings.HasPrefix(kv, handoverVariable+"=") {
			out = append(out, kv)
		}
	}
	return out
}

// takeOver finds what the program before us in this process has left.
func (s *Supervisor) takeOver() {
	text := ""
	for _, kv := range s.c.Environ {
		if v, ok := strings.CutPrefix(kv, handoverVariable+"="); ok {
			text = v
		}
	}
	s.c.Environ = withoutHandover(s.c.Environ)
	fields := strings.Fields(text)
	if len(fields) == 0 || fields[0] != fmt.Sprintf("pid=%d", os.Getpid()) {
		return
	}
	s.handed = map[string]*os.File{}
	for _, f := range fields[1:] {
		name, num, _ := strings.Cut(f, "=")
		n, err := strconv.Atoi(num)
		switch {
		case err != nil:
		case name == "generation":
			s.generation = n
		default:
			if file := proc.Handed(n, name); file != nil {
				s.handed[name] = file
			}
		}
	}
}

// handedListener returns the listener that was left under name, nil if none was.
func (s *Supervisor) handedListener(name string) net.Listener {
	f := s.handed[name]
	if f == nil {
		return nil
	}
	delete(s.handed, name)
	defer f.Close() // the listener has a duplicate
	l, err := net.FileListener(f)
	if err != nil {
		s.log.Warn("socket not taken over", "socket", name, "err", err)
		return nil
	}
	return l
}

// dropHanded closes what nobody has taken.
func (s *Supervisor) dropHanded() {
	for _, f := range s.handed {
		f.Close()
	}
	s.handed = nil
}
