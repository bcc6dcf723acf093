package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestUnitExposure holds the units to what systemd says of their confinement (systemd-analyze security, tenths; 0 is best): the node needs
// no privilege, the vpn CAP_NET_ADMIN alone.
func TestUnitExposure(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is missing (apt-get install systemd)")
	}
	for unit, most := range map[string]string{
		"skywire-node": "20", "skywire-socks": "20", "skywire-manager": "20", "skywire-vpn": "18", "skywire-exit": "20", "skywire-messenger": "20", "skywire-join": "35",
	} {
		path := "../../packaging/systemd/" + unit + ".service"
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
			continue
		}
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold="+most, path).CombinedOutput()
		text := strings.TrimSpace(string(out))
		last := text[strings.LastIndexByte(text, '\n')+1:]
		if err != nil {
			t.Errorf("%s: more than %s tenths: %v\n%s", unit, most, err, last)
		}
		t.Log(last)
	}
}

// TestE2ELintian: the .deb has no fault that lintian knows of, beside those that lintian-overrides gives reasons for.
func TestE2ELintian(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is missing (apt-get install lintian)")
	}
	dir := t.TempDir()
	buildPackage(t, "build", "0.1.0", dir, "deb")
	deb := filepath.Join(dir, "skywire_0.1.0-1_"+runtime.GOARCH+".deb")
	out, err := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--fail-on", "error,warning", deb).CombinedOutput()
	if err != nil || strings.Contains(string(out), "W: ") {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}
