package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

// echo is an applet that prints its name and arguments.
func echo(name string) applet.Applet {
	return applet.Applet{Name: name, Run: func(_ context.Context, e *applet.Env) int {
		_, _ = e.Stdout.Write([]byte(strings.Join(append([]string{name}, e.Args...), " ")))
		return applet.OK
	}}
}

func TestDispatch(t *testing.T) {
	t.Parallel()
	all := []applet.Applet{echo("node"), echo("vpn"), echo("socks"), echo("apptracker"), echo("viscript")}
	tools := []applet.Applet{echo("doctor")}
	for _, c := range []struct {
		argv string
		want string
		code int
	}{
		{"skywire node run x", "node run x", 0},
		{"/usr/bin/skywire-node run", "node run", 0},
		{"./node id", "node id", 0},
		{"-viscript", "viscript", 0},
		{`node.exe id`, "node id", 0},
		{"skywire skywire-vpn up", "vpn up", 0},
		{"skywire doctor", "doctor", 0},
		{"bin/meshnet/meshnet-run-node a b true 8000 node0", "node a b true 8000 node0", 0},
		{"meshnet-run-socks-server sockssrv0 101.202.34.56:9000 8001", "socks server sockssrv0 101.202.34.56:9000 8001", 0},
		{"meshnet-run-vpn-server vpnsrv0 101.202.34.56:9000", "vpn server vpnsrv0 101.202.34.56:9000", 0},
		{"meshnet-run-vpn-server vpncli0 101.202.34.56:9000 8000", "vpn client vpncli0 101.202.34.56:9000 8000", 0},
		{"meshnet-run-apptracker 127.0.0.1:20000", "apptracker 127.0.0.1:20000", 0},
		{"sky node id", "node id", 0},
		{"skywire help node", "node --help", 0},
		{"doctor", "", 2},
		{"skywire", "", 2},
		{"skywire nothing", "", 2},
	} {
		var out, talk bytes.Buffer
		argv := strings.Fields(c.argv)
		code := dispatch(t.Context(), argv[0], &applet.Env{Args: argv[1:], Stdout: &out, Stderr: &talk}, all, tools)
		if out.String() != c.want || code != c.code {
			t.Errorf("%s: %q, status %d; want %q, status %d; %s", c.argv, out.String(), code, c.want, c.code, talk.String())
		}
	}
}

func TestLinkNames(t *testing.T) {
	t.Parallel()
	all := []applet.Applet{echo("node"), echo("viscript")}
	if names := linkNames(all, false); slices.Contains(names, "node") || !slices.Contains(names, "skywire-node") ||
		!slices.Contains(names, "viscript") || slices.Contains(names, "skywire-viscript") {
		t.Error(names)
	}
	if names := linkNames(all, true); !slices.Contains(names, "node") {
		t.Error(names)
	}
}

// TestLinksAreRelativeBesideTheBinary lets the folder be moved or packed.
func TestLinksAreRelativeBesideTheBinary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self := filepath.Join(dir, "skywire")
	if err := os.WriteFile(self, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{dir, filepath.Join(dir, "elsewhere")} {
		if _, err := makeLinks(self, where, []string{"viscript"}); err != nil {
			t.Fatal(err)
		}
		to, err := os.Readlink(filepath.Join(where, "viscript"))
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{true: "skywire", false: self}[where == dir]; to != want {
			t.Errorf("in %s: %s, want %s", where, to, want)
		}
	}
}
