package netcfg_test

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"skywire/tun"
	"skywire/tun/netcfg"
)

// TestSplitRuleset holds what nft sees of the client's table against testdata, and that names fill its sets for a time.
func TestSplitRuleset(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		prepare(t)
		n, err := netcfg.Open(netcfg.Config{Dir: t.TempDir(), Device: "sw0"})
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
		gates := []netcfg.Gate{{Device: "lan"}, {Prefix: netip.MustParsePrefix("192.168.9.0/24")}}
		for name, s := range map[string]netcfg.Split{
			"exclude": {UIDs: []uint32{1000, 0}, Domains: true, Gateways: gates},
			"only":    {Only: true, UIDs: []uint32{1000}, Domains: true, Gateways: gates[:1]},
			"gateway": {Gateways: gates[1:]},
		} {
			s.Mark = netcfg.DefaultMark
			if err := n.Split("client", s, []netip.Addr{netip.MustParseAddr("100.64.1.2"), meshSelf.Addr()}); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			compare(t, filepath.Join("testdata", "split-"+name+".nft"), run(t, "nft list table inet skywire_sw0_client"))
			addrs := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("::ffff:198.51.100.8")}
			err := netcfg.Resolved("sw0", addrs, time.Hour)
			if (err == nil) != s.Domains {
				t.Errorf("%s: resolved: %v", name, err)
			}
			if err != nil {
				continue
			}
			if err := netcfg.Resolved("sw0", addrs[:1], 3*time.Hour); err != nil {
				t.Errorf("%s: resolved again: %v", name, err)
			}
			sets := run(t, "nft list set inet skywire_sw0_client domains4") + run(t, "nft list set inet skywire_sw0_client domains6")
			for _, want := range []string{`198\.51\.100\.7 timeout 3h`, `198\.51\.100\.8 timeout 1h`, `2001:db8::7 timeout 1h`} {
				if !regexp.MustCompile(want).MatchString(sets) {
					t.Errorf("%s: no %s in %s", name, want, sets)
				}
			}
		}
		if err := n.Split("client", netcfg.Split{Mark: 1, Cgroups: []string{"no/such/group"}}, nil); err == nil {
			t.Error("a cgroup that is not there is taken")
		}
	})
}

// TestLeftovers: what a killed run has left is found and taken back, with its journal and without; what a running one
// has, and a kill switch, stay.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, lose string }{{"journal", ""}, {"no journal", "lost"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			inNamespace(t, func() { leftovers(t, c.lose != "") })
		})
	}
}

func leftovers(t *testing.T, lose bool) {
	prepare(t)
	before := state(t)
	dir := t.TempDir()
	n, err := netcfg.Open(netcfg.Config{Dir: dir, Device: "sw0"})
	if err != nil {
		t.Error(err)
		return
	}
	f := everything(t, n, true)
	if f == nil {
		return
	}
	if err := n.Hold("hold", netcfg.DefaultMark, nil); err != nil {
		t.Error(err)
	}
	if err := n.Split("client", netcfg.Split{Mark: 1, Gateways: []netcfg.Gate{{Device: "lan"}}}, nil); err != nil {
		t.Error(err)
	}
	if left, err := netcfg.Leftovers(dir); err != nil || len(left) > 0 {
		t.Errorf("of a running vpn: %v %v", left, err)
	}
	n.Abandon()
	if lose {
		dir = t.TempDir()
	}
	left, err := netcfg.Leftovers(dir)
	if err != nil || len(left) == 0 {
		t.Errorf("of a killed vpn: %v %v", left, err)
	}
	if err := netcfg.SetKillSwitch(lock()); err != nil {
		t.Error(err)
	}
	if left, err := netcfg.Repair(dir, nil); err != nil || len(left) == 0 {
		t.Errorf("repaired: %v %v", left, err)
	}
	if left, err := netcfg.Leftovers(dir); err != nil || len(left) > 0 {
		t.Errorf("after repair: %v %v", left, err)
	}
	if l, err := netcfg.KillSwitchState(); err != nil || !l.Table || !l.Routes {
		t.Errorf("the kill switch is gone: %+v %v", l, err)
	}
	if err := netcfg.ReleaseKillSwitch(); err != nil {
		t.Error(err)
	}
	f.Close() // without a journal the device ends with who holds it
	after := state(t)
	if lose { // only a journal knows the old values of sysctls; a box that forwards has anycast addresses
		before, after = before[:strings.Index(before, "# cat")], after[:strings.Index(after, "# cat")]
		after = regexp.MustCompile("(?m)^anycast .*\n").ReplaceAllString(after, "")
	}
	if after != before {
		t.Errorf("after repair:\n%s\nbefore:\n%s", after, before)
	}
}
