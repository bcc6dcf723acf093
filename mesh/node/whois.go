package node

import (
	"context"
	"net/netip"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
)

// Whois implements api.Node.
func (n *Node) Whois(ctx context.Context, name string) (app.Identity, error) {
	id := app.Identity{Tags: []string{}}
	k, err := n.Resolve(ctx, name)
	if addr, e := netip.ParseAddr(name); err != nil && e == nil {
		k, err = n.behind(ctx, addr, err)
		id.Via = err == nil
	}
	if err != nil {
		return id, err
	}
	id.Key, id.Address = k, n.network.Address(k)
	err = n.do(ctx, func(now time.Duration) {
		c := n.core
		c.now = now
		id.Name = c.nameOf(k)
		id.Member = k == c.self || c.cfg.Open && !c.clustered() || c.admit(k) == nil
		if !c.clustered() {
			return
		}
		if m := c.standing(k); m.Rights == member.Member {
			id.Tags = append(id.Tags, m.Certificate.Tags...)
			id.IPv4 = n.members.IPv4(k)
		}
		if list, _ := n.members.Admins(); k == c.self && list != nil {
			for _, a := range list.Admins {
				if a.IPv4.IsValid() {
					id.Blocks = append(id.Blocks, a.IPv4)
				}
			}
		}
	})
	return id, err
}

// behind finds the node to which packets for an address go that is no node's own.
func (n *Node) behind(ctx context.Context, a netip.Addr, unknown error) (k key.Public, err error) {
	found := false
	if err := n.do(ctx, func(time.Duration) {
		if a == n.core.ownIPv4() {
			k, found = n.core.self, true
			return
		}
		k, found = n.core.policyOwner(a)
	}); err != nil {
		return k, err
	}
	if !found {
		return k, unknown
	}
	return k, nil
}
