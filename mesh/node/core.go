// Package node assembles identity, links, sessions, paths, records and the data plane into a running node.
//
// Core is the node's control as a pure state machine: datagrams, packets without a route, control frames and time go in;
// datagrams and changes of the data plane come out. It opens no socket, reads no clock and starts no goroutine, so that
// mesh/meshtest runs thousands of them on virtual time. Node is the thin, impure part: sockets, event loop, store, API.
//
// Rules: one goroutine, the owner, calls every method of Core. The data plane is changed by the owner only and read by
// the loops without a lock. A relay takes rules from signed setups only; a manager proposes, the source decides. Every
// table that peers can fill is bounded by a constant below.
package node

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/member"
	"skywire/mesh/route"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Limits of what others can make a node hold.
const (
	maxRelays       = 4096 // rules of other nodes' paths; each costs two label blocks
	maxSessions     = 1024
	maxPathsPerPeer = 6    // paths that one peer may end here
	maxSources      = 4096 // sources of setups whose numbers are remembered
	maxWaiting      = 32   // packets held per peer until its session stands
	maxWaiters      = 1024 // pings and streams that wait for one session
	maxAgain        = 4    // setups of a session repeated at once because of what a relay or the end said
	minPathMTU      = 548  // a path of less carries nothing
	setupsPerSecond = 20   // per neighbour
	badSignatures   = 3    // of setups per neighbour and minute, then its setups are refused for a minute
	quotaShare      = 4    // a neighbour may hold 1/quotaShare of the relay rules
)

// Times of paths and sessions.
const (
	tickBusy      = 20 * time.Millisecond // of sessions while data flows
	tickIdle      = 500 * time.Millisecond
	setupRetry    = 200 * time.Millisecond // doubling, setupTries times
	setupTries    = 4
	probeRetry    = 40 * time.Millisecond // of a sealed probe, or 2 RTT
	suspectAfter  = 3                     // unanswered probes
	denseBurst    = 4                     // frames a tick: the path is dense with data …
	denseQuiet    = 40 * time.Millisecond // … and so long a silence is remarkable
	reportEvery   = 50 * time.Millisecond
	standbyKeep   = 20 * time.Second
	pathIdle      = 60 * time.Second // a rule without a frame goes
	sessionIdle   = 3 * time.Minute  // without data its paths are let go
	evictAfter    = 15 * time.Second // without data a session gives way where there are too many
	eventEvery    = time.Second      // events passed on, and heeded, about one path
	busyFor       = 2 * time.Second  // after its last data a path counts as busy
	replanEvery   = 5 * time.Second
	replanSoon    = 250 * time.Millisecond
	failedPause   = 5 * time.Second // a failed path is not tried again before
	restoredStale = 60 * time.Second
	relayDownKeep = 60 * time.Second
	packetLanes   = 4 // of a path, or as many as there are loops; one more is for streams
	ttlStart      = 32
)

// Outside is what Core needs of the world.
type Outside interface {
	// Transmit sends one datagram now; b is not kept.
	Transmit(to forward.Endpoint, b []byte)
	// Pinned is told the key learnt of an address that was given without one.
	Pinned(addr forward.Endpoint, peer key.Public)
	// PeerRestarted is called when a session's peer turns out to have restarted: what it knew of us is gone.
	PeerRestarted(peer key.Public)
	// RecordsChanged is called when a record came or went, or the own one was signed anew.
	RecordsChanged()
}

// CoreConfig is what a Core is made of.
type CoreConfig struct {
	Identity *key.Private
	Network  key.NetworkID
	Name     string
	Version  string
	Boot     uint64 // random per start
	Sequence uint64 // setups and the own record count up from here, never below what an earlier start used
	Open     bool   // anyone may link
	Allow    []key.Public
	// Members makes the node one of a cluster: who has a certificate is a member, Network is the cluster's, and Open and
	// Allow say nothing any more. Stored is called, by the owner, with each statement that is news, before it has effects.
	Members    *member.State
	Stored     func(ch member.Change, raw []byte)
	MTU        int
	Slots      int
	Ports      int // consecutive ports received on; 0: 1
	Punch      PunchConfig
	Publish    Publish    // whom we tell our addresses
	Loops      int        // event loops; 0: 1
	Ways       WaysConfig // use of several paths at once
	Rand       *rand.Rand
	Wall       func() time.Time // for people, and, as far as a cluster's floor clock trusts it, for its certificates
	Timers     link.Timers
	Paths      route.Constraints                                          // of paths that we send on
	Session    session.Config                                             // test knobs
	Rekey      time.Duration                                              // of sessions; 0: 120 s
	StoreAfter time.Duration                                              // age from which relay rules are worth storing; 0: 60 s
	Parse      func([]byte, key.NetworkID) (*route.Record, []byte, error) // simulators' knob, see route.DBConfig
	Log        *slog.Logger
}

// Core is the control of a node.
type Core struct {
	cfg    CoreConfig
	self   key.Public
	addr   netip.Addr
	log    *slog.Logger
	out    Outside
	links  *link.Links
	plane  *forward.Plane
	worker *forward.Worker // of the owner's goroutine
	db     *route.DB

	allow    map[key.Public]bool
	sessions map[key.Public]*peerSession
	byAddr   map[netip.Addr]key.Public // every key known, by its mesh address
	byPath   map[*forward.Path]*path
	paths    map[wire.PathID]*path
	relays   map[wire.PathID]*relay
	sources  map[key.Public]*setupNumbers
	rulesOf  map[key.Public]int // relay rules by the neighbour from whom they came
	now      time.Duration      // of the event in hand
	number   uint64             // of the last setup
	seq      uint64             // of the last path or rule
	ctl      []byte             // scratch of control messages
	graph    *route.Graph

	listen   []string
	services []route.Service
	policy   Policy
	routesAt bool // the route table has to be rebuilt
	hosts    atomic.Pointer[forward.Routes]

	nextRecord  time.Duration
	recordNews  time.Duration // when something last happened that the own record tells
	nextDigest  time.Duration
	nextAged    time.Duration
	request     uint32 // of messages that are answered by number
	nextExpire  time.Duration
	nextSession time.Duration
	drops       coreDrops
	leaving     leaving
	proposals   map[key.Public]proposal
	echoes      map[uint64]echo
	meetings    map[key.Public]meeting // who was heard on local networks, see lan.go
	echoID      uint64
	events      eventRing
	attempts    map[key.Public]*attempted // to reach nodes directly

	reach reach
	punch punching

	members members

	twinSeen, twinLog time.Duration // when another box was last said to run our key, and when to log it again
	twinAddr          netip.AddrPort
}

// coreDrops counts what control refused.
type coreDrops struct {
	malformed, refusedSetups, replayedSetups, badSignatures, limit, unrouted uint64
}

// NewCore returns a Core that knows nobody yet. tx is what the plane's workers send through.
func NewCore(c CoreConfig, out Outside, up forward.Upcalls, tx forward.Output) (*Core, error) {
	if c.Identity == nil || c.Rand == nil {
		return nil, fmt.Errorf("node: identity and random source are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.StoreAfter == 0 {
		c.StoreAfter = time.Minute
	}
	if c.Rekey == 0 {
		c.Rekey = 120 * time.Second
	}
	if c.Members != nil {
		c.Network, c.Open = c.Members.Network(), false
	}
	n := &Core{
		cfg: c, self: c.Identity.Public(), log: c.Log, out: out,
		allow:    map[key.Public]bool{},
		sessions: map[key.Public]*peerSession{}, byAddr: map[netip.Addr]key.Public{},
		byPath: map[*forward.Path]*path{}, paths: map[wire.PathID]*path{}, relays: map[wire.PathID]*relay{},
		sources: map[key.Public]*setupNumbers{}, rulesOf: map[key.Public]int{}, number: c.Sequence,
		proposals: map[key.Public]proposal{}, echoes: map[uint64]echo{}, attempts: map[key.Public]*attempted{},
	}
	n.members.state, n.members.paths = c.Members, map[wire.PathID]*guestPath{}
	n.addr = c.Network.Address(n.self)
	for _, k := range c.Allow {
		n.allow[k] = true
	}
	n.plane = forward.New(forward.Config{Network: c.Network, Self: n.self, Slots: c.Slots, Generation: c.Rand.Uint32(), Loops: c.Loops}, up)
	n.worker = n.plane.NewWorker(tx)
	n.db = route.NewDB(route.DBConfig{Network: c.Network, Self: n.self, Boot: c.Boot, Number: c.Sequence, Member: n.member, Parse: c.Parse})
	n.byAddr[n.addr] = n.self
	var err error
	n.links, err = link.New(link.Config{
		Identity: c.Identity, Network: c.Network, Boot: c.Boot, MTU: c.MTU, Ports: c.Ports, Open: c.Open, Rand: c.Rand,
		Timers: c.Timers, Session: c.Session, Log: c.Log, Members: n.handshakeDigest(),
	}, (*host)(n))
	return n, err
}

// lanes is how many lanes a path that we set up has each way. Fewer than there are loops on the way would leave loops
// idle, and how many the others have is not known.
func (n *Core) lanes() int { return min(max(n.cfg.Loops, packetLanes), forward.MaxLoops) + 1 }

// Plane returns the data plane, for the event loop.
func (n *Core) Plane() *forward.Plane { return n.plane }

// Address returns the node's mesh address.
func (n *Core) Address() netip.Addr { return n.addr }

// Number returns the highest setup and record number used; a later start must begin above it.
func (n *Core) Number() uint64 { return max(n.number, n.db.Number()) }

func (n *Core) member(k key.Public) bool {
	if n.clustered() {
		return n.belongs(k)
	}
	return !n.cfg.Open && n.allow[k]
}

// admit says whether a proven key may link or have a session with us; in a cluster its guests have rules of their own.
func (n *Core) admit(k key.Public) error {
	if n.clustered() {
		return n.notMember(k)
	}
	if n.cfg.Open || n.allow[k] {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrNotAdmitted, k.Short())
}

// Allow admits a key to a static mesh.
func (n *Core) Allow(k key.Public) { n.allow[k] = true }

// Datagram takes a datagram that is no data frame.
func (n *Core) Datagram(now time.Duration, from forward.Endpoint, b []byte) {
	n.now = now
	n.links.Datagram(now, from, b)
	n.worker.Flush()
}

// Unplaced takes the start of a data frame that no label fits.
func (n *Core) Unplaced(now time.Duration, from forward.Endpoint, header []byte) {
	n.links.Unplaced(now, from, header)
}

// Dial wants a link with peer at addr; with the zero key whoever is there, if it runs open.
func (n *Core) Dial(now time.Duration, peer key.Public, addrs []forward.Endpoint) error {
	if peer == (key.Public{}) {
		for _, a := range addrs {
			n.links.DialAddr(now, a, true, func(now time.Duration, k key.Public) {
				n.log.Info("learnt key of peer", "addr", a.Addr, "peer", k)
				n.allow[k] = true
				n.out.Pinned(a, k)
			})
		}
		return nil
	}
	n.allow[peer] = true
	if n.standing(peer).Rights == member.None {
		return nil // as long as it is revoked
	}
	_, err := n.links.Dial(now, peer, addrs, true)
	return err
}

// Close tells the neighbours that this node goes.
func (n *Core) Close(now time.Duration) {
	for _, l := range n.linkList() {
		n.links.Remove(now, l)
	}
}

// Tick does what is due. It returns the time by which it wants to be called again.
func (n *Core) Tick(now time.Duration) time.Duration {
	n.now = now
	n.plane.Advance(now)
	next := n.tickPunch(now) // before the links: one that is let go must not be dialled again
	next = min(next, n.links.Tick(now))
	next = min(next, n.tickMembers(now))
	next = min(next, n.tickRecords(now))
	next = min(next, n.tickSessions(now))
	n.tickRelays(now)
	n.tickEchoes(now)
	n.tickRules(now)
	n.tickTwins(now)
	n.refreshRoutes()
	n.worker.Flush()
	return next
}

// neighbour is what the node keeps of a link.
type neighbour struct {
	exchange // as to membership

	link   *link.Link
	plane  *forward.Link
	up     bool
	upAt   time.Duration
	downAt time.Duration
	seenAt forward.Endpoint // where it was reached when last looked

	setups   float64 // token bucket of setups
	setupsAt time.Duration
	bad      int // bad signatures lately
	barred   time.Duration

	flood     map[key.Public]*pendingRecord // records on their way to the neighbour, by origin
	told      map[key.Public]time.Duration  // when records went to one on a slow line
	fresh     []*pendingRecord              // of them, those not yet sent, in order
	freshAt   time.Duration                 // when the next batch may go
	floodAt   time.Duration                 // none of the others is due before
	acks      []wire.Message                // for records of his, to go in one frame
	rulesAsk  wire.Rules                    // our RULES that waits for its answer; Request 0: none
	rulesHeld map[wire.PathID]uint32        // what was ours to state when it first went out
	rulesAt   time.Duration                 // when to repeat it
	rulesN    int
	listed    map[wire.PathID]uint32 // pages of a RULESLIST so far
	listFor   uint32
	listPages map[uint16]bool

	starts                     []start // of the neighbour, the present one last
	restarts                   int     // within the minute that began at restartsAt
	restartsAt                 time.Duration
	twinUntil, twinAt, twinLog time.Duration // see twins.go
	punched                    time.Duration // when punching made the link; 0: it did not

	shown      shown  // our digest
	digest     uint32 // request of the digest whose pages are coming
	digestNext key.Public
	digestAt   time.Duration // before this no sum of the neighbour's is answered
}

func (n *Core) neighbour(l *link.Link) *neighbour {
	if b, ok := l.Data.(*neighbour); ok {
		return b
	}
	b := &neighbour{link: l, plane: n.plane.NewLink(l.Peer()), setups: setupsPerSecond, flood: map[key.Public]*pendingRecord{}}
	l.Data = b
	return b
}

// upLink returns the link to a neighbour if it is up.
func (n *Core) upLink(k key.Public) *neighbour {
	l := n.links.ByPeer(k)
	if l == nil || l.State() != link.Up {
		return nil
	}
	return n.neighbour(l)
}

// linkList returns the links, oldest first.
func (n *Core) linkList() []*link.Link {
	var all []*link.Link
	n.links.All(func(l *link.Link) { all = append(all, l) })
	return all
}

func (n *Core) send(now time.Duration, b *neighbour, m wire.Message) {
	n.sent(b, m.Type(), n.links.Send(now, b.link, m))
}

// sent notes what became of a message.
func (n *Core) sent(b *neighbour, kind uint8, err error) {
	if err != nil {
		n.log.Debug("message not sent", "peer", b.link.Peer().Short(), "type", kind, "err", err)
	}
}

// ack answers a message that asks for it.
func (n *Core) ack(now time.Duration, b *neighbour, request uint32) {
	if request != 0 {
		n.send(now, b, wire.Ack{Request: request})
	}
}

// host is Core as mesh/link sees it.
type host Core

func (h *host) core() *Core { return (*Core)(h) }

func (h *host) Transmit(to forward.Endpoint, b []byte) {
	if to.Socket < forward.FirstTCP {
		h.reach.wrote(h.now, to.Addr)
	}
	h.out.Transmit(to, b)
}

func (h *host) Admit(peer key.Public) error {
	if h.core().clustered() {
		return h.core().admitLink(peer)
	}
	return h.core().admit(peer)
}

func (h *host) Up(now time.Duration, l *link.Link, restarted bool) {
	n := h.core()
	b := n.neighbour(l)
	b.up, b.upAt = true, now
	n.byAddr[n.cfg.Network.Address(l.Peer())] = l.Peer()
	n.log.Info("link up", "peer", l.Peer(), "addr", l.Endpoint().Addr, "restarted", restarted)
	n.noteLink(EventLinkUp, l, map[bool]string{true: "the neighbour restarted"}[restarted])
	if restarted || len(b.starts) == 0 {
		n.started(now, b)
	}
	n.heardFrom(now, l)
	n.applyLink(now, b)
	n.greet(now, b)
}

func (h *host) Down(now time.Duration, l *link.Link, reason string) {
	n := h.core()
	b := n.neighbour(l)
	b.up, b.downAt = false, now
	n.log.Warn("link down", "peer", l.Peer(), "reason", reason)
	n.noteLink(EventLinkDown, l, reason)
	n.applyLink(now, b)
	n.linkLost(now, b)
	n.newsOfRecord(now)
	if reason == link.Goodbye && n.punchedIdle(now, b, punchIdle-punchNearly) {
		n.letGo(now, b) // the neighbour found it unused a little earlier
	}
}

func (h *host) Forgotten(now time.Duration, l *link.Link) {
	n := h.core()
	k := l.Peer()
	for _, r := range n.relayList() {
		if r.fwd != nil && (r.prev == k || r.next == k) {
			n.removeRelay(now, r, wire.ReasonLinkDown, k)
		}
	}
	for _, p := range n.pathList() {
		if n.paths[p.id] == p && p.first.link == l {
			n.pathLost(now, p, "first link forgotten")
		}
	}
	n.forgetAddr(k)
}

func (h *host) Changed(now time.Duration, l *link.Link) {
	h.core().applyLink(now, h.core().neighbour(l))
}

func (h *host) Message(now time.Duration, l *link.Link, kind uint8, body []byte) {
	h.core().message(now, h.core().neighbour(l), kind, body)
}

func (h *host) Sent(l *link.Link, hd wire.Header) bool {
	return h.core().usesLabel(h.core().neighbour(l), hd.Label)
}

func (h *host) Traffic(l *link.Link) (rx, tx time.Duration) {
	b := h.core().neighbour(l)
	st := b.plane.Stats()
	return st.LastReceived, st.LastSent
}

// applyLink copies what the data plane needs of a link.
func (n *Core) applyLink(now time.Duration, b *neighbour) {
	l := b.link
	n.noteMove(b)
	b.moved()
	in, previous, out := l.Ring().HopKeys(now)
	b.plane.SetKeys(in, previous, out)
	b.plane.SetEndpoints(l.Endpoints()...)
	b.plane.SetMTU(n.mtuIn(), l.MTU())
	b.plane.SetUp(l.State() == link.Up)
	for _, p := range n.paths {
		// A path of one link is as wide as the link; a longer one may have a narrower link behind this one.
		if p.first == b && p.fp != nil && (p.mtu > l.MTU() || len(p.hops) == 2) {
			p.mtu = l.MTU()
			p.fp.SetMTU(p.mtu)
		}
	}
}

func (n *Core) mtuIn() int {
	if n.cfg.MTU > 0 {
		return n.cfg.MTU
	}
	return 1472
}

// message dispatches a LINK message that is not the link's own.
func (n *Core) message(now time.Duration, b *neighbour, kind uint8, body []byte) {
	if n.memberMessage(now, b, kind, body) {
		return
	}
	switch kind {
	case wire.MessageSetup:
		n.receiveSetup(now, b, body)
	case wire.MessageAccept:
		n.receiveAccept(now, b, body)
	case wire.MessageRefuse:
		n.receiveRefuse(now, b, body)
	case wire.MessageRemove:
		n.receiveRemove(now, b, body)
	case wire.MessageEvent:
		n.receiveEvent(now, b, body)
	case wire.MessageRules:
		n.receiveRules(now, b, body)
	case wire.MessageAck:
		n.receiveAck(now, b, body)
	case wire.MessageRulesList:
		n.receiveRulesList(now, b, body)
	case wire.MessageRecord:
		n.receiveRecord(now, b, body)
	case wire.MessageRecordAck:
		n.receiveRecordAck(b, body)
	case wire.MessageRecordsDigest:
		n.receiveDigest(now, b, body)
	case wire.MessageRecordsSum:
		n.receiveSum(now, b, body)
	case wire.MessageTwin:
		n.receiveTwin(now, b, body)
	}
}
