package messenger

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Limits of the edge.
const (
	maxLinks     = 512 // with devices not known at most half
	maxOutbox    = 8 << 20
	writeTimeout = 2 * time.Minute // one frame, on a link of a few kbit/s
	dialTimeout  = 30 * time.Second
	handlerTime  = 2 * time.Minute
	handlerRetry = time.Minute
)

// Run delivers until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() { e.commits(ctx) })
	all.Go(func() { e.ticks(ctx) })
	all.Go(func() { e.handle(ctx) })
	all.Go(func() { e.effects(ctx, &all) })
	if w, ok := e.cfg.Mesh.(Watcher); ok {
		all.Go(func() { e.watch(ctx, w) })
	}
	poke(e.kick)
	poke(e.todo)
	for {
		conn, err := e.cfg.Mesh.Accept(ctx, Service)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("messenger: accept: %w", err)
		}
		all.Go(func() { e.serveLink(ctx, conn, false, nil) })
	}
}

// commits writes what was staged: at once what others wait for, later what may wait.
func (e *Engine) commits(ctx context.Context) {
	defer close(e.over)
	lazy := time.NewTimer(time.Hour)
	defer lazy.Stop()
	waiting := false
	for {
		select {
		case <-ctx.Done():
			e.commit()
			return
		case <-lazy.C:
			waiting = false
			e.commit()
			continue
		case <-e.kick:
		}
		e.mu.Lock()
		urgent, slow := e.core.urgent || len(e.held) > 0, e.core.lazy
		e.mu.Unlock()
		switch {
		case urgent:
			pause(ctx, commitWait)
			waiting = false
			lazy.Stop()
			e.commit()
		case slow && !waiting:
			waiting = true
			lazy.Reset(lazyWait)
		}
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ticks calls the core when time has made something due.
func (e *Engine) ticks(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-e.wake:
			pause(ctx, 50*time.Millisecond) // many calls, one look
		}
		var next time.Duration
		e.mu.Lock()
		c := e.core
		c.enter(e.cfg.Now())
		next = c.tick().Sub(c.now)
		c.flushAll()
		quiet := len(c.effects) == 0 && !c.urgent && !c.lazy
		if !quiet {
			e.releaseLocked()
			select {
			case <-e.wake: // our own
			default:
			}
		}
		e.mu.Unlock()
		t.Reset(max(next, 20*time.Millisecond))
	}
}

// watch tries those at once who have come.
func (e *Engine) watch(ctx context.Context, w Watcher) {
	known := map[key.Public]bool{}
	for {
		nodes, changed := w.Online()
		now := map[key.Public]bool{}
		for _, n := range nodes {
			now[n] = true
			if !known[n] {
				e.call(func(c *core) { c.online(n) })
			}
		}
		known = now
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// effects does what the core decided, in order for each link.
func (e *Engine) effects(ctx context.Context, all *sync.WaitGroup) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.work:
		}
		e.mu.Lock()
		out := e.out
		e.out = nil
		e.mu.Unlock()
		for _, x := range out {
			switch {
			case x.dial != nil:
				all.Go(func() { e.dial(ctx, x) })
			case x.check != nil:
				all.Go(func() { e.finishFile(x.check) })
			case x.todo:
				poke(e.todo)
			case x.link != nil:
				if o, ok := x.link.outbox.(*outbox); ok {
					o.push(x)
				}
			}
		}
	}
}

func (e *Engine) dial(ctx context.Context, x effect) {
	step, cancel := context.WithTimeout(ctx, dialTimeout)
	conn, err := e.cfg.Mesh.Dial(step, x.place, x.node, Service, nil)
	cancel()
	if err != nil {
		e.call(func(c *core) { c.dialed(x.dial, false) })
		return
	}
	e.serveLink(ctx, conn, true, x.dial)
}

// serveLink runs a link to its end.
func (e *Engine) serveLink(ctx context.Context, conn net.Conn, dialer bool, d *device) {
	defer conn.Close()
	o := &outbox{conn: conn, ready: make(chan struct{}, 1)}
	var l *link
	e.mu.Lock()
	c := e.core
	c.enter(e.cfg.Now())
	if dialer {
		if x := c.devices[d.key]; x != nil { // the store was read again meanwhile
			d = x
		}
		c.dialed(d, true)
	}
	if len(c.links) < maxLinks && (dialer || c.strangersLinked() < maxLinks/4) {
		l = c.linkUp(dialer, d, key.Public{})
		l.outbox = o
	}
	e.releaseLocked()
	e.mu.Unlock()
	if l == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() {
		defer conn.SetReadDeadline(time.Unix(1, 0))
		o.write(ctx)
	})
	err := e.read(ctx, conn, l)
	cancel()
	writer.Wait()
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil && e.cfg.Log != nil {
		e.cfg.Log.Debug("messenger link ended", "err", err)
	}
	e.call(func(c *core) { c.linkDown(l) })
}

func (c *core) strangersLinked() (n int) {
	for l := range c.links {
		if l.dev == nil {
			n++
		}
	}
	return n
}

// read takes the frames of a link. Envelopes for us are opened here, beside the lock: that is most of the work.
func (e *Engine) read(ctx context.Context, conn net.Conn, l *link) error {
	r := bufio.NewReaderSize(conn, 4<<10)
	var head [4]byte
	for ctx.Err() == nil {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == 0 || n > maxFrame {
			return fmt.Errorf("frame of %d bytes: %w", n, ErrFormat)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		if b[0] == opDeposit {
			if err := e.deposited(l, b[1:]); err != nil {
				return err
			}
			continue
		}
		e.call(func(c *core) { c.frame(l, b) })
	}
	return ctx.Err()
}

// deposited takes an envelope.
func (e *Engine) deposited(l *link, b []byte) error {
	if len(b) < 4 {
		return ErrFormat
	}
	tag, raw := binary.BigEndian.Uint32(b), b[4:]
	o, err := envelope.ParseOuter(raw)
	if err != nil {
		return err
	}
	ours, go_ := o.To == e.cfg.Key.Public(), false
	e.call(func(c *core) {
		if !l.up {
			c.closeLink(l, "order")
			return
		}
		if !ours {
			c.keep(l, tag, o, raw)
			return
		}
		if go_ = c.mayOpen(l); !go_ {
			c.do(effect{link: l, frame: tagged(opTaken, tag, takenLater)})
		}
	})
	if !go_ {
		return nil
	}
	x := e.open(o, raw)
	e.call(func(c *core) { c.deposit(l, tag, x) })
	return nil
}

func (e *Engine) open(o *envelope.Outer, raw []byte) opening {
	x := opening{outer: o, bits: uint8(o.Work(raw))}
	x.bundle, x.err = envelope.Open(raw, e.cfg.Key.Public(), func(id uint32) *envelope.Secret {
		if id == 0 {
			return envelope.OwnSecret(e.cfg.Key)
		}
		return e.cfg.Prekeys.Secret(id)
	})
	return x
}
