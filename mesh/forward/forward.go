package forward

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
)

// Endpoint is where a datagram goes to or came from: an address, and which of the node's sockets.
type Endpoint struct {
	Addr   netip.AddrPort
	Socket uint16
}

// The sockets of an Endpoint: below FirstTCP those of UDP, which the loops poll; from there on each number is one stream
// connection, made or to be made, over TCP, and from FirstWSS on over WebSocket. An Output knows them.
const (
	FirstTCP = 0x8000
	FirstWSS = 0xc000
)

// Output takes the trains of a worker. Send is called from the worker's goroutine and does not keep train; ecn goes into
// the outer headers of all its datagrams.
// An error that is syscall.EAGAIN means the train was dropped because the socket is full, syscall.EMSGSIZE that seg
// is more than the network takes; both are counted, and the latter reported by Upcalls.TooBig.
type Output interface {
	Send(to Endpoint, train []byte, seg int, ecn uint8) error
}

// Upcalls is what the plane tells control. All are called from a worker's goroutine, in the middle of its work: they must
// not block and must copy what they keep, since every slice is a part of a buffer that is used again at once.
type Upcalls interface {
	// Datagram is a frame of a type that has no place in the data plane: handshakes, cookies, hints, LINK frames.
	Datagram(now time.Duration, from Endpoint, b []byte)
	// Control is the body of an opened control frame (kind 5) that came on p. Which keys the peer proved, Session.Opened tells.
	Control(now time.Duration, p *Path, body []byte)
	// QUIC is a train of QUIC packets from s's peer, each seg bytes long, the last one maybe shorter.
	QUIC(s *Session, train []byte, seg int)
	// Unrouted is a packet of ours with no route, or whose session has no path or no key yet.
	Unrouted(now time.Duration, packet []byte)
	// NoLabel is a frame whose label or tag could not be placed, its first 16 bytes: a HINT may answer it.
	// A worker makes at most 10 such calls a second.
	NoLabel(now time.Duration, from Endpoint, header []byte)
	// TooBig tells that frames of size bytes do not fit. At a relay: relay and the label they came with are given, and
	// mtu is the next link's. At the source: relay is nil, mtu is the path's, or 0 where the socket refused a train.
	TooBig(now time.Duration, relay *Relay, out *Link, label uint32, size, mtu int)
}

// Config says who we are and how much we hold.
type Config struct {
	Network key.NetworkID
	Self    key.Public
	Slots   int // labels at once; 0: DefaultSlots
	// Generation is where label generations start for slots that were not restored; 0: random. Tests set it.
	Generation uint32
	Loops      int // event loops, which share the lanes of each path; at most MaxLoops; 0: 1
}

// MaxLoops is the most event loops of a node: each needs a lane of a path, and one lane is for streams.
const MaxLoops = maxLanes - 1

// DefaultSlots bounds the label table where Config says nothing: enough for 6,000 relayed paths of 5 lanes both ways, those that
// rest after their end included. What is not used takes no memory.
const DefaultSlots = 64 << 10

// Plane is the state that all workers read and control writes. Its methods are safe for concurrent use.
type Plane struct {
	network key.NetworkID
	prefix  netip.Prefix // of the mesh
	address netip.Addr   // ours in it
	up      Upcalls
	self    key.Public
	loops   int
	chunks  []atomic.Pointer[chunk]
	routes  atomic.Pointer[routes]
	own     atomic.Pointer[Own]
	drops   [dropCount]atomic.Uint64
	total   totals
	clock   atomic.Int64 // greatest now seen; rests of freed slots are measured with it
	workers atomic.Uint32

	prohibits rate // of prohibit

	mu    sync.Mutex // guards slots
	slots slots
}

// Own is what is ours beside the mesh address: further addresses (the certified IPv4) that peers may send to, and the
// subnets behind this box, whose addresses no peer may use as a source unless granted exactly them.
type Own struct {
	Addresses []netip.Addr
	Subnets   []netip.Prefix
}

// New returns an empty plane that reports to up.
func New(c Config, up Upcalls) *Plane {
	if c.Slots <= 0 {
		c.Slots = DefaultSlots
	}
	c.Slots = min(c.Slots, 1<<slotBits)
	if c.Generation == 0 {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		c.Generation = binary.BigEndian.Uint32(b[:])
	}
	p := &Plane{
		network: c.Network,
		prefix:  c.Network.Prefix(),
		address: c.Network.Address(c.Self),
		up:      up,
		self:    c.Self,
		loops:   min(max(c.Loops, 1), MaxLoops),
		chunks:  make([]atomic.Pointer[chunk], (c.Slots+chunkSize-1)/chunkSize),
	}
	p.slots = newSlots(c.Slots, c.Generation)
	p.SetRoutes(&Routes{})
	p.SetOwn(Own{})
	return p
}

// Address returns our mesh address.
func (p *Plane) Address() netip.Addr { return p.address }

// SetOwn replaces what is ours beside the mesh address.
func (p *Plane) SetOwn(o Own) { p.own.Store(&o) }

// Advance tells the plane the time when no packet does, so that freed labels come to the end of their rest.
func (p *Plane) Advance(now time.Duration) {
	for {
		old := p.clock.Load()
		if int64(now) <= old || p.clock.CompareAndSwap(old, int64(now)) {
			return
		}
	}
}
