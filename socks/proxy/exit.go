package proxy

import (
	"context"
	"errors"
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
	defaultExitConnections    = 2048
	defaultConnectionsPerKey  = 1024
	defaultAssociations       = 128 // UDP, each with a socket and two buffers of 64 KiB here
	defaultAssociationsPerKey = 64
)

// acceptors is how many streams may be in the few microseconds between being accepted and having a goroutine.
const acceptors = 4

// acceptPause is how long an exit waits before it asks the node for streams again after an error: while the node is away
// there is nothing to do, and nothing to be late for.
const acceptPause = 250 * time.Millisecond

// drain is how long connections that are being made when an exit ends have left to be handed over.
const drain = 3 * time.Second

// handOverGrace is how long a socket may take to the node when the exit ends: one message on this box.
const handOverGrace = 500 * time.Millisecond

// ExitConfig configures an Exit.
type ExitConfig struct {
	Node         ExitNode
	Allow        []key.Public // who may use the exit
	AllowTags    []string     // those with a tag may too; the node tells who has one
	AllowAny     bool         // whoever the node lets through may: members in a cluster, strangers in an open mesh
	AllowPrivate bool         // lead to addresses local to the exit too
	Policy       []string     // rules, the first that matches decides; see rule
	Mesh         netip.Prefix // the mesh's prefix, never led to
	Limits       Limits       // of each client, kept by the node

	Connections        int // at once; 0 means 2048
	PerKey             int // at once for one client; 0 means 1024
	NewPerKey          int // a second for one client; 0 means no limit
	Associations       int // UDP, at once; 0 means 128
	AssociationsPerKey int // 0 means 64
	DialTimeout        time.Duration
	NoUDP              bool
	UDPIdle            time.Duration // 0 means five minutes
	Resolver           *net.Resolver // nil means Go's resolver with this box's configuration
	Log                *slog.Logger
}

// Limits is what the node keeps a client to, since it moves the bytes.
type Limits struct {
	Rate uint64        // bytes a second and direction, over all connections of one client; 0 means no limit
	Idle time.Duration // a connection without a byte for so long is ended; 0 means never
}

// Exit opens TCP connections, and UDP ports, for clients at the other end of the mesh.
type Exit struct {
	c        ExitConfig
	allow    map[key.Public]bool
	names    *resolver
	policy   *policy
	dialer   dialer
	accounts *accounts
	stats    exitStats
	drain    time.Duration // the constant, but for tests
}

type exitStats struct {
	accepted, refused, failed atomic.Uint64
	sent, received            atomic.Uint64
	datagrams, dropped        atomic.Uint64
}

// ExitStatus is what an Exit publishes.
type ExitStatus struct {
	Role         string         `json:"role"` // "exit"
	AllowAny     bool           `json:"allow_any"`
	Allow        int            `json:"allow"` // number of keys
	Tags         []string       `json:"allow_tags,omitempty"`
	Private      bool           `json:"allow_private"`
	Rules        int            `json:"rules"`
	Rate         uint64         `json:"rate_bytes_per_second,omitempty"` // of one client
	Load         int            `json:"load_percent"`
	Connections  int            `json:"connections"`  // now
	Associations int            `json:"associations"` // now
	Clients      int            `json:"clients"`      // keys with something open now
	Accepted     uint64         `json:"accepted"`
	Refused      uint64         `json:"refused"` // by policy or limit
	Failed       uint64         `json:"failed"`  // targets that did not answer
	Sent         uint64         `json:"tx_bytes"`
	Received     uint64         `json:"rx_bytes"`
	Datagrams    uint64         `json:"datagrams"`
	Dropped      uint64         `json:"datagrams_dropped"` // by policy, rate, or for want of room
	Names        uint64         `json:"names_asked"`
	NamesCached  uint64         `json:"names_cached"`
	Keys         []ClientReport `json:"keys"` // at most 64
}

// NewExit checks the configuration. It does nothing yet.
func NewExit(c ExitConfig) (*Exit, error) {
	if c.Node == nil {
		return nil, errors.New("exit: no node")
	}
	rules, err := parseRules(c.Policy)
	if err != nil {
		return nil, err
	}
	orElse(&c.Connections, defaultExitConnections)
	orElse(&c.PerKey, defaultConnectionsPerKey)
	orElse(&c.Associations, defaultAssociations)
	orElse(&c.AssociationsPerKey, defaultAssociationsPerKey)
	if c.UDPIdle == 0 {
		c.UDPIdle = udpIdle
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	var own ownAddresses
	e := &Exit{
		c: c, allow: make(map[key.Public]bool), accounts: newAccounts(c), drain: drain,
		names: newResolver(c.Resolver), policy: newPolicy(c.AllowPrivate, c.Mesh, own.list, rules...),
	}
	for _, k := range c.Allow {
		e.allow[k] = true
	}
	e.dialer = newDialer(e.names, e.policy, c.DialTimeout)
	return e, nil
}

func orElse(n *int, most int) {
	if *n == 0 {
		*n = most
	}
}

// Run serves until ctx ends, and returns nil then. Connections handed to the node outlive it; those that are being made
// have a moment left.
func (e *Exit) Run(ctx context.Context) error {
	if !e.c.AllowAny && len(e.allow)+len(e.c.AllowTags) == 0 {
		e.c.Log.Warn("exit closed to everybody", "remedy", "allow keys, or any")
	}
	making, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(e.drain, end) })()
	var wg sync.WaitGroup
	for range acceptors {
		wg.Go(func() { e.accept(ctx, making, &wg) })
	}
	if !e.c.NoUDP {
		wg.Go(func() { e.acceptUDP(ctx, &wg) })
	}
	publish(ctx, func() { e.c.Node.Status(e.Status()) })
	wg.Wait()
	e.names.close()
	return nil
}

// accept takes streams until ctx ends.
func (e *Exit) accept(ctx, making context.Context, wg *sync.WaitGroup) {
	for ctx.Err() == nil {
		in, err := e.c.Node.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.c.Log.Debug("no streams from the node", "err", err)
				pause(ctx, acceptPause)
			}
			continue
		}
		wg.Go(func() { e.serve(ctx, making, in) })
	}
}

// serve answers one stream, in the order of what costs least: who, how many, where, and last the connection. Connections
// are made until making ends.
func (e *Exit) serve(ctx, making context.Context, in Incoming) {
	peer := in.Peer()
	if !e.knows(peer) {
		e.refuse(in, &Verdict{verdictStranger, "this exit does not know you: its owner can allow your key " + peer.String()})
		return
	}
	if isProbe(in.Header()) {
		e.tell(in)
		return
	}
	if err := e.accounts.open(peer, false); err != nil {
		e.refuse(in, &Verdict{verdictBusy, err.Error()})
		return
	}
	defer e.accounts.close(peer, false)
	h, err := ParseHeader(in.Header())
	if err != nil {
		e.refuse(in, &Verdict{socks.Failed, err.Error()})
		return
	}
	conn, err := e.dialer.dial(making, h)
	if err != nil {
		v := verdictOf(h, err)
		e.c.Log.Debug("target refused", "peer", peer.Short(), "verdict", v.Code.String(), "err", err)
		e.accounts.note(peer, 0, 1, 0, 0)
		e.refuse(in, v)
		return
	}
	e.stats.accepted.Add(1)
	e.accounts.note(peer, 1, 0, 0, 0)
	if ctx.Err() != nil { // the socket still has to reach the node
		hand, cancel := context.WithTimeout(making, handOverGrace)
		defer cancel()
		_, _ = in.HandOver(hand, conn, e.c.Limits)
		return
	}
	t, err := in.HandOver(ctx, conn, e.c.Limits)
	e.stats.sent.Add(t.Sent)
	e.stats.received.Add(t.Received)
	e.accounts.note(peer, 0, 0, t.Sent, t.Received)
	if err != nil && ctx.Err() == nil {
		e.c.Log.Debug("connection ended", "peer", peer.Short(), "err", err)
	}
}

// knows reports whether a client may use the exit. With tags that is the node's to say, and it has: the tags are in what the
// services allow.
func (e *Exit) knows(k key.Public) bool {
	return e.c.AllowAny || len(e.c.AllowTags) > 0 || e.allow[k]
}

// tell answers a probe.
func (e *Exit) tell(in Incoming) {
	conns, _, _ := e.accounts.use()
	if err := in.Refuse(loadVerdict(loadNow(conns, e.c.Connections))); err != nil {
		e.c.Log.Debug("load not delivered", "peer", in.Peer().Short(), "err", err)
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

// Status returns the counters.
func (e *Exit) Status() ExitStatus {
	conns, udp, clients := e.accounts.use()
	dns := e.names.counts()
	return ExitStatus{
		Role: "exit", AllowAny: e.c.AllowAny, Allow: len(e.allow), Tags: e.c.AllowTags, Private: e.c.AllowPrivate,
		Rules: len(e.c.Policy), Rate: e.c.Limits.Rate, Load: loadNow(conns, e.c.Connections).Percent,
		Connections: conns, Associations: udp, Clients: clients,
		Accepted: e.stats.accepted.Load(), Refused: e.stats.refused.Load(), Failed: e.stats.failed.Load(),
		Sent: e.stats.sent.Load(), Received: e.stats.received.Load(),
		Datagrams: e.stats.datagrams.Load(), Dropped: e.stats.dropped.Load(),
		Names: dns.asked, NamesCached: dns.hits, Keys: e.accounts.report(),
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
