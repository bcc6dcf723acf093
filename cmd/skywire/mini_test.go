package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

// TestMini builds the small variant: it has what a member of a mesh needs, says of the rest that it is not there, and
// does not link what it left out.
func TestMini(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "skywire")
	build := exec.Command("go", "build", "-tags", "mini", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) (code int, out string) {
		b, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode(), string(b)
		} else if err != nil {
			t.Fatal(err)
		}
		return 0, string(b)
	}
	if code, out := run("--list"); code != 0 || out != "node\nvpn\nsocks\nviscript\n" {
		t.Errorf("--list: status %d, %q", code, out)
	}
	for _, name := range strings.Fields("node vpn socks viscript doctor") {
		if code, out := run(name, "--help"); code != 0 || !strings.Contains(out, name) {
			t.Errorf("%s --help: status %d, %q", name, code, out)
		}
	}
	for _, name := range strings.Fields("manager apptracker completion") {
		if code, out := run(name, "run"); code != applet.NotFound || !strings.Contains(out, "small build") {
			t.Errorf("%s: status %d, %q; want %d and why", name, code, out, applet.NotFound)
		}
	}
	deps, err := exec.Command("go", "list", "-deps", "-tags", "mini", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{module + "/mesh/manager", "net/http", "text/template"} {
		if slices.Contains(strings.Fields(string(deps)), left) {
			t.Errorf("the small build has %s", left)
		}
	}
}
