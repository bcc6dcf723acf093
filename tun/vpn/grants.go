package vpn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"skywire/mesh/app"
	"skywire/mesh/key"
)

// ServerConfig is what a server offers and to whom. Who is named as in app.Service.Allow: keys in text form, "*" for every
// member, "@TAG" for those whose certificate has the tag.
type ServerConfig struct {
	Exit         bool
	AllowExit    []string // who may use the exit; none: those of Allow
	Subnets      []Subnet
	Allow        []string // who may use what names nobody of its own
	Peers        bool     // clients may reach each other
	Closed       bool     // of this box itself nothing but ICMP and names is reached from the device
	AllowPrivate bool     // the exit reaches private ranges and this box's own networks, too
	NoNAT        bool
	Pool         netip.Prefix // default 100.64.0.0/10
	Limit        Limit        // of each client
}

// Subnet is a network behind a server, and who may use it.
type Subnet struct {
	Prefix netip.Prefix
	Allow  []string // none: those of ServerConfig.Allow
}

// grant is what one client gets.
type grant struct {
	exit    bool
	subnets []netip.Prefix
	peers   bool
}

func (g grant) nothing() bool { return !g.exit && len(g.subnets) == 0 }

func (g grant) same(o grant) bool {
	return g.exit == o.exit && g.peers == o.peers && slices.Equal(g.subnets, o.subnets)
}

func (s *ServerConfig) validate() error {
	if !s.Pool.IsValid() {
		s.Pool = DefaultPool()
	}
	if s.Pool.Addr().Is6() || s.Pool.Bits() > 30 {
		return fmt.Errorf("pool %s: want an IPv4 prefix of at most 30 bits", s.Pool)
	}
	s.Pool = s.Pool.Masked()
	s.Exit = s.Exit || len(s.AllowExit) > 0
	words := slices.Concat(s.Allow, s.AllowExit)
	for i := range s.Subnets {
		n := &s.Subnets[i]
		if n.Prefix.Bits() == 0 {
			return fmt.Errorf("subnet %s is everything: say --exit", n.Prefix)
		}
		n.Prefix = n.Prefix.Masked()
		for _, o := range s.Subnets[:i] {
			if o.Prefix == n.Prefix {
				return fmt.Errorf("subnet %s stands there twice", n.Prefix)
			}
		}
		words = append(words, n.Allow...)
	}
	if len(s.Subnets) >= maxSubnets {
		return fmt.Errorf("%d subnets: at most %d fit an answer", len(s.Subnets), maxSubnets)
	}
	for _, w := range words {
		if _, err := key.Parse(w); err != nil && w != app.AnyMember && (!strings.HasPrefix(w, app.TagMark) || len(w) == 1) {
			return fmt.Errorf("allow %q: want a key, * or @TAG: %w", w, err)
		}
	}
	return s.Limit.validate()
}

// words are all who may use anything: the allow list of the service.
func (s *ServerConfig) words() []string {
	var all []string
	add := func(words []string) {
		for _, w := range words {
			if !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	if s.Exit {
		add(s.who(s.AllowExit))
	}
	for _, n := range s.Subnets {
		add(s.who(n.Allow))
	}
	if slices.Contains(all, app.AnyMember) {
		return []string{app.AnyMember}
	}
	return all
}

func (s *ServerConfig) who(words []string) []string {
	if len(words) > 0 {
		return words
	}
	return s.Allow
}

// grantTo is what a node gets. Nobody gets anything who is no member.
func (s *ServerConfig) grantTo(id app.Identity) grant {
	g := grant{peers: s.Peers, exit: s.Exit && admits(s.who(s.AllowExit), id)}
	for _, n := range s.Subnets {
		if admits(s.who(n.Allow), id) {
			g.subnets = append(g.subnets, n.Prefix)
		}
	}
	return g
}

func admits(words []string, id app.Identity) bool {
	return id.Member && (slices.Contains(words, app.AnyMember) || slices.Contains(words, id.Key.String()) || id.Tagged(words))
}

// meta is what the service's record says to those who look for a server.
func (s *ServerConfig) meta() string {
	var words []string
	if s.Exit {
		words = append(words, "exit")
	}
	if n := len(s.Subnets); n > 0 {
		words = append(words, fmt.Sprintf("subnets=%d", n))
	}
	return strings.Join(words, " ")
}

func (s *ServerConfig) prefixes() []netip.Prefix {
	all := make([]netip.Prefix, 0, len(s.Subnets))
	for _, n := range s.Subnets {
		all = append(all, n.Prefix)
	}
	return all
}

// refused is what the exit does not include. lan are the networks that this box serves itself.
func (s *ServerConfig) refused(lan []netip.Prefix) []netip.Prefix {
	if s.AllowPrivate {
		return special()
	}
	return slices.Concat(special(), private(), lan)
}
