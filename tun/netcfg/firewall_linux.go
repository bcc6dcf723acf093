package netcfg

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"skywire/tun/netcfg/nft"
)

// tableName is our nftables table (family inet) for a device.
func tableName(device string) string { return "skywire_" + device }

func ourTable(device string) nft.Table {
	return nft.Table{Family: unix.NFPROTO_INET, Name: tableName(device)}
}

// Firewall replaces the device's nftables table with fw, in one transaction. Chains of other programs that drop what
// they don't know get a rule that lets the device's packets through, since an accept in our table alone cannot.
func (n *Net) Firewall(group string, fw Firewall) error {
	b := &table{Table: ourTable(n.c.Device), device: n.c.Device}
	b.AddTable(b.Table) // so that there is one to delete
	b.DelTable(b.Table)
	b.AddTable(b.Table)
	if fw.Gateway != nil {
		b.gateway(*fw.Gateway)
	}
	if fw.Mark != 0 {
		b.marks(fw.Mark)
	}
	err := n.change(entry{Kind: kindTable, Group: group, Device: n.c.Device}, b.Commit)
	if err != nil {
		return fmt.Errorf("set nftables table %s: %w", b.Name, explainNFT(err))
	}
	if fw.Gateway != nil {
		n.openForeign(group)
	}
	return nil
}

func removeTable(device string) error {
	b := &nft.Batch{}
	b.DelTable(ourTable(device))
	if err := b.Commit(); err != nil && !gone(err) {
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
	nft.Batch
	nft.Table
	device string
}

// gateway builds what a server needs:
//
//	forward   from the device: from_mesh · to the device: to_mesh · the MSS clamped to the route's mtu
//	from_mesh each source: to_world · else drop
//	to_world  answers, subnets, and for an exit everything but the refused: accept · else reject
//	to_mesh   answers: accept · without NAT everything · else drop
//	input     from the device: own addresses, subnets: accept · else reject
//	nat       sources leaving by another device: masquerade
func (b *table) gateway(g Gateway) {
	const toWorld, fromMesh, toMesh, forward, input, nat = "to_world", "from_mesh", "to_mesh", "forward", "input", "nat"
	b.chain(toWorld)
	b.chain(fromMesh)
	b.chain(toMesh)
	b.base(forward, nft.Hook{Type: "filter", Number: unix.NF_INET_FORWARD})
	b.base(input, nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_IN})

	b.rule(toWorld, established(), nft.Accept())
	for _, p := range g.Subnets {
		b.rule(toWorld, destination(p), nft.Accept())
	}
	if g.Exit {
		for _, p := range g.Refused {
			b.rule(toWorld, destination(p), reject())
		}
		b.rule(toWorld, nft.Accept())
	}
	b.rule(toWorld, reject())

	b.rule(fromMesh, leaves(b.device), nft.Drop())
	for _, p := range g.Sources {
		b.rule(fromMesh, source(p), nft.Jump(toWorld))
	}
	b.rule(fromMesh, nft.Drop())

	b.rule(toMesh, established(), nft.Accept())
	if !g.NAT {
		b.rule(toMesh, nft.Accept())
	}
	b.rule(toMesh, nft.Drop())

	b.rule(forward, arrives(b.device), clampMSS())
	b.rule(forward, leaves(b.device), clampMSS())
	b.rule(forward, arrives(b.device), nft.Jump(fromMesh))
	b.rule(forward, leaves(b.device), nft.Jump(toMesh))

	b.rule(input, arrives(b.device), established(), nft.Accept())
	for _, p := range append(append([]netip.Prefix{}, g.Local...), g.Subnets...) {
		b.rule(input, arrives(b.device), destination(p), nft.Accept())
	}
	b.rule(input, arrives(b.device), reject())

	if g.NAT {
		b.base(nat, nft.Hook{Type: "nat", Number: unix.NF_INET_POST_ROUTING, Priority: prioritySourceNAT})
		for _, p := range g.Sources {
			b.rule(nat, leavesNot(b.device), leavesNot("lo"), source(p), nft.Masquerade())
		}
	}
}

// marks keeps the mark of the mesh's own packets per connection and gives it to the answers, which the reverse path
// check then judges by the main table.
func (b *table) marks(mark uint32) {
	const out, in = "mark_out", "mark_in"
	b.base(out, nft.Hook{Type: "filter", Number: unix.NF_INET_LOCAL_OUT, Priority: priorityMangle})
	b.base(in, nft.Hook{Type: "filter", Number: unix.NF_INET_PRE_ROUTING, Priority: priorityMangle})
	b.rule(out, nft.Meta(unix.NFT_META_MARK), nft.Is(nft.Native32(mark)), nft.SetCt(unix.NFT_CT_MARK))
	b.rule(in, nft.Ct(unix.NFT_CT_MARK), nft.Is(nft.Native32(mark)), nft.SetMeta(unix.NFT_META_MARK))
}

// When a hook's chains are asked, as the kernel numbers it.
const (
	priorityMangle    = -150
	prioritySourceNAT = 100
)

func (b *table) chain(name string) { b.AddChain(b.Table, name, nil) }

func (b *table) base(name string, h nft.Hook) {
	h.Policy = nft.PolicyAccept
	b.AddChain(b.Table, name, &h)
}

func (b *table) rule(chain string, parts ...nft.Expr) { b.AddRule(b.Table, chain, nft.Join(parts...)) }
