// Package streamtest connects stream.Endpoints in memory, with delay, loss, a path MTU and a carrier that is full at
// times, for tests of this and other packages.
//
// It has no paths, sessions or encryption: a packet reaches the peer it is addressed to or nobody. It runs in synctest
// bubbles: time is the time package's, and nothing touches the network.
package streamtest

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/stream"
)

// Network is the memory that packets cross. Its fields may be changed with Set while it runs.
type Network struct {
	id key.NetworkID

	mu    sync.Mutex // guards the fields below
	cond  Conditions
	nodes map[key.Public]*stream.Endpoint
	down  map[key.Public]bool
	rand  *rand.Rand
	sent  int // packets
	under int // trains under way
	idle  *sync.Cond

	// seen, if set, looks at every train; it must not keep it.
	seen func(from, to key.Public, train []byte, seg int)
}

// Conditions are those of every path.
type Conditions struct {
	Delay time.Duration
	Loss  float64 // 0 to 1, of packets
	MTU   int     // 0: no limit
	Full  float64 // chance that the carrier says EAGAIN
}

// New returns a network of the open mesh.
func New(seed uint64, c Conditions) *Network {
	n := &Network{
		id: key.Open(), cond: c, nodes: map[key.Public]*stream.Endpoint{}, down: map[key.Public]bool{},
		rand: rand.New(rand.NewPCG(seed, 1)),
	}
	n.idle = sync.NewCond(&n.mu)
	return n
}

// Set changes the conditions.
func (n *Network) Set(c Conditions) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cond = c
}

// Down cuts a node off, or connects it again.
func (n *Network) Down(k key.Public, down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down[k] = down
}

// Watch sets a function that sees every train.
func (n *Network) Watch(f func(from, to key.Public, train []byte, seg int)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = f
}

// ID is the network's.
func (n *Network) ID() key.NetworkID { return n.id }

// Carrier returns the carrier of a node.
func (n *Network) Carrier(self key.Public) stream.Carrier { return &carrier{n, self} }

// Join makes packets to a node reach its endpoint; nil: nobody.
func (n *Network) Join(self key.Public, e *stream.Endpoint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[self] = e
}

// Wait returns when no packet is on its way. No WaitGroup: who sends may still be about to, and that is no mistake here.
func (n *Network) Wait() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.under > 0 {
		n.idle.Wait()
	}
}

// Sent is how many packets were sent.
func (n *Network) Sent() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

type carrier struct {
	*Network
	self key.Public
}

func (c *carrier) SendQUIC(peer key.Public, train []byte, seg int) error {
	n := c.Network
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.seen != nil {
		n.seen(c.self, peer, train, seg)
	}
	limit := n.cond.MTU
	if train[0]&0x80 != 0 {
		limit -= 20
	}
	switch {
	case n.cond.MTU > 0 && seg > limit:
		return syscall.EMSGSIZE
	case n.cond.Full > 0 && n.rand.Float64() < n.cond.Full:
		return syscall.EAGAIN
	}
	kept := make([]byte, 0, len(train))
	for rest := train; len(rest) > 0; rest = rest[min(seg, len(rest)):] {
		n.sent++
		lost := n.cond.Loss > 0 && n.rand.Float64() < n.cond.Loss
		if !lost {
			kept = append(kept, rest[:min(seg, len(rest))]...)
		}
	}
	to := n.nodes[peer]
	if len(kept) == 0 || to == nil || n.down[peer] || n.down[c.self] {
		return nil
	}
	if n.cond.Delay == 0 {
		n.mu.Unlock()
		to.Deliver(c.self, kept, seg)
		n.mu.Lock()
		return nil
	}
	n.under++
	time.AfterFunc(n.cond.Delay, func() {
		to.Deliver(c.self, kept, seg)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.under--; n.under == 0 {
			n.idle.Broadcast()
		}
	})
	return nil
}

func (c *carrier) MTU(key.Public) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cond.MTU
}

func (c *carrier) Ready(ctx context.Context, peer key.Public) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.nodes[peer]; !ok {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (c *carrier) Address(k key.Public) netip.Addr { return c.id.Address(k) }

func (c *carrier) Peer(a netip.Addr) (key.Public, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.nodes {
		if c.id.Address(k) == a {
			return k, true
		}
	}
	return key.Public{}, false
}
