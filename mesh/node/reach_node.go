package node

import (
	"context"
	"net/netip"
	"time"
)

// setLocals hands the addresses of this box's interfaces to the core, with the ports on which we listen there.
func (n *Node) setLocals(interfaces []netip.Prefix) {
	var all []Local
	for _, p := range interfaces {
		if port, ok := n.portAt(p.Addr()); ok && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsLoopback() {
			all = append(all, Local{Addr: netip.AddrPortFrom(p.Addr(), port), Bits: p.Bits()})
		}
	}
	_ = n.do(context.Background(), func(now time.Duration) { n.core.SetLocals(now, all) })
}

// portAt returns the first port on which we receive what is sent to an address of ours.
func (n *Node) portAt(a netip.Addr) (uint16, bool) {
	for _, s := range n.sockets {
		at := s.Addr()
		if at.Addr().Unmap() == a || at.Addr().IsUnspecified() && (at.Addr().Is4() == a.Is4() || s.Info().DualStack) {
			return at.Port(), true
		}
	}
	return 0, false
}
