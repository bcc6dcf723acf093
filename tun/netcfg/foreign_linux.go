package netcfg

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// openForeign puts a rule at the head of every chain of other programs that forwards, or takes in, with the policy to
// drop (OpenWrt's fw4, ufw, docker): forwarding is judged by our own table, of input only ICMP is let in, so that a
// client can prove the way, and questions for names to the gateway. It is best effort: a chain that cannot be changed is logged.
func (n *Net) openForeign(group string, c *nftables.Conn) {
	n.addForeign(group, c)
	if b, err := os.ReadFile("/proc/net/ip_tables_names"); err == nil && strings.Contains(string(b), "filter") {
		n.log.Warn("old iptables rules are in force beside nftables; if clients get no further than this box, " +
			"accept the device in the FORWARD chain")
	}
}

// KeepOpen puts rules back that other programs removed when they loaded their firewall again. Call it now and then.
func (n *Net) KeepOpen(group string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	n.addForeign(group, c)
	return nil
}

func (n *Net) addForeign(group string, c *nftables.Conn) {
	chains, err := c.ListChains()
	if err != nil {
		n.log.Warn("other programs' firewall chains not listed", "err", err)
		return
	}
	for _, ch := range chains {
		hook, ok := closedHook(ch)
		if !ok || ch.Table.Name == tableName(n.c.Device) {
			continue
		}
		f := &foreignRule{
			Family: uint8(ch.Table.Family), Table: ch.Table.Name, Chain: ch.Name, Comment: "skywire " + n.c.Device,
		}
		if hasForeign(c, ch, f.Comment) {
			continue
		}
		e := entry{Kind: kindForeign, Group: group, Device: n.c.Device, Foreign: f}
		err := n.change(e, func() error {
			for _, x := range foreignRules(n.c.Device, hook, ch.Table.Family, n.gateway) {
				c.InsertRule(&nftables.Rule{
					Table: ch.Table, Chain: ch, Exprs: x,
					UserData: userdata.AppendString(nil, userdata.TypeComment, f.Comment),
				})
			}
			return c.Flush()
		})
		if err != nil {
			n.log.Warn("firewall chain of another program drops our packets", "table", f.Table, "chain", f.Chain, "err", err)
			continue
		}
		n.log.Info("let the vpn through a firewall chain", "table", f.Table, "chain", f.Chain)
	}
}

// hasForeign reports whether our rules stand in the chain. When that can't be seen they do: better none than twice.
func hasForeign(c *nftables.Conn, ch *nftables.Chain, comment string) bool {
	rules, err := c.GetRules(ch.Table, ch)
	return err != nil || slices.ContainsFunc(rules, func(r *nftables.Rule) bool { return commented(r, comment) })
}

func commented(r *nftables.Rule, comment string) bool {
	return bytes.Equal(r.UserData, userdata.AppendString(nil, userdata.TypeComment, comment))
}

func closedHook(ch *nftables.Chain) (hook nftables.ChainHook, ok bool) {
	if ch.Hooknum == nil || ch.Type != nftables.ChainTypeFilter || ch.Policy == nil || *ch.Policy != nftables.ChainPolicyDrop {
		return 0, false
	}
	switch ch.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet:
	default:
		return 0, false
	}
	return *ch.Hooknum, *ch.Hooknum == *nftables.ChainHookForward || *ch.Hooknum == *nftables.ChainHookInput
}

func foreignRules(device string, hook nftables.ChainHook, f nftables.TableFamily, gateway []netip.Prefix) (rules [][]expr.Any) {
	if hook == *nftables.ChainHookForward {
		return [][]expr.Any{
			concat([][]expr.Any{arrives(device), accept()}),
			concat([][]expr.Any{leaves(device, expr.CmpOpEq), accept()}),
		}
	}
	if f != nftables.TableFamilyIPv6 {
		rules = append(rules, concat([][]expr.Any{arrives(device), icmp(false), accept()}))
	}
	if f != nftables.TableFamilyIPv4 {
		rules = append(rules, concat([][]expr.Any{arrives(device), icmp(true), accept()}))
	}
	for _, p := range gateway {
		if p.Addr().Is6() && f == nftables.TableFamilyIPv4 || p.Addr().Is4() && f == nftables.TableFamilyIPv6 {
			continue
		}
		to := destination(p)
		if f != nftables.TableFamilyINet {
			to = to[familyExprs:] // the nft program cannot print what asks for the family in a table of one
		}
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			rules = append(rules, concat([][]expr.Any{arrives(device), to, port(proto, 53), accept()}))
		}
	}
	return rules
}

func removeForeign(f foreignRule) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: f.Table, Family: nftables.TableFamily(f.Family)}
	rules, err := c.GetRules(t, &nftables.Chain{Name: f.Chain, Table: t})
	if err != nil {
		if gone(err) {
			return nil
		}
		return err
	}
	for _, r := range rules {
		if commented(r, f.Comment) {
			r.Table = t
			if err := c.DelRule(r); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(); err != nil && !gone(err) {
		return err
	}
	return nil
}
