package manager

import (
	"context"
	"encoding/json"
	"net/netip"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/signal"
)

// Methods that people ask through the node (app.call, app "manager").
const (
	MethodNodes = "manager.nodes" // NodesParams → []NodeInfo; ask again after the last one until there is none
	MethodLinks = "manager.links" // LinksParams → []LinkInfo, alike
	MethodPath  = "manager.path"  // PathParams → []PathInfo
	MethodID    = "manager.id"    // → ID
)

// maxPage bounds what one answer holds, so that it fits a line of signal; all of a small mesh does.
const maxPage = 512 << 10

// Roughly what the JSON of one element takes.
const (
	nodeBytes   = 512
	linkBytes   = 512
	perRawBytes = 3 // for each byte of a record
)

// NodesParams asks for the nodes whose keys follow After.
type NodesParams struct {
	After key.Public `json:"after,omitzero"`
}

// LinksParams asks for the links that follow the one between AfterA and AfterB.
type LinksParams struct {
	AfterA key.Public `json:"after_a,omitzero"`
	AfterB key.Public `json:"after_b,omitzero"`
}

// NodeInfo is a node as the manager sees it.
type NodeInfo struct {
	Key       key.Public    `json:"key"`
	Name      string        `json:"name"`
	Address   netip.Addr    `json:"address"`
	Online    bool          `json:"online"`
	LastSeen  time.Time     `json:"last_seen"`
	Addresses []string      `json:"addresses"`
	Version   string        `json:"version"`
	Links     []NodeLink    `json:"links"` // as the node states them
	Services  []ServiceInfo `json:"services"`
	Reports   bool          `json:"reports"` // it has a stream to this manager
}

// NodeLink is one end's statement about a link.
type NodeLink struct {
	Key  key.Public `json:"key"`
	RTT  float64    `json:"rtt_ms"`
	Loss float64    `json:"loss"`
}

// ServiceInfo is a service that a node offers.
type ServiceInfo struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Port uint16 `json:"port"`
	Meta string `json:"meta,omitempty"`
}

// LinkInfo is a link between two nodes that both state it, at the worse of both measures.
type LinkInfo struct {
	A        key.Public `json:"a"`
	B        key.Public `json:"b"`
	AName    string     `json:"a_name"`
	BName    string     `json:"b_name"`
	RTT      float64    `json:"rtt_ms"`
	Loss     float64    `json:"loss"`
	Jitter   float64    `json:"jitter_ms"`
	Capacity uint64     `json:"capacity_kbit_s"` // 0: not known
	Carrier  string     `json:"carrier"`
	MTU      int        `json:"mtu"`
	UpS      float64    `json:"up_s"`  // at least
	Flaps    float64    `json:"flaps"` // times that it came back lately
	Cost     uint64     `json:"cost"`  // µs
}

// PathParams names two nodes by key, name or mesh address.
type PathParams struct {
	From string `json:"from"`
	To   string `json:"to"`
	K    int    `json:"k"` // 0: 2
	// Avoid, Prefer and Trusted name relays, as Constraints do.
	Avoid   []string `json:"avoid,omitempty"`
	Prefer  []string `json:"prefer,omitempty"`
	Trusted []string `json:"trusted,omitempty"`
	MaxHops int      `json:"max_hops,omitempty"`
}

// PathInfo is a path, the best first; names stand for people beside the keys.
type PathInfo struct {
	Hops  []key.Public `json:"hops"`
	Names []string     `json:"names"`
	RTT   float64      `json:"rtt_ms"`
	Loss  float64      `json:"loss"`
	Cost  uint64       `json:"cost"` // µs, before preferences
	// Capacity is of the narrowest link that was seen to be full, 0 unknown.
	Capacity uint64 `json:"capacity_kbit_s"`
}

// ID is who the manager is.
type ID struct {
	Key     key.Public    `json:"key"`
	Address netip.Addr    `json:"address"`
	Name    string        `json:"name"`
	Network key.NetworkID `json:"network"`
	Nodes   int           `json:"nodes"`   // known
	Reports int           `json:"reports"` // with a stream to this manager
}

// call answers people. Who may ask was decided by the node: its socket is closed to others.
func (m *Manager) call(ctx context.Context, method string, params json.RawMessage) (any, error) {
	switch method {
	case MethodNodes:
		var p NodesParams
		if err := (&signal.Request{Params: params}).Bind(&p); err != nil {
			return nil, err
		}
		return m.Nodes(p), nil
	case MethodLinks:
		var p LinksParams
		if err := (&signal.Request{Params: params}).Bind(&p); err != nil {
			return nil, err
		}
		return m.Links(p), nil
	case MethodPath:
		var p PathParams
		if err := (&signal.Request{Params: params}).Bind(&p); err != nil {
			return nil, err
		}
		return m.Path(p)
	case MethodID:
		return m.ID(), nil
	}
	if m.c.Issuer != nil {
		return m.c.Issuer.Call(ctx, method, params)
	}
	return nil, signal.Errorf(signal.ErrUnknownMethod, "unknown method %q", method)
}

// Nodes returns a page of nodes in order of their keys.
func (m *Manager) Nodes(p NodesParams) []NodeInfo {
	self := m.c.Node.Self()
	m.mu.Lock()
	defer m.mu.Unlock()
	now, wall := m.now(), time.Now()
	entries := m.db.Entries()
	online := m.onlineLocked(now, self.Key)
	all := make([]NodeInfo, 0, len(entries))
	size := 0
	for _, e := range entries {
		if !p.After.Less(e.Key) && !p.After.IsZero() {
			continue
		}
		if size += nodeBytes + perRawBytes*len(e.Raw); size > maxPage {
			break
		}
		n := NodeInfo{
			Key: e.Key, Name: e.Name, Address: self.Network.Address(e.Key), Online: online[e.Key], Version: e.Version,
			Addresses: append([]string{}, e.Addrs...), Links: []NodeLink{}, Services: []ServiceInfo{},
			Reports: m.sessions[e.Key] != nil,
		}
		n.LastSeen = m.lastSeenLocked(e, n.Online, now, wall)
		for _, l := range e.Links {
			n.Links = append(n.Links, NodeLink{Key: l.Peer, RTT: ms(l.RTT), Loss: l.Loss})
		}
		for _, s := range e.Services {
			n.Services = append(n.Services, ServiceInfo{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta})
		}
		all = append(all, n)
	}
	return all
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (m *Manager) lastSeenLocked(e *route.Entry, online bool, now time.Duration, wall time.Time) time.Time {
	seen := wall.Add(-e.Age(now))
	if online {
		seen = wall
	} else if t, ok := m.seen[e.Key]; ok && t.After(seen) {
		seen = t
	}
	return seen.UTC().Truncate(time.Second)
}

// onlineLocked tells which nodes are there: those whose stream is in use, and those with a fresh record that can be
// reached from them over links that both ends state. A node that dies is dropped from its neighbours' records, and so
// from here, long before its own record has aged or its stream has broken.
func (m *Manager) onlineLocked(now time.Duration, self key.Public) map[key.Public]bool {
	var fresh []*route.Record
	for _, e := range m.db.Entries() {
		if e.Age(now) < freshLife {
			fresh = append(fresh, e.Record)
		}
	}
	g := route.NewGraph(fresh)
	adjacent := make(map[key.Public][]key.Public)
	for _, e := range g.Edges() {
		adjacent[e.A] = append(adjacent[e.A], e.B)
		adjacent[e.B] = append(adjacent[e.B], e.A)
	}
	online := map[key.Public]bool{self: true}
	queue := []key.Public{self}
	for k, s := range m.sessions {
		if !online[k] && s.hello && time.Since(s.asked) < liveTime {
			online[k] = true
			queue = append(queue, k)
		}
	}
	for len(queue) > 0 {
		k := queue[0]
		queue = queue[1:]
		for _, peer := range adjacent[k] {
			if !online[peer] {
				online[peer] = true
				queue = append(queue, peer)
			}
		}
	}
	return online
}

func (m *Manager) records() []*route.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.All()
}

func names(records []*route.Record) map[key.Public]string {
	all := make(map[key.Public]string, len(records))
	for _, r := range records {
		all[r.Key] = r.Name
	}
	return all
}

// Links returns a page of the links that both ends state, in order of their ends.
func (m *Manager) Links(p LinksParams) []LinkInfo {
	records := m.records()
	name := names(records)
	edges := route.NewGraph(records).Edges()
	all := make([]LinkInfo, 0, len(edges))
	for _, e := range edges {
		if e.A.Less(p.AfterA) || e.A == p.AfterA && !p.AfterB.Less(e.B) {
			continue
		}
		if len(all) == maxPage/linkBytes {
			break
		}
		all = append(all, LinkInfo{
			A: e.A, B: e.B, AName: name[e.A], BName: name[e.B],
			RTT: ms(e.RTT), Loss: e.Loss, Jitter: ms(e.Jitter), Capacity: e.Capacity, Cost: e.Cost, Carrier: route.CarrierName(e.Carrier),
			MTU: e.MTU, UpS: route.Link{Up: e.Up}.UpFor().Seconds(), Flaps: e.Flaps,
		})
	}
	return all
}

// Path computes disjoint paths between two nodes.
func (m *Manager) Path(p PathParams) ([]PathInfo, error) {
	if p.K == 0 {
		p.K = 2
	}
	if p.K < 0 || p.K > route.MaxPaths {
		return nil, signal.Errorf(signal.ErrUsage, "k must be between 1 and %d", route.MaxPaths)
	}
	records := m.records()
	from, err := m.resolve(records, p.From)
	if err != nil {
		return nil, err
	}
	to, err := m.resolve(records, p.To)
	if err != nil {
		return nil, err
	}
	if from == to {
		return nil, signal.Errorf(signal.ErrUsage, "both ends are %s", p.From)
	}
	rules, err := m.rules(records, p)
	if err != nil {
		return nil, err
	}
	name := names(records)
	g := route.NewGraph(records)
	paths := route.Paths(g, from, to, p.K, rules)
	if len(paths) == 0 {
		if len(route.Paths(g, from, to, 1, route.Constraints{})) > 0 {
			return nil, signal.Errorf(signal.ErrUnreachable, "the rules permit none of the paths from %s to %s", p.From, p.To)
		}
		return nil, signal.Errorf(signal.ErrUnreachable, "no path from %s to %s in the records held", p.From, p.To)
	}
	all := make([]PathInfo, 0, len(paths))
	for _, path := range paths {
		info := PathInfo{Hops: path.Hops, RTT: ms(path.RTT), Loss: path.Loss, Cost: path.Cost, Capacity: path.Capacity}
		for _, k := range path.Hops {
			info.Names = append(info.Names, name[k])
		}
		all = append(all, info)
	}
	return all, nil
}

// rules reads what the asker wants of relays.
func (m *Manager) rules(records []*route.Record, p PathParams) (c route.Constraints, err error) {
	if p.MaxHops < 0 || p.MaxHops > route.MaxHops {
		return c, signal.Errorf(signal.ErrUsage, "max_hops must be between 1 and %d", route.MaxHops)
	}
	c.MaxHops = p.MaxHops
	for _, l := range []struct {
		from []string
		to   *[]key.Public
	}{{p.Avoid, &c.Avoid}, {p.Prefer, &c.Prefer}, {p.Trusted, &c.Only}} {
		for _, text := range l.from {
			k, err := m.resolve(records, text)
			if err != nil {
				return c, err
			}
			*l.to = append(*l.to, k)
		}
	}
	return c, nil
}

// resolve finds a node by key, mesh address, or the name in its record with or without ".mesh". Such names are the
// nodes' own claims, so one that two nodes claim is refused.
func (m *Manager) resolve(records []*route.Record, text string) (key.Public, error) {
	network := m.c.Node.Self().Network
	asKey, keyErr := key.Parse(text)
	addr, addrErr := netip.ParseAddr(text)
	name := strings.TrimSuffix(text, ".mesh")
	var found []key.Public
	for _, r := range records {
		switch {
		case keyErr == nil && r.Key == asKey, addrErr == nil && network.Address(r.Key) == addr:
			return r.Key, nil
		case text != "" && strings.EqualFold(r.Name, name):
			found = append(found, r.Key)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return key.Public{}, signal.Errorf(signal.ErrNotFound, "no record of a node %q; see: manager nodes", text)
	}
	keys := make([]string, len(found))
	for i, k := range found {
		keys[i] = k.String()
	}
	return key.Public{}, signal.Errorf(signal.ErrUsage, "%d nodes claim the name %q, give a key: %s", len(found), text, strings.Join(keys, " "))
}

// ID returns who the manager is.
func (m *Manager) ID() ID {
	self := m.c.Node.Self()
	m.mu.Lock()
	defer m.mu.Unlock()
	return ID{
		Key: self.Key, Address: self.Address, Name: self.Name, Network: self.Network,
		Nodes: m.db.Len(), Reports: len(m.sessions),
	}
}
