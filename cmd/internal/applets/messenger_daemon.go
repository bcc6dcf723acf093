//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/peering"
	"skywire/signal"
	"skywire/supervisor"
)

// messengerDaemon are the parts of a running messenger.
type messengerDaemon struct {
	f     *applet.Flags
	c     messengerConfig
	log   *slog.Logger
	home  *messengerHome
	shelf messenger.Shelf

	account0 key.Public
	engine   *messenger.Engine
	control  *messenger.Control
	audit    *messenger.Audit
	calls    *messenger.Calls
	ledger   *messenger.Statements
	hooks    *messenger.Hooks
	server   *messenger.Server

	mu      sync.Mutex // guards the fields below
	gateway *peering.Gateway
}

// Of the bucket of the daemon's own.
const (
	selfBucket     = "self"
	selfAccount    = "account"
	selfStatements = "statements"
	selfPlace      = "place"
)

// account is who we are. That of a cluster is known from the node when it is there, and from the store when it is not.
func (d *messengerDaemon) account(ctx context.Context, self key.Public) (key.Public, error) {
	kept, err := d.shelf.Get(selfBucket, []byte(selfAccount))
	if err != nil {
		return key.Public{}, err
	}
	d.account0 = self
	if d.c.Account == "cluster" {
		if len(kept) == key.Size && key.Public(kept) != self {
			d.account0 = key.Public(kept)
		} else if d.account0, err = d.awaitCluster(ctx); err != nil {
			return key.Public{}, err
		}
	}
	if kept != nil && string(kept) != string(d.account0[:]) {
		return key.Public{}, applet.WithCode(applet.Refused, fmt.Errorf("what is kept in %s is of another account (%x…): move messenger.db away, or run with the --account and the --state of before", d.f.State, kept[:min(4, len(kept))]))
	}
	account := d.account0
	if d.c.Account == "self" {
		account = key.Public{}
	}
	return account, d.shelf.Put(selfBucket, []byte(selfAccount), d.account0[:])
}

func (d *messengerDaemon) awaitCluster(ctx context.Context) (key.Public, error) {
	wait := time.NewTimer(managerNodeWait)
	defer wait.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if f := d.home.known(); f.there && !f.cluster.IsZero() && f.statements != nil {
			return f.cluster, nil
		}
		select {
		case <-ctx.Done():
			return key.Public{}, ctx.Err()
		case <-wait.C:
			if d.home.known().there {
				return key.Public{}, errors.New("the node is no member of a cluster; join one (node join), or run with --account self")
			}
			return key.Public{}, fmt.Errorf("%w; the account of a cluster is learnt from it at the first start", noNode(app.ErrNotRunning))
		case <-tick.C:
		}
	}
}

// statements prove that we speak for a cluster: as the node has said last, in this run or an earlier one.
func (d *messengerDaemon) statements() [][]byte {
	if s := d.home.known().statements; s != nil {
		d.keep(selfStatements, s)
		return s
	}
	var s [][]byte
	d.kept(selfStatements, &s)
	return s
}

// place is where we are met, as the node has said last.
func (d *messengerDaemon) place() envelope.Place {
	if f := d.home.known(); f.there {
		d.keep(selfPlace, f.place)
		return f.place
	}
	var p envelope.Place
	d.kept(selfPlace, &p)
	return p
}

// keep writes something that only saves a wait after the next start.
func (d *messengerDaemon) keep(name string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		return
	}
	if had, err := d.shelf.Get(selfBucket, []byte(name)); err == nil && string(had) == string(raw) {
		return
	}
	if err := d.shelf.Put(selfBucket, []byte(name), raw); err != nil {
		d.log.Warn("not kept", "type", name, "err", err)
	}
}

func (d *messengerDaemon) kept(name string, v any) {
	if raw, err := d.shelf.Get(selfBucket, []byte(name)); err == nil && raw != nil {
		_ = json.Unmarshal(raw, v) // what does not parse is as if it were not there
	}
}

// renew is called when the network around us is another.
func (d *messengerDaemon) renew() {
	if err := d.engine.Renew(); err != nil {
		d.log.Warn("no new card", "err", err)
	}
	if d.c.Account == "cluster" {
		for _, k := range d.home.known().siblings {
			d.engine.Sibling(k)
		}
	}
}

// assemble makes the parts around the engine, before anything runs.
func (d *messengerDaemon) assemble(conf messenger.Config) error {
	audit, err := messenger.OpenAudit(d.shelf)
	if err != nil {
		return err
	}
	d.audit = audit
	if d.calls, err = messenger.OpenCalls(d.shelf); err != nil {
		return err
	}
	if d.ledger, err = messenger.OpenStatements(d.shelf, conf.Salt, conf.Quota/32); err != nil {
		return err
	}
	d.control, err = messenger.NewControl(messenger.ControlConfig{
		Shelf: d.shelf, Audit: audit, Log: d.log, Now: time.Now, Scope: d.scope, Granted: d.granted,
		Answer: func(ctx context.Context, to key.Public, body []byte) error {
			_, err := d.engine.Send(ctx, messenger.Outgoing{To: to, Kind: envelope.KindResult, Body: body, Quiet: true})
			return err
		},
	}, messenger.ViscriptVerbs(askViscript(supervisor.ControlSocket(d.f.Run))))
	if err != nil {
		return err
	}
	presence := messenger.NewPresence()
	d.hooks, err = messenger.NewHooks(messenger.HooksConfig{
		Hooks: d.c.Hooks, Engine: d.engine, Shelf: d.shelf, Presence: presence, Log: d.log,
		Online: func() []key.Public { return d.home.known().online },
		Exec:   runHook(d.f.Env()), Post: postHook(),
	})
	if err != nil {
		return err
	}
	d.handle()
	d.server = messenger.NewServer(messenger.ServerConfig{
		Engine: d.engine, Account: d.account0, Claim: conf.Name, Place: d.place, Resolve: d.home.resolve, Petname: d.home.petname,
		Audit: audit, Calls: d.calls, Ledger: d.ledger, Presence: presence, More: d.peerMethods(), Log: d.log,
		Daemon: func(s *messenger.DaemonStatus) {
			s.Kind, s.Node, s.Strangers = d.c.Account, d.home.known().there, string(conf.Policy.Strangers)
			s.HooksDropped, s.HooksFailed = d.hooks.Counters()
			s.Kept, _ = d.ledger.Count()
		},
	})
	return nil
}

// handle registers who takes which kind of item.
func (d *messengerDaemon) handle() {
	d.engine.Handle(envelope.KindControl, func(ctx context.Context, from messenger.Sender, i envelope.Item) error {
		return d.control.Take(ctx, from.Account, from.Device, i.ID(from.Account), i.Expires, i.Body)
	})
	d.engine.Handle(envelope.KindResult, func(_ context.Context, from messenger.Sender, i envelope.Item) error {
		return d.calls.Answered(from.Account, i.Body, time.Now())
	})
	d.engine.Handle(envelope.KindStatement, func(ctx context.Context, from messenger.Sender, i envelope.Item) error {
		a, err := d.ledger.Take(from, &i, time.Now())
		var told *signal.Error
		if err != nil && !errors.As(err, &told) {
			return err // the store's: again later
		}
		return d.control.Answer(ctx, from.Account, i.ID(from.Account), a, err)
	})
	d.engine.Handle(envelope.KindPeering, func(ctx context.Context, _ messenger.Sender, i envelope.Item) error {
		g := d.gatewayNow()
		if g == nil {
			return errors.New("the gateway is not up yet")
		}
		err := g.Put(ctx, i.Body)
		if err != nil {
			d.log.Info("a record of a peering was not taken", "err", err)
		}
		return nil // it would be no better a second time, and its other way is the gateway's own
	})
}

// scope is what an account may have this box do, and our name for it. Our own account may not more than others: its devices are
// other boxes.
func (d *messengerDaemon) scope(account key.Public) (s messenger.Scope, name string) {
	err := d.engine.Book(func(b *messenger.Book, _ time.Time) error {
		s = b.Scope(account)
		if c, err := b.Get(account); err == nil {
			name = c.Name
		}
		return nil
	})
	if err != nil {
		return messenger.ScopeNone, name
	}
	return s, name
}

// askViscript calls the viscript of this box.
func askViscript(socket string) messenger.Viscript {
	return func(ctx context.Context, method string, params map[string]any) (json.RawMessage, error) {
		c, err := signal.Dial(ctx, socket, nil)
		if err != nil {
			return nil, signal.Errorf(signal.ErrNotRunning, "viscript does not run on that box")
		}
		defer c.Close()
		var raw json.RawMessage
		var p any
		if params != nil {
			p = params
		}
		err = c.Call(ctx, method, p, &raw)
		return raw, err
	}
}
