package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager/report"
	"skywire/mesh/member"
	"skywire/mesh/route"
	"skywire/mesh/store"
	"skywire/signal"
)

// Limits and times of a manager.
const (
	maxSessions  = 1024 // nodes with a stream; one more is refused
	maxWants     = 256  // destinations one node gets proposals for
	proposalLife = 10 * time.Minute
	gather       = 200 * time.Millisecond // changes of this long are answered together
	housekeeping = 10 * time.Second
	saveEvery    = time.Minute
	localSmall   = 2 * time.Second  // how often the node beside us is asked for its records, in a small mesh
	localLarge   = 10 * time.Second // the same where the answer is long
	smallMesh    = 64               // records
	callTimeout  = 10 * time.Second
	freshLife    = 36 * time.Minute         // a little more than a node takes to sign anew
	renewEvery   = time.Minute              // how often proposals that run out are looked for
	helloTime    = 10 * time.Second         // for a node to introduce itself
	liveTime     = report.SyncEvery * 3 / 2 // a node that asked something so long ago is there
	silentLife   = report.SyncEvery * 4     // after this, its stream is closed
	paceStep     = 20 * time.Millisecond
	paceBurst    = 100 // requests of one node at once, then one each paceStep
)

// Node is what the manager needs of the node beside it. FromApp makes one of an app.Client.
type Node interface {
	Self() app.Info
	Register(ctx context.Context, r app.Registration) error
	OnCall(h app.CallHandler)
	// AcceptStream waits for the next stream to the service.
	AcceptStream(ctx context.Context, service string) (peer key.Public, rw io.ReadWriteCloser, err error)
	// LocalRecords returns the records that this node holds, its own among them.
	LocalRecords(ctx context.Context) ([]report.Record, error)
	Status(v any) error
}

// Config of a Manager.
type Config struct {
	Node    Node
	Store   *store.DB // nil: records are learnt anew after a start
	Program string    // version of the program
	Issuer  Signer    // an *Issuer; nil: nobody joins the cluster here
	Log     *slog.Logger
	// Life and Resign are route.DBConfig's.
	Life, Resign time.Duration
}

// Signer lets nodes into the cluster: an *Issuer. Builds for MIPS have none unless they are made with the tag issuer; it
// costs 0.2 MB of their 12.
type Signer interface {
	// Run serves joiners until ctx ends.
	Run(ctx context.Context) error
	// Call answers people.
	Call(ctx context.Context, method string, params json.RawMessage) (any, error)
}

// Validate tells what is missing.
func (c Config) Validate() error {
	switch {
	case c.Node == nil:
		return errors.New("manager: no node")
	case c.Log == nil:
		return errors.New("manager: no log")
	}
	return nil
}

// Manager is a running manager.
type Manager struct {
	c       Config
	start   time.Time
	dirty   chan struct{} // capacity 1: the graph may have changed
	number  atomic.Uint64 // of the last proposal
	running atomic.Bool

	mu       sync.Mutex // guards the fields below, and those of the sessions that say so
	db       *route.DB
	network  key.NetworkID // of db
	sessions map[key.Public]*session
	seen     map[key.Public]time.Time // end of the last stream of nodes without one
	unsaved  bool
	graph    *route.Graph // of the records held; nil: to be made anew
}

// New makes a Manager; Run starts it.
func New(c Config) (*Manager, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{
		c: c, start: time.Now(), dirty: make(chan struct{}, 1),
		sessions: make(map[key.Public]*session),
		seen:     make(map[key.Public]time.Time),
	}
	m.enter(c.Node.Self().Network)
	return m, nil
}

// enter begins with the records of a network from nothing: those of another verify in it no more.
func (m *Manager) enter(network key.NetworkID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.db != nil && m.network == network {
		return
	}
	m.network, m.graph, m.unsaved = network, nil, m.db != nil
	m.db = route.NewDB(route.DBConfig{Network: network, Life: m.c.Life, Resign: m.c.Resign})
}

// now is the time in the terms of mesh/route.
func (m *Manager) now() time.Duration { return time.Since(m.start) }

// Run registers with the node and serves until ctx ends; then it saves what it knows.
func (m *Manager) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return ErrRunning
	}
	defer m.running.Store(false)
	if err := m.load(); err != nil && !errors.Is(err, store.ErrNone) {
		m.c.Log.Warn("stored records not read", "err", err)
	}
	m.c.Node.OnCall(m.call)
	defer m.c.Node.OnCall(nil)
	// Every member of the mesh may report; who is a member was decided when the node took the session.
	r := app.Registration{
		Name: "manager", Kind: "manager",
		Services: []app.Service{{Name: report.Service, Type: "manager", Allow: []string{app.AnyMember}}},
	}
	if m.c.Issuer != nil {
		r.Services = append(r.Services, app.Service{Name: member.Service, Type: "join", Allow: []string{app.Guests}})
	}
	if err := m.c.Node.Register(ctx, r); err != nil {
		return fmt.Errorf("register with the node: %w", err)
	}
	m.c.Log.Info("manager started", "key", m.c.Node.Self().Key)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	all.Go(func() { m.loop(ctx) })
	if m.c.Issuer != nil {
		all.Go(func() {
			if err := m.c.Issuer.Run(ctx); err != nil {
				m.c.Log.Error("joiners are not served", "err", err)
			}
		})
	}
	err := app.ServeStreams(ctx, m.c.Node, report.Service, m.c.Log, func(peer key.Public, rw io.ReadWriteCloser) {
		all.Go(func() { m.serve(ctx, peer, rw) })
	})
	cancel()
	all.Wait()
	m.save()
	return err
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// loop is the one place that computes: it answers changes with proposals and ages the records.
func (m *Manager) loop(ctx context.Context) {
	house := time.NewTicker(housekeeping)
	defer house.Stop()
	local := time.NewTimer(0)
	defer local.Stop()
	saved, proposed := m.now(), m.now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.dirty:
			if !pause(ctx, gather) {
				return
			}
			m.propose()
		case <-local.C:
			local.Reset(m.learnLocal(ctx))
		case <-house.C:
			m.expire()
			m.dropSilent()
			if m.now()-saved >= saveEvery {
				m.save()
				saved = m.now()
			}
			if m.now()-proposed >= renewEvery {
				m.propose()
				proposed = m.now()
			}
		}
	}
}

func (m *Manager) markDirty() {
	select {
	case m.dirty <- struct{}{}:
	default: // the loop will see this change too
	}
}

// learnLocal takes over what the node beside us holds, since that node reports to nobody else, and returns when to ask
// again.
func (m *Manager) learnLocal(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m.enter(m.c.Node.Self().Network) // the node of this box may have joined a cluster
	all, err := m.c.Node.LocalRecords(ctx)
	if err != nil {
		m.c.Log.Debug("own node's records not read", "err", err)
		return localLarge
	}
	self := m.c.Node.Self().Key
	for _, r := range all {
		m.put(self, r)
	}
	if len(all) > smallMesh {
		return localLarge
	}
	return localSmall
}

// put offers a record to the database.
func (m *Manager) put(from key.Public, r report.Record) route.Verdict {
	m.mu.Lock()
	v := m.db.PutAged(m.now(), r.Raw, from, r.Age())
	m.unsaved = m.unsaved || v.Flood()
	if v.Flood() || len(v.Gone) > 0 {
		m.graph = nil
	}
	m.mu.Unlock()
	if v.Graph() {
		m.markDirty()
	}
	if v.Outcome == route.Added {
		m.c.Log.Info("node known", "key", v.Entry.Key, "name", v.Entry.Name)
	}
	return v
}

func (m *Manager) expire() {
	m.mu.Lock()
	gone := m.db.Expire(m.now())
	for k := range m.seen {
		if m.db.Get(k) == nil {
			delete(m.seen, k)
		}
	}
	if len(gone) > 0 {
		m.unsaved, m.graph = true, nil
	}
	m.mu.Unlock()
	for _, k := range gone {
		m.c.Log.Info("node forgotten", "key", k)
	}
	if len(gone) > 0 {
		m.markDirty()
	}
}

// load reads the records of the last run.
func (m *Manager) load() error {
	raws, err := m.c.Store.Records()
	if err != nil {
		return err
	}
	life := m.c.Life
	if life <= 0 {
		life = route.DefaultLife
	}
	for _, raw := range raws {
		m.mu.Lock()
		m.db.PutAged(m.now(), raw, key.Public{}, route.StoredAge(raw, time.Now(), life))
		m.mu.Unlock()
	}
	return nil
}

// save writes the records if they changed.
func (m *Manager) save() {
	m.mu.Lock()
	unsaved := m.unsaved
	m.unsaved = false
	all := make(map[key.Public][]byte)
	if unsaved {
		for _, e := range m.db.Entries() {
			all[e.Key] = e.Raw
		}
	}
	m.mu.Unlock()
	if !unsaved || m.c.Store == nil {
		return
	}
	err := m.c.Store.Batch(func(tx *store.Tx) error {
		tx.PutRecords(all)
		return nil
	})
	if err != nil {
		m.c.Log.Warn("records not saved", "err", err)
		m.mu.Lock()
		m.unsaved = true
		m.mu.Unlock()
	}
}

// FromApp makes a Node of the client of the node beside us.
func FromApp(c *app.Client) Node { return appNode{c} }

type appNode struct{ *app.Client }

func (n appNode) LocalRecords(ctx context.Context) ([]report.Record, error) {
	var all []report.Record
	var after struct {
		After key.Public `json:"after,omitzero"`
	}
	for range route.DefaultMaxRecords { // a page has one at least
		var page []struct {
			Key key.Public `json:"key"`
			report.Record
		}
		err := n.Call(ctx, "node.records", after, &page)
		if errors.Is(err, signal.ErrUnknownMethod) {
			return nil, nil
		}
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, r := range page {
			all = append(all, r.Record)
		}
		after.After = page[len(page)-1].Key
	}
	return all, nil
}
