// Package meshtest runs whole networks of nodes in one goroutine on virtual time: an event queue over the pure cores of
// mesh/node and the data plane of mesh/forward, replayable from a seed.
//
// It opens no socket and starts no goroutine. What it does not model is the kernel: real devices, sockets and programs
// are tested in namespaces, see cmd/internal/lab and mesh/meshtest/emulator. Package script below it reads what an
// operator writes.
//
// Rules: time moves only in Run. Events of one instant run in the order in which they were made. Two runs with one seed
// exchange the same frames at the same times: Trace tells.
package meshtest

import (
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// Net is a network on virtual time.
type Net struct {
	now    time.Duration
	seq    uint64
	events []event // a heap
	rand   *rand.Rand
	keys   *rand.Rand // of handshakes
	nodes  []*Node
	byAddr map[netip.Addr]*Node
	nats   map[netip.Addr]*NAT // by outside address
	wires  map[[2]*Node]*Wire
	pairs  [][2]*Node // of wires, in the order in which they were made
	flows  []*Flow
	log    *slog.Logger
	parsed map[[32]byte]parsed // records verified once for all nodes, by the end of their signature
	spare  [][]byte            // buffers of datagrams that have arrived

	// Tap, if set, sees every datagram that is put on a wire; b is valid during the call.
	Tap func(from, to *Node, b []byte)
	// Drop, if set, says which datagrams get lost beside those that the wire loses.
	Drop func(from, to *Node, b []byte) bool
	// Datagrams counts what was put on wires, Lost what wires swallowed.
	Datagrams, Lost uint64
	trace           uint64 // of all datagrams

	// Stray counts packets that came out of the TUN of a node they were not for.
	Stray uint64
}

// parsed is a record that some node has verified.
type parsed struct {
	record *route.Record
	raw    []byte
}

type event struct {
	at  time.Duration
	seq uint64
	f   func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// New returns an empty network. log may be nil.
func New(seed uint64, log *slog.Logger) *Net {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Net{
		now: time.Second, rand: rand.New(rand.NewPCG(seed, 1)), keys: rand.New(rand.NewPCG(seed, 2)), byAddr: map[netip.Addr]*Node{}, nats: map[netip.Addr]*NAT{},
		wires: map[[2]*Node]*Wire{}, log: log, parsed: map[[32]byte]parsed{},
	}
}

// parse verifies a record the first time that any node sees it, and keeps its bytes once: a thousand nodes need not verify
// it, or hold it, a thousand times.
func (n *Net) parse(raw []byte, id key.NetworkID) (*route.Record, []byte, error) {
	var end [32]byte
	copy(end[:], raw[max(0, len(raw)-len(end)):])
	if p := n.parsed[end]; p.record != nil && string(p.raw) == string(raw) {
		return p.record, p.raw, nil
	}
	r, err := route.ParseRecord(raw, id)
	if err != nil {
		return nil, nil, err
	}
	raw = append([]byte(nil), raw...)
	n.parsed[end] = parsed{r, raw}
	return r, raw, nil
}

// Now returns the virtual time.
func (n *Net) Now() time.Duration { return n.now }

// Rand is the source of all chance in the network.
func (n *Net) Rand() *rand.Rand { return n.rand }

// Trace is a checksum of when which node sent a datagram of what size to which: two runs with one seed have the same.
func (n *Net) Trace() uint64 { return n.trace }

// Flows returns the flows in the order in which they were started.
func (n *Net) Flows() []*Flow { return n.flows }

// Nodes returns the nodes in the order in which they were added.
func (n *Net) Nodes() []*Node { return n.nodes }

// After runs f after d.
func (n *Net) After(d time.Duration, f func()) {
	n.seq++
	n.push(event{at: n.now + d, seq: n.seq, f: f})
}

// push and pop are container/heap without its boxes: there are millions of events.
func (n *Net) push(e event) {
	q := append(n.events, e)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !e.before(q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = e
	n.events = q
}

func (n *Net) pop() event {
	q := n.events
	first, last := q[0], q[len(q)-1]
	q[len(q)-1] = event{}
	q = q[:len(q)-1]
	n.events = q
	if len(q) == 0 {
		return first
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(q) {
			break
		}
		if down+1 < len(q) && q[down+1].before(q[down]) {
			down++
		}
		if !q[down].before(last) {
			break
		}
		q[i] = q[down]
		i = down
	}
	q[i] = last
	return first
}

// Run lets d of virtual time pass.
func (n *Net) Run(d time.Duration) { n.RunUntil(d, func() bool { return false }) }

// RunUntil lets time pass until done, at most d; it reports whether done became true.
func (n *Net) RunUntil(d time.Duration, done func() bool) bool {
	end := n.now + d
	for !done() {
		if len(n.events) == 0 || n.events[0].at > end {
			n.now = end
			return done()
		}
		e := n.pop()
		n.now = e.at
		e.f()
	}
	return true
}
