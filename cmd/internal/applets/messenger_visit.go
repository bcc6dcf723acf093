//go:build !mini

package applets

import (
	"context"
	"log/slog"
	"strings"

	"skywire/mesh/key"
	"skywire/mesh/node"
	"skywire/mesh/peering"
)

// visitMemory is what a visitor takes the box to have: it carries a few streams, so its buffers are a small router's.
const visitMemory = 64 << 20

// startVisit returns what runs a visitor: a node of its own key in another network, with one neighbour or a few, no device, no
// beacons and nothing to offer.
func startVisit(log *slog.Logger) func(ctx context.Context, v peering.Visit) error {
	return func(ctx context.Context, v peering.Visit) error {
		c := node.Config{
			State: v.State, Run: v.Run, Version: programVersion(), Listen: []string{":0"}, Loops: 1, Memory: visitMemory, NoPunch: true,
			Find: node.Finding{Publish: node.PublishNone}, Ready: v.Ready, Log: log.With("name", "visitor"),
		}
		if !v.Cluster.IsZero() {
			c.Visit = v.Node
			if err := node.WriteCluster(v.State, node.Cluster{Key: v.Cluster}); err != nil {
				return err
			}
		}
		c.Allow = []key.Public{v.Node} // of no effect in a cluster
		for _, p := range v.Peers {
			c.Peers = append(c.Peers, node.Peer{Key: p.Key, Addr: strings.TrimPrefix(p.Addr, "udp://")})
			c.Allow = append(c.Allow, p.Key)
		}
		n, err := node.New(c)
		if err != nil {
			return err
		}
		return n.Run(ctx)
	}
}
