package meshtest

import (
	"net/netip"
	"time"

	"skywire/mesh/node"
)

// Scope is how much of a remote address a NAT looks at (RFC 4787): for which destinations it uses one mapping, and whom it
// lets in by it.
type Scope uint8

// The scopes, from the friendliest.
const (
	Any        Scope = iota // endpoint independent
	ByAddr                  // the address counts
	ByAddrPort              // the address and the port
)

// Ports is how a NAT chooses the outside port of a new mapping.
type Ports uint8

// The ways to choose.
const (
	Preserve   Ports = iota // that of the inside, or the next free one
	Sequential              // Step after the last one
	Random
)

// NATKind is the behaviour of a NAT.
type NATKind struct {
	Mapping, Filter Scope
	Ports           Ports
	Step            int // of Sequential; 0: 1
	Hairpin         bool
	Life            time.Duration // of a mapping that nothing leaves by; 0: for ever
}

// The kinds that have names.
var (
	FullCone            = NATKind{}
	RestrictedCone      = NATKind{Filter: ByAddr}
	PortRestrictedCone  = NATKind{Filter: ByAddrPort}
	Symmetric           = NATKind{Mapping: ByAddrPort, Filter: ByAddrPort, Ports: Random}
	SymmetricSequential = NATKind{Mapping: ByAddrPort, Filter: ByAddrPort, Ports: Sequential}
)

// NAT translates for the nodes, and NATs, behind it.
type NAT struct {
	NATKind
	Addr netip.Addr // outside

	net   *Net
	outer *NAT // nil: the NAT is on the internet
	maps  map[natKey]*mapping
	ports map[uint16]*mapping
	last  uint16
}

// natKey is what finds a mapping for what leaves: remote is as much of the destination as the NAT looks at.
type natKey struct{ inside, remote netip.AddrPort }

type mapping struct {
	key    natKey
	port   uint16
	used   time.Duration
	sentTo map[netip.AddrPort]bool // as much of each as the filter looks at
}

func (s Scope) of(a netip.AddrPort) netip.AddrPort {
	switch s {
	case Any:
		return netip.AddrPort{}
	case ByAddr:
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

// NAT puts a NAT into the network, behind another one or, if outer is nil, on the internet.
func (n *Net) NAT(kind NATKind, outer *NAT) *NAT {
	if kind.Step == 0 {
		kind.Step = 1
	}
	i := len(n.nats) + 1
	t := &NAT{
		NATKind: kind, Addr: netip.AddrFrom4([4]byte{203, 0, byte(113 + i>>8), byte(i)}), net: n, outer: outer,
		maps: map[natKey]*mapping{}, ports: map[uint16]*mapping{}, last: uint16(20000 + n.rand.IntN(20000)),
	}
	if outer != nil {
		t.Addr = netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)})
	}
	n.nats[t.Addr] = t
	return t
}

// Place gives a node an address of a network behind a NAT, or of the internet where nat is nil. Nodes with one prefix reach
// each other there directly, as far as wires join them.
func (nd *Node) Place(nat *NAT, at netip.Prefix) {
	delete(nd.net.byAddr, nd.Addr.Addr())
	nd.behind, nd.Addr = nat, netip.AddrPortFrom(at.Addr(), nd.Addr.Port())
	nd.net.byAddr[nd.Addr.Addr()] = nd
	nd.bits = at.Bits()
	nd.tellPlace()
}

// tellPlace tells the core of a node that was placed what its interfaces have.
func (nd *Node) tellPlace() {
	if nd.bits == 0 || nd.Core == nil {
		return
	}
	nd.Core.SetLocals(nd.clock(), []node.Local{{Addr: nd.Addr, Bits: nd.bits}})
	nd.Core.SetListen(nil)
}

// leave says to whom a datagram goes, as far as that is known when it is sent, and from where it seems to come.
func (n *Net) leave(from *Node, to netip.AddrPort) (dst *Node, src netip.AddrPort) {
	src = from.Addr
	for in := from.behind; ; in = in.outer {
		if d := n.byAddr[to.Addr()]; d != nil && d.behind == in {
			return d, src
		}
		if t := n.nats[to.Addr()]; t != nil && t.outer == in {
			return t.someone(to.Port()), src
		}
		if in == nil {
			return nil, src
		}
		if to.Addr() == in.Addr {
			if !in.Hairpin {
				return nil, src
			}
			return in.someone(to.Port()), in.out(src, to)
		}
		src = in.out(src, to)
	}
}

// someone returns the node for which a port stands, or any that is behind the NAT: the wire to it tells how far it is.
func (t *NAT) someone(port uint16) *Node {
	if m := t.ports[port]; m != nil {
		if d := t.net.byAddr[m.key.inside.Addr()]; d != nil {
			return d
		}
		if inner := t.net.nats[m.key.inside.Addr()]; inner != nil {
			return inner.someone(m.key.inside.Port())
		}
	}
	for _, d := range t.net.nodes {
		for in := d.behind; in != nil; in = in.outer {
			if in == t {
				return d
			}
		}
	}
	return nil
}

// enter returns who gets a datagram that arrives at an address; nil: nobody.
func (n *Net) enter(src, to netip.AddrPort) *Node {
	for {
		t := n.nats[to.Addr()]
		if t == nil {
			return n.byAddr[to.Addr()]
		}
		inside, ok := t.in(src, to.Port())
		if !ok {
			return nil
		}
		to = inside
	}
}

// out translates the source of what leaves.
func (t *NAT) out(src, to netip.AddrPort) netip.AddrPort {
	k := natKey{src, t.Mapping.of(to)}
	m := t.maps[k]
	if m != nil && t.expired(m) {
		delete(t.maps, k)
		delete(t.ports, m.port)
		m = nil
	}
	if m == nil {
		m = &mapping{key: k, port: t.free(src.Port()), sentTo: map[netip.AddrPort]bool{}}
		t.maps[k], t.ports[m.port] = m, m
	}
	m.used = t.net.now
	m.sentTo[t.Filter.of(to)] = true
	return netip.AddrPortFrom(t.Addr, m.port)
}

// in translates the destination of what arrives at a port, if that is let in.
func (t *NAT) in(src netip.AddrPort, port uint16) (netip.AddrPort, bool) {
	m := t.ports[port]
	if m == nil || t.expired(m) || !m.sentTo[t.Filter.of(src)] && t.Filter != Any {
		return netip.AddrPort{}, false
	}
	return m.key.inside, true
}

func (t *NAT) expired(m *mapping) bool { return t.Life > 0 && t.net.now-m.used > t.Life }

// free chooses the port of a new mapping.
func (t *NAT) free(inside uint16) uint16 {
	port := inside
	for {
		switch t.Ports {
		case Sequential:
			t.last += uint16(t.Step)
			port = t.last
		case Random:
			port = uint16(1024 + t.net.rand.IntN(1<<16-1024))
		}
		if t.ports[port] == nil {
			return port
		}
		port++
	}
}
