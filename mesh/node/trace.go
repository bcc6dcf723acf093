package node

import (
	"context"
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
)

// tracePings is how many times a hop is asked: the least of the round trips counts.
const tracePings = 3

// Trace implements api.Node: it pings every node of the path in use, first to last, and tells what is stated of each link.
func (n *Node) Trace(ctx context.Context, to key.Public) (api.Trace, error) {
	if err := n.Ready(ctx, to); err != nil {
		return api.Trace{}, err
	}
	var t api.Trace
	if err := n.do(ctx, func(time.Duration) { t.Hops = n.core.traceHops(to) }); err != nil {
		return api.Trace{}, err
	}
	if len(t.Hops) == 0 {
		return api.Trace{}, ErrUnreachable
	}
	for i := range t.Hops {
		h := &t.Hops[i]
		for range tracePings {
			pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			d, err := n.Ping(pctx, h.Key)
			cancel()
			if v := ms(d); err == nil && (h.RTT == nil || v < *h.RTT) {
				h.RTT = &v
			}
		}
	}
	return t, nil
}

// traceHops returns the nodes of the path in use, without the round trips from here.
func (n *Core) traceHops(to key.Public) []api.Hop {
	s := n.sessions[to]
	if s == nil || s.active == nil {
		return nil
	}
	hops := slices.Clone(s.active.hops)
	if !s.active.source {
		slices.Reverse(hops)
	}
	g := n.topology()
	all := make([]api.Hop, 0, len(hops)-1)
	for i, k := range hops[1:] {
		h := api.Hop{Key: k, Name: n.nameOf(k)}
		if e, ok := g.Edge(hops[i], k); ok {
			rtt := ms(e.RTT)
			h.LinkRTT, h.Jitter, h.Loss, h.Capacity = &rtt, ms(e.Jitter), e.Loss, e.Capacity
			h.Carrier, h.MTU, h.UpS = route.CarrierName(e.Carrier), e.MTU, route.Link{Up: e.Up}.UpFor().Seconds()
		}
		if b := n.upLink(k); i == 0 && b != nil {
			h.UpS, h.MTU = (n.now - b.link.UpSince()).Seconds(), b.link.MTU()
		}
		all = append(all, h)
	}
	return all
}
