package applets

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

// vpnSay runs the applet with words in a box without a node.
func vpnSay(t *testing.T, words ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	dir := t.TempDir()
	e := &applet.Env{
		Args: words, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk,
		Environ: []string{"SKYWIRE_RUN=" + dir, "SKYWIRE_STATE=" + dir, "SKYWIRE_CONFIG="},
	}
	code = vpnApplet().Run(context.Background(), e)
	return code, out.String(), talk.String()
}

func TestVPNWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words string
		code  int
		says  string
	}{
		{"", applet.BadUsage, "which verb"},
		{"--help", applet.OK, "vpn servers"},
		{"up --help", applet.OK, "--dev NAME"},
		{"server --help", applet.OK, "--no-nat"},
		{"client --help", applet.OK, "--exclude CIDR"},
		{"cleint", applet.BadUsage, `did you mean "client"`},
		{"client --exlude 10.0.0.0/8", applet.BadUsage, "did you mean --exclude"},
		{"client --exclude 10.0.0.0/33", applet.BadUsage, "is no CIDR"},
		{"server --subnet lan", applet.BadUsage, "is no CIDR"},
		{"server --subnet 10.0.0.0/8=", applet.BadUsage, "nobody stands after"},
		{"server --exit --rate 20", applet.BadUsage, "want a number with its unit"},
		{"server --exit --quota 5GB/year", applet.BadUsage, "want bytes and a period"},
		{"server --exit --quota lots", applet.BadUsage, "want bytes and a period"},
		{"up --accept 10.0.0.0/8", applet.BadUsage, "want CIDR@NODE"},
		{"up --accept lan@home", applet.BadUsage, "is no CIDR"},
		{"server --pool 10.0.0.0/8 name", applet.BadUsage, "2017 form NAME NODE_ADDR"},
		{"client name 127.0.0.1", applet.BadUsage, "2017 form NAME NODE_ADDR PORT"},
		{"client name nonsense 8000", applet.BadUsage, "is no HOST:PORT"},
		{"client --kill-switch", applet.BadUsage, "say --exit"},
		{"client --exit --kill-switch --no-kill-switch", applet.BadUsage, "either wished or taken off"},
		{"killswitch", applet.BadUsage, "apply|show"},
		{"killswitch on", applet.BadUsage, "want apply or show"},
		{"release now", applet.BadUsage, "unexpected argument"},
		{"up extra", applet.BadUsage, "unexpected argument"},
		{"status", applet.NotRunning, "the node is not running"},
		{"servers --json", applet.NotRunning, "skywire node run"},
	} {
		code, out, talk := vpnSay(t, strings.Fields(c.words)...)
		if code != c.code || !strings.Contains(out+talk, c.says) {
			t.Errorf("vpn %s: exit %d, %q; want %d and %q", c.words, code, out+talk, c.code, c.says)
		}
	}
}

// The section of config.yaml is what vpn up plays, and flags override it.
func TestVPNSection(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.yaml")
	text := `
vpn:
  device: mesh0
  mtu: 1300
  server: {exit: true, subnets: [192.168.9.7/24], allow: [any], no_nat: true}
  client: {server: auto, exclude: [203.0.113.9]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &applet.Env{Args: []string{"--config", path, "--mtu", "1350"}, Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}
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
	if got.Device != "mesh0" || got.MTU != 1350 || !got.Server.Exit || !got.Server.NoNAT ||
		got.Server.Subnets[0].Prefix != netip.MustParsePrefix("192.168.9.0/24") ||
		got.Client.Exclude[0] != netip.MustParsePrefix("203.0.113.9/32") || got.Client.Servers[0] != "auto" {
		t.Errorf("%+v %+v %+v", got, got.Server, got.Client)
	}
}
