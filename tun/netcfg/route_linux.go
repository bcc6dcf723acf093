package netcfg

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// protocolID marks our routes as made by a routing program that is none of the registered ones (rtnetlink(7)).
const protocolID = 0x53

// Route adds a route. It fails with ErrRouteExists when the table has the prefix already.
func (n *Net) Route(group string, r Route) error {
	r.Prefix = r.Prefix.Masked()
	err := n.change(entry{Kind: kindRoute, Group: group, Device: n.c.Device, Route: &r}, func() error {
		nr, err := routeOf(n.c.Device, r)
		if err != nil {
			return err
		}
		err = netlink.RouteAdd(nr)
		if errors.Is(err, unix.EEXIST) {
			return ErrRouteExists
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("add route to %s: %w", r.Prefix, err)
	}
	return nil
}

func removeRoute(device string, r Route) error {
	nr, err := routeOf(device, r)
	if err == nil {
		err = netlink.RouteDel(nr)
	}
	if gone(err) {
		return nil
	}
	return err
}

func routeOf(device string, r Route) (*netlink.Route, error) {
	nr := &netlink.Route{Dst: ipNet(r.Prefix), Table: r.Table, Protocol: protocolID}
	if nr.Table == 0 {
		nr.Table = unix.RT_TABLE_MAIN
	}
	if r.Source.IsValid() {
		nr.Src = r.Source.AsSlice()
	}
	switch r.Type {
	case Throw:
		nr.Type = unix.RTN_THROW
	case Unreachable:
		nr.Type = unix.RTN_UNREACHABLE
	default:
		link, err := findLink(device)
		if err != nil {
			return nil, err
		}
		nr.LinkIndex = link.Attrs().Index
		if r.Prefix.Addr().Is4() {
			nr.Scope = netlink.SCOPE_LINK
		}
	}
	return nr, nil
}

// Rule adds a policy routing rule.
func (n *Net) Rule(group string, r Rule) error {
	err := n.change(entry{Kind: kindRule, Group: group, Device: n.c.Device, Rule: &r}, func() error {
		return netlink.RuleAdd(ruleOf(r))
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT) {
		err = fmt.Errorf("the kernel has no policy routing (CONFIG_IP_MULTIPLE_TABLES), which --exit needs: %w", err)
	}
	if err != nil {
		return fmt.Errorf("add rule %d: %w", r.Priority, err)
	}
	return nil
}

func removeRule(r Rule) error {
	if err := netlink.RuleDel(ruleOf(r)); err != nil && !gone(err) {
		return err
	}
	return nil
}

func ruleOf(r Rule) *netlink.Rule {
	nr := netlink.NewRule()
	nr.Family = family(r.V6)
	nr.Priority, nr.Table, nr.Mark, nr.Invert = r.Priority, r.Table, r.Mark, r.Not
	if r.UID != 0 {
		nr.UIDRange = netlink.NewRuleUIDRange(r.UID, r.UID)
	}
	if r.SuppressDefault {
		nr.SuppressPrefixlen = 0
	}
	return nr
}

func family(v6 bool) int {
	if v6 {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

// HasDefault reports whether the main table has a default route of the family: whether this box reaches the internet
// that way.
func HasDefault(v6 bool) (bool, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, err := netlink.RouteListFiltered(family(v6), filter, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		ones := 0
		if r.Dst != nil {
			ones, _ = r.Dst.Mask.Size()
		}
		if ones == 0 && r.Type == unix.RTN_UNICAST {
			return true, nil
		}
	}
	return false, nil
}

// RouteDevice names the device by which packets to a would leave, as the kernel sees it now.
func RouteDevice(a netip.Addr) (string, error) {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", a, err)
	}
	if len(routes) == 0 {
		return "", fmt.Errorf("route to %s: %w", a, unix.ENETUNREACH)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return "", fmt.Errorf("route to %s: %w", a, err)
	}
	return link.Attrs().Name, nil
}

// LocalPrefixes lists the networks that this box is directly on, but for those of the named device and loopback.
func LocalPrefixes(except string) ([]netip.Prefix, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []netip.Prefix
	for _, l := range links {
		if l.Attrs().Name == except || l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			if p, ok := prefixOf(a.IPNet); ok && !p.Addr().IsLinkLocalUnicast() {
				out = append(out, p.Masked())
			}
		}
	}
	return out, nil
}

// Gateways lists the routers of the main table's default routes.
func Gateways() ([]netip.Addr, error) {
	var out []netip.Addr
	for _, v6 := range []bool{false, true} {
		routes, err := netlink.RouteListFiltered(family(v6), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			a, ok := netip.AddrFromSlice(r.Gw)
			if a = a.Unmap(); ok && !a.IsLinkLocalUnicast() && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out, nil
}
