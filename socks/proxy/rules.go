package proxy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"skywire/socks"
)

// maxRules bounds a policy: each connection walks it.
const maxRules = 1024

// rule is one line of an exit's policy:
//
//	allow|deny  [tcp|udp]  TARGET[:PORTS]
//
// TARGET is * (everything), an address, a prefix, a name (itself alone) or .NAME (itself and all below); an IPv6 address
// with ports stands in brackets. PORTS is *, N or N-M.
type rule struct {
	allow       bool
	network     string       // "tcp", "udp"; empty: both
	prefix      netip.Prefix // valid: this network
	name        string       // not empty: this name
	below       bool         // and all below it
	first, last uint16
}

// parseRules reads the lines of a policy.
func parseRules(lines []string) ([]rule, error) {
	if len(lines) > maxRules {
		return nil, fmt.Errorf("%w: %d rules, at most %d", ErrRule, len(lines), maxRules)
	}
	rules := make([]rule, 0, len(lines))
	for _, l := range lines {
		r, err := parseRule(l)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func parseRule(line string) (rule, error) {
	bad := func(what string) (rule, error) {
		return rule{}, fmt.Errorf("%w %q: %s", ErrRule, line, what)
	}
	f := strings.Fields(line)
	if len(f) < 2 || len(f) > 3 {
		return bad("want: allow|deny [tcp|udp] TARGET[:PORTS]")
	}
	r := rule{last: 65535}
	switch f[0] {
	case "allow":
		r.allow = true
	case "deny":
	default:
		return bad(f[0] + " is neither allow nor deny")
	}
	if len(f) == 3 {
		if r.network = f[1]; r.network != "tcp" && r.network != "udp" {
			return bad(f[1] + " is neither tcp nor udp")
		}
	}
	target, ports := splitPorts(f[len(f)-1])
	if !r.parsePorts(ports) {
		return bad("ports " + ports + ": want *, N or N-M")
	}
	if !r.parseTarget(target) {
		return bad(target + " is no address, prefix, name or *")
	}
	return r, nil
}

// splitPorts cuts what follows the last colon off, unless the colon is an IPv6 address's own.
func splitPorts(s string) (target, ports string) {
	if strings.HasPrefix(s, "[") {
		target, rest, ok := strings.Cut(s[1:], "]")
		if !ok {
			return s, "*"
		}
		if strings.HasPrefix(rest, "/") { // [fd00::]/8:80
			bits, ports, found := strings.Cut(rest, ":")
			if !found {
				ports = "*"
			}
			return target + bits, ports
		}
		if ports, ok = strings.CutPrefix(rest, ":"); ok {
			return target, ports
		}
		return target + rest, "*"
	}
	if strings.Count(s, ":") > 1 {
		return s, "*"
	}
	target, ports, ok := strings.Cut(s, ":")
	if !ok {
		ports = "*"
	}
	return target, ports
}

func (r *rule) parsePorts(s string) bool {
	if s == "*" {
		return true
	}
	from, to, span := strings.Cut(s, "-")
	if !span {
		to = from
	}
	a, err := strconv.ParseUint(from, 10, 16)
	if err != nil || a == 0 {
		return false
	}
	b, err := strconv.ParseUint(to, 10, 16)
	if err != nil || b < a {
		return false
	}
	r.first, r.last = uint16(a), uint16(b)
	return true
}

func (r *rule) parseTarget(s string) bool {
	if s == "*" {
		return true
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		r.prefix = netip.PrefixFrom(a, a.BitLen())
		return true
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		r.prefix = p.Masked()
		return err == nil
	}
	name, below := strings.CutPrefix(s, "*.")
	if !below {
		name, below = strings.CutPrefix(s, ".")
	}
	r.name, r.below = foldName(name), below
	// What looks like a number would be read as a name, and match nothing that anybody means.
	return socks.CheckTarget(r.name, 1) == nil && !strings.Contains(r.name, ":") && strings.Trim(r.name, "0123456789.") != ""
}

// foldName is a name in the form in which names are compared.
func foldName(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// matches reports whether the rule speaks of this target. Name is folded and empty for targets given as addresses; forms are
// the address and those it carries, empty before a name is resolved: then only rules for names match.
func (r *rule) matches(network, name string, forms []netip.Addr, port uint16) bool {
	if r.network != "" && r.network != network || port < r.first || port > r.last {
		return false
	}
	switch {
	case r.name != "":
		return name == r.name || r.below && strings.HasSuffix(name, "."+r.name)
	case r.prefix.IsValid():
		for _, a := range forms {
			if r.prefix.Contains(a) {
				return true
			}
		}
		return false
	}
	return true
}
