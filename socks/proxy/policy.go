package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// policy decides where an exit leads to: the operator's rules in their order, then what is closed unless a rule opened it.
// Addresses are looked at at the moment of connecting, whatever name they came from, so a name that changes its answer
// between a check and a connection (DNS rebinding) gains nothing.
//
// A rule that allows opens an address of the exit's surroundings only if it names a network within them (10.1.2.0/24, not
// 0.0.0.0/0, * or a name), and an address of the exit itself only if it names that very address. Addresses that mean
// nobody or many, and those of the mesh, no rule opens.
type policy struct {
	allowPrivate bool                // opens what is local to the exit: private, loopback, link-local, shared, its own addresses
	mesh         netip.Prefix        // closed even so: whoever reached a node through the exit would look like the exit to it
	own          func() []netip.Addr // the exit's own addresses, public ones included
	rules        []rule

	nowhere, nearby []block
	wrappings       []wrapping
}

func newPolicy(allowPrivate bool, mesh netip.Prefix, own func() []netip.Addr, rules ...rule) *policy {
	return &policy{
		allowPrivate: allowPrivate, mesh: mesh, own: own, rules: rules,
		nowhere: nowhere(), nearby: nearby(), wrappings: wrappings(),
	}
}

// smtp is the port on which mail is handed from provider to provider: what strangers send there gets the exit's address
// onto the lists of spammers. People send theirs at 465 and 587.
const smtp = 25

// dest is where a connection or datagram is to go, as the client named it.
type dest struct {
	network string // "tcp" or "udp"
	name    string // folded; empty if the client named an address
	port    uint16
}

// CheckName refuses names that a rule denies before anybody is asked for their addresses.
func (p *policy) CheckName(d dest) error {
	if r := p.first(d, nil); r != nil && !r.allow {
		return fmt.Errorf("%w: a rule denies it", ErrPolicy)
	}
	return nil
}

// first is the rule that decides. Without forms it is the first one that speaks of the name or of everything.
func (p *policy) first(d dest, forms []netip.Addr) *rule {
	for i := range p.rules {
		if p.rules[i].matches(d.network, d.name, forms, d.port) {
			return &p.rules[i]
		}
		if forms == nil && p.rules[i].prefix.IsValid() {
			return nil // it may decide once the addresses are known
		}
	}
	return nil
}

type block struct {
	prefix netip.Prefix
	name   string
}

func blocks(name string, prefixes ...string) []block {
	var all []block
	for _, p := range prefixes {
		all = append(all, block{netip.MustParsePrefix(p), name})
	}
	return all
}

// nowhere are addresses that no TCP connection can lead to, or that mean many hosts (RFC 6890).
func nowhere() []block {
	return append(append(append(
		blocks("an unspecified address", "0.0.0.0/8", "::/128"),
		blocks("a multicast address", "224.0.0.0/4", "ff00::/8")...),
		blocks("a reserved address", "240.0.0.0/4", "192.0.0.0/24", "192.88.99.0/24", "100::/64", "2001::/23")...),
		blocks("an address for documents", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20")...)
}

// nearby are addresses that mean something else on every box.
func nearby() []block {
	return append(append(append(append(append(
		blocks("a loopback address", "127.0.0.0/8", "::1/128"),
		blocks("a private address", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")...),
		blocks("a link-local address", "169.254.0.0/16", "fe80::/10")...),
		blocks("an address of a translator", "64:ff9b:1::/48")...), // RFC 8215: where in it the IPv4 address lies is the site's choice
		blocks("a shared address", "100.64.0.0/10")...),
		blocks("an address for benchmarks", "198.18.0.0/15")...)
}

// Check returns nil if the exit leads to a for d, else an error that wraps ErrPolicy and names the kind of address, not the
// address: what a name resolves to inside the exit's network is not the client's business.
func (p *policy) Check(d dest, a netip.Addr) error {
	if !a.IsValid() {
		return fmt.Errorf("%w: no address", ErrPolicy)
	}
	a = a.WithZone("")
	// Every wrapping is looked at on its own too: ::ffff:0:0 is v4-mapped, and unwraps to an address that is refused.
	var room [3]netip.Addr
	forms := append(room[:0], a)
	for inner, ok := p.unwrap(a); ok; inner, ok = p.unwrap(inner) {
		if len(forms) == cap(room) {
			return fmt.Errorf("%w: an address inside an address inside an address", ErrPolicy)
		}
		forms = append(forms, inner)
	}
	r := p.first(d, forms)
	if r != nil && !r.allow {
		return fmt.Errorf("%w: a rule denies it", ErrPolicy)
	}
	for _, f := range forms {
		if err := p.check(f, r); err != nil {
			return err
		}
	}
	if r == nil && d.network == "tcp" && d.port == smtp {
		return fmt.Errorf("%w: port 25 is for mail servers, senders use 465 or 587", ErrPolicy)
	}
	return nil
}

// check looks at one form of an address; r is the rule that allows it, or nil.
func (p *policy) check(a netip.Addr, r *rule) error {
	if a.Is4In6() {
		return nil // its inside is looked at next
	}
	if p.mesh.IsValid() && p.mesh.Contains(a) {
		return fmt.Errorf("%w: an address of the mesh", ErrPolicy)
	}
	for _, b := range p.nowhere {
		if b.prefix.Contains(a) {
			return fmt.Errorf("%w: %s", ErrPolicy, b.name)
		}
	}
	if p.allowPrivate {
		return nil
	}
	for _, b := range p.nearby {
		if b.prefix.Contains(a) && !(r != nil && liesIn(r.prefix, b.prefix)) {
			return fmt.Errorf("%w: %s", ErrPolicy, b.name)
		}
	}
	if p.own == nil || r != nil && r.prefix.IsSingleIP() && r.prefix.Addr() == a {
		return nil
	}
	for _, o := range p.own() {
		if o.Unmap().WithZone("") == a {
			return fmt.Errorf("%w: an address of the exit itself", ErrPolicy)
		}
	}
	return nil
}

// liesIn reports whether the network p lies wholly in q.
func liesIn(p, q netip.Prefix) bool {
	return p.IsValid() && p.Bits() >= q.Bits() && q.Contains(p.Addr())
}

// wrapping is an IPv6 prefix whose addresses carry an IPv4 address at byte at: a translator or a tunnel on the exit's side
// would lead to that one.
type wrapping struct {
	prefix netip.Prefix
	at     int
}

func wrappings() []wrapping {
	return []wrapping{
		{netip.MustParsePrefix("::ffff:0:0/96"), 12},   // v4-mapped, RFC 4291
		{netip.MustParsePrefix("::/96"), 12},           // v4-compatible, RFC 4291
		{netip.MustParsePrefix("::ffff:0:0:0/96"), 12}, // translated, RFC 2765
		{netip.MustParsePrefix("64:ff9b::/96"), 12},    // NAT64, RFC 6052
		{netip.MustParsePrefix("64:ff9b:1::/48"), 12},  // local NAT64, RFC 8215, read as a /96
		{netip.MustParsePrefix("2002::/16"), 2},        // 6to4, RFC 3056
	}
}

// unwrap returns the IPv4 address that a carries, if it is of a kind that carries one.
func (p *policy) unwrap(a netip.Addr) (netip.Addr, bool) {
	if a.Is4() || a == netip.IPv6Loopback() { // ::1 is no v4-compatible address, though it looks like one
		return a, false
	}
	b := a.As16()
	if a.Is4In6() {
		return a.Unmap(), true
	}
	for _, w := range p.wrappings {
		if w.prefix.Contains(a) {
			return netip.AddrFrom4([4]byte(b[w.at : w.at+4])), true
		}
	}
	return a, false
}

// ownFresh is how long a list of the box's addresses is believed: an address that changes is the provider's doing and rare,
// and reading the list costs a netlink dump.
const ownFresh = 5 * time.Second

// ownAddresses caches the addresses of the box's interfaces.
type ownAddresses struct {
	mu   sync.Mutex // guards the fields below
	read time.Time
	all  []netip.Addr
}

// list returns the addresses. Where they cannot be read it returns the last ones known.
func (o *ownAddresses) list() []netip.Addr {
	o.mu.Lock()
	all, fresh := o.all, !o.read.IsZero() && time.Since(o.read) < ownFresh
	o.mu.Unlock()
	if fresh {
		return all
	}
	found, err := net.InterfaceAddrs()
	if err != nil {
		return all
	}
	all = nil
	for _, f := range found {
		if n, ok := f.(*net.IPNet); ok {
			if a, ok := netip.AddrFromSlice(n.IP); ok {
				all = append(all, a.Unmap())
			}
		}
	}
	o.mu.Lock()
	o.all, o.read = all, time.Now()
	o.mu.Unlock()
	return all
}
