package node

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// What a node knows of its own addresses: those of its interfaces, those that a gateway mapped for it, and those at which
// neighbours see it. Neighbours that see different ones tell what kind of NAT is between.

// maxLocals bounds the addresses of interfaces that are kept.
const maxLocals = 32

// Local is an address of an interface at which the node listens.
type Local struct {
	Addr netip.AddrPort
	Bits int // length of the interface's prefix
}

// NAT is what is known of the way between this node and the others.
type NAT struct {
	Kind  uint8 // wire.NATUnknown …
	CGNAT bool  // the provider seems to translate, too
	Step  int   // from one port of a sequential one to the next
	// Seen are the addresses at which neighbours outside see us, the newest link's first.
	Seen []netip.AddrPort
	// Observers is how many neighbours that counts on; with one the kind is a guess.
	Observers int
}

// String names the kind of NAT for people.
func (t NAT) String() string {
	s := natName(t.Kind)
	switch {
	case t.Kind == wire.NATSequential:
		s = fmt.Sprintf("%s (%+d)", s, t.Step)
	case t.Kind == wire.NATPortRestricted && t.Observers < 2:
		s = "NAT, kind not known (one observer)"
	}
	if t.CGNAT {
		s += ", behind the provider's"
	}
	return s
}

func natName(kind uint8) string {
	names := [...]string{"not known", "none", "full cone", "restricted cone", "port restricted cone", "symmetric", "symmetric, sequential"}
	if int(kind) >= len(names) {
		return names[0]
	}
	return names[kind]
}

// reach is the knowledge of own addresses.
type reach struct {
	locals  []Local
	mapped  []netip.AddrPort
	inbound bool // somebody whom we had not written to got in from outside
	loose   bool // … or somebody from another port than we had written to
	nat     NAT
	nextAt  time.Duration
	mapping mappingTest

	// written counts the destinations outside that datagrams of control went to: a sequential NAT gives each a port of its own,
	// in that order.
	written uint32
	places  map[netip.AddrPort]written
}

// written is when a destination was first written to since its mapping may have expired.
type written struct {
	place uint32 // 1 for the first of all
	last  time.Duration
}

const (
	// maxPlaces bounds the destinations that are remembered.
	maxPlaces = 256
	// mappingLife is how long a mapping that is not used lives at least; Linux forgets the unanswered ones after 30 s.
	mappingLife = 30 * time.Second
)

// wrote notes that a datagram goes to an address.
func (r *reach) wrote(now time.Duration, to netip.AddrPort) {
	to = unmapped(to)
	if !to.Addr().Is4() {
		return
	}
	w, ok := r.places[to]
	if !ok && r.inside(to.Addr()) {
		return // no NAT on the way
	}
	if !ok || now-w.last > mappingLife {
		if !ok && len(r.places) >= maxPlaces {
			r.forgetPlace()
		}
		if r.places == nil {
			r.places = map[netip.AddrPort]written{}
		}
		r.written++
		w.place = r.written
	}
	w.last = now
	r.places[to] = w
}

func (r *reach) forgetPlace() {
	var oldest netip.AddrPort
	for a, w := range r.places {
		if o := r.places[oldest]; !oldest.IsValid() || w.last < o.last || w.last == o.last && w.place < o.place {
			oldest = a
		}
	}
	delete(r.places, oldest)
}

// SetLocals states the addresses of the box's interfaces, with the port on which the node listens there.
func (n *Core) SetLocals(now time.Duration, all []Local) {
	all = slices.Clone(all[:min(len(all), maxLocals)])
	if slices.Equal(n.reach.locals, all) {
		return
	}
	n.reach.locals, n.reach.inbound, n.reach.loose = all, false, false
	if n.reach.mapping.keep() != 0 {
		n.links.All(func(l *link.Link) { l.SetKeepAlive(0) })
	}
	n.reach.mapping = mappingTest{}
	n.reachChanged(now)
}

// SetMapped states the outside addresses that gateways gave us on request.
func (n *Core) SetMapped(now time.Duration, all []netip.AddrPort) {
	if slices.Equal(n.reach.mapped, all) {
		return
	}
	n.reach.mapped = slices.Clone(all)
	n.reachChanged(now)
}

// NAT tells what is between this node and the others.
func (n *Core) NAT() NAT { return n.reach.nat }

// LinkTo returns the link with a node, nil if there is none; for tests.
func (n *Core) LinkTo(peer key.Public) *link.Link { return n.links.ByPeer(peer) }

// reachChanged has what failed before tried again: the network is another one.
func (n *Core) reachChanged(now time.Duration) {
	n.reach.nextAt = now
	for _, p := range n.punch.all {
		p.fails, p.next = 0, min(p.next, now+punchAgain)
	}
}

// observation is where one neighbour sees us.
type observation struct {
	by, at netip.AddrPort
	place  uint32 // of the observer among those that we have written to; 0: unknown
}

// observations returns where neighbours outside see us, the newest mapping first.
func (n *Core) observations() []observation {
	var all []observation
	n.links.All(func(l *link.Link) {
		o := observation{by: unmapped(l.Endpoint().Addr), at: unmapped(l.Observed())}
		if l.State() != link.Up || !o.at.IsValid() || l.Endpoint().Socket >= forward.FirstTCP || n.reach.inside(o.by.Addr()) {
			return // nobody outside
		}
		o.place = n.reach.places[o.by].place
		all = append(all, o)
	})
	sort.SliceStable(all, func(i, j int) bool { return all[i].place > all[j].place })
	return all
}

func unmapped(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// lookReach works out the kind of NAT anew.
func (n *Core) lookReach(now time.Duration) {
	if now < n.reach.nextAt {
		return
	}
	n.reach.nextAt = now + time.Second
	was := n.reach.nat
	t := classify(n.observations(), n.isLocal)
	switch {
	case t.Kind == wire.NATPortRestricted && n.reach.inbound:
		t.Kind = wire.NATFullCone
	case t.Kind == wire.NATPortRestricted && n.reach.loose:
		t.Kind = wire.NATRestricted
	}
	t.CGNAT = n.carrierGrade(t)
	n.reach.nat = t
	if t.Kind != was.Kind || t.CGNAT != was.CGNAT || (len(t.Seen) > 0 && len(was.Seen) > 0 && t.Seen[0].Addr() != was.Seen[0].Addr()) {
		n.log.Info("reachability", "nat", t.String())
		n.note(EventNetwork, n.self, "NAT: "+t.String(), "what neighbours see changed")
		n.reachChanged(now)
		n.reach.nextAt = now + time.Second
	}
}

// classify tells the kind of NAT from what neighbours see, of IPv4 where there is any: that is what NATs are for.
func classify(all []observation, local func(netip.AddrPort) bool) NAT {
	var t NAT
	v4 := slices.ContainsFunc(all, func(o observation) bool { return o.at.Addr().Is4() })
	all = slices.DeleteFunc(all, func(o observation) bool { return o.at.Addr().Is4() != v4 })
	for _, o := range all {
		if !slices.Contains(t.Seen, o.at) {
			t.Seen = append(t.Seen, o.at)
		}
	}
	t.Observers = len(all)
	switch {
	case len(all) == 0:
		return t
	case slices.ContainsFunc(t.Seen, local):
		t.Kind = wire.NATOpen
	case len(t.Seen) == 1:
		t.Kind = wire.NATPortRestricted
	default:
		t.Kind = wire.NATSymmetric
		if t.Step = step(all); t.Step != 0 {
			t.Kind = wire.NATSequential
		}
	}
	return t
}

// maxStep is the largest distance between two mappings in a row that is taken for the rule of a NAT. Chance makes two random
// ports look like that once in 2,000 times, and then costs a few datagrams.
const maxStep = 16

// step returns by how much the ports of one NAT rise or fall from one mapping to the next, 0 if they follow no such rule. Others
// behind the NAT take ports too, so what we know of is the least.
func step(all []observation) int {
	newest, oldest := all[0], all[len(all)-1]
	apart := int(newest.place) - int(oldest.place)
	d := int(newest.at.Port()) - int(oldest.at.Port())
	if newest.at.Addr() != oldest.at.Addr() || oldest.place == 0 || apart <= 0 || d == 0 || max(d, -d) > maxStep*apart {
		return 0
	}
	if by := d / apart; by != 0 {
		return by
	}
	return max(-1, min(d, 1))
}

// carrierGrade tells whether something speaks for a second NAT, the provider's.
func (n *Core) carrierGrade(t NAT) bool {
	if t.Kind == wire.NATOpen || len(t.Seen) == 0 {
		return false
	}
	for _, l := range n.reach.locals {
		if sharedSpace.Contains(l.Addr.Addr()) {
			return true
		}
	}
	for _, m := range n.reach.mapped {
		if m.Addr().Is4() && (private(m.Addr()) || m.Addr() != t.Seen[0].Addr()) {
			return true
		}
	}
	return false
}

// sharedSpace is what providers use between their customers and their NAT (RFC 6598).
var sharedSpace = netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, 0}), 10)

// private reports whether an address means something else in each network.
func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLinkLocalUnicast() || sharedSpace.Contains(a)
}

func (n *Core) isLocal(a netip.AddrPort) bool {
	return slices.ContainsFunc(n.reach.locals, func(l Local) bool { return l.Addr == a })
}

// inside reports whether an address is on this box or in a network that it has a foot in, so that no NAT is between.
func (r *reach) inside(a netip.Addr) bool { return a.IsLoopback() || private(a) && r.inOwnPrefix(a) }

func (r *reach) inOwnPrefix(a netip.Addr) bool {
	return slices.ContainsFunc(r.locals, func(l Local) bool {
		return netip.PrefixFrom(l.Addr.Addr(), l.Bits).Contains(a)
	})
}

// ownCandidates returns the addresses at which a peer may try to reach us, after so many failures. Those that mean something
// in our own network only are left out unless inside: strangers have no use for them.
func (n *Core) ownCandidates(inside bool, fails int) []wire.Candidate {
	var all []wire.Candidate
	add := func(kind uint8, a netip.AddrPort) {
		a = unmapped(a)
		known := slices.ContainsFunc(all, func(c wire.Candidate) bool { return c.Addr == a })
		if !known && a.IsValid() && a.Port() != 0 && len(all) < wire.MaxCandidates {
			all = append(all, wire.Candidate{Kind: kind, Addr: a})
		}
	}
	if n.reach.nat.Kind == wire.NATSequential {
		n.predict(fails, func(a netip.AddrPort) { add(wire.CandidatePredicted, a) })
	}
	hosts := 0
	for _, v4 := range []bool{true, false} {
		for _, l := range n.reach.locals {
			a := l.Addr.Addr()
			if a.Is4() == v4 && (inside || !private(a)) && hosts < maxHosts && !n.cfg.Network.Prefix().Contains(a) {
				hosts++
				add(wire.CandidateHost, l.Addr)
			}
		}
	}
	for _, a := range n.reach.mapped {
		add(wire.CandidateMapped, a)
	}
	seen := 0
	for _, o := range n.observations() {
		if seen < maxSeen && !(n.reach.nat.Kind == wire.NATSequential && o.at.Addr().Is4()) {
			seen++
			add(wire.CandidateObserved, o.at)
		}
	}
	n.predict(fails, func(a netip.AddrPort) { add(wire.CandidatePredicted, a) })
	return all
}

// Shares of the eight candidates, so that no kind crowds the others out.
const (
	maxHosts     = 3
	maxSeen      = 2
	maxPredicted = 4
)

// predict calls f with where the NAT will probably put us next, in order: what we send to the first address that the peer
// predicts for itself leaves by the first that we predict, if both NATs are sequential. After every second failure the window moves
// on: others behind the NAT took some. While one neighbour alone has seen us, and the NAT may be of any kind, one step of one is a guess
// that costs little.
func (n *Core) predict(fails int, f func(netip.AddrPort)) {
	t := n.reach.nat
	by, count := t.Step, maxPredicted
	if t.Kind == wire.NATPortRestricted && t.Observers == 1 {
		by, count = 1, 2
	}
	if by == 0 || len(t.Seen) == 0 {
		return
	}
	first := 1
	for _, o := range n.observations() {
		if o.at == t.Seen[0] && o.place != 0 {
			first += int(n.reach.written - o.place)
			break
		}
	}
	if fails%2 == 0 {
		first += min(fails, maxDrift) * maxPredicted / 2
	}
	for i := first; i < first+count; i++ {
		if port := int(t.Seen[0].Port()) + i*by; port > 0 && port < 1<<16 {
			f(netip.AddrPortFrom(t.Seen[0].Addr(), uint16(port)))
		}
	}
}

// maxDrift is after how many failures the window does not move on.
const maxDrift = 4

// heardFrom is told of a link that came up: who got in without having been asked tells what the NAT lets through.
func (n *Core) heardFrom(now time.Duration, l *link.Link) {
	at := unmapped(l.Endpoint().Addr)
	if private(at.Addr()) || l.Endpoint().Socket >= forward.FirstTCP || n.reach.nat.Kind == wire.NATOpen {
		return
	}
	switch p := n.punch.of[l.Peer()]; {
	case p != nil && p.wrote(at.Addr()):
		n.reach.loose = n.reach.loose || !p.wroteTo(at)
	case !l.Dialled().Addr.IsValid():
		n.reach.inbound = true
	}
	n.reach.nextAt = min(n.reach.nextAt, now)
}
