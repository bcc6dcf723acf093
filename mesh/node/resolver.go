package node

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"skywire/mesh/key"
)

// How often names of peers are looked up again: dynamic DNS is how people find their home router.
const (
	resolveEvery  = time.Minute      // while their links are up
	resolveDown   = 10 * time.Second // while one is not: it may have another address by now
	resolveFailed = time.Second      // after a name was not found, doubling up to resolveEvery
)

// resolver turns the configured peers into addresses and hands them to the core, again and again.
type resolver struct {
	n     *Node
	peers []Peer
	kick  chan struct{} // capacity 1: look at once

	mu   sync.Mutex     // guards lost
	lost map[Peer]error // why a peer has no address that could be dialled
}

func newResolver(n *Node) *resolver {
	return &resolver{n: n, peers: append(append([]Peer(nil), n.cfg.Peers...), n.cfg.Managers...), kick: make(chan struct{}, 1), lost: map[Peer]error{}}
}

// again has all names looked up at once: the network is another one.
func (r *resolver) again() {
	select {
	case r.kick <- struct{}{}:
	default: // it will be
	}
}

func (r *resolver) run(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
			failures = 0
		case <-wait.C:
		}
		pins := map[string]key.Public{} // read each time: keys are learnt meanwhile
		if r.n.store != nil {
			if p, err := r.n.store.Pins(); err == nil {
				pins = p
			}
		}
		failed, down := false, false
		for _, p := range r.n.carriers.order(r.peers) {
			up, err := r.dial(ctx, p, pins)
			failed, down = err != nil || failed, down || !up
			r.note(p, err)
		}
		pause := resolveEvery
		switch {
		case failed:
			pause = min(resolveFailed<<min(failures, 8), resolveEvery)
			failures++
		case down:
			pause, failures = resolveDown, 0
		default:
			failures = 0
		}
		wait.Reset(pause)
	}
}

// note keeps why a peer could not be dialled, for people, and logs it when it is news.
func (r *resolver) note(p Peer, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.lost[p]
	if err == nil {
		delete(r.lost, p)
		return
	}
	r.lost[p] = err
	if old == nil || old.Error() != err.Error() {
		r.n.log.Warn("peer not found", "addr", p.Addr, "err", err)
	}
}

// unresolved returns the peers that have no address to dial, in the order of the configuration, and why.
func (r *resolver) unresolved() (peers []Peer, why []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.peers {
		if err := r.lost[p]; err != nil {
			peers, why = append(peers, p), append(why, err)
		}
	}
	return peers, why
}

// dial looks a peer up and has the core dial it; it returns whether its link is up, and why it can't be dialled.
func (r *resolver) dial(ctx context.Context, p Peer, pins map[string]key.Public) (up bool, err error) {
	if p.Addr == "" {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	eps, err := r.n.endpoints(ctx, p.Addr)
	if err != nil {
		return false, err
	}
	k := p.Key
	for _, e := range eps {
		if k == (key.Public{}) {
			k = pins[r.n.pinName(e)]
		}
	}
	_ = r.n.do(ctx, func(now time.Duration) {
		if err := r.n.core.Dial(now, k, eps); err != nil {
			r.n.log.Warn("peer not dialled", "addr", p.Addr, "err", err)
		}
		up = r.n.core.upLink(k) != nil
	})
	return up, nil
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
func (n *Node) socketFor(a netip.AddrPort) (uint16, bool) {
	for i, s := range n.sockets {
		info := s.Info()
		if info.DualStack || info.Addr.Addr().Unmap().Is4() == a.Addr().Is4() {
			return uint16(i), true
		}
	}
	return 0, false
}
