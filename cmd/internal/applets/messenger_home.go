//go:build !mini

package applets

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/node/api"
	"skywire/mesh/peering"
	"skywire/signal"
)

// messengerHome is the messenger's tie to the node of its box, which may be away at any time, at the start too. It is the
// messenger.Mesh and the messenger.Watcher.
type messengerHome struct {
	run    string
	visits func(node *app.Client) *peering.Visits
	log    *slog.Logger
	up     chan struct{} // closed when node and away are set, once
	node   *app.Client
	away   *peering.Visits

	mu      sync.Mutex // guards the fields below
	facts   homeFacts
	news    chan struct{} // closed at the next change of who is there
	changed func()        // called when what is known of the network is another
}

// homeFacts are what the node has said last.
type homeFacts struct {
	cluster    key.Public
	place      envelope.Place
	statements [][]byte
	online     []key.Public
	siblings   []key.Public // nodes of our cluster that offer the messenger, too
	there      bool
}

func newMessengerHome(f *applet.Flags, log *slog.Logger) *messengerHome {
	start := startVisit(log)
	return &messengerHome{
		run: f.Run, log: log, up: make(chan struct{}), news: make(chan struct{}), changed: func() {},
		visits: func(node *app.Client) *peering.Visits {
			return peering.NewVisits(peering.VisitsConfig{Home: node, Dir: filepath.Join(f.Run, "visits"), Start: start, Log: log})
		},
	}
}

// Dial implements messenger.Mesh.
func (h *messengerHome) Dial(ctx context.Context, at envelope.Place, node key.Public, service string, header []byte) (net.Conn, error) {
	select {
	case <-h.up:
		return h.away.Dial(ctx, at, node, service, header)
	default:
		return nil, app.ErrNotRunning
	}
}

// Accept implements messenger.Mesh.
func (h *messengerHome) Accept(ctx context.Context, service string) (net.Conn, error) {
	select {
	case <-h.up:
		return h.away.Accept(ctx, service)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Online implements messenger.Watcher.
func (h *messengerHome) Online() ([]key.Public, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.facts.online, h.news
}

// Near implements messenger.Finder.
func (h *messengerHome) Near(cluster key.Public) []key.Public {
	if f := h.known(); f.cluster == cluster {
		return f.siblings
	}
	return nil
}

func (h *messengerHome) known() homeFacts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.facts
}

// setChanged has f called when what is known of the network is another, and now.
func (h *messengerHome) setChanged(f func()) {
	h.mu.Lock()
	h.changed = f
	h.mu.Unlock()
	f()
}

// resolve asks the node whom a word names.
func (h *messengerHome) resolve(ctx context.Context, word string) (key.Public, error) {
	select {
	case <-h.up:
		return h.node.Resolve(ctx, word)
	default:
		return key.Public{}, signal.Errorf(signal.ErrNotFound, "the node, which might know it, is away")
	}
}

// petname tells the node our name for a key, or takes it back.
func (h *messengerHome) petname(ctx context.Context, name string, k key.Public) error {
	select {
	case <-h.up:
	default:
		return app.ErrNotRunning
	}
	if k.IsZero() {
		return h.node.Call(ctx, "petname.remove", api.PetnameParams{Name: name}, nil)
	}
	return h.node.Call(ctx, "petname.add", api.PetnameParams{Name: name, Key: k.String()}, nil)
}

const (
	homeLook  = 10 * time.Second // how often the network is looked at without news
	homePause = 2 * time.Second  // between two looks
)

// Run waits for the node, registers the messenger there, and keeps what is known of the network until ctx ends.
func (h *messengerHome) Run(ctx context.Context) error {
	node, err := nodeOf(ctx, h.run)
	if err != nil {
		return err
	}
	defer node.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Guests may come: who is a contact of ours need not be of our network. What counts is sealed and signed inside.
	reg := app.Registration{Name: messengerName, Kind: messengerName, Services: []app.Service{{
		Name: messenger.Service, Type: messengerName, Allow: []string{app.AnyMember, app.Guests},
	}}}
	if err := node.Register(ctx, reg); err != nil {
		return err
	}
	h.node, h.away = node, h.visits(node)
	close(h.up)
	var tie, visits error
	wg.Go(func() { tie = node.Run(ctx); cancel() })
	wg.Go(func() { visits = h.away.Run(ctx); cancel() })
	h.watch(ctx)
	cancel()
	wg.Wait()
	return errors.Join(tie, visits)
}

// watch looks at the network when the node tells of news, and now and then.
func (h *messengerHome) watch(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	after := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		err := h.look(ctx)
		if err == nil {
			var e api.Events
			if err = h.node.Call(ctx, "node.events", api.EventsParams{After: after, Limit: 1, WaitS: homeLook.Seconds()}, &e); err == nil {
				after = e.Next
			}
		}
		if err != nil && ctx.Err() == nil {
			h.log.Debug("the node does not answer", "err", err)
			h.set(func(f *homeFacts) { f.there, f.online, f.siblings = false, nil, nil })
		}
		pause.Reset(homePause)
	}
}

// look asks the node for all that the messenger wants to know of its network.
func (h *messengerHome) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, messengerTimeout)
	defer cancel()
	self := h.node.Self()
	var st struct {
		Cluster string `json:"cluster"`
	}
	if err := h.node.Call(ctx, "node.status", nil, &st); err != nil {
		return err
	}
	f := homeFacts{there: true}
	var err error
	if st.Cluster != "" {
		if f.cluster, err = key.Parse(st.Cluster); err != nil {
			return err
		}
		if f.statements, err = ownStatements(ctx, h.node, self.Key); err != nil {
			return err
		}
	}
	records, err := allRecords(ctx, h.node)
	if err != nil {
		return err
	}
	f.online = reachedBy(self.Key, records)
	f.place = envelope.Place{Cluster: f.cluster, Contacts: meetingPoints(self.Key, records)}
	for _, r := range records {
		for _, s := range r.Services {
			if s.Type == messengerName && r.Key != self.Key && !f.cluster.IsZero() {
				f.siblings = append(f.siblings, r.Key)
			}
		}
	}
	h.set(func(now *homeFacts) { *now = f })
	return nil
}

// set replaces what is known, and tells who waits for it.
func (h *messengerHome) set(change func(*homeFacts)) {
	h.mu.Lock()
	before := h.facts
	change(&h.facts)
	now := h.facts
	people := !sameKeys(before.online, now.online)
	if people {
		close(h.news)
		h.news = make(chan struct{})
	}
	changed := h.changed
	h.mu.Unlock()
	if people || !samePlace(before.place, now.place) || !sameBytes(before.statements, now.statements) || !sameKeys(before.siblings, now.siblings) {
		changed()
	}
}

func sameKeys(a, b []key.Public) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func samePlace(a, b envelope.Place) bool {
	if a.Cluster != b.Cluster || len(a.Contacts) != len(b.Contacts) {
		return false
	}
	for i := range a.Contacts {
		if a.Contacts[i] != b.Contacts[i] {
			return false
		}
	}
	return true
}

func sameBytes(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if string(a[i]) != string(b[i]) {
			return false
		}
	}
	return true
}

// allRecords are those that the node holds, in order of their keys.
func allRecords(ctx context.Context, node *app.Client) (all []api.Record, err error) {
	for {
		var p api.RecordsParams
		if len(all) > 0 {
			p.After = all[len(all)-1].Key
		}
		var page []api.Record
		if err := node.Call(ctx, "node.records", p, &page); err != nil || len(page) == 0 {
			return all, err
		}
		for i := range page {
			page[i].Raw = nil
		}
		all = append(all, page...)
	}
}

// reachedBy are the nodes to which links lead, as their records say. A node that is gone is named by no neighbour any more, while its
// own record lives on for a time.
func reachedBy(self key.Public, records []api.Record) (online []key.Public) {
	links := map[key.Public][]api.RecordLink{}
	for _, r := range records {
		links[r.Key] = r.Links
	}
	seen := map[key.Public]bool{self: true}
	for next := []key.Public{self}; len(next) > 0; next = next[1:] {
		for _, l := range links[next[0]] {
			if _, stated := links[l.Key]; stated && !seen[l.Key] {
				seen[l.Key] = true
				next = append(next, l.Key)
			}
		}
	}
	for _, r := range records { // in their order
		if seen[r.Key] && r.Key != self {
			online = append(online, r.Key)
		}
	}
	return online
}

// meetingPoints are addresses by which others find this box: its own, else those of its neighbours.
func meetingPoints(self key.Public, records []api.Record) (all []member.Contact) {
	var neighbours []api.RecordLink
	add := func(r api.Record) {
		for _, a := range r.Addrs {
			if len(all) < member.MaxContacts && len(a) <= member.MaxContactAddr && canBeMet(a) {
				all = append(all, member.Contact{Key: r.Key, Addr: a})
			}
		}
	}
	for _, r := range records {
		if r.Key == self {
			neighbours = r.Links
			add(r)
		}
	}
	for _, r := range records {
		for _, l := range neighbours {
			if l.Key == r.Key && len(all) < member.MaxContacts {
				add(r)
			}
		}
	}
	return all
}

// canBeMet tells an address that others may dial from those that mean something on the box alone.
func canBeMet(addr string) bool {
	if _, after, ok := strings.Cut(addr, "://"); ok {
		addr, _, _ = strings.Cut(after, "/")
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	a, err := netip.ParseAddr(host)
	return host != "" && (err != nil || !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast())
}

// ownStatements prove that the node belongs to its cluster: the admin list, its certificate, and the last revocations, so that
// contacts hear of a box that was stolen.
func ownStatements(ctx context.Context, node *app.Client, self key.Public) ([][]byte, error) {
	var list, certificate []byte
	var revoked [][]byte
	for after := []byte(nil); ; {
		var page api.StatementsPage
		if err := node.Call(ctx, "member.list", api.AfterParams{After: after}, &page); err != nil {
			return nil, err
		}
		for _, raw := range page.Statements {
			if len(raw) == 0 {
				continue
			}
			switch member.Kind(raw[0]) {
			case member.KindAdmins:
				list = raw
			case member.KindRevocation:
				revoked = append(revoked, raw)
			case member.KindCertificate:
				if c, err := member.ParseCertificate(raw); err == nil && c.Node == self {
					certificate = raw
				}
			}
		}
		if after = page.Next; len(page.Statements) == 0 || len(after) == 0 {
			break
		}
	}
	if list == nil || certificate == nil {
		return nil, nil
	}
	all := [][]byte{list}
	all = append(all, revoked[max(0, len(revoked)-(envelope.MaxStatements-2)):]...)
	return append(all, certificate), nil
}
