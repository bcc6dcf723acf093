package messenger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
	"skywire/mesh/store"
)

// world is a mesh without a network: every node that is on reaches every other one that is on.
type world struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[key.Public]*testNode
}

func newWorld(t testing.TB) *world { return &world{t: t, nodes: map[key.Public]*testNode{}} }

type testNode struct {
	w        *world
	key      *key.Private
	dir      string // empty: memory
	incoming chan net.Conn
	conns    map[net.Conn]bool
	on       bool
	cut      map[key.Public]bool
	rate     int // bytes a second of what it sends; 0: no limit
	kv       *store.KV
	ring     *prekeys.Ring
	e        *Engine
	stop     func()
	conf     func(*Config)
}

var errAway = errors.New("away")

func (n *testNode) Dial(ctx context.Context, _ envelope.Place, node key.Public, service string, _ []byte) (net.Conn, error) {
	n.w.mu.Lock()
	other := n.w.nodes[node]
	if other == nil || !other.on || !n.on || n.cut[node] || service != Service {
		n.w.mu.Unlock()
		return nil, errAway
	}
	a, b := net.Pipe()
	n.conns[a], other.conns[b] = true, true
	n.w.mu.Unlock()
	select {
	case other.incoming <- b:
		return &slowConn{a, n}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// slowConn takes the time that its node's rate says.
type slowConn struct {
	net.Conn
	n *testNode
}

func (c *slowConn) Write(b []byte) (int, error) {
	if c.n.rate > 0 {
		pause(context.Background(), time.Duration(len(b))*time.Second/time.Duration(c.n.rate))
	}
	return c.Conn.Write(b)
}

func (n *testNode) Accept(ctx context.Context, _ string) (net.Conn, error) {
	select {
	case c := <-n.incoming:
		return &slowConn{c, n}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// node adds a node whose messenger speaks for itself.
func (w *world) node(conf func(*Config)) *testNode {
	k, err := key.Generate()
	if err != nil {
		w.t.Fatal(err)
	}
	n := &testNode{w: w, key: k, incoming: make(chan net.Conn), conns: map[net.Conn]bool{}, cut: map[key.Public]bool{}, conf: conf}
	w.mu.Lock()
	w.nodes[k.Public()] = n
	w.mu.Unlock()
	return n
}

func (n *testNode) open() {
	n.w.t.Helper()
	if n.kv != nil {
		return
	}
	path, ring := "", ""
	if n.dir != "" {
		path, ring = n.dir+"/kv", n.dir+"/prekeys"
	}
	var err error
	if n.kv, err = store.OpenKV(path, store.KVOptions{Key: [32]byte{1}}); err != nil {
		n.w.t.Fatal(err)
	}
	if n.ring, err = prekeys.Open(ring); err != nil {
		n.w.t.Fatal(err)
	}
}

// start turns a node on.
func (n *testNode) start() *Engine {
	n.w.t.Helper()
	n.open()
	cfg := Config{
		Key: n.key, Store: n.kv, Prekeys: n.ring, Mesh: n, Quota: 16 << 20,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Name: n.key.Public().Short(),
	}
	if n.conf != nil {
		n.conf(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		n.w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	n.w.mu.Lock()
	n.on, n.e = true, e
	n.w.mu.Unlock()
	n.stop = func() {
		n.off()
		cancel()
		if err := <-ended; err != nil {
			n.w.t.Error(err)
		}
	}
	return e
}

// off cuts a node from the others; its engine goes on.
func (n *testNode) off() {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.on = false
	for c := range n.conns {
		c.Close()
		delete(n.conns, c)
	}
}

func (n *testNode) back() {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.on = true
}

// befriend makes two engines contacts without a word between them.
func befriend(t testing.TB, a, b *Engine) {
	t.Helper()
	for _, p := range [][2]*Engine{{a, b}, {b, a}} {
		l := p[1].Link()
		err := p[0].Book(func(book *Book, now time.Time) error {
			if _, err := book.Add(l.Account, [16]byte{}, l.Text(), "", "", "", now); err != nil {
				return err
			}
			book.set(book.contacts[l.Account], Confirmed, now)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p[0].Meet(l.Account, l.Place); err != nil {
			t.Fatal(err)
		}
	}
}

func send(t testing.TB, e *Engine, to *Engine, text string) MessageID {
	t.Helper()
	id, err := e.Send(context.Background(), Outgoing{To: to.core.account, Body: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func waitState(t testing.TB, e *Engine, id MessageID, s State, d time.Duration) Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	m, err := e.Wait(ctx, id, s)
	if err != nil {
		t.Fatalf("message is %s (%s) after %s: %v\n%+v", m.State, m.Reason, d, err, e.Status())
	}
	return m
}

// texts are those received, in order.
func texts(t testing.TB, e *Engine) (all []string) {
	t.Helper()
	for after := uint64(0); ; {
		page, err := e.Messages(context.Background(), Query{After: after, Receive: true, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			after = m.Cursor
			if m.Kind == envelope.KindText {
				all = append(all, string(m.Body))
			}
		}
		if len(page) < 1000 {
			return all
		}
	}
}

// waitTexts waits for so many texts.
func waitTexts(t testing.TB, e *Engine, n int, d time.Duration) []string {
	t.Helper()
	timer := time.After(d)
	for {
		changed := e.Changed()
		if all := texts(t, e); len(all) >= n {
			return all
		}
		select {
		case <-changed:
		case <-timer:
			t.Fatalf("%d of %d texts after %s\n%+v", len(texts(t, e)), n, d, e.Status())
		}
	}
}

func numbered(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("text %d", i))
	}
	return all
}
