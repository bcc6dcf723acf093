package peering

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const (
	maxVisits  = 8
	visitIdle  = 5 * time.Minute
	visitLook  = 15 * time.Second
	visitStart = 20 * time.Second // for a visitor to come up, and to reach its host
	visitAgain = 200 * time.Millisecond
)

// Visit is what a visitor is run with: a node of its own, with a key of its own that nobody knows, in another network.
type Visit struct {
	State   string     // directory, new and empty
	Run     string     // directory for its socket
	Cluster key.Public // the zero key: the open network
	Node    key.Public // whom it visits
	Peers   []member.Contact
	Ready   func() // to be called once when the socket answers
}

// VisitsConfig of Visits.
type VisitsConfig struct {
	Home *app.Client
	// Dir is where visitors have their directories, best in memory: nothing in them outlives the visit. Sockets lie three
	// levels below it, so its path has at most 80 letters.
	Dir string
	// Start runs a visitor until ctx ends.
	Start func(ctx context.Context, v Visit) error
	Log   *slog.Logger
}

// Visits reaches nodes of any network: of the own one through the node beside, of others by visitors, which are started
// when they are needed and end when they are not. It is the Mesh of a messenger.
//
// Lock order: mu alone, no I/O with it held.
type Visits struct {
	c VisitsConfig

	mu     sync.Mutex // guards the fields below
	base   context.Context
	all    map[visitKey]*visit
	number int
	work   sync.WaitGroup
}

// visitKey: one visitor for each host, since a guest has one path.
type visitKey struct {
	network key.NetworkID
	node    key.Public
}

type visit struct {
	visitKey
	end   context.CancelFunc
	ready chan struct{} // closed when client or err is set
	gone  chan struct{} // closed when the visitor has ended
	// client and err are set before ready closes.
	client *app.Client
	err    error

	users int       // guarded by Visits.mu
	idle  time.Time // since when there are none; guarded by Visits.mu
}

// NewVisits makes Visits; other networks can be visited while Run runs.
func NewVisits(c VisitsConfig) *Visits {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Visits{c: c, all: map[visitKey]*visit{}}
}

// Run ends visits that nobody needs any more, and all of them when ctx ends.
func (v *Visits) Run(ctx context.Context) error {
	if err := os.RemoveAll(v.c.Dir); err != nil { // of one that was killed
		return fmt.Errorf("visits: %w", err)
	}
	v.mu.Lock()
	v.base = ctx
	v.mu.Unlock()
	tick := time.NewTicker(visitLook)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			v.mu.Lock()
			v.base = nil
			for _, w := range v.all {
				w.end()
			}
			v.mu.Unlock()
			v.work.Wait()
			return nil
		case now := <-tick.C:
			v.mu.Lock()
			for _, w := range v.all {
				if w.users == 0 && now.Sub(w.idle) >= visitIdle {
					w.end()
				}
			}
			v.mu.Unlock()
		}
	}
}

// Self is the home node.
func (v *Visits) Self() app.Info { return v.c.Home.Self() }

// Accept takes the next stream to a service of the home node. Whose it is has to be proven in it: of a guest the node knows
// the key of a visitor, which says nothing.
func (v *Visits) Accept(ctx context.Context, service string) (net.Conn, error) {
	in, err := v.c.Home.Accept(ctx, service)
	if err != nil {
		return nil, err
	}
	return in.Accept(nil)
}

// Dial opens a stream to a service of a node at a place. The node must be one that receives guests (role border, messenger or
// manager) and the service one that is for guests, if the place is of another network.
func (v *Visits) Dial(ctx context.Context, at envelope.Place, node key.Public, service string, header []byte) (net.Conn, error) {
	s, release, _, err := v.dial(ctx, at, node, service, func(key.Public) []byte { return header })
	if err != nil {
		return nil, err
	}
	return &visitStream{Stream: s, release: release}, nil
}

// visitStream keeps its visit while it is open.
type visitStream struct {
	*app.Stream
	release func()
}

func (s *visitStream) Close() error {
	defer s.release()
	return s.Stream.Close()
}

// dial opens a stream, with a header made for the key under which the other side will see us; release is to be called when
// the stream is done with, which is later than its Close where it was handed over. end ends the visit with all its streams,
// nil at home.
func (v *Visits) dial(ctx context.Context, at envelope.Place, node key.Public, service string, header func(self key.Public) []byte) (s *app.Stream, release, end func(), err error) {
	return dialFrom(ctx, v, at, node, func(ctx context.Context, c *app.Client) (*app.Stream, error) {
		return c.Dial(ctx, node, service, header(c.Self().Key))
	})
}

// dialFrom has a client in the place's network dial: the home node's, or that of a visitor.
func dialFrom[S any](ctx context.Context, v *Visits, at envelope.Place, node key.Public, dial func(ctx context.Context, c *app.Client) (S, error)) (s S, release, end func(), err error) {
	var none S
	if at.Network() == v.c.Home.Self().Network {
		s, err = dial(ctx, v.c.Home)
		if err == nil || !at.Cluster.IsZero() || len(at.Contacts) == 0 || !elsewhere(err) {
			return s, func() {}, nil, err
		}
	}
	w, err := v.enter(at, node)
	if err != nil {
		return none, nil, nil, err
	}
	leave := sync.OnceFunc(func() { v.leave(w) })
	defer func() {
		if err != nil {
			leave()
		}
	}()
	select {
	case <-ctx.Done():
		return none, nil, nil, ctx.Err()
	case <-w.ready:
	}
	if w.err != nil {
		return none, nil, nil, w.err
	}
	err = w.reach(ctx, func(ctx context.Context) (err error) {
		s, err = dial(ctx, w.client)
		return err
	})
	return s, leave, w.end, err
}

// elsewhere tells errors of a node that is not in this mesh.
func elsewhere(err error) bool {
	return errors.Is(err, signal.ErrUnreachable) || errors.Is(err, signal.ErrNotFound) || errors.Is(err, signal.ErrTimeout)
}

// reach dials from a visitor, again while its first link is not up.
func (w *visit) reach(ctx context.Context, dial func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, visitStart)
	defer cancel()
	var last error
	for {
		err := dial(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if ctx.Err() != nil || !errors.Is(err, signal.ErrUnreachable) {
			return last
		}
		t := time.NewTimer(visitAgain)
		select {
		case <-ctx.Done():
		case <-w.gone:
		case <-t.C:
		}
		t.Stop()
	}
}

// enter finds or begins the visit to a node, and counts its user.
func (v *Visits) enter(at envelope.Place, node key.Public) (*visit, error) {
	k := visitKey{at.Network(), node}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.base == nil {
		return nil, signal.Errorf(signal.ErrNotRunning, "no visits: the program ends")
	}
	if w := v.all[k]; w != nil {
		w.users++
		return w, nil
	}
	if len(v.all) >= maxVisits && !v.makeRoomLocked() {
		return nil, errTooMany
	}
	ctx, cancel := context.WithCancel(v.base)
	v.number++
	w := &visit{visitKey: k, end: cancel, ready: make(chan struct{}), gone: make(chan struct{}), users: 1}
	v.all[k] = w
	dir := filepath.Join(v.c.Dir, strconv.Itoa(v.number)+"-"+hex.EncodeToString(k.network[:2]))
	v.work.Go(func() { v.run(ctx, w, at, dir) })
	return w, nil
}

// makeRoomLocked forgets the visit that is idle longest; its node may still be ending.
func (v *Visits) makeRoomLocked() bool {
	var oldest *visit
	for _, w := range v.all {
		if w.users == 0 && (oldest == nil || w.idle.Before(oldest.idle)) {
			oldest = w
		}
	}
	if oldest == nil {
		return false
	}
	oldest.end()
	delete(v.all, oldest.visitKey)
	return true
}

func (v *Visits) leave(w *visit) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.users--
	w.idle = time.Now()
}

// run is the life of one visitor.
func (v *Visits) run(ctx context.Context, w *visit, at envelope.Place, dir string) {
	defer func() {
		v.mu.Lock()
		if v.all[w.visitKey] == w {
			delete(v.all, w.visitKey)
		}
		v.mu.Unlock()
		if err := os.RemoveAll(dir); err != nil {
			v.c.Log.Warn("directory of visit not removed", "err", err)
		}
		close(w.gone)
	}()
	up := make(chan struct{})
	failed := make(chan error, 1)
	v.work.Go(func() { failed <- v.start(ctx, w, at, dir, up) })
	select {
	case w.err = <-failed:
		w.end()
		close(w.ready)
		return
	case <-up:
	}
	step, cancel := context.WithTimeout(ctx, visitStart)
	w.client, w.err = app.Dial(step, filepath.Join(dir, "run"))
	cancel()
	if w.err != nil {
		w.end()
	} else {
		v.c.Log.Info("visit begins", "to", w.network, "peer", w.node)
		defer w.client.Close()
	}
	close(w.ready)
	if err := <-failed; err != nil && ctx.Err() == nil {
		v.c.Log.Warn("visitor ended", "to", w.network, "err", err)
	}
	w.end()
	v.c.Log.Info("visit is over", "to", w.network, "peer", w.node)
}

func (v *Visits) start(ctx context.Context, w *visit, at envelope.Place, dir string, up chan struct{}) error {
	x := Visit{
		State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"), Cluster: at.Cluster, Node: w.node, Peers: at.Contacts,
		Ready: sync.OnceFunc(func() { close(up) }),
	}
	if len(at.Contacts) == 0 {
		return signal.Errorf(signal.ErrUnreachable, "%s is in another network, and no address there is known", w.node.Short())
	}
	for _, d := range []string{x.State, x.Run} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return fmt.Errorf("visit: %w", err)
		}
	}
	err := v.c.Start(ctx, x)
	if err == nil && ctx.Err() == nil {
		err = signal.ErrNotRunning
	}
	return err
}

// VisitStatus is a visit, for people.
type VisitStatus struct {
	Network key.NetworkID `json:"network"`
	Node    key.Public    `json:"node"`
	Users   int           `json:"users"`
}

// Status lists the visits.
func (v *Visits) Status() []VisitStatus {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := []VisitStatus{}
	for _, w := range v.all {
		all = append(all, VisitStatus{w.network, w.node, w.users})
	}
	return all
}
