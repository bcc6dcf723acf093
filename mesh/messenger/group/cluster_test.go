package group

import (
	"errors"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
)

// account is a cluster with two devices.
type account struct {
	root, admin *key.Private
	list        []byte
}

func newAccount(t testing.TB, b byte) *account {
	t.Helper()
	a := &account{root: identity(t, b), admin: identity(t, b+1)}
	l := member.AdminList{Number: 1, Issued: member.Epoch, Admins: []member.Admin{{
		Key: a.admin.Public(), Powers: member.MayIssue | member.MayRevoke, Roles: member.AllRoles, Life: member.DefaultLife,
	}}}
	var err error
	if a.list, err = l.Sign(a.root); err != nil {
		t.Fatal(err)
	}
	return a
}

// device speaks for the account if roles let it.
func (a *account) device(t testing.TB, b byte, roles member.Roles, more ...[]byte) Author {
	t.Helper()
	k := identity(t, b)
	c := member.Certificate{
		Cluster: key.Cluster(a.root.Public()), Node: k.Public(), Roles: roles, Serial: 1, Issued: member.Epoch, NotAfter: member.Epoch + 1000,
	}
	raw, err := c.Sign(c.Cluster, a.admin)
	if err != nil {
		t.Fatal(err)
	}
	return Author{Account: a.root.Public(), Key: k, Statements: append([][]byte{a.list, raw}, more...)}
}

func (a *account) revoke(t testing.TB, k key.Public) []byte {
	t.Helper()
	r := member.Revocation{Node: k, Revoked: true, N: 1, Issued: member.Epoch + 1}
	raw, err := r.Sign(key.Cluster(a.root.Public()), a.admin)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const speaker = member.RoleMember | member.RoleMessenger

// Devices of a cluster speak for its account in a group when they are proven; a revoked one does not by a past of its choice.
func TestClusterAccounts(t *testing.T) {
	t.Parallel()
	c := newAccount(t, 30)
	one, two, mute := c.device(t, 40, speaker), c.device(t, 41, speaker), c.device(t, 42, member.RoleMember)
	x, y := author(t, 1).Account, author(t, 2).Account
	r, err := New(one, 1, "", envelope.Place{}, []Seat{{Account: x}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copyOf(t, r).Sign(mute, 2, &Op{Kind: Add, Target: y}); !errors.Is(err, ErrAuthority) {
		t.Errorf("by a device without the role: %v, want ErrAuthority", err)
	}
	bare := two
	bare.Statements = nil
	if _, err := copyOf(t, r).Sign(bare, 2, &Op{Kind: Add, Target: y}); !errors.Is(err, ErrAuthority) {
		t.Errorf("by a device without a proof: %v, want ErrAuthority", err)
	}
	other := newAccount(t, 60).device(t, 41, speaker)
	other.Account = two.Account
	if _, err := copyOf(t, r).Sign(other, 2, &Op{Kind: Add, Target: y}); !errors.Is(err, ErrAuthority) {
		t.Errorf("with the proof of another cluster: %v, want ErrAuthority", err)
	}
	before := copyOf(t, r)
	r.do(t, two, Add, y)
	if n := r.nodes[1]; len(n.Statements) != 2 {
		t.Errorf("the first change of a device has %d statements", len(n.Statements))
	}
	r.do(t, two, Remove, y)
	if n := r.nodes[2]; len(n.Statements) != 0 {
		t.Errorf("the second has %d", len(n.Statements))
	}
	third := c.device(t, 43, speaker, c.revoke(t, one.Key.Public()))
	r.do(t, third, Rename, key.Public{})
	stolen := before.do(t, one, Remove, x) // one was stolen: it knows a past without the revocation
	if _, _, err := r.Put(stolen); err != nil {
		t.Fatal(err)
	}
	if !r.Has(x) {
		t.Errorf("a revoked device evicts: %s", r)
	}
	if _, err := r.Sign(one, 3, &Op{Kind: Remove, Target: x}); !errors.Is(err, ErrAuthority) {
		t.Errorf("a revoked device after that: %v, want ErrAuthority", err)
	}
}
