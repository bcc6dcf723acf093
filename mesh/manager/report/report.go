package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/signal"
)

// Timing of a Reporter.
const (
	backoffFirst = time.Second
	backoffMost  = 30 * time.Second
	dialTimeout  = 15 * time.Second
	callTimeout  = 10 * time.Second
	maxWants     = 256 // destinations with proposals; more are not asked for
	maxRounds    = 64  // of one comparison of records
)

// SyncEvery is how often records are compared, an eighth more or less: a few bytes if nothing changed. It is also the
// heartbeat by which both sides notice that the other is gone.
const SyncEvery = 10 * time.Second

// Node is what a Reporter needs of the node.
type Node interface {
	// OwnRecord returns the node's record as signed last, nil if there is none yet.
	OwnRecord() []byte
	// Digests returns the sum and digests of all records held (route.DB.Sum, Digests).
	Digests() (sum uint64, parts []route.Digest)
	// Records returns those of the records that are held.
	Records(keys []key.Public) []Record
	// PutRecord offers a record that a manager sent; the node verifies it.
	PutRecord(from key.Public, r Record)
	// DialService opens a stream to a service of a node.
	DialService(ctx context.Context, to key.Public, service string) (io.ReadWriteCloser, error)
	// Propose hands over a manager's proposal; the node judges it.
	Propose(p Proposal)
}

// State of the tie to one manager.
type State string

// States.
const (
	Connecting  State = "connecting"
	Registered  State = "registered"
	Unreachable State = "unreachable"
)

// Status is the tie to one manager.
type Status struct {
	Manager key.Public
	State   State
	Reason  string // of Unreachable
	Since   time.Time
}

// Config of a Reporter.
type Config struct {
	Node     Node
	Network  key.NetworkID
	Managers []key.Public // in order of preference
	Program  string       // version of the program, for the manager's list
	Log      *slog.Logger
}

// Validate tells what is missing.
func (c Config) Validate() error {
	switch {
	case c.Node == nil:
		return errors.New("report: no node")
	case c.Log == nil:
		return errors.New("report: no log")
	}
	for i, k := range c.Managers {
		if slices.Contains(c.Managers[:i], k) {
			return fmt.Errorf("report: manager %s is named twice", k.Short())
		}
	}
	return nil
}

// Reporter keeps the ties. The zero value is of no use.
type Reporter struct {
	c    Config
	ties []*tie

	mu    sync.Mutex // guards the fields below, and those of the ties that say so
	wants map[key.Public]int
}

type tie struct {
	r       *Reporter
	manager key.Public
	wake    chan struct{} // capacity 1: own record or wants may have changed

	status Status // guarded by Reporter.mu
	last   uint64 // number of the newest proposal; guarded by Reporter.mu
}

// New makes a Reporter.
func New(c Config) (*Reporter, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Reporter{c: c, wants: make(map[key.Public]int)}
	for _, m := range c.Managers {
		t := &tie{r: r, manager: m, wake: make(chan struct{}, 1)}
		t.status = Status{Manager: m, State: Connecting, Since: time.Now()}
		r.ties = append(r.ties, t)
	}
	return r, nil
}

// Run keeps the ties until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for _, t := range r.ties {
		all.Go(func() { t.run(ctx) })
	}
	all.Wait()
	return nil
}

// OwnChanged tells that OwnRecord returns a new one. It does not block.
func (r *Reporter) OwnChanged() { r.wakeAll() }

// Want asks all managers for up to k paths to a node, now and whenever the mesh changes; k 0 ends that. It reports
// false if too many destinations are wanted already. It does not block.
func (r *Reporter) Want(to key.Public, k int) bool {
	r.mu.Lock()
	held, known := r.wants[to]
	if k > 0 && !known && len(r.wants) >= maxWants {
		r.mu.Unlock()
		return false
	}
	if k > 0 {
		r.wants[to] = k
	} else {
		delete(r.wants, to)
	}
	r.mu.Unlock()
	if held != k {
		r.wakeAll()
	}
	return true
}

func (r *Reporter) wakeAll() {
	for _, t := range r.ties {
		select {
		case t.wake <- struct{}{}:
		default: // it will look at everything anyway
		}
	}
}

// Status returns the ties in order of preference.
func (r *Reporter) Status() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Status, len(r.ties))
	for i, t := range r.ties {
		all[i] = t.status
	}
	return all
}

// Preferred returns the first tie that is registered, else the first; ok is false if no manager is configured.
func (r *Reporter) Preferred() (s Status, ok bool) {
	all := r.Status()
	if len(all) == 0 {
		return Status{}, false
	}
	if i := slices.IndexFunc(all, func(s Status) bool { return s.State == Registered }); i >= 0 {
		return all[i], true
	}
	return all[0], true
}

func (t *tie) set(s State, reason string) {
	t.r.mu.Lock()
	changed := t.status.State != s || t.status.Reason != reason
	if changed {
		t.status.State, t.status.Reason, t.status.Since = s, reason, time.Now()
	}
	t.r.mu.Unlock()
	switch {
	case !changed:
	case s == Registered:
		t.r.c.Log.Info("manager registered", "manager", t.manager)
	case s == Unreachable:
		t.r.c.Log.Warn("manager unreachable", "manager", t.manager, "err", reason)
	}
}

// run holds one tie: connect, serve until it breaks, wait longer each time that it could not be made.
func (t *tie) run(ctx context.Context) {
	for wait := backoffFirst; ; wait = min(2*wait, backoffMost) {
		registered, err := t.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		if registered {
			wait = backoffFirst
		}
		t.set(Unreachable, err.Error())
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// connect makes the stream and serves it; it always returns an error, and whether the manager had taken us.
func (t *tie) connect(ctx context.Context) (registered bool, err error) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	rw, err := t.r.c.Node.DialService(dialCtx, t.manager, Service)
	cancel()
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	conn := signal.NewConn(rw, t.handle)
	var running sync.WaitGroup
	var runErr error
	running.Go(func() { runErr = conn.Run(ctx) })
	registered, err = t.serve(ctx, conn)
	conn.Close()
	running.Wait()
	if errors.Is(err, ErrEnded) && runErr != nil {
		err = fmt.Errorf("%w: %w", err, runErr)
	}
	return registered, err
}

// serve registers and then keeps the manager informed until the stream breaks.
func (t *tie) serve(ctx context.Context, conn *signal.Conn) (registered bool, err error) {
	var w Welcome
	hello := Hello{Version: Version, Network: t.r.c.Network, Program: t.r.c.Program}
	if err := call(ctx, conn, MethodHello, hello, &w); err != nil {
		return false, err
	}
	if w.Manager != t.manager {
		return false, fmt.Errorf("manager says that it is %s", w.Manager.Short())
	}
	t.r.mu.Lock()
	t.last = 0 // a manager counts its proposals anew after a start
	t.r.mu.Unlock()
	t.set(Registered, "")
	s := session{tie: t, conn: conn, asked: make(map[key.Public]int)}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, ctx.Err()
		case <-conn.Done():
			return true, ErrEnded
		case <-t.wake:
			err = s.tell(ctx)
		case <-tick.C:
			if err = s.tell(ctx); err == nil {
				err = s.compare(ctx)
			}
			tick.Reset(SyncEvery - SyncEvery/8 + rand.N(SyncEvery/4))
		}
		if err != nil {
			return true, err
		}
	}
}

func call(ctx context.Context, conn *signal.Conn, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := conn.Call(ctx, method, params, result); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// session is what one stream has been told.
type session struct {
	*tie
	conn  *signal.Conn
	own   string
	asked map[key.Public]int
}

// tell brings the manager up to date on the own record and the wishes.
func (s *session) tell(ctx context.Context) error {
	if raw := s.r.c.Node.OwnRecord(); raw != nil && string(raw) != s.own {
		if err := s.put(ctx, Record{Raw: raw}); err != nil {
			return err
		}
		s.own = string(raw)
	}
	s.r.mu.Lock()
	wants := make(map[key.Public]int, len(s.r.wants))
	for to, k := range s.r.wants {
		wants[to] = k
	}
	s.r.mu.Unlock()
	for to := range s.asked {
		if wants[to] == 0 {
			wants[to] = 0 // was asked for, is no longer wanted
		}
	}
	for to, k := range wants {
		if s.asked[to] == k {
			continue
		}
		var p Proposal
		if err := call(ctx, s.conn, MethodWant, Want{To: to, K: k}, &p); broken(err) {
			return err
		} else if errors.Is(err, signal.ErrBusy) {
			continue // asked again at the next turn
		} else if err == nil && k > 0 {
			s.propose(p)
		}
		if s.asked[to] = k; k == 0 {
			delete(s.asked, to)
		}
	}
	return nil
}

// put sends a record. That the manager does not want it is no reason to leave.
func (s *session) put(ctx context.Context, r Record) error {
	err := call(ctx, s.conn, MethodPut, r, nil)
	if broken(err) {
		return err
	}
	if err != nil {
		s.r.c.Log.Debug("manager refused a record", "manager", s.manager, "err", err)
	}
	return nil
}

// broken tells an error of the stream from an answer of the manager's. No answer in time counts as the former.
func broken(err error) bool {
	var answer *signal.Error
	return err != nil && !errors.As(err, &answer)
}

// compare evens out the records: a sum, and only if it differs the digests.
func (s *session) compare(ctx context.Context) error {
	sum, parts := s.r.c.Node.Digests()
	var n News
	if err := call(ctx, s.conn, MethodGet, Get{Sum: Sum(sum)}, &n); err != nil || n.Equal {
		return err
	}
	for round := 0; len(parts) > 0 && round < maxRounds; round++ {
		var n News
		if err := call(ctx, s.conn, MethodGet, Get{Digest: parts[0].Append(nil)}, &n); err != nil {
			return err
		}
		for _, r := range n.Records {
			s.r.c.Node.PutRecord(s.manager, r)
		}
		for _, r := range s.r.c.Node.Records(n.Want) {
			if err := s.put(ctx, r); err != nil {
				return err
			}
		}
		last := parts[0].Last
		parts = parts[1:]
		if n.More {
			// What came is in the digests now, so the same question gets the next answer.
			_, fresh := s.r.c.Node.Digests()
			first := slices.IndexFunc(fresh, func(d route.Digest) bool { return !d.Last.Less(last) })
			parts = fresh[max(first, 0):]
		}
	}
	return nil
}

// handle takes the manager's notifications.
func (t *tie) handle(_ context.Context, r *signal.Request) (any, error) {
	if r.Method != NotifyPropose {
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	var p Proposal
	if err := r.Bind(&p); err != nil {
		return nil, err
	}
	t.propose(p)
	return nil, nil
}

// propose passes on what is this manager's own word and not older than its last.
func (t *tie) propose(p Proposal) {
	t.r.mu.Lock()
	_, wanted := t.r.wants[p.To]
	ok := wanted && p.Manager == t.manager && p.Number > t.last && p.LifeS > 0 && len(p.Paths) <= route.MaxPaths
	if ok {
		t.last = p.Number
	}
	t.r.mu.Unlock()
	if ok {
		t.r.c.Node.Propose(p)
	}
}
