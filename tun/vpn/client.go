package vpn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/tun/netcfg"
)

// Times of the client role.
const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 10 * time.Second
	dialWithin = 20 * time.Second // a path may have to be found first

	probeEvery  = 5 * time.Second
	probeAgain  = time.Second // after one that did not come back
	probeWithin = 3 * time.Second
	probeTries  = 10 // until the first comes back
	silentAfter = 3  // probes lost in a row
)

// client is the state of the client role; one goroutine runs it.
type client struct {
	a *App
	c *ClientConfig

	server  key.Public
	answer  Answer // what is applied to the box; zero: nothing
	subnets []netip.Prefix
	exited  bool // the default routes stand
}

// use plays the client role: it connects, keeps the lease, and connects again. A refusal by the first server that
// answers ends the App; later ones, and everything else, are tried again, with the routes left as they are.
func (a *App) use(ctx context.Context) error {
	c := &client{a: a, c: a.c.Client}
	a.update(func(s *Status) {
		s.Client = &ClientStatus{Server: c.c.Server, Subnets: []netip.Prefix{}}
	})
	wait := retryFirst
	for ctx.Err() == nil {
		a.update(func(s *Status) { s.State = Connecting })
		began := time.Now()
		err := c.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if final(err, c.answer.Version != 0) {
			return err
		}
		if time.Since(began) > retryMost {
			wait = retryFirst
		}
		a.log.Warn("not connected", "err", err, "retry_ms", wait.Milliseconds())
		a.update(func(s *Status) { s.Client.Error = err.Error() })
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, retryMost)
	}
	return nil
}

// final reports whether trying again is pointless: the first answer was a refusal, or this box cannot do it.
func final(err error, was bool) bool {
	if errors.Is(err, signal.ErrRefused) || errors.Is(err, ErrRefused) || errors.Is(err, ErrProtocol) {
		return !was
	}
	return errors.Is(err, netcfg.ErrNoRights) || errors.Is(err, errBox)
}

// errBox marks errors of this box's network, which trying again does not cure.
var errBox = errors.New("this box")

// session runs from the question to the end of the lease, and always ends with an error.
func (c *client) session(ctx context.Context) error {
	server, err := c.find(ctx)
	if err != nil {
		return err
	}
	stream, answer, err := c.ask(ctx, server)
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := c.apply(ctx, server, answer); err != nil {
		return err
	}
	c.a.update(func(s *Status) { s.State = Probing })
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	ended := make(chan struct{})
	go func() { // ends when the stream is closed, which the defers above see to; awaited below
		defer close(ended)
		_, err := io.Copy(io.Discard, stream)
		if err == nil {
			err = io.EOF
		}
		cancel(fmt.Errorf("the stream to the server ended: %w", err))
	}()
	err = c.hold(ctx)
	cancel(err)
	stream.Close()
	<-ended
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// find says which server to use.
func (c *client) find(ctx context.Context) (key.Public, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	if c.c.Server != "auto" {
		k, err := c.a.node.Resolve(ctx, c.c.Server)
		if err != nil {
			return k, fmt.Errorf("server %s: %w", c.c.Server, err)
		}
		return k, nil
	}
	list, err := c.a.node.Services(ctx, Service)
	if err != nil {
		return key.Public{}, fmt.Errorf("look for servers: %w", err)
	}
	self := c.a.node.Self().Key
	list = slices.DeleteFunc(list, func(s app.Service) bool { return s.Key == self || !s.Online })
	if len(list) == 0 {
		return key.Public{}, ErrNoServer
	}
	best := slices.MinFunc(list, Nearer)
	return best.Key, nil
}

// Nearer orders services by round trip, those without one last.
func Nearer(a, b app.Service) int {
	switch {
	case a.RTT == b.RTT:
		return 0
	case a.RTT != 0 && (b.RTT == 0 || a.RTT < b.RTT):
		return -1
	}
	return 1
}

// ask opens the stream that is the lease.
func (c *client) ask(ctx context.Context, server key.Public) (io.ReadCloser, Answer, error) {
	header, err := Request{Version: Version, Exit: c.c.Exit}.Append(nil)
	if err != nil {
		return nil, Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	stream, reply, err := c.a.node.Dial(ctx, server, Service, header)
	if err != nil {
		return nil, Answer{}, err
	}
	answer, err := ParseAnswer(reply)
	if err == nil && c.c.Exit && !answer.Exit {
		err = fmt.Errorf("%s is no exit: %w", server.Short(), ErrRefused)
	}
	if err != nil {
		stream.Close()
		return nil, Answer{}, err
	}
	return stream, answer, nil
}

// apply makes the box agree with the answer. What is there already stays untouched, so that a reconnection disturbs
// nothing.
func (c *client) apply(ctx context.Context, server key.Public, a Answer) error {
	if c.answer.Version == 0 || c.server != server || !sameNetwork(c.answer, a) {
		if err := c.change(server, a); err != nil {
			return err
		}
	}
	return c.a.setPolicy(ctx, asClient, c.policy())
}

func sameNetwork(a, b Answer) bool {
	return a.IPv4 == b.IPv4 && a.Gateway == b.Gateway && a.Exit == b.Exit && a.IPv6 == b.IPv6 && slices.Equal(a.Subnets, b.Subnets)
}

// change takes the old lease's addresses and routes back and makes the new one's, all but the default routes.
func (c *client) change(server key.Public, ans Answer) error {
	a := c.a
	mesh, self := a.node.Self().Prefix, a.node.Self().Address
	local, err := netcfg.LocalPrefixes(a.c.Device)
	if err != nil {
		return fmt.Errorf("%w: own networks: %w", errBox, err)
	}
	for _, addr := range []netip.Addr{ans.IPv4, ans.Gateway} {
		if in, ok := c.intrudes(host(addr), local); ok {
			return fmt.Errorf("%w: the server leases %s from %s, but this box is on %s: let the server take another --pool", ErrProtocol, ans.IPv4, ans.Gateway, in)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	c.answer, c.subnets, c.exited = Answer{}, nil, false
	if err := a.net.Undo(groupClient); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	if a.firewall.Mark = 0; a.firewall.Gateway != nil { // the table that both roles share went with ours
		if err := a.net.Firewall(groupServer, a.firewall); err != nil {
			return fmt.Errorf("%w: %w", errBox, err)
		}
	}
	// Addresses come from keys, so a box that is a server, too, mostly has the same one already.
	if a.status.Server == nil || a.status.Server.IPv4 != ans.IPv4 {
		if err := a.net.Address(groupClient, host(ans.IPv4)); err != nil {
			return fmt.Errorf("%w: %w", errBox, err)
		}
	}
	if err := a.net.Route(groupClient, netcfg.Route{Prefix: host(ans.Gateway), Source: ans.IPv4}); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	var taken, refused []netip.Prefix
	for _, p := range ans.Subnets {
		source := ans.IPv4
		if p.Addr().Is6() {
			source = self
		}
		err := c.acceptable(p, mesh, local)
		if err == nil {
			err = a.net.Route(groupClient, netcfg.Route{Prefix: p, Source: source})
		}
		if err != nil {
			a.log.Warn("subnet not taken", "subnet", p, "err", err)
			refused = append(refused, p)
			continue
		}
		taken = append(taken, p)
	}
	c.server, c.answer, c.subnets = server, ans, taken
	*a.status.Client = ClientStatus{
		Server: server.String(), IPv4: ans.IPv4, Gateway: ans.Gateway, Exit: c.c.Exit && ans.Exit, IPv6: ans.IPv6,
		Subnets: append([]netip.Prefix{}, taken...), Refused: refused,
	}
	return nil
}

// acceptable says why a subnet that the server offers is not to be routed to it.
func (c *client) acceptable(p, mesh netip.Prefix, local []netip.Prefix) error {
	in, intrudes := c.intrudes(p, local)
	switch {
	case p.Overlaps(mesh):
		return errors.New("it is the mesh's own")
	case overlapsAny(p, c.c.Exclude):
		return errors.New("excluded with --exclude")
	case !within(p, siteLocal()) && !within(p, c.c.Accept):
		return errors.New("not a private range: accept it with --accept")
	case intrudes:
		return fmt.Errorf("it lies in %s, which this box is on: accept it with --accept", in)
	}
	return nil
}

// intrudes tells whether a route to p would take over part of a network that this box is on, such as its router or its
// resolver; a wider route takes nothing, since the closer one wins. A provider's shared range is no such network: leases
// lie in it, and nothing of this box's.
func (c *client) intrudes(p netip.Prefix, local []netip.Prefix) (netip.Prefix, bool) {
	for _, l := range local {
		if within(p, []netip.Prefix{l}) && !within(l, []netip.Prefix{DefaultPool()}) && !within(p, c.c.Accept) {
			return l, true
		}
	}
	return netip.Prefix{}, false
}

// policy is what the node may send to the server and take from it.
func (c *client) policy() app.Policy {
	var p app.Policy
	rule := func(n netip.Prefix) app.Rule { return app.Rule{Prefix: n, Key: c.server} }
	// What comes from the server may have any source of what it stands for, but none of a network this box is on itself.
	local, err := netcfg.LocalPrefixes(c.a.c.Device)
	if err != nil {
		c.a.log.Warn("own networks are not kept from the server", "err", err)
	}
	local = slices.DeleteFunc(local, func(l netip.Prefix) bool { return within(l, c.c.Accept) })
	p.Routes = append(p.Routes, rule(host(c.answer.Gateway)))
	p.Grants = append(p.Grants, rule(host(c.answer.Gateway)))
	for _, n := range c.subnets {
		p.Routes = append(p.Routes, rule(n))
		for _, s := range subtract(n, closer(n, local)) {
			p.Grants = append(p.Grants, rule(s))
		}
	}
	p.Serve = append(p.Serve, rule(host(c.answer.IPv4)))
	if !c.c.Exit || !c.answer.Exit {
		return p
	}
	local = append(local, DefaultPool())
	all := []netip.Prefix{everything4()}
	if c.answer.IPv6 {
		all = append(all, everything6())
	}
	for _, n := range all {
		p.Routes = append(p.Routes, rule(n))
		for _, s := range subtract(n, local) {
			p.Grants = append(p.Grants, rule(s))
		}
	}
	return p
}

// hold proves the way, sends everything through it if wished, and watches it until ctx ends.
func (c *client) hold(ctx context.Context) error {
	rtt, err := c.prove(ctx)
	if err != nil {
		return err
	}
	if c.c.Exit && !c.exited {
		if err := c.exit(ctx); err != nil {
			return err
		}
		c.exited = true
	}
	connected := func(s *Status) {
		if s.State != Connected {
			s.Client.Since = time.Now()
		}
		s.State, s.Client.Error, s.Client.RTT = Connected, "", float64(rtt.Microseconds())/1000
	}
	c.a.update(connected)
	lost, wait := 0, probeEvery
	for pause(ctx, wait) {
		if rtt, err = c.probe(ctx); err == nil {
			lost, wait = 0, probeEvery
			c.a.update(connected)
			continue
		}
		wait = probeAgain
		if lost++; lost == silentAfter {
			c.a.update(func(s *Status) { s.State, s.Client.Error = Silent, err.Error() })
		}
	}
	return ctx.Err()
}

// prove waits for the first probe that comes back.
func (c *client) prove(ctx context.Context) (rtt time.Duration, err error) {
	for range probeTries {
		if rtt, err = c.probe(ctx); err == nil {
			return rtt, nil
		}
		if !pause(ctx, retryFirst) {
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("no answer from the server through the tunnel: %w", err)
}

// probe sends an echo through the device to the server's address in the vpn. Where this process may not make the
// socket for it, the node's own ping has to do.
func (c *client) probe(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	rtt, err := echo(ctx, c.answer.IPv4, c.answer.Gateway)
	if errors.Is(err, errEchoRights) {
		return c.a.node.Ping(ctx, c.server)
	}
	return rtt, err
}

// exit sends everything through the tunnel, the mesh's own packets first out of it.
func (c *client) exit(ctx context.Context) error {
	a := c.a
	table, err := netcfg.FreeTable()
	if err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	a.mu.Lock()
	a.mark = table
	a.mu.Unlock()
	if err := a.markSockets(ctx); err != nil {
		return fmt.Errorf("keep the mesh's own packets out of the tunnel: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// Answers to marked packets must pass the reverse path check (rp_filter) of a box whose default is the tunnel.
	if err := a.net.Sysctl(groupClient, "ipv4/conf/all/src_valid_mark", "1"); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	a.firewall.Mark = uint32(table)
	if err := a.net.Firewall(groupClient, a.firewall); err != nil {
		a.log.Warn("strict reverse path filters will drop the mesh's own packets", "err", err)
	}
	err = a.net.Default(groupClient, netcfg.Default{
		Table: table, V4: true, V6: c.answer.IPv6, Block6: true, Exclude: c.c.Exclude,
		Source4: c.answer.IPv4, Source6: a.status.Address,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	return nil
}

// pause waits and reports whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
