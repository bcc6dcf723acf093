package vpn

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/tun/netcfg"
)

func TestGrants(t *testing.T) {
	t.Parallel()
	one, two := keyOf(t, 1), keyOf(t, 2)
	lan, office := netip.MustParsePrefix("192.168.9.0/24"), netip.MustParsePrefix("10.5.0.0/16")
	c := &ServerConfig{
		AllowExit: []string{"@family"}, Allow: []string{one.String()},
		Subnets: []Subnet{{Prefix: lan}, {Prefix: office, Allow: []string{"@work", two.String()}}},
	}
	if err := c.validate(); err != nil || !c.Exit {
		t.Fatalf("%v, exit %v", err, c.Exit)
	}
	for _, p := range []struct {
		name string
		id   app.Identity
		want grant
	}{
		{"by key", app.Identity{Key: one, Member: true}, grant{subnets: []netip.Prefix{lan}}},
		{"by key of one subnet", app.Identity{Key: two, Member: true}, grant{subnets: []netip.Prefix{office}}},
		{"by tag", app.Identity{Key: keyOf(t, 3), Member: true, Tags: []string{"family"}}, grant{exit: true}},
		{
			"by key and tags",
			app.Identity{Key: one, Member: true, Tags: []string{"family", "work"}},
			grant{exit: true, subnets: []netip.Prefix{lan, office}},
		},
		{"stranger", app.Identity{Key: keyOf(t, 3), Member: true, Tags: []string{"fam", "@family"}}, grant{}},
		{"no member any more", app.Identity{Key: one, Tags: []string{"family"}}, grant{}},
	} {
		if got := c.grantTo(p.id); !got.same(p.want) || got.nothing() != (!p.want.exit && p.want.subnets == nil) {
			t.Errorf("%s: %+v, want %+v", p.name, got, p.want)
		}
	}
	if got, want := c.words(), []string{"@family", one.String(), "@work", two.String()}; !slices.Equal(got, want) {
		t.Errorf("service allows %v, want %v", got, want)
	}
	c.Subnets[0].Allow = []string{"*"}
	if got := c.words(); !slices.Equal(got, []string{"*"}) {
		t.Errorf("service allows %v, want everybody", got)
	}
	if g := (&ServerConfig{Exit: true}).grantTo(app.Identity{Key: one, Member: true}); !g.nothing() {
		t.Errorf("nobody is named, and one gets %+v", g)
	}
	for _, bad := range []ServerConfig{
		{Allow: []string{"@"}},
		{AllowExit: []string{"any"}},
		{Subnets: []Subnet{{Prefix: lan, Allow: []string{"x"}}}},
		{Subnets: []Subnet{{Prefix: lan}, {Prefix: lan}}},
		{Limit: Limit{Period: "year"}},
	} {
		if err := bad.validate(); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// A quota's books outlive a restart and a clock that begins at 1970, and begin anew with the period.
func TestBooks(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "vpn-usage.json")
	now := time.Date(2026, 11, 23, 15, 0, 0, 0, time.UTC)
	limit := Limit{Quota: 1000, Period: Month}
	open := func(l Limit, now time.Time) *books {
		t.Helper()
		b, err := openBooks(path, l, now)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k := keyOf(t, 1)
	left := func(b *books, want uint64) {
		t.Helper()
		if got, ok := b.left(k); !ok || got != want {
			t.Errorf("%d left, want %d", got, want)
		}
	}
	b := open(limit, now)
	left(b, 1000)
	b.note(k, netcfg.Usage{Up: 100, Down: 200})
	left(b, 700)
	if err := b.save(now.Add(booksEvery-1), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the books were written before a minute was over")
	}
	if err := b.save(now.Add(booksEvery), false); err != nil {
		t.Fatal(err)
	}
	left(open(limit, now), 700)
	left(open(limit, time.Unix(60, 0)), 700) // a router without a clock
	left(open(limit, now.AddDate(0, 0, 8)), 1000)
	left(open(Limit{Quota: 1000, Period: Day}, now), 1000) // another agreement
	b.note(k, netcfg.Usage{Up: 900, Down: 2000})           // what was refused is counted, too
	left(b, 0)
	if u := b.file.Used[k]; u.Up+u.Down != 1000 {
		t.Errorf("used %+v of 1000", u)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openBooks(path, limit, now); err == nil {
		t.Error("damaged books are taken")
	}
}

func TestPeriods(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 22, 23, 30, 0, 0, time.FixedZone("east", 3600)) // a Sunday in UTC
	day := func(m time.Month, d int) time.Time { return time.Date(2026, m, d, 0, 0, 0, 0, time.UTC) }
	for p, want := range map[Period][2]time.Time{
		Day: {day(11, 22), day(11, 23)}, Week: {day(11, 16), day(11, 23)}, Month: {day(11, 1), day(12, 1)}, Ever: {},
	} {
		start := p.start(at)
		if next := p.next(start); start != want[0] || next != want[1] {
			t.Errorf("%q: %v to %v, want %v", p, start, next, want)
		}
	}
}

// The address of a certificate goes before one that hashing gave, and hashing keeps off those of others.
func TestCertifiedLease(t *testing.T) {
	t.Parallel()
	l, err := openLeases(filepath.Join(t.TempDir(), "leases.json"), DefaultPool(), keyOf(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	first, err := l.lease(keyOf(t, 1), netip.Addr{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := l.lease(keyOf(t, 2), first, nil); err != nil || a != first {
		t.Errorf("certified %s, got %s, %v", first, a, err)
	}
	if a, err := l.lease(keyOf(t, 1), netip.Addr{}, nil); err != nil || a == first {
		t.Errorf("a certified address was leased to somebody else: %s, %v", a, err)
	}
	if a, err := l.lease(keyOf(t, 3), l.self, nil); err != nil || a == l.self {
		t.Errorf("the server's own address was leased: %s, %v", a, err)
	}
	second, _ := l.lease(keyOf(t, 4), netip.Addr{}, nil)
	if a, err := l.lease(keyOf(t, 4), netip.Addr{}, func(a netip.Addr) bool { return a == second }); err != nil || a == second {
		t.Errorf("%s is a member's and was leased: %v", a, err)
	}
	if _, err := l.lease(keyOf(t, 5), netip.Addr{}, func(netip.Addr) bool { return true }); err == nil {
		t.Error("every address is a member's, and one was leased")
	}
}

func TestAccepted(t *testing.T) {
	t.Parallel()
	lan := netip.MustParsePrefix("192.168.9.0/24")
	got, err := validateAccepted([]Accepted{{lan, []string{"a"}}, {netip.MustParsePrefix("192.168.9.7/24"), []string{"b", "a"}}})
	if err != nil || len(got) != 1 || !slices.Equal(got[0].Servers, []string{"a", "b"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := validateAccepted([]Accepted{{everything4(), []string{"a"}}}); err == nil {
		t.Error("everything is taken as a subnet")
	}
	s := (&App{}).newSubnets([]Accepted{{lan, []string{"a", "b"}}, {netip.MustParsePrefix("192.168.0.0/16"), []string{"b"}}})
	if len(s.ways) != 2 || s.networks[0].refused != "" || s.networks[1].refused == "" {
		t.Fatalf("%+v", s.networks)
	}
	n, a, b := s.networks[0], s.ways[0], s.ways[1]
	now := time.Now()
	offers := Answer{Subnets: []netip.Prefix{lan}}
	step := func(what string, at time.Time, want *way) {
		t.Helper()
		if n.active = n.choose(at); n.active != want {
			t.Errorf("%s: %+v, want %+v", what, n.active, want)
		}
	}
	step("nobody is up", now, nil)
	b.up, b.answer, b.since = true, offers, now
	step("only the second", now, b)
	a.up, a.since = true, now
	step("the first does not offer it", now, b)
	a.answer = offers
	step("the first has just come", now.Add(returnAfter-1), b)
	step("the first is there for a while", now.Add(returnAfter), a)
	a.up = false
	step("the first is gone", now.Add(returnAfter), b)
	a.up, a.since, b.up = true, now.Add(returnAfter), false
	step("the second is gone", now.Add(returnAfter), a)
}
