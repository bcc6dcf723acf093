package node

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"

	"skywire/mesh/node/api"
	"skywire/mesh/stream"
	"skywire/mesh/stream/meshtcp"
)

// kernel is the node as mesh/stream's second carrier: TCP of the box, from its mesh address over a TUN that is attached
// here, if that address is on it in our network namespace.
type kernel Node

// with calls f for each device until one will do.
func (k *kernel) with(f func(meshtcp.Opener) error) error {
	n := (*Node)(k)
	n.tunMu.Lock()
	devices := slices.Sorted(maps.Keys(n.tuns))
	n.tunMu.Unlock()
	err := error(meshtcp.ErrNoDevice)
	for _, d := range devices {
		o := n.opener(d)
		if err = f(o); err == nil {
			return nil
		}
		if n.cfg.Streams == string(stream.PreferTCP) && !errors.Is(err, context.Canceled) {
			o.Congestion = "" // wanted in any case
			if err = f(o); err == nil {
				return nil
			}
		}
	}
	return err
}

func (n *Node) opener(device string) meshtcp.Opener {
	return meshtcp.Opener{Address: n.network.Address(n.identity.Public()), Device: device, Congestion: meshtcp.BBR}
}

// streamFeature says whether streams can go over a device.
func (n *Node) streamFeature(device string) api.Feature {
	err := n.opener(device).Available()
	found := ""
	if err != nil {
		found = err.Error()
	}
	return api.NewFeature("tun "+device, api.FeatureStreamTCP, err == nil, found, "")
}

// streamStatus is what node.status says of streams.
func (n *Node) streamStatus() api.StreamStatus {
	s := n.streams.Stats()
	return api.StreamStatus{Open: max(s.Streams-s.OnTCP, 0), OnTCP: s.OnTCP, Moved: s.Moved, NotMoved: s.Unmoved, Strangers: s.Strangers}
}

// Available implements stream.Kernel.
func (k *kernel) Available() error { return k.with(meshtcp.Opener.Available) }

// Listen implements stream.Kernel.
func (k *kernel) Listen(ctx context.Context) (l net.Listener, err error) {
	err = k.with(func(o meshtcp.Opener) (err error) {
		l, err = o.Listen(ctx)
		return err
	})
	return l, err
}

// Dial implements stream.Kernel.
func (k *kernel) Dial(ctx context.Context, to netip.AddrPort) (c net.Conn, err error) {
	err = k.with(func(o meshtcp.Opener) (err error) {
		c, err = o.Dial(ctx, to)
		return err
	})
	return c, err
}
