package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// mesh is a mesh of this process: nodes with keys, streams between their apps, and a pump that treats sockets as the node
// does: it takes a descriptor of its own, and carries ends and resets through.
type mesh struct {
	mu    sync.Mutex // guards the fields below
	exits map[key.Public]*meshNode
	order []key.Public
	pings int
	wg    sync.WaitGroup
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{exits: make(map[key.Public]*meshNode)}
	t.Cleanup(m.wg.Wait)
	return m
}

// meshNode is the node beside one app.
type meshNode struct {
	m        *mesh
	key      key.Public
	incoming chan *meshStream
	flows    chan *meshFlow

	mu     sync.Mutex // guards the fields below
	rtt    time.Duration
	broken error
	load   *Load // nil: it does not say
	dials  int
	status any
}

func newKey(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// node makes a node; exit says that it offers the service.
func (m *mesh) node(t *testing.T, exit bool, rtt time.Duration) *meshNode {
	t.Helper()
	n := &meshNode{m: m, key: newKey(t), incoming: make(chan *meshStream), flows: make(chan *meshFlow), rtt: rtt}
	if exit {
		m.mu.Lock()
		m.exits[n.key] = n
		m.order = append(m.order, n.key)
		m.mu.Unlock()
	}
	return n
}

func (m *mesh) find(k key.Public) *meshNode {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.exits[k]
}

// set changes how the node answers.
func (n *meshNode) set(rtt time.Duration, broken error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rtt, n.broken = rtt, broken
}

func (n *meshNode) dialled() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *meshNode) Resolve(_ context.Context, name string) (key.Public, error) {
	k, err := key.Parse(name)
	if err != nil {
		return k, fmt.Errorf("no node %q", name)
	}
	return k, nil
}

func (n *meshNode) Exits(context.Context) ([]key.Public, error) {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	return slices.Clone(n.m.order), nil
}

func (n *meshNode) Ping(_ context.Context, k key.Public) (time.Duration, error) {
	n.m.mu.Lock()
	n.m.pings++
	n.m.mu.Unlock()
	e := n.m.find(k)
	if e == nil {
		return 0, errors.New("no such node")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rtt, e.broken
}

func (n *meshNode) Status(v any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status = v
}

type meshStream struct {
	peer    key.Public
	header  []byte
	verdict chan meshVerdict
	ended   chan Traffic
}

type meshVerdict struct {
	v    *Verdict
	conn *net.TCPConn
}

func (n *meshNode) DialHandOver(ctx context.Context, to key.Public, _ string, header []byte, prepare func([]byte) (app.Socket, error)) (Traffic, error) {
	e := n.m.find(to)
	if e == nil {
		return Traffic{}, errors.New("no path to the node")
	}
	e.mu.Lock()
	e.dials++
	broken := e.broken
	e.mu.Unlock()
	if broken != nil {
		return Traffic{}, broken
	}
	s := &meshStream{peer: n.key, header: bytes.Clone(header), verdict: make(chan meshVerdict, 1), ended: make(chan Traffic, 1)}
	select {
	case e.incoming <- s:
	case <-ctx.Done():
		return Traffic{}, ctx.Err()
	}
	var v meshVerdict
	select {
	case v = <-s.verdict:
	case <-ctx.Done():
		return Traffic{}, ctx.Err()
	}
	if v.v != nil {
		return Traffic{}, v.v
	}
	here, err := prepare(nil)
	if err != nil {
		_ = v.conn.SetLinger(0)
		v.conn.Close()
		s.ended <- Traffic{}
		return Traffic{}, err
	}
	a, b := own(here), own(v.conn)
	if a == nil || b == nil {
		return Traffic{}, errors.New("descriptor not taken")
	}
	sent, received := pump(&n.m.wg, a, b)
	s.ended <- Traffic{Sent: received, Received: sent}
	return Traffic{Sent: sent, Received: received}, nil
}

// own takes the socket over as the node does, by a descriptor of its own; the app's is closed.
func own(c app.Socket) Stream {
	f, err := c.File()
	c.Close()
	if err != nil {
		return nil
	}
	defer f.Close()
	n, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	return n.(Stream)
}

// pump joins two sockets until both directions have ended.
func pump(wg *sync.WaitGroup, a, b Stream) (sent, received uint64) {
	var x, y atomic.Int64
	one := func(dst, src Stream, n *atomic.Int64) {
		c, err := io.Copy(dst, src)
		n.Store(c)
		if err == nil {
			err = dst.CloseWrite()
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			abort(a)
			abort(b)
		}
	}
	var both sync.WaitGroup
	wg.Add(2)
	both.Go(func() { defer wg.Done(); one(b, a, &x) })
	both.Go(func() { defer wg.Done(); one(a, b, &y) })
	both.Wait()
	a.Close()
	b.Close()
	return uint64(x.Load()), uint64(y.Load())
}

func (n *meshNode) Accept(ctx context.Context) (Incoming, error) {
	select {
	case s := <-n.incoming:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *meshNode) AcceptPackets(ctx context.Context) (IncomingPackets, error) {
	select {
	case f := <-n.flows:
		return f, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *meshStream) Peer() key.Public { return s.peer }
func (s *meshStream) Header() []byte   { return s.header }

func (s *meshStream) HandOver(ctx context.Context, conn *net.TCPConn, _ Limits) (Traffic, error) {
	s.verdict <- meshVerdict{conn: conn}
	select {
	case t := <-s.ended:
		return t, nil
	case <-ctx.Done():
		return Traffic{}, ctx.Err()
	}
}

func (s *meshStream) Refuse(v *Verdict) error {
	s.verdict <- meshVerdict{v: &Verdict{Code: v.Code, Text: clean(v.Text)}}
	return nil
}

// names is a resolver that knows what it is told.
func names(t *testing.T, a map[string][]string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { pc.Close() })
	wg.Go(func() {
		asked := make(map[string]int)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if r := answer(buf[:n], a, asked); r != nil {
				_, _ = pc.WriteTo(r, from)
			}
		}
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

// answer gives the n-th question for a name the n-th of its addresses, so that a name can change its mind; the name
// "silent.test." is never answered.
func answer(q []byte, a map[string][]string, asked map[string]int) []byte {
	var m dnsmessage.Message
	if m.Unpack(q) != nil || len(m.Questions) != 1 {
		return nil
	}
	question := m.Questions[0]
	name := question.Name.String()
	if name == "silent.test." {
		return nil
	}
	m.Response, m.RecursionAvailable = true, true
	m.Additionals = nil
	list, ok := a[name]
	if !ok {
		m.RCode = dnsmessage.RCodeNameError
	}
	if ok && question.Type == dnsmessage.TypeA {
		i := min(asked[name], len(list)-1)
		asked[name]++
		var r dnsmessage.AResource
		copy(r.A[:], net.ParseIP(list[i]).To4())
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET, TTL: 0}, Body: &r,
		})
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// runExit runs an exit beside n until the test ends.
func runExit(t *testing.T, n *meshNode, c ExitConfig) *Exit {
	t.Helper()
	c.Node = n
	e, err := NewExit(c)
	if err != nil {
		t.Fatal(err)
	}
	run(t, e.Run)
	return e
}

// runClient runs a client beside n until the test ends, and returns where it listens.
func runClient(t *testing.T, n *meshNode, c ClientConfig) (*Client, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.Node, c.Listener = n, ln
	p, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	run(t, p.Run)
	return p, ln.Addr().String()
}

func run(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("run did not end")
		}
	})
}

// chain is a client and an exit that may lead to this box, and the client's address.
func chain(t *testing.T, c ClientConfig, x ExitConfig) string {
	t.Helper()
	m := newMesh(t)
	x.AllowAny, x.AllowPrivate = true, true
	runExit(t, m.node(t, true, time.Millisecond), x)
	_, addr := runClient(t, m.node(t, false, 0), c)
	return addr
}

// target accepts connections and gives each to f.
func target(t *testing.T, f func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { ln.Close() })
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c.(*net.TCPConn))
			})
		}
	})
	return ln.Addr().String()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
}

// within sets a limit on everything a test does with c.
func within(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

// ask opens a SOCKS5 connection over the proxy and returns the reply code; ahead is sent with the request.
func ask(t *testing.T, proxy, host string, port uint16, ahead string) (*net.TCPConn, byte) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	q := append([]byte{5, 1, 0, 5, 1, 0, 3, byte(len(host))}, host...)
	q = append(q, byte(port>>8), byte(port))
	q = append(q, ahead...)
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	var r [12]byte
	if _, err := io.ReadFull(c, r[:]); err != nil {
		t.Fatalf("reply: %v", err)
	}
	if r[0] != 5 || r[1] != 0 || r[2] != 5 {
		t.Fatalf("reply %x", r)
	}
	return c.(*net.TCPConn), r[3]
}

// askAddr is ask with a host:port that has to work.
func askAddr(t *testing.T, proxy, addr string) *net.TCPConn {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, code := ask(t, proxy, a.IP.String(), uint16(a.Port), "")
	if code != 0 {
		t.Fatalf("reply code %d", code)
	}
	return c
}

func testLog(t *testing.T) *slog.Logger {
	t.Helper()
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}
