package vpn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
	"skywire/tun/netcfg"
)

// Times of the client role.
const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 10 * time.Second
	dialWithin = 20 * time.Second // a path may have to be found first

	probeEvery  = 5 * time.Second
	probeAgain  = time.Second // after one that did not come back
	probeWithin = 3 * time.Second
	probeTries  = 10 // until the first comes back
	silentAfter = 3  // probes lost in a row

	// With another server to go to, a dead one is left sooner: what is sent and not answered makes it suspect, and
	// three short probes in a row make it dead.
	hastyDial  = 5 * time.Second
	hastyLook  = time.Second
	hastyProbe = 700 * time.Millisecond // at least; on long ways four round trips
	hastyTries = 3
)

// client is the state of the client role; one goroutine runs it.
type client struct {
	a *App
	c *ClientConfig
	choice

	server  key.Public
	answer  Answer // what is applied to the box; zero: nothing
	subnets []netip.Prefix
	exited  bool // the default routes stand
	held    bool // nothing unmarked gets out: between the default routes of two exits
	asked   bool // the last attempt came as far as to a server
}

// lease is what a server gave: it holds while the stream is open.
type lease struct {
	candidate
	stream io.ReadCloser
	answer Answer
}

// movedError ends a session because there is a lease of a server that is liked better.
type movedError struct{ to lease }

func (e *movedError) Error() string { return "back to " + e.to.key.Short() + ", which is preferred" }

// errLost is returned by hold when the server is silent and there is another.
var errLost = errors.New("no answer through the tunnel any more")

// errBox marks errors of this box's network, which trying again does not cure.
var errBox = errors.New("this box")

// use plays the client role: it connects, keeps the lease, and connects again, to the next server where there are
// several. A refusal by all of them before the first success ends the App; later ones, and everything else, are tried
// again, with the routes left as they are.
func (a *App) use(ctx context.Context) error {
	c := &client{a: a, c: a.c.Client, choice: choice{words: a.c.Client.Servers}}
	a.update(func(s *Status) {
		s.Client = &ClientStatus{Servers: c.c.Servers, Subnets: []netip.Prefix{}}
	})
	wait := retryFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := c.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if final(err) && c.answer.Version == 0 && c.allRefused() || errors.Is(err, netcfg.ErrNoRights) || errors.Is(err, errBox) {
			return err
		}
		if time.Since(began) > retryMost {
			wait = retryFirst
		}
		pauseFor := wait
		if c.asked && c.another() {
			pauseFor = 0
		} else {
			wait = min(2*wait, retryMost)
		}
		a.log.Warn("not connected", "err", err, "retry_ms", pauseFor.Milliseconds())
		a.update(func(s *Status) {
			s.State, s.Client.Error, s.Client.Since, s.Client.NextTry = Connecting, err.Error(), time.Time{}, time.Now().Add(pauseFor)
		})
		back := a.node.Changed()
		t := time.NewTimer(pauseFor)
		select {
		case <-t.C:
		case <-back: // the node was what was missing
		case <-ctx.Done():
		}
		t.Stop()
	}
	return nil
}

// final reports whether asking the same server again is pointless.
func final(err error) bool {
	return errors.Is(err, signal.ErrRefused) || errors.Is(err, ErrRefused) || errors.Is(err, ErrProtocol)
}

// connect asks the server that is next in line and keeps the lease, and those that follow it without a gap, to the end.
func (c *client) connect(ctx context.Context) error {
	next, err := c.next(ctx, c.a.node)
	if c.asked = err == nil; err != nil {
		return err
	}
	c.a.update(func(s *Status) { s.State, s.Client.Server = Connecting, next.key.String() })
	l, err := c.ask(ctx, next, c.dialTime())
	for err == nil {
		err = c.session(ctx, l)
		var moved *movedError
		if !errors.As(err, &moved) {
			break
		}
		c.a.log.Info("vpn moves to a preferred server", "server", moved.to.key.Short())
		l, err = moved.to, nil
	}
	if ctx.Err() == nil {
		c.failed(l.candidate, next, err)
	}
	return err
}

func (c *client) dialTime() time.Duration {
	if c.several() {
		return hastyDial
	}
	return dialWithin
}

// ask opens the stream that is the lease.
func (c *client) ask(ctx context.Context, to candidate, within time.Duration) (lease, error) {
	header, err := Request{Version: Version, Exit: c.c.Exit}.Append(nil)
	if err != nil {
		return lease{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	stream, reply, err := c.a.node.Dial(ctx, to.key, Service, header)
	if err != nil {
		return lease{}, fmt.Errorf("server %s: %w", to.key.Short(), err)
	}
	answer, err := ParseAnswer(reply)
	if err == nil && c.c.Exit && !answer.Exit {
		err = fmt.Errorf("%s is no exit: %w", to.key.Short(), ErrRefused)
	}
	if err != nil {
		stream.Close()
		return lease{}, err
	}
	return lease{candidate: to, stream: stream, answer: answer}, nil
}

// session runs from the answer to the end of the lease, and always ends with an error.
func (c *client) session(ctx context.Context, l lease) error {
	defer l.stream.Close()
	if err := c.apply(ctx, l.key, l.answer); err != nil {
		return err
	}
	c.a.update(func(s *Status) { s.State = Probing })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { l.stream.Close() })
	defer stop()
	ended := make(chan struct{})
	go func() { // ends when the stream is closed, which the defers above see to; awaited below
		defer close(ended)
		_, err := io.Copy(io.Discard, l.stream)
		if err == nil {
			err = io.EOF
		}
		cancel(fmt.Errorf("the stream to the server ended: %w", err))
	}()
	stopForce := c.a.onForce(func() { cancel(errForced) })
	defer stopForce()
	err := c.hold(ctx, l)
	cancel(err)
	l.stream.Close()
	<-ended
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// hold proves the way, sends everything through it if wished, and watches it until ctx ends.
func (c *client) hold(ctx context.Context, l lease) error {
	rtt, err := c.prove(ctx)
	if err != nil {
		return err
	}
	if c.c.Exit && !c.exited {
		if err := c.exit(ctx); err != nil {
			return err
		}
	}
	if err := c.unhold(); err != nil {
		return err
	}
	if c.exited {
		c.a.dnsExit(c.resolvers())
	}
	c.proved(l.candidate)
	c.connected(rtt)
	watch := newWatch(c.a.c.Device, c.several(), rtt)
	for pause(ctx, watch.wait()) {
		if to, ok := c.better(ctx, l.candidate); ok {
			return &movedError{to}
		}
		if !watch.due() {
			continue
		}
		if rtt, err = c.probe(ctx, watch.within()); err == nil {
			watch.answered(rtt)
			c.connected(rtt)
			continue
		}
		if watch.lost++; watch.lost < silentAfter {
			continue
		}
		if watch.lost == silentAfter {
			c.a.update(func(s *Status) { s.State, s.Client.Error = Silent, err.Error() })
		}
		if c.another() {
			return fmt.Errorf("%w: %w", errLost, err)
		}
	}
	return ctx.Err()
}

func (c *client) connected(rtt time.Duration) {
	c.a.update(func(s *Status) {
		if s.State != Connected {
			s.Client.Since = time.Now()
		}
		s.State, s.Client.Error, s.Client.RTT = Connected, "", float64(rtt.Microseconds())/1000
		s.Client.NextTry = time.Time{}
	})
}

// watch says when to probe.
type watch struct {
	device string
	hasty  bool
	lost   int
	at     time.Time // of the last probe
	rx, tx uint64
	silent bool // what was sent since the last look was not answered
	rtt    time.Duration
}

func newWatch(device string, hasty bool, rtt time.Duration) *watch {
	w := &watch{device: device, hasty: hasty, at: time.Now(), rtt: rtt}
	w.rx, w.tx = counters(device)
	return w
}

func (w *watch) wait() time.Duration {
	switch {
	case w.hasty && w.lost == 0:
		return hastyLook
	case w.hasty && w.lost < silentAfter:
		return 0 // the probe has waited
	case w.lost > 0:
		return probeAgain
	}
	return probeEvery
}

func (w *watch) within() time.Duration {
	if w.hasty {
		return min(max(hastyProbe, 4*w.rtt), probeWithin)
	}
	return probeWithin
}

// due reports whether it is time to probe: always, but for a hasty watch of a way that is not suspect.
func (w *watch) due() bool {
	rx, tx := counters(w.device)
	w.silent = tx != w.tx && rx == w.rx
	w.rx, w.tx = rx, tx
	if w.hasty && w.lost == 0 && !w.silent && time.Since(w.at) < probeEvery {
		return false
	}
	w.at = time.Now()
	return true
}

func (w *watch) answered(rtt time.Duration) {
	w.lost, w.rtt = 0, rtt
	w.rx, w.tx = counters(w.device)
}

// prove waits for the first probe that comes back.
func (c *client) prove(ctx context.Context) (rtt time.Duration, err error) {
	tries, within := probeTries, probeWithin
	if c.several() {
		tries, within = hastyTries, hastyLook
	}
	for range tries {
		if rtt, err = c.probe(ctx, within); err == nil {
			return rtt, nil
		}
		if !pause(ctx, retryFirst) {
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("no answer from the server through the tunnel: %w", err)
}

// probe sends an echo through the device to the server's address in the vpn. Where this process may not make the
// socket for it, the node's own ping has to do.
func (c *client) probe(ctx context.Context, within time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	rtt, err := echo(ctx, c.answer.IPv4, c.answer.Gateway)
	if errors.Is(err, errEchoRights) {
		return c.a.node.Ping(ctx, c.server)
	}
	return rtt, err
}

// pause waits and reports whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// resolvers are those of the exit: on its address in the vpn, so that none can make us ask somebody on our own network.
func (c *client) resolvers() (all []netip.Addr) {
	for _, a := range c.answer.DNS {
		if a == c.answer.Gateway {
			all = append(all, a)
		}
	}
	return all
}
