package publish

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// meshSuffix ends the names of nodes, and of services of nodes.
const meshSuffix = ".mesh"

// Names is what Finder asks; *app.Client has it.
type Names interface {
	// Lookup finds who has a name for certain, and what that node offers.
	Lookup(ctx context.Context, name string) (app.Names, error)
	LookupAddr(ctx context.Context, a netip.Addr) (app.Names, error)
}

// Finder finds published services by the names and addresses that programs use for them.
type Finder struct {
	names  Names
	prefix netip.Prefix // of mesh addresses
}

// NewFinder returns a Finder of the node's mesh.
func NewFinder(node *app.Client) *Finder {
	return &Finder{names: node, prefix: node.Self().Prefix}
}

// Lookup finds who publishes what stands behind host and port: SERVICE.NODE.mesh, NODE.mesh or a mesh address. ok is false
// if host is none of these; an error says that it is, and that there is no such service. A refusal shows at the dial.
func (f *Finder) Lookup(ctx context.Context, host string, port uint16, udp bool) (k key.Public, service string, ok bool, err error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	var n app.Names
	if a, perr := netip.ParseAddr(host); perr == nil {
		if !f.prefix.Contains(a) {
			return k, "", false, nil
		}
		n, err = f.names.LookupAddr(ctx, a)
	} else {
		name, isMesh := strings.CutSuffix(host, meshSuffix)
		if !isMesh {
			return k, "", false, nil
		}
		if s, node, two := strings.Cut(name, "."); two {
			service, name = s, node
		}
		n, err = f.names.Lookup(ctx, name)
	}
	if err != nil {
		return k, "", true, fmt.Errorf("%s: %w", host, err)
	}
	s := findService(n.Services, service, port, udp)
	if s == nil {
		return n.Key, "", true, fmt.Errorf("%s publishes no %s: %w", host, wanted(service, port, udp), ErrService)
	}
	return n.Key, s.Name, true, nil
}

// findService finds a published service by name, by port, or, if both are given, by both.
func findService(all []app.Service, name string, port uint16, udp bool) *app.Service {
	for i := range all {
		s := &all[i]
		fits := s.Type == app.TypeBoth || s.Type == app.TypeTCP && !udp || s.Type == app.TypeUDP && udp
		if fits && (name == "" || s.Name == name) && (port == 0 || s.Port == port) {
			return s
		}
	}
	return nil
}

// wanted says in words what was looked for.
func wanted(name string, port uint16, udp bool) string {
	s := "TCP service"
	if udp {
		s = "UDP service"
	}
	if name != "" {
		s += " " + strconv.Quote(name)
	}
	if port != 0 {
		s += " at port " + strconv.Itoa(int(port))
	}
	return s
}
