package tracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// ServiceName is the tracker's service and the name of its app.
const ServiceName = "apptracker"

// Methods of the tracker, on a stream, over TCP and through app.call.
const (
	MethodPut  = "tracker.put"  // PutParams → {}
	MethodList = "tracker.list" // ListParams → []Entry
)

// PutParams announces services: a list over a mesh stream, a signed record anywhere.
type PutParams struct {
	Services []Service `json:"services,omitempty"`
	Record   []byte    `json:"record,omitempty"`
}

// ListParams asks for services of one type, all if it is empty. Offset is for the next page: an answer shorter than
// MaxList is the last.
type ListParams struct {
	Type   string `json:"type,omitempty"`
	Offset int    `json:"offset,omitempty"`
}

// Limits of the ways in.
const (
	MaxList     = 400 // entries in an answer: a line of signal at their longest
	maxStreams  = 256 // of nodes, at once
	maxPerNode  = 4   // of them: a tracker's client needs one, and its boxes may have several
	firstLine   = 10 * time.Second
	idle        = 2 * Life
	maxRecords  = 20 // signatures checked a second over all of TCP
	maxLists    = 50 // lists made a second over all of TCP: each may be a megabyte that waits for its reader
	callTimeout = 10 * time.Second
	localLook   = 2 * time.Second // how often the own node's services are read: a local call
)

// Node is what the tracker needs of the node beside it. FromApp makes one of an app.Client.
type Node interface {
	Register(ctx context.Context, r app.Registration) error
	OnCall(h app.CallHandler)
	AcceptStream(ctx context.Context, service string) (peer key.Public, rw io.ReadWriteCloser, err error)
	Services(ctx context.Context, kind string) ([]app.Service, error)
}

// Config of a Tracker.
type Config struct {
	Network key.NetworkID
	// Connect returns the node beside us, waiting for it as long as needed; nil: there is none, TCP alone is served.
	Connect func(ctx context.Context) (Node, error)
	Listen  net.Listener // TCP; may be nil
	Log     *slog.Logger
}

// Validate tells what is missing.
func (c Config) Validate() error {
	switch {
	case c.Log == nil:
		return errors.New("tracker: no log")
	case c.Connect == nil && c.Listen == nil:
		return errors.New("tracker: neither a node nor an address to serve at")
	}
	return nil
}

// Tracker is a running tracker.
type Tracker struct {
	c       Config
	reg     *Registry
	running atomic.Bool
	checks  chan struct{} // capacity maxRecords: signature checks that TCP peers may still ask for
	lists   chan struct{} // capacity maxLists: the same of lists

	mu      sync.Mutex // guards the field below
	streams map[key.Public]int
}

// New makes a Tracker; Run starts it.
func New(c Config) (*Tracker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &Tracker{
		c: c, reg: NewRegistry(c.Network), checks: make(chan struct{}, maxRecords),
		lists: make(chan struct{}, maxLists), streams: make(map[key.Public]int),
	}
	t.refill()
	return t, nil
}

func (t *Tracker) refill() {
	for _, budget := range []chan struct{}{t.checks, t.lists} {
		for len(budget) < cap(budget) { // nobody else fills it
			budget <- struct{}{}
		}
	}
}

// enter counts a stream of a node in, unless it has as many as it may.
func (t *Tracker) enter(k key.Public) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[k] >= maxPerNode {
		return false
	}
	t.streams[k]++
	return true
}

func (t *Tracker) leave(k key.Public) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[k]--; t.streams[k] == 0 {
		delete(t.streams, k)
	}
}

// Registry gives the entries.
func (t *Tracker) Registry() *Registry { return t.reg }

// Run serves until ctx ends.
func (t *Tracker) Run(ctx context.Context) error {
	if t.running.Swap(true) {
		return ErrRunning
	}
	defer t.running.Store(false)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	var listenErr, nodeErr error
	all.Go(func() { t.keepTime(ctx) })
	if t.c.Listen != nil {
		all.Go(func() {
			defer cancel()
			listenErr = signal.Serve(ctx, idleListener{t.c.Listen}, func(*signal.Conn) signal.Handler { return t.answerTCP })
		})
	}
	if t.c.Connect != nil {
		all.Go(func() {
			defer cancel()
			nodeErr = t.serveNode(ctx)
		})
	}
	all.Wait()
	return errors.Join(listenErr, nodeErr)
}

func (t *Tracker) keepTime(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.refill()
			t.reg.Expire(now)
		}
	}
}

// serveNode serves the streams of other nodes and the calls of this box, and takes over what the records of the mesh say.
func (t *Tracker) serveNode(ctx context.Context) error {
	n, err := t.c.Connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	n.OnCall(t.answerCall)
	defer n.OnCall(nil)
	err = n.Register(ctx, app.Registration{
		Name: ServiceName, Kind: ServiceName,
		Services: []app.Service{{Name: ServiceName, Type: ServiceName, Allow: []string{app.AnyMember}}},
	})
	if err != nil {
		return fmt.Errorf("register with the node: %w", err)
	}
	t.c.Log.Info("tracker started")
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { t.learn(ctx, n) })
	slots := make(chan struct{}, maxStreams)
	return app.ServeStreams(ctx, n, ServiceName, t.c.Log, func(peer key.Public, rw io.ReadWriteCloser) {
		if !t.enter(peer) {
			rw.Close()
			t.c.Log.Debug("stream refused", "key", peer, "err", "too many of this node")
			return
		}
		select {
		case slots <- struct{}{}:
		default:
			t.leave(peer)
			rw.Close()
			t.c.Log.Warn("node refused", "key", peer, "err", "too many streams")
			return
		}
		if nc, ok := rw.(net.Conn); ok {
			rw = patient(nc)
		}
		all.Go(func() {
			defer func() { <-slots }()
			defer t.leave(peer)
			conn := signal.NewConn(rw, func(_ context.Context, r *signal.Request) (any, error) { return t.answer(peer, r) })
			if err := conn.Run(ctx); err != nil {
				t.c.Log.Debug("stream ended", "key", peer, "err", err)
			}
		})
	})
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// learn renews what the node beside us knows from records.
func (t *Tracker) learn(ctx context.Context, n Node) {
	for {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		services, err := n.Services(callCtx, "")
		cancel()
		if err != nil && ctx.Err() == nil {
			t.c.Log.Debug("services not read", "err", err)
		}
		byNode := make(map[key.Public][]Service)
		for _, s := range services {
			if s.Online {
				byNode[s.Key] = append(byNode[s.Key], Service{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta})
			}
		}
		for k, list := range byNode {
			if err := t.reg.PutRecorded(time.Now(), k, list); err != nil {
				t.c.Log.Debug("service not taken", "key", k, "err", err)
			}
		}
		if !pause(ctx, localLook) {
			return
		}
	}
}

// answerCall answers this box's own programs.
func (t *Tracker) answerCall(_ context.Context, method string, params json.RawMessage) (any, error) {
	if method != MethodList {
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", method)
	}
	return t.list(&signal.Request{Method: method, Params: params})
}

// answerTCP answers somebody unknown.
func (t *Tracker) answerTCP(_ context.Context, r *signal.Request) (any, error) {
	if r.Method == MethodList {
		select {
		case <-t.lists:
		default:
			return nil, signal.Errorf(signal.ErrBusy, "more than %d lists a second", maxLists)
		}
	}
	return t.answer(key.Public{}, r)
}

// answer answers a peer; the zero key is nobody known.
func (t *Tracker) answer(peer key.Public, r *signal.Request) (any, error) {
	switch r.Method {
	case MethodList:
		return t.list(r)
	case MethodPut:
	default:
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	var p PutParams
	if err := r.Bind(&p); err != nil {
		return nil, err
	}
	if len(p.Record) > 0 {
		return struct{}{}, t.putRecord(p.Record)
	}
	if peer.IsZero() {
		return nil, signal.Errorf(signal.ErrRefused, "over TCP only a signed record is taken: {\"record\": …}")
	}
	return struct{}{}, asRefusal(t.reg.Put(time.Now(), peer, p.Services))
}

func (t *Tracker) putRecord(raw []byte) error {
	select {
	case <-t.checks:
	default:
		return signal.Errorf(signal.ErrBusy, "more than %d records a second", maxRecords)
	}
	return asRefusal(t.reg.PutRecord(time.Now(), raw))
}

func asRefusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrFull):
		return signal.Errorf(signal.ErrBusy, "%v", err)
	}
	return signal.Errorf(signal.ErrUsage, "%v", err)
}

func (t *Tracker) list(r *signal.Request) (any, error) {
	var p ListParams
	if err := r.Bind(&p); err != nil {
		return nil, err
	}
	all := t.reg.List(time.Now(), p.Type)
	from := min(max(p.Offset, 0), len(all))
	return slices.Clone(all[from:min(from+MaxList, len(all))]), nil // a page must not hold the rest while it waits
}

// idleListener gives every connection a deadline for its first byte and one for silence between lines, so that nobody
// holds a place by doing nothing.
type idleListener struct{ net.Listener }

func (l idleListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return patient(c), nil
}

// patient gives c the deadlines.
func patient(c net.Conn) net.Conn {
	c.SetReadDeadline(time.Now().Add(firstLine)) // an error shows at the first read
	return &idleConn{Conn: c}
}

// idleConn is used by one reader.
type idleConn struct {
	net.Conn
	line bool // a line has begun, and has a deadline of its own
}

// SetReadDeadline takes no deadline for the longest silence.
func (c *idleConn) SetReadDeadline(t time.Time) error {
	if c.line = !t.IsZero(); !c.line {
		t = time.Now().Add(idle)
	}
	return c.Conn.SetReadDeadline(t)
}

// Read ends the silence.
func (c *idleConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.line {
		c.Conn.SetReadDeadline(time.Now().Add(idle)) // an error shows at the next read
	}
	return n, err
}

// FromApp makes a Node of the client of the node beside us.
func FromApp(c *app.Client) Node { return c }
