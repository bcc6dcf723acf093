package vpn

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"skywire/mesh/key"
)

func TestSubtract(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Addr {
		v := r.Uint32()
		return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	for range 200 {
		var minus []netip.Prefix
		for range r.IntN(8) {
			minus = append(minus, netip.PrefixFrom(random(), r.IntN(33)).Masked())
		}
		from := netip.PrefixFrom(random(), r.IntN(20)).Masked()
		got := subtract(from, minus)
		for i, p := range got {
			if overlapsAny(p, minus) || overlapsAny(p, got[:i]) || !within(p, []netip.Prefix{from}) {
				t.Fatalf("%s minus %v has %s", from, minus, p)
			}
		}
		for range 50 {
			a := random()
			want := from.Contains(a) && !overlapsAny(host(a), minus)
			if overlapsAny(host(a), got) != want {
				t.Fatalf("%s minus %v: %s is in it: %v, want %v", from, minus, a, !want, want)
			}
		}
	}
}

// What an exit leads to holds no address that means this site or this host.
func TestExitRanges(t *testing.T) {
	t.Parallel()
	exit := append(subtract(everything4(), (&ServerConfig{}).refused(nil)), subtract(everything6(), (&ServerConfig{}).refused(nil))...)
	for a, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "203.0.113.1": true, "2606:4700::1": true, "192.0.2.1": true,
		"10.1.2.3": false, "172.31.0.1": false, "192.168.0.1": false, "127.0.0.1": false, "169.254.169.254": false,
		"100.100.100.100": false, "0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "::1": false, "fe80::1": false,
		"fd00::1": false, "ff02::1": false, "64:ff9b::a00:1": false, "2002:a00:1::1": false, "::ffff:10.0.0.1": false,
	} {
		if got := overlapsAny(host(netip.MustParseAddr(a)), exit); got != want {
			t.Errorf("exit leads to %s: %v", a, got)
		}
	}
}

func keyOf(t testing.TB, n int) key.Public {
	t.Helper()
	for i := byte(0); ; i++ {
		if k, err := key.FromSeed([32]byte{byte(n), byte(n >> 8), i}); err == nil {
			return k.Public()
		}
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "leases.json")
	pool := netip.MustParsePrefix("100.64.0.0/28") // 14 addresses: collisions for sure
	open := func(pool netip.Prefix) *leases {
		t.Helper()
		l, err := openLeases(path, pool, keyOf(t, 0))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open(pool)
	got := map[netip.Addr]int{l.self: 0}
	for i := 1; i < 14; i++ {
		a, err := l.lease(keyOf(t, i), netip.Addr{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if j, taken := got[a]; taken || !pool.Contains(a) || a == pool.Addr() || a == netip.MustParseAddr("100.64.0.15") {
			t.Fatalf("key %d got %s, like %d", i, a, j)
		}
		got[a] = i
	}
	if _, err := l.lease(keyOf(t, 99), netip.Addr{}, nil); !errors.Is(err, ErrPoolFull) {
		t.Errorf("15th: %v, want ErrPoolFull", err)
	}
	again := open(pool)
	for a, i := range got {
		if b, err := again.lease(keyOf(t, i), netip.Addr{}, nil); err != nil || a != b {
			t.Errorf("key %d: %s after the restart, %s before (%v)", i, b, a, err)
		}
	}
	if other := open(netip.MustParsePrefix("10.9.0.0/24")); !netip.MustParsePrefix("10.9.0.0/24").Contains(other.self) {
		t.Errorf("another pool gives %s", other.self)
	}
	if err := os.WriteFile(path, []byte(`{"pool":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openLeases(path, pool, keyOf(t, 0)); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged file: %v", err)
	}
}

// A lease that cannot be stored is not given: after a restart somebody else would get it.
func TestLeaseNotStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := openLeases(filepath.Join(dir, "leases.json"), DefaultPool(), keyOf(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	l.path = filepath.Join(dir, "leases.json", "below-a-file")
	if a, err := l.lease(keyOf(t, 1), netip.Addr{}, nil); err == nil {
		t.Errorf("gave %s", a)
	}
	if len(l.byKey) != 1 {
		t.Error("remembers a lease that it did not give")
	}
}

func answerOf(t testing.TB) Answer {
	t.Helper()
	return Answer{
		Version: Version, IPv4: netip.MustParseAddr("100.64.1.2"), Gateway: netip.MustParseAddr("100.64.3.4"), Exit: true,
		Subnets: prefixes("192.168.9.0/24", "fd00:9::/64"), MTU: 1400,
	}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	a := answerOf(t)
	b, err := a.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseAnswer(b)
	if err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("%+v, %v; want %+v", got, err, a)
	}
	for _, bad := range []string{
		``, `{}`, `{"version":2}`, `{"version":1}`,
		`{"version":1,"ipv4":"8.8.8.8","gateway":"100.64.0.1"}`,
		`{"version":1,"ipv4":"100.64.0.1","gateway":"100.64.0.1"}`,
		`{"version":1,"ipv4":"127.0.0.1","gateway":"100.64.0.1"}`,
		`{"version":1,"ipv4":"fd00::1","gateway":"100.64.0.1"}`,
		`{"version":1,"ipv4":"100.64.0.2","gateway":"100.64.0.1","subnets":[""]}`,
		`{"version":1,"ipv4":"100.64.0.2","gateway":"100.64.0.1","subnets":["::ffff:10.0.0.0/104"]}`,
	} {
		if _, err := ParseAnswer([]byte(bad)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, want ErrProtocol", bad, err)
		}
	}
	r := Request{Version: Version, Exit: true}
	if b, err = r.Append(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRequest(b); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := ParseRequest([]byte(`{"version":9}`)); !errors.Is(err, ErrProtocol) {
		t.Errorf("version 9: %v", err)
	}
}

func FuzzParseAnswer(f *testing.F) {
	b, err := answerOf(f).Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err != nil {
			return
		}
		if !leasable(a.IPv4) || !leasable(a.Gateway) || len(a.Subnets) > maxSubnets {
			t.Fatalf("%+v", a)
		}
		again, err := a.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseAnswer(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"version":1,"exit":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRequest(b); err == nil && r.Version != Version {
			t.Fatalf("%+v", r)
		}
	})
}

func TestValidate(t *testing.T) {
	t.Parallel()
	ok := func() Config { return Config{Run: "r", State: "s", Server: &ServerConfig{}, Client: &ClientConfig{}} }
	for name, c := range map[string]func(*Config){
		"mtu":    func(c *Config) { c.MTU = 1279 },
		"run":    func(c *Config) { c.Run = "" },
		"state":  func(c *Config) { c.State = "" },
		"allow":  func(c *Config) { c.Server.Allow = []string{"nobody"} },
		"pool":   func(c *Config) { c.Server.Pool = netip.MustParsePrefix("fd00::/64") },
		"pool 2": func(c *Config) { c.Server.Pool = netip.MustParsePrefix("10.0.0.0/31") },
		"subnet": func(c *Config) { c.Server.Subnets = []Subnet{{Prefix: everything4()}} },
	} {
		bad := ok()
		c(&bad)
		if err := bad.Validate(); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	c := ok()
	if err := c.Validate(); err != nil || c.Device != DefaultDevice || len(c.Client.Servers) != 1 || c.Client.Servers[0] != "auto" || c.Server.Pool != DefaultPool() {
		t.Errorf("%+v, %v", c, err)
	}
}
