package netcfg

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"skywire/tun/netcfg/nft"
)

// openForeign puts a rule at the head of every chain of other programs that forwards, or takes in, with the policy to
// drop (OpenWrt's fw4, ufw, docker): forwarding is judged by our own table, of input only ICMP is let in, so that a
// client can prove the way. It is best effort: a chain that cannot be changed is logged.
func (n *Net) openForeign(group string) {
	if err := n.KeepOpen(group); err != nil {
		n.log.Warn("other programs' firewall chains not listed", "err", err)
	}
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(b), "filter") {
		n.log.Warn("old iptables rules are in force beside nftables; if clients get no further than this box, " +
			"accept the device in the FORWARD chain")
	}
}

// KeepOpen puts rules back that other programs removed when they loaded their firewall again. Call it now and then.
func (n *Net) KeepOpen(group string) error {
	chains, err := nft.Chains()
	if err != nil {
		return fmt.Errorf("list firewall chains: %w", explainNFT(err))
	}
	for _, ch := range chains {
		if !closed(ch) || ch.Table.Name == tableName(n.c.Device) {
			continue
		}
		f := &foreignRule{
			Family: ch.Table.Family, Table: ch.Table.Name, Chain: ch.Name, Comment: "skywire " + n.c.Device,
		}
		if hasForeign(ch, f.Comment) {
			continue
		}
		e := entry{Kind: kindForeign, Group: group, Device: n.c.Device, Foreign: f}
		b := &nft.Batch{}
		for _, x := range foreignRules(n.c.Device, ch) {
			b.InsertRule(ch.Table, ch.Name, f.Comment, x)
		}
		err := n.change(e, b.Commit)
		if err != nil {
			n.log.Warn("firewall chain of another program drops our packets", "table", f.Table, "chain", f.Chain, "err", err)
			continue
		}
		n.log.Info("let the vpn through a firewall chain", "table", f.Table, "chain", f.Chain)
	}
	return nil
}

// hasForeign reports whether our rules stand in the chain. When that can't be seen they do: better none than twice.
func hasForeign(ch nft.Chain, comment string) bool {
	rules, err := nft.Rules(ch.Table, ch.Name)
	return err != nil || slices.ContainsFunc(rules, func(r nft.Rule) bool { return r.Comment == comment })
}

// closed tells whether a chain judges what is forwarded or comes in, and drops what it does not know.
func closed(ch nft.Chain) bool {
	if ch.Hook == nil || ch.Hook.Type != "filter" || ch.Hook.Policy != nft.PolicyDrop {
		return false
	}
	switch ch.Table.Family {
	case unix.NFPROTO_IPV4, unix.NFPROTO_IPV6, unix.NFPROTO_INET:
		return ch.Hook.Number == unix.NF_INET_FORWARD || ch.Hook.Number == unix.NF_INET_LOCAL_IN
	}
	return false
}

func foreignRules(device string, ch nft.Chain) (rules []nft.Expr) {
	if ch.Hook.Number == unix.NF_INET_FORWARD {
		return []nft.Expr{nft.Join(arrives(device), nft.Accept()), nft.Join(leaves(device), nft.Accept())}
	}
	if ch.Table.Family != unix.NFPROTO_IPV6 {
		rules = append(rules, nft.Join(arrives(device), icmp(false), nft.Accept()))
	}
	if ch.Table.Family != unix.NFPROTO_IPV4 {
		rules = append(rules, nft.Join(arrives(device), icmp(true), nft.Accept()))
	}
	return rules
}

func removeForeign(f foreignRule) error {
	t := nft.Table{Family: f.Family, Name: f.Table}
	rules, err := nft.Rules(t, f.Chain)
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	b := &nft.Batch{}
	for _, r := range rules {
		if r.Comment == f.Comment {
			b.DelRule(t, f.Chain, r.Handle)
		}
	}
	if err := b.Commit(); err != nil && !gone(err) {
		return err
	}
	return nil
}
