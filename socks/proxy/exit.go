package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// Limits of an exit. Each proxied connection holds a descriptor here, and two more in the node; OpenWrt's hard limit is
// often 4096 a process.
const (
	defaultExitConnections   = 2048
	defaultConnectionsPerKey = 1024
)

// acceptors is how many streams may be in the few microseconds between being accepted and having a goroutine.
const acceptors = 4

// acceptPause is how long an exit waits before it asks the node for streams again after an error: while the node is away
// there is nothing to do, and nothing to be late for.
const acceptPause = 250 * time.Millisecond

// ExitConfig configures an Exit.
type ExitConfig struct {
	Node         ExitNode
	Allow        []key.Public // who may use the exit
	AllowAny     bool         // whoever can open a session may: members in a cluster, strangers in an open mesh
	AllowPrivate bool         // lead to addresses local to the exit too
	Mesh         netip.Prefix // the mesh's prefix, never led to
	Connections  int          // at once; 0 means 2048
	PerKey       int          // at once for one client; 0 means 1024
	DialTimeout  time.Duration
	Resolver     *net.Resolver // nil means Go's resolver with this box's configuration
	Log          *slog.Logger
}

// Exit opens TCP connections for clients at the other end of the mesh.
type Exit struct {
	c      ExitConfig
	allow  map[key.Public]bool
	dialer dialer
	stats  exitStats

	mu  sync.Mutex // guards the fields below
	per map[key.Public]int
	all int
}

type exitStats struct {
	accepted, refused, failed atomic.Uint64
	sent, received            atomic.Uint64
}

// ExitStatus is what an Exit publishes.
type ExitStatus struct {
	Role        string `json:"role"` // "exit"
	AllowAny    bool   `json:"allow_any"`
	Allow       int    `json:"allow"` // number of keys
	Private     bool   `json:"allow_private"`
	Connections int    `json:"connections"` // now
	Clients     int    `json:"clients"`     // keys with a connection now
	Accepted    uint64 `json:"accepted"`
	Refused     uint64 `json:"refused"` // by policy or limit
	Failed      uint64 `json:"failed"`  // targets that did not answer
	Sent        uint64 `json:"tx_bytes"`
	Received    uint64 `json:"rx_bytes"`
}

// NewExit checks the configuration. It does nothing yet.
func NewExit(c ExitConfig) (*Exit, error) {
	if c.Node == nil {
		return nil, errors.New("exit: no node")
	}
	if c.Connections == 0 {
		c.Connections = defaultExitConnections
	}
	if c.PerKey == 0 {
		c.PerKey = defaultConnectionsPerKey
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exit{c: c, allow: make(map[key.Public]bool), per: make(map[key.Public]int)}
	for _, k := range c.Allow {
		e.allow[k] = true
	}
	var own ownAddresses
	e.dialer = newDialer(c.Resolver, newPolicy(c.AllowPrivate, c.Mesh, own.list), c.DialTimeout)
	return e, nil
}

// Run serves until ctx ends, and returns nil then. Connections handed to the node outlive it.
func (e *Exit) Run(ctx context.Context) error {
	if !e.c.AllowAny && len(e.allow) == 0 {
		e.c.Log.Warn("exit closed to everybody", "remedy", "allow keys, or any")
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for range acceptors {
		wg.Go(func() { e.accept(ctx, &wg) })
	}
	publish(ctx, func() { e.c.Node.Status(e.Status()) })
	return nil
}

// accept takes streams until ctx ends.
func (e *Exit) accept(ctx context.Context, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		in, err := e.c.Node.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.c.Log.Debug("no streams from the node", "err", err)
				pause(ctx, acceptPause)
			}
			continue
		}
		wg.Go(func() { e.serve(ctx, in) })
	}
}

// serve answers one stream, in the order of what costs least: who, how many, where, and last the connection.
func (e *Exit) serve(ctx context.Context, in Incoming) {
	peer := in.Peer()
	if !e.c.AllowAny && !e.allow[peer] {
		e.refuse(in, &Verdict{verdictStranger, "this exit does not know you: its owner can allow your key " + peer.String()})
		return
	}
	if err := e.take(peer); err != nil {
		e.refuse(in, &Verdict{verdictBusy, err.Error()})
		return
	}
	defer e.give(peer)
	h, err := ParseHeader(in.Header())
	if err != nil {
		e.refuse(in, &Verdict{socks.Failed, err.Error()})
		return
	}
	conn, err := e.dialer.dial(ctx, h)
	if err != nil {
		v := verdictOf(h, err)
		e.c.Log.Debug("target refused", "peer", peer.Short(), "verdict", v.Code.String(), "err", err)
		e.refuse(in, v)
		return
	}
	e.stats.accepted.Add(1)
	t, err := in.HandOver(ctx, conn)
	e.stats.sent.Add(t.Sent)
	e.stats.received.Add(t.Received)
	if err != nil && ctx.Err() == nil {
		e.c.Log.Debug("connection ended", "peer", peer.Short(), "err", err)
	}
}

func (e *Exit) refuse(in Incoming, v *Verdict) {
	if v.elsewhere() || v.Code == socks.NotAllowed {
		e.stats.refused.Add(1)
	} else {
		e.stats.failed.Add(1)
	}
	if err := in.Refuse(v); err != nil {
		e.c.Log.Debug("refusal not delivered", "peer", in.Peer().Short(), "err", err)
	}
}

// take counts a connection of k, unless a limit is reached.
func (e *Exit) take(k key.Public) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.all >= e.c.Connections:
		return fmt.Errorf("%w at this exit (%d)", ErrBusy, e.c.Connections)
	case e.per[k] >= e.c.PerKey:
		return fmt.Errorf("%w of one client at this exit (%d)", ErrBusy, e.c.PerKey)
	}
	e.all++
	e.per[k]++
	return nil
}

func (e *Exit) give(k key.Public) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all--
	if e.per[k]--; e.per[k] == 0 {
		delete(e.per, k)
	}
}

// Status returns the counters.
func (e *Exit) Status() ExitStatus {
	e.mu.Lock()
	all, clients := e.all, len(e.per)
	e.mu.Unlock()
	return ExitStatus{
		Role: "exit", AllowAny: e.c.AllowAny, Allow: len(e.allow), Private: e.c.AllowPrivate,
		Connections: all, Clients: clients,
		Accepted: e.stats.accepted.Load(), Refused: e.stats.refused.Load(), Failed: e.stats.failed.Load(),
		Sent: e.stats.sent.Load(), Received: e.stats.received.Load(),
	}
}

// statusEvery is how old the state that `socks status` shows may be.
const statusEvery = 2 * time.Second

// publish calls f at once and then periodically until ctx ends.
func publish(ctx context.Context, f func()) {
	t := time.NewTicker(statusEvery)
	defer t.Stop()
	for {
		f()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
