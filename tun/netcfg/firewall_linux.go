package netcfg

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is our nftables table (family inet) for a device.
func tableName(device string) string { return "skywire_" + device }

// Firewall replaces the device's nftables table with fw, in one transaction. Chains of other programs that drop what
// they don't know get a rule that lets the device's packets through, since an accept in our table alone cannot.
func (n *Net) Firewall(group string, fw Firewall) error {
	b := &table{device: n.c.Device}
	var err error
	if b.conn, err = nftables.New(); err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	n.keepUsage(b.conn)
	err = n.change(entry{Kind: kindTable, Group: group, Device: n.c.Device}, func() error {
		b.t = &nftables.Table{Name: tableName(n.c.Device), Family: nftables.TableFamilyINet}
		b.conn.AddTable(b.t) // so that there is one to delete
		b.conn.DelTable(b.t)
		b.conn.AddTable(b.t)
		if fw.Gateway != nil {
			if err := b.gateway(*fw.Gateway); err != nil {
				return err
			}
			n.nat, n.gateway = fw.Gateway.NAT, fw.Gateway.Gateway
			if err := b.addClients(n.clients); err != nil {
				return err
			}
		}
		if fw.Mark != 0 {
			b.marks(fw.Mark)
		}
		return b.conn.Flush()
	})
	if err != nil {
		return fmt.Errorf("set nftables table %s: %w", tableName(n.c.Device), explainNFT(err))
	}
	if fw.Gateway != nil {
		n.openForeign(group, b.conn)
	}
	return nil
}

func (n *Net) removeTable(device string) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	n.keepUsage(c)
	t, err := c.ListTableOfFamily(tableName(device), nftables.TableFamilyINet)
	if t == nil || err != nil {
		if err == nil || gone(err) {
			return nil
		}
		return err
	}
	c.DelTable(t)
	if err := c.Flush(); err != nil && !gone(err) {
		return err
	}
	return nil
}

func explainNFT(err error) error {
	for _, e := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOENT, unix.EAFNOSUPPORT, unix.EINVAL} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w (%w)", ErrNoNFT, err)
		}
	}
	return explain(err)
}

// table builds the chains of one device.
type table struct {
	conn   *nftables.Conn
	t      *nftables.Table
	device string
	nat    bool
	maps   [4]*nftables.Set
}

// internetChain is what an exit leads to: everything but the refused.
const internetChain = "internet"

// gateway builds what a server needs; what clients may do stands in chains of their own, see SetClient:
//
//	forward    from the device: from_mesh · to the device: to_mesh · the MSS clamped to the route's mtu
//	from_mesh  by source: up_CLIENT · else drop
//	internet   the refused: reject · else accept
//	to_mesh    by destination: down_CLIENT · else drop
//	input      from the device: answers, Local, ICMP and names to Gateway: accept · else reject
//	nat        sources leaving by another device: masquerade
func (b *table) gateway(g Gateway) error {
	b.nat = g.NAT
	if err := b.addMaps(); err != nil {
		return err
	}
	internet := b.chain(internetChain)
	fromMesh := b.chain("from_mesh")
	toMesh := b.chain("to_mesh")
	forward := b.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	input := b.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)

	for _, p := range g.Refused {
		b.rule(internet, destination(p), reject())
	}
	b.rule(internet, accept())

	b.byClient(fromMesh, mapUp4)
	b.byClient(fromMesh, mapUp6)
	b.rule(fromMesh, drop())

	b.byClient(toMesh, mapDown4)
	b.byClient(toMesh, mapDown6)
	b.rule(toMesh, drop())

	b.rule(forward, arrives(b.device), clampMSS())
	b.rule(forward, leaves(b.device, expr.CmpOpEq), clampMSS())
	b.rule(forward, arrives(b.device), jump(fromMesh))
	b.rule(forward, leaves(b.device, expr.CmpOpEq), jump(toMesh))

	b.input(input, g)
	if g.NAT {
		nat := b.base("nat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
		for _, p := range g.Sources {
			b.rule(nat, leaves(b.device, expr.CmpOpNeq), leaves("lo", expr.CmpOpNeq), source(p), []expr.Any{&expr.Masq{}})
		}
	}
	return nil
}

// input judges what is for this box itself. That clients' addresses are their own the node has seen to.
func (b *table) input(c *nftables.Chain, g Gateway) {
	b.rule(c, arrives(b.device), established(), accept())
	for _, p := range g.Gateway {
		b.rule(c, arrives(b.device), destination(p), icmp(p.Addr().Is6()), accept())
		for _, proto := range []byte{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
			b.rule(c, arrives(b.device), destination(p), port(proto, 53), accept())
		}
	}
	for _, p := range append(append([]netip.Prefix{}, g.Local...), g.Subnets...) {
		b.rule(c, arrives(b.device), destination(p), accept())
	}
	b.rule(c, arrives(b.device), reject())
}

// marks keeps the mark of the mesh's own packets per connection and gives it to the answers, which the reverse path
// check then judges by the main table.
func (b *table) marks(mark uint32) {
	out := b.base("mark_out", nftables.ChainTypeFilter, nftables.ChainHookOutput, nftables.ChainPriorityMangle)
	in := b.base("mark_in", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle)
	b.rule(out, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(mark)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	})
	b.rule(in, []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: native32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
	})
}

func (b *table) chain(name string) *nftables.Chain {
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.t})
}

func (b *table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, p *nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return b.conn.AddChain(&nftables.Chain{Name: name, Table: b.t, Type: kind, Hooknum: hook, Priority: p, Policy: &policy})
}

func (b *table) rule(c *nftables.Chain, parts ...[]expr.Any) {
	b.conn.AddRule(&nftables.Rule{Table: b.t, Chain: c, Exprs: concat(parts)})
}
