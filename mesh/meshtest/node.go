package meshtest

import (
	"bytes"
	"fmt"
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

// Node is a node of a Net.
type Node struct {
	Name  string
	Key   key.Public
	Addr  netip.AddrPort
	Core  *node.Core // nil while the node is stopped
	Stack Stack      // what comes out of the TUN and belongs to no Flow; may be nil

	// SentDatagrams and SentBytes count what the node put on wires, payloads of UDP.
	SentDatagrams, SentBytes uint64
	// SentControl counts the bytes of handshakes and LINK frames among them.
	SentControl uint64

	net      *Net
	index    int
	identity *key.Private
	cfg      node.CoreConfig
	skew     time.Duration
	loop     *forward.Worker
	alive    int // incremented at each start and stop
	kept     []*Kept
	use      *Kept // what the next start finds in its store
	moves    int
	tickAt   time.Duration
	peers    []*Node // dialled, for good
	behind   *NAT    // nil: on the internet
	bits     int     // of its network's prefix; 0: it was not placed
}

// numberSkip is by how much a start counts on above what the store held: more may have been used since it was written.
const numberSkip = 1000

// Kept is what a node's store held at some time.
type Kept struct {
	At    time.Duration
	state node.Kept
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
		Name: name, Key: id.Public(), net: n, index: i, identity: id, cfg: o.Core, skew: o.Skew,
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
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(nd.net.keys.Uint32())
	}
	c.Session.Random = rand.NewChaCha8(seed) // times of rekeys come from keys
	if nd.use != nil {
		c.Sequence = max(c.Sequence, nd.use.state.Number+numberSkip)
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
	nd.tellPlace()
	if nd.use != nil {
		core.RestoreKept(nd.clock(), nd.use.state, c.Wall())
	}
	nd.tickAt = 0
	nd.wake(nd.net.now)
}

// Identity is the node's key, for tests that forge what it would say.
func (nd *Node) Identity() *key.Private { return nd.identity }

// clock is the time as the node's machine counts it.
func (nd *Node) clock() time.Duration { return nd.net.now + nd.skew }

// Stop kills a node as kill -9 would; Save first keeps what its store holds.
func (nd *Node) Stop() { nd.alive++; nd.Core = nil }

// Save writes the node's store, as it does by itself once a minute. The next Start finds it.
func (nd *Node) Save() {
	nd.use = &Kept{At: nd.net.now, state: nd.Core.Keep(nd.clock())}
	nd.kept = append(nd.kept, nd.use)
}

// Lose makes the next Start find an empty store, as a new card would.
func (nd *Node) Lose() { nd.use = nil }

// Restore makes the next Start find the oldest store that was ever saved, as a backup put back would.
func (nd *Node) Restore() {
	if len(nd.kept) > 0 {
		nd.use = nd.kept[0]
	}
}

// Redial dials again whom the node ever dialled, as its configuration says.
func (nd *Node) Redial() {
	for _, p := range nd.peers {
		nd.dial(p)
	}
}

// Dial links a node with another one, for good.
func (nd *Node) Dial(to *Node) {
	for _, p := range nd.peers {
		if p == to {
			nd.dial(to)
			return
		}
	}
	nd.peers = append(nd.peers, to)
	nd.dial(to)
}

func (nd *Node) dial(to *Node) {
	if err := nd.Core.Dial(nd.clock(), to.Key, []forward.Endpoint{{Addr: to.Addr}}); err != nil {
		panic("meshtest: " + err.Error())
	}
	nd.wake(nd.net.now)
}

// Move gives a node another address, as a phone that leaves its wireless network gets. What is under way to the old one is lost.
func (nd *Node) Move() {
	delete(nd.net.byAddr, nd.Addr.Addr())
	nd.moves++
	nd.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(100 + nd.moves%100), byte(nd.index >> 16), byte(nd.index >> 8), byte(nd.index)}), 7667)
	nd.net.byAddr[nd.Addr.Addr()] = nd
	if nd.Core != nil {
		nd.Core.SetListen([]string{"udp://" + nd.Addr.String()})

		nd.wake(nd.net.now)
	}
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

// device is a TUN without a kernel behind it: packets go to flows and the node's Stack.
type device Node

func (d *device) FD() int                         { return -1 }
func (d *device) Receive() (int, error)           { return 0, syscall.EAGAIN }
func (d *device) Packet([]byte) (int, bool, bool) { return 0, false, false }
func (d *device) Flush() error                    { return nil }
func (d *device) Close() error                    { return nil }

func (d *device) Send(p []byte, _ bool) error {
	nd := (*Node)(d)
	if nd.net.delivered(nd, p) {
		return nil
	}
	if d.Stack != nil {
		d.Stack(nd, p)
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
	b = bytes.Clone(b)
	u.later(func(now time.Duration, c *node.Core) { c.Datagram(now, from, b) })
}

func (u *upcalls) Control(_ time.Duration, p *forward.Path, body []byte) {
	body = bytes.Clone(body)
	u.later(func(now time.Duration, c *node.Core) { c.Control(now, p, body) })
}

func (u *upcalls) QUIC(*forward.Session, []byte, int) {}

func (u *upcalls) Unrouted(_ time.Duration, packet []byte) {
	packet = bytes.Clone(packet)
	u.later(func(now time.Duration, c *node.Core) { c.Unrouted(now, packet) })
}

func (u *upcalls) NoLabel(_ time.Duration, from forward.Endpoint, header []byte) {
	header = bytes.Clone(header)
	u.later(func(now time.Duration, c *node.Core) { c.Unplaced(now, from, header) })
}

func (u *upcalls) TooBig(_ time.Duration, r *forward.Relay, _ *forward.Link, label uint32, _, mtu int) {
	if r != nil {
		u.later(func(now time.Duration, c *node.Core) { c.TooBig(now, r, label, mtu) })
	}
}

// Record returns what the node holds of another one, nil if nothing.
func (nd *Node) Record(of *Node) *route.Entry { return nd.Core.DB().Get(of.Key) }
