package node

import (
	"context"
	"io"
	"slices"
	"sort"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager/report"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
)

// managerCall bounds what a manager's goroutine waits for the owner.
const managerCall = 5 * time.Second

func (n *Node) newReporter() (*report.Reporter, error) {
	var keys []key.Public
	for _, m := range n.cfg.Managers {
		if m.Key != (key.Public{}) && m.Key != n.Key() && !slices.Contains(keys, m.Key) {
			keys = append(keys, m.Key)
		}
	}
	return report.New(report.Config{Node: (*reported)(n), Network: n.network, Managers: keys, Program: n.cfg.Version, Log: n.log})
}

// watchRecords wakes the reporter when records changed.
func (n *Node) watchRecords(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.recordsChanged:
			n.reporter.OwnChanged()
		}
	}
}

// watchServices states in our record what the apps of this box offer.
func (n *Node) watchServices(ctx context.Context) error {
	for {
		changed := n.server.Changed()
		var all []route.Service
		for _, s := range n.server.Services() {
			all = append(all, route.Service{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta})
		}
		if err := n.do(ctx, func(now time.Duration) { n.core.SetServices(now, all) }); err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// reported is Node as mesh/manager/report sees it.
type reported Node

func (r *reported) do(f func(now time.Duration)) {
	ctx, cancel := context.WithTimeout(context.Background(), managerCall)
	defer cancel()
	_ = (*Node)(r).do(ctx, f)
}

func (r *reported) OwnRecord() (raw []byte) {
	r.do(func(time.Duration) {
		if e := r.core.db.Get(r.core.self); e != nil {
			raw = e.Raw
		}
	})
	return raw
}

func (r *reported) Digests() (sum uint64, parts []route.Digest) {
	r.do(func(time.Duration) { sum, parts = r.core.db.Sum(), r.core.db.Digests(0) })
	return sum, parts
}

func (r *reported) Records(keys []key.Public) (all []report.Record) {
	r.do(func(now time.Duration) {
		for _, k := range keys {
			if e := r.core.db.Get(k); e != nil {
				all = append(all, report.NewRecord(e, now))
			}
		}
	})
	return all
}

func (r *reported) PutRecord(from key.Public, rec report.Record) {
	r.do(func(now time.Duration) { r.core.PutRecordAged(now, rec.Raw, from, rec.Age()) })
}

func (r *reported) DialService(ctx context.Context, to key.Public, service string) (io.ReadWriteCloser, error) {
	return r.streams.Dial(ctx, to, service, nil)
}

func (r *reported) Propose(p report.Proposal) {
	paths := make([][]key.Public, 0, len(p.Paths))
	for _, q := range p.Paths {
		paths = append(paths, q.Hops)
	}
	r.do(func(now time.Duration) { r.core.Propose(now, p.To, paths, time.Duration(p.LifeS)*time.Second) })
}

// Propose implements api.Node.
func (n *Node) Propose(ctx context.Context, p api.Proposal) error {
	return n.do(ctx, func(now time.Duration) { n.core.Propose(now, p.To, p.Paths, maxProposal) })
}

// PutRecord implements api.Node.
func (n *Node) PutRecord(ctx context.Context, raw []byte) error {
	var v route.Verdict
	if err := n.do(ctx, func(now time.Duration) { v = n.core.PutRecord(now, raw, n.Key()) }); err != nil {
		return err
	}
	return v.Err
}

// Services implements api.Node: what the nodes of the mesh say that they offer, nearest first. The owner only hands out
// what it has: looking for paths to a thousand nodes would keep it from its probes.
func (n *Node) Services(ctx context.Context, typ string) ([]app.Service, error) {
	var all []app.Service
	var g *route.Graph
	err := n.do(ctx, func(time.Duration) {
		g = n.core.topology()
		for _, e := range n.core.db.Entries() {
			for _, s := range e.Services {
				if typ == "" || s.Type == typ {
					all = append(all, app.Service{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta, Key: e.Key, Node: e.Name})
				}
			}
		}
	})
	if len(all) == 0 {
		return nil, err
	}
	reach := route.Reach(g, n.Key())
	for i := range all {
		s := &all[i]
		rtt, ok := reach[s.Key]
		s.Online, s.RTT = ok || s.Key == n.Key(), rtt.Seconds()*1000
	}
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].Online != all[j].Online {
			return all[i].Online
		}
		return all[i].RTT < all[j].RTT
	})
	return all, err
}
