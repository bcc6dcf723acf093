package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/key"
)

// How a client chooses among exits.
const (
	auto         = "auto"
	probes       = 8                // pings at once
	probeTimeout = 3 * time.Second  // an exit slower than this is tried last
	reEvaluate   = 5 * time.Minute  // while all is well
	listFresh    = 10 * time.Second // a list of exits that all failed is asked for again after this
	emptyFresh   = time.Second      // and an empty one after this: asking is cheap, and records are on their way after a start
	patience     = 3 * time.Second  // how long a connection waits for a first exit to be known
	distrust     = 30 * time.Second // how long an exit that failed is tried last
	attempts     = 4                // exits tried for one connection
	maxExits     = 256              // of which the rest is ignored: the list comes from the mesh
)

// A new exit is taken only if it is better by both: the difference must be worth a change of the address that servers see.
const (
	betterRatio  = 0.7
	betterMargin = 10 * time.Millisecond
)

// Finder lists exits from a source beside the node's own records, such as a tracker.
type Finder func(ctx context.Context) ([]key.Public, error)

// candidate is an exit as measured last.
type candidate struct {
	key   key.Public
	rtt   time.Duration // 0: no answer
	fault string        // why it failed last
	until time.Time     // it is tried last until then
}

// exits keeps the order in which exits are tried. With a fixed server it holds that alone.
type exits struct {
	node    Node
	finders []Finder
	fixed   string // a name of a node; empty means auto
	log     *slog.Logger
	turn    chan struct{} // held by whoever asks and measures; nobody waits for it with mu held
	wait    time.Duration // patience, but for tests

	mu      sync.Mutex // guards the fields below
	list    []candidate
	current key.Public // sticky: the exit in use
	asked   time.Time
}

func newExits(n Node, server string, finders []Finder, log *slog.Logger) *exits {
	if server == auto {
		server = ""
	}
	return &exits{node: n, fixed: server, finders: finders, log: log, turn: make(chan struct{}, 1), wait: patience}
}

// run measures again from time to time until ctx ends.
func (e *exits) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.refresh(ctx, true); err != nil && ctx.Err() == nil {
			e.log.Debug("no exits known", "err", err)
		}
		wait := reEvaluate
		if len(e.order()) == 0 {
			wait = emptyFresh
		}
		pause(ctx, wait)
	}
}

// pick returns the exits to try, best first. Where none is known it waits a little: after a start, or after an exit's
// node came back, the record that names it is on its way.
func (e *exits) pick(ctx context.Context) ([]candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, e.wait+probeTimeout)
	defer cancel()
	end := time.Now().Add(e.wait)
	for {
		list := e.order()
		var err error
		if e.worthAsking(list) {
			err = e.refresh(ctx, false)
			list = e.order()
		}
		switch {
		case len(list) > 0:
			return list[:min(len(list), attempts)], nil
		case time.Now().Before(end) && ctx.Err() == nil:
			pause(ctx, min(emptyFresh, time.Until(end)))
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrNoExit, err)
		default:
			return nil, fmt.Errorf("%w: nobody in the mesh offers %q; is a socks server running?", ErrNoExit, Service)
		}
	}
}

// worthAsking reports whether list holds nothing that can be trusted.
func (e *exits) worthAsking(list []candidate) bool {
	return !slices.ContainsFunc(list, func(c candidate) bool { return !time.Now().Before(c.until) })
}

// order sorts what is known: the one in use, the others by round trip, those without an answer, those that failed.
func (e *exits) order() []candidate {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	list := slices.Clone(e.list)
	rank := func(c candidate) int {
		switch {
		case now.Before(c.until):
			return 3
		case c.key == e.current:
			return 0
		case c.rtt == 0:
			return 2
		}
		return 1
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.rtt, b.rtt)) < 0
	})
	return list
}

// refresh asks who offers exits and measures them, one asker at a time. Unless forced it does nothing if somebody has
// just done so.
func (e *exits) refresh(ctx context.Context, force bool) error {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-e.turn }()
	e.mu.Lock()
	limit := listFresh
	if len(e.list) == 0 {
		limit = emptyFresh
	}
	fresh := !e.asked.IsZero() && time.Since(e.asked) < limit
	e.mu.Unlock()
	if fresh && !force {
		return nil
	}
	keys, err := e.find(ctx)
	if err == nil {
		e.learn(e.measure(ctx, keys))
	}
	e.mu.Lock()
	e.asked = time.Now()
	e.mu.Unlock()
	return err
}

// find lists the exits of all sources.
func (e *exits) find(ctx context.Context) ([]key.Public, error) {
	if e.fixed != "" {
		k, err := e.node.Resolve(ctx, e.fixed)
		if err != nil {
			return nil, fmt.Errorf("exit %s: %w", e.fixed, err)
		}
		return []key.Public{k}, nil
	}
	var all []key.Public
	var errs []error
	for _, f := range append([]Finder{e.node.Exits}, e.finders...) {
		keys, err := f(ctx)
		if err != nil {
			errs = append(errs, err)
		}
		for _, k := range keys {
			if !slices.Contains(all, k) && len(all) < maxExits {
				all = append(all, k)
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.Join(errs...)
	}
	return all, nil
}

// measure pings all, a few at a time. A fixed exit is not measured: there is no choice.
func (e *exits) measure(ctx context.Context, keys []key.Public) []candidate {
	list := make([]candidate, len(keys))
	var wg sync.WaitGroup
	slots := make(chan struct{}, probes)
	for i, k := range keys {
		list[i].key = k
		if e.fixed != "" {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			if rtt, err := e.node.Ping(ctx, k); err == nil {
				list[i].rtt = max(rtt, 1)
			} else {
				list[i].fault = err.Error()
			}
		})
	}
	wg.Wait()
	return list
}

// learn takes a new list over, keeps what is known of exits that failed, and changes the one in use if that is worth it.
func (e *exits) learn(list []candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range list {
		for _, old := range e.list {
			if old.key == list[i].key {
				list[i].until = old.until
				if list[i].rtt == 0 && list[i].fault == "" {
					list[i].fault = old.fault
				}
			}
		}
	}
	e.list = list
	now := time.Now()
	var current, best *candidate
	for i := range list {
		c := &list[i]
		if c.key == e.current && now.After(c.until) && c.rtt > 0 {
			current = c
		}
		if c.rtt > 0 && now.After(c.until) && (best == nil || c.rtt < best.rtt) {
			best = c
		}
	}
	switch {
	case best == nil:
	case current == nil,
		float64(best.rtt) < betterRatio*float64(current.rtt) && best.rtt+betterMargin < current.rtt:
		if e.current != best.key {
			e.log.Info("exit chosen", "peer", best.key.Short(), "rtt_ms", ms(best.rtt))
		}
		e.current = best.key
	}
}

// worked makes k the exit in use.
func (e *exits) worked(k key.Public) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current != k {
		e.log.Info("exit in use", "peer", k.Short())
	}
	e.current = k
	for i := range e.list {
		if e.list[i].key == k {
			e.list[i].until, e.list[i].fault = time.Time{}, ""
		}
	}
}

// failed puts k behind the others for a while.
func (e *exits) failed(k key.Public, why error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.list {
		if e.list[i].key == k {
			e.list[i].until, e.list[i].fault = time.Now().Add(distrust), why.Error()
		}
	}
}

// tried names the exits and their faults, for people.
func tried(faults map[key.Public]error, order []candidate) string {
	var s []string
	for _, c := range order {
		if err := faults[c.key]; err != nil {
			s = append(s, c.key.Short()+": "+err.Error())
		}
	}
	return strings.Join(s, "; ")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// report lists what is known, for the status.
func (e *exits) report() (current string, all []ExitReport) {
	all = []ExitReport{}
	for _, c := range e.order() {
		r := ExitReport{Key: c.key.String(), Fault: c.fault}
		if c.rtt > 0 {
			v := ms(c.rtt)
			r.RTT = &v
		}
		all = append(all, r)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.current != (key.Public{}) {
		current = e.current.String()
	}
	return current, all
}
