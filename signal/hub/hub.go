// Package hub is viscript's side of signal: it knows which connection belongs to which app, and asks apps on behalf
// of others.
//
// It does not start or watch processes and knows no policy: whether a stranger at the address is the app it says it is
// is decided by Config.Verify. Rules: one connection per id, the first one keeps it while it lives; an inherited
// descriptor is proof by itself; at the address hello must come first and soon. Hub.mu is never held during I/O.
package hub

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"skywire/signal"
)

// helloTimeout is how long a connection at the address may stay silent.
const helloTimeout = 5 * time.Second

// maxStatus is what is kept of an app's own line, in bytes.
const maxStatus = 256

// proto is the one version of the protocol there is.
const proto = 1

// Hello is what an app says first.
type Hello struct {
	Proto    []int    `json:"proto"`
	ID       uint64   `json:"id,omitempty"`
	Token    string   `json:"token,omitempty"`
	Name     string   `json:"name,omitempty"`
	Version  string   `json:"version,omitempty"`
	PID      int      `json:"pid,omitempty"`
	Features []string `json:"features,omitempty"`
}

// Welcome answers Hello.
type Welcome struct {
	Proto int    `json:"proto"`
	ID    uint64 `json:"id"`
}

// Kind says what an Event is about.
type Kind string

// The kinds of events.
const (
	Joined   Kind = "joined"   // hello was accepted
	Ready    Kind = "ready"    // the app serves
	Status   Kind = "status"   // Text is the app's own line
	Stopping Kind = "stopping" // the app ends by itself
	Beat     Kind = "watchdog" // the app lives
	Note     Kind = "event"    // Text is something that happened in the app
	Left     Kind = "left"     // the connection is gone
)

// Event is something an app said or did.
type Event struct {
	ID   uint64
	Kind Kind
	Text string
}

// Config of a Hub.
type Config struct {
	Log *slog.Logger
	// Verify judges a hello at the address and returns nil if the peer is app h.ID. peer is nil where the kernel
	// does not tell (TCP). An error's text is not told to the peer.
	Verify func(h Hello, peer *signal.Cred) error
	// Event is called from the connection's goroutine, in order, and may block.
	Event func(Event)
}

// Hub holds the connections.
type Hub struct {
	c Config

	mu   sync.Mutex // guards the fields below
	apps map[uint64]*client
}

type client struct {
	conn    *signal.Conn
	said    bool          // hello was accepted
	welcome chan struct{} // closed when said
}

// New returns an empty Hub.
func New(c Config) *Hub {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	return &Hub{c: c, apps: map[uint64]*client{}}
}

// Attach runs the connection whose other end app id inherits; it returns when it ends.
func (h *Hub) Attach(ctx context.Context, id uint64, rw io.ReadWriteCloser) {
	conn := signal.NewConn(rw, nil)
	cl := &client{conn: conn, welcome: make(chan struct{})}
	h.mu.Lock()
	old := h.apps[id]
	h.apps[id] = cl
	h.mu.Unlock()
	if old != nil {
		old.conn.Close()
	}
	conn.SetHandler(func(_ context.Context, r *signal.Request) (any, error) {
		r.Drop()
		if r.Notify {
			await(conn, cl.welcome)
		}
		if r.Method == "hello" {
			return h.hello(r, id, cl)
		}
		return h.app(r, id, cl)
	})
	err := conn.Run(ctx)
	h.leave(id, cl, err)
}

// Serve answers at the address until ctx ends.
func (h *Hub) Serve(ctx context.Context, l net.Listener) error {
	return signal.Serve(ctx, l, func(c *signal.Conn) signal.Handler {
		var mu sync.Mutex
		var id uint64
		var cl *client
		welcome := make(chan struct{})
		silent := time.AfterFunc(helloTimeout, func() { c.Close() })
		go func() { // ends with the connection
			<-c.Done()
			silent.Stop()
			mu.Lock()
			defer mu.Unlock()
			if cl != nil {
				h.leave(id, cl, nil)
			}
		}()
		return func(_ context.Context, r *signal.Request) (any, error) {
			r.Drop()
			if r.Notify {
				await(c, welcome)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case cl != nil:
				return h.app(r, id, cl)
			case r.Method != "hello":
				c.Close()
				return nil, signal.Errorf(signal.ErrRefused, "say hello first")
			}
			joined, hi, err := h.join(r, c)
			if err != nil {
				time.AfterFunc(100*time.Millisecond, func() { c.Close() }) // after the answer is out
				return nil, err
			}
			silent.Stop()
			id, cl = hi.ID, joined
			close(welcome)
			select {
			case <-c.Done(): // ended meanwhile, and nobody else will say so
				h.leave(id, cl, nil)
			default:
			}
			h.c.Event(Event{ID: id, Kind: Joined, Text: hi.Name})
			return Welcome{proto, id}, nil
		}
	})
}

// await holds a notification back that was sent behind hello and overtook it: a program need not wait for the answer before it
// says that it is ready.
func await(c *signal.Conn, welcome <-chan struct{}) {
	t := time.NewTimer(helloTimeout)
	defer t.Stop()
	select {
	case <-welcome:
	case <-c.Done():
	case <-t.C:
	}
}

// join accepts or refuses a hello at the address.
func (h *Hub) join(r *signal.Request, c *signal.Conn) (*client, Hello, error) {
	hi, err := parseHello(r)
	if err != nil {
		return nil, hi, err
	}
	var peer *signal.Cred
	if cred, err := c.Peer(); err == nil {
		peer = &cred
	}
	if h.c.Verify == nil {
		return nil, hi, signal.ErrRefused
	}
	if err := h.c.Verify(hi, peer); err != nil {
		h.c.Log.Warn("signal client refused", "id", hi.ID, "err", err)
		return nil, hi, signal.Errorf(signal.ErrRefused, "not app %d: the token is wrong, or the process is not of its tree", hi.ID)
	}
	cl := &client{conn: c, said: true}
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.apps[hi.ID]; old != nil && old.said {
		return nil, hi, signal.Errorf(signal.ErrRefused, "app %d is connected already", hi.ID)
	}
	h.apps[hi.ID] = cl
	return cl, hi, nil
}

func parseHello(r *signal.Request) (Hello, error) {
	var hi Hello
	if err := json.Unmarshal(r.Params, &hi); err != nil { // lenient: later versions say more
		return hi, signal.Errorf(signal.ErrUsage, "hello: %v", err)
	}
	if !slices.Contains(hi.Proto, proto) {
		return hi, signal.Errorf(signal.ErrUnsupported, "hello: protocol %v, this side speaks %d", hi.Proto, proto)
	}
	return hi, nil
}

// hello answers an app that holds the inherited descriptor.
func (h *Hub) hello(r *signal.Request, id uint64, cl *client) (any, error) {
	hi, err := parseHello(r)
	if err != nil {
		return nil, err
	}
	if hi.ID != 0 && hi.ID != id {
		return nil, signal.Errorf(signal.ErrRefused, "this is the descriptor of app %d, not %d", id, hi.ID)
	}
	h.mu.Lock()
	again := cl.said
	cl.said = true
	h.mu.Unlock()
	h.c.Event(Event{ID: id, Kind: Joined, Text: hi.Name})
	if !again {
		close(cl.welcome)
	}
	return Welcome{proto, id}, nil
}

// app handles what an app that has said hello sends.
func (h *Hub) app(r *signal.Request, id uint64, cl *client) (any, error) {
	h.mu.Lock()
	said := cl.said
	h.mu.Unlock()
	if !said {
		return nil, signal.Errorf(signal.ErrRefused, "say hello first")
	}
	e := Event{ID: id}
	switch r.Method {
	case "ready":
		e.Kind = Ready
	case "stopping":
		e.Kind = Stopping
	case "watchdog":
		e.Kind = Beat
	case "status", "event":
		e.Kind = Kind(r.Method)
		var p struct{ Text string }
		if err := json.Unmarshal(r.Params, &p); err != nil {
			return nil, signal.Errorf(signal.ErrUsage, "%s: %v", r.Method, err)
		}
		e.Text = signal.Printable(p.Text[:min(len(p.Text), maxStatus)], "") // ps shows it
	default:
		return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", r.Method)
	}
	h.c.Event(e)
	return struct{}{}, nil
}

func (h *Hub) leave(id uint64, cl *client, err error) {
	h.mu.Lock()
	mine := h.apps[id] == cl
	if mine {
		delete(h.apps, id)
	}
	said := cl.said
	h.mu.Unlock()
	if err != nil && !errors.Is(err, context.Canceled) {
		h.c.Log.Warn("signal connection broken", "id", id, "err", err)
	}
	if mine && said {
		h.c.Event(Event{ID: id, Kind: Left})
	}
}

// Drop closes the connection of id, if there is one.
func (h *Hub) Drop(id uint64) {
	h.mu.Lock()
	cl := h.apps[id]
	h.mu.Unlock()
	if cl != nil {
		cl.conn.Close()
	}
}

// Call asks app id; ErrNotRunning means that it is not connected, so it does not speak signal (now).
func (h *Hub) Call(ctx context.Context, id uint64, method string, params, result any) error {
	h.mu.Lock()
	cl := h.apps[id]
	said := cl != nil && cl.said
	h.mu.Unlock()
	if !said {
		return signal.Errorf(signal.ErrNotRunning, "app %d is not connected by signal", id)
	}
	return cl.conn.Call(ctx, method, params, result)
}

// Joined reports whether app id is connected and has said hello.
func (h *Hub) Joined(id uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	cl := h.apps[id]
	return cl != nil && cl.said
}
