package socks

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MaxRules bounds a list of rules: each connection walks it.
const MaxRules = 1024

// Action is what a rule does with a connection.
type Action uint8

// The actions.
const (
	Through Action = iota // over an exit
	Direct                // from this box
	Block                 // not at all
)

// String returns the word that rules use.
func (a Action) String() string {
	switch a {
	case Direct:
		return "direct"
	case Block:
		return "block"
	}
	return "exit"
}

// Rule is one line of the client's list, of which the first that matches decides:
//
//	CONDITION[,CONDITION…]=ACTION
//
// All its conditions have to match: suffix:DOMAIN (and all below), name:HOST, cidr:PREFIX, port:N or N-M, user:NAME,
// from:PREFIX (the program's address), net:tcp or udp, any. A condition's values may be several, with | between them.
// ACTION is direct, block, exit (as without rules), or one or more exits in order of preference with commas between them.
// Names are resolved by exits only, so a cidr matches no name.
type Rule struct {
	Text   string
	Action Action
	Exits  []string // with Through: the exits; none means those of the client

	all []condition
}

// Query is what a rule is asked about.
type Query struct {
	Host string // a name or an address in text form
	Port uint16
	User string
	From netip.Addr // of the program; invalid behind a unix socket
	UDP  bool
}

// condition is one of a rule's; one of its values has to match.
type condition struct {
	kind     string
	words    []string // suffix, name, user, net
	prefixes []netip.Prefix
	ports    [][2]uint16
}

// Rules are tried in order.
type Rules []Rule

// ParseRules reads a list of rules.
func ParseRules(lines []string) (Rules, error) {
	if len(lines) > MaxRules {
		return nil, fmt.Errorf("%w: %d rules, at most %d", ErrRule, len(lines), MaxRules)
	}
	rules := make(Rules, 0, len(lines))
	for _, l := range lines {
		r, err := ParseRule(l)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// ParseRule reads one rule.
func ParseRule(text string) (Rule, error) {
	left, right, ok := strings.Cut(text, "=")
	if !ok || left == "" || right == "" {
		return Rule{}, fmt.Errorf("%w %q: want CONDITION[,CONDITION…]=direct|block|exit|NODE[,NODE…]", ErrRule, text)
	}
	r := Rule{Text: text}
	for _, w := range strings.Split(left, ",") {
		c, err := parseCondition(strings.TrimSpace(w))
		if err != nil {
			return Rule{}, fmt.Errorf("%w %q: %w", ErrRule, text, err)
		}
		r.all = append(r.all, c)
	}
	switch right = strings.TrimSpace(right); right {
	case "direct":
		r.Action = Direct
	case "block":
		r.Action = Block
	case "exit":
	default:
		for _, x := range strings.Split(right, ",") {
			if x = strings.TrimSpace(x); x == "" || strings.ContainsAny(x, " =|") {
				return Rule{}, fmt.Errorf("%w %q: %q is no exit", ErrRule, text, x)
			}
			r.Exits = append(r.Exits, x)
		}
	}
	return r, nil
}

func parseCondition(s string) (condition, error) {
	kind, values, _ := strings.Cut(s, ":")
	c := condition{kind: kind}
	if kind == "any" && values == "" {
		return c, nil
	}
	for _, v := range strings.Split(values, "|") {
		if v = strings.TrimSpace(v); v == "" {
			return c, fmt.Errorf("%q lacks a value", s)
		}
		switch kind {
		case "suffix", "name":
			c.words = append(c.words, fold(strings.TrimPrefix(v, ".")))
		case "user":
			c.words = append(c.words, v)
		case "net":
			if v != "tcp" && v != "udp" {
				return c, fmt.Errorf("%q: want tcp or udp", v)
			}
			c.words = append(c.words, v)
		case "cidr", "from":
			p, err := parsePrefix(v)
			if err != nil {
				return c, err
			}
			c.prefixes = append(c.prefixes, p)
		case "port":
			p, err := parsePorts(v)
			if err != nil {
				return c, err
			}
			c.ports = append(c.ports, p)
		default:
			return c, fmt.Errorf("%q: want suffix, name, cidr, port, user, from, net or any", kind)
		}
	}
	return c, nil
}

// parsePrefix reads a network or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no network", s)
	}
	return p.Masked(), nil
}

func parsePorts(s string) ([2]uint16, error) {
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a > b {
		return [2]uint16{}, fmt.Errorf("%q is no port", s)
	}
	return [2]uint16{uint16(a), uint16(b)}, nil
}

// fold puts a name into the form in which names are compared.
func fold(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Find returns the first rule that matches and its place, or nil where none does.
func (rs Rules) Find(q Query) (int, *Rule) {
	if len(rs) == 0 {
		return 0, nil
	}
	q.Host = fold(q.Host)
	a, err := netip.ParseAddr(q.Host)
	if err != nil {
		a = netip.Addr{}
	}
	a = a.Unmap().WithZone("")
	for i := range rs {
		if rs[i].match(q, a) {
			return i, &rs[i]
		}
	}
	return 0, nil
}

func (r *Rule) match(q Query, host netip.Addr) bool {
	for i := range r.all {
		if !r.all[i].match(q, host) {
			return false
		}
	}
	return true
}

func (c *condition) match(q Query, host netip.Addr) bool {
	for _, w := range c.words {
		switch c.kind {
		case "suffix":
			if !host.IsValid() && (q.Host == w || strings.HasSuffix(q.Host, w) && q.Host[len(q.Host)-len(w)-1] == '.') {
				return true
			}
		case "name":
			if q.Host == w {
				return true
			}
		case "user":
			if q.User == w {
				return true
			}
		case "net":
			if q.UDP == (w == "udp") {
				return true
			}
		}
	}
	a := host
	if c.kind == "from" {
		a = q.From.Unmap().WithZone("")
	}
	for _, p := range c.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	for _, p := range c.ports {
		if p[0] <= q.Port && q.Port <= p[1] {
			return true
		}
	}
	return c.kind == "any"
}
