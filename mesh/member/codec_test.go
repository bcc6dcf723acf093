package member

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"skywire/mesh/field"
	"skywire/mesh/key"
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

// samples are one statement of each kind, always the same.
func samples(t testing.TB) map[Kind][]byte {
	t.Helper()
	cluster, admin, node := identity(t, 1), identity(t, 2), identity(t, 3)
	network := key.Cluster(cluster.Public())
	list := AdminList{Number: 7, Issued: Epoch, Admins: []Admin{
		{
			Key: admin.Public(), Powers: MayIssue | MayRevoke | MayTell, Roles: RoleMember | RoleManager, Life: DefaultLife,
			IPv4: netip.MustParsePrefix("100.64.0.0/16"), Tags: []string{"home", "relay"},
		},
		{Key: identity(t, 9).Public(), Powers: MayOperate | MayAdmin, AnyTag: true},
	}}
	cert := Certificate{
		Cluster: network, Node: node.Public(), Admin: admin.Public(), Roles: RoleMember, Serial: 42, Issued: Epoch + 10, NotAfter: Epoch + 1000,
		IPv4: netip.MustParseAddr("100.64.0.5"), Name: "attic", Tags: []string{"home", "relay"},
	}
	revoke := Revocation{Node: node.Public(), Revoked: true, N: 1, Issued: Epoch + 20}
	tell := TimeStatement{Issued: Epoch + 30}
	all := map[Kind][]byte{}
	raw, err := list.Sign(cluster)
	all[KindAdmins] = must(t, raw, err)
	raw, err = cert.Sign(network, admin)
	all[KindCertificate] = must(t, raw, err)
	raw, err = revoke.Sign(network, admin)
	all[KindRevocation] = must(t, raw, err)
	raw, err = tell.Sign(network, admin)
	all[KindTime] = must(t, raw, err)
	return all
}

// again encodes what was parsed, without the signature.
func again(t testing.TB, raw []byte) []byte {
	t.Helper()
	who := identity(t, 2) // whoever signs: the body is compared alone
	switch Kind(raw[0]) {
	case KindAdmins:
		l, err := ParseAdminList(raw)
		if err != nil {
			return nil
		}
		b, err := l.Sign(who)
		return must(t, b, err)
	case KindCertificate:
		c, err := ParseCertificate(raw)
		if err != nil {
			return nil
		}
		b, err := c.Sign(c.Cluster, who)
		b = must(t, b, err)
		copy(b[42:], c.Admin[:])
		return b
	case KindRevocation:
		r, err := ParseRevocation(raw)
		if err != nil {
			return nil
		}
		b, err := r.Sign(key.NetworkID{}, who)
		b = must(t, b, err)
		copy(b[4:], r.Admin[:])
		return b
	case KindTime:
		s, err := ParseTimeStatement(raw)
		if err != nil {
			return nil
		}
		b, err := s.Sign(key.NetworkID{}, who)
		b = must(t, b, err)
		copy(b[2:], s.Admin[:])
		return b
	}
	return nil
}

func body(raw []byte) []byte { return raw[:len(raw)-signatureLen] }

func TestStatementsComeBack(t *testing.T) {
	t.Parallel()
	for kind, raw := range samples(t) {
		if b := again(t, raw); b == nil || !bytes.Equal(body(b), body(raw)) {
			t.Errorf("%s: %x, want %x", kind, b, raw)
		}
	}
}

func TestInviteText(t *testing.T) {
	t.Parallel()
	v, err := NewInvite(identity(t, 1).Public(), identity(t, 3).Public(), []Contact{
		{identity(t, 3).Public(), "udp://192.0.2.1:4000"}, {identity(t, 4).Public(), "wss://relay.example/mesh"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{v.Text(), v.QRText(), " " + v.Text()[:50] + "\r\n " + v.Text()[50:] + "\n"} {
		if got, err := ParseInvite(s); err != nil || !reflect.DeepEqual(got, v) {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
	s := []byte(v.Text())
	for i := len(invitePrefix); i < len(s); i++ {
		old := s[i]
		if s[i] = 'a'; old == 'a' {
			s[i] = 'b'
		}
		if _, err := ParseInvite(string(s)); err == nil {
			t.Errorf("a wrong letter at %d is not seen", i)
		}
		s[i] = old
	}
}

func TestProofIsBound(t *testing.T) {
	t.Parallel()
	secret, hash, joiner := [16]byte{1}, [32]byte{2}, identity(t, 3).Public()
	p := Proof(secret, hash, joiner)
	if p != Proof(secret, hash, joiner) {
		t.Error("not the same twice")
	}
	for name, other := range map[string][32]byte{
		"secret":    Proof([16]byte{2}, hash, joiner),
		"handshake": Proof(secret, [32]byte{3}, joiner),
		"joiner":    Proof(secret, hash, identity(t, 4).Public()),
	} {
		if proven(other, p) {
			t.Errorf("not bound to the %s", name)
		}
	}
}

func TestLifeDoesNotOverflow(t *testing.T) {
	t.Parallel()
	c := Certificate{Issued: 0, NotAfter: field.MaxUnix}
	if c.Life() < 100*365*24*time.Hour {
		t.Errorf("life %v", c.Life())
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, raw := range samples(f) {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) == 0 {
			return
		}
		if b := again(t, raw); b != nil && !bytes.Equal(body(b), body(raw)) {
			t.Errorf("%x comes back as %x", raw, b)
		}
		_, _ = ParseAdminList(raw)
		_, _ = ParseCertificate(raw)
		_, _ = ParseRevocation(raw)
		_, _ = ParseTimeStatement(raw)
	})
}

func FuzzParseInvite(f *testing.F) {
	v, err := NewInvite(identity(f, 1).Public(), identity(f, 3).Public(), []Contact{{identity(f, 4).Public(), "udp://192.0.2.1:4000"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v.Text())
	f.Add(v.QRText())
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseInvite(s)
		if err != nil {
			return
		}
		if again, err := ParseInvite(v.Text()); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%q comes back as %q, %v", s, v.Text(), err)
		}
	})
}

func FuzzParseMessages(f *testing.F) {
	f.Add(Request{Op: OpJoin, Invite: InviteID{1}, Proof: [32]byte{2}, Name: "attic"}.Append(nil))
	f.Add(Reply{Status: StatusDone, Statements: [][]byte{{1, 2}, {3}}}.Append(nil))
	f.Add(Reply{Status: StatusPending, Retry: 5, Reason: "wait"}.Append(nil))
	f.Add(Page{Last: lastOf(lastKind), Refs: []Ref{{1}, {2}}}.Append(nil))
	o := Offer{ID: InviteID{1}, Secret: [16]byte{2}, Name: "attic", Roles: RoleMember, Tags: []string{"home"}, Uses: 3, Life: time.Hour, Until: 9}
	o.Joined = []key.Public{identity(f, 3).Public()}
	f.Add(o.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := ParseOffer(b); err == nil && !bytes.Equal(o.Append(nil), b) {
			t.Errorf("offer %x", b)
		}
		if r, err := ParseRequest(b); err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("request %x", b)
		}
		if r, err := ParseReply(b); err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Errorf("reply %x", b)
		}
		if p, err := ParsePage(b); err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Errorf("page %x", b)
		}
	})
}
