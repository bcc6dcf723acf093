package netcfg_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"skywire/tun/netcfg"
)

func lock() netcfg.KillSwitch {
	return netcfg.KillSwitch{
		Device: "sw0", Mark: netcfg.DefaultMark, UIDs: []uint32{987}, Served: []string{"lan"},
		Exclude: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8:9::/48")},
	}
}

// TestKillSwitchSettings: they come back as they were saved; damage locks; forgotten ones are no error.
func TestKillSwitchSettings(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if k, on, err := netcfg.LoadKillSwitch(dir, "sw1"); on || err != nil {
		t.Fatalf("without any: %+v %v %v", k, on, err)
	}
	want := lock()
	for range 2 {
		if err := netcfg.SaveKillSwitch(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	if got, on, err := netcfg.LoadKillSwitch(dir, "sw1"); !on || err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v %v, want %+v", got, on, err, want)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("files: %v %v", left, err)
	}
	for _, damaged := range []string{"", "{", `{"device":"x"}`, "\x00\x00\x00"} {
		if err := os.WriteFile(filepath.Join(dir, left[0].Name()), []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		k, on, err := netcfg.LoadKillSwitch(dir, "sw1")
		if !on || err == nil || k.Device != "sw1" || k.Mark != netcfg.DefaultMark || len(k.UIDs)+len(k.Exclude) > 0 || k.LAN {
			t.Errorf("damaged to %q: %+v %v %v", damaged, k, on, err)
		}
	}
	for range 2 {
		if err := netcfg.ForgetKillSwitch(dir); err != nil {
			t.Error(err)
		}
	}
	if _, on, err := netcfg.LoadKillSwitch(dir, "sw1"); on || err != nil {
		t.Errorf("after forgetting: %v %v", on, err)
	}
}

func FuzzParseKillSwitch(f *testing.F) {
	f.Add([]byte(`{"device":"skywire0","mark":21335,"uids":[987],"exclude":["203.0.113.0/24"],"lan":true}`))
	f.Add([]byte(`{"device":"a","mark":1,"exclude":[""]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := netcfg.ParseKillSwitch(b)
		if err == nil && (k.Device == "" || k.Mark == 0) {
			t.Errorf("%q gives %+v", b, k)
		}
	})
}
