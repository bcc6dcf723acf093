package member

import (
	"net/netip"
	"sort"
	"strings"

	"skywire/mesh/key"
)

// nameTable says who keeps which name and IPv4 address. Of several certificates with one of them the older serial keeps
// it; the others have none until an admin gives them another.
type nameTable struct {
	names  map[string]key.Public
	addrs  map[netip.Addr]key.Public
	clash  map[string]bool // names that more than one certificate holds
	shared map[netip.Addr]bool
}

func sortKeys(all []key.Public) {
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
}

// table is made when it is asked for. It holds expired certificates too, since a name is not free when its owner is away,
// but not revoked ones.
func (s *State) table() *nameTable {
	if s.names != nil {
		return s.names
	}
	t := &nameTable{map[string]key.Public{}, map[netip.Addr]key.Public{}, map[string]bool{}, map[netip.Addr]bool{}}
	serial := map[key.Public]uint64{}
	older := func(a, b key.Public) bool { return serial[a] < serial[b] || serial[a] == serial[b] && a.Less(b) }
	for k := range s.ofNode {
		c := s.certificate(k)
		if s.Revoked(k) {
			continue
		}
		serial[k] = c.Serial
		if c.Name != "" {
			held, taken := t.names[c.Name]
			if !taken || older(k, held) {
				t.names[c.Name] = k
			}
			t.clash[c.Name] = taken
		}
		if c.IPv4.IsValid() {
			held, taken := t.addrs[c.IPv4]
			if !taken || older(k, held) {
				t.addrs[c.IPv4] = k
			}
			t.shared[c.IPv4] = taken
		}
	}
	s.names = t
	return t
}

// Lookup finds the node that a name in a certificate names, with or without ".mesh". conflict tells that another
// certificate has the same name.
func (s *State) Lookup(name string) (k key.Public, conflict, ok bool) {
	name = strings.TrimSuffix(strings.ToLower(name), ".mesh")
	t := s.table()
	k, ok = t.names[name]
	return k, t.clash[name], ok
}

// Name is the certified name of a node, "" if it has none or an older serial keeps it. conflict tells that another
// certificate has the same name.
func (s *State) Name(k key.Public) (name string, conflict bool) {
	c := s.certificate(k)
	if c == nil || c.Name == "" {
		return "", false
	}
	t := s.table()
	conflict = t.clash[c.Name]
	if t.names[c.Name] == k {
		name = c.Name
	}
	return name, conflict
}

// IPv4 is the certified address of a node, invalid if it has none or an older serial keeps it.
func (s *State) IPv4(k key.Public) netip.Addr {
	if c := s.certificate(k); c != nil && c.IPv4.IsValid() && s.table().addrs[c.IPv4] == k {
		return c.IPv4
	}
	return netip.Addr{}
}

// Resolve finds the node that a name names: a petname of this box first, then a name in a certificate; never what a node
// says of itself.
func Resolve(petnames map[string]key.Public, s *State, name string) (key.Public, bool) {
	name = strings.TrimSuffix(strings.ToLower(name), ".mesh")
	if k, ok := petnames[name]; ok {
		return k, true
	}
	if s == nil {
		return key.Public{}, false
	}
	k, _, ok := s.Lookup(name)
	return k, ok
}

// Claimed is how a name is shown that a node only claims for itself: with the start of its key behind it.
func Claimed(name string, k key.Public) string {
	if name == "" {
		return k.Short()
	}
	return name + "-" + k.String()[:4]
}

// FreeIPv4 is the lowest address of a block that no certificate has, revoked ones and those that lost a conflict among
// them; invalid if there is none. Addresses that end in 0 or 255 are left out: some programs balk at them.
func (s *State) FreeIPv4(block netip.Prefix) netip.Addr {
	used := map[netip.Addr]bool{}
	for _, all := range s.ofNode {
		for _, h := range all {
			used[h.cert.IPv4] = true
		}
	}
	if !block.IsValid() {
		return netip.Addr{}
	}
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		if last := a.As4()[3]; last != 0 && last != 255 && !used[a] {
			return a
		}
	}
	return netip.Addr{}
}
