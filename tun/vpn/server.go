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

// keepOpenEvery bounds how long a reload of the box's firewall (fw4, ufw) keeps clients out, and how long a network that
// this box has got anew is open to the clients of an exit.
const keepOpenEvery = 15 * time.Second

// server is the state of the server role. Its methods are called from several goroutines.
type server struct {
	a     *App
	c     *ServerConfig
	names *dns.Server // for clients of the exit; nil: none

	mu      sync.Mutex // guards the fields below, and that policies reach the node in order; taken before App.mu
	leases  *leases
	books   *books
	clients map[key.Public]*member
	ipv6    bool
	lan     []netip.Prefix // networks that this box serves itself
	exit    []netip.Prefix // what a client with exit may reach
}

// member is one client that is on-line.
type member struct {
	name  string
	ipv4  netip.Addr
	ipv6  netip.Addr // its mesh address, if that goes out by the exit
	grant grant
	asked bool // it wants the exit
	since time.Time
	ends  map[*context.CancelFunc]bool // of its streams: one that reconnects has two for a moment

	used             netcfg.Usage
	countedAt        time.Time
	upRate, downRate float64 // bits a second
}

func (m *member) exit() bool { return m.asked && m.grant.exit }

// openServer prepares the box for the server role.
func (a *App) openServer() (*server, error) {
	s := &server{a: a, c: a.c.Server, clients: map[key.Public]*member{}}
	if err := s.open(); err != nil {
		return nil, err
	}
	if len(s.c.words()) == 0 {
		a.log.Warn("nobody may use this server: no key is allowed")
	}
	return s, nil
}

// run plays the server role.
func (s *server) run(ctx context.Context) error {
	a := s.a
	var all sync.WaitGroup
	defer s.close()
	defer all.Wait()
	all.Go(func() { s.keepOpen(ctx) })
	all.Go(func() { a.serveExitNames(ctx, s.names) })
	all.Go(func() { s.keepBooks(ctx) })
	all.Go(func() { a.followMembers(ctx, s.recheck) })
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

// close writes the books.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.books.save(time.Now(), true); err != nil {
		s.a.log.Warn("usage not written", "err", err)
	}
}

// keepOpen looks now and then whether another program has loaded its firewall anew, or the box is on other networks.
func (s *server) keepOpen(ctx context.Context) {
	for pause(ctx, keepOpenEvery) {
		s.a.mu.Lock()
		err := s.a.net.KeepOpen(groupServer)
		s.a.mu.Unlock()
		if err != nil {
			s.a.log.Warn("other programs' firewall not looked at", "err", err)
		}
		if err := s.keepLAN(ctx); err != nil {
			s.a.log.Warn("networks of this box not looked at: an exit may lead to new ones", "err", err)
		}
	}
}

// keepLAN closes the exit to networks that this box has got since.
func (s *server) keepLAN(ctx context.Context) error {
	if !s.c.Exit {
		return nil
	}
	lan, err := netcfg.ServedPrefixes(s.a.c.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || slices.Equal(lan, s.lan) {
		return err
	}
	s.lan = lan
	if err := s.readExit(); err != nil {
		return err
	}
	if err := s.firewall(); err != nil {
		return err
	}
	return s.tell(ctx)
}

// keepBooks counts what clients use.
func (s *server) keepBooks(ctx context.Context) {
	for pause(ctx, countEvery) {
		if err := s.account(time.Now()); err != nil {
			s.a.log.Warn("usage of clients not counted", "err", err)
		}
	}
}

func (s *server) account(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 && !s.books.dirty {
		return nil
	}
	if err := s.count(); err != nil {
		return err
	}
	if s.books.turn(now) {
		s.a.log.Info("quotas begin anew")
		for k, m := range s.clients {
			if err := s.setClient(k, m); err != nil {
				return err
			}
		}
	}
	s.show()
	return s.books.save(now, false)
}

// open prepares the box: own address, forwarding, firewall.
func (s *server) open() error {
	a := s.a
	var err error
	if s.leases, err = openLeases(filepath.Join(a.c.State, "vpn-leases.json"), s.c.Pool, a.node.Self().Key); err != nil {
		return err
	}
	if want := a.certified(); s.c.Pool.Contains(want) {
		if s.leases.self, err = s.leases.lease(a.node.Self().Key, want, nil); err != nil {
			return err
		}
	}
	if s.books, err = openBooks(filepath.Join(a.c.State, "vpn-usage.json"), s.c.Limit, time.Now()); err != nil {
		return err
	}
	if s.c.Exit {
		if s.lan, err = netcfg.ServedPrefixes(a.c.Device); err != nil {
			return err
		}
		if err := s.readExit(); err != nil {
			return err
		}
	}
	if err := s.openNet(); err != nil {
		return err
	}
	if err := s.firewall(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.status.Server = &ServerStatus{
		IPv4: s.leases.self, Exit: s.c.Exit, IPv6: s.ipv6, NAT: !s.c.NoNAT, Peers: s.c.Peers,
		Subnets: s.c.prefixes(), Clients: []LeaseStatus{},
	}
	if s.c.Exit {
		s.names = a.exitResolver(s.leases.self)
	}
	a.log.Info("server up", "address", s.leases.self, "exit", s.c.Exit, "ipv6", s.ipv6, "subnets", len(s.c.Subnets))
	return nil
}

func (s *server) openNet() error {
	a := s.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.net.Address(groupServer, host(s.leases.self)); err != nil {
		return err
	}
	if err := a.net.Forwarding(groupServer); err != nil {
		return err
	}
	// Answers to clients leave by the device; what is not leased is refused by the node.
	return a.net.Route(groupServer, netcfg.Route{Prefix: s.c.Pool, Source: s.leases.self})
}

// firewall makes the gateway's table of what holds now.
func (s *server) firewall() error {
	a := s.a
	self := a.node.Self()
	a.mu.Lock()
	defer a.mu.Unlock()
	g := &netcfg.Gateway{
		Sources: []netip.Prefix{self.Prefix, s.c.Pool}, Gateway: []netip.Prefix{host(s.leases.self)},
		Refused: s.c.refused(s.lan), NAT: !s.c.NoNAT,
	}
	if s.c.Closed {
		g.Gateway = append(g.Gateway, host(self.Address))
	} else {
		g.Local = []netip.Prefix{host(self.Address)}
		g.Subnets = s.c.prefixes()
	}
	a.firewall.Gateway = g
	return a.net.Firewall(groupServer, a.firewall)
}

// readExit says what the exit leads to.
func (s *server) readExit() error {
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
	refused := s.c.refused(s.lan)
	s.exit = subtract(everything4(), refused)
	if s.ipv6 {
		s.exit = append(s.exit, subtract(everything6(), refused)...)
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
	id, err := s.a.node.Whois(ctx, in.Peer.String())
	if err != nil {
		log.Warn("client refused", "err", err)
		_ = in.Refuse(signal.ErrInternal.Name, "the server cannot take clients now: "+err.Error())
		return
	}
	g := s.c.grantTo(id)
	if g.nothing() {
		log.Warn("client refused: not allowed")
		_ = in.Refuse(signal.ErrRefused.Name, "this vpn server does not allow your key")
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	reply, err := s.join(ctx, id, req, g, &cancel)
	if err != nil {
		log.Error("client refused", "err", err)
		_ = in.Refuse(signal.ErrInternal.Name, "the server cannot take clients now: "+err.Error())
		return
	}
	defer s.leave(in.Peer, &cancel)
	stream, err := in.Accept(reply)
	if err != nil {
		log.Warn("client went before the answer", "err", err)
		return
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	log.Info("client joined", "exit", req.Exit && g.exit, "subnets", len(g.subnets))
	_, err = io.Copy(io.Discard, stream) // the open stream is the lease
	stop()
	stream.Close()
	log.Info("client left", "err", err)
}

// join leases an address and lets the client's packets through. end ends the stream that is the lease.
func (s *server) join(ctx context.Context, id app.Identity, r Request, g grant, end *context.CancelFunc) (reply []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := id.Key
	ipv4, err := s.leases.lease(k, id.IPv4, func(a netip.Addr) bool { return s.taken(ctx, k, a) })
	if err != nil {
		return nil, err
	}
	m := s.clients[k]
	if m == nil {
		m = &member{since: time.Now(), ends: map[*context.CancelFunc]bool{}}
	} else if err := s.count(); err != nil { // the counters begin anew
		return nil, err
	} else if m.ipv4 != ipv4 {
		s.cut(m)
	}
	m.name, m.ipv4, m.grant, m.asked = id.Name, ipv4, g, r.Exit
	m.ipv6 = netip.Addr{}
	if s.ipv6 || slices.ContainsFunc(g.subnets, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		m.ipv6 = id.Address
	}
	if reply, err = s.answer(k, m); err != nil {
		return nil, err
	}
	m.ends[end] = true
	s.clients[k] = m
	if err = s.setClient(k, m); err == nil {
		err = s.tell(ctx)
	}
	if err != nil {
		s.dropLocked(k, end)
		return nil, err
	}
	return reply, nil
}

// taken tells whether an address that hashing came to is some other member's by its certificate.
func (s *server) taken(ctx context.Context, k key.Public, a netip.Addr) bool {
	id, err := s.a.node.Whois(ctx, a.String())
	return err == nil && !id.Via && id.Key != k
}

func (s *server) answer(k key.Public, m *member) ([]byte, error) {
	a := Answer{
		Version: Version, IPv4: m.ipv4, Gateway: s.leases.self, Exit: m.exit(), IPv6: m.exit() && s.ipv6,
		Subnets: m.grant.subnets, MTU: s.a.c.MTU, UpRate: s.c.Limit.Up * 8, DownRate: s.c.Limit.Down * 8,
	}
	if m.exit() && s.names != nil {
		a.DNS = []netip.Addr{s.leases.self}
	}
	if left, ok := s.books.left(k); ok {
		a.QuotaLeft = &left
	}
	if m.grant.peers { // a network like any other, which clients have to accept
		a.Subnets = append(slices.Clone(a.Subnets), s.c.Pool)
	}
	reply, err := a.Append(nil)
	if err == nil && len(reply) > app.MaxHeader {
		err = errors.New("too many subnets for one answer")
	}
	return reply, err
}

func (s *server) setClient(k key.Public, m *member) error {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	return s.a.net.SetClient(s.netClient(k, m))
}

// cut takes a client's packets out of the kernel's table, the connections it has included.
func (s *server) cut(m *member) {
	s.a.mu.Lock()
	defer s.a.mu.Unlock()
	if err := s.a.net.DropClient(m.ipv4); err != nil {
		s.a.log.Warn("client not taken out of the firewall; the node drops its packets", "addr", m.ipv4, "err", err)
	}
}

func (s *server) leave(k key.Public, end *context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(k, end)
	// The node may be away; it learns the policy of the next change, or all of it when it comes back.
	if err := s.tell(context.Background()); err != nil {
		s.a.log.Debug("policy not told", "err", err)
	}
}

func (s *server) dropLocked(k key.Public, end *context.CancelFunc) {
	m := s.clients[k]
	if delete(m.ends, end); len(m.ends) > 0 {
		return
	}
	if err := s.count(); err != nil {
		s.a.log.Warn("usage of client not counted", "peer", k.Short(), "err", err)
	}
	delete(s.clients, k)
	s.cut(m)
}

// recheck ends the leases of those who are granted something else than they have: what they get now they are told when
// they come again. Ended before the stream is: what the node and the kernel let through.
func (s *server) recheck(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for k, m := range s.clients {
		id, err := s.a.node.Whois(ctx, k.String())
		if err != nil {
			s.a.log.Debug("standing of client not known", "peer", k.Short(), "err", err)
			continue
		}
		g := s.c.grantTo(id)
		if g.same(m.grant) && (!id.IPv4.IsValid() || id.IPv4 == m.ipv4 || !s.c.Pool.Contains(id.IPv4)) {
			continue
		}
		s.a.log.Info("lease ended: other rights", "peer", k.Short())
		if m.grant = g; g.nothing() {
			s.cut(m)
		}
		for end := range m.ends {
			(*end)()
		}
		changed = true
	}
	if changed {
		if err := s.tell(ctx); err != nil {
			s.a.log.Warn("policy not told", "err", err)
		}
	}
}

// tell gives the node the policy for all clients. The caller holds mu.
func (s *server) tell(ctx context.Context) error {
	var p app.Policy
	for k, m := range s.clients {
		if m.grant.nothing() {
			continue // until its streams have ended
		}
		rule := app.Rule{Prefix: host(m.ipv4), Key: k}
		serve := func(prefixes ...netip.Prefix) {
			for _, n := range prefixes {
				p.Serve = append(p.Serve, app.Rule{Prefix: n, Key: k})
			}
		}
		p.Routes = append(p.Routes, rule)
		p.Grants = append(p.Grants, rule)
		serve(host(s.leases.self))
		serve(m.grant.subnets...)
		if m.exit() {
			serve(s.exit...)
		}
		if m.grant.peers {
			serve(s.c.Pool)
		}
	}
	s.show()
	return s.a.setPolicy(ctx, asServer, p)
}

// show puts the clients into the status.
func (s *server) show() {
	list := []LeaseStatus{}
	for k, m := range s.clients {
		l := LeaseStatus{
			Key: k.String(), Name: m.name, IPv4: m.ipv4, Exit: m.exit(), Subnets: m.grant.subnets, Since: m.since,
			UpBytes: s.used(k).Up, DownBytes: s.used(k).Down, UpRate: m.upRate, DownRate: m.downRate,
		}
		if left, ok := s.books.left(k); ok {
			l.QuotaLeft = &left
		}
		list = append(list, l)
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].IPv4.Less(list[j].IPv4) })
	quota := &QuotaStatus{Bytes: s.c.Limit.Quota, Period: string(s.c.Limit.Period), Since: s.books.file.Start, Until: s.c.Limit.Period.next(s.books.file.Start)}
	if s.c.Limit.Quota == 0 {
		quota = nil
	}
	s.a.update(func(st *Status) {
		st.Server.IPv6, st.Server.Clients, st.Server.Quota = s.ipv6, list, quota
		st.Server.UpLimit, st.Server.DownLimit = s.c.Limit.Up*8, s.c.Limit.Down*8
	})
}
