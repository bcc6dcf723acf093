package node

import (
	"net/netip"

	"skywire/mesh/forward"
	"skywire/mesh/key"
)

// Policy is what the apps said about packets beyond the mesh addresses.
type Policy struct {
	Routes, Grants, Serve []PrefixOf
}

// PrefixOf ties a prefix to a node.
type PrefixOf struct {
	Prefix netip.Prefix
	Key    key.Public
}

// SetPolicy replaces the policy.
func (n *Core) SetPolicy(p Policy) {
	n.policy = p
	for _, s := range n.sessions {
		n.applyGrants(s)
	}
	for _, r := range p.Routes {
		n.session(r.Key)
	}
	n.routesAt = true
}

func (n *Core) applyGrants(s *peerSession) {
	g := forward.Grants{Closed: !n.belongs(s.peer)}
	if n.clustered() {
		if a := n.members.state.IPv4(s.peer); a.IsValid() {
			g.Sources = append(g.Sources, netip.PrefixFrom(a, 32))
		}
	}
	for _, r := range n.policy.Grants {
		if r.Key == s.peer {
			g.Sources = append(g.Sources, r.Prefix)
		}
	}
	for _, r := range n.policy.Serve {
		if r.Key == s.peer {
			g.Serve = append(g.Serve, r.Prefix)
		}
	}
	s.plane.SetGrants(g)
}

// SessionAt returns the data plane's session with the owner of a mesh address, nil if there is none. Any goroutine may
// call it.
func (n *Core) SessionAt(a netip.Addr) *forward.Session {
	if r := n.hosts.Load(); r != nil {
		return r.Hosts[a]
	}
	return nil
}

// refreshRoutes gives the data plane the sessions and prefixes of this moment, if they changed.
func (n *Core) refreshRoutes() {
	if !n.routesAt {
		return
	}
	n.routesAt = false
	var own forward.Own
	if a := n.ownIPv4(); a.IsValid() {
		own.Addresses = []netip.Addr{a}
	}
	n.plane.SetOwn(own)
	r := n.buildRoutes()
	n.hosts.Store(r)
	n.plane.SetRoutes(r)
}

// ownIPv4 is the address that our certificate gives us, invalid if there is none.
func (n *Core) ownIPv4() netip.Addr {
	if !n.clustered() || !n.belongs(n.self) {
		return netip.Addr{}
	}
	return n.members.state.IPv4(n.self)
}

func (n *Core) buildRoutes() *forward.Routes {
	r := &forward.Routes{Hosts: make(map[netip.Addr]*forward.Session, len(n.sessions))}
	for _, s := range n.sessions {
		r.Hosts[s.plane.Addr] = s.plane
		if n.clustered() && n.belongs(s.peer) {
			if a := n.members.state.IPv4(s.peer); a.IsValid() {
				r.Prefixes = append(r.Prefixes, forward.PrefixRoute{Prefix: netip.PrefixFrom(a, 32), Session: s.plane})
			}
		}
	}
	for _, p := range n.policy.Routes {
		if s := n.sessions[p.Key]; s != nil {
			r.Prefixes = append(r.Prefixes, forward.PrefixRoute{Prefix: p.Prefix, Session: s.plane})
		}
	}
	return r
}

// ownerOf finds whose packet it is: by mesh address, or by the policy's routes.
func (n *Core) ownerOf(packet []byte) (key.Public, bool) {
	var dst netip.Addr
	switch {
	case len(packet) >= 40 && packet[0]>>4 == 6:
		dst = netip.AddrFrom16([16]byte(packet[24:40]))
	case len(packet) >= 20 && packet[0]>>4 == 4:
		dst = netip.AddrFrom4([4]byte(packet[16:20]))
	default:
		return key.Public{}, false
	}
	if k, ok := n.byAddr[dst]; ok && k != n.self {
		return k, true
	}
	if n.cfg.Network.Prefix().Contains(dst) {
		return key.Public{}, false
	}
	if k, ok := n.atIPv4(dst); ok {
		return k, true
	}
	return n.policyOwner(dst)
}

// policyOwner is the node to which the policy's routes send an address.
func (n *Core) policyOwner(a netip.Addr) (owner key.Public, ok bool) {
	best := -1
	for _, r := range n.policy.Routes {
		if r.Prefix.Contains(a) && r.Prefix.Bits() > best {
			best, owner = r.Prefix.Bits(), r.Key
		}
	}
	return owner, best >= 0
}
