//go:build unix

package update

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPackageOf has stand-ins say what OpenWrt's package managers say; dpkg itself is asked by the test of the Debian package.
func TestPackageOf(t *testing.T) {
	for _, c := range []struct{ manager, script, want string }{
		{"opkg", `[ "$1 $2" = "search /usr/bin/skywire" ] && echo "skywire - 0.1.0-1"`, "opkg"},
		{"opkg", `exit 0`, ""}, // not known to it
		{"opkg", `echo "opkg_conf_parse_file: Duplicate src declaration" >&2`, ""},
		{"opkg", `echo "Collected errors:"; exit 255`, ""},
		{"apk", `[ "$1 $2 $3" = "info --who-owns /usr/bin/skywire" ] && echo "/usr/bin/skywire is owned by skywire-0.1.0-r1"`, "apk"},
		{"apk", `echo "ERROR: /usr/bin/skywire: Could not determine owner package" >&2; exit 1`, ""},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, c.manager), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir)
		if got := PackageOf(t.Context(), "/usr/bin/skywire"); got != c.want {
			t.Errorf("%s that says %s: %q, want %q", c.manager, c.script, got, c.want)
		}
	}
}
