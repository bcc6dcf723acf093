package messenger

import (
	"context"
	cryptorand "crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// Engine is the messenger of one device. Its methods may be called from any goroutine; those that change something return when
// it is on disk.
type Engine struct {
	cfg      Config
	handlers map[envelope.Kind]Handler // immutable once Run was called
	started  time.Time

	mu      sync.Mutex // guards the fields below; no I/O but reads of the store with it held
	core    *core
	changes uint64
	changed chan struct{} // closed at the next change
	waiting []chan error  // for the commit of what is staged now
	flying  []chan error  // for the commit under way
	held    []effect      // let out by the next commit
	lent    []effect      // by the one under way
	out     []effect      // to be done now
	broken  error         // the last commit's

	kick chan struct{} // the committer has something to do
	work chan struct{} // out has something
	todo chan struct{} // a handler has
	wake chan struct{} // the timer is to look again
	over chan struct{} // closed when nothing is committed any more
}

// Group commits wait this long for others to join; what is lazy waits longer, since a crash would only have it done again.
const (
	commitWait = 3 * time.Millisecond
	lazyWait   = 2 * time.Second
)

// New opens the state in the store.
func New(cfg Config) (*Engine, error) {
	if cfg.Key == nil || cfg.Store == nil || cfg.Prekeys == nil {
		return nil, fmt.Errorf("messenger: a key, a store and prekeys are needed: %w", ErrFormat)
	}
	if cfg.Quota <= 0 {
		cfg.Quota = DefaultQuota
	}
	if cfg.Now == nil {
		start := time.Now()
		cfg.Now = func() member.Instant { return member.Instant{Up: time.Since(start), Wall: time.Now()} }
	}
	e := &Engine{
		cfg: cfg, handlers: map[envelope.Kind]Handler{}, started: time.Now(), changed: make(chan struct{}),
		kick: make(chan struct{}, 1), work: make(chan struct{}, 1), todo: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		over: make(chan struct{}),
	}
	var seed [8]byte
	if _, err := cryptorand.Read(seed[:]); err != nil {
		return nil, err
	}
	c, err := newCore(cfg, cfg.Now(), binary.BigEndian.Uint64(seed[:]))
	if err != nil {
		return nil, fmt.Errorf("messenger: %w", err)
	}
	e.core = c
	c.scan()
	e.release()
	return e, nil
}

// Handle registers who takes items of a kind. Before Run.
func (e *Engine) Handle(k envelope.Kind, h Handler) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.handlers[k] = h
	e.core.handled[k] = true
}

// call runs fn on the core and lets out what it made.
func (e *Engine) call(fn func(c *core)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.core.enter(e.cfg.Now())
	fn(e.core)
	e.core.flushAll()
	e.releaseLocked()
}

// durable is call, and waits until what fn staged is on disk.
func (e *Engine) durable(ctx context.Context, fn func(c *core) error) error {
	e.mu.Lock()
	e.core.enter(e.cfg.Now())
	if err := fn(e.core); err != nil {
		e.core.flushAll()
		e.releaseLocked()
		e.mu.Unlock()
		return err
	}
	e.core.flushAll()
	var done chan error
	if e.core.db.dirty() {
		done = make(chan error, 1)
		e.waiting = append(e.waiting, done)
		e.core.urgent = true
	}
	e.releaseLocked()
	e.mu.Unlock()
	if done == nil {
		return nil
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-e.over:
	}
	select {
	case err := <-done: // by the last commit
		return err
	default:
		return ErrEnded
	}
}

func (e *Engine) release() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.releaseLocked()
}

// releaseLocked lets out effects: at once if nothing that they rest on is still to be written.
func (e *Engine) releaseLocked() {
	c := e.core
	if c.urgent || len(e.held) > 0 || len(e.lent) > 0 {
		e.held = append(e.held, c.effects...)
	} else {
		e.out = append(e.out, c.effects...)
	}
	c.effects = nil
	if len(e.out) > 0 {
		poke(e.work)
	}
	if c.urgent || c.lazy || len(e.held) > 0 {
		poke(e.kick)
	}
	if c.changes != e.changes {
		e.changes = c.changes
		close(e.changed)
		e.changed = make(chan struct{})
	}
	poke(e.wake)
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// commit writes what is staged, if something is. It reports whether it wrote.
func (e *Engine) commit() bool {
	e.mu.Lock()
	c := e.core
	f := c.db.fly()
	e.lent, e.held = append(e.lent, e.held...), nil
	e.flying, e.waiting = append(e.flying, e.waiting...), nil
	c.urgent, c.lazy = false, false
	syncs := c.syncs
	c.syncs = nil
	e.mu.Unlock()
	var err error
	for file := range syncs {
		if err = file.Sync(); err != nil {
			break
		}
	}
	if f != nil && err == nil {
		err = c.db.write(f)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c.db.landed(err)
	for _, w := range e.flying {
		w <- err
	}
	e.flying = nil
	if err == nil {
		e.out = append(e.out, e.lent...)
	} else {
		e.failedLocked(err)
	}
	e.broken, e.lent = err, nil
	if len(e.out) > 0 {
		poke(e.work)
	}
	return f != nil
}

// failedLocked goes back to what the disk holds, as after a crash: nothing was promised that is not there.
func (e *Engine) failedLocked(err error) {
	c := e.core
	if c.log != nil {
		c.log.Error("the messenger's store refused a write", "err", err, "remedy", "make room on the disk; nothing was promised to anybody meanwhile")
	}
	for _, w := range e.waiting {
		w <- err
	}
	e.waiting, e.held = nil, nil
	for l := range c.links {
		l.dead = true
		e.out = append(e.out, effect{link: l})
	}
	c.links = map[*link]bool{}
	c.enter(e.cfg.Now())
	if err := c.load(); err != nil && c.log != nil {
		c.log.Error("the messenger's store does not load", "err", err)
	}
	c.effects = nil
}
