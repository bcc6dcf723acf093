package manager

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/manager/report"
	"skywire/mesh/route"
	"skywire/signal"
)

// session is one node's stream.
type session struct {
	m    *Manager
	peer key.Public
	conn *signal.Conn
	wake chan struct{} // capacity 1: outbox is not empty

	// guarded by Manager.mu
	hello  bool
	free   time.Time // when the next request may be served
	asked  time.Time // last request
	wants  map[key.Public]*want
	outbox map[key.Public]report.Proposal // the newest unsent one for each destination
}

// want is a node's wish for paths and what it was told last.
type want struct {
	k    int
	told []route.Path
	at   time.Duration
}

// serve handles the stream of a node until it ends. A newer stream of the same node replaces it.
func (m *Manager) serve(ctx context.Context, peer key.Public, rw io.ReadWriteCloser) {
	s := &session{
		m: m, peer: peer, asked: time.Now(), wake: make(chan struct{}, 1),
		wants: make(map[key.Public]*want), outbox: make(map[key.Public]report.Proposal),
	}
	s.conn = signal.NewConn(rw, s.handle)
	m.mu.Lock()
	old, full := m.sessions[peer], len(m.sessions) >= maxSessions
	if old == nil && full {
		m.mu.Unlock()
		rw.Close()
		m.c.Log.Warn("node refused", "key", peer, "err", "too many nodes")
		return
	}
	m.sessions[peer] = s
	delete(m.seen, peer)
	m.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	m.c.Log.Info("node up", "key", peer)
	var sender sync.WaitGroup
	sender.Go(s.send)
	err := s.conn.Run(ctx)
	sender.Wait()
	m.mu.Lock()
	if m.sessions[peer] == s {
		delete(m.sessions, peer)
		m.seen[peer] = time.Now()
	}
	m.mu.Unlock()
	if err != nil {
		m.c.Log.Info("node down", "key", peer, "err", err)
	} else {
		m.c.Log.Info("node down", "key", peer)
	}
}

// pace makes a node that asks too much wait for its answers.
func (s *session) pace(ctx context.Context) {
	s.m.mu.Lock()
	now := time.Now()
	if s.free.Before(now.Add(-paceBurst * paceStep)) {
		s.free = now.Add(-paceBurst * paceStep)
	}
	s.free = s.free.Add(paceStep)
	s.asked = now
	wait := s.free.Sub(now)
	s.m.mu.Unlock()
	if wait > 0 {
		pause(ctx, wait)
	}
}

// dropSilent ends streams of nodes that have not introduced themselves or no longer ask anything.
func (m *Manager) dropSilent() {
	var silent []*session
	m.mu.Lock()
	for _, s := range m.sessions {
		if d := time.Since(s.asked); d > silentLife || !s.hello && d > helloTime {
			silent = append(silent, s)
		}
	}
	m.mu.Unlock()
	for _, s := range silent {
		s.conn.Close()
	}
}

// handle answers one request of the node.
func (s *session) handle(ctx context.Context, r *signal.Request) (any, error) {
	s.pace(ctx)
	if r.Method == report.MethodHello {
		return s.greet(r)
	}
	s.m.mu.Lock()
	greeted := s.hello
	s.m.mu.Unlock()
	if !greeted {
		return nil, signal.Errorf(signal.ErrRefused, "say %s first", report.MethodHello)
	}
	switch r.Method {
	case report.MethodPut:
		var p report.Record
		if err := r.Bind(&p); err != nil {
			return nil, err
		}
		v := s.m.put(s.peer, p)
		if v.Outcome == route.Bad {
			return nil, signal.Errorf(signal.ErrUsage, "%v", v.Err)
		}
		return report.PutResult{Outcome: v.Outcome.String()}, nil
	case report.MethodGet:
		return s.get(r)
	case report.MethodWant:
		return s.want(r)
	}
	return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
}

func (s *session) greet(r *signal.Request) (any, error) {
	var h report.Hello
	if err := r.Bind(&h); err != nil {
		return nil, err
	}
	self := s.m.c.Node.Self()
	if h.Network != self.Network {
		return nil, signal.Errorf(signal.ErrRefused, "this manager is of network %s, not %s", self.Network, h.Network)
	}
	if h.Version < 1 {
		return nil, signal.Errorf(signal.ErrUsage, "version %d is not spoken", h.Version)
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.hello = true
	return report.Welcome{Version: report.Version, Manager: self.Key, Program: s.m.c.Program}, nil
}

func (s *session) get(r *signal.Request) (any, error) {
	var g report.Get
	if err := r.Bind(&g); err != nil {
		return nil, err
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if len(g.Digest) == 0 {
		return report.News{Equal: g.Sum == report.Sum(s.m.db.Sum())}, nil
	}
	d, err := route.ParseDigest(g.Digest)
	if err != nil {
		return nil, signal.Errorf(signal.ErrUsage, "%v", err)
	}
	now, size := s.m.now(), 0
	newer, wanted := s.m.db.Diff(now, d)
	n := report.News{Want: wanted}
	for _, e := range newer {
		if size += len(e.Raw); size > report.MaxNews {
			n.More = true
			break
		}
		n.Records = append(n.Records, report.NewRecord(e, now))
	}
	return n, nil
}

// want answers with the paths of now and remembers the wish.
func (s *session) want(r *signal.Request) (any, error) {
	var w report.Want
	if err := r.Bind(&w); err != nil {
		return nil, err
	}
	if w.K < 0 || w.K > route.MaxPaths || w.To.IsZero() || w.To == s.peer {
		return nil, signal.Errorf(signal.ErrUsage, "to must be another node's key and k between 0 and %d", route.MaxPaths)
	}
	s.m.mu.Lock()
	held := s.wants[w.To]
	switch {
	case w.K == 0:
		delete(s.wants, w.To)
		delete(s.outbox, w.To)
		s.m.mu.Unlock()
		return s.m.proposal(w.To, nil), nil
	case held == nil && len(s.wants) >= maxWants:
		s.m.mu.Unlock()
		return nil, signal.Errorf(signal.ErrBusy, "paths to at most %d nodes", maxWants)
	}
	g := s.m.graphLocked()
	s.m.mu.Unlock()

	paths := route.Paths(g, s.peer, w.To, w.K, route.Constraints{})
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.wants[w.To] = &want{k: w.K, told: paths, at: s.m.now()}
	return s.m.proposal(w.To, paths), nil
}

// proposal numbers a list of paths.
func (m *Manager) proposal(to key.Public, paths []route.Path) report.Proposal {
	p := report.Proposal{
		Manager: m.c.Node.Self().Key, Number: m.number.Add(1), LifeS: int(proposalLife / time.Second),
		To: to, Paths: make([]report.Path, 0, len(paths)),
	}
	for _, path := range paths {
		p.Paths = append(p.Paths, report.NewPath(path))
	}
	return p
}

// graphLocked returns the graph of the records held; it is made once for all questions between two changes.
func (m *Manager) graphLocked() *route.Graph {
	if m.graph == nil {
		m.graph = route.NewGraph(m.db.All())
	}
	return m.graph
}

// propose computes the paths of all wishes anew and queues what is worth telling, and what would otherwise run out.
func (m *Manager) propose() {
	type wish struct {
		s    *session
		to   key.Public
		held want
	}
	m.mu.Lock()
	g := m.graphLocked()
	var wishes []wish
	for _, s := range m.sessions {
		for to, w := range s.wants {
			wishes = append(wishes, wish{s, to, *w})
		}
	}
	m.mu.Unlock()
	now := m.now()
	for _, w := range wishes {
		paths := route.Paths(g, w.s.peer, w.to, w.held.k, route.Constraints{})
		if !worthTelling(g, w.held.told, paths) {
			if now-w.held.at < proposalLife/2 {
				continue
			}
			paths = w.held.told
		}
		p := m.proposal(w.to, paths)
		m.mu.Lock()
		if held := w.s.wants[w.to]; held != nil && held.k == w.held.k {
			held.told, held.at = paths, now
			w.s.outbox[w.to] = p
			select {
			case w.s.wake <- struct{}{}:
			default:
			}
		}
		m.mu.Unlock()
	}
}

// worthTelling holds back changes that would only make traffic swing: new paths are told if an old one broke, if there
// are more of them, or if the best or the sum of all is clearly better.
func worthTelling(g *route.Graph, told, paths []route.Path) bool {
	same := slices.EqualFunc(told, paths, func(a, b route.Path) bool { return slices.Equal(a.Hops, b.Hops) })
	if same {
		return false
	}
	var oldAll, newAll route.Path
	var oldBest route.Path
	for i, p := range told {
		now, ok := g.Measure(p.Hops)
		if !ok {
			return true
		}
		if oldAll.Rank += now.Rank; i == 0 || now.Rank < oldBest.Rank {
			oldBest = now
		}
	}
	for _, p := range paths {
		newAll.Rank += p.Rank
	}
	return len(paths) != len(told) || route.Better(oldBest, paths[0]) || route.Better(oldAll, newAll)
}

// send notifies the node of what stands in the outbox, until the stream ends.
func (s *session) send() {
	for {
		select {
		case <-s.conn.Done():
			return
		case <-s.wake:
		}
		s.m.mu.Lock()
		out := s.outbox
		s.outbox = make(map[key.Public]report.Proposal)
		s.m.mu.Unlock()
		for _, p := range out {
			err := s.conn.Notify(report.NotifyPropose, p)
			if errors.Is(err, signal.ErrClosed) {
				return
			}
			if err != nil {
				s.m.c.Log.Debug("proposal not sent", "key", s.peer, "err", err)
			}
		}
	}
}
