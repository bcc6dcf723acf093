package netcfg

import (
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The part of a gateway's table that changes with each client. A packet finds its client by address in a map and goes on in
// a chain of the client's own, so that thousands cost what one does, and that one who leaves is gone with one transaction,
// the connections it has included:
//
//	up_ADDR    over the rate: drop · counted · over the quota: reject · answers, subnets, the internet, peers: accept · reject
//	down_ADDR  over the rate: drop · counted · over the quota: reject · answers (without NAT: all): accept · drop

// Names of the objects of a client, before its IPv4 address. Chains and counters live in spaces of their own.
const (
	upPrefix    = "up_"
	downPrefix  = "down_"
	quotaPrefix = "quota_"
)

// minBurst is what a rate limit lets through at once after a silence, at least: a few of the super-packets of 64 KiB that
// pass a gateway as one. The kernel's own is a second's worth.
const minBurst = 256 << 10

// Indices of the maps.
const (
	mapUp4 = iota
	mapUp6
	mapDown4
	mapDown6
)

// clientMaps are the maps from addresses to verdicts. Their numbers are ours, since the library counts in a global.
func clientMaps(t *nftables.Table) [4]*nftables.Set {
	var all [4]*nftables.Set
	for i, name := range [4]string{"up4", "up6", "down4", "down6"} {
		kind := nftables.TypeIPAddr
		if i&1 == 1 {
			kind = nftables.TypeIP6Addr
		}
		all[i] = &nftables.Set{ID: uint32(i + 1), Table: t, Name: name, IsMap: true, KeyType: kind, DataType: nftables.TypeVerdict}
	}
	return all
}

// SetClient lets a client of the gateway do what c says, in place of what was said of it before. Call Firewall first.
func (n *Net) SetClient(c Client) error {
	return n.edit(func(b *table) error {
		if old := n.clients[c.IPv4]; old != nil {
			b.dropClient(*old)
		}
		return b.addClient(c)
	}, func() {
		if n.clients == nil {
			n.clients = map[netip.Addr]*Client{}
		}
		n.clients[c.IPv4] = &c
	})
}

// DropClient cuts a client off: the connections it has as well.
func (n *Net) DropClient(ipv4 netip.Addr) error {
	old := n.clients[ipv4]
	if old == nil {
		return nil
	}
	return n.edit(func(b *table) error {
		b.dropClient(*old)
		return nil
	}, func() { delete(n.clients, ipv4) })
}

// Usage is what went for each client of now, that before it was set included.
func (n *Net) Usage() (map[netip.Addr]Usage, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	return n.usage(c)
}

func (n *Net) usage(c *nftables.Conn) (map[netip.Addr]Usage, error) {
	all := make(map[netip.Addr]Usage, len(n.clients))
	objects, err := c.GetNamedObjects(&nftables.Table{Name: tableName(n.c.Device), Family: nftables.TableFamilyINet})
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", explainNFT(err))
	}
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		count, ok := named.Obj.(*expr.Counter)
		if !ok {
			continue
		}
		if text, ok := strings.CutPrefix(named.Name, upPrefix); ok {
			if a, err := netip.ParseAddr(text); err == nil {
				u := all[a]
				u.Up = count.Bytes
				all[a] = u
			}
		} else if a, err := netip.ParseAddr(strings.TrimPrefix(named.Name, downPrefix)); err == nil {
			u := all[a]
			u.Down = count.Bytes
			all[a] = u
		}
	}
	return all, nil
}

// keepUsage remembers the counters of clients, before the table goes that has them.
func (n *Net) keepUsage(c *nftables.Conn) {
	if len(n.clients) == 0 {
		return
	}
	now, err := n.usage(c)
	if err != nil {
		n.log.Warn("traffic of clients since the last look is not counted", "err", err)
		return
	}
	for a, client := range n.clients {
		if u, ok := now[a]; ok {
			client.Used = u
		}
	}
}

// edit changes the table in one transaction, after reading the counters that it may replace.
func (n *Net) edit(change func(*table) error, done func()) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	b := &table{conn: conn, device: n.c.Device, nat: n.nat}
	b.t = &nftables.Table{Name: tableName(n.c.Device), Family: nftables.TableFamilyINet}
	b.maps = clientMaps(b.t)
	if err := change(b); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("change nftables table %s: %w", b.t.Name, explainNFT(err))
	}
	done()
	return nil
}

// addMaps makes the maps, empty.
func (b *table) addMaps() error {
	b.maps = clientMaps(b.t)
	for _, m := range b.maps {
		if err := b.conn.AddSet(m, nil); err != nil {
			return err
		}
	}
	return nil
}

// byClient sends a packet to the chain of its client, if it is of one.
func (b *table) byClient(chain *nftables.Chain, index int) {
	proto, offset, length := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	switch index {
	case mapDown4:
		offset = 16
	case mapUp6:
		proto, offset, length = unix.NFPROTO_IPV6, 8, 16
	case mapDown6:
		proto, offset, length = unix.NFPROTO_IPV6, 24, 16
	}
	b.rule(chain, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: 1, IsDestRegSet: true, SetName: b.maps[index].Name, SetID: b.maps[index].ID},
	})
}

// clientElements are the entries of a client in one of the maps.
func clientElements(c Client, index int) []nftables.SetElement {
	a, chain := c.IPv4, upPrefix+c.IPv4.String()
	if index&1 == 1 {
		a = c.IPv6
	}
	if index >= mapDown4 {
		chain = downPrefix + c.IPv4.String()
	}
	if !a.IsValid() {
		return nil
	}
	return []nftables.SetElement{{Key: a.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}}
}

// addClients does so for all, in order, so that equal gateways have equal tables.
func (b *table) addClients(all map[netip.Addr]*Client) error {
	order := make([]netip.Addr, 0, len(all))
	for a := range all {
		order = append(order, a)
	}
	sort.Slice(order, func(i, j int) bool { return order[i].Less(order[j]) })
	for _, a := range order {
		if err := b.addClient(*all[a]); err != nil {
			return err
		}
	}
	return nil
}

func (b *table) addClient(c Client) error {
	id := c.IPv4.String()
	up, down := b.chain(upPrefix+id), b.chain(downPrefix+id)
	b.counter(upPrefix+id, c.Used.Up)
	b.counter(downPrefix+id, c.Used.Down)
	if c.Quota > 0 {
		left := c.Quota - min(c.Quota, c.Used.Up+c.Used.Down)
		b.conn.AddObj(&nftables.QuotaObj{Table: b.t, Name: quotaPrefix + id, Bytes: left, Over: true})
	}
	for _, way := range []struct {
		chain *nftables.Chain
		rate  uint64
	}{{up, c.Up}, {down, c.Down}} {
		if way.rate > 0 {
			b.rule(way.chain, over(way.rate), drop())
		}
		b.rule(way.chain, object(nftables.ObjTypeCounter, way.chain.Name))
		if c.Quota > 0 {
			b.rule(way.chain, object(nftables.ObjTypeQuota, quotaPrefix+id), reject())
		}
		b.rule(way.chain, established(), accept())
	}
	if c.Peers {
		b.rule(up, leaves(b.device, expr.CmpOpEq), accept())
	} else {
		b.rule(up, leaves(b.device, expr.CmpOpEq), reject())
	}
	for _, p := range c.Subnets {
		b.rule(up, destination(p), accept())
	}
	if c.Exit {
		b.rule(up, []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: internetChain}})
	}
	b.rule(up, reject())
	if !b.nat {
		b.rule(down, accept())
	}
	b.rule(down, drop())
	for i, m := range b.maps {
		if e := clientElements(c, i); e != nil {
			if err := b.conn.SetAddElements(m, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropClient takes back what addClient made: entries, chains, objects, in the order of who names whom.
func (b *table) dropClient(c Client) {
	id := c.IPv4.String()
	for i, m := range b.maps {
		if e := clientElements(c, i); e != nil {
			_ = b.conn.SetDeleteElements(m, e) // what is wrong with it Flush says, too
		}
	}
	for _, name := range []string{upPrefix + id, downPrefix + id} {
		ch := &nftables.Chain{Name: name, Table: b.t}
		b.conn.FlushChain(ch)
		b.conn.DelChain(ch)
		b.conn.DeleteObject(&nftables.CounterObj{Table: b.t, Name: name})
	}
	if c.Quota > 0 {
		b.conn.DeleteObject(&nftables.QuotaObj{Table: b.t, Name: quotaPrefix + id})
	}
}

func (b *table) counter(name string, start uint64) {
	b.conn.AddObj(&nftables.CounterObj{Table: b.t, Name: name, Bytes: start})
}

// object runs a named counter or quota.
func object(kind nftables.ObjType, name string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: int(kind), Name: name}}
}

// over matches what is beyond a rate of bytes a second.
func over(rate uint64) []expr.Any {
	return []expr.Any{&expr.Limit{
		Type: expr.LimitTypePktBytes, Unit: expr.LimitTimeSecond, Rate: rate, Over: true,
		Burst: uint32(minBurst - min(rate, minBurst)),
	}}
}
