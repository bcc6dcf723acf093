package netcfg_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"skywire/tun"
	"skywire/tun/netcfg"
)

var update = flag.Bool("update", false, "write testdata anew")

// TestRuleset holds what nft sees of our table, and of the chains of others that we opened, against testdata.
func TestRuleset(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		prepare(t)
		dir := t.TempDir()
		n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
		if err != nil {
			t.Error(err)
			return
		}
		defer n.Close()
		f, _, err := tun.Create(tun.Config{Name: "sw0", Plain: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		run(t, "nft add table inet fw4")
		run(t, "nft add chain inet fw4 input { type filter hook input priority 0 ; policy drop ; }")
		for _, name := range []string{"server", "subnets"} {
			g := &netcfg.Gateway{
				Sources: []netip.Prefix{meshPrefix, netip.MustParsePrefix("100.64.0.0/10")},
				Local:   []netip.Prefix{meshSelf},
				Subnets: []netip.Prefix{netip.MustParsePrefix("192.168.9.0/24"), netip.MustParsePrefix("2001:db8:9::/48")},
			}
			fw := netcfg.Firewall{Gateway: g}
			if name == "server" {
				fw.Mark = 0x5357
				g.NAT = true
				g.Gateway = []netip.Prefix{netip.MustParsePrefix("100.64.0.1/32")}
				g.Refused = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")}
			}
			if err := n.Firewall("server", fw); err != nil {
				t.Error(err)
			}
			if name == "server" {
				setClients(t, n, g.Subnets)
			}
			compare(t, filepath.Join("testdata", name+".nft"), run(t, "nft list ruleset"))
		}
	})
}

// setClients sets three, changes one, drops one; what a new table does to them shows in the file.
func setClients(t *testing.T, n *netcfg.Net, subnets []netip.Prefix) {
	t.Helper()
	a, b, c := netip.MustParseAddr("100.64.0.9"), netip.MustParseAddr("100.64.0.10"), netip.MustParseAddr("100.64.0.11")
	for _, x := range []netcfg.Client{
		{IPv4: a, Exit: true, Quota: 1000, Used: netcfg.Usage{Up: 10, Down: 20}},
		{IPv4: b, Subnets: subnets[:1]},
		{IPv4: c, Peers: true},
		{
			IPv4: a, IPv6: netip.MustParseAddr("fd12:3456:789a::9"), Exit: true, Subnets: subnets, Up: 125000, Down: 10 << 20, Quota: 5000,
			Used: netcfg.Usage{Up: 30, Down: 40},
		},
	} {
		if err := n.SetClient(x); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := n.DropClient(b); err != nil {
			t.Error(err)
		}
	}
	used, err := n.Usage()
	if err != nil || len(used) != 2 || used[a] != (netcfg.Usage{Up: 30, Down: 40}) {
		t.Errorf("usage %v, %v", used, err)
	}
}

func compare(t *testing.T, path, got string) {
	t.Helper()
	got = regexp.MustCompile(`[ \t]+`).ReplaceAllString(got, " ")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Error(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
		return
	}
	if w := strings.TrimSpace(string(want)); strings.TrimSpace(got) != w {
		t.Errorf("%s:\n%s\nwant\n%s", path, got, w)
	}
}
