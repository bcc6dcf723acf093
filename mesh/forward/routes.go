package forward

import (
	"maps"
	"net/netip"
	"slices"
	"sort"
)

// Routes says which session an inner destination belongs to.
type Routes struct {
	Hosts    map[netip.Addr]*Session // exact addresses: mesh addresses, certified IPv4
	Prefixes []PrefixRoute           // longest match; the first of equals
}

// PrefixRoute sends what lies in Prefix to Session.
type PrefixRoute struct {
	Prefix  netip.Prefix
	Session *Session
}

// routes is the immutable form that workers read: prefixes by falling length.
type routes Routes

// SetRoutes replaces the routes; r is copied.
func (p *Plane) SetRoutes(r *Routes) {
	n := &routes{Hosts: maps.Clone(r.Hosts), Prefixes: slices.Clone(r.Prefixes)}
	sort.SliceStable(n.Prefixes, func(i, j int) bool { return n.Prefixes[i].Prefix.Bits() > n.Prefixes[j].Prefix.Bits() })
	p.routes.Store(n)
}

func (r *routes) lookup(a netip.Addr) *Session {
	if s := r.Hosts[a]; s != nil {
		return s
	}
	for i := range r.Prefixes {
		if r.Prefixes[i].Prefix.Contains(a) {
			return r.Prefixes[i].Session
		}
	}
	return nil
}
