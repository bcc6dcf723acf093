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
	place int           // in the list of servers: a lower one is preferred whatever is measured
	rtt   time.Duration // 0: no answer
	load  int           // percent; -1: not known
	fault string        // why it failed last
	until time.Time     // it is tried last until then
}

// cost is what a connection over the exit is expected to feel like: a busy exit answers later than a ping does.
func (c candidate) cost() time.Duration { return c.rtt + c.rtt*time.Duration(max(c.load, 0))/50 }

// full is the load in percent from which an exit is taken only if no other answers.
const full = 90

// exits keeps the order in which exits are tried: the servers that are named, and where auto is among them those that the
// mesh offers.
type exits struct {
	node    Node
	finders []Finder
	servers []string // never empty
	log     *slog.Logger
	turn    chan struct{} // held by whoever asks and measures; nobody waits for it with mu held
	wait    time.Duration // patience, but for tests

	mu      sync.Mutex // guards the fields below
	list    []candidate
	current key.Public // sticky: the exit in use
	asked   time.Time
}

func newExits(n Node, servers []string, finders []Finder, log *slog.Logger) *exits {
	if len(servers) == 0 {
		servers = []string{auto}
	}
	return &exits{node: n, servers: servers, finders: finders, log: log, turn: make(chan struct{}, 1), wait: patience}
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

// order sorts what is known: those that failed come last; before them, by their place among the servers, the one in use,
// the others by cost, those that are full, those without an answer.
func (e *exits) order() []candidate {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	list := slices.Clone(e.list)
	rank := func(c candidate) int {
		r := 4*c.place + 1
		switch {
		case now.Before(c.until):
			return 4 * (maxExits + 1)
		case c.key == e.current:
			r--
		case c.rtt == 0:
			r += 2
		case c.load >= full:
			r++
		}
		return r
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.cost(), b.cost())) < 0
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
	list, err := e.find(ctx)
	if err == nil {
		e.measure(ctx, list)
		e.learn(list)
	}
	e.mu.Lock()
	e.asked = time.Now()
	e.mu.Unlock()
	return err
}

// find lists the exits: the named ones, and with auto those of all sources. A name that nobody knows leaves the others.
func (e *exits) find(ctx context.Context) ([]candidate, error) {
	var list []candidate
	var errs []error
	add := func(k key.Public, place int) {
		for _, c := range list {
			if c.key == k {
				return
			}
		}
		if len(list) < maxExits {
			list = append(list, candidate{key: k, place: place, load: -1})
		}
	}
	for place, name := range e.servers {
		if name == auto {
			for _, f := range append([]Finder{e.node.Exits}, e.finders...) {
				keys, err := f(ctx)
				errs = append(errs, err)
				for _, k := range keys {
					add(k, place)
				}
			}
			continue
		}
		k, err := e.node.Resolve(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("exit %s: %w", name, err))
			continue
		}
		add(k, place)
	}
	if len(list) == 0 {
		return nil, errors.Join(errs...)
	}
	return list, nil
}

// measure pings all that compete for a place, a few at a time, and asks them for their load.
func (e *exits) measure(ctx context.Context, list []candidate) {
	if !slices.Contains(e.servers, auto) {
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, probes)
	for i := range list {
		c := &list[i]
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			rtt, err := e.node.Ping(ctx, c.key)
			if err != nil {
				c.fault = err.Error()
				return
			}
			c.rtt = max(rtt, 1)
			l, err := e.node.Load(ctx, c.key)
			var v *Verdict
			if err == nil {
				c.load = l.Percent
			} else if errors.As(err, &v) { // it would not have us
				c.fault, c.until = v.Error(), time.Now().Add(distrust)
			}
		})
	}
	wg.Wait()
}

// learn takes a new list over, keeps what is known of exits that failed, and changes the one in use if that is worth it.
func (e *exits) learn(list []candidate) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range list {
		for _, old := range e.list {
			if old.key == list[i].key {
				if old.until.After(list[i].until) {
					list[i].until = old.until
				}
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
		if c.rtt == 0 || now.Before(c.until) {
			continue
		}
		if c.key == e.current {
			current = c
		}
		if c.load < full && (best == nil || c.place < best.place || c.place == best.place && c.cost() < best.cost()) {
			best = c
		}
	}
	switch {
	case best == nil:
	case current == nil, best.place < current.place, current.load >= full,
		float64(best.cost()) < betterRatio*float64(current.cost()) && best.cost()+betterMargin < current.cost():
		e.useLocked(best.key)
	}
}

// worked makes k the exit in use.
func (e *exits) worked(k key.Public) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.useLocked(k)
	for i := range e.list {
		if e.list[i].key == k {
			e.list[i].until, e.list[i].fault = time.Time{}, ""
		}
	}
}

// useLocked makes k the exit in use.
func (e *exits) useLocked(k key.Public) {
	if e.current != k {
		e.current = k
		e.log.Info("exit in use", "peer", k.Short())
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
		if c.load >= 0 {
			r.Load = &c.load
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
