package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/node/api"
)

// Node as mesh/node/api sees it: questions about the state, answered by the owner.

// Info implements api.Node.
func (n *Node) Info() app.Info {
	return app.Info{Key: n.Key(), Address: n.core.Address(), Name: n.cfg.Name, Prefix: n.network.Prefix(), Network: n.network, Queues: len(n.loops)}
}

// Status implements api.Node.
func (n *Node) Status(ctx context.Context) (api.Status, error) {
	s := api.Status{Key: n.Key(), Name: n.cfg.Name, Address: n.core.Address(), Version: n.cfg.Version, UptimeS: time.Since(n.started).Seconds()}
	s.Machine, s.Features, s.Streams = n.machineStatus(), n.features(), n.streamStatus()
	for _, c := range n.sockets {
		s.Listen = append(s.Listen, "udp://"+c.Addr().String())
	}
	if m, ok := n.reporter.Preferred(); ok {
		s.Manager = api.ManagerStatus{Key: m.Manager.String(), State: string(m.State)}
	}
	err := n.do(ctx, func(now time.Duration) {
		c := n.core
		if at, ok := c.Twin(now); ok {
			s.Twin = "another box runs this key"
			if at.IsValid() {
				s.Twin += ", last seen at " + at.String()
			}
		}
		for _, l := range c.linkList() {
			st := c.neighbour(l).plane.Stats()
			s.RxBytes += st.ReceivedBytes
			s.TxBytes += st.SentBytes
			if l.State() == link.Up {
				s.Links++
			}
		}
		for _, p := range c.sessions {
			if p.active != nil {
				s.Sessions++
			}
		}
		s.Routes, s.NAT = len(c.relays), c.natStatus()
		p := c.plane.Counters()
		s.RelayedBytes, s.RelayedPackets, s.Drops = p.RelayedBytes, p.RelayedFrames, p.Drops
		c.countDrops(s.Drops)
		s.Ready = s.Links > 0 || len(n.cfg.Peers)+len(n.cfg.Managers) == 0
	})
	if m := n.missed.Load(); m > 0 {
		s.Drops["control_queue"] = m
	}
	n.standingOf(ctx, &s)
	return s, err
}

// countDrops adds what control refused.
func (n *Core) countDrops(all map[string]uint64) {
	l := n.links.Drops()
	for name, v := range map[string]uint64{
		"link_malformed": l.Malformed, "link_no_label": l.NoLabel, "link_bad_tag": l.BadTag, "link_refused": l.Refused,
		"link_replay": l.Replayed, "link_limit": l.Limit, "handshake": l.Handshake,
		"control_malformed": n.drops.malformed, "setup_refused": n.drops.refusedSetups, "setup_replay": n.drops.replayedSetups,
		"guest": n.members.drops.guest, "record_stranger": n.members.drops.strangers, "statement": n.members.drops.bad,
		"bad_signature": n.drops.badSignatures, "limit": n.drops.limit, "destination_unknown": n.drops.unrouted,
	} {
		if v > 0 {
			all[name] = v
		}
	}
}

// Peers implements api.Node.
func (n *Node) Peers(ctx context.Context) (all []api.Peer, err error) {
	err = n.do(ctx, func(now time.Duration) {
		c := n.core
		for _, l := range c.linkList() {
			st := c.neighbour(l).plane.Stats()
			at := l.Endpoint()
			if l.State() != link.Up {
				at = l.Dialled()
			}
			ports, most := l.Ports()
			all = append(all, api.Peer{
				Key: l.Peer(), Name: c.nameOf(l.Peer()), Endpoint: n.carriers.text(at), Reason: n.carriers.trouble(l), Carrier: link.CarrierOf(at).String(), State: l.State().String(),
				RTT: ms(l.RTT()), Jitter: ms(l.Jitter()), Loss: l.Loss(), LossIn: l.LossIn(), LossOut: l.LossOut(), Capacity: l.Capacity(now),
				Cost: float64(stated(now, l).Cost()) / 1000, UpS: upFor(now, l), MTU: l.MTU(), Initiator: l.Initiator(), RxBytes: st.ReceivedBytes, TxBytes: st.SentBytes,
				Ports: ports, PortsMost: most,
			})
		}
		c.links.Asked(func(ep forward.Endpoint, silent bool) {
			p := api.Peer{Endpoint: n.carriers.text(ep), Carrier: link.CarrierOf(ep).String(), State: link.Dialing.String()}
			if silent {
				p.Reason = "nobody tells a key there: is the address right, does it run --open? else write KEY@ADDR"
			}
			all = append(all, p)
		})
	})
	return addUnresolved(all, n.resolve), err
}

// addUnresolved adds the peers that no link stands for yet, since their names lead nowhere.
func addUnresolved(all []api.Peer, r *resolver) []api.Peer {
	peers, why := r.unresolved()
	for i, p := range peers {
		row := slices.IndexFunc(all, func(a api.Peer) bool { return !p.Key.IsZero() && a.Key == p.Key })
		if row < 0 {
			row = len(all)
			a, _ := parseAddress(p.Addr)
			all = append(all, api.Peer{Key: p.Key, Carrier: a.scheme, State: link.Dialing.String()})
		}
		if a := &all[row]; a.State != link.Up.String() {
			a.Reason = why[i].Error()
			if a.Endpoint == "" {
				if a.Endpoint = p.Addr; !strings.Contains(p.Addr, "://") {
					a.Endpoint = "udp://" + p.Addr
				}
			}
		}
	}
	return all
}

// upFor is how long a link is up, in seconds.
func upFor(now time.Duration, l *link.Link) float64 {
	if l.State() != link.Up {
		return 0
	}
	return (now - l.UpSince()).Seconds()
}

func endpointText(e forward.Endpoint) string {
	if !e.Addr.IsValid() {
		return ""
	}
	return link.CarrierOf(e).String() + "://" + e.Addr.String()
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (n *Core) nameOf(k key.Public) string {
	if n.clustered() {
		return n.certifiedName(k)
	}
	if k == n.self {
		return n.cfg.Name
	}
	if e := n.db.Get(k); e != nil {
		return e.Name
	}
	return ""
}

// Paths implements api.Node.
func (n *Node) Paths(ctx context.Context) (all []api.Path, err error) {
	err = n.do(ctx, func(now time.Duration) {
		for _, p := range n.core.pathList() {
			v := api.Path{
				Peer: p.sess.peer, Number: p.number, Hops: p.hops, Names: n.core.names(p.hops), AgeS: (now - p.created).Seconds(), Role: "standby", State: p.state.String(), RTT: ms(p.probe.srtt),
				Loss: p.loss, MTU: p.mtu, RxFrames: p.dataRx, TxFrames: p.dataTx,
			}
			if p.sess.active == p {
				v.Role = "active"
			}
			all = append(all, v)
		}
	})
	return all, err
}

// Routes implements api.Node.
func (n *Node) Routes(ctx context.Context) (all []api.Route, err error) {
	err = n.do(ctx, func(now time.Duration) {
		for _, r := range n.core.relayList() {
			id := hex.EncodeToString(r.id[:])
			add := func(label, out uint32, lanes int, from, to key.Public, rule *forward.Relay) {
				v := api.Route{Label: label, Kind: "relay", In: from.String(), Out: to.String(), OutBase: out, Lanes: lanes, Path: id}
				if rule != nil {
					st := rule.Stats()
					v.Bytes, v.Packets = &st.Bytes, st.Frames
					v.IdleS = int((now - max(st.LastUse, r.heard)) / time.Second)
				}
				all = append(all, v)
			}
			add(r.fwdBase, r.nextBase, r.fwdN, r.prev, r.next, r.fwd)
			add(r.backBase, r.prevBase, r.backN, r.next, r.prev, r.back)
		}
		for _, p := range n.core.pathList() {
			if p.fp == nil {
				continue
			}
			v := api.Route{
				Label: p.inBase, Kind: "end", In: p.first.link.Peer().String(), OutBase: p.outBase, Lanes: p.inN,
				Path: hex.EncodeToString(p.id[:]), IdleS: int((now - p.lastFrame()) / time.Second),
			}
			for _, l := range p.fp.Stats().In {
				v.Packets += l.Received + l.Streams
			}
			all = append(all, v)
		}
	})
	return all, err
}

// Records implements api.Node.
func (n *Node) Records(ctx context.Context) (all []api.Record, err error) {
	err = n.do(ctx, func(now time.Duration) {
		for _, e := range n.core.db.Entries() {
			r := api.Record{
				Key: e.Key, Name: e.Name, Address: n.network.Address(e.Key), Version: e.Version, Number: e.Number,
				AgeS: e.Age(now).Seconds(), Addrs: e.Addrs, Raw: e.Raw,
			}
			for _, l := range e.Links {
				r.Links = append(r.Links, api.RecordLink{Key: l.Peer, RTT: ms(l.RTT), Loss: l.Loss, Capacity: l.Capacity * 1000})
			}
			for _, s := range e.Services {
				r.Services = append(r.Services, app.Service{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta, Key: e.Key, Node: e.Name})
			}
			all = append(all, r)
		}
	})
	return all, err
}

// Resolve implements api.Node: a key, a petname, the name of a node in its record (with or without .mesh), or a mesh address.
// A name that several nodes claim stands for none of them.
func (n *Node) Resolve(ctx context.Context, name string) (key.Public, error) {
	if k, err := key.Parse(name); err == nil {
		return k, nil
	}
	var found []key.Public
	addr, addrErr := netip.ParseAddr(name)
	short := shortName(name)
	if k, ok := n.petnames.find(short); ok {
		return k, nil
	}
	err := n.do(ctx, func(time.Duration) {
		c := n.core
		if addrErr == nil {
			if k, ok := c.byAddr[addr]; ok {
				found = append(found, k)
			} else if k, ok := c.atIPv4(addr); ok {
				found = append(found, k)
			}
			return
		}
		if c.clustered() {
			found = c.named(short)
			return
		}
		if short == strings.ToLower(c.cfg.Name) && short != "" {
			found = append(found, c.self)
		}
		for _, e := range c.db.Entries() {
			if e.Key != c.self && strings.ToLower(e.Name) == short {
				found = append(found, e.Key)
			}
		}
	})
	switch {
	case err != nil:
		return key.Public{}, err
	case len(found) == 0:
		return key.Public{}, fmt.Errorf("%w: %q", ErrUnknown, name)
	case len(found) > 1:
		return key.Public{}, fmt.Errorf("%w: %d nodes call themselves %q, name one by its key", ErrUnknown, len(found), name)
	}
	return found[0], nil
}

// Member implements api.Node: whoever may have a session with us, which on an open node is everyone.
func (n *Node) Member(peer key.Public) bool {
	if n.members == nil && n.cfg.Open {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), managerCall)
	defer cancel()
	ok := false
	_ = n.do(ctx, func(time.Duration) { ok = n.core.admit(peer) == nil })
	return ok
}

// Ping implements api.Node.
func (n *Node) Ping(ctx context.Context, to key.Public) (time.Duration, error) {
	type result struct {
		rtt time.Duration
		err error
	}
	done := make(chan result, 1)
	if to == n.Key() {
		return 0, nil
	}
	if err := n.do(ctx, func(now time.Duration) {
		n.core.Ping(now, to, func(d time.Duration, err error) { done <- result{d, err} })
	}); err != nil {
		return 0, err
	}
	select {
	case r := <-done:
		return r.rtt, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-n.ended:
		return 0, ErrClosed
	}
}

// SetPolicy implements api.Node.
func (n *Node) SetPolicy(ctx context.Context, p app.Policy) error {
	conv := func(rules []app.Rule) []PrefixOf {
		all := make([]PrefixOf, 0, len(rules))
		for _, r := range rules {
			all = append(all, PrefixOf(r))
		}
		return all
	}
	return n.do(ctx, func(time.Duration) {
		n.core.SetPolicy(Policy{Routes: conv(p.Routes), Grants: conv(p.Grants), Serve: conv(p.Serve)})
	})
}

// Sockets implements api.Node.
func (n *Node) Sockets(context.Context) ([]*os.File, error) {
	var all []*os.File
	for _, s := range n.sockets {
		f, err := s.File()
		if err != nil {
			for _, o := range all {
				_ = o.Close()
			}
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}
