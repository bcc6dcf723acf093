package supervisor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

// reapAgain is when zombies that may be somebody else's children are looked at again.
const reapAgain = 4 * time.Second

// loop owns the table. It ends when ctx has ended and every app too.
func (s *Supervisor) loop(ctx context.Context) {
	done := ctx.Done()
	reap := time.NewTimer(time.Hour)
	reap.Stop()
	defer reap.Stop()
	beat, end := s.manager.beats()
	defer end()
	for {
		s.settle()
		s.tellStatus()
		if s.closing && !slices.ContainsFunc(slices.Collect(maps.Values(s.table)), (*entry).active) {
			return
		}
		select {
		case f := <-s.calls:
			f()
		case <-s.c.ChildEnded:
			if s.host.Reap() {
				reap.Reset(reapAgain)
			}
		case <-reap.C:
			if s.host.Reap() {
				reap.Reset(reapAgain)
			}
		case <-s.cron.C:
			s.scheduled()
		case <-s.c.ReloadAsked:
			s.wg.Go(func() {
				if _, err := s.Reload(s.ctx, false); err != nil {
					s.log.Error("config.yaml not read again, nothing was changed", "err", err)
				}
			})
		case <-beat:
			s.manager.tell("WATCHDOG=1")
		case <-done:
			done = nil
			s.tellStopping()
			s.closing, s.changed = true, true
		}
	}
}

// do runs f in the loop and returns its error.
func (s *Supervisor) do(ctx context.Context, f func() error) error {
	result := make(chan error, 1)
	select {
	case s.calls <- func() { result <- f() }:
		return <-result
	case <-s.ended:
		return signal.Errorf(signal.ErrNotRunning, "viscript is shutting down")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post runs f in the loop, later.
func (s *Supervisor) post(f func()) {
	select {
	case s.calls <- f:
	case <-s.ended:
	}
}

// entries returns the table, newest first. Only for the loop, as is all that follows in this file.
func (s *Supervisor) entries() []*entry {
	return slices.SortedFunc(maps.Values(s.table), func(a, b *entry) int { return cmp.Compare(b.id, a.id) })
}

func sortedApps(f *config.File) []*config.App {
	return slices.SortedFunc(maps.Values(f.Apps), func(a, b *config.App) int { return cmp.Compare(a.Name, b.Name) })
}

// start makes an entry and launches it. On error the entry, if there is one, is Failed.
func (s *Supervisor) start(a *config.App, args []string, sub *Subscriber) (*entry, error) {
	active, size := 0, 0
	for _, e := range s.table {
		if e.active() {
			active++
		}
	}
	for _, arg := range args {
		size += len(arg)
		if strings.ContainsRune(arg, 0) {
			return nil, signal.Errorf(signal.ErrUsage, "an argument holds a zero byte")
		}
	}
	if err := s.closed(); err != nil {
		return nil, err
	}
	switch {
	case active >= maxActive:
		return nil, signal.Errorf(signal.ErrBusy, "%d apps are running already", active)
	case size > maxArgs:
		return nil, signal.Errorf(signal.ErrUsage, "the arguments are longer than %d bytes", maxArgs)
	case sub != nil && a.Daemon:
		return nil, signal.Errorf(signal.ErrRefused, "%s is a daemon, it can't be attached to; see its output with: logs -f", a.Name)
	}
	if err := s.startNeeded(a); err != nil {
		return nil, fmt.Errorf("%s depends on it: %w", a.Name, err)
	}
	if len(args) == 0 {
		args = a.DefaultArgs
	}
	s.nextID++
	e := &entry{
		id: s.nextID, app: a, args: slices.Clone(args), policy: newPolicy(a),
		out: outlet{ring: NewRing(a.LogBytes), gate: newGate(s.c.now, rulesOf(a)), tap: newTap(sub)},
	}
	openJournal(s.pipePath(e.id, "")+journalSuffix, 0).close(true) // of a viscript whose ids were lost
	s.keepLines(e)
	s.forward(e)
	s.table[e.id] = e
	s.forget()
	return e, s.launch(e)
}

// launch starts the program of an entry, the first time or again.
func (s *Supervisor) launch(e *entry) error {
	e.exit, e.reason, e.note, e.asked, e.again, e.adopted, e.ready = nil, "", "", false, false, false, false
	e.started = s.c.now()
	e.stop, e.rest, e.broken = make(chan time.Duration, 1), make(chan struct{}), ""
	if s.hold(e) {
		return nil
	}
	token := random()
	e.mark, e.token = random(), hash(token)
	s.setState(e, Starting, "")
	s.save() // id and mark are known before anything runs under them
	run, err := s.c.launch(launch{
		id: e.id, app: e.app, args: e.args, out: e.out, mark: e.mark, token: token,
	})
	if err != nil {
		s.setState(e, Failed, "not started: "+err.Error())
		close(e.rest)
		e.out.tap.end()
		s.save()
		return fmt.Errorf("start %s: %w", e.app.Name, err)
	}
	s.watch(e, run, false)
	s.save()
	return nil
}

// watch hands a running app to the goroutine that waits for its end.
func (s *Supervisor) watch(e *entry, run running, adopted bool) {
	e.run = run
	s.mind(e, adopted)
	s.setState(e, Running, "")
	stop, grace := e.stop, time.Duration(e.app.StopTimeout)
	s.wg.Go(func() {
		exit, err := live(s.ctx, run, stop, grace)
		s.post(func() { s.atRest(e, exit, err) })
	})
}

// live waits until an app ends or is told to, ends all that is left of it, and returns how it went; err says what
// could not be ended.
func live(ctx context.Context, run running, stop <-chan time.Duration, grace time.Duration) (proc.Exit, error) {
	exited := make(chan proc.Exit, 1)
	// Not waited for when the process hangs in the kernel: it ends with it.
	go func() { exited <- run.Wait(ctx) }()
	select {
	case exit := <-exited:
		err := run.Stop(grace, false)
		run.Release()
		return exit, err
	case grace = <-stop:
	}
	err := run.Stop(grace, true)
	if err == nil {
		exit := <-exited
		run.Release()
		return exit, nil
	}
	run.Release()
	select {
	case exit := <-exited:
		return exit, err
	default:
		return proc.Exit{Unknown: true}, err
	}
}

// atRest records the end of an app and decides what follows.
func (s *Supervisor) atRest(e *entry, exit proc.Exit, err error) {
	ran := s.c.now().Sub(e.started)
	s.hub.Drop(e.id)
	if e.minder != nil {
		e.minder.cancel()
		e.minder = nil
	}
	e.run, e.exit, e.note = nil, &exit, ""
	s.dropSecrets(e.id)
	reason := describe(exit)
	if e.adopted {
		reason = "exit unknown (adopted)"
	}
	defer s.save()
	rest := e.rest
	defer close(rest)
	switch {
	case err != nil:
		s.setState(e, Failed, reason+"; "+err.Error())
	case e.asked && e.again && !s.closing:
		e.policy.row = 0
		if len(e.app.Hooks.Restart) > 0 && !s.frozen {
			s.setState(e, Backoff, "told to start again")
			s.again(e, 0)
			return
		}
		if s.frozen { // the program that replaces this one starts it
			s.setState(e, Backoff, "viscript is upgraded")
			return
		}
		e.restarts++
		s.setState(e, Exited, "stopped")
		e.rest = make(chan struct{}) // the launch makes another; whoever waits for rest has the old one
		if err := s.launch(e); err != nil {
			s.log.Error("app not started again", "id", e.id, "app", e.app.Name, "err", err)
		}
		return
	case e.asked:
		s.setState(e, Exited, strings.TrimSuffix("stopped, "+reason, ", status 0"))
	default:
		if e.broken != "" { // however it ended then
			exit, reason = proc.Exit{Unknown: true}, e.broken+"; "+reason
		}
		s.afterEnd(e, exit, ran, reason)
	}
	if !e.active() {
		e.out.tap.end()
		e.out.ring.idle()
	}
}

// afterEnd asks the policy what follows an end that nobody asked for.
func (s *Supervisor) afterEnd(e *entry, exit proc.Exit, ran time.Duration, reason string) {
	state, delay := e.policy.next(exit, ran)
	if state == Failed && e.restarts > 0 && e.policy.limit > 0 && e.policy.row >= e.policy.limit {
		reason += fmt.Sprintf("; given up after %d restarts", e.policy.row)
	}
	s.setState(e, state, reason)
	if state == Backoff {
		if s.closing {
			s.setState(e, Exited, reason)
			return
		}
		s.again(e, delay)
	}
}

// again starts an entry after delay.
func (s *Supervisor) again(e *entry, delay time.Duration) {
	e.timer = time.AfterFunc(delay, func() {
		s.post(func() {
			if e.state != Backoff || s.frozen {
				return
			}
			hook := e.app.Hooks.Restart
			if len(hook) == 0 {
				s.launchAgain(e)
				return
			}
			app, reason := e.app, e.reason
			s.wg.Go(func() {
				s.hook(s.ctx, app, e.out.ring, e.id, "restart", reason, hook)
				s.post(func() { s.launchAgain(e) })
			})
		})
	})
}

func (s *Supervisor) launchAgain(e *entry) {
	if e.state != Backoff || s.frozen {
		return
	}
	e.restarts++
	if err := s.launch(e); err != nil {
		s.log.Error("app not started again", "id", e.id, "app", e.app.Name, "err", err)
		s.retry(e)
	}
}

// retry treats a launch that failed as an end with an error, so that a program that is missing for a moment (an
// upgrade, a disk not yet there) is tried again.
func (s *Supervisor) retry(e *entry) {
	code := 1
	s.afterEnd(e, proc.Exit{Code: &code}, 0, e.reason)
}

// stop tells an entry to end. It does not wait: e.rest is closed when it has. grace 0 means the app's own.
func (s *Supervisor) stop(e *entry, grace time.Duration, again bool) {
	if grace <= 0 {
		grace = time.Duration(e.app.StopTimeout)
	}
	switch {
	case e.state == Backoff:
		if e.timer != nil {
			e.timer.Stop()
		}
		s.setState(e, Exited, "stopped, "+e.reason)
		if again {
			e.restarts++
			if err := s.launch(e); err != nil {
				s.log.Error("app not started again", "id", e.id, "app", e.app.Name, "err", err)
			}
			return
		}
		e.out.tap.end()
		s.save()
	case e.held && again: // it starts as soon as it may
	case e.held:
		e.held = false
		s.setState(e, Exited, "stopped before it was started")
		s.rest(e)
	case e.run == nil:
	default:
		e.asked, e.again = true, again
		s.setState(e, Stopping, "")
		s.save()
		select {
		case e.stop <- grace:
		default: // told already
		}
	}
}

// becomeReady notes that an app serves.
func (s *Supervisor) becomeReady(e *entry) {
	if e.minder != nil && !e.ready {
		close(e.minder.ready)
	}
	e.ready = true
	if e.state == Running || e.state == Starting {
		s.setState(e, Ready, "")
		s.save()
	}
}

// setState changes the state and tells the events.
func (s *Supervisor) setState(e *entry, to State, reason string) {
	if e.state == to && reason == e.reason {
		return
	}
	e.state, s.changed = to, true
	e.reason = reason
	switch to {
	case Failed:
		s.failed(e)
	case Backoff:
		s.event(e, string(to), reason)
		s.log.Warn("app "+string(to), "id", e.id, "app", e.app.Name, "reason", reason)
	default:
		s.event(e, string(to), reason)
		s.log.Info("app "+string(to), "id", e.id, "app", e.app.Name, "reason", reason)
	}
	if reason != "" {
		e.out.ring.Add(s.c.now(), streamNote, string(to)+": "+reason)
	}
}

// lastWords is how many lines of an app that has failed go with the news.
const lastWords = 5

// failed says loudly that an app was given up, with the last that it said.
func (s *Supervisor) failed(e *entry) {
	lines, _ := e.out.ring.Last(4 * lastWords)
	var last []string
	for _, l := range lines {
		if l.Stream != streamNote {
			last = append(last, l.Text)
		}
	}
	last = last[max(0, len(last)-lastWords):]
	s.tell(e, Event{Event: string(Failed), Reason: e.reason, Last: last})
	s.log.Error("app failed", "id", e.id, "app", e.app.Name, "reason", e.reason, "cause", strings.Join(last, " | "))
	if hook := e.app.Hooks.Failed; len(hook) > 0 {
		app, reason := e.app, e.reason
		s.wg.Go(func() { s.hook(s.ctx, app, e.out.ring, e.id, "failed", reason, hook) })
	}
}

// Event is one line of events.
type Event struct {
	Seq    uint64    `json:"seq,omitempty"` // counts from 1, also over a kill of viscript
	Time   time.Time `json:"time"`
	ID     uint64    `json:"id,omitempty"`
	App    string    `json:"app,omitempty"`
	Event  string    `json:"event"`
	Reason string    `json:"reason,omitempty"`
	Last   []string  `json:"last,omitempty"` // lines of an app that has failed
}

func (s *Supervisor) event(e *entry, what, reason string) {
	s.tell(e, Event{Event: what, Reason: reason})
}

func (s *Supervisor) tell(e *entry, ev Event) {
	ev.Time = s.c.now().UTC()
	if e != nil {
		ev.ID, ev.App = e.id, e.app.Name
	}
	b, err := json.Marshal(ev)
	if err == nil {
		s.bus.Add(ev.Time, "event", string(b))
	}
}

// forget drops the oldest entries that have ended.
func (s *Supervisor) forget() {
	ended := 0
	for _, e := range s.entries() {
		if e.active() {
			continue
		}
		if ended++; ended > keepEnded {
			delete(s.table, e.id)
			if e.endForward != nil {
				e.endForward()
			}
			e.out.ring.close(true)
		}
	}
}

// find resolves "3", "name" or "name#3". A plain name means the one that runs, or else the last that did.
func (s *Supervisor) find(ref string) (*entry, error) {
	name, num, both := strings.Cut(ref, "#")
	if !both {
		if _, err := strconv.ParseUint(ref, 10, 64); err == nil {
			name, num = "", ref
		}
	}
	if num != "" {
		id, err := strconv.ParseUint(num, 10, 64)
		e := s.table[id]
		if err != nil || e == nil || name != "" && e.app.Name != name {
			return nil, signal.Errorf(signal.ErrNotFound, "no app with id %s; see: viscript ps -a", ref)
		}
		return e, nil
	}
	var active, ended []*entry
	for _, e := range s.entries() {
		switch {
		case e.app.Name != name:
		case e.active():
			active = append(active, e)
		default:
			ended = append(ended, e)
		}
	}
	switch {
	case len(active) == 1:
		return active[0], nil
	case len(active) > 1:
		var names []string
		for _, e := range slices.Backward(active) {
			names = append(names, fmt.Sprintf("%s#%d", name, e.id))
		}
		return nil, signal.Errorf(signal.ErrUsage, "%s runs more than once: say %s", name, strings.Join(names, " or "))
	case len(ended) > 0:
		return ended[0], nil
	case s.file.Apps[name] != nil:
		return nil, signal.Errorf(signal.ErrNotRunning, "%s is not running; start it with: viscript start %s", name, name)
	}
	return nil, signal.Errorf(signal.ErrNotFound, "no app %q; see: viscript ps", ref)
}

func describe(e proc.Exit) string {
	switch {
	case e.OOM:
		return "out of memory: killed by the kernel"
	case e.Code != nil && *e.Code == 0:
		return "status 0"
	case e.Code != nil:
		return fmt.Sprintf("exit status %d", *e.Code)
	case e.Signal != "":
		if e.Core {
			return "signal SIG" + e.Signal + ", core dumped"
		}
		return "signal SIG" + e.Signal
	}
	return "exit unknown"
}
