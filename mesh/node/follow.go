package node

import (
	"context"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/node/api"
)

// Events implements api.Node.
func (n *Node) Events(ctx context.Context, p api.EventsParams) (all api.Events, err error) {
	for {
		var wait <-chan struct{}
		if err := n.do(ctx, func(now time.Duration) {
			all = n.core.EventsAfter(now, p)
			if len(all.Events) == 0 && p.WaitS > 0 {
				wait = n.core.events.wait()
			}
		}); err != nil || wait == nil {
			return all, err
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return all, ctx.Err()
		case <-n.ended:
			return all, ErrClosed
		}
	}
}

// EventsAfter returns what followed an event, as people read it.
func (n *Core) EventsAfter(now time.Duration, p api.EventsParams) api.Events {
	found := n.events.after(p.After, p.Limit)
	all := api.Events{Events: make([]api.Event, 0, len(found)), Next: n.events.seq, Missed: n.events.missed(p.After)}
	wall := n.cfg.Wall()
	for _, e := range found {
		v := api.Event{Seq: e.Seq, Time: wall.Add(e.At - now).UTC().Truncate(time.Millisecond), Kind: e.Kind, Hops: e.Hops, What: e.What, Cause: e.Cause}
		if e.Peer != (key.Public{}) {
			v.Peer, v.Name = &e.Peer, n.nameOf(e.Peer)
		}
		for _, k := range e.Hops {
			v.Names = append(v.Names, n.called(k))
		}
		all.Events = append(all.Events, v)
	}
	if k := len(found); k > 0 {
		all.Next = found[k-1].Seq
	}
	return all
}

// called is a node's name, or the short form of its key.
func (n *Core) called(k key.Public) string {
	if name := n.nameOf(k); name != "" {
		return name
	}
	return k.Short()
}
