//go:build !mini

package applets

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/peering"
)

// peer runs the gateway of the cluster, from when the node is there on.
func (d *messengerDaemon) peer(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.home.up:
	}
	node, err := key.Load(filepath.Join(d.f.State, "node.key"))
	if err != nil {
		return err
	}
	g, err := peering.New(peering.Config{
		Run: d.f.Run, State: d.f.State, Visits: d.home.away, Node: node, Log: d.log,
		Admin: func() (*key.Private, error) { return key.Load(filepath.Join(d.f.State, "admin.key")) },
		Send: func(ctx context.Context, cluster key.Public, raw []byte) {
			// It goes by the gateways; this is one more way, for clusters whose account is a contact.
			_, err := d.engine.Send(ctx, messenger.Outgoing{To: cluster, Kind: envelope.KindPeering, Body: raw, Quiet: true})
			if err != nil {
				d.log.Debug("record not sent by message", "peer", cluster, "err", err)
			}
		},
		Note: func(cluster key.Public, name, what string) {
			l := messenger.AuditLine{
				Time: time.Now().UTC(), From: cluster.String(), Name: name, Scope: "peering", Verb: what, Verdict: "allowed",
			}
			if err := d.audit.Note(l); err != nil {
				d.log.Warn("audit not written", "err", err)
			}
		},
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.gateway = g
	d.mu.Unlock()
	return g.Run(ctx)
}

func (d *messengerDaemon) gatewayNow() *peering.Gateway {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.gateway
}

// peerMethods are the gateway's; before the node was there once they say that it is away.
func (d *messengerDaemon) peerMethods() map[string]messenger.Method {
	all := map[string]messenger.Method{}
	for name := range new(peering.Gateway).Methods() {
		all[name] = func(ctx context.Context, params json.RawMessage) (any, error) {
			g := d.gatewayNow()
			if g == nil {
				return nil, noNode(app.ErrNotRunning)
			}
			return g.Methods()[name](ctx, params)
		}
	}
	return all
}

// granted tells whether a peering lets a cluster call a verb here.
func (d *messengerDaemon) granted(account key.Public, verb string) bool {
	g := d.gatewayNow()
	return g != nil && slices.Contains(g.Verbs(account), verb)
}
