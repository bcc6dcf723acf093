package framed

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"skywire/mesh/forward"
)

// Limits of a Set.
const (
	// MaxSlots bounds the connections and the places to dial: a node has 64 links, each of which may be about to move.
	MaxSlots = 512
	// MaxTargets of these may be places to dial.
	MaxTargets = 256
	// MaxStrangers bounds the connections on which nobody has proved a key, and MaxStrangersPerHost those of one address
	// (of a /64 of IPv6), so that one host does not keep the others out.
	MaxStrangers        = 64
	MaxStrangersPerHost = 8
	// Patience is how long a stranger has.
	Patience = 5 * time.Second
	// dialTime bounds dialling, with proxy, TLS and all.
	dialTime = 8 * time.Second
	// dialPause is the pause after a place did not answer, doubled with each time up to dialPauseMax.
	dialPause    = 250 * time.Millisecond
	dialPauseMax = 15 * time.Second
	// holdBytes is what is kept for a connection that is being made: an INIT and a question or two.
	holdBytes = 1024
)

// Config is what a Set works with.
type Config struct {
	// Take hands a batch to a worker and returns when it has been taken in, or cannot be.
	Take func(*Batch) error
	// Ended is told that the connection of an endpoint has ended; gone: it can't be made again from here.
	Ended func(e forward.Endpoint, gone bool)
	// Strange may say something polite to a stranger who speaks no frames, before the connection is closed; nil: nothing.
	Strange  func(c net.Conn, said []byte)
	Now      func() time.Duration
	Patience time.Duration // 0: Patience
	Small    bool          // a box with little memory
	Log      *slog.Logger
}

// Dialer makes a connection to a place.
type Dialer func(ctx context.Context) (net.Conn, error)

// Upgrade turns an accepted connection into the stream of frames, or ends it: TLS and WebSocket are made here.
type Upgrade func(net.Conn) (net.Conn, error)

// Set is the stream connections of a node.
type Set struct {
	c     Config
	slots [MaxSlots]atomic.Pointer[slot]
	dials chan *slot // capacity MaxTargets: each target is in it once at most
	cut   atomic.Uint64

	mu        sync.Mutex // guards the fields below; never held while calling out
	targets   int
	next      int
	strangers int
	hosts     map[netip.Addr]int // strangers by host
	listeners []listening
	conns     map[*Conn]struct{}
	ended     bool
	wg        sync.WaitGroup
}

type listening struct {
	l       net.Listener
	first   uint16 // FirstTCP or FirstWSS
	upgrade Upgrade
}

// slot is a place to dial, or one accepted connection.
type slot struct {
	number uint16
	addr   netip.AddrPort
	name   string // of a target, for people
	dial   Dialer // nil: accepted
	conn   atomic.Pointer[Conn]
	used   atomic.Int64 // when a target was last named

	mu     sync.Mutex // guards the fields below
	busy   bool       // being dialled, or about to be
	held   []byte     // frames with lengths, for the connection that is being made
	tries  int
	again  time.Duration // not before
	failed error         // the last attempt
}

func (s *slot) endpoint() forward.Endpoint {
	return forward.Endpoint{Addr: s.addr, Socket: s.number}
}

// New returns a Set without connections.
func New(c Config) (*Set, error) {
	if c.Take == nil || c.Now == nil || c.Ended == nil {
		return nil, errors.New("framed: a set needs Take, Ended and a clock")
	}
	if c.Patience == 0 {
		c.Patience = Patience
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Set{c: c, dials: make(chan *slot, MaxTargets), hosts: map[netip.Addr]int{}, conns: map[*Conn]struct{}{}}, nil
}

func (s *Set) outLimit() int {
	if s.c.Small {
		return outLimitSmall
	}
	return outLimit
}

func (s *Set) inSize() int {
	if s.c.Small {
		return inSmall
	}
	return inSize
}

// Cut is how many frames were dropped because a connection took only a part of their train.
func (s *Set) Cut() uint64 { return s.cut.Load() }

// Listen has Run accept from l; first is forward.FirstTCP or forward.FirstWSS. It must come before Run, which closes l.
func (s *Set) Listen(l net.Listener, first uint16, upgrade Upgrade) {
	s.mu.Lock()
	s.listeners = append(s.listeners, listening{l, first, upgrade})
	s.mu.Unlock()
}

// Target returns the endpoint that stands for a place to dial; the same name and address give the same one. It is dialled
// when something is sent there.
func (s *Set) Target(first uint16, name string, addr netip.AddrPort, dial Dialer) (forward.Endpoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.slots {
		if x := s.slots[i].Load(); x != nil && x.dial != nil && x.name == name && x.addr == addr {
			x.used.Store(int64(s.c.Now()))
			return x.endpoint(), nil
		}
	}
	if s.targets >= MaxTargets && !s.evictLocked() {
		return forward.Endpoint{}, ErrFull
	}
	x := &slot{addr: addr, name: name, dial: dial}
	x.used.Store(int64(s.c.Now()))
	if !s.placeLocked(x, first) {
		return forward.Endpoint{}, ErrFull
	}
	s.targets++
	return x.endpoint(), nil
}

// evictLocked forgets the place that was not named for the longest time, of those without a connection.
func (s *Set) evictLocked() bool {
	oldest := -1
	for i := range s.slots {
		x := s.slots[i].Load()
		if x == nil || x.dial == nil || x.conn.Load() != nil || x.dialling() {
			continue
		}
		if oldest < 0 || x.used.Load() < s.slots[oldest].Load().used.Load() {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	s.slots[oldest].Store(nil)
	s.targets--
	return true
}

func (s *slot) dialling() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy
}

// placeLocked finds a slot. Numbers go round, so that one is not given away again at once.
func (s *Set) placeLocked(x *slot, first uint16) bool {
	for range s.slots {
		i := s.next
		s.next = (s.next + 1) % len(s.slots)
		if s.slots[i].Load() == nil {
			x.number = first + uint16(i)
			s.slots[i].Store(x)
			return true
		}
	}
	return false
}

// index of an endpoint among the slots.
func index(e forward.Endpoint) int {
	if e.Socket >= forward.FirstWSS {
		return int(e.Socket) - forward.FirstWSS
	}
	return int(e.Socket) - forward.FirstTCP
}

func (s *Set) slot(e forward.Endpoint) *slot {
	i := index(e)
	if i < 0 || i >= len(s.slots) {
		return nil
	}
	x := s.slots[i].Load()
	if x == nil || x.number != e.Socket || x.addr != e.Addr {
		return nil
	}
	return x
}

// Name returns how a target was named, or nothing.
func (s *Set) Name(e forward.Endpoint) string {
	if x := s.slot(e); x != nil {
		return x.name
	}
	return ""
}

// Trouble returns why the last attempt to dial a target failed; nil where it did not.
func (s *Set) Trouble(e forward.Endpoint) error {
	x := s.slot(e)
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

// Send implements forward.Output: it never waits. A target that is not connected is dialled, and keeps the first frames.
func (s *Set) Send(to forward.Endpoint, train []byte, seg int, _ uint8) error {
	x := s.slot(to)
	if x == nil {
		return ErrGone
	}
	if c := x.conn.Load(); c != nil {
		return c.send(train, seg)
	}
	if x.dial == nil {
		return ErrGone
	}
	return s.hold(x, train, seg)
}

// hold keeps a frame for the connection that it has made.
func (s *Set) hold(x *slot, train []byte, seg int) error {
	now := s.c.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	if c := x.conn.Load(); c != nil {
		return c.send(train, seg)
	}
	if !x.busy {
		if now < x.again {
			return ErrGone
		}
		x.busy = true
		x.held = x.held[:0]
		select {
		case s.dials <- x:
		default:
			x.busy = false
			return syscall.EAGAIN
		}
	}
	if seg < len(train) || len(x.held)+len(train) > holdBytes {
		return syscall.EAGAIN
	}
	x.held = Append(x.held, train)
	return nil
}

// Prove is told that somebody has proved a key on the connection of an endpoint: it is no stranger's any more.
func (s *Set) Prove(e forward.Endpoint) {
	x := s.slot(e)
	if x == nil {
		return
	}
	if c := x.conn.Load(); c != nil && c.prove() {
		s.known(x.addr.Addr())
	}
}

// Proven reports whether the connection of an endpoint is no stranger's.
func (s *Set) Proven(e forward.Endpoint) bool {
	x := s.slot(e)
	if x == nil {
		return false
	}
	c := x.conn.Load()
	return c != nil && c.proven.Load()
}

// Sweep closes the connections that wanted does not want and that have been silent for idle.
func (s *Set) Sweep(idle time.Duration, wanted func(forward.Endpoint) bool) {
	now := s.c.Now()
	s.mu.Lock()
	var old []*Conn
	for c := range s.conns {
		if c.proven.Load() && now-time.Duration(c.used.Load()) > idle {
			old = append(old, c)
		}
	}
	s.mu.Unlock()
	for _, c := range old {
		if !wanted(c.slot.endpoint()) {
			c.close()
		}
	}
}

// Drop closes every connection that was dialled, so that it is made anew: the network has changed.
func (s *Set) Drop() {
	s.mu.Lock()
	var all []*Conn
	for c := range s.conns {
		if c.slot.dial != nil {
			all = append(all, c)
		}
	}
	s.mu.Unlock()
	for _, c := range all {
		c.close()
	}
	for i := range s.slots {
		if x := s.slots[i].Load(); x != nil && x.dial != nil {
			x.mu.Lock()
			x.tries, x.again = 0, 0
			x.mu.Unlock()
		}
	}
}

// Count returns the connections, and how many of them are strangers'.
func (s *Set) Count() (conns, strangers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.strangers
}
