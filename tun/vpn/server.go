package vpn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/tun/dns"
	"skywire/tun/netcfg"
)

// maxClients bounds the streams, and with them the goroutines and the policy, of one server.
const maxClients = 1024

// keepOpenEvery bounds how long a reload of the box's firewall (fw4, ufw) keeps clients out.
const keepOpenEvery = 15 * time.Second

// server is the state of the server role. Its methods are called from several goroutines.
type server struct {
	a     *App
	c     *ServerConfig
	ipv6  bool
	exit  []netip.Prefix // what a client with exit may reach
	names *dns.Server    // for clients of the exit; nil: none

	mu      sync.Mutex // guards the fields below, and that policies reach the node in order
	leases  *leases
	clients map[key.Public]*member
}

// member is one client that is on-line.
type member struct {
	ipv4    netip.Addr
	exit    bool
	since   time.Time
	streams int // a client that reconnects has two for a moment
}

// meta is what the service's record says to those who look for a server.
func (s *ServerConfig) meta() string {
	var words []string
	if s.Exit {
		words = append(words, "exit")
	}
	if n := len(s.Subnets); n > 0 {
		words = append(words, fmt.Sprintf("subnets=%d", n))
	}
	return strings.Join(words, " ")
}

func (s *ServerConfig) allows(k key.Public) bool {
	return slices.Contains(s.Allow, "*") || slices.ContainsFunc(s.Allow, func(a string) bool {
		p, err := key.Parse(a)
		return err == nil && p == k
	})
}

// refused is what the exit does not include.
func (s *ServerConfig) refused() []netip.Prefix {
	if s.AllowPrivate {
		return special()
	}
	return append(special(), private()...)
}

// openServer prepares the box for the server role.
func (a *App) openServer() (*server, error) {
	s := &server{a: a, c: a.c.Server, clients: map[key.Public]*member{}}
	if err := s.open(); err != nil {
		return nil, err
	}
	if len(s.c.Allow) == 0 {
		a.log.Warn("nobody may use this server: no key is allowed")
	}
	return s, nil
}

// run plays the server role.
func (s *server) run(ctx context.Context) error {
	a := s.a
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { a.keepOpen(ctx) })
	all.Go(func() { a.serveExitNames(ctx, s.names) })
	slots := make(chan struct{}, maxClients)
	for {
		in, err := a.node.Accept(ctx, Service)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("wait for clients: %w", err)
		}
		select {
		case slots <- struct{}{}:
			all.Go(func() {
				defer func() { <-slots }()
				s.client(ctx, in)
			})
		default:
			_ = in.Refuse(signal.ErrBusy.Name, "this server has all the clients it takes") // the client is gone then
		}
	}
}

// keepOpen looks now and then whether another program has loaded its firewall anew.
func (a *App) keepOpen(ctx context.Context) {
	for pause(ctx, keepOpenEvery) {
		a.mu.Lock()
		err := a.net.KeepOpen(groupServer)
		a.mu.Unlock()
		if err != nil {
			a.log.Warn("other programs' firewall not looked at", "err", err)
		}
	}
}

// open prepares the box: own address, forwarding, firewall.
func (s *server) open() error {
	a := s.a
	var err error
	if s.leases, err = openLeases(filepath.Join(a.c.State, "vpn-leases.json"), s.c.Pool, a.node.Self().Key); err != nil {
		return err
	}
	if s.c.Exit {
		if err := s.openExit(); err != nil {
			return err
		}
	}
	self := a.node.Self()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.net.Address(groupServer, host(s.leases.self)); err != nil {
		return err
	}
	if err := a.net.Forwarding(groupServer); err != nil {
		return err
	}
	// Answers to clients leave by the device; what is not leased is refused by the node.
	if err := a.net.Route(groupServer, netcfg.Route{Prefix: s.c.Pool, Source: s.leases.self}); err != nil {
		return err
	}
	a.firewall.Gateway = &netcfg.Gateway{
		Sources: []netip.Prefix{self.Prefix, s.c.Pool},
		Local:   []netip.Prefix{host(self.Address), host(s.leases.self)},
		Subnets: s.c.Subnets, Exit: s.c.Exit, Refused: s.c.refused(), NAT: !s.c.NoNAT,
	}
	if err := a.net.Firewall(groupServer, a.firewall); err != nil {
		return err
	}
	a.status.Server = &ServerStatus{
		IPv4: s.leases.self, Exit: s.c.Exit, IPv6: s.ipv6, NAT: !s.c.NoNAT,
		Subnets: append([]netip.Prefix{}, s.c.Subnets...), Clients: []LeaseStatus{},
	}
	if s.c.Exit {
		s.names = a.exitResolver(s.leases.self)
	}
	a.log.Info("server up", "address", s.leases.self, "exit", s.c.Exit, "ipv6", s.ipv6, "subnets", len(s.c.Subnets))
	return nil
}

func (s *server) openExit() error {
	v4, err := netcfg.HasDefault(false)
	if err != nil {
		return err
	}
	v6, err := netcfg.HasDefault(true)
	if err != nil {
		return err
	}
	if !v4 && !v6 {
		s.a.log.Warn("this box has no default route: an exit leads nowhere yet")
	}
	s.ipv6 = v6 && !s.c.NoNAT // mesh addresses mean nothing outside
	s.exit = subtract(everything4(), s.c.refused())
	if s.ipv6 {
		s.exit = append(s.exit, subtract(everything6(), s.c.refused())...)
	}
	return nil
}

// client serves one stream: a client and its lease.
func (s *server) client(ctx context.Context, in Incoming) {
	log := s.a.log.With("peer", in.Peer.Short())
	req, err := ParseRequest(in.Header)
	if err != nil {
		log.Warn("request refused", "err", err)
		_ = in.Refuse(signal.ErrUsage.Name, err.Error())
		return
	}
	if !s.c.allows(in.Peer) {
		log.Warn("client refused: not allowed")
		_ = in.Refuse(signal.ErrRefused.Name, "this vpn server does not allow your key")
		return
	}
	reply, err := s.join(ctx, in.Peer, req)
	if err != nil {
		log.Error("client refused", "err", err)
		_ = in.Refuse(signal.ErrInternal.Name, "the server cannot take clients now: "+err.Error())
		return
	}
	defer s.leave(in.Peer)
	stream, err := in.Accept(reply)
	if err != nil {
		log.Warn("client went before the answer", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	log.Info("client joined", "exit", req.Exit && s.c.Exit)
	_, err = io.Copy(io.Discard, stream) // the open stream is the lease
	stop()
	stream.Close()
	log.Info("client left", "err", err)
}

// join leases an address and lets the client's packets through.
func (s *server) join(ctx context.Context, k key.Public, r Request) (reply []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ipv4, err := s.leases.lease(k)
	if err != nil {
		return nil, err
	}
	exit := r.Exit && s.c.Exit
	a := Answer{
		Version: Version, IPv4: ipv4, Gateway: s.leases.self, Exit: exit, IPv6: exit && s.ipv6,
		Subnets: s.c.Subnets, MTU: s.a.c.MTU,
	}
	if exit && s.names != nil {
		a.DNS = []netip.Addr{s.leases.self}
	}
	reply, err = a.Append(nil)
	if err == nil && (len(reply) > app.MaxHeader || len(a.Subnets) > maxSubnets) {
		err = errors.New("too many subnets for one answer")
	}
	if err != nil {
		return nil, err
	}
	m := s.clients[k]
	if m == nil {
		m = &member{ipv4: ipv4, since: time.Now()}
		s.clients[k] = m
	}
	m.exit = exit
	m.streams++
	if err := s.tell(ctx); err != nil {
		s.dropLocked(k)
		return nil, err
	}
	return reply, nil
}

func (s *server) leave(k key.Public) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(k)
	// The node may be away; it learns the policy of the next change, or all of it when it comes back.
	if err := s.tell(context.Background()); err != nil {
		s.a.log.Debug("policy not told", "err", err)
	}
}

func (s *server) dropLocked(k key.Public) {
	m := s.clients[k]
	if m.streams--; m.streams == 0 {
		delete(s.clients, k)
	}
}

// tell gives the node the policy for all clients. The caller holds mu.
func (s *server) tell(ctx context.Context) error {
	var p app.Policy
	list := []LeaseStatus{}
	for k, m := range s.clients {
		rule := app.Rule{Prefix: host(m.ipv4), Key: k}
		p.Routes = append(p.Routes, rule)
		p.Grants = append(p.Grants, rule)
		p.Serve = append(p.Serve, app.Rule{Prefix: host(s.leases.self), Key: k})
		for _, n := range s.c.Subnets {
			p.Serve = append(p.Serve, app.Rule{Prefix: n, Key: k})
		}
		if m.exit {
			for _, n := range s.exit {
				p.Serve = append(p.Serve, app.Rule{Prefix: n, Key: k})
			}
		}
		list = append(list, LeaseStatus{Key: k.String(), IPv4: m.ipv4, Exit: m.exit, Since: m.since})
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].IPv4.Less(list[j].IPv4) })
	s.a.update(func(st *Status) { st.Server.Clients = list })
	return s.a.setPolicy(ctx, asServer, p)
}
