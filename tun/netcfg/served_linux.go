package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ServedPrefixes lists the networks around this box that are no way to the internet: those of devices without a default
// route, and of IPv6 those of all devices, since a global prefix on the uplink is as often a home's LAN as a provider's
// network. They come in order, without loopback, link-local ones and the named device's.
func ServedPrefixes(except string) ([]netip.Prefix, error) {
	uplinks := map[int]bool{}
	for _, v6 := range []bool{false, true} {
		routes, err := netlink.RouteListFiltered(family(v6), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if ones := 0; r.Dst != nil {
				if ones, _ = r.Dst.Mask.Size(); ones > 0 {
					continue
				}
			}
			uplinks[r.LinkIndex] = true
			for _, hop := range r.MultiPath {
				uplinks[hop.LinkIndex] = true
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	var out []netip.Prefix
	for _, l := range links {
		if l.Attrs().Name == except {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		for _, a := range addrs {
			p, ok := prefixOf(a.IPNet)
			if !ok || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() || p.Addr().Is4() && uplinks[l.Attrs().Index] {
				continue
			}
			if p = p.Masked(); !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Compare(out[j]) < 0 })
	return out, nil
}
