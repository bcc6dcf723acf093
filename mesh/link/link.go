// Package link keeps the adjacencies of a node: authenticated, encrypted links to its direct neighbours.
//
// It is a pure state machine: datagrams and time go in, datagrams and events come out through Host. It opens no
// socket, reads no clock and starts no goroutine; mesh/link/udp does the I/O, mesh/node drives it. It does not move
// data frames (mesh/forward does) and knows nothing of paths.
//
// Rules: one owner calls every method. Identity is only what a handshake proved. A link's send address moves only after
// a sealed challenge was answered from the new address. Nothing unauthenticated is answered but with a COOKIE, an ISME
// or a HINT, each bounded in rate and never longer than its cause.
package link

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Limits of the adjacency table.
const (
	// MaxLinks bounds the neighbours of one node: a record states at most 64 links.
	MaxLinks = 64
	// maxPieces is the number of messages in reassembly per link; a hostile neighbour costs at most 8 × 8 KiB.
	maxPieces = 8
	// linkWindow is the replay window of LINK frames, in counters.
	linkWindow = 2048
	// frameRoom is the room for messages in one LINK frame: with header and tag it fits 548 bytes of UDP payload.
	frameRoom = 548 - wire.LinkOverhead
)

// Timers are the durations that drive a link. The zero value means the defaults.
type Timers struct {
	RetryMin   time.Duration // first retry of an unanswered INIT (250 ms), growing by half
	RetryMax   time.Duration // longest pause between two INITs (5 s)
	PingBusy   time.Duration // ping interval while data flows (1 s)
	PingIdle   time.Duration // ping interval of a link without data (10 s)
	PingLong   time.Duration // the same after a minute (25 s)
	PingLost   time.Duration // pause before an unanswered ping is repeated (400 ms)
	LostPings  int           // unanswered pings until the link is down (5)
	Rekey      time.Duration // age at which the initiator rekeys (120 s ± 10)
	Admission  time.Duration // how long a proven key may wait for its first frame (5 s)
	HintEvery  time.Duration // pause between two handshakes caused by HINTs of one neighbour (1 s)
	MTUSettled time.Duration // how long after a handshake the size probes may still be answered (500 ms)
}

func (t Timers) withDefaults() Timers {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.RetryMin, 250*time.Millisecond)
	def(&t.RetryMax, 5*time.Second)
	def(&t.PingBusy, time.Second)
	def(&t.PingIdle, 10*time.Second)
	def(&t.PingLong, 25*time.Second)
	def(&t.PingLost, 400*time.Millisecond)
	def(&t.Rekey, 120*time.Second)
	def(&t.Admission, 5*time.Second)
	def(&t.HintEvery, time.Second)
	def(&t.MTUSettled, 500*time.Millisecond)
	if t.LostPings == 0 {
		t.LostPings = 5
	}
	return t
}

// Host is what a link machine needs of its node. All calls come from the owner, none may call back into Links but Send
// of another message.
type Host interface {
	// Transmit sends one datagram now; b is not kept.
	Transmit(to forward.Endpoint, b []byte)
	// Admit says whether a proven key may be a neighbour.
	Admit(peer key.Public) error
	// Up is called when a link has working keys: first frame opened or answered. restarted tells that the peer's boot
	// number differs from the one before.
	Up(now time.Duration, l *Link, restarted bool)
	// Down is called when a link that was up is lost.
	Down(now time.Duration, l *Link, reason string)
	// Forgotten is called when a link that was lost is given up: what hung on it must go.
	Forgotten(now time.Duration, l *Link)
	// Changed is called when hop keys, endpoint or datagram size of a link changed: copy them to the data plane.
	Changed(now time.Duration, l *Link)
	// Message delivers a message that is not the link's own (setup, record, …); body is valid during the call.
	Message(now time.Duration, l *Link, kind uint8, body []byte)
	// Sent says whether a data frame with this label lately went to l: it makes a HINT credible.
	Sent(l *Link, h wire.Header) bool
	// Traffic returns when the data plane last received from and sent to this neighbour.
	Traffic(l *Link) (rx, tx time.Duration)
	// Counts returns how many frames the data plane received from and sent to this neighbour, and the bytes received.
	Counts(l *Link) (received, sent, bytes uint64)
}

// Config is what a machine is made of.
type Config struct {
	Identity *key.Private
	Network  key.NetworkID
	Boot     uint64 // random per start; tells the neighbours that this node restarted
	MTU      int    // largest datagram (UDP payload) that this node takes; 0 means 1472
	// Ports is the number of consecutive ports that this node receives on, at most 8; 0: 1. Sockets with the numbers
	// k×Ports to k×Ports+Ports−1 are those of one address, the lowest port first.
	Ports int
	Open  bool // answer WHO with our key
	// Members is the digest of the membership lists that we hold, asked for each handshake; nil: there are none.
	Members func() [8]byte
	Rand    *rand.Rand
	Timers  Timers
	Session session.Config // test knobs: forced cipher
	Log     *slog.Logger
}

// Links is the set of adjacencies of one node.
type Links struct {
	cfg     Config
	timers  Timers
	host    Host
	gate    *session.Gate
	byLabel map[uint32]*Link
	byPeer  map[key.Public]*Link
	order   []*Link // by age: iteration is the same in every run from one seed
	asking  map[forward.Endpoint]*whoQuestion
	buf     []byte // scratch of outgoing frames
	plain   []byte // scratch of opened LINK bodies
	nonce   [12]byte
	drops   Drops
}

// Drops counts what was refused, by reason.
type Drops struct {
	Malformed, NoLabel, BadTag, Refused, Replayed, Limit, Handshake uint64
}

// New returns an empty set of adjacencies.
func New(c Config, h Host) (*Links, error) {
	if c.Identity == nil {
		return nil, fmt.Errorf("link: no identity")
	}
	if c.MTU == 0 {
		c.MTU = 1472
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.Ports = min(max(c.Ports, 1), wire.MaxLanes)
	gate, err := session.NewGate(session.GateConfig{Identity: c.Identity, Network: c.Network, Open: c.Open})
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	return &Links{
		cfg:     c,
		timers:  c.Timers.withDefaults(),
		host:    h,
		gate:    gate,
		byLabel: map[uint32]*Link{},
		byPeer:  map[key.Public]*Link{},
		asking:  map[forward.Endpoint]*whoQuestion{},
		buf:     make([]byte, 0, 2048),
		plain:   make([]byte, 0, 2048),
	}, nil
}

// State of a link.
type State uint8

// The states of a link, in the order of its life.
const (
	Idle    State = iota // nobody wants it: no dialling
	Dialing              // INITs go out
	Up                   // keys proven, pings answered
)

func (s State) String() string { return [...]string{"idle", "dialing", "up"}[s] }

// Link is one adjacency. The owner reads its exported methods; only Links changes it.
type Link struct {
	peer  key.Public
	label uint32 // ours: what the peer writes into LINK frames
	Data  any    // the node's own record of this neighbour

	state      State
	persistent bool // dial again whenever down
	candidates []candidate
	heard      forward.Endpoint // where the last good frame came from
	way        switching

	ring       *session.Ring
	jar        *session.Jar
	oldLabels  []oldLabel
	theirLabel uint32
	theirPorts int
	endpoint   forward.Endpoint
	boot       uint64
	members    [8]byte
	upSince    time.Duration
	answered   time.Duration // when a handshake of ours was last answered

	dialled forward.Endpoint // where the last INIT went
	trouble string           // why the link is not up, for people

	race     race
	hs       *session.Handshake
	hsBefore *session.Handshake // of the INIT before, whose answer may be under way
	hsTries  int
	hsAt     time.Duration // when to send the next INIT; 0: none pending
	hsHint   time.Duration // last handshake that a HINT caused
	proved   time.Duration // when the last key of a handshake was

	rekey   *session.Handshake
	rekeyAt time.Duration
	rekeyN  int

	counter    uint64        // of LINK frames sent; never goes back
	openedWith *session.Keys // key of the LINK frame in hand
	windows    map[uint8]*window

	lastRx, lastTx time.Duration
	ping           pinger
	meter          meter
	keepAlive      time.Duration // longest silence; 0: Timers.PingLong
	doubt          doubt
	life           lifetime
	mtu            mtuProbe
	move           mover
	restless       time.Duration // until when pings are repeated fast, since we moved; 0: not
	movedPing      uint32        // first ping since we last moved
	ports          ports

	pieces  map[uint16]*pieceBuffer
	pieceID uint16
}

// Peer returns the neighbour's proven key.
func (l *Link) Peer() key.Public { return l.peer }

// State returns where the link stands.
func (l *Link) State() State { return l.state }

// Dialled returns where the last handshake was tried, and Trouble why it did not work, as far as that is known.
func (l *Link) Dialled() forward.Endpoint { return l.dialled }

// Trouble returns why the link is not up, in words; empty while nothing is known against it.
func (l *Link) Trouble() string { return l.trouble }

// Endpoint returns where frames to the neighbour go.
func (l *Link) Endpoint() forward.Endpoint { return l.endpoint }

// RTT returns the least round-trip time of the last few, 0 while unknown.
func (l *Link) RTT() time.Duration { return l.ping.least() }

// MTU returns the largest datagram (UDP payload) to the neighbour, in bytes.
func (l *Link) MTU() int { return l.mtu.size }

// UpSince returns when the link came up.
func (l *Link) UpSince() time.Duration { return l.upSince }

// Members returns the digest of the membership lists that the neighbour held at the last handshake.
func (l *Link) Members() [8]byte { return l.members }

// Boot returns the number of the neighbour's start, 0 while unknown.
func (l *Link) Boot() uint64 { return l.boot }

// Observed returns our own address as the neighbour sees it; the zero value while unknown.
func (l *Link) Observed() netip.AddrPort { return l.ping.observed }

// Cipher returns the cipher of the present keys, for people.
func (l *Link) Cipher() string {
	if l.openedWith != nil {
		return l.openedWith.Cipher.String()
	}
	return ""
}

// Initiator reports whether we began the handshake whose key is in use.
func (l *Link) Initiator() bool { return l.openedWith != nil && l.openedWith.Initiator }

// Ring returns the keys of the link; the owner reads hop keys from it.
func (l *Link) Ring() *session.Ring { return l.ring }

// Drops returns the counters of refused input.
func (s *Links) Drops() Drops { return s.drops }

// All calls f for every link.
func (s *Links) All(f func(*Link)) {
	for _, l := range slices.Clone(s.order) {
		f(l)
	}
}

// ByPeer returns the link to peer, nil if there is none.
func (s *Links) ByPeer(peer key.Public) *Link { return s.byPeer[peer] }

// Dial wants a link to peer at any of addrs. A persistent link is dialled again whenever it is down, others until
// the first success or until Drop. Known links get the new addresses added.
func (s *Links) Dial(now time.Duration, peer key.Public, addrs []forward.Endpoint, persistent bool) (*Link, error) {
	l := s.byPeer[peer]
	if l == nil {
		var err error
		if l, err = s.add(peer); err != nil {
			return nil, err
		}
	}
	l.persistent = l.persistent || persistent
	for _, a := range addrs {
		l.enter(now, a)
	}
	if l.state != Up && l.hs == nil && l.hsAt == 0 {
		l.state = Dialing
		l.hsTries = 0
		l.hsAt = now
		s.initiate(now, l)
	}
	return l, nil
}

// Remove forgets a link at once: the peer is told, Down is not called.
func (s *Links) Remove(now time.Duration, l *Link) {
	if l.state == Up {
		_ = s.sendFrame(now, l, l.endpoint, wire.Bye{Reason: wire.ByeClosed})
	}
	delete(s.byLabel, l.label)
	for _, o := range l.oldLabels {
		delete(s.byLabel, o.label)
	}
	delete(s.byPeer, l.peer)
	s.order = slices.DeleteFunc(s.order, func(o *Link) bool { return o == l })
}

func (s *Links) add(peer key.Public) (*Link, error) {
	if peer == s.cfg.Identity.Public() {
		return nil, ErrSelf
	}
	if len(s.byPeer) >= MaxLinks {
		s.drops.Limit++
		return nil, ErrTooManyLinks
	}
	l := &Link{peer: peer, windows: map[uint8]*window{}, pieces: map[uint16]*pieceBuffer{}}
	l.ring = session.NewRing(session.RingConfig{RekeyAfter: s.timers.Rekey, RekeyJitter: s.timers.Rekey / 12, RejectAfter: s.timers.Rekey * 3 / 2})
	l.label = s.freeLabel()
	l.jar = session.NewJar(peer)
	l.mtu.size = startMTU
	s.byLabel[l.label] = l
	s.byPeer[peer] = l
	s.order = append(s.order, l)
	return l, nil
}
