package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/link/udp"
	"skywire/mesh/manager/report"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
	"skywire/mesh/store"
	"skywire/mesh/stream"
	"skywire/mesh/wire"
)

// inboxSize bounds what the loops have handed to the owner and it has not looked at; more is dropped and counted.
const inboxSize = 1024

// DefaultPort is the UDP port of a node that is told none.
const DefaultPort = 7667

// Peer is a node to link with: a key, an address (host:port), or both.
type Peer struct {
	Key  key.Public // zero: learnt from whoever is at Addr, then pinned
	Addr string     // host:port; empty for a manager that others lead to
}

// Config is what a node is run with.
type Config struct {
	State, Run string // directories
	Name       string
	Version    string
	Listen     []string // host:port; none: every address, DefaultPort
	Peers      []Peer
	Managers   []Peer
	// Visit is the node that this one is in the network for: as a guest of its cluster, it seeks the way to it.
	Visit      key.Public
	Open       bool
	Allow      []key.Public
	Petnames   map[string]key.Public // names that the owner gave to keys, beside those in the state directory
	Rekey      time.Duration         // of links and sessions; 0: 120 s
	StoreAfter time.Duration         // age at which relay rules are stored; 0: 60 s
	Paths      route.Constraints     // of paths that we send on
	Plain      bool                  // no UDP offloads
	Streams    string                // what carries them: quic or tcp; empty: as measured
	NoPunch    bool                  // no direct links by punching
	Find       Finding               // how it finds others, and is found
	Carriers   Carriers              // how links travel where UDP does not pass
	Loops      int                   // event loops, at most forward.MaxLoops; 0: as suits the machine
	Memory     uint64                // bytes that the box is taken to have; 0: what it has
	Ways       WaysConfig            // use of several paths at once
	// Processors sets on how many processors Go code runs, unless somebody else has, and returns the number; nil: that is
	// not ours to know.
	Processors func(n int) int
	OpenTUN    func(f *os.File, mtu int) (forward.TUN, error)
	// TUNFeatures says what the kernel granted a queue that OpenTUN made, for node.status; nil: nothing is said.
	TUNFeatures func(of string, queue forward.TUN) []api.Feature
	Ready       func() // called once when all parts run and the socket answers; may be nil
	Log         *slog.Logger
}

// Validate reports the first thing that can't work.
func (c *Config) Validate() error {
	if c.State == "" || c.Run == "" {
		return errors.New("node: state and run directories are needed")
	}
	if c.Loops < 0 || c.Loops > forward.MaxLoops {
		return fmt.Errorf("node: %d loops, want 1 to %d, or 0 for as many as suit the machine", c.Loops, forward.MaxLoops)
	}
	for _, p := range append(append([]Peer(nil), c.Peers...), c.Managers...) {
		if p.Addr == "" {
			continue
		}
		if _, err := parseAddress(p.Addr); err != nil {
			return fmt.Errorf("peer %q: %w (use KEY@host:port)", p.Addr, err)
		}
	}
	return nil
}

// Node is a running node.
type Node struct {
	cfg      Config
	log      *slog.Logger
	identity *key.Private
	network  key.NetworkID
	core     *Core
	store    *store.DB
	machine  machine
	sockets  []*udp.Socket // ports of them for each address, the lowest first
	ports    int
	loops    []*forward.Loop
	streams  *stream.Endpoint
	server   *api.Server
	reporter *report.Reporter
	started  time.Time
	boot     uint64

	inbox    chan func(now time.Duration)
	missed   atomic.Uint64 // events dropped because the owner was behind
	ended    chan struct{}
	moved    chan struct{} // capacity 1: the network is another one now
	members  *member.State // nil: no cluster; the owner's
	join     joining
	resolve  *resolver
	reach    *reacher
	carriers *carriers
	petnames *petnames

	sendMu sync.Mutex // guards sender, the worker of QUIC's goroutines
	sender *forward.Worker

	lastPeer atomic.Pointer[peerAddress] // of the last train: its address is a hash of the key

	tunMu sync.Mutex           // guards tuns; a loop never waits for it
	tuns  map[string][]tunPart // by device

	recordsChanged chan struct{}    // capacity 1: a note that there is news
	broken         chan forward.TUN // capacity 16: devices deleted under us
	saveAt         time.Duration
	saveError      string                              // the last one logged
	counted        map[store.CounterKey]store.Counters // of earlier starts
}

// New opens state, sockets and store; nothing runs before Run, which closes them.
func New(c Config) (*Node, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{fmt.Sprintf(":%d", DefaultPort)}
	}
	m := newMachine(&c)
	n := &Node{
		cfg: c, log: c.Log, network: key.Open(), started: time.Now(), machine: m,
		inbox: make(chan func(time.Duration), m.inbox), ended: make(chan struct{}), tuns: map[string][]tunPart{},
		recordsChanged: make(chan struct{}, 1), broken: make(chan forward.TUN, 16),
	}
	if err := n.open(); err != nil {
		n.close()
		return nil, err
	}
	return n, nil
}

// open makes everything that can fail.
func (n *Node) open() (err error) {
	if c, err := net.DialTimeout("unix", filepath.Join(n.cfg.Run, app.SocketName), time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("a node is running already with %s; stop it, or give this one another --state and --run", n.cfg.Run)
	}
	var created bool
	if n.identity, created, err = key.LoadOrCreate(filepath.Join(n.cfg.State, "node.key")); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if created {
		n.log.Info("identity created", "key", n.identity.Public())
	}
	n.openStore()
	if n.petnames, err = openPetnames(n.cfg.State, n.cfg.Petnames); err != nil {
		n.log.Warn("petnames lost", "err", err)
	}
	if err := n.enterCluster(); err != nil {
		return err
	}
	if err := n.listen(); err != nil {
		return err
	}
	if n.carriers, err = newCarriers(n); err != nil {
		return err
	}
	if err := n.build(); err != nil {
		return err
	}
	return n.restore()
}

// openStore opens the database. Without one a node works, but forgets at its end what it knew.
func (n *Node) openStore() {
	db, err := store.Open(filepath.Join(n.cfg.State, "node.db"), store.Options{})
	switch {
	case err != nil:
		n.log.Error("store not open: routes and records will not outlive this process", "err", err)
		return
	case db.Warning() != nil:
		n.log.Warn("store was damaged and begins anew", "err", db.Warning())
	}
	n.store = db
}

func (n *Node) listen() error {
	var groups [][]*udp.Socket
	for _, a := range n.cfg.Listen {
		addr, err := net.ResolveUDPAddr("udp", strings.TrimPrefix(a, "udp://"))
		if err != nil {
			return fmt.Errorf("listen %q: %w", a, err)
		}
		ap := netip.AddrPortFrom(addr.AddrPort().Addr().Unmap(), uint16(addr.Port))
		if addr.IP == nil {
			ap = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(addr.Port))
		}
		all, err := listenPorts(udp.Config{Addr: ap, Plain: n.cfg.Plain, Buffer: n.machine.socketBuffer}, n.machine.loops)
		if err != nil {
			return errors.Join(fmt.Errorf("listen %s: %w", a, err), closeSockets(slices.Concat(groups...)))
		}
		groups = append(groups, all)
	}
	n.ports = n.machine.loops
	for _, all := range groups {
		n.ports = min(n.ports, len(all))
	}
	for _, all := range groups {
		_ = closeSockets(all[n.ports:]) // the handshake states one number, whatever the address
		n.sockets = append(n.sockets, all[:n.ports]...)
		i := all[0].Info()
		n.log.Info("listening", "addr", all[0].Addr(), "ports", n.ports, "gso", i.GSO, "gro", i.GRO, "rcvbuf_bytes", i.ReceiveBuffer)
	}
	if n.ports < n.machine.loops {
		n.log.Warn("fewer ports than loops: what neighbours send is not spread over all", "ports", n.ports, "loops", n.machine.loops,
			"remedy", "listen where so many ports in a row are free")
	}
	return nil
}

// Send implements forward.Output over the sockets and the stream connections.
func (n *Node) Send(to forward.Endpoint, train []byte, seg int, ecn uint8) error {
	if to.Socket >= forward.FirstTCP {
		return n.carriers.set.Send(to, train, seg, ecn)
	}
	i := int(to.Socket)
	if i >= len(n.sockets) {
		i = 0
	}
	return n.sockets[i].Send(to.Addr, train, seg, ecn)
}

// Transmit implements Outside.
func (n *Node) Transmit(to forward.Endpoint, b []byte) {
	if b[0] == wire.TypeCookie && int(to.Socket) < len(n.sockets) {
		n.sockets[to.Socket].MakeRoom(link.Now())
	}
	if err := n.Send(to, b, len(b), 0); err != nil {
		n.log.Debug("datagram not sent", "addr", to.Addr, "bytes", len(b), "err", err)
	}
}

// Pinned implements Outside: the key is kept for the address, and another one there is refused from now on.
func (n *Node) Pinned(addr forward.Endpoint, peer key.Public) {
	if n.store == nil {
		return
	}
	if err := n.store.Batch(func(t *store.Tx) error { t.Pin(n.pinName(addr), peer); return nil }); err != nil {
		n.log.Warn("key of peer not pinned", "addr", addr.Addr, "err", err)
	}
}

// PeerRestarted implements Outside: streams of before are dead, and waiting for them to find out takes half a minute.
func (n *Node) PeerRestarted(peer key.Public) { n.streams.Forget(peer) }

// RecordsChanged implements Outside.
func (n *Node) RecordsChanged() {
	select {
	case n.recordsChanged <- struct{}{}:
	default: // somebody will look anyway
	}
}

func (n *Node) build() (err error) {
	var b [24]byte
	if _, err := rand.Read(b[:]); err != nil {
		return fmt.Errorf("random: %w", err)
	}
	n.boot = binary.BigEndian.Uint64(b[:]) | 1
	var boots uint64
	if n.store != nil {
		if boots, err = n.store.CountBoot(); err != nil {
			n.log.Warn("start not counted", "err", err)
		}
		if number, err := n.store.Number(); err == nil {
			// Numbers used since the last save are unknown; a start leaves room for a second's worth of every one of them.
			boots = max(boots, number>>20+1)
		}
	}
	n.core, err = NewCore(CoreConfig{
		Members: n.members, Stored: n.storeStatement,
		Identity: n.identity, Network: n.network, Name: n.cfg.Name, Version: n.cfg.Version, Boot: n.boot,
		Sequence: boots << 20, Open: n.cfg.Open, Allow: n.cfg.Allow, Rekey: n.cfg.Rekey, StoreAfter: n.cfg.StoreAfter, Ways: n.cfg.Ways,
		Rand:  randv2.New(randv2.NewPCG(binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]))),
		Paths: n.cfg.Paths, Timers: link.Timers{Rekey: n.cfg.Rekey}, Ports: n.ports, Loops: n.machine.loops, Log: n.log,
		Punch: PunchConfig{SocketFor: n.socketFor, Off: n.cfg.NoPunch || n.cfg.Find.Publish == PublishNone}, Publish: n.cfg.Find.Publish,
	}, n, (*upcalls)(n), n)
	if err != nil {
		return err
	}
	if err := n.buildLoops(); err != nil {
		return err
	}
	n.sender = n.core.Plane().NewWorker(n)
	if n.streams, err = stream.New(stream.Config{
		Identity: n.identity, Network: n.network, Carrier: n, Kernel: (*kernel)(n), Prefer: stream.Prefer(n.cfg.Streams), Small: n.machine.small(),
		Most: n.machine.streams(),
		Log:  n.log,
	}); err != nil {
		return err
	}
	if n.server, err = api.New(api.Config{
		Path: filepath.Join(n.cfg.Run, app.SocketName), Node: n, Streams: n.streams, Log: n.log,
	}); err != nil {
		return err
	}
	n.resolve = newResolver(n)
	if n.reach, err = newReacher(n); err != nil {
		return err
	}
	n.reporter, err = n.newReporter()
	return err
}

// buildLoops makes the event loops, each with the sockets that it receives from; any of them may send by all.
func (n *Node) buildLoops() error {
	var all []forward.Socket
	for _, s := range n.sockets {
		all = append(all, s)
	}
	for i := range n.machine.loops {
		poller, err := udp.NewPoller()
		if err != nil {
			return fmt.Errorf("poller: %w", err)
		}
		l, err := forward.NewLoop(forward.LoopConfig{
			Plane: n.core.Plane(), Poller: poller, Number: i, Sockets: all, Own: n.own(i), Streams: n.carriers.set, Now: link.Now, Memory: n.machine.memory,
			Detached: n.tunBroke, Log: n.log,
		})
		if err != nil {
			return err
		}
		n.loops = append(n.loops, l)
	}
	return nil
}

// Key returns the node's public key.
func (n *Node) Key() key.Public { return n.identity.Public() }

// Run works until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	defer n.close()
	if err := os.MkdirAll(n.cfg.Run, 0o750); err != nil {
		return fmt.Errorf("run directory: %w", err)
	}
	asked := ctx
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var wg sync.WaitGroup
	var first error
	var once sync.Once
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			defer cancel() // one part gone: the node is not a node any more
			if err := f(ctx); err != nil && !errors.Is(err, context.Canceled) {
				once.Do(func() { first = fmt.Errorf("%s: %w", name, err) })
			}
		})
	}
	if !n.cfg.Visit.IsZero() && n.members != nil {
		n.core.Seek(link.Now(), n.cfg.Visit) // before it can be asked for its host
	}
	for _, l := range n.loops {
		part("event loop", l.Run)
	}
	part("owner", n.owner)
	part("leave", func(ctx context.Context) error { return n.leave(asked, ctx) })
	part("streams", n.streams.Run)
	part("api", n.server.Run)
	part("tuns", n.closeBroken)
	part("services", n.watchServices)
	part("membership", n.keepMembership)
	part("visit", n.keepVisit)
	part("network", n.awaitMove)
	part("resolver", n.resolve.run)
	n.reach.run(part)
	part("carriers", n.carriers.run)
	part("managers", func(ctx context.Context) error {
		err := n.reporter.Run(ctx) // ends at once where there are none
		if err == nil {
			<-ctx.Done()
		}
		return err
	})
	part("records", n.watchRecords)
	select {
	case <-n.server.Up():
		n.log.Info("node is up", "key", n.Key(), "address", n.core.Address())
		if n.cfg.Ready != nil {
			n.cfg.Ready()
		}
	case <-ctx.Done():
	}
	wg.Wait()
	n.log.Info("node ends")
	return first
}

// owner is the loop of control: it alone touches core.
func (n *Node) owner(ctx context.Context) error {
	defer close(n.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			n.goodbye()
			return nil
		case f := <-n.inbox:
			f(link.Now())
			n.drain()
		case <-timer.C:
		}
		now := link.Now()
		next := n.core.Tick(now)
		n.saveMembers()
		n.save(now, false)
		timer.Reset(max(next-now, time.Millisecond))
	}
}

// drain takes what else waits, so that a burst costs one Tick. Each event has its own time: with that of the first one, an
// echo and its answer in one burst measure a round trip of nothing.
func (n *Node) drain() {
	for range 64 {
		select {
		case f := <-n.inbox:
			f(link.Now())
		default:
			return
		}
	}
}

// goodbye tells the neighbours that we go, and saves.
func (n *Node) goodbye() {
	now := link.Now()
	n.save(now, true)
	n.core.Close(now)
}

// post hands an event to the owner; it is dropped and counted if the owner is behind.
func (n *Node) post(f func(now time.Duration)) {
	select {
	case n.inbox <- f:
	default:
		n.missed.Add(1)
	}
}

// do runs f in the owner and waits for it.
func (n *Node) do(ctx context.Context, f func(now time.Duration)) error {
	done := make(chan struct{})
	select {
	case n.inbox <- func(now time.Duration) { f(now); close(done) }:
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ended:
		return ErrClosed
	}
	select {
	case <-done:
		return nil
	case <-n.ended:
		return ErrClosed
	}
}

func (n *Node) close() {
	n.tunMu.Lock()
	for _, parts := range n.tuns {
		closeParts(parts)
	}
	n.tuns = map[string][]tunPart{}
	n.tunMu.Unlock()
	_ = closeSockets(n.sockets)
	if n.store != nil {
		if err := n.store.Close(); err != nil {
			n.log.Warn("store not closed", "err", err)
		}
	}
}

// upcalls is Node as the data plane sees it: everything goes to the owner as a copy.
type upcalls Node

func (u *upcalls) Datagram(_ time.Duration, from forward.Endpoint, b []byte) {
	n := (*Node)(u)
	b = append([]byte(nil), b...)
	n.post(func(now time.Duration) {
		n.core.Datagram(now, from, b)
		n.carriers.datagram(from)
	})
}

func (u *upcalls) Control(_ time.Duration, p *forward.Path, body []byte) {
	n := (*Node)(u)
	body = append([]byte(nil), body...)
	n.post(func(now time.Duration) { n.core.Control(now, p, body) })
}

func (u *upcalls) QUIC(s *forward.Session, train []byte, seg int) {
	(*Node)(u).streams.Deliver(s.Peer, train, seg)
}

func (u *upcalls) Unrouted(_ time.Duration, packet []byte) {
	n := (*Node)(u)
	packet = append([]byte(nil), packet...)
	n.post(func(now time.Duration) { n.core.Unrouted(now, packet) })
}

func (u *upcalls) NoLabel(_ time.Duration, from forward.Endpoint, header []byte) {
	n := (*Node)(u)
	header = append([]byte(nil), header...)
	n.post(func(now time.Duration) { n.core.Unplaced(now, from, header) })
}

func (u *upcalls) TooBig(_ time.Duration, r *forward.Relay, out *forward.Link, label uint32, size, mtu int) {
	n := (*Node)(u)
	switch {
	case r != nil:
		n.post(func(now time.Duration) { n.core.TooBig(now, r, label, mtu) })
	case mtu == 0:
		if _, most := out.MTU(); size <= most { // else it is known already
			n.post(func(now time.Duration) { n.core.SizeRefused(now, out.Peer, size) })
		}
	}
}
