package vpn

import (
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"skywire/tun/netcfg"
)

// Split is what of this box goes by the tunnel and what not, by who sends it or by the name it is sent to.
type Split struct {
	Users   []uint32
	Cgroups []string // below the mount of cgroup v2
	Domains []string // with all below them
}

func (s Split) empty() bool { return len(s.Users)+len(s.Cgroups)+len(s.Domains) == 0 }

// validateSplit reports what makes no sense of who goes by the tunnel.
func (c *ClientConfig) validateSplit() error {
	split := !c.ExcludeBy.empty() || !c.OnlyBy.empty()
	switch {
	case (split || len(c.Gateways) > 0) && !c.Exit:
		return errors.New("to say who goes through the tunnel, or to be a gateway to it, makes sense with --exit alone")
	case !c.ExcludeBy.empty() && !c.OnlyBy.empty():
		return errors.New("say who alone goes through the tunnel, or who does not, not both")
	case c.KillSwitch && len(c.OnlyBy.Cgroups)+len(c.OnlyBy.Domains) > 0:
		return errors.New("a kill switch for cgroups or domains alone cannot be: what it must stop is known to a running vpn only")
	case c.KillSwitch && len(c.OnlyBy.Users) > 0 && len(c.Gateways) > 0:
		return errors.New("a kill switch for users alone does not cover a gateway's clients")
	}
	for _, u := range c.OnlyBy.Users {
		if c.KillSwitch && u == 0 {
			return errors.New("a kill switch for root alone would stop the node, too")
		}
	}
	return nil
}

// only reports whether the lists name what goes by the tunnel.
func (c *ClientConfig) only() bool { return !c.OnlyBy.empty() }

// domains are addresses that names of the lists had, for a table that is made anew.
type domains struct {
	mu   sync.Mutex // guards the field below
	till map[netip.Addr]time.Time
}

const (
	// maxDomains bounds domains, and domainSlack is how much longer than its time an address is used: a program may hold
	// on to it.
	maxDomains  = 4096
	domainSlack = 2 * time.Minute
)

// split makes the table of who goes where. The caller holds the App's mu.
func (c *client) split(mark int) error {
	a, by := c.a, c.c.ExcludeBy
	if c.c.only() {
		by = c.c.OnlyBy
	}
	if by.empty() && len(c.c.Gateways) == 0 {
		return nil
	}
	if len(c.c.Gateways) > 0 {
		if err := a.net.Forwarding(groupExit); err != nil {
			return err
		}
	}
	sources := []netip.Addr{c.answer.IPv4, a.status.Address}
	if by.empty() {
		sources = nil
	}
	err := a.net.Split(groupClient, netcfg.Split{
		Mark: uint32(mark), Only: c.c.only(), UIDs: by.Users, Cgroups: by.Cgroups, Domains: len(by.Domains) > 0,
		Gateways: c.c.Gateways,
	}, sources)
	if err != nil {
		return err
	}
	return a.refill()
}

// domainSeen is told of every name that this box's programs have asked for, before they get the answer.
func (a *App) domainSeen(name string, addrs []netip.Addr, ttl time.Duration) {
	c := a.c.Client
	list := append(c.ExcludeBy.Domains, c.OnlyBy.Domains...)
	if !below(name, list) {
		return
	}
	ttl += domainSlack
	a.domains.mu.Lock()
	for _, addr := range addrs {
		if len(a.domains.till) < maxDomains {
			a.domains.till[addr.Unmap()] = time.Now().Add(ttl)
		}
	}
	a.domains.mu.Unlock()
	if err := netcfg.Resolved(a.c.Device, addrs, ttl); err != nil {
		a.log.Debug("no table for the addresses of a name yet", "name", name, "err", err)
	}
}

// below reports whether a name is one of the list or below one.
func below(name string, list []string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	for _, d := range list {
		if name == d || strings.HasSuffix(name, "."+d) {
			return true
		}
	}
	return false
}

// refill puts what is known of names into a new table.
func (a *App) refill() error {
	a.domains.mu.Lock()
	defer a.domains.mu.Unlock()
	now := time.Now()
	for addr, till := range a.domains.till {
		if !till.After(now) {
			delete(a.domains.till, addr)
			continue
		}
		if err := netcfg.Resolved(a.c.Device, []netip.Addr{addr}, till.Sub(now)); err != nil {
			return err
		}
	}
	return nil
}
