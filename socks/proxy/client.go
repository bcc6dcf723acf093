package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
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
	Listen      string       // host:port; empty means 127.0.0.1:1080
	Listener    net.Listener // used in place of Listen where not nil; Run closes it
	Server      string       // the exit: a key, petname or mesh name; empty or "auto" means the nearest that works
	Credentials socks.Credentials
	Open        bool     // allow Listen beyond this box without a password
	Finders     []Finder // more sources of exits
	Connections int      // at once; 0 means 2048
	OpenTimeout time.Duration
	Negotiation time.Duration // limit on a program's request; 0 means 10 s
	Log         *slog.Logger
}

// Client is the proxy that local programs use.
type Client struct {
	c      ClientConfig
	exits  *exits
	slots  chan struct{}
	spare  chan struct{}
	stats  clientStats
	noExit atomic.Bool // said; said again only after a connection was granted
}

type clientStats struct {
	active                         atomic.Int64
	accepted, granted, denied, bad atomic.Uint64
	sent, received                 atomic.Uint64
}

// ClientStatus is what a Client publishes.
type ClientStatus struct {
	Role        string       `json:"role"` // "client"
	Listen      string       `json:"listen"`
	Server      string       `json:"server"` // as configured
	Password    bool         `json:"password"`
	Exit        string       `json:"exit"` // the key in use, empty before the first connection
	Exits       []ExitReport `json:"exits"`
	Connections int64        `json:"connections"` // now
	Accepted    uint64       `json:"accepted"`
	Granted     uint64       `json:"granted"`
	Denied      uint64       `json:"denied"`
	Bad         uint64       `json:"bad"` // requests not understood, not allowed or too late
	Sent        uint64       `json:"tx_bytes"`
	Received    uint64       `json:"rx_bytes"`
}

// ExitReport is one exit as a Client sees it.
type ExitReport struct {
	Key   string   `json:"key"`
	RTT   *float64 `json:"rtt_ms"` // null: no answer, or not measured
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
	if c.Server == "" {
		c.Server = auto
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	if c.OpenTimeout == 0 {
		c.OpenTimeout = openTimeout
	}
	if c.Negotiation == 0 {
		c.Negotiation = negotiationTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{
		c: c, exits: newExits(c.Node, c.Server, c.Finders, c.Log),
		slots: make(chan struct{}, c.Connections), spare: make(chan struct{}, refusals),
	}, nil
}

// checkListen refuses to be an open proxy by accident.
func checkListen(c ClientConfig) error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen on %q: want HOST:PORT: %w", c.Listen, err)
	}
	if c.Open || c.Credentials.Required() || host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		return nil
	}
	return fmt.Errorf("listen on %s: %w", c.Listen, ErrExposed)
}

// Run listens and serves until ctx ends, and returns nil then. Connections handed to the node outlive it.
func (c *Client) Run(ctx context.Context) error {
	ln, err := c.listen(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	c.c.Log.Info("proxy listening", "addr", ln.Addr().String(), "server", c.c.Server, "password", c.c.Credentials.Required())
	wg.Go(func() { c.exits.run(ctx) })
	wg.Go(func() { publish(ctx, func() { c.c.Node.Status(c.Status(ln.Addr())) }) })
	for {
		conn, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("listen on %s: %w", ln.Addr(), err)
		}
		if err != nil { // out of descriptors, or a program that was gone before we looked
			c.c.Log.Warn("connection not accepted", "err", err)
			pause(ctx, acceptPause)
			continue
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			conn.Close()
			return fmt.Errorf("listen on %s: not TCP", ln.Addr())
		}
		c.stats.accepted.Add(1)
		c.admit(ctx, &wg, tcp)
	}
}

func (c *Client) listen(ctx context.Context) (net.Listener, error) {
	if c.c.Listener != nil {
		return c.c.Listener, nil
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive()}
	ln, err := lc.Listen(ctx, "tcp", c.c.Listen)
	if err != nil {
		return nil, explainListen(c.c.Listen, err)
	}
	return ln, nil
}

// admit gives the connection a goroutine within the limits: above the first limit it is told that there are too many,
// above the second it is closed.
func (c *Client) admit(ctx context.Context, wg *sync.WaitGroup, conn *net.TCPConn) {
	select {
	case c.slots <- struct{}{}:
		wg.Go(func() {
			defer func() { <-c.slots }()
			c.stats.active.Add(1)
			defer c.stats.active.Add(-1)
			c.serve(ctx, conn)
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
func (c *Client) turnAway(ctx context.Context, conn *net.TCPConn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	c.stats.denied.Add(1)
	if r := c.negotiate(conn); r != nil {
		_ = r.Deny(conn, socks.Failed, fmt.Sprintf("%v at this proxy (%d)", ErrBusy, c.c.Connections))
		goodbye(conn)
	}
}

// serve takes one program from its first byte to the end of its connection.
func (c *Client) serve(ctx context.Context, conn *net.TCPConn) {
	// Until the hand-over a stop closes the socket under whoever reads it; afterwards the socket is the node's.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := c.negotiate(conn)
	if r == nil {
		stop()
		conn.Close()
		return
	}
	var err error
	if r.Command == socks.Connect {
		err = c.connect(ctx, r, conn, stop)
	} else {
		err = &Verdict{Code: socks.CommandNotSupported}
	}
	if err == nil {
		return
	}
	stop()
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
func (c *Client) negotiate(conn *net.TCPConn) *socks.Request {
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

// connect opens the stream over the first exit that will have it. It returns an error only while conn is still ours; stop
// unties conn from the run's end.
func (c *Client) connect(ctx context.Context, r *socks.Request, conn *net.TCPConn, stop func() bool) error {
	header := Header{Host: r.Host, Port: r.Port, First: r.First}.Append(nil)
	r.First = nil
	order, err := c.exits.pick(ctx)
	if err != nil {
		return err
	}
	faults := make(map[key.Public]error)
	for _, e := range order {
		given, err := c.over(ctx, e.key, r, header, conn, stop)
		if given {
			return nil
		}
		var v *Verdict
		if errors.As(err, &v) && !v.elsewhere() {
			c.exits.worked(e.key) // the exit is fine, the target is not
			return v
		}
		if ctx.Err() != nil || errors.Is(err, errProgramGone) {
			return err
		}
		c.exits.failed(e.key, err)
		faults[e.key] = err
	}
	return &noExitError{faults: faults, order: order}
}

// errProgramGone is returned when the program has left before its answer.
var errProgramGone = errors.New("the program has hung up")

// over tries one exit. given reports that conn has been handed over.
func (c *Client) over(ctx context.Context, exit key.Public, r *socks.Request, header []byte, conn *net.TCPConn, stop func() bool) (given bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.c.OpenTimeout, func() {
		cancel(fmt.Errorf("no answer within %s", c.c.OpenTimeout))
	})
	defer late.Stop()
	prepare := func([]byte) (*net.TCPConn, error) {
		if !late.Stop() || !stop() {
			return nil, context.Canceled
		}
		if err := conn.SetWriteDeadline(time.Now().Add(goodbyeTimeout)); err != nil {
			return nil, fmt.Errorf("%w: %w", errProgramGone, err)
		}
		if err := r.Grant(conn); err != nil {
			return nil, fmt.Errorf("%w: %w", errProgramGone, err)
		}
		if err := conn.SetWriteDeadline(time.Time{}); err != nil {
			return nil, fmt.Errorf("%w: %w", errProgramGone, err)
		}
		given = true
		c.stats.granted.Add(1)
		c.noExit.Store(false)
		c.exits.worked(exit)
		return conn, nil
	}
	t, err := c.c.Node.DialHandOver(ctx, exit, header, prepare)
	c.stats.sent.Add(t.Sent)
	c.stats.received.Add(t.Received)
	if err != nil && context.Cause(ctx) != nil && !given {
		err = context.Cause(ctx)
	}
	if given && err != nil {
		c.c.Log.Debug("connection ended", "peer", exit.Short(), "err", err)
	}
	return given, err
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
func goodbye(conn *net.TCPConn) {
	if conn.CloseWrite() != nil || conn.SetReadDeadline(time.Now().Add(goodbyeTimeout)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, goodbyeBytes)
}

// Status returns the counters; addr is where the client listens.
func (c *Client) Status(addr net.Addr) ClientStatus {
	s := ClientStatus{
		Role: "client", Server: c.c.Server, Password: c.c.Credentials.Required(), Listen: addr.String(),
		Connections: c.stats.active.Load(), Accepted: c.stats.accepted.Load(), Granted: c.stats.granted.Load(),
		Denied: c.stats.denied.Load(), Bad: c.stats.bad.Load(), Sent: c.stats.sent.Load(), Received: c.stats.received.Load(),
	}
	s.Exit, s.Exits = c.exits.report()
	return s
}
