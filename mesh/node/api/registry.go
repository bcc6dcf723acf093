package api

import (
	"context"
	"encoding/json"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/stream"
	"skywire/signal"
)

// registry is the apps that are connected and what they offer.
type registry struct {
	streams Streams
	offer   func(ctx context.Context, s *service, in *stream.Incoming)
	members members

	change sync.Mutex // serialises register and leave; taken before mu

	mu      sync.Mutex // guards the fields below
	apps    map[string]*entry
	devices map[string]*signal.Conn // TUN → who attached it; nil: none yet
	offered map[string]*service
	changed chan struct{}
	live    map[*live]struct{}
	shares  map[sharer]*share
}

// members is what the registry asks about peers; Node has it.
type members interface {
	Member(peer key.Public) bool
	Whois(ctx context.Context, name string) (app.Identity, error)
}

// tagsTimeout bounds the look at a peer's certificate.
const tagsTimeout = 5 * time.Second

// entry is one app.
type entry struct {
	conn     *signal.Conn
	cred     signal.Cred
	since    time.Time
	reg      app.Registration
	services []*service
	tally    *stream.Tally
	status   json.RawMessage // guarded by registry.mu
}

// service is one of its services.
type service struct {
	app.Service
	owner  uint32 // uid
	any    bool
	guests bool // those too who are not members
	tagged bool // Allow names tags
	allow  map[key.Public]bool
	gone   chan struct{} // closed when it is no longer offered
	remove func()

	mu      sync.Mutex // guards the fields below
	left    bool
	waiters []*waiter      // programs that wait for a stream
	pending []chan *waiter // streams that wait for a program; capacity 1 each
	streams int
}

func newRegistry(st Streams, offer func(context.Context, *service, *stream.Incoming), m members) *registry {
	return &registry{
		streams: st, offer: offer, members: m,
		apps: map[string]*entry{}, offered: map[string]*service{}, changed: make(chan struct{}),
		live: map[*live]struct{}{}, shares: map[sharer]*share{},
	}
}

// register takes an app in, or replaces what the same connection had said before.
func (r *registry) register(conn *signal.Conn, cred signal.Cred, reg app.Registration) error {
	e := &entry{conn: conn, cred: cred, since: time.Now(), reg: reg, tally: &stream.Tally{}}
	if err := e.check(); err != nil {
		return err
	}
	defer r.recheck() // the lists may be shorter now
	r.change.Lock()
	defer r.change.Unlock()
	if err := r.free(e); err != nil {
		return err
	}
	if old := r.drop(conn); old != nil {
		e.tally = old.tally // the same app says anew what it offers
	}
	for i, s := range e.services {
		remove, err := r.streams.Handle(s.Name, stream.Service{
			Packets: s.Packets,
			Allow:   func(k key.Public) bool { return r.allowed(s, k) },
			Handle:  func(ctx context.Context, in *stream.Incoming) { r.offer(ctx, s, in) },
		})
		if err != nil {
			for _, done := range e.services[:i] {
				done.remove()
			}
			return signal.Errorf(signal.ErrRefused, "service %q: %v", s.Name, err)
		}
		s.remove = remove
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.apps[reg.Name] = e
	for _, s := range e.services {
		r.offered[s.Name] = s
	}
	r.changedLocked()
	return nil
}

// allowed tells whether a peer may open streams to a service.
func (r *registry) allowed(s *service, k key.Public) bool {
	if s.guests || (s.any || s.allow[k]) && r.members.Member(k) {
		return true
	}
	if !s.tagged {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), tagsTimeout)
	defer cancel()
	i, err := r.members.Whois(ctx, k.String())
	return err == nil && i.Tagged(s.Allow)
}

// free checks that nobody else has the app's names.
func (r *registry) free(e *entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.apps[e.reg.Name]; old != nil && old.conn != e.conn {
		return signal.Errorf(signal.ErrRefused, "app %q is registered already, by pid %d", e.reg.Name, old.cred.PID)
	}
	if len(r.apps) >= maxApps {
		return signal.Errorf(signal.ErrBusy, "%d apps are registered, that is all there is room for", maxApps)
	}
	for _, s := range e.services {
		for name, other := range r.apps {
			if other.conn != e.conn && slices.ContainsFunc(other.services, func(o *service) bool { return o.Name == s.Name }) {
				return signal.Errorf(signal.ErrRefused, "service %q is offered already, by app %q", s.Name, name)
			}
		}
	}
	return nil
}

// check turns a registration into services.
func (e *entry) check() error {
	if !validName(e.reg.Name) || !validName(e.reg.Kind) {
		return signal.Errorf(signal.ErrUsage, "app.register: name %q and kind %q need 1 to %d of a-z 0-9 - _ .", e.reg.Name, e.reg.Kind, maxName)
	}
	if len(e.reg.Services) > maxServices {
		return signal.Errorf(signal.ErrUsage, "app.register: more than %d services", maxServices)
	}
	seen := map[string]bool{benchService: true}
	for _, s := range e.reg.Services {
		if !validService(s.Name) || !validName(s.Type) || seen[s.Name] || len(s.Meta) > maxMeta || len(s.Allow) > maxAllow {
			return signal.Errorf(signal.ErrUsage, "app.register: service %q of type %q: name taken twice or a field too long", s.Name, s.Type)
		}
		seen[s.Name] = true
		sv := &service{
			Service: app.Service{Name: s.Name, Type: s.Type, Port: s.Port, Allow: s.Allow, Meta: s.Meta, Packets: s.Packets},
			owner:   e.cred.UID, allow: map[key.Public]bool{}, gone: make(chan struct{}),
		}
		for _, a := range s.Allow {
			if a == app.AnyMember || a == app.Guests {
				sv.any, sv.guests = true, sv.guests || a == app.Guests
				continue
			}
			if len(a) > len(app.TagMark) && strings.HasPrefix(a, app.TagMark) {
				sv.tagged = true
				continue
			}
			k, err := key.Parse(a)
			if err != nil {
				return signal.Errorf(signal.ErrUsage, "app.register: service %q: allow %q: %v", s.Name, a, err)
			}
			sv.allow[k] = true
		}
		e.services = append(e.services, sv)
	}
	return nil
}

func validName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}

// validService allows a cluster's name behind a service that leads there: web@oslo.
func validService(s string) bool {
	name, cluster, away := strings.Cut(s, "@")
	return len(s) <= maxName && validName(name) && (!away || validName(cluster))
}

// leave forgets what a connection has registered.
func (r *registry) leave(conn *signal.Conn) {
	r.change.Lock()
	defer r.change.Unlock()
	r.drop(conn)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetDevicesLocked(conn)
}

// drop does so with change held, and returns what there was.
func (r *registry) drop(conn *signal.Conn) (gone *entry) {
	r.mu.Lock()
	for name, e := range r.apps {
		if e.conn == conn {
			gone = e
			delete(r.apps, name)
		}
	}
	if gone == nil {
		r.mu.Unlock()
		return nil
	}
	for _, s := range gone.services {
		delete(r.offered, s.Name)
	}
	r.changedLocked()
	r.mu.Unlock()
	for _, s := range gone.services {
		s.remove()
		s.leave()
	}
	return gone
}

func (r *registry) changedLocked() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *registry) changes() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// service finds what a program may take streams of.
func (r *registry) service(name string) *service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.offered[name]
}

func (r *registry) conn(name string) *signal.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.apps[name]; e != nil {
		return e.conn
	}
	return nil
}

func (r *registry) setStatus(conn *signal.Conn, status json.RawMessage) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.apps {
		if e.conn == conn {
			e.status = status
			return nil
		}
	}
	return signal.Errorf(signal.ErrUsage, "app.status: register first")
}

// services are sorted by name, so that equal sets make equal records.
func (r *registry) services() []app.Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]app.Service, 0, len(r.offered))
	for _, s := range r.offered {
		all = append(all, s.Service)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (r *registry) list() []App {
	devices := deviceCounters()
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]App, 0, len(r.apps))
	for _, e := range r.apps {
		a := App{
			Name: e.reg.Name, Kind: e.reg.Kind, PID: e.cred.PID, UID: int(e.cred.UID), Since: e.since,
			Services: []app.Service{}, Status: e.status,
		}
		a.RxBytes, a.TxBytes = r.trafficLocked(e, devices)
		for _, s := range e.services {
			a.Services = append(a.Services, s.Service)
			a.Streams += s.count(0)
		}
		all = append(all, a)
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}
