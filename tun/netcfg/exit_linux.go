package netcfg

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firstTable is the first routing table tried for the default routes of a device ("SW"); its number is the mark, too.
// Rules stand just before those of the main table (32766), where wg-quick has its own.
const (
	firstTable   = 0x5357
	lastTable    = firstTable + 63
	rulePriority = 32700
)

// FreeTable finds a routing table that no rule names.
func FreeTable() (int, error) {
	var used []int
	for _, v6 := range []bool{false, true} {
		rules, err := netlink.RuleList(family(v6))
		if err != nil {
			return 0, fmt.Errorf("list rules: %w", explain(err))
		}
		for _, r := range rules {
			used = append(used, r.Table)
		}
	}
	for t := firstTable; t <= lastTable; t++ {
		if !slices.Contains(used, t) {
			return t, nil
		}
	}
	return 0, fmt.Errorf("routing tables %d to %d are all in use", firstTable, lastTable)
}

// Default is how everything that has no closer route leaves through the device.
type Default struct {
	Table   int // from FreeTable; packets with this mark (the mesh's own) are left alone
	V4, V6  bool
	Block6  bool // where V6 is false: refuse IPv6 instead of letting it pass outside the tunnel
	Exclude []netip.Prefix
	Source4 netip.Addr
	Source6 netip.Addr
}

// Default sends all packets through the device, but for what has a closer route in the main table (the LAN, the subnets
// of peers), the excluded prefixes, and the mesh's own packets.
//
//	32700: from all lookup main suppress_prefixlength 0
//	32701: not from all fwmark T lookup T         T: default dev DEVICE, throw EXCLUDED
func (n *Net) Default(group string, d Default) error {
	for _, f := range []struct {
		v6     bool
		on     bool
		all    string
		source netip.Addr
	}{{false, d.V4, "0.0.0.0/0", d.Source4}, {true, d.V6 || d.Block6, "::/0", d.Source6}} {
		if !f.on {
			continue
		}
		r := Route{Prefix: netip.MustParsePrefix(f.all), Table: d.Table, Source: f.source}
		if f.v6 && !d.V6 {
			r.Type, r.Source = Unreachable, netip.Addr{}
		}
		if err := n.Route(group, r); err != nil {
			return err
		}
		for _, p := range d.Exclude {
			if p.Addr().Is6() != f.v6 {
				continue
			}
			if err := n.Route(group, Route{Prefix: p, Type: Throw, Table: d.Table}); err != nil {
				return err
			}
		}
		rules := []Rule{
			{V6: f.v6, Priority: rulePriority + 1, Table: d.Table, Mark: uint32(d.Table), Not: true},
			{V6: f.v6, Priority: rulePriority, Table: unix.RT_TABLE_MAIN, SuppressDefault: true},
		}
		for _, r := range rules {
			if err := n.Rule(group, r); err != nil {
				return err
			}
		}
	}
	return nil
}
