package vpn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/signal"
	"skywire/tun/dns"
	"skywire/tun/netcfg"
)

// DNSConfig is what becomes of names on this box.
type DNSConfig struct {
	// Mode is dns.System, dns.Exit, dns.Off, or the addresses of resolvers; empty is off.
	Mode string
	// Strict never lets a name that is not of the mesh go to the resolvers of before: rather none resolves.
	Strict bool
	// Learned is told the addresses of names before who asked for them is.
	Learned func(name string, addrs []netip.Addr, ttl time.Duration)
}

// DNSStatus is what became of it.
type DNSStatus struct {
	Mode      string           `json:"mode"`
	Backend   string           `json:"backend"` // who answers this box's programs
	Server    netip.AddrPort   `json:"server,omitzero"`
	Zones     []string         `json:"zones,omitempty"`     // asked of Server
	Resolvers []netip.AddrPort `json:"resolvers,omitempty"` // asked by Server about other names; none: it is not asked
	Everyone  bool             `json:"all"`                 // names that are not of the mesh come to Server, too
	Asked     uint64           `json:"asked_total"`
	Failed    uint64           `json:"failed_total"`
	Error     string           `json:"error,omitempty"`
}

const (
	// namesEvery is how often the box's resolver is looked at.
	namesEvery = 5 * time.Second
	// namesPort is taken where 53 is not to be had; dnsmasq and systemd-resolved can be told so.
	namesPort = 7653
	dnsPort   = 53
)

// namesAddrs are where the name server of this box may listen: on the loopback device, so that nobody else reaches it, on
// addresses of our own (83.87 is "SW"), since dnsmasq takes every address that a device has. Several vpns on a box take the
// next.
func namesAddrs() (all []netip.AddrPort) {
	for _, port := range []uint16{dnsPort, namesPort} {
		for last := byte(53); last < 61; last++ {
			all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 83, 87, last}), port))
		}
	}
	return all
}

// ours reports whether an address is one of namesAddrs.
func ours(a netip.AddrPort) bool {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 83, 87, 0}), 24).Contains(a.Addr())
}

// meshNames asks the node.
type meshNames struct{ node Node }

func (m meshNames) Lookup(ctx context.Context, name string) (app.Names, error) {
	n, err := m.node.Lookup(ctx, name)
	return n, noName(err)
}

func (m meshNames) LookupAddr(ctx context.Context, a netip.Addr) (app.Names, error) {
	n, err := m.node.LookupAddr(ctx, a)
	return n, noName(err)
}

func noName(err error) error {
	if errors.Is(err, signal.ErrNotFound) {
		return dns.ErrNoName
	}
	return err
}

// naming is the state of the name server; one goroutine runs it, others tell it of an exit and ask how it is.
type naming struct {
	poke chan struct{} // capacity 1: something below changed

	mu     sync.Mutex // guards the fields below
	exit   []netip.AddrPort
	status DNSStatus
	server *dns.Server
}

func newNaming() *naming { return &naming{poke: make(chan struct{}, 1)} }

// dnsExit says which resolvers the exit has that stands now; none: no exit stands, or it has none. It never blocks.
func (a *App) dnsExit(resolvers []netip.Addr) {
	var all []netip.AddrPort
	for _, r := range resolvers {
		all = append(all, netip.AddrPortFrom(r, dnsPort))
	}
	n := a.naming
	n.mu.Lock()
	n.exit = all
	n.mu.Unlock()
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// dnsStatus is nil where names are not our matter.
func (a *App) dnsStatus() *DNSStatus {
	n := a.naming
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.status.Mode == "" {
		return nil
	}
	s := n.status
	if n.server != nil {
		s.Asked, s.Failed = n.server.Counts()
	}
	return &s
}

// names answers for the mesh on this box, and makes its programs ask. What goes wrong here is told and ends nothing else.
func (a *App) names(ctx context.Context) error {
	if a.c.DNS.Mode == "" {
		return nil
	}
	if err := a.runNames(ctx); err != nil && ctx.Err() == nil {
		a.log.Warn("no names", "err", err)
		n := a.naming
		n.mu.Lock()
		n.status.Mode, n.status.Error = a.c.DNS.Mode, err.Error()
		n.mu.Unlock()
	}
	return nil
}

func (a *App) runNames(ctx context.Context) (err error) {
	box, err := netcfg.OpenResolver(netcfg.Config{Dir: a.c.Run, Device: a.c.Device, Log: a.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	if a.c.DNS.Mode == dns.Off {
		return nil // what an earlier run left is gone now
	}
	server, err := dns.New(dns.Config{
		Listen: namesAddrs(), Names: meshNames{a.node}, Reverse: a.reverse(ctx), Learned: a.c.DNS.Learned, Log: a.log,
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all.Go(func() { cancel(server.Run(ctx)) })
	n := a.naming
	backend, _ := box.Backend()
	n.mu.Lock()
	n.status = DNSStatus{Mode: a.c.DNS.Mode, Backend: backend, Server: server.Addr(), Zones: server.Zones()}
	n.server = server
	n.mu.Unlock()
	a.log.Info("names up", "addr", server.Addr(), "found", backend)
	t := time.NewTicker(namesEvery)
	defer t.Stop()
	// With an exit to come the box is not told twice within a moment: dnsmasq has to be started again each time.
	for wait := a.c.DNS.Mode == dns.Exit && !a.strictNames(); ; {
		n.mu.Lock()
		wait = wait && len(n.exit) == 0
		n.mu.Unlock()
		if !wait {
			a.applyNames(box, server)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-t.C:
			wait = false
		case <-n.poke:
		}
	}
}

// reverse are the networks of which the mesh names the addresses.
func (a *App) reverse(ctx context.Context) []netip.Prefix {
	all := []netip.Prefix{a.node.Self().Prefix}
	ctx, cancel := context.WithTimeout(ctx, nodeTimeout)
	defer cancel()
	if me, err := a.node.Whois(ctx, a.node.Self().Key.String()); err == nil {
		for _, b := range me.Blocks {
			if b.Bits() > 8 { // at most 128 zones, and in truth one: blocks are of 16 bits
				all = append(all, b)
			}
		}
	}
	return all
}

// applyNames makes box and server agree with what is known now.
func (a *App) applyNames(box *netcfg.Resolver, server *dns.Server) {
	n := a.naming
	n.mu.Lock()
	exit := n.exit
	n.mu.Unlock()
	want, ask, problem := a.resolving(box, server, exit)
	server.Forward(ask)
	err := box.Set(want)
	if err == nil {
		var changed bool
		if changed, err = box.Check(); changed {
			a.log.Warn("somebody else changed the box's resolver; told it again", "device", a.c.Device)
		}
	}
	backend, why := box.Backend()
	if err != nil {
		problem = err.Error()
	} else if why != "" {
		problem = why
	}
	n.mu.Lock()
	if problem != "" && problem != n.status.Error {
		a.log.Warn("names", "reason", problem)
	}
	n.status = DNSStatus{
		Mode: a.c.DNS.Mode, Backend: backend, Server: server.Addr(), Zones: want.Zones, Resolvers: ask, Everyone: want.All || box.Whole(),
		Error: problem,
	}
	n.mu.Unlock()
}

// resolving is what the box is to ask us, and whom we ask.
func (a *App) resolving(box *netcfg.Resolver, server *dns.Server, exit []netip.AddrPort) (want netcfg.Resolving, ask []netip.AddrPort, problem string) {
	want = netcfg.Resolving{Server: server.Addr(), Zones: server.Zones()}
	c := a.c.DNS
	_, given, _ := dns.ParseMode(c.Mode) // Validate has read it
	switch {
	case len(given) > 0:
		want.All, ask = true, given
	case c.Mode == dns.Exit && len(exit) > 0:
		want.All, ask = true, exit
	case c.Mode == dns.Exit && a.strictNames():
		return netcfg.Resolving{Server: want.Server, Zones: want.Zones, All: true}, nil, "only names of the mesh resolve until the exit's resolver is there"
	case c.Mode == dns.Exit:
		problem = "no resolver of an exit yet: names go where they went before"
	}
	if !want.All && box.Whole() {
		ask = slices.DeleteFunc(netcfg.SystemResolvers(), ours)
	}
	return want, ask, problem
}

// strictNames reports that names must not go where they went before the vpn.
func (a *App) strictNames() bool {
	return a.c.DNS.Strict || a.c.Client != nil && a.c.Client.KillSwitch
}

// exitResolver opens the name server for the clients of an exit, on its address in the vpn: it hands their questions on to
// this box's own resolvers, and says nothing of the mesh, of which they ask their own node. nil: this box has none.
func (a *App) exitResolver(at netip.Addr) *dns.Server {
	resolvers := netcfg.SystemResolvers()
	if len(resolvers) == 0 {
		a.log.Warn("no resolver for clients of the exit: this box has none")
		return nil
	}
	s, err := dns.New(dns.Config{Listen: []netip.AddrPort{netip.AddrPortFrom(at, dnsPort)}, Log: a.log})
	if err != nil {
		a.log.Warn("no resolver for clients of the exit", "err", err)
		return nil
	}
	s.Forward(resolvers)
	return s
}

// serveExitNames runs what exitResolver opened, and follows the resolvers of this box.
func (a *App) serveExitNames(ctx context.Context, s *dns.Server) {
	if s == nil {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() {
		if err := s.Run(ctx); err != nil {
			a.log.Warn("resolver for clients of the exit ended", "err", err)
		}
	})
	for pause(ctx, namesEvery) {
		s.Forward(netcfg.SystemResolvers())
	}
}

// validate reads the mode.
func (c *DNSConfig) validate() error {
	if _, _, err := dns.ParseMode(c.Mode); err != nil {
		return fmt.Errorf("dns %w", err)
	}
	return nil
}
