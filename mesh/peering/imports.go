package peering

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
)

// tie is the work for one peering in force: what the other cluster exports stands at our node as NAME@CLUSTER, and leads
// there. A new record makes a new tie.
type tie struct {
	g     *Gateway
	ctx   context.Context
	end   context.CancelFunc
	alias string
	other *Side
	seq   uint64
	allow []string
	work  sync.WaitGroup

	greet   sync.Mutex               // one hello at a time; guards greeted
	greeted map[key.Public]time.Time // gates

	mu     sync.Mutex // guards visits
	visits map[key.Public]func()
}

// retie makes the ties what the book says.
func (g *Gateway) retie(ctx context.Context) {
	book, err := g.theBook()
	if err != nil {
		return
	}
	want := map[Pair]Peering{}
	for _, p := range book.All() {
		if p.Record != nil && p.Moved.IsZero() && g.holds(&p) == nil && len(p.Theirs().Gives.Exports) > 0 {
			want[p.Pair] = p
		}
	}
	g.mu.Lock()
	var over []*tie
	for pair, t := range g.ties {
		p, ok := want[pair]
		if ok && p.Record.Seq == t.seq && p.Alias == t.alias && slices.Equal(p.Allow, t.allow) {
			delete(want, pair)
			continue
		}
		over = append(over, t)
		delete(g.ties, pair)
	}
	g.mu.Unlock()
	for _, t := range over {
		t.cut()
		t.work.Wait()
	}
	for pair, p := range want {
		t := &tie{g: g, alias: p.Alias, other: p.Theirs(), seq: p.Record.Seq, allow: p.Allow, visits: map[key.Public]func(){}, greeted: map[key.Public]time.Time{}}
		t.ctx, t.end = context.WithCancel(ctx)
		g.mu.Lock()
		g.ties[pair] = t
		g.mu.Unlock()
		t.work.Go(t.run)
	}
}

// untie ends all ties.
func (g *Gateway) untie() {
	g.mu.Lock()
	all := g.ties
	g.ties = map[Pair]*tie{}
	g.mu.Unlock()
	for _, t := range all {
		t.cut()
		t.work.Wait()
	}
}

// cut ends the tie, and the visits under it with every stream in them, at once.
func (t *tie) cut() {
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, end := range t.visits {
		end()
		delete(t.visits, k)
	}
}

// visiting remembers how to end a visit.
func (t *tie) visiting(gate key.Public, end func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if end == nil {
		return
	}
	if t.ctx.Err() != nil {
		end()
		return
	}
	t.visits[gate] = end
}

// run keeps the services registered.
func (t *tie) run() {
	for t.ctx.Err() == nil {
		if err := t.serve(); err != nil && t.ctx.Err() == nil {
			t.g.c.Log.Warn("services of peered cluster not offered", "cluster", t.alias, "err", err)
			wait(t.ctx, learnEvery)
		}
	}
}

// ServiceName is how an export of a cluster is called here.
func ServiceName(export, cluster string) string { return export + "@" + cluster }

func (t *tie) serve() error {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	home, err := app.Dial(ctx, t.g.c.Run)
	if err != nil {
		return err
	}
	defer home.Close()
	allow := t.allow
	if len(allow) == 0 {
		allow = []string{app.AnyMember}
	}
	reg := app.Registration{Name: Service + "-" + t.alias, Kind: Service}
	for _, e := range t.other.Gives.Exports {
		reg.Services = append(reg.Services, app.Service{
			Name: ServiceName(e.Name, t.alias), Type: e.Type, Port: e.Port, Allow: allow, Meta: "of cluster " + t.other.Cluster.Short(),
			Packets: e.packets(),
		})
	}
	if err := home.Register(ctx, reg); err != nil {
		return err
	}
	t.g.c.Log.Info("services of a peered cluster", "cluster", t.alias, "count", len(reg.Services))
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	for _, e := range t.other.Gives.Exports {
		parts.Go(func() { t.accept(ctx, home, e.Name) })
	}
	return home.Run(ctx)
}

func (t *tie) accept(ctx context.Context, home *app.Client, export string) {
	for ctx.Err() == nil {
		in, err := home.Accept(ctx, ServiceName(export, t.alias))
		switch {
		case err == nil:
			go t.lead(ctx, in, export)
		case errors.Is(err, app.ErrClosed):
			return
		default:
			wait(ctx, time.Second)
		}
	}
}

// lead brings a stream of ours to the other cluster's gate, which knows the service behind it.
func (t *tie) lead(ctx context.Context, in *app.Incoming, export string) {
	dialing, cancel := context.WithTimeout(ctx, visitStart+callTimeout)
	defer cancel()
	if in.Packets {
		if !t.g.beginFlow() {
			_ = in.Refuse(signal.ErrBusy.Name, "too many flows to peered clusters")
			return
		}
		defer t.g.endFlow()
		flow, release, err := dialExport(dialing, t, export, in.Header, (*app.Client).DialPackets)
		if !t.refused(in, export, err) {
			defer release()
			t.join(in, flow)
		}
		return
	}
	s, release, err := dialExport(dialing, t, export, in.Header, (*app.Client).Dial)
	if t.refused(in, export, err) {
		return
	}
	defer release()
	if _, err := in.HandOver(s.Reply(), s); err != nil {
		t.g.c.Log.Debug("stream ended", "service", ServiceName(export, t.alias), "err", err)
	}
}

// refused tells who asked why the other cluster is not reached, if it is not.
func (t *tie) refused(in *app.Incoming, export string, err error) bool {
	if err != nil {
		var known *signal.Error
		if !errors.As(err, &known) || known.Name == nameUnknown || known.Name == nameNotReached {
			known = signal.ErrUnreachable
		}
		t.g.c.Log.Info("service of peered cluster not reached", "service", ServiceName(export, t.alias), "err", err)
		_ = in.Refuse(known.Name, t.alias+": "+err.Error())
	}
	return err != nil
}

// dialFunc is how a stream or a flow of packets is opened.
type dialFunc[S any] func(c *app.Client, ctx context.Context, to key.Public, service string, header []byte) (S, error)

// dialExport opens a stream or a flow to an export, at the first gate that answers.
func dialExport[S any](ctx context.Context, t *tie, export string, header []byte, dial dialFunc[S]) (s S, release func(), err error) {
	ask := append(appendText([]byte{protocol, opDial}, export), header...)
	for _, gate := range t.gates() {
		if s, release, err = dialAt(ctx, t, gate, ask, dial); err == nil || !elsewhere(err) {
			return s, release, err
		}
	}
	return s, nil, err
}

func dialAt[S any](ctx context.Context, t *tie, gate key.Public, ask []byte, dial dialFunc[S]) (s S, release func(), err error) {
	at := placeOf(t.other.Cluster, t.other.Gates, gate)
	for tries := 0; ; tries++ {
		asked := time.Now()
		s, release, end, err := dialFrom(ctx, t.g.c.Visits, at, gate, func(ctx context.Context, c *app.Client) (S, error) {
			return dial(c, ctx, gate, Service, ask)
		})
		if err == nil {
			t.visiting(gate, end)
			return s, release, nil
		}
		if !isUnknown(err) || tries > 1 {
			return s, nil, err
		}
		t.greet.Lock()
		if err = nil; asked.After(t.greeted[gate]) { // else another stream has said it meanwhile
			if err = t.sayHello(ctx, gate); err == nil {
				t.greeted[gate] = time.Now()
			}
		}
		t.greet.Unlock()
		if err != nil {
			return s, nil, err
		}
	}
}

func isUnknown(err error) bool {
	var e *signal.Error
	return errors.As(err, &e) && strings.HasPrefix(e.Name, nameUnknown)
}

// gates are the other side's, those that we visit already first.
func (t *tie) gates() (all []key.Public) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, visited := range []bool{true, false} {
		for _, g := range t.other.Gates {
			if (t.visits[g.Key] != nil) == visited {
				all = append(all, g.Key)
			}
		}
	}
	return all
}
