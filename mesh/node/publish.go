package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/route"
)

// Publish is whom a node tells its addresses.
type Publish uint8

// The choices. Addresses of local networks are in no record whatever the choice; nodes that have a session tell them each other sealed.
const (
	PublishCluster Publish = iota // all members, in the record; in an open mesh, where anybody may read records, nobody
	PublishPeers                  // nodes with which there is a session, sealed
	PublishNone                   // nobody
)

// PublishNamed reads a choice as people write it; empty is the default.
func PublishNamed(s string) (Publish, error) {
	switch s {
	case "", "cluster":
		return PublishCluster, nil
	case "peers":
		return PublishPeers, nil
	case "none":
		return PublishNone, nil
	}
	return 0, fmt.Errorf("%q: want cluster, peers or none", s)
}

// published are the addresses in our record: those that gateways mapped, those that were stated, those at which neighbours see us.
func (n *Core) published() []string {
	if n.cfg.Publish != PublishCluster || n.cfg.Open && n.cfg.Network == key.Open() {
		return n.hostless()
	}
	var all []string
	add := func(a string) {
		if len(all) < route.MaxAddrs && n.outside(a) && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for _, m := range n.reach.mapped {
		add("udp://" + m.String())
	}
	for _, a := range n.listen {
		add(a)
	}
	n.links.All(func(l *link.Link) {
		if o := l.Observed(); l.State() == link.Up && o.IsValid() && link.CarrierOf(l.Endpoint()) == link.UDP {
			add("udp://" + unmapped(o).String())
		}
	})
	return all
}

// hostless are our stream carriers that listen on every address, as tcp://:7667: they tell nobody where we are, and a
// neighbour, who knows, that there is another way to us.
func (n *Core) hostless() []string {
	var all []string
	for _, a := range n.listen {
		if n.cfg.Publish != PublishNone && strings.Contains(a, "://:") {
			all = append(all, a)
		}
	}
	return all
}

// outside reports whether an address of ours is worth telling: a name, or one that the world can reach.
func (n *Core) outside(addr string) bool {
	_, rest, ok := strings.Cut(addr, "://")
	if !ok {
		rest = addr
	}
	rest, _, _ = strings.Cut(rest, "/")
	at, err := netip.ParseAddrPort(rest)
	if err != nil {
		return true
	}
	a := at.Addr().Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !n.cfg.Network.Prefix().Contains(a)
}
