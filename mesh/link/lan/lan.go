// Package lan lets nodes of one network find each other on a local network, with no manager and no Internet: each says by multicast
// on which port it takes handshakes, so that only nodes of the same network can tell who says so.
//
// It makes no links and proves nothing: whoever hears a beacon begins the normal handshake, which alone decides who is there.
//
// Rules: hop limit 1, one beacon for IPv4 and one for IPv6 on each interface, groups joined anew when interfaces change. What is heard
// counts only from addresses of the same wire, at most hearRate a second are looked at, and one address is reported at most once each
// foundPause. Everything else is dropped in silence.
package lan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"skywire/mesh/key"
)

// DefaultPort is the UDP port of beacons: below those of the event loops.
const DefaultPort = 7666

// Limits and times.
const (
	maxInterfaces = 16                    // joined; Linux lets a socket join 20 groups of IPv4
	hearRate      = 32                    // beacons looked at a second: each may cost MaxFriends hashes
	hearBurst     = 64                    // at once
	maxHeard      = 256                   // addresses remembered
	maxFailures   = 32                    // of receiving in a row, until a socket is given up
	foundPause    = 2 * time.Second       // between two reports of one address
	beaconSteady  = time.Minute           // between beacons while all is well
	beaconLonely  = 5 * time.Second       // while no link is up
	beaconGap     = 50 * time.Millisecond // least between two rounds
)

// Group4 and Group6 are the multicast groups: RFC 2365's local scope, and a transient group of link scope (RFC 4291, 2.7).
func Group4() netip.Addr { return netip.AddrFrom4([4]byte{239, 255, 118, 67}) }

// Group6 is the group of IPv6; see Group4.
func Group6() netip.Addr {
	return netip.AddrFrom16([16]byte{0xff, 0x12, 15: 0x67, 14: 0x76, 13: 0x73})
}

// Interface is where beacons go and come from.
type Interface struct {
	Index int
	Name  string
	Addrs []netip.Prefix
}

// Found is a node that said where it is; unproven.
type Found struct {
	Key       key.Public
	Addr      netip.AddrPort // with a zone where it needs one
	Interface Interface
}

// Said is what a node says of itself.
type Said struct {
	Port    uint16   // 0: nothing is said
	Network bool     // for all that know the network; else for Friends
	Friends []Friend // that we have no link with
	Lonely  bool     // no link is up
}

// Config says how to find others.
type Config struct {
	Self    key.Public
	Network key.NetworkID
	Port    int // of beacons; 0: DefaultPort
	// Say is asked before each beacon. Friends are those from whom one is taken. Both are called from goroutines of Run.
	Say     func() Said
	Friends func() []Friend
	Found   func(Found)
	Random  func([]byte)
	Log     *slog.Logger
}

// LAN finds others.
type LAN struct {
	c    Config
	news chan []Interface // capacity 1: the newest
	poke chan struct{}    // capacity 1: speak now

	mu         sync.Mutex // guards the fields below
	interfaces []Interface
	heardLeft  float64
	heardAt    time.Time
	reported   map[netip.AddrPort]time.Time
}

// New makes one; nothing runs before Run.
func New(c Config) (*LAN, error) {
	if c.Say == nil || c.Friends == nil || c.Found == nil || c.Random == nil {
		return nil, errors.New("lan: Say, Friends, Found and Random are needed")
	}
	if c.Port == 0 {
		c.Port = DefaultPort
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &LAN{
		c: c, news: make(chan []Interface, 1), poke: make(chan struct{}, 1), heardLeft: hearBurst, reported: map[netip.AddrPort]time.Time{},
	}, nil
}

// Update says which interfaces there are; only the newest counts. It never blocks.
func (l *LAN) Update(all []Interface) {
	for {
		select {
		case l.news <- all:
			return
		default:
		}
		select {
		case <-l.news:
		default:
		}
	}
}

// Speak has a beacon sent soon.
func (l *LAN) Speak() {
	select {
	case l.poke <- struct{}{}:
	default: // it will be
	}
}

// Run listens and speaks until ctx ends. Where a port or a family can't be had it goes on without, and says so.
func (l *LAN) Run(ctx context.Context) error {
	ways := l.open()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, w := range ways {
		defer w.close()
		wg.Go(func() { l.listen(w) })
	}
	if len(ways) == 0 {
		<-ctx.Done()
		return nil
	}
	var last time.Time
	round := 0
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case all := <-l.news:
			l.join(ways, all)
			round = 0
			timer.Reset(0)
		case <-l.poke:
			round = 0
			timer.Reset(max(0, beaconGap-time.Since(last)))
		case <-timer.C:
			last = time.Now()
			lonely := l.speak(ways)
			timer.Reset(pause(round, lonely))
			round++
		}
	}
}

// pause is how long after so many rounds the next one comes.
func pause(round int, lonely bool) time.Duration {
	if first := [...]time.Duration{250 * time.Millisecond, 750 * time.Millisecond, 2 * time.Second}; round < len(first) {
		return first[round]
	}
	if lonely {
		return beaconLonely
	}
	return beaconSteady
}

// way is a socket of one family.
type way interface {
	join(i Interface) error
	send(i Interface, b []byte) error
	receive(b []byte) (n int, from netip.AddrPort, err error)
	close()
}

func (l *LAN) open() (ways []way) {
	w4, err := open4(l.c.Port)
	if err == nil {
		ways = append(ways, w4)
	}
	w6, err6 := open6(l.c.Port)
	if err6 == nil {
		ways = append(ways, w6)
	}
	if len(ways) == 0 {
		l.c.Log.Warn("nodes of the local network are not looked for", "err", errors.Join(err, err6))
	}
	return ways
}

// join joins the groups wherever that was not done yet; joining twice does no harm.
func (l *LAN) join(ways []way, all []Interface) {
	all = all[:min(len(all), maxInterfaces)]
	for _, i := range all {
		for _, w := range ways {
			if err := w.join(i); err != nil {
				l.c.Log.Debug("group not joined", "device", i.Name, "err", err)
			}
		}
	}
	l.mu.Lock()
	l.interfaces = all
	l.mu.Unlock()
}

// speak sends a beacon everywhere and reports whether the node is lonely.
func (l *LAN) speak(ways []way) bool {
	said := l.c.Say()
	if said.Port == 0 || !said.Network && len(said.Friends) == 0 {
		return said.Lonely
	}
	l.mu.Lock()
	all := l.interfaces
	l.mu.Unlock()
	for _, i := range all {
		b := Beacon{Port: said.Port} // another one for each wire: who hears two can't tell that they are of one node
		l.c.Random(b.Random[:])
		if said.Network {
			b.forNetwork(l.c.Network, l.c.Self)
		} else {
			b.forFriends(l.c.Self, said.Friends)
		}
		raw := b.Append(nil)
		for _, w := range ways {
			if err := w.send(i, raw); err != nil {
				l.c.Log.Debug("beacon not sent", "device", i.Name, "err", err)
			}
		}
	}
	return said.Lonely
}

// listen takes what one socket receives until it is closed.
func (l *LAN) listen(w way) {
	b := make([]byte, MaxBeacon+1)
	for failures := 0; failures < maxFailures; {
		n, from, err := w.receive(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			failures++
		default:
			failures = 0
			l.hear(b[:n], from, time.Now())
		}
	}
	l.c.Log.Warn("local network is not listened to any more")
}

// hear judges one datagram, the cheap things first.
func (l *LAN) hear(b []byte, from netip.AddrPort, now time.Time) {
	f, err := ParseBeacon(b)
	if err != nil {
		return
	}
	on, ok := l.admits(from.Addr(), now)
	if !ok {
		return
	}
	k, ok := f.sender(l.c.Network, l.c.Friends())
	if !ok || k == l.c.Self {
		return
	}
	at := netip.AddrPortFrom(from.Addr(), f.Port)
	if !l.fresh(at, now) {
		return
	}
	l.c.Found(Found{Key: k, Addr: at, Interface: on})
}

// admits says whether a beacon is worth a look: from the wire of a known interface, and within the rate.
func (l *LAN) admits(from netip.Addr, now time.Time) (on Interface, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.interfaces {
		if (from.Zone() == "" || from.Zone() == i.Name) && onLink(from, i.Addrs) {
			on, ok = i, true
			break
		}
	}
	if !ok {
		return Interface{}, false
	}
	l.heardLeft = min(hearBurst, l.heardLeft+hearRate*now.Sub(l.heardAt).Seconds())
	l.heardAt = now
	if l.heardLeft < 1 {
		return Interface{}, false
	}
	l.heardLeft--
	return on, true
}

// fresh reports whether an address was not reported lately.
func (l *LAN) fresh(at netip.AddrPort, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if last, ok := l.reported[at]; ok && now.Sub(last) < foundPause {
		return false
	}
	if len(l.reported) >= maxHeard {
		for a, last := range l.reported {
			if now.Sub(last) >= foundPause {
				delete(l.reported, a)
			}
		}
	}
	if len(l.reported) >= maxHeard {
		return false
	}
	l.reported[at] = now
	return true
}

// listenOn opens the port for a group: on every address, and others may have the port as well.
func listenOn(network string, group netip.Addr, port int) (*net.UDPConn, netip.AddrPort, error) {
	at := netip.AddrPortFrom(group, uint16(port))
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, at, fmt.Errorf("listen %s: %w", at, err)
	}
	return c, at, nil
}

// receive is what one socket has to say.
func receive(c *net.UDPConn, b []byte) (n int, from netip.AddrPort, err error) {
	n, from, err = c.ReadFromUDPAddrPort(b)
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
}

// has reports whether an interface has an address of a family: there is nothing to send from without one.
func (i Interface) has(v4 bool) bool {
	for _, a := range i.Addrs {
		if a.Addr().Is4() == v4 {
			return true
		}
	}
	return false
}
