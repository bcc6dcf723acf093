package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// Limits of a client.
const (
	defaultListen      = "127.0.0.1:1080"
	defaultConnections = 2048
	refusals           = 64               // connections above the limit that are told so at once; the rest is closed unheard
	negotiationTimeout = 10 * time.Second // a program on this box or this LAN needs milliseconds
	openTimeout        = 20 * time.Second // above the exit's own limit on connecting
	goodbyeTimeout     = 2 * time.Second
	goodbyeBytes       = 64 << 10
)

// ClientConfig configures a Client.
type ClientConfig struct {
	Node        Node
	Listen      string       // host:port or unix:PATH, several with commas; empty means 127.0.0.1:1080
	Listener    net.Listener // used in place of Listen where not nil; Run closes it
	Transparent string       // tproxy:PORT or redirect:PORT: also take connections that the kernel diverts here
	Servers     []string     // the exits in order of preference: keys, petnames, mesh names; empty or "auto": the best that works
	Rules       socks.Rules
	Names       Names // nil: names of the mesh mean nothing
	Optimistic  bool  // answer programs before the exit has, so that their first bytes travel with the target
	Credentials socks.Credentials
	Open        bool     // allow Listen beyond this box without a password
	Finders     []Finder // more sources of exits
	Connections int      // at once; 0 means 2048
	OpenTimeout time.Duration
	Negotiation time.Duration // limit on a program's request; 0 means 10 s
	UDPIdle     time.Duration // an association without packets ends after this; 0 means 10 min
	Log         *slog.Logger
}

// Client is the proxy that local programs use.
type Client struct {
	c      ClientConfig
	exits  *exits            // as configured for all
	pools  map[string]*exits // of the rules, by their exits
	slots  chan struct{}
	spare  chan struct{}
	stats  clientStats
	noExit atomic.Bool // said; said again only after a connection was granted
}

type clientStats struct {
	active, associations           atomic.Int64
	accepted, granted, denied, bad atomic.Uint64
	direct, blocked                atomic.Uint64
	sent, received                 atomic.Uint64
	packets, dropped               atomic.Uint64
}

// ClientStatus is what a Client publishes.
type ClientStatus struct {
	Role         string       `json:"role"` // "client"
	Listen       string       `json:"listen"`
	Transparent  string       `json:"transparent,omitempty"`
	Server       string       `json:"server"` // as configured
	Rules        int          `json:"rules"`
	Password     bool         `json:"password"`
	Exit         string       `json:"exit"` // the key in use, empty before the first connection
	Exits        []ExitReport `json:"exits"`
	Connections  int64        `json:"connections"`  // now
	Associations int64        `json:"associations"` // of UDP, now
	Accepted     uint64       `json:"accepted"`
	Granted      uint64       `json:"granted"`
	Denied       uint64       `json:"denied"`
	Direct       uint64       `json:"direct"`  // granted without an exit
	Blocked      uint64       `json:"blocked"` // denied by a rule
	Bad          uint64       `json:"bad"`     // requests not understood, not allowed or too late
	Sent         uint64       `json:"tx_bytes"`
	Received     uint64       `json:"rx_bytes"`
	Packets      uint64       `json:"packets"`         // of UDP, both ways
	Dropped      uint64       `json:"dropped_packets"` // of them not passed on
}

// ExitReport is one exit as a Client sees it.
type ExitReport struct {
	Key   string   `json:"key"`
	RTT   *float64 `json:"rtt_ms"`         // null: no answer, or not measured
	Load  *int     `json:"load,omitempty"` // percent; absent: it does not say, or was not asked
	Fault string   `json:"fault,omitempty"`
}

// NewClient checks the configuration. It does nothing yet.
func NewClient(c ClientConfig) (*Client, error) {
	if c.Node == nil {
		return nil, errors.New("client: no node")
	}
	if c.Listen == "" {
		c.Listen = defaultListen
	}
	if c.Listener == nil {
		if err := checkListen(c); err != nil {
			return nil, err
		}
	}
	if _, _, err := parseTransparent(c.Transparent); err != nil {
		return nil, err
	}
	c.Connections = cmp.Or(c.Connections, defaultConnections)
	c.OpenTimeout = cmp.Or(c.OpenTimeout, openTimeout)
	c.Negotiation = cmp.Or(c.Negotiation, negotiationTimeout)
	c.UDPIdle = cmp.Or(c.UDPIdle, associationIdle)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Client{
		c: c, exits: newExits(c.Node, c.Servers, c.Finders, c.Log), pools: make(map[string]*exits),
		slots: make(chan struct{}, c.Connections), spare: make(chan struct{}, refusals),
	}
	for _, r := range c.Rules {
		if name := strings.Join(r.Exits, ","); name != "" && p.pools[name] == nil {
			p.pools[name] = newExits(c.Node, r.Exits, c.Finders, c.Log)
		}
	}
	return p, nil
}

// Run listens and serves until ctx ends, and returns nil then. Connections handed to the node outlive it.
func (c *Client) Run(ctx context.Context) error {
	all, err := c.listen(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { closeAll(all) })()
	c.c.Log.Info("proxy listening", "addr", all[0].Addr().String(), "server", c.server(), "password", c.c.Credentials.Required())
	wg.Go(func() { c.exits.run(ctx) })
	for _, p := range c.pools {
		wg.Go(func() { p.run(ctx) })
	}
	wg.Go(func() { publish(ctx, func() { c.c.Node.Status(c.Status(all[0].Addr())) }) })
	var serving sync.WaitGroup
	for _, l := range all {
		serving.Go(func() {
			if err := l.run(ctx, c, &wg); err != nil {
				cancel(err)
			}
		})
	}
	serving.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// server names the exits as configured.
func (c *Client) server() string { return cmp.Or(strings.Join(c.c.Servers, ","), auto) }

// admit gives the connection a goroutine within the limits: above the first limit it is told that there are too many,
// above the second it is closed.
func (c *Client) admit(ctx context.Context, wg *sync.WaitGroup, conn Stream, serve func(context.Context, Stream)) {
	c.stats.accepted.Add(1)
	select {
	case c.slots <- struct{}{}:
		wg.Go(func() {
			defer func() { <-c.slots }()
			c.stats.active.Add(1)
			defer c.stats.active.Add(-1)
			serve(ctx, conn)
		})
		return
	default:
	}
	select {
	case c.spare <- struct{}{}:
		wg.Go(func() {
			defer func() { <-c.spare }()
			c.turnAway(ctx, conn)
		})
	default:
		c.stats.denied.Add(1)
		conn.Close()
	}
}

// turnAway tells a program in its own protocol that the limit is reached.
func (c *Client) turnAway(ctx context.Context, conn Stream) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c.stats.denied.Add(1)
	if r := c.negotiate(conn); r != nil {
		_ = r.Deny(conn, socks.Failed, fmt.Sprintf("%v at this proxy (%d)", ErrBusy, c.c.Connections))
		goodbye(conn)
	}
}

// serve takes one program from its first byte to the end of its connection.
func (c *Client) serve(ctx context.Context, conn Stream) {
	// Until the hand-over a stop closes the socket under whoever reads it; afterwards the socket is the node's.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := c.negotiate(conn)
	if r == nil {
		stop()
		conn.Close()
		return
	}
	var err error
	switch r.Command {
	case socks.Associate:
		err = c.associate(ctx, r, conn)
	case socks.Forward:
		err = c.forward(ctx, r, conn)
	case socks.Page:
		err = c.answerPage(r, conn)
	default:
		err = c.connect(ctx, r, conn, stop)
	}
	if err != nil {
		stop()
		c.deny(r, conn, err)
	}
}

// deny puts an error into the program's terms and ends its connection.
func (c *Client) deny(r *socks.Request, conn Stream, err error) {
	c.stats.denied.Add(1)
	code, text := denial(err)
	if errors.Is(err, ErrNoExit) && !c.noExit.Swap(true) {
		c.c.Log.Warn("no exit takes connections", "err", err, "remedy", "is the exit there (socks servers), and does it allow this box's key (there: socks server --allow KEY)?")
	}
	c.c.Log.Debug("connection denied", "target", r.Address(), "verdict", code.String(), "err", err)
	if conn.SetDeadline(time.Now().Add(goodbyeTimeout)) == nil && r.Deny(conn, code, text) == nil {
		goodbye(conn)
	}
	conn.Close()
}

// negotiate returns nil if the program gets nothing; it has been told then.
func (c *Client) negotiate(conn Stream) *socks.Request {
	if err := conn.SetDeadline(time.Now().Add(c.c.Negotiation)); err != nil {
		return nil
	}
	r, err := socks.Negotiate(conn, c.c.Credentials)
	if err != nil {
		if !errors.Is(err, io.EOF) { // a port check, most likely
			c.stats.bad.Add(1)
			c.c.Log.Debug("request refused", "from", conn.RemoteAddr().String(), "err", err)
			goodbye(conn)
		}
		return nil
	}
	if conn.SetDeadline(time.Time{}) != nil {
		return nil
	}
	return r
}

// noExitError says which exits were tried and why none would do.
type noExitError struct {
	faults map[key.Public]error
	order  []candidate
}

func (e *noExitError) Error() string {
	return "no exit would do: " + tried(e.faults, e.order)
}
func (e *noExitError) Is(target error) bool { return target == ErrNoExit }

// denial puts an error into the program's terms.
func denial(err error) (socks.Code, string) {
	var v *Verdict
	if errors.As(err, &v) {
		return v.code(), v.Text
	}
	var n *noExitError
	if errors.As(err, &n) { // strangers everywhere are a matter of permission, not of the network
		strangers := len(n.faults) > 0
		for _, f := range n.faults {
			strangers = strangers && errors.As(f, &v) && v.Code == verdictStranger
		}
		if strangers {
			return socks.NotAllowed, err.Error()
		}
	}
	if errors.Is(err, ErrNoExit) {
		return socks.NetworkUnreachable, err.Error()
	}
	return socks.Failed, err.Error()
}

// goodbye ends a connection such that the last words arrive: closing with unread bytes in the socket would reset it, and a
// reset overtakes them.
func goodbye(conn Stream) {
	if conn.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(goodbyeTimeout)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, goodbyeBytes)
}

// Status returns the counters; addr is where the client listens.
func (c *Client) Status(addr net.Addr) ClientStatus {
	n := &c.stats
	s := ClientStatus{
		Role: "client", Server: c.server(), Password: c.c.Credentials.Required(), Listen: addr.String(), Transparent: c.c.Transparent,
		Rules: len(c.c.Rules), Connections: n.active.Load(), Associations: n.associations.Load(), Accepted: n.accepted.Load(),
		Granted: n.granted.Load(), Denied: n.denied.Load(), Direct: n.direct.Load(), Blocked: n.blocked.Load(), Bad: n.bad.Load(),
		Sent: n.sent.Load(), Received: n.received.Load(), Packets: n.packets.Load(), Dropped: n.dropped.Load(),
	}
	s.Exit, s.Exits = c.exits.report()
	return s
}
