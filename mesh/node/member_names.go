package node

import (
	"context"
	"net/netip"
	"strings"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/node/api"
)

// Names in a cluster are those of certificates. What a node calls itself is shown with the start of its key behind it, and
// stands for it only so: nobody takes the name of another one by saying so.

// named finds the nodes that a name, in lower case and without .mesh, stands for.
func (n *Core) named(name string) (found []key.Public) {
	if k, ok := member.Resolve(nil, n.members.state, name); ok {
		return []key.Public{k}
	}
	for _, e := range n.db.Entries() {
		if strings.ToLower(member.Claimed(e.Name, e.Key)) == name {
			found = append(found, e.Key)
		}
	}
	return found
}

// certifiedName is what a node is called: by its certificate, or as it calls itself with its key behind.
func (n *Core) certifiedName(k key.Public) string {
	if name, _ := n.members.state.Name(k); name != "" {
		return name
	}
	if e := n.db.Get(k); e != nil {
		return member.Claimed(e.Name, k)
	}
	return ""
}

// atIPv4 finds the member whose certificate has an IPv4 address.
func (n *Core) atIPv4(a netip.Addr) (key.Public, bool) {
	if n.clustered() && a.Is4() {
		for _, k := range n.members.state.Known() {
			if k != n.self && n.members.state.IPv4(k) == a && n.belongs(k) {
				return k, true
			}
		}
	}
	return key.Public{}, false
}

// standingOf adds to a status what the cluster says of this node; who is no member of its cluster is not ready.
func (n *Node) standingOf(ctx context.Context, s *api.Status) {
	m, err := n.Membership(ctx)
	if err != nil {
		return
	}
	s.Membership, s.Cluster = m, m.Cluster
	s.Ready = s.Ready && (m.Cluster == "" || m.State == stateMember)
	if m.Certificate != nil && m.Certificate.Name != "" {
		s.Name = m.Certificate.Name
	}
}
