package dns

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"skywire/mesh/app"
)

// answer is the answer to a message, nil if it gets none.
func (s *Server) answer(ctx context.Context, b []byte, tcp bool) []byte {
	q, rcode, reply := parseQuestion(b)
	if !reply {
		return nil
	}
	s.asked.Add(1)
	if rcode != 0 {
		return q.refuse(rcode, tcp)
	}
	inside := func(zone string) bool { return within(q.name, zone) }
	if !inside(Zone) && !slices.ContainsFunc(s.zones, inside) {
		return s.forward(ctx, q, b, tcp)
	}
	if s.c.Names == nil {
		return q.refuse(dnsmessage.RCodeRefused, tcp)
	}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	m, err := s.mesh(ctx, &q)
	if err != nil {
		s.failed.Add(1)
		s.c.Log.Debug("name not looked up", "name", q.name, "err", err)
		m = &response{rcode: dnsmessage.RCodeServerFailure}
	}
	return q.pack(m, tcp)
}

// mesh answers a question about the mesh. An error says that the node cannot be asked.
func (s *Server) mesh(ctx context.Context, q *question) (*response, error) {
	m := &response{authoritative: true}
	apex := Zone
	var found bool
	var err error
	if rest, ok := strings.CutSuffix(q.name, "."+Zone); ok {
		found, err = s.named(ctx, q, m, rest)
	} else if q.name == Zone {
		found = true
	} else {
		i := slices.IndexFunc(s.zones, func(z string) bool { return within(q.name, z) })
		apex = s.zones[i]
		found, err = s.reversed(ctx, q, m)
	}
	if err != nil {
		return nil, err
	}
	if !found {
		m.rcode = dnsmessage.RCodeNameError
	}
	if len(m.records) == 0 {
		m.zone = apex
	}
	return m, nil
}

// named answers for NAME, SERVICE.NAME and _SERVICE._tcp.NAME.
func (s *Server) named(ctx context.Context, q *question, m *response, name string) (found bool, err error) {
	labels := strings.Split(name, ".")
	if len(labels) > 3 {
		return false, nil
	}
	n, err := s.c.Names.Lookup(ctx, labels[len(labels)-1])
	if errors.Is(err, ErrNoName) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	service := app.Service{}
	switch first := labels[0]; {
	case len(labels) == 1:
	case len(labels) == 2 && (first == "_tcp" || first == "_udp"):
		return true, nil // what lies between; there is nothing of its own
	case len(labels) == 3:
		proto, isProto := strings.CutPrefix(labels[1], "_")
		word, ok := strings.CutPrefix(first, "_")
		if service, ok = serviceOf(n, word, ok && isProto && (proto == "tcp" || proto == "udp"), proto); !ok {
			return false, nil
		}
		return true, m.point(q.Type == dnsmessage.TypeSRV, dnsmessage.TypeSRV, labels[2], service.Port)
	default:
		var ok bool
		if service, ok = serviceOf(n, first, true, ""); !ok {
			return false, nil
		}
		if err := m.point(q.Type == dnsmessage.TypeSRV && service.Port != 0, dnsmessage.TypeSRV, labels[1], service.Port); err != nil {
			return false, err
		}
	}
	all := q.Type == dnsmessage.TypeALL
	if n.IPv4.Is4() && (all || q.Type == dnsmessage.TypeA) {
		m.records = append(m.records, record{typ: dnsmessage.TypeA, addr: n.IPv4})
	}
	if n.Address.Is6() && (all || q.Type == dnsmessage.TypeAAAA) {
		m.records = append(m.records, record{typ: dnsmessage.TypeAAAA, addr: n.Address})
	}
	if s.c.Learned != nil && len(m.records) > 0 && (q.Type == dnsmessage.TypeA || q.Type == dnsmessage.TypeAAAA) {
		a := n.Address
		if q.Type == dnsmessage.TypeA {
			a = n.IPv4
		}
		s.c.Learned(q.name, []netip.Addr{a}, ttl*time.Second)
	}
	return true, nil
}

// serviceOf finds a service of a node by its name, and, for SRV, by its protocol.
func serviceOf(n app.Names, name string, asked bool, proto string) (app.Service, bool) {
	for _, s := range n.Services {
		if asked && strings.EqualFold(s.Name, name) && (proto == "" || s.Port != 0 && strings.Contains(s.Type, proto)) {
			return s, true
		}
	}
	return app.Service{}, false
}

// point adds a record that names a node, if it was asked for.
func (m *response) point(asked bool, typ dnsmessage.Type, node string, port uint16) error {
	if !asked {
		return nil
	}
	target, err := dnsmessage.NewName(node + "." + Zone + ".")
	if err == nil {
		m.records = append(m.records, record{typ: typ, target: target, port: port})
	}
	return err
}

// reversed answers for the names of addresses.
func (s *Server) reversed(ctx context.Context, q *question, m *response) (found bool, err error) {
	a, bits, ok := ParseReverse(q.name)
	if !ok || bits < a.BitLen() {
		return ok, nil // a zone's name exists, and has nothing
	}
	n, err := s.c.Names.LookupAddr(ctx, a)
	if errors.Is(err, ErrNoName) || err == nil && n.Name == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, m.point(q.Type == dnsmessage.TypePTR || q.Type == dnsmessage.TypeALL, dnsmessage.TypePTR, n.Name, 0)
}
