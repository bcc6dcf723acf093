// Package portmap has the gateways of this box map a UDP port to the outside: by PCP (RFC 6887), by NAT-PMP (RFC 6886) or by UPnP, whichever
// a gateway speaks. By PCP it also opens the port in an IPv6 gateway's firewall.
//
// It finds no gateways (mesh/link/watch does) and judges no address: what it reports is a candidate.
//
// Rules: an answer counts only from the gateway that was asked, and with our nonce where the protocol has one. A mapping is renewed
// when half its lifetime is over, at once when the gateway says that it restarted or the network changed, and removed at the end. Nothing is
// reported whose outside address is no public one.
package portmap

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"
)

// Times and limits.
const (
	maxGateways = 4
	// lifetime is asked for: short enough that what a crash leaves behind goes soon, long enough to cost nothing.
	lifetime     = 30 * time.Minute
	leastRenewal = 15 * time.Second
	// mostLifetime is believed of an answer.
	mostLifetime = 24 * time.Hour
	retryFirst   = 15 * time.Second // after a failure, doubling
	retryMost    = 30 * time.Minute
	// pokeGap is the least time between two renewals because of announcements, which anybody on the LAN can forge.
	pokeGap = 10 * time.Second
	// farewell bounds the removal of the mappings at the end.
	farewell = time.Second
)

// Gateway is where to ask: its address, and ours towards it.
type Gateway struct {
	Addr, Local netip.Addr
}

// Mapping is a port that a gateway mapped.
type Mapping struct {
	Gateway  netip.Addr
	Way      string         // "pcp", "nat-pmp" or "upnp"
	External netip.AddrPort // reaches us from outside
	Lifetime time.Duration
}

// Config says what to map.
type Config struct {
	Port    uint16          // of ours
	Changed func([]Mapping) // called from Run's goroutine with all that stand; the slice is the callee's
	Log     *slog.Logger
}

// Mapper keeps a port mapped.
type Mapper struct {
	c       Config
	news    chan []Gateway // capacity 1: the newest
	pokes   chan netip.Addr
	clients []*client
	start   time.Time
}

// New makes a mapper; nothing runs before Run.
func New(c Config) (*Mapper, error) {
	if c.Port == 0 || c.Changed == nil {
		return nil, errors.New("portmap: a port and somebody to tell are needed")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Mapper{c: c, news: make(chan []Gateway, 1), pokes: make(chan netip.Addr, maxGateways), start: time.Now()}, nil
}

// Update says which gateways there are; only the newest counts. It never blocks.
func (m *Mapper) Update(all []Gateway) {
	for {
		select {
		case m.news <- all:
			return
		default:
		}
		select {
		case <-m.news:
		default:
		}
	}
}

// way is one protocol.
type way struct {
	name  string
	grant func(ctx context.Context, c *client, wish netip.AddrPort, life time.Duration) (netip.AddrPort, time.Duration, error)
}

// client is one gateway.
type client struct {
	Gateway
	port    uint16
	nonce   [12]byte
	epoch   epoch
	mapper  *Mapper
	way     *way // that worked last; nil: none yet
	mapping Mapping
	until   time.Duration // of the mapping; 0: there is none
	next    time.Duration
	poked   time.Duration
	fails   int
	trouble string // the last one logged
	upnp    any    // what UPnP found out of the gateway
}

func (m *Mapper) now() time.Duration { return time.Since(m.start) }

// Run maps until ctx ends, then removes what it mapped.
func (m *Mapper) Run(ctx context.Context) error {
	ears := make(chan struct{})
	go func() { defer close(ears); m.hear(ctx) }()
	defer func() { <-ears }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.leave()
			return nil
		case all := <-m.news:
			m.adopt(all)
		case from := <-m.pokes:
			m.poke(from)
		case <-timer.C:
		}
		next := m.now() + retryMost
		for _, c := range m.clients {
			if now := m.now(); now >= c.next && ctx.Err() == nil {
				c.renew(ctx)
			}
			next = min(next, c.next)
		}
		timer.Reset(max(0, next-m.now()))
	}
}

// adopt takes the gateways of this moment. What others mapped is out of reach, and ends by itself.
func (m *Mapper) adopt(all []Gateway) {
	all = all[:min(len(all), maxGateways)]
	var kept []*client
	lost := false
	for _, c := range m.clients {
		if slices.Contains(all, c.Gateway) {
			c.next, c.fails = 0, 0 // the same network, or one that looks like it
			kept = append(kept, c)
			continue
		}
		lost = lost || c.until != 0
	}
	for _, g := range all {
		if !slices.ContainsFunc(kept, func(c *client) bool { return c.Gateway == g }) {
			c := &client{Gateway: g, port: m.c.Port, mapper: m}
			_, _ = rand.Read(c.nonce[:])
			kept = append(kept, c)
		}
	}
	m.clients = kept
	if lost {
		m.tell()
	}
}

// poke renews because a gateway announced something.
func (m *Mapper) poke(from netip.Addr) {
	for _, c := range m.clients {
		if now := m.now(); c.Addr == from && (c.poked == 0 || now-c.poked >= pokeGap) {
			c.poked, c.next, c.fails = now, 0, 0
		}
	}
}

func (m *Mapper) tell() {
	var all []Mapping
	for _, c := range m.clients {
		if c.until != 0 {
			all = append(all, c.mapping)
		}
	}
	m.c.Changed(all)
}

// leave removes what stands.
func (m *Mapper) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	for _, c := range m.clients {
		if c.until == 0 {
			continue
		}
		if _, _, err := c.way.grant(ctx, c, netip.AddrPort{}, 0); err != nil {
			m.c.Log.Debug("port mapping not removed", "addr", c.mapping.External, "err", err)
		}
	}
}

// renew asks for the mapping: first in the way that worked last.
func (c *client) renew(ctx context.Context) {
	m := c.mapper
	var problems []error
	for _, w := range c.ways() {
		at, life, err := w.grant(ctx, c, c.mapping.External, lifetime)
		if err == nil {
			err = usable(at)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", w.name, err))
			continue
		}
		c.granted(w, at, life)
		return
	}
	now := m.now()
	c.next = now + min(retryFirst<<min(c.fails, 8), retryMost)
	c.fails++
	if err := errors.Join(problems...); err.Error() != c.trouble {
		c.trouble = err.Error()
		m.c.Log.Info("no port mapping", "addr", c.Addr, "err", err)
	}
	if c.until == 0 {
		return
	}
	if c.next = min(c.next, now+max((c.until-now)/2, leastRenewal)); now >= c.until {
		c.until = 0
		m.tell()
	}
}

// granted notes a mapping, and tells if it is another one.
func (c *client) granted(w *way, at netip.AddrPort, life time.Duration) {
	m := c.mapper
	life = min(life, mostLifetime)
	now := m.now()
	news := c.until == 0 || c.mapping.External != at
	c.way, c.fails, c.trouble = w, 0, ""
	c.mapping = Mapping{Gateway: c.Addr, Way: w.name, External: at, Lifetime: life}
	c.until, c.next = now+life, now+max(life/2, leastRenewal)
	if news {
		m.c.Log.Info("port mapped", "addr", at, "type", w.name)
		m.tell()
	}
}

// ways are the protocols to try.
func (c *client) ways() []*way {
	all := []*way{{"pcp", pcpGrant}}
	if c.Addr.Is4() {
		all = append(all, &way{"nat-pmp", natPMPGrant}, &way{"upnp", upnpGrant})
	}
	for i, w := range all {
		if c.way != nil && w.name == c.way.name {
			all[0], all[i] = all[i], all[0]
		}
	}
	return all
}

// usable tells whether somebody outside could use an address.
func usable(at netip.AddrPort) error {
	a := at.Addr()
	shared := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64}), 10)
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is4() && shared.Contains(a) || at.Port() == 0 {
		return fmt.Errorf("%w: it offers %v", ErrInside, at)
	}
	return nil
}
