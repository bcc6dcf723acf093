package netcfg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// clientSuffix makes the name of a client's nftables table of the device's: it lives apart from the server's.
	clientSuffix = "_client"
	// maxResolved bounds each set of addresses of domains; a name has a handful.
	maxResolved = 8192
	setFour     = "domains4"
	setSix      = "domains6"
)

// Split replaces the device's client table:
//
//	out      route, priority mangle-1   what is listed (with Only, what is not): past
//	pre      prerouting, mangle-1       the same for domains, of the gateways' clients
//	past     mark, and the mark of the connection
//	forward  gateways: to the device accept · from it answers alone · the MSS clamped to the route's mtu
//	nat      gateways' clients to the device, and own packets that were on their way to it: masquerade
func (n *Net) Split(group string, s Split, sources []netip.Addr) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	b := &table{conn: c, device: n.c.Device}
	err = n.change(entry{Kind: kindTable, Group: group, Device: n.c.Device + clientSuffix}, func() error {
		b.t = &nftables.Table{Name: tableName(n.c.Device + clientSuffix), Family: nftables.TableFamilyINet}
		c.AddTable(b.t) // so that there is one to delete
		c.DelTable(b.t)
		c.AddTable(b.t)
		if err := b.split(s); err != nil {
			return err
		}
		nat := b.base("nat", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
		b.gates(s.Gateways, nat)
		for _, a := range sources {
			b.rule(nat, leaves(b.device, expr.CmpOpNeq), leaves("lo", expr.CmpOpNeq), source(netip.PrefixFrom(a, a.BitLen())), []expr.Any{&expr.Masq{}})
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("set nftables table %s: %w", tableName(n.c.Device+clientSuffix), explainNFT(err))
	}
	if len(s.Gateways) > 0 {
		n.openForeign(group, c)
	}
	return nil
}

func (b *table) split(s Split) error {
	lists, err := s.matches()
	if err != nil {
		return err
	}
	var domains [][]expr.Any
	if s.Domains {
		if domains, err = b.domainSets(); err != nil {
			return err
		}
	}
	if len(lists)+len(domains) == 0 {
		return nil
	}
	past := b.chain("past")
	first := nftables.ChainPriorityRef(*nftables.ChainPriorityMangle - 1)
	out := b.base("out", nftables.ChainTypeRoute, nftables.ChainHookOutput, first)
	pre := b.base("pre", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, first)
	b.rule(past, []expr.Any{
		&expr.Immediate{Register: 1, Data: native32(s.Mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}, accept())
	b.rule(out, leaves("lo", expr.CmpOpEq), accept())
	b.rule(out, marked(s.Mark), accept())
	verdict := func(c *nftables.Chain, all [][]expr.Any, before ...[]expr.Any) {
		for _, m := range all {
			v := jump(past)
			if s.Only {
				v = accept()
			}
			b.rule(c, append(before[:len(before):len(before)], m, v)...)
		}
		if s.Only && len(all) > 0 {
			b.rule(c, append(before[:len(before):len(before)], jump(past))...)
		}
	}
	verdict(out, append(lists, domains...))
	for _, g := range s.Gateways {
		verdict(pre, domains, g.from())
	}
	return nil
}

// matches are the expressions for users and cgroups.
func (s Split) matches() (all [][]expr.Any, err error) {
	for _, u := range s.UIDs {
		all = append(all, user(u))
	}
	for _, path := range s.Cgroups {
		id, level, err := cgroup(path)
		if err != nil {
			return nil, err
		}
		all = append(all, []expr.Any{
			&expr.Socket{Key: expr.SocketKeyCgroupv2, Level: level, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint64(nil, id)},
		})
	}
	return all, nil
}

// cgroup finds the id and the depth of a group by its path below the cgroup v2 mount.
func cgroup(path string) (id uint64, level uint32, err error) {
	path = strings.Trim(filepath.Clean("/"+path), "/")
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fsys unix.Statfs_t
		if unix.Statfs(mount, &fsys) != nil || int64(fsys.Type) != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(mount, path), &st); err != nil || path == "" {
			return 0, 0, fmt.Errorf("cgroup %q: %w below %s: start what is in it first", path, fs.ErrNotExist, mount)
		}
		return st.Ino, uint32(strings.Count(path, "/") + 1), nil
	}
	return 0, 0, fmt.Errorf("cgroup %q: this box has no cgroup v2: %w", path, errors.ErrUnsupported)
}

// domainSets makes the sets that Resolved fills, and what matches a destination in them.
func (b *table) domainSets() ([][]expr.Any, error) {
	var all [][]expr.Any
	for _, f := range []struct {
		name   string
		kind   nftables.SetDatatype
		proto  byte
		offset uint32
	}{{setFour, nftables.TypeIPAddr, unix.NFPROTO_IPV4, 16}, {setSix, nftables.TypeIP6Addr, unix.NFPROTO_IPV6, 24}} {
		set := &nftables.Set{Table: b.t, Name: f.name, KeyType: f.kind, HasTimeout: true, Size: maxResolved}
		if err := b.conn.AddSet(set, nil); err != nil {
			return nil, err
		}
		all = append(all, []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.kind.Bytes},
			&expr.Lookup{SourceRegister: 1, SetName: f.name, SetID: set.ID},
		})
	}
	return all, nil
}

// Resolved puts addresses of a domain of Split into its sets for a time. It needs no lock: the table is the only state.
func Resolved(device string, addrs []netip.Addr, ttl time.Duration) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", explainNFT(err))
	}
	t := &nftables.Table{Name: tableName(device + clientSuffix), Family: nftables.TableFamilyINet}
	for _, a := range addrs {
		set := &nftables.Set{Table: t, Name: setFour, KeyType: nftables.TypeIPAddr, HasTimeout: true}
		if a = a.Unmap(); a.Is6() {
			set.Name, set.KeyType = setSix, nftables.TypeIP6Addr
		}
		one := []nftables.SetElement{{Key: a.AsSlice(), Timeout: ttl}}
		// An element that is there keeps its old time: it is taken out first, put in before so that there is one.
		if err := errors.Join(c.SetAddElements(set, one), c.SetDeleteElements(set, one), c.SetAddElements(set, one)); err != nil {
			return err
		}
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("fill sets of table %s: %w", t.Name, explainNFT(err))
	}
	return nil
}

// from matches packets of a gateway's clients.
func (g Gate) from() []expr.Any {
	if g.Device != "" {
		return arrives(g.Device)
	}
	return source(g.Prefix)
}

func (g Gate) to() []expr.Any {
	if g.Device != "" {
		return leaves(g.Device, expr.CmpOpEq)
	}
	return destination(g.Prefix)
}

// gates lets clients of gateways through.
func (b *table) gates(all []Gate, nat *nftables.Chain) {
	if len(all) == 0 {
		return
	}
	forward := b.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	b.rule(forward, arrives(b.device), clampMSS())
	b.rule(forward, leaves(b.device, expr.CmpOpEq), clampMSS())
	for _, g := range all {
		b.rule(forward, g.from(), leaves(b.device, expr.CmpOpEq), accept())
		b.rule(forward, arrives(b.device), g.to(), established(), accept())
		b.rule(nat, g.from(), leaves(b.device, expr.CmpOpEq), []expr.Any{&expr.Masq{}})
	}
	b.rule(forward, arrives(b.device), drop())
}
