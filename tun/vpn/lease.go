package vpn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/tun/netcfg"
)

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
	return sameBox(a, b) && a.Gateway == b.Gateway && slices.Equal(a.Subnets, b.Subnets)
}

// sameBox reports whether addresses and default routes can stay.
func sameBox(a, b Answer) bool { return a.IPv4 == b.IPv4 && a.Exit == b.Exit && a.IPv6 == b.IPv6 }

// change takes the old lease's addresses and routes back and makes the new one's, all but the default routes. These stay
// where they can; else nothing gets out until they stand anew.
func (c *client) change(server key.Public, ans Answer) error {
	a := c.a
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
	same := c.answer.Version != 0 && sameBox(c.answer, ans)
	if c.exited && !same && !c.held {
		c.held = true
		if err := a.net.Hold(groupHold, uint32(a.mark), c.c.Exclude); err != nil {
			return fmt.Errorf("%w: %w", errBox, err)
		}
	}
	if err := c.clear(same, ans); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	if err := a.net.Route(groupLease, netcfg.Route{Prefix: host(ans.Gateway), Source: ans.IPv4}); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	taken, refused := c.take(ans, local)
	c.server, c.answer, c.subnets = server, ans, taken
	s := a.status.Client
	s.Server, s.IPv4, s.Gateway, s.Exit, s.IPv6 = server.String(), ans.IPv4, ans.Gateway, c.c.Exit && ans.Exit, ans.IPv6
	s.Subnets, s.Refused, s.Since = append([]netip.Prefix{}, taken...), refused, time.Time{}
	return nil
}

// clear takes back what the new lease does not want, and gives the box its address. The caller holds the App's mu.
func (c *client) clear(same bool, ans Answer) error {
	a := c.a
	c.answer, c.subnets = Answer{}, nil
	if err := a.net.Undo(groupLease); err != nil || same {
		return err
	}
	c.exited = false
	a.dnsExit(nil)
	if err := a.net.Undo(groupClient); err != nil {
		return err
	}
	// Addresses come from keys, so a box that is a server, too, mostly has the same one already.
	if a.status.Server != nil && a.status.Server.IPv4 == ans.IPv4 {
		return nil
	}
	return a.net.Address(groupClient, host(ans.IPv4))
}

// take makes the routes to the server's subnets. The caller holds the App's mu.
func (c *client) take(ans Answer, local []netip.Prefix) (taken, refused []netip.Prefix) {
	a := c.a
	self := a.node.Self()
	for _, p := range ans.Subnets {
		source := ans.IPv4
		if p.Addr().Is6() {
			source = self.Address
		}
		err := c.acceptable(p, self.Prefix, local)
		if err == nil {
			err = a.net.Route(groupLease, netcfg.Route{Prefix: p, Source: source})
		}
		if err != nil {
			a.log.Warn("subnet not taken", "subnet", p, "err", err)
			refused = append(refused, p)
			continue
		}
		taken = append(taken, p)
	}
	return taken, refused
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
	if err := a.relock(uint32(table)); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	if err := a.markSockets(ctx); err != nil {
		return fmt.Errorf("keep the mesh's own packets out of the tunnel: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// Answers to marked packets must pass the reverse path check (rp_filter) of a box whose default is the tunnel.
	if err := a.net.Sysctl(groupExit, "ipv4/conf/all/src_valid_mark", "1"); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	if a.firewall.Mark != uint32(table) {
		a.firewall.Mark = uint32(table)
		if err := a.net.Firewall(groupExit, a.firewall); err != nil {
			a.log.Warn("strict reverse path filters will drop the mesh's own packets", "err", err)
		}
	}
	// Both families are held until both stand: IPv6 would pass outside while IPv4 goes through the tunnel already.
	if !c.held {
		if err := a.net.Hold(groupHold, uint32(table), c.c.Exclude); err != nil {
			return fmt.Errorf("%w: %w", errBox, err)
		}
		c.held = true
	}
	if err := c.exitRoutes(table); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	c.exited = true
	return nil
}

// exitRoutes makes the default routes, and first the rule for a node that has a user to itself. The caller holds the
// App's mu.
func (c *client) exitRoutes(table int) error {
	a := c.a
	for _, uid := range c.c.NodeUsers {
		for _, v6 := range []bool{false, true} {
			r := netcfg.Rule{V6: v6, Priority: nodePriority, Table: netcfg.MainTable, UID: uid}
			if err := a.net.Rule(groupClient, r); err != nil {
				a.log.Warn("the node's packets are known by their mark alone", "uid", uid, "err", err)
			}
		}
	}
	if err := c.split(table); err != nil {
		return err
	}
	return a.net.Default(groupClient, netcfg.Default{
		Table: table, V4: true, V6: c.answer.IPv6, Block6: true, Exclude: c.c.Exclude,
		Source4: c.answer.IPv4, Source6: a.status.Address,
	})
}

// unhold lets traffic go where the default routes lead.
func (c *client) unhold() error {
	c.a.mu.Lock()
	defer c.a.mu.Unlock()
	if !c.held {
		return nil
	}
	if err := c.a.net.Undo(groupHold); err != nil {
		return fmt.Errorf("%w: %w", errBox, err)
	}
	c.held = false
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
