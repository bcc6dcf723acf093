package netcfg

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// DefaultMark is the mark of the mesh's own packets while no other table was free.
	DefaultMark = firstTable
	// killSwitchTable is the nftables table (family inet). No device's table can have this name.
	killSwitchTable = "skywire-killswitch"
	// lockTable and holdTable are the routing tables with the unreachable routes of the kill switch and of Hold.
	lockTable = firstTable - 1
	holdTable = firstTable - 2
	// Rules behind those of Default (rulePriority and the next), so that these decide first.
	holdPriority = rulePriority + 4
	lockPriority = rulePriority + 8
)

// SetKillSwitch locks the box, or changes a lock without a gap. It is not journaled: it outlives this process, and only
// ReleaseKillSwitch or a reboot ends it. Two fences: an nftables table, which is enough alone, and unreachable routes for
// the time after somebody else's `nft flush ruleset`, which leave the LAN and sockets bound to a device.
//
//	forward      priority filter-10   clients of this box: gate · else reject
//	post         priority srcnat+10   own packets, and once more what is forwarded: mark · users · gate · else count, drop
//	gate         loopback, the device, served devices, DHCP, neighbour discovery, excluded, LAN: accept
//	mark_out/in  the mark is kept per connection, for the reverse path check (see Firewall.Mark)
func SetKillSwitch(k KillSwitch) error {
	if err := lockRoutes(lockTable, lockPriority, k.Mark, k.Exclude, k.UIDs, k.Only); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	b := &table{conn: c, device: k.Device, t: &nftables.Table{Name: killSwitchTable, Family: nftables.TableFamilyINet}}
	c.AddTable(b.t) // so that there is one to delete
	c.DelTable(b.t)
	c.AddTable(b.t)
	b.killSwitch(k)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("set nftables table %s: %w", killSwitchTable, explainNFT(err))
	}
	if v, err := readSysctl("ipv4/conf/all/src_valid_mark"); err == nil && v != "1" {
		if err := writeSysctl("ipv4/conf/all/src_valid_mark", "1"); err != nil {
			return fmt.Errorf("let the mesh's answers in: %w", explain(err))
		}
	}
	return nil
}

func (b *table) killSwitch(k KillSwitch) {
	gate := b.chain("gate")
	late := nftables.ChainPriorityRef(*nftables.ChainPriorityNATSource + 10)
	early := nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 10)
	forward := b.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, early)
	post := b.base("post", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, late)

	b.rule(gate, leaves("lo", expr.CmpOpEq), accept())
	b.rule(gate, leaves(b.device, expr.CmpOpEq), accept())
	for _, d := range k.Served {
		b.rule(gate, leaves(d, expr.CmpOpEq), accept())
	}
	b.rule(gate, ports(unix.NFPROTO_IPV4, 68, 67), accept())
	b.rule(gate, ports(unix.NFPROTO_IPV6, 546, 547), accept())
	for _, r := range [][2]byte{{133, 136}, {143, 143}} { // neighbours; MLDv2, without which switches keep neighbours apart
		b.rule(gate, icmp(true), []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 1},
			&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: []byte{r[0]}, ToData: []byte{r[1]}},
		}, accept())
	}
	open := k.Exclude
	if k.LAN {
		open = append(open[:len(open):len(open)], lanPrefixes()...)
	}
	for _, p := range open {
		b.rule(gate, destination(p), accept())
	}

	b.rule(forward, marked(k.Mark), accept())
	b.rule(forward, arrives(b.device), accept()) // a server's clients: its own table judges them
	b.rule(forward, jump(gate))
	if len(k.Only) == 0 {
		b.rule(forward, reject())
	}

	b.rule(post, marked(k.Mark), accept())
	b.rule(post, arrives(b.device), accept())
	for _, u := range k.UIDs {
		b.rule(post, user(u), accept())
	}
	b.rule(post, jump(gate))
	stop := []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
	for _, u := range k.Only {
		b.rule(post, user(u), stop)
	}
	if len(k.Only) == 0 {
		b.rule(post, stop)
	}
	b.marks(k.Mark)
}

// lanPrefixes are the destinations that no packet reaches through the internet.
func lanPrefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []string{
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/24", "239.0.0.0/8", "255.255.255.255/32",
		"fc00::/7", "fe80::/10", "ff01::/16", "ff02::/16", "ff05::/16",
	} {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}

func marked(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(mark)},
	}
}

// user matches own packets of a user.
func user(uid uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(uid)},
	}
}

// ports matches UDP of a family between two ports.
func ports(family byte, from, to uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(from >> 8), byte(from), byte(to >> 8), byte(to)}},
	}
}

// lockRoutes makes everything that is not marked unreachable, but for closer routes of the main table:
//
//	P-1  from all uidrange U lookup main
//	P    from all lookup main suppress_prefixlength 0
//	P+1  not from all fwmark M lookup T         T: unreachable default, throw EXCLUDED
//
// Routes and rules that are there already stay as they are.
func lockRoutes(tab, priority int, mark uint32, exclude []netip.Prefix, uids, only []uint32) error {
	for _, v6 := range []bool{false, true} {
		all := "0.0.0.0/0"
		if v6 {
			all = "::/0"
		}
		routes := []Route{{Prefix: netip.MustParsePrefix(all), Type: Unreachable, Table: tab}}
		for _, p := range exclude {
			if p.Addr().Is6() == v6 {
				routes = append(routes, Route{Prefix: p, Type: Throw, Table: tab})
			}
		}
		for _, r := range routes {
			nr, err := routeOf("", r)
			if err == nil {
				err = netlink.RouteReplace(nr)
			}
			if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
				return nil // no IPv6 in this kernel, so none leaves
			}
			if err != nil {
				return fmt.Errorf("lock routes: %w", explain(err))
			}
		}
		rules := []Rule{{V6: v6, Priority: priority, Table: unix.RT_TABLE_MAIN, SuppressDefault: true}}
		for _, u := range uids {
			rules = append(rules, Rule{V6: v6, Priority: priority - 1, Table: unix.RT_TABLE_MAIN, UID: u})
		}
		if len(only) == 0 {
			rules = append(rules, Rule{V6: v6, Priority: priority + 1, Table: tab, Mark: mark, Not: true})
		}
		for _, u := range only {
			rules = append(rules, Rule{V6: v6, Priority: priority + 1, Table: tab, Mark: mark, Not: true, UID: u})
		}
		for _, r := range rules {
			if err := netlink.RuleAdd(ruleOf(r)); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("lock rules: %w", explain(err))
			}
		}
	}
	return nil
}

// unlockRoutes takes back what lockRoutes has made, whatever for.
func unlockRoutes(tab, priority int) error {
	var errs []error
	for _, v6 := range []bool{false, true} {
		rules, err := netlink.RuleList(family(v6))
		if err != nil {
			errs = append(errs, explain(err))
		}
		for _, r := range rules {
			if r.Priority < priority-1 || r.Priority > priority+1 || r.Table != tab && r.Table != unix.RT_TABLE_MAIN {
				continue
			}
			if err := netlink.RuleDel(&r); err != nil && !gone(err) {
				errs = append(errs, explain(err))
			}
		}
		errs = append(errs, flushTable(v6, tab))
	}
	return errors.Join(errs...)
}

// flushTable deletes our routes of a table.
func flushTable(v6 bool, tab int) error {
	filter := &netlink.Route{Table: tab, Protocol: protocolID}
	routes, err := netlink.RouteListFiltered(family(v6), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return explain(err)
	}
	var errs []error
	for _, r := range routes {
		if err := netlink.RouteDel(&r); err != nil && !gone(err) {
			errs = append(errs, explain(err))
		}
	}
	return errors.Join(errs...)
}

// ReleaseKillSwitch takes the lock off; none is no error.
func ReleaseKillSwitch() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	c.AddTable(&nftables.Table{Name: killSwitchTable, Family: nftables.TableFamilyINet})
	c.DelTable(&nftables.Table{Name: killSwitchTable, Family: nftables.TableFamilyINet})
	err = c.Flush()
	if err != nil {
		err = fmt.Errorf("delete nftables table %s: %w", killSwitchTable, explainNFT(err))
	}
	return errors.Join(err, unlockRoutes(lockTable, lockPriority))
}

// KillSwitchState asks the kernel what is in force.
func KillSwitchState() (Locked, error) {
	var l Locked
	c, err := nftables.New()
	if err != nil {
		return l, fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	t := &nftables.Table{Name: killSwitchTable, Family: nftables.TableFamilyINet}
	rules, err := c.GetRules(t, &nftables.Chain{Name: "post", Table: t})
	if err != nil && !gone(err) {
		return l, fmt.Errorf("list nftables table %s: %w", killSwitchTable, explainNFT(err))
	}
	l.Table = err == nil && len(rules) > 0
	for _, r := range rules {
		for _, x := range r.Exprs {
			if n, ok := x.(*expr.Counter); ok {
				l.Blocked += n.Packets
			}
		}
	}
	l.Routes = true
	for _, v6 := range []bool{false, true} {
		rules, err := netlink.RuleList(family(v6))
		if err != nil {
			if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
				break
			}
			return l, fmt.Errorf("list rules: %w", explain(err))
		}
		found := false
		for _, r := range rules {
			found = found || r.Table == lockTable
		}
		l.Routes = l.Routes && found
	}
	return l, nil
}

// Hold makes unmarked packets unreachable, as the kill switch's routes do, until the group is taken back: for the moment
// in which the default routes of one exit go and those of the next come.
func (n *Net) Hold(group string, mark uint32, exclude []netip.Prefix) error {
	return n.change(entry{Kind: kindHold, Group: group, Device: n.c.Device}, func() error {
		return lockRoutes(holdTable, holdPriority, mark, exclude, nil, nil)
	})
}
