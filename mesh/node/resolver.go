package node

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
)

// resolveEvery is how often names of peers are looked up again: dynamic DNS is how people find their home router.
const resolveEvery = time.Minute

// resolver turns the configured peers into addresses and hands them to the core, again and again.
type resolver struct {
	n     *Node
	peers []Peer
}

func newResolver(n *Node) *resolver {
	return &resolver{n: n, peers: append(append([]Peer(nil), n.cfg.Peers...), n.cfg.Managers...)}
}

func (r *resolver) run(ctx context.Context) error {
	pins := map[string]key.Public{}
	if r.n.store != nil {
		if p, err := r.n.store.Pins(); err == nil {
			pins = p
		}
	}
	wait := time.NewTimer(0)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		failed := false
		for _, p := range r.peers {
			failed = !r.dial(ctx, p, pins) || failed
		}
		if failed {
			wait.Reset(5 * time.Second)
		} else {
			wait.Reset(resolveEvery)
		}
	}
}

// dial looks a peer up and has the core dial it; false if its name did not resolve.
func (r *resolver) dial(ctx context.Context, p Peer, pins map[string]key.Public) bool {
	if p.Addr == "" {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := lookup(ctx, p.Addr)
	if err != nil {
		r.n.log.Warn("peer not found", "addr", p.Addr, "err", err)
		return false
	}
	var eps []forward.Endpoint
	for _, a := range addrs {
		if i, ok := r.n.socketFor(a); ok {
			eps = append(eps, forward.Endpoint{Addr: a, Socket: i})
		}
	}
	k := p.Key
	for _, e := range eps {
		if k == (key.Public{}) {
			k = pins[e.Addr.String()]
		}
	}
	_ = r.n.do(ctx, func(now time.Duration) {
		if err := r.n.core.Dial(now, k, eps); err != nil {
			r.n.log.Warn("peer not dialled", "addr", p.Addr, "err", err)
		}
	})
	return true
}

func lookup(ctx context.Context, hostport string) ([]netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var all []netip.AddrPort
	for _, ip := range ips {
		all = append(all, netip.AddrPortFrom(ip.Unmap(), uint16(number)))
	}
	return all, nil
}

// socketFor returns the socket that can send to an address.
func (n *Node) socketFor(a netip.AddrPort) (uint8, bool) {
	for i, s := range n.sockets {
		info := s.Info()
		if info.DualStack || info.Addr.Addr().Unmap().Is4() == a.Addr().Is4() {
			return uint8(i), true
		}
	}
	return 0, false
}
