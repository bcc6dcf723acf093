package tracker

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
	"unicode"

	"skywire/mesh/key"
	"skywire/mesh/route"
)

// Times and limits of a registry.
const (
	Life       = 90 * time.Second // of an entry that nobody renews
	Renew      = 30 * time.Second // how often to renew one
	MaxNodes   = 4096
	recordLife = 2 * time.Hour // how long one and the same record renews
)

// Service is what a node offers.
type Service struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Port uint16 `json:"port"`
	Meta string `json:"meta,omitempty"`
}

// Entry is a service in the registry.
type Entry struct {
	Key key.Public `json:"key"`
	Service
	Seen    time.Time `json:"seen"`
	Expires time.Time `json:"expires"`
}

// Registry holds the services of nodes. It is safe for concurrent use; the times are handed in.
type Registry struct {
	network key.NetworkID

	mu    sync.Mutex // guards the fields below
	nodes map[key.Public]*node
	heard map[key.Public]heard // records taken, also of nodes whose entries have expired
}

// source is how services were announced. What a node said itself stands before what its record says.
type source int

const (
	said source = iota
	recorded
	sources
)

type node [sources]struct {
	services []Service
	seen     time.Time
}

func (n *node) live(now time.Time) bool {
	return now.Sub(n[said].seen) < Life || now.Sub(n[recorded].seen) < Life
}

type heard struct {
	number uint64
	first  time.Time
}

// NewRegistry makes an empty registry for one network.
func NewRegistry(network key.NetworkID) *Registry {
	return &Registry{network: network, nodes: make(map[key.Public]*node), heard: make(map[key.Public]heard)}
}

// Put replaces the services that a node announces itself, over a stream that proved its key.
func (r *Registry) Put(now time.Time, k key.Public, services []Service) error {
	if err := check(services); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.putLocked(now, k, said, services)
}

// PutRecorded replaces the services that a node's record names, by the word of somebody who has verified the record.
func (r *Registry) PutRecorded(now time.Time, k key.Public, services []Service) error {
	if err := check(services); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.putLocked(now, k, recorded, services)
}

func (r *Registry) putLocked(now time.Time, k key.Public, from source, services []Service) error {
	if r.nodes[k] == nil && len(services) == 0 {
		return nil
	}
	if r.nodes[k] == nil && len(r.nodes) >= MaxNodes {
		if r.expireLocked(now); len(r.nodes) >= MaxNodes {
			return ErrFull
		}
	}
	if r.nodes[k] == nil {
		r.nodes[k] = &node{}
	}
	n := &r.nodes[k][from]
	n.services, n.seen = slices.Clone(services), now
	return nil
}

// PutRecord takes the services out of a node's signed record.
func (r *Registry) PutRecord(now time.Time, raw []byte) error {
	rec, err := route.ParseRecord(raw, r.network)
	if err != nil {
		return err
	}
	services := make([]Service, len(rec.Services))
	for i, s := range rec.Services {
		services[i] = Service{Name: s.Name, Type: s.Type, Port: s.Port, Meta: s.Meta}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	h, known := r.heard[rec.Key]
	switch {
	case known && rec.Number < h.number, known && rec.Number == h.number && now.Sub(h.first) > recordLife:
		return fmt.Errorf("%w: number %d of %s", ErrStale, rec.Number, rec.Key.Short())
	case !known && len(r.heard) >= MaxNodes:
		if r.expireLocked(now); len(r.heard) >= MaxNodes && !r.forgetLocked() {
			return ErrFull
		}
	}
	if !known || rec.Number > h.number {
		r.heard[rec.Key] = heard{number: rec.Number, first: now}
	}
	return r.putLocked(now, rec.Key, recorded, services)
}

// List returns the live entries of one type, or of all if kind is empty, by type, then key, then name.
func (r *Registry) List(now time.Time, kind string) []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []Entry{}
	for k, n := range r.nodes {
		named := make(map[string]bool)
		for _, from := range n {
			if now.Sub(from.seen) >= Life {
				continue
			}
			for _, s := range from.services {
				if !named[s.Name] && (kind == "" || s.Type == kind) {
					all = append(all, Entry{Key: k, Service: s, Seen: from.seen.UTC(), Expires: from.seen.Add(Life).UTC()})
				}
				named[s.Name] = true
			}
		}
	}
	sort.Slice(all, func(i, j int) bool { return order(all[i], all[j]) < 0 })
	return all
}

func order(a, b Entry) int {
	if c := strings.Compare(a.Type, b.Type); c != 0 {
		return c
	}
	if c := slices.Compare(a.Key[:], b.Key[:]); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// Expire drops what nobody renewed.
func (r *Registry) Expire(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expireLocked(now)
}

// forgetLocked makes room for a record where the numbers of records that nobody renews take all of it: anybody can make
// keys and sign with them. The one heard first goes.
func (r *Registry) forgetLocked() bool {
	var oldest key.Public
	found := false
	for k, h := range r.heard {
		if r.nodes[k] == nil && (!found || h.first.Before(r.heard[oldest].first)) {
			oldest, found = k, true
		}
	}
	delete(r.heard, oldest)
	return found
}

// expireLocked keeps the number of a record for another life after it stopped renewing, so that it can't come back.
func (r *Registry) expireLocked(now time.Time) {
	for k, n := range r.nodes {
		if !n.live(now) {
			delete(r.nodes, k)
		}
	}
	for k, h := range r.heard {
		if r.nodes[k] == nil && now.Sub(h.first) > 2*recordLife {
			delete(r.heard, k)
		}
	}
}

// check holds services to the bounds that records have.
func check(services []Service) error {
	if len(services) > route.MaxServices {
		return fmt.Errorf("%w: %d of one node, at most %d", ErrService, len(services), route.MaxServices)
	}
	for i, s := range services {
		switch {
		case s.Name == "" || !printable(s.Name, route.MaxName):
			return fmt.Errorf("%w: name %q", ErrService, s.Name)
		case !printable(s.Type, route.MaxType):
			return fmt.Errorf("%w: type %q", ErrService, s.Type)
		case !printable(s.Meta, route.MaxMeta):
			return fmt.Errorf("%w: meta of %q", ErrService, s.Name)
		case slices.ContainsFunc(services[:i], func(o Service) bool { return o.Name == s.Name }):
			return fmt.Errorf("%w: %q twice", ErrService, s.Name)
		}
	}
	return nil
}

func printable(s string, limit int) bool {
	return len(s) <= limit && !strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) || c == unicode.ReplacementChar })
}
