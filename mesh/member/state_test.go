package member

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"skywire/mesh/key"
)

// signer makes statements of one cluster.
type signer struct {
	t       testing.TB
	cluster *key.Private
	network key.NetworkID
}

func newSigner(t testing.TB) *signer {
	k := identity(t, 1)
	return &signer{t, k, key.Cluster(k.Public())}
}

// at is so long after the epoch, on a box whose clock is right.
func at(d time.Duration) Instant { return Instant{Up: d, Wall: time.Unix(Epoch, 0).Add(d)} }

func (s *signer) state() *State { return New(Config{Cluster: s.cluster.Public()}, at(0)) }

func (s *signer) list(number uint64, admins ...Admin) []byte {
	l := AdminList{Number: number, Issued: Epoch, Admins: admins}
	raw, err := l.Sign(s.cluster)
	return must(s.t, raw, err)
}

// full is an admin of all powers over nodes.
func full(k *key.Private) Admin {
	return Admin{
		Key: k.Public(), Powers: MayIssue | MayRevoke | MayTell, Roles: AllRoles, Life: 10 * DefaultLife,
		IPv4: netip.MustParsePrefix("100.64.0.0/10"), AnyTag: true,
	}
}

func (s *signer) cert(by *key.Private, node key.Public, issued time.Duration, edit func(*Certificate)) []byte {
	c := Certificate{
		Cluster: s.network, Node: node, Roles: RoleMember, Serial: 1, Issued: Epoch + int64(issued/time.Second),
		NotAfter: Epoch + int64((issued+DefaultLife)/time.Second),
	}
	if edit != nil {
		edit(&c)
	}
	raw, err := c.Sign(s.network, by)
	return must(s.t, raw, err)
}

func (s *signer) revoke(by *key.Private, node key.Public, revoked bool, n uint32) []byte {
	r := Revocation{Node: node, Revoked: revoked, N: n, Issued: Epoch + int64(n)}
	raw, err := r.Sign(s.network, by)
	return must(s.t, raw, err)
}

func (s *signer) tell(by *key.Private, issued time.Duration) []byte {
	v := TimeStatement{Issued: Epoch + int64(issued/time.Second)}
	raw, err := v.Sign(s.network, by)
	return must(s.t, raw, err)
}

func put(t testing.TB, s *State, raws ...[]byte) (last Change) {
	t.Helper()
	for _, raw := range raws {
		ch, err := s.Put(at(0), raw)
		if err != nil {
			t.Fatal(err)
		}
		last = ch
	}
	return last
}

func TestRights(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	admin, node, other := identity(t, 2), identity(t, 3).Public(), identity(t, 4).Public()
	s := g.state()
	if m := s.Member(at(0), node); m.Rights != Guest || m.Why == "" {
		t.Errorf("without a list: %+v", m)
	}
	put(t, s, g.list(1, full(admin)))
	if m := s.Member(at(0), node); m.Rights != Guest || m.Certificate != nil {
		t.Errorf("without a certificate: %+v", m)
	}
	ch := put(t, s, g.cert(admin, node, 0, nil))
	if !ch.News || len(ch.Keys) != 1 || ch.Keys[0] != node || ch.All {
		t.Errorf("a certificate: %+v", ch)
	}
	if m := s.Member(at(0), node); m.Rights != Member || m.Certificate == nil {
		t.Errorf("with a certificate: %+v", m)
	}
	if m := s.Member(at(DefaultLife+time.Hour), node); m.Rights != Member {
		t.Errorf("ran out by a clock that nobody confirms: %+v", m)
	}
	put(t, s, g.tell(admin, DefaultLife-time.Hour))
	if m := s.Member(at(DefaultLife+time.Hour), node); m.Rights != Guest || !m.Expired {
		t.Errorf("ran out by a confirmed clock: %+v", m)
	}
	put(t, s, g.tell(admin, DefaultLife+time.Hour))
	if m := s.Member(Instant{Wall: time.Unix(0, 0)}, node); m.Rights != Guest || !m.Expired {
		t.Errorf("ran out below the floor, in 1970: %+v", m)
	}
	put(t, s, g.cert(admin, node, DefaultLife, nil))
	if m := s.Member(Instant{Wall: time.Unix(0, 0)}, node); m.Rights != Member {
		t.Errorf("renewed: %+v", m)
	}
	put(t, s, g.revoke(admin, node, true, 1))
	if m := s.Member(at(0), node); m.Rights != None || !s.Revoked(node) {
		t.Errorf("revoked: %+v", m)
	}
	put(t, s, g.revoke(admin, node, false, 2))
	if m := s.Member(at(0), node); m.Rights != Member {
		t.Errorf("restored: %+v", m)
	}
	if m := s.Member(at(0), other); m.Rights != Guest {
		t.Errorf("somebody else: %+v", m)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	admin, weak, stranger := identity(t, 2), identity(t, 5), identity(t, 6)
	node := identity(t, 3).Public()
	some := Admin{Key: weak.Public(), Powers: MayIssue, Roles: RoleMember, Life: time.Hour, IPv4: netip.MustParsePrefix("100.65.0.0/16"), Tags: []string{"home"}}
	hour := func(edit func(*Certificate)) func(*Certificate) {
		return func(c *Certificate) {
			c.NotAfter = c.Issued + 3600
			if edit != nil {
				edit(c)
			}
		}
	}
	list := AdminList{Number: 9, Issued: Epoch, Admins: []Admin{full(stranger)}}
	forged, err := list.Sign(stranger)
	forged = must(t, forged, err)
	flipped := g.cert(admin, node, 0, nil)
	flipped[len(flipped)-1] ^= 1
	claimed := g.cert(stranger, node, 0, nil)
	who := admin.Public()
	copy(claimed[42:], who[:])
	elsewhere := &signer{t, g.cluster, key.NetworkID{9}}
	for name, c := range map[string]struct {
		raw []byte
		err error
	}{
		"nothing":             {nil, ErrFormat},
		"unknown kind":        {append([]byte{9, 1}, make([]byte, 100)...), ErrFormat},
		"cut":                 {g.cert(admin, node, 0, nil)[:60], ErrFormat},
		"too long":            {make([]byte, MaxStatement+1), ErrFormat},
		"a stranger's list":   {forged, ErrSignature},
		"flipped bit":         {flipped, ErrSignature},
		"claimed signer":      {claimed, ErrSignature},
		"stranger's":          {g.cert(stranger, node, 0, nil), ErrUntrusted},
		"other cluster":       {elsewhere.cert(admin, node, 0, nil), ErrUntrusted},
		"life":                {g.cert(weak, node, 0, nil), ErrUntrusted},
		"role":                {g.cert(weak, node, 0, hour(func(c *Certificate) { c.Roles |= RoleManager })), ErrUntrusted},
		"tag":                 {g.cert(weak, node, 0, hour(func(c *Certificate) { c.Tags = []string{"office"} })), ErrUntrusted},
		"address":             {g.cert(weak, node, 0, hour(func(c *Certificate) { c.IPv4 = netip.MustParseAddr("100.64.0.1") })), ErrUntrusted},
		"revokes unasked":     {g.revoke(weak, node, true, 1), ErrUntrusted},
		"tells time":          {g.tell(weak, 0), ErrUntrusted},
		"stranger revokes":    {g.revoke(stranger, node, true, 1), ErrUntrusted},
		"all it may (passes)": {g.cert(weak, node, 0, hour(func(c *Certificate) { c.Tags, c.IPv4 = []string{"home"}, netip.MustParseAddr("100.65.0.1") })), nil},
	} {
		s := g.state()
		put(t, s, g.list(1, full(admin), some))
		before := s.Digest()
		if _, err := s.Put(at(0), c.raw); !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if c.err != nil && s.Digest() != before {
			t.Errorf("%s changed the state", name)
		}
	}
}

// Scopes come from the list alone: whoever takes a manager's key mints members, not operators (test 5).
func TestNoCertificateGivesScopes(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	admin, node := identity(t, 2), identity(t, 3).Public()
	s := g.state()
	put(t, s, g.list(1, full(admin)), g.cert(admin, node, 0, func(c *Certificate) {
		c.Roles, c.Tags = AllRoles, []string{"admin", "operate", "root"}
	}))
	if p := s.Powers(node); p != 0 {
		t.Errorf("a certificate gives %v", p.Words())
	}
	put(t, s, g.list(2, full(admin), Admin{Key: node, Powers: MayOperate}))
	if p := s.Powers(node); p != MayOperate {
		t.Errorf("the list gives %v", p.Words())
	}
}

func TestFormerAdmin(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, b := identity(t, 2), identity(t, 5)
	x, y := identity(t, 3).Public(), identity(t, 4).Public()
	s := g.state()
	put(t, s, g.list(1, full(a), full(b)), g.cert(a, x, 0, nil), g.cert(b, y, 0, nil), g.revoke(b, x, true, 9), g.revoke(a, y, true, 1), g.tell(b, 0))
	ch := put(t, s, g.list(2, full(a)))
	if !ch.All || len(ch.Gone) != 4 { // the old list and three of b's
		t.Errorf("the list without b: %+v", ch)
	}
	if m := s.Member(at(0), x); m.Rights != Member {
		t.Errorf("x, whom only b had revoked: %+v", m)
	}
	if m := s.Member(at(0), y); m.Rights != None {
		t.Errorf("y, whom a revoked: %+v", m)
	}
	if _, err := s.Put(at(0), g.list(1, full(a), full(b))); !errors.Is(err, ErrStale) {
		t.Errorf("the old list again: %v", err)
	}
	if _, err := s.Put(at(0), g.cert(b, y, time.Hour, nil)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a new certificate of b's: %v", err)
	}
}

// meet exchanges all pages both ways, as two neighbours do.
func meet(t testing.TB, a, b *State) (sent int) {
	t.Helper()
	for _, way := range [][2]*State{{a, b}, {b, a}} {
		for after := (Ref{}); ; {
			raw := way[0].Page(after).Append(nil)
			p, err := ParsePage(raw)
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range way[1].Lacking(p) {
				sent++
				_, _ = way[0].Put(at(0), raw) // stale ones are refused
			}
			if p.Done() {
				break
			}
			after = p.Last
		}
	}
	return sent
}

// history is what three admins said in some order, all of it validly signed.
func history(t testing.TB, g *signer, r *rand.Rand, n int) (raws [][]byte, nodes []key.Public) {
	admins := []*key.Private{identity(t, 2), identity(t, 5), identity(t, 6)}
	for i := range 5 {
		nodes = append(nodes, identity(t, byte(20+i)).Public())
	}
	all := []Admin{full(admins[0]), full(admins[1]), full(admins[2])}
	raws = append(raws, g.list(1, all[:2]...), g.list(2, all...), g.list(3, all[0], all[2]))
	for range n {
		by, node := admins[r.IntN(3)], nodes[r.IntN(len(nodes))]
		switch r.IntN(5) {
		case 0:
			raws = append(raws, g.tell(by, time.Duration(r.IntN(50))*time.Hour))
		case 1, 2:
			raws = append(raws, g.revoke(by, node, r.IntN(2) == 0, 1+r.Uint32N(6)))
		default:
			raws = append(raws, g.cert(by, node, time.Duration(r.IntN(50))*time.Hour, func(c *Certificate) {
				c.Serial, c.Name = uint64(r.IntN(5)), fmt.Sprintf("n%d", r.IntN(3))
			}))
		}
	}
	return raws, nodes
}

// Whatever was heard in whatever order and how often: after neighbours have met, all hold the same and judge alike, and
// who holds the last list holds what those who heard everything in any other order hold.
func TestMergeHasNoOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 1))
		g := newSigner(t)
		raws, nodes := history(t, g, r, 60)
		replicas := make([]*State, 4)
		for i := range replicas {
			replicas[i] = g.state()
			for _, at0 := range r.Perm(len(raws)) {
				for range 1 + r.IntN(2) {
					if r.IntN(3) > 0 {
						_, _ = replicas[i].Put(at(0), raws[at0])
					}
				}
			}
		}
		all := g.state()
		all.Load(at(0), raws)
		replicas[r.IntN(len(replicas))].Load(at(0), raws)
		for range 6 {
			for i := range replicas {
				meet(t, replicas[i], replicas[(i+1)%len(replicas)])
			}
		}
		for i, s := range replicas {
			if s.Digest() != replicas[0].Digest() || s.ListsDigest() != replicas[0].ListsDigest() {
				t.Fatalf("seed %d: replica %d differs", seed, i)
			}
			if n := meet(t, s, replicas[0]); n != 0 {
				t.Errorf("seed %d: %d statements sent between equals", seed, n)
			}
			for _, k := range nodes {
				if a, b := s.Member(at(time.Hour), k), all.Member(at(time.Hour), k); a.Rights != b.Rights || !reflect.DeepEqual(a.Certificate, b.Certificate) {
					t.Errorf("seed %d: replica %d says %+v of %s, all that was said together says %+v", seed, i, a, k.Short(), b)
				}
				an, ac := s.Name(k)
				if bn, bc := all.Name(k); an != bn || ac != bc {
					t.Errorf("seed %d: name %q %v, want %q %v", seed, an, ac, bn, bc)
				}
			}
		}
	}
}

// Under one list the newest entries alone decide, and nothing older said again changes anything.
func TestOldNeverRevives(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		g := newSigner(t)
		a, b := identity(t, 2), identity(t, 5)
		list := g.list(1, full(a), full(b))
		node := identity(t, 3).Public()
		s := g.state()
		put(t, s, list)
		var said [][]byte
		n, revoked := uint32(0), false
		for range 40 {
			by := a
			if r.IntN(2) == 0 {
				by = b
			}
			var raw []byte
			if r.IntN(2) == 0 {
				raw = g.cert(by, node, time.Duration(r.IntN(1000))*time.Hour, nil)
			} else {
				v, state := 1+r.Uint32N(9), r.IntN(2) == 0
				raw = g.revoke(by, node, state, v)
				if v > n || v == n && state {
					n, revoked = v, state
				}
			}
			said = append(said, raw)
			_, err := s.Put(at(0), raw)
			if err != nil && !errors.Is(err, ErrStale) {
				t.Fatal(err)
			}
			if s.Revoked(node) != revoked {
				t.Fatalf("seed %d: revoked is %v, want %v by number %d", seed, s.Revoked(node), revoked, n)
			}
			before := s.Digest()
			for _, i := range r.Perm(len(said)) {
				if ch, err := s.Put(at(0), said[i]); err == nil && ch.News {
					t.Fatalf("seed %d: something old was news", seed)
				}
			}
			if s.Digest() != before || s.Revoked(node) != revoked {
				t.Fatalf("seed %d: replay changed the state", seed)
			}
		}
	}
}

// Manager A revokes what manager B renews at the same time, in two halves of a mesh: it stays revoked on both sides when
// they meet, and the renewal is no way back.
func TestCrossingRevokeAndRenew(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, b, x := identity(t, 2), identity(t, 5), identity(t, 3).Public()
	left, right := g.state(), g.state()
	for _, s := range []*State{left, right} {
		put(t, s, g.list(1, full(a), full(b)), g.cert(b, x, 0, nil))
	}
	put(t, left, g.revoke(a, x, true, 1))
	put(t, right, g.cert(b, x, 100*24*time.Hour, nil))
	meet(t, left, right)
	for _, s := range []*State{left, right} {
		if m := s.Member(at(0), x); m.Rights != None || m.Certificate.Issued == Epoch {
			t.Errorf("%+v", m)
		}
		if s.RenewDue(at(1000*24*time.Hour), x) {
			t.Error("a revoked node asks for renewal")
		}
	}
	if left.Digest() != right.Digest() {
		t.Error("the halves differ after they met")
	}
}

// A box comes back from a backup, or a card was cloned: what it offers is old, it learns what is new, and nobody else
// changes.
func TestRestoredBackup(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, x, y := identity(t, 2), identity(t, 3).Public(), identity(t, 4).Public()
	backup, mesh := g.state(), g.state()
	old := [][]byte{g.list(1, full(a)), g.cert(a, x, 0, nil), g.cert(a, y, 0, nil)}
	put(t, backup, old...)
	put(t, mesh, old...)
	put(t, mesh, g.cert(a, x, 48*time.Hour, nil), g.revoke(a, y, true, 1))
	want := mesh.Digest()
	meet(t, backup, mesh)
	if mesh.Digest() != want || backup.Digest() != want {
		t.Error("the mesh changed, or the box did not")
	}
	if _, err := mesh.Put(at(0), old[1]); !errors.Is(err, ErrStale) {
		t.Errorf("the old certificate: %v", err)
	}
	if !backup.Revoked(y) {
		t.Error("the box does not know who was revoked while it was away")
	}
}

func TestPagesAreBounded(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a := identity(t, 2)
	s, empty := g.state(), g.state()
	put(t, s, g.list(1, full(a)))
	for i := range 150 {
		node := key.Public{1, byte(i >> 8), byte(i), 2}
		put(t, s, g.revoke(a, node, true, 1), g.cert(a, node, 0, nil))
	}
	pages := 0
	for after := (Ref{}); ; pages++ {
		p := s.Page(after)
		if len(p.Refs) > MaxRefs || len(p.Append(nil)) > 1000 {
			t.Fatalf("a page of %d", len(p.Refs))
		}
		if p.Done() {
			break
		}
		after = p.Last
	}
	if pages < 3 {
		t.Errorf("%d pages", pages)
	}
	if n := meet(t, empty, s); n != s.Len() || empty.Digest() != s.Digest() {
		t.Errorf("%d of %d went over", n, s.Len())
	}
	lists := 0
	for after := (Ref{}); ; {
		p := s.ListsPage(after)
		for _, r := range p.Refs {
			if r.Kind() == KindCertificate {
				t.Fatal("a certificate among the lists")
			}
		}
		if lists += len(p.Refs); p.Done() {
			break
		}
		after = p.Last
	}
	if lists != 151 {
		t.Errorf("%d entries in the lists", lists)
	}
	var got [][]byte
	for after := (Ref{}); ; {
		raws, next := s.Raws(after, 1000)
		if len(raws) == 0 {
			break
		}
		got, after = append(got, raws...), next
	}
	if len(got) != s.Len() || !bytes.Equal(got[0], s.bySlot[slot{kind: KindAdmins}].raw) {
		t.Errorf("%d of %d raws, the list first", len(got), s.Len())
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a := identity(t, 2)
	s := g.state()
	put(t, s, g.list(1, full(a)))
	s.nrev = MaxRevocations
	if _, err := s.Put(at(0), g.revoke(a, identity(t, 3).Public(), true, 1)); !errors.Is(err, ErrFull) {
		t.Errorf("one revocation too many: %v", err)
	}
}
