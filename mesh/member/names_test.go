package member

import (
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/key"
)

func TestNames(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a, b := identity(t, 2), identity(t, 5)
	x, y, pet := identity(t, 3).Public(), identity(t, 4).Public(), identity(t, 7).Public()
	named := func(serial uint64) func(*Certificate) {
		return func(c *Certificate) {
			c.Serial, c.Name, c.IPv4 = serial, "attic", netip.MustParseAddr("100.64.0.7")
		}
	}
	s := g.state()
	put(t, s, g.list(1, full(a), full(b)), g.cert(a, x, time.Hour, named(10)), g.cert(b, y, 0, named(20)))
	if k, conflict, ok := s.Lookup("Attic.mesh"); k != x || !conflict || !ok {
		t.Errorf("attic is %s, conflict %v, %v", k.Short(), conflict, ok)
	}
	if n, conflict := s.Name(y); n != "" || !conflict {
		t.Errorf("the younger one is called %q, conflict %v", n, conflict)
	}
	if n, conflict := s.Name(x); n != "attic" || !conflict {
		t.Errorf("the older one is called %q, conflict %v", n, conflict)
	}
	if s.IPv4(x) != netip.MustParseAddr("100.64.0.7") || s.IPv4(y).IsValid() {
		t.Errorf("addresses %v and %v", s.IPv4(x), s.IPv4(y))
	}
	put(t, s, g.cert(a, x, 50*24*time.Hour, named(10))) // renewal keeps the serial, and so the name
	if k, _, _ := s.Lookup("attic"); k != x {
		t.Error("a renewal lost the name")
	}
	if k, ok := Resolve(map[string]key.Public{"attic": pet}, s, "attic"); k != pet || !ok {
		t.Error("a petname comes first")
	}
	if k, ok := Resolve(nil, s, "attic"); k != x || !ok {
		t.Error("then the certificate")
	}
	if _, ok := Resolve(nil, nil, "attic"); ok {
		t.Error("and nothing else")
	}
	put(t, s, g.revoke(a, x, true, 1))
	if k, conflict, _ := s.Lookup("attic"); k != y || conflict {
		t.Errorf("after x was revoked attic is %s, conflict %v", k.Short(), conflict)
	}
	if got := Claimed("bank", x); got != "bank-"+x.String()[:4] {
		t.Error(got)
	}
}

func TestFreeIPv4(t *testing.T) {
	t.Parallel()
	g := newSigner(t)
	a := identity(t, 2)
	s := g.state()
	put(t, s, g.list(1, full(a)))
	block := netip.MustParsePrefix("100.64.0.252/30")
	for i, want := range []string{"100.64.0.252", "100.64.0.253", "100.64.0.254", "invalid IP"} {
		got := s.FreeIPv4(block)
		if got.String() != want {
			t.Fatalf("%s, want %s", got, want)
		}
		if got.IsValid() {
			put(t, s, g.cert(a, key.Public{2, byte(i), 1}, 0, func(c *Certificate) { c.IPv4 = got }))
		}
	}
	if s.FreeIPv4(netip.Prefix{}).IsValid() {
		t.Error("an address from no block")
	}
	l := &AdminList{Admins: []Admin{{Key: a.Public(), IPv4: netip.MustParsePrefix("100.64.0.0/15")}}}
	if p := FreeBlock(l, identity(t, 5).Public()); p.String() != "100.66.0.0/16" {
		t.Errorf("free block %s", p)
	}
	if p := FreeBlock(l, a.Public()); p.String() != "100.64.0.0/15" {
		t.Errorf("own block %s", p)
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"": false, "a": true, "attic-2": true, "-a": false, "a-": false, "A": false, "a.b": false, "ä": false,
		"abcdefghijklmnopqrstuvwxyz012345": true, "abcdefghijklmnopqrstuvwxyz0123456": false,
	} {
		if ValidName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
