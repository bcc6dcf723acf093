package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"skywire/mesh/link/portmap"
	netwatch "skywire/mesh/link/watch"
)

// newMapper makes what has gateways map our first port.
func (r *reacher) newMapper() (err error) {
	n := r.n
	r.mapper, err = portmap.New(portmap.Config{Port: n.sockets[0].Addr().Port(), Changed: r.mapped, Log: n.log})
	return err
}

// gateways are those that may be asked, with our address towards each.
func (r *reacher) gateways(s netwatch.State) []portmap.Gateway {
	var all []portmap.Gateway
	for _, g := range s.Gateways {
		for _, i := range s.Interfaces {
			if i.Index != g.Interface {
				continue
			}
			if local := towards(i.Addrs, g.Addr); local.IsValid() {
				if _, ok := r.n.portAt(local); ok {
					all = append(all, portmap.Gateway{Addr: g.Addr, Local: local})
				}
			}
		}
	}
	return all
}

// towards is the address of an interface that a gateway would map: of IPv4 the one in its prefix, of IPv6 one that is good outside.
func towards(addrs []netip.Prefix, gateway netip.Addr) (best netip.Addr) {
	for _, p := range addrs {
		a := p.Addr()
		switch {
		case a.Is4() != gateway.Is4() || a.IsLinkLocalUnicast():
		case a.Is4() && p.Contains(gateway):
			return a
		case !best.IsValid() && (a.Is4() || !a.IsPrivate()):
			best = a
		}
	}
	return best
}

// mapped tells the core what gateways mapped.
func (r *reacher) mapped(all []portmap.Mapping) {
	var at []netip.AddrPort
	var words []string
	for _, m := range all {
		at = append(at, m.External)
		words = append(words, fmt.Sprintf("%v by %s", m.External, m.Way))
	}
	what := "no port is mapped any more"
	if len(words) > 0 {
		what = "port mapped: " + strings.Join(words, ", ")
	}
	_ = r.n.do(context.Background(), func(now time.Duration) {
		r.n.core.note(EventNetwork, r.n.core.self, what, "the gateway said so")
		r.n.core.SetMapped(now, at)
		r.n.core.newsOfRecord(now)
	})
}
