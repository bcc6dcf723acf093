// Package meshtest runs whole networks of nodes in one goroutine on virtual time: an event queue over the pure cores of
// mesh/node and the data plane of mesh/forward, replayable from a seed.
//
// It opens no socket and starts no goroutine. What it does not model is the kernel: real devices, sockets and programs
// are tested in namespaces, see cmd/internal/lab and mesh/meshtest/emulator.
//
// Rules: time moves only in Run. Events of one instant run in the order in which they were made. Two runs with one seed
// exchange frames of the same sizes in the same order; the bytes differ, since keys are fresh.
package meshtest

import (
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/route"
	"skywire/mesh/session"
)

// Net is a network on virtual time.
type Net struct {
	now    time.Duration
	seq    uint64
	events eventQueue
	rand   *rand.Rand
	nodes  []*Node
	byAddr map[netip.Addr]*Node
	wires  map[[2]*Node]*Wire
	log    *slog.Logger
	parsed map[string]*route.Record // records verified once for all nodes

	// Tap, if set, sees every datagram that is put on a wire.
	Tap func(from, to *Node, b []byte)
	// Drop, if set, says which datagrams get lost beside those that the wire loses.
	Drop func(from, to *Node, b []byte) bool
	// Datagrams counts what was put on wires, Lost what wires swallowed.
	Datagrams, Lost uint64
}

// Wire joins two nodes. The zero value is perfect and instant.
type Wire struct {
	Delay, Jitter time.Duration
	Loss          float64
	MTU           int // largest UDP payload; 0: 1472
	Down          bool
}

type event struct {
	at  time.Duration
	seq uint64
	f   func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *eventQueue) Push(x any) { *q = append(*q, x.(event)) }

// Pop implements heap.Interface.
func (q *eventQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*q = old[:len(old)-1]
	return e
}

// New returns an empty network. log may be nil.
func New(seed uint64, log *slog.Logger) *Net {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Net{
		now: time.Second, rand: rand.New(rand.NewPCG(seed, 1)), byAddr: map[netip.Addr]*Node{},
		wires: map[[2]*Node]*Wire{}, log: log, parsed: map[string]*route.Record{},
	}
}

// parse verifies a record the first time that any node sees it: a thousand nodes need not verify it a thousand times.
func (n *Net) parse(raw []byte, id key.NetworkID) (*route.Record, error) {
	if r := n.parsed[string(raw)]; r != nil {
		return r, nil
	}
	r, err := route.ParseRecord(raw, id)
	if err == nil {
		n.parsed[string(raw)] = r
	}
	return r, err
}

// Now returns the virtual time.
func (n *Net) Now() time.Duration { return n.now }

// After runs f after d.
func (n *Net) After(d time.Duration, f func()) {
	n.seq++
	heap.Push(&n.events, event{at: n.now + d, seq: n.seq, f: f})
}

// Run lets d of virtual time pass.
func (n *Net) Run(d time.Duration) {
	end := n.now + d
	for len(n.events) > 0 && n.events[0].at <= end {
		e := heap.Pop(&n.events).(event)
		n.now = e.at
		e.f()
	}
	n.now = end
}

// RunUntil lets time pass until done, at most d; it reports whether done became true.
func (n *Net) RunUntil(d time.Duration, done func() bool) bool {
	end := n.now + d
	for !done() {
		if len(n.events) == 0 || n.events[0].at > end {
			n.now = end
			return done()
		}
		e := heap.Pop(&n.events).(event)
		n.now = e.at
		e.f()
	}
	return true
}

// Connect puts a wire between two nodes.
func (n *Net) Connect(a, b *Node, w Wire) *Wire {
	if w.MTU == 0 {
		w.MTU = 1472
	}
	p := &w
	n.wires[[2]*Node{a, b}] = p
	n.wires[[2]*Node{b, a}] = p
	return p
}

// transmit puts datagrams on the wire to an address.
func (n *Net) transmit(from *Node, to netip.AddrPort, train []byte, seg int) {
	dst := n.byAddr[to.Addr()]
	w := n.wires[[2]*Node{from, dst}]
	if w == nil || w.Down {
		return
	}
	for len(train) > 0 {
		size := min(seg, len(train))
		b := append([]byte(nil), train[:size]...)
		train = train[size:]
		n.Datagrams++
		if n.Tap != nil {
			n.Tap(from, dst, b)
		}
		if size > w.MTU || n.rand.Float64() < w.Loss || n.Drop != nil && n.Drop(from, dst, b) {
			n.Lost++
			continue
		}
		d := w.Delay
		if w.Jitter > 0 {
			d += time.Duration(n.rand.Int64N(int64(w.Jitter)))
		}
		src := forward.Endpoint{Addr: from.Addr}
		n.After(d, func() {
			if !w.Down {
				dst.receive(src, b)
			}
		})
	}
}

// Node is a node of a Net.
type Node struct {
	Name  string
	Key   key.Public
	Addr  netip.AddrPort
	Core  *node.Core
	Stack Stack // what comes out of the TUN; may be nil

	net      *Net
	identity *key.Private
	cfg      node.CoreConfig
	skew     time.Duration
	loop     *forward.Worker
	alive    int // incremented at each start and stop
	rules    []node.Rule
	tickAt   time.Duration
}

// Stack takes packets that a node delivers to its TUN; packet is valid during the call.
type Stack func(n *Node, packet []byte)

// Options set a node up; the zero value is an open node with defaults.
type Options struct {
	Core node.CoreConfig
	Skew time.Duration // how long the node's machine ran before the network began
}

// Add puts a node into the network and starts it.
func (n *Net) Add(name string, o Options) *Node {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(n.rand.Uint32())
	}
	id, err := key.FromSeed(seed)
	for err != nil { // one seed in two has the sign bit set
		seed[0]++
		id, err = key.FromSeed(seed)
	}
	return n.add(name, id, o)
}

// AddTwin puts a node into the network that runs the key of another one, as a copied card would.
func (n *Net) AddTwin(of *Node) *Node {
	return n.add(of.Name+" again", of.identity, Options{Core: of.cfg})
}

func (n *Net) add(name string, id *key.Private, o Options) *Node {
	i := len(n.nodes) + 1
	nd := &Node{
		Name: name, Key: id.Public(), net: n, identity: id, cfg: o.Core, skew: o.Skew,
		Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 7667),
	}
	n.nodes = append(n.nodes, nd)
	n.byAddr[nd.Addr.Addr()] = nd
	nd.Start()
	return nd
}

// Start starts a node that was stopped, with what its store would have kept.
func (nd *Node) Start() {
	c := nd.cfg
	c.Identity, c.Network, c.Name = nd.identity, key.Open(), nd.Name
	if c.Allow == nil {
		c.Open = true
	}
	c.Rand = rand.New(rand.NewPCG(nd.net.rand.Uint64(), nd.net.rand.Uint64()))
	c.Boot = nd.net.rand.Uint64()
	c.Log = nd.net.log.With("node", nd.Name)
	c.Parse = nd.net.parse
	if c.Wall == nil {
		c.Wall = func() time.Time { return time.Unix(1_000_000_000, 0).Add(nd.net.now) }
	}
	if c.Session.Ciphers == 0 {
		c.Session.Ciphers = session.ChaCha
	}
	nd.alive++
	life := nd.alive
	core, err := node.NewCore(c, (*outside)(nd), &upcalls{nd, life}, (*output)(nd))
	if err != nil {
		panic("meshtest: " + err.Error())
	}
	nd.Core = core
	nd.loop = core.Plane().NewWorker((*output)(nd))
	nd.loop.SetTUN((*device)(nd))
	core.SetListen([]string{"udp://" + nd.Addr.String()})
	core.Restore(nd.clock(), nd.rules)
	nd.tickAt = 0
	nd.wake(nd.net.now)
}

// Identity is the node's key, for tests that forge what it would say.
func (nd *Node) Identity() *key.Private { return nd.identity }

// clock is the time as the node's machine counts it.
func (nd *Node) clock() time.Duration { return nd.net.now + nd.skew }

// Stop kills a node as kill -9 would; Save first keeps its relay rules.
func (nd *Node) Stop() { nd.alive++; nd.Core = nil }

// Save keeps the relay rules for the next Start.
func (nd *Node) Save() {
	nd.rules = nd.Core.Rules(nd.clock())
	nd.cfg.Sequence = nd.Core.Number() + 1000
}

// Dial links a node with another one, for good.
func (nd *Node) Dial(to *Node) {
	if err := nd.Core.Dial(nd.clock(), to.Key, []forward.Endpoint{{Addr: to.Addr}}); err != nil {
		panic("meshtest: " + err.Error())
	}
	nd.wake(nd.net.now)
}

// Send puts a packet into the node's TUN.
func (nd *Node) Send(packet []byte) {
	if nd.Core == nil {
		return
	}
	nd.loop.Originate(nd.clock(), packet, false)
	nd.loop.Flush()
}

// Ping pings a node end to end; the result comes through done.
func (nd *Node) Ping(to key.Public, done func(time.Duration, error)) {
	nd.Core.Ping(nd.clock(), to, done)
	nd.wake(nd.net.now)
}

func (nd *Node) receive(from forward.Endpoint, b []byte) {
	if nd.Core == nil {
		return
	}
	nd.loop.Receive(nd.clock(), from, b, len(b), 0)
	nd.loop.Flush()
}

// wake makes sure that the node ticks at the latest at that time.
func (nd *Node) wake(at time.Duration) {
	if nd.tickAt != 0 && nd.tickAt <= at {
		return
	}
	nd.tickAt = max(at, nd.net.now)
	life, when := nd.alive, nd.tickAt
	nd.net.After(nd.tickAt-nd.net.now, func() {
		if nd.alive != life || nd.Core == nil || nd.tickAt != when {
			return
		}
		nd.tickAt = 0
		nd.wake(max(nd.Core.Tick(nd.clock())-nd.skew, nd.net.now+time.Millisecond))
	})
}

// String names the node.
func (nd *Node) String() string { return fmt.Sprintf("%s(%s)", nd.Name, nd.Key.Short()) }

type outside Node

func (o *outside) Transmit(to forward.Endpoint, b []byte) {
	(*Node)(o).net.transmit((*Node)(o), to.Addr, b, len(b))
}

func (o *outside) Pinned(forward.Endpoint, key.Public) {}

func (o *outside) PeerRestarted(key.Public) {}

func (o *outside) RecordsChanged() {}

type output Node

func (o *output) Send(to forward.Endpoint, train []byte, seg int, _ uint8) error {
	(*Node)(o).net.transmit((*Node)(o), to.Addr, train, seg)
	return nil
}

// device is a TUN without a kernel behind it: packets go to the node's Stack.
type device Node

func (d *device) FD() int                         { return -1 }
func (d *device) Receive() (int, error)           { return 0, syscall.EAGAIN }
func (d *device) Packet([]byte) (int, bool, bool) { return 0, false, false }
func (d *device) Flush() error                    { return nil }
func (d *device) Close() error                    { return nil }

func (d *device) Send(p []byte, _ bool) error {
	if d.Stack != nil {
		d.Stack((*Node)(d), p)
	}
	return nil
}

// upcalls hands what the data plane reports to the core, in an event of its own as the real owner loop does.
type upcalls struct {
	nd   *Node
	life int
}

func (u *upcalls) later(f func(now time.Duration, c *node.Core)) {
	u.nd.net.After(0, func() {
		if u.nd.alive == u.life && u.nd.Core != nil {
			f(u.nd.clock(), u.nd.Core)
			u.nd.wake(u.nd.net.now + time.Millisecond)
		}
	})
}

func (u *upcalls) Datagram(_ time.Duration, from forward.Endpoint, b []byte) {
	b = append([]byte(nil), b...)
	u.later(func(now time.Duration, c *node.Core) { c.Datagram(now, from, b) })
}

func (u *upcalls) Control(_ time.Duration, p *forward.Path, body []byte) {
	body = append([]byte(nil), body...)
	u.later(func(now time.Duration, c *node.Core) { c.Control(now, p, body) })
}

func (u *upcalls) QUIC(*forward.Session, []byte, int) {}

func (u *upcalls) Unrouted(_ time.Duration, packet []byte) {
	packet = append([]byte(nil), packet...)
	u.later(func(now time.Duration, c *node.Core) { c.Unrouted(now, packet) })
}

func (u *upcalls) NoLabel(_ time.Duration, from forward.Endpoint, header []byte) {
	header = append([]byte(nil), header...)
	u.later(func(now time.Duration, c *node.Core) { c.Unplaced(now, from, header) })
}

func (u *upcalls) TooBig(_ time.Duration, r *forward.Relay, _ *forward.Link, label uint32, _, mtu int) {
	if r != nil {
		u.later(func(now time.Duration, c *node.Core) { c.TooBig(now, r, label, mtu) })
	}
}
