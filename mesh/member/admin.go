package member

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sort"
	"time"

	"skywire/mesh/key"
)

// Roles are what a node may be in its cluster.
type Roles uint16

// Roles of a certificate.
const (
	RoleMember    Roles = 1 << iota // may link, relay and be reached
	RoleManager                     // may issue what the admin key beside it may: joiners look for it
	RoleRelay                       // trusted to relay, for paths that want trusted relays only
	RoleExit                        // trusted as a way to the internet
	RoleMessenger                   // speaks for the cluster: a device of the account that the cluster key is
	RoleBorder                      // receives guests of peered clusters

	// AllRoles is what the first admin of a cluster may give. A program that knows fewer refuses a statement with more.
	AllRoles = RoleMember | RoleManager | RoleRelay | RoleExit | RoleMessenger | RoleBorder
)

// Powers are what an entry of the admin list lets its key do.
type Powers uint8

// Powers of an admin. Scopes come from nowhere else than this list or the box itself.
const (
	MayIssue   Powers = 1 << iota // sign certificates
	MayRevoke                     // sign revocations and restorations
	MayTell                       // sign the time
	MayOperate                    // scope operate on every box of the cluster, for this key
	MayAdmin                      // scope admin, alike

	allPowers = MayIssue | MayRevoke | MayTell | MayOperate | MayAdmin
)

// Admin is one entry of the admin list: a key, and what it may do.
type Admin struct {
	Key    key.Public
	Powers Powers
	Roles  Roles         // that it may give
	Life   time.Duration // longest life of a certificate it signs; whole seconds
	IPv4   netip.Prefix  // addresses that it may give; the zero value: none
	AnyTag bool          // it may give any tag
	Tags   []string      // that it may give, unless AnyTag
}

// AdminList is who may sign what. The cluster key signs it, and may lie in a drawer otherwise. A higher number replaces
// the list as a whole, with all that former admins signed.
type AdminList struct {
	Number uint64
	Issued int64 // unix seconds
	Admins []Admin
}

// Find returns the entry of a key.
func (l *AdminList) Find(k key.Public) (Admin, bool) {
	if l != nil {
		for _, a := range l.Admins {
			if a.Key == k {
				return a, true
			}
		}
	}
	return Admin{}, false
}

// Sign encodes the list and signs it with the cluster key:
//
//	kind 1 │ version 1 │ number 8 │ issued 8 │ admins 1 │ each {key 32, powers 1, roles 2, life_s 4, ipv4 4, bits 1,
//	tags 1 (255: any), each {length 1, text}} │ signature 64
func (l *AdminList) Sign(cluster *key.Private) ([]byte, error) {
	b := []byte{byte(KindAdmins), statementVersion}
	b = binary.BigEndian.AppendUint64(b, l.Number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Issued))
	b = append(b, byte(len(l.Admins)))
	for _, a := range l.Admins {
		b = append(b, a.Key[:]...)
		b = append(b, byte(a.Powers))
		b = binary.BigEndian.AppendUint16(b, uint16(a.Roles))
		b = binary.BigEndian.AppendUint32(b, uint32(a.Life/time.Second))
		b = appendPrefix(b, a.IPv4)
		if a.AnyTag {
			b = append(b, anyTag)
			continue
		}
		b = appendTags(b, a.Tags)
	}
	raw := seal(b, key.Cluster(cluster.Public()), cluster)
	if _, err := ParseAdminList(raw); err != nil {
		return nil, fmt.Errorf("sign: %w", err) // what no one would take is not signed
	}
	return raw, nil
}

// anyTag stands where the number of tags does.
const anyTag = 255

// ParseAdminList decodes a list; it does not check the signature.
func ParseAdminList(raw []byte) (*AdminList, error) {
	c, err := open(raw, KindAdmins)
	if err != nil {
		return nil, err
	}
	l := &AdminList{Number: c.U64(), Issued: c.Unix()}
	n := int(c.U8())
	if n == 0 || n > MaxAdmins || l.Number == 0 {
		c.Bad = true
	}
	for range n {
		if c.Bad {
			break
		}
		a := Admin{Key: c.key(), Powers: Powers(c.U8()), Roles: Roles(c.U16()), Life: time.Duration(c.U32()) * time.Second, IPv4: c.prefix()}
		if len(c.B) > 0 && c.B[0] == anyTag {
			c.U8()
			a.AnyTag = true
		} else {
			a.Tags = c.tags()
		}
		if _, twice := l.Find(a.Key); twice || a.Powers&^allPowers != 0 || a.Roles&^AllRoles != 0 {
			c.Bad = true
		}
		l.Admins = append(l.Admins, a)
	}
	if err := c.end("admin list"); err != nil {
		return nil, err
	}
	return l, nil
}

func appendPrefix(dst []byte, p netip.Prefix) []byte {
	dst = appendIPv4(dst, p.Addr())
	if !p.Addr().Is4() {
		return append(dst, 0)
	}
	return append(dst, byte(p.Bits()))
}

func appendIPv4(dst []byte, a netip.Addr) []byte {
	if !a.Is4() {
		return append(dst, 0, 0, 0, 0)
	}
	v := a.As4()
	return append(dst, v[:]...)
}

func (c *cursor) prefix() netip.Prefix {
	a, bits := c.ipv4(), int(c.U8())
	if !a.IsValid() {
		c.Bad = c.Bad || bits != 0
		return netip.Prefix{}
	}
	p := netip.PrefixFrom(a, bits)
	c.Bad = c.Bad || bits < 1 || bits > 32 || p.Masked() != p
	return p
}

// ipv4 takes an address; 0.0.0.0 is none.
func (c *cursor) ipv4() netip.Addr {
	v := [4]byte(c.Take(4))
	if v == ([4]byte{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom4(v)
}

func appendTags(dst []byte, tags []string) []byte {
	dst = append(dst, byte(len(tags)))
	for _, t := range tags {
		dst = appendText(dst, t)
	}
	return dst
}

// tags takes tags in rising order.
func (c *cursor) tags() (tags []string) {
	n := int(c.U8())
	c.Bad = c.Bad || n > MaxTags
	for i := range n {
		if c.Bad {
			return nil
		}
		t := c.text(MaxTag)
		c.Bad = c.Bad || !ValidName(t) || i > 0 && t <= tags[i-1]
		tags = append(tags, t)
	}
	return tags
}

// Words are the roles for people.
func (r Roles) Words() []string {
	return bitWords(uint16(r), "member", "manager", "relay", "exit", "messenger", "border")
}

// Words are the powers for people.
func (p Powers) Words() []string {
	return bitWords(uint16(p), "issue", "revoke", "time", "operate", "admin")
}

func bitWords(bits uint16, words ...string) []string {
	all := []string{}
	for i, w := range words {
		if bits>>i&1 != 0 {
			all = append(all, w)
		}
	}
	return all
}

// RoleWord is the role that a word names, 0 if none.
func RoleWord(word string) Roles {
	for r := RoleMember; r <= AllRoles; r <<= 1 {
		if w := r.Words(); len(w) == 1 && w[0] == word {
			return r
		}
	}
	return 0
}

// PowerWord is the power that a word names, 0 if none.
func PowerWord(word string) Powers {
	for p := MayIssue; p <= allPowers; p <<= 1 {
		if w := p.Words(); len(w) == 1 && w[0] == word {
			return p
		}
	}
	return 0
}

// SortTags puts tags in the order of statements, each once.
func SortTags(tags []string) []string {
	sort.Strings(tags)
	n := 0
	for i, t := range tags {
		if i == 0 || t != tags[i-1] {
			tags[n] = t
			n++
		}
	}
	return tags[:n]
}

// FreeBlock is the block of IPv4 addresses that k has in a list, else the first /16 of 100.64.0.0/10 that no admin has
// part of; the zero value if all are taken.
func FreeBlock(l *AdminList, k key.Public) netip.Prefix {
	if a, ok := l.Find(k); ok && a.IPv4.IsValid() {
		return a.IPv4
	}
	for n := byte(64); n < 128; n++ {
		p, free := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, n}), 16), true
		for _, a := range l.Admins {
			free = free && !a.IPv4.Overlaps(p)
		}
		if free {
			return p
		}
	}
	return netip.Prefix{}
}
