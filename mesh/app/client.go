// Package app is what a program imports to join the node: it registers services, dials and takes streams, and hands over
// descriptors (a TUN, a TCP connection) that the node then serves without it.
//
// It holds no QUIC, no keys and no policy of the mesh: everything goes through RUN/node.sock, one connection for
// JSON-RPC and one more for each stream. A program in another language does the same with a unix socket and JSON, see
// testdata/dial.py.
//
// Rules: what a Client was told (registration, TUNs, policy, status) it tells again when the node comes back, as long as
// Run runs. Methods may be called from any goroutine. Lock order: Client.mu alone; no I/O with it held.
package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"skywire/mesh/key"
	"skywire/signal"
)

// Waiting between attempts to reach a node that is away.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 2 * time.Second
)

// callTimeout bounds one step of telling a restarted node again what it should know.
const callTimeout = 10 * time.Second

// CallHandler answers a call that another program made through app.call.
type CallHandler func(ctx context.Context, method string, params json.RawMessage) (any, error)

// Client is a program's tie to the node.
type Client struct {
	path string

	mu      sync.Mutex // guards the fields below
	conn    *signal.Conn
	changed chan struct{} // closed when conn is replaced
	info    Info
	closed  bool
	onCall  CallHandler
	reg     *Registration
	policy  *Policy
	status  json.RawMessage
	tuns    map[string]heldTUN
}

type heldTUN struct {
	queues []*os.File
	mtu    int
}

func (t heldTUN) close() {
	for _, f := range t.queues {
		f.Close()
	}
}

// Dial connects to the node whose run directory is run.
func Dial(ctx context.Context, run string) (*Client, error) {
	c := &Client{path: filepath.Join(run, SocketName), changed: make(chan struct{}), tuns: map[string]heldTUN{}}
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// notRunning wraps ErrNotRunning around the errors of a socket nobody listens on.
func notRunning(path string, err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrNotRunning)
	}
	return err
}

// connect makes a new control connection and tells the node all it should know.
func (c *Client) connect(ctx context.Context) error {
	conn, err := signal.Dial(ctx, c.path, c.serve)
	if err != nil {
		return notRunning(c.path, err)
	}
	var info Info
	if err := conn.Call(ctx, "node.id", nil, &info); err != nil {
		conn.Close()
		return fmt.Errorf("node.id: %w", goneIsNotRunning(err)) // a node that is just ending answers nobody
	}
	if err := c.tellAgain(ctx, conn); err != nil {
		conn.Close()
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return ErrClosed
	}
	c.conn, c.info = conn, info
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// tellAgain repeats to a node that has just started what this client had told its predecessor.
func (c *Client) tellAgain(ctx context.Context, conn *signal.Conn) error {
	c.mu.Lock()
	reg, policy, status := c.reg, c.policy, c.status
	tuns := make(map[string]heldTUN, len(c.tuns))
	for device, t := range c.tuns {
		tuns[device] = t
	}
	c.mu.Unlock()
	if reg != nil {
		if err := conn.Call(ctx, "app.register", reg, nil); err != nil {
			return fmt.Errorf("app.register: %w", err)
		}
	}
	for device, t := range tuns {
		if err := conn.CallFile(ctx, "tun.attach", TUN{Device: device, MTU: t.mtu}, nil, t.queues...); err != nil {
			return fmt.Errorf("tun.attach %s: %w", device, err)
		}
	}
	if policy != nil {
		if err := conn.Call(ctx, "tun.policy", policy, nil); err != nil {
			return fmt.Errorf("tun.policy: %w", err)
		}
	}
	if status != nil {
		return conn.Call(ctx, "app.status", status, nil)
	}
	return nil
}

// Run keeps the connection: when the node goes, it waits for it to come back and tells it everything again. It returns
// nil when ctx ends or the Client is closed.
func (c *Client) Run(ctx context.Context) error {
	for {
		conn, _, err := c.current()
		if err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
		}
		for wait := retryFirst; ; wait = min(2*wait, retryMost) {
			if !pause(ctx, wait) {
				return nil
			}
			step, cancel := context.WithTimeout(ctx, callTimeout)
			err := c.connect(step)
			cancel()
			if err == nil {
				break
			}
			if errors.Is(err, ErrClosed) {
				return nil
			}
		}
	}
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

// Close ends the connection; the node forgets the registration, and keeps the TUNs.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	for _, t := range c.tuns {
		t.close()
	}
	c.tuns = map[string]heldTUN{}
	close(c.changed)
	return c.conn.Close()
}

// current returns the connection, which may have ended, and a channel that closes when there is another.
func (c *Client) current() (*signal.Conn, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, ErrClosed
	}
	return c.conn, c.changed, nil
}

// Self returns who the node is, as of the last connection.
func (c *Client) Self() Info {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// Changed closes when the Client has a new connection to a node, or is closed.
func (c *Client) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// Call asks the node; an error of the node's is a *signal.Error, ErrNotRunning says that it is away.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	conn, _, err := c.current()
	if err != nil {
		return err
	}
	return goneIsNotRunning(conn.Call(ctx, method, params, result))
}

// goneIsNotRunning tells a connection that ended from an answer.
func goneIsNotRunning(err error) error {
	if errors.Is(err, signal.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	return err
}

// OnCall sets who answers what other programs ask of this app through app.call.
func (c *Client) OnCall(h CallHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onCall = h
}

// serve answers the node's requests: calls that it forwards.
func (c *Client) serve(ctx context.Context, r *signal.Request) (any, error) {
	for _, f := range r.Files {
		f.Close() // nothing that comes this way has files
	}
	c.mu.Lock()
	h := c.onCall
	c.mu.Unlock()
	if h == nil {
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	return h(ctx, r.Method, r.Params)
}

// Register announces the app and its services, now and after each restart of the node; the last Registration counts.
func (c *Client) Register(ctx context.Context, r Registration) error {
	if err := c.Call(ctx, "app.register", r, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg = &r
	return nil
}

// Status tells the node what app.list shows of this app: any value that encodes to at most 64 KiB. It is kept and told
// again to a node that comes back; while the node is away that is all it does.
func (c *Client) Status(v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("app.status: %w", err)
	}
	c.mu.Lock()
	c.status = raw
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if err := c.Call(ctx, "app.status", json.RawMessage(raw), nil); err != nil && !errors.Is(err, ErrNotRunning) {
		return err
	}
	return nil
}

// Resolve turns a key, petname, name.mesh or mesh address into a key.
func (c *Client) Resolve(ctx context.Context, name string) (key.Public, error) {
	var r struct {
		Key key.Public `json:"key"`
	}
	err := c.Call(ctx, "node.resolve", map[string]string{"name": name}, &r)
	return r.Key, err
}

// Services lists what the nodes of the mesh offer, of one type ("vpn", "socks") or, if kind is empty, all.
func (c *Client) Services(ctx context.Context, kind string) ([]Service, error) {
	var s []Service
	err := c.Call(ctx, "node.services", map[string]string{"type": kind}, &s)
	return s, err
}

// Ping measures one round trip to a node, end to end.
func (c *Client) Ping(ctx context.Context, to key.Public) (time.Duration, error) {
	var r struct {
		RTT float64 `json:"rtt_ms"`
	}
	err := c.Call(ctx, "node.ping", map[string]string{"key": to.String()}, &r)
	return time.Duration(r.RTT * float64(time.Millisecond)), err
}

// AttachTUN hands the queues of a device to the node. The Client keeps duplicates and gives them to a node that comes
// back; queues stay the caller's.
func (c *Client) AttachTUN(ctx context.Context, queues []*os.File, device string, mtu int) error {
	conn, _, err := c.current()
	if err != nil {
		return err
	}
	held := heldTUN{mtu: mtu}
	for _, f := range queues {
		dup, err := Duplicate(f)
		if err != nil {
			held.close()
			return fmt.Errorf("keep %s: %w", device, err)
		}
		held.queues = append(held.queues, dup)
	}
	if err := conn.CallFile(ctx, "tun.attach", TUN{Device: device, MTU: mtu}, nil, held.queues...); err != nil {
		held.close()
		return goneIsNotRunning(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old, ok := c.tuns[device]; ok {
		old.close()
	}
	if c.closed {
		held.close()
		return ErrClosed
	}
	c.tuns[device] = held
	return nil
}

// DetachTUN makes the node let go of the device.
func (c *Client) DetachTUN(ctx context.Context, device string) error {
	c.mu.Lock()
	if t, ok := c.tuns[device]; ok {
		t.close()
		delete(c.tuns, device)
	}
	c.mu.Unlock()
	return c.Call(ctx, "tun.detach", map[string]string{"device": device}, nil)
}

// SetPolicy replaces what the node routes, grants and serves beside the mesh addresses.
func (c *Client) SetPolicy(ctx context.Context, p Policy) error {
	if err := c.Call(ctx, "tun.policy", p, nil); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.policy = &p
	return nil
}

// Sockets returns duplicates of the node's UDP sockets, for SO_MARK and SO_RCVBUFFORCE; the caller closes them.
func (c *Client) Sockets(ctx context.Context) ([]*os.File, error) {
	conn, _, err := c.current()
	if err != nil {
		return nil, err
	}
	files, err := conn.CallForFiles(ctx, "carrier.sockets", nil, nil)
	return files, goneIsNotRunning(err)
}
