package applets

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"skywire/cmd/internal/applet"
	"skywire/tun/vpn"
)

// What config.yaml says of a server's rights and limits arrives as settings.
func TestVPNServerSection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := `
vpn:
  accept: ["10.5.0.0/16@office,office-backup"]
  server:
    allow_exit: ["@family"]
    subnets: ["192.168.9.0/24=@home,dave", 10.0.0.0/8]
    allow: [any]
    client_to_client: true
    closed: true
    rate: 20Mbit
    rate_up: 1MB
    quota: 50GB/month
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &applet.Env{Args: []string{"--config", path}, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}
	f, c := vpnFlags(e, "vpn up", "", "")
	if _, err := f.Parse(0, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Overlay(openSections, "vpn", c); err != nil {
		t.Fatal(err)
	}
	got, err := vpnSettings(f, c)
	if err != nil {
		t.Fatal(err)
	}
	want := &vpn.ServerConfig{
		AllowExit: []string{"@family"}, Allow: []string{"any"}, Peers: true, Closed: true, Pool: vpn.DefaultPool(),
		Subnets: []vpn.Subnet{
			{Prefix: netip.MustParsePrefix("192.168.9.0/24"), Allow: []string{"@home", "dave"}},
			{Prefix: netip.MustParsePrefix("10.0.0.0/8")},
		},
		Limit: vpn.Limit{Up: 1e6, Down: 2.5e6, Quota: 50e9, Period: vpn.Month},
	}
	if !reflect.DeepEqual(got.Server, want) {
		t.Errorf("got %+v, want %+v", got.Server, want)
	}
	accepted := []vpn.Accepted{{Prefix: netip.MustParsePrefix("10.5.0.0/16"), Servers: []string{"office", "office-backup"}}}
	if !reflect.DeepEqual(got.Accept, accepted) {
		t.Errorf("got %+v, want %+v", got.Accept, accepted)
	}
}

func TestVPNQuota(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		bytes  uint64
		period vpn.Period
	}{
		"50GB/month": {50e9, vpn.Month}, "1.5T/week": {1.5e12, vpn.Week}, "700M/day": {700e6, vpn.Day}, "2kB": {2000, vpn.Ever},
		"123": {123, vpn.Ever},
		"":    {}, "GB": {}, "-1GB": {}, "5XB": {}, "5GB/year": {}, "5GB/": {5e9, vpn.Ever}, "NaN": {}, "1e30GB": {}, "0": {},
	} {
		n, p, err := vpnQuota(text)
		if n != want.bytes || p != want.period || (err == nil) != (want.bytes > 0) {
			t.Errorf("%q: %d %q %v, want %+v", text, n, p, err, want)
		}
	}
}
