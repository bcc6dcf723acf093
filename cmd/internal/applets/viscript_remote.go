package applets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/supervisor"
	"skywire/supervisor/config"
)

const (
	// operatorService is what operators of other boxes dial.
	operatorService = "viscript"
	// maxOperators bounds their streams at once, and maxOperatorsOf those of one key.
	maxOperators   = 64
	maxOperatorsOf = 8
	// nodeRetry is how often a daemon without a node looks for one: the node may be an app of its own.
	nodeRetry = 2 * time.Second
	// nameRetryMost is how long at most an operator's name that nobody knows is not looked up.
	nameRetryMost = time.Minute
)

// operators serves the operators of other boxes by settings.remote.
type operators struct {
	s    *supervisor.Supervisor
	log  *slog.Logger
	said []string // words that name nobody, of which the log has been told; of the goroutine that looks names up

	mu   sync.Mutex // guards the fields below
	keys map[key.Public]supervisor.Scope
	any  supervisor.Scope
	open map[key.Public]int
	all  int
}

// serveOperators is what the daemon runs beside its loop. A node that goes while it is told of the service, or that refuses it
// because another has the name, is asked again.
func serveOperators(run string, log *slog.Logger) func(context.Context, *supervisor.Supervisor, config.Remote) error {
	return func(ctx context.Context, s *supervisor.Supervisor, r config.Remote) error {
		said := ""
		for {
			o := &operators{s: s, log: log, keys: map[key.Public]supervisor.Scope{}, open: map[key.Public]int{}}
			err := o.beside(ctx, run, r)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil && err.Error() != said {
				said = err.Error()
				log.Warn("operators on other boxes are not served now", "err", err)
			}
			if !pauseFor(ctx, nodeRetry) {
				return nil
			}
		}
	}
}

// beside serves operators through one tie to the node, which lasts over the node's restarts.
func (o *operators) beside(ctx context.Context, run string, r config.Remote) error {
	node, err := nodeOf(ctx, run)
	if err != nil {
		return err
	}
	defer node.Close()
	unknown := o.allow(ctx, node.Resolve, r.Read, supervisor.Read)
	o.allow(ctx, node.Resolve, r.Operate, supervisor.Operate)
	o.allow(ctx, node.Resolve, r.Admin, supervisor.Admin)
	if err := node.Register(ctx, o.registration()); err != nil {
		return fmt.Errorf("register with the node: %w", err)
	}
	o.log.Info("operators are served", "keys", len(o.keys), "everybody", o.any != supervisor.None)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { node.Run(ctx) })
	wg.Go(func() { o.await(ctx, node, unknown) })
	for {
		in, err := node.Accept(ctx, operatorService)
		if err != nil {
			return err
		}
		wg.Go(func() { o.serve(ctx, in) })
	}
}

func (o *operators) registration() app.Registration {
	o.mu.Lock()
	defer o.mu.Unlock()
	service := app.Service{Name: operatorService, Type: operatorService}
	if o.any != supervisor.None {
		service.Allow = []string{app.AnyMember}
	}
	for k := range o.keys {
		service.Allow = append(service.Allow, k.String())
	}
	slices.Sort(service.Allow)
	return app.Registration{Name: operatorService, Kind: operatorService, Services: []app.Service{service}}
}

// await takes in operators whose names nobody knew at first: a node that has just started has not heard yet who its members are.
func (o *operators) await(ctx context.Context, node *app.Client, unknown []string) {
	for wait := nodeRetry; len(unknown) > 0 && pauseFor(ctx, wait); wait = min(2*wait, nameRetryMost) {
		still := o.allow(ctx, node.Resolve, unknown, supervisor.Read)
		if len(still) == len(unknown) {
			continue
		}
		if err := node.Register(ctx, o.registration()); err != nil {
			continue // the old list holds; the names are looked up again
		}
		unknown = still
		o.log.Info("operators are served by name", "count", len(unknown))
	}
}

// pauseFor waits and reports whether ctx still runs.
func pauseFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// nodeOf waits for the node of this box.
func nodeOf(ctx context.Context, run string) (*app.Client, error) {
	t := time.NewTicker(nodeRetry)
	defer t.Stop()
	for {
		node, err := app.Dial(ctx, run)
		if !errors.Is(err, app.ErrNotRunning) {
			return node, err
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// allow notes the scope of keys and returns the words that name nobody now. Who may do more than look is named by key: a
// name stands in a certificate, and whoever took a manager could give it to a key of his own.
func (o *operators) allow(ctx context.Context, resolve func(context.Context, string) (key.Public, error), words []string, scope supervisor.Scope) (unknown []string) {
	for _, w := range words {
		var k key.Public
		var err error
		if w != "any" {
			if k, err = key.Parse(w); err != nil && scope == supervisor.Read {
				if k, err = resolve(ctx, w); err != nil {
					unknown = append(unknown, w)
				}
			}
		}
		if err != nil {
			o.say(w, err)
			continue
		}
		o.mu.Lock()
		if w == "any" {
			o.any = max(o.any, scope)
		} else {
			o.keys[k] = max(o.keys[k], scope)
		}
		o.mu.Unlock()
	}
	return unknown
}

// say tells once that a word of settings.remote names nobody.
func (o *operators) say(word string, err error) {
	if !slices.Contains(o.said, word) {
		o.said = append(o.said, word)
		o.log.Warn("operator left out: no such key", "name", word, "err", err)
	}
}

func (o *operators) serve(ctx context.Context, in *app.Incoming) {
	o.mu.Lock()
	scope := max(o.any, o.keys[in.Peer])
	full := o.all >= maxOperators || o.open[in.Peer] >= maxOperatorsOf
	if scope != supervisor.None && !full {
		o.all++
		o.open[in.Peer]++
	}
	o.mu.Unlock()
	switch {
	case scope == supervisor.None:
		in.Refuse("refused", "this key is not in settings.remote")
		return
	case full:
		in.Refuse("busy", "too many operators at once")
		return
	}
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.all--
		if o.open[in.Peer]--; o.open[in.Peer] == 0 {
			delete(o.open, in.Peer)
		}
	}()
	stream, err := in.Accept(nil)
	if err != nil {
		return
	}
	defer stream.Close()
	if err := o.s.ServeStream(ctx, stream, supervisor.Caller{Name: in.Peer.String(), Scope: scope}); err != nil {
		o.log.Info("operator's stream broken", "peer", in.Peer, "err", err)
	}
}

// dialOperator connects to the viscript of another box through the node of this one.
func dialOperator(f *applet.Flags) func(context.Context, string) (io.ReadWriteCloser, error) {
	return func(ctx context.Context, word string) (io.ReadWriteCloser, error) {
		node, err := awaitNode(ctx, f, 0)
		if err != nil {
			return nil, err
		}
		k, err := node.Resolve(ctx, word)
		if err != nil {
			node.Close()
			return nil, err
		}
		if k == node.Self().Key {
			node.Close()
			return dialHere(ctx, f)
		}
		stream, err := node.Dial(ctx, k, operatorService, nil)
		if err != nil {
			node.Close()
			return nil, fmt.Errorf("%w; on that box, viscript has to run with this box's key (skywire node id) in settings.remote", err)
		}
		return operatorConn{stream, node}, nil
	}
}

// dialHere connects to this box's viscript, for -n with its own name.
func dialHere(ctx context.Context, f *applet.Flags) (io.ReadWriteCloser, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", supervisor.ControlSocket(f.Run))
	if err != nil {
		return nil, signal.Errorf(signal.ErrNotRunning, "not running: nobody answers at %s", supervisor.ControlSocket(f.Run))
	}
	return c, nil
}

// operatorConn is a stream and the connection to the node that it came by.
type operatorConn struct {
	net.Conn
	node *app.Client
}

func (c operatorConn) Close() error { return errors.Join(c.Conn.Close(), c.node.Close()) }
