package envelope

import (
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

// identity is a key made of a byte, the same in every run.
func identity(t testing.TB, b byte) *key.Private {
	t.Helper()
	seed := [32]byte{b}
	for {
		k, err := key.FromSeed(seed)
		if err == nil {
			return k
		}
		seed[31]++
	}
}

func must(t testing.TB, raw []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const epoch = int64(member.Epoch)

// at is so long after the epoch, on a box whose clock is right.
func at(d time.Duration) member.Instant {
	return member.Instant{Up: d, Wall: time.Unix(epoch, 0).Add(d)}
}

// secret is one that is the same in every run.
func secret(id uint32) *Secret {
	s := &Secret{ID: id, NotBefore: epoch, NotAfter: epoch + int64(PrekeyLife/time.Second)}
	for i := range s.seed {
		s.seed[i] = byte(i) + byte(id)
	}
	return s
}

func only(s *Secret) func(uint32) *Secret {
	return func(id uint32) *Secret {
		if s.ID != id {
			return nil
		}
		return s
	}
}

func prekey(t testing.TB, s *Secret, suite Suite) Prekey {
	t.Helper()
	p, err := s.Prekey(suite)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cluster signs for devices.
type cluster struct {
	t           testing.TB
	root, admin *key.Private
}

func newCluster(t testing.TB, b byte) *cluster {
	return &cluster{t, identity(t, b), identity(t, b+1)}
}

func (c *cluster) network() key.NetworkID { return key.Cluster(c.root.Public()) }

func (c *cluster) list(number uint64, admins ...*key.Private) []byte {
	l := member.AdminList{Number: number, Issued: epoch}
	for _, a := range admins {
		l.Admins = append(l.Admins, member.Admin{
			Key: a.Public(), Powers: member.MayIssue | member.MayRevoke, Roles: member.AllRoles, Life: member.DefaultLife,
		})
	}
	raw, err := l.Sign(c.root)
	return must(c.t, raw, err)
}

func (c *cluster) cert(node key.Public, roles member.Roles, issued time.Duration) []byte {
	v := member.Certificate{
		Cluster: c.network(), Node: node, Roles: roles, Serial: 1,
		Issued: epoch + int64(issued/time.Second), NotAfter: epoch + int64((issued+member.DefaultLife)/time.Second),
	}
	raw, err := v.Sign(c.network(), c.admin)
	return must(c.t, raw, err)
}

func (c *cluster) revoke(node key.Public) []byte {
	r := member.Revocation{Node: node, Revoked: true, N: 1, Issued: epoch + 5}
	raw, err := r.Sign(c.network(), c.admin)
	return must(c.t, raw, err)
}

const speaker = member.RoleMember | member.RoleMessenger

// card is a card of a device of the cluster.
func (c *cluster) card(d *key.Private, number uint64, statements ...[]byte) *Card {
	return &Card{
		Account: c.root.Public(), Device: d.Public(), Number: number, Issued: epoch, Name: "Oslo", Stamp: DefaultStamp,
		Place: Place{Cluster: c.root.Public(), Contacts: []member.Contact{{Key: d.Public(), Addr: "udp://192.0.2.1:4000"}}},
		Mailboxes: []Mailbox{{
			Device: identity(c.t, 90).Public(), Place: Place{Contacts: []member.Contact{{Key: identity(c.t, 91).Public(), Addr: "wss://relay.example/mesh"}}},
		}},
		Prekeys:    []Prekey{prekey(c.t, secret(7), SuiteX25519), prekey(c.t, secret(7), SuiteHybrid)},
		Statements: statements,
	}
}

func (c *cluster) goodCard(d *key.Private, number uint64) *Card {
	return c.card(d, number, c.list(1, c.admin), c.cert(d.Public(), speaker, 0))
}

// parsed is the card after it was signed and read.
func parsed(t testing.TB, v *Card, d *key.Private) *Card {
	t.Helper()
	raw, err := v.Sign(d)
	got, err := ParseCard(must(t, raw, err))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func sampleBundle(from, to *key.Private) *Bundle {
	return &Bundle{
		Account: from.Public(), Device: from.Public(), To: to.Public(), Card: 3, Epoch: 0x1122334455667788, Stream: 0, Floor: 41,
		Items: []Item{
			{Kind: KindReceipt, Time: epoch*1000 + 1, Body: []byte{1, 2, 3}},
			{Kind: KindText, Seq: 41, Time: epoch*1000 + 2, Body: []byte("good morning")},
			{Kind: KindText, Seq: 43, Time: epoch*1000 + 3, Expires: epoch + 86400, Group: GroupID{0xaa, 0xbb}, Body: []byte("to the group")},
			{Kind: 200, Seq: 1 << 40, Time: epoch * 1000},
		},
	}
}
