package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
	"skywire/packaging/update"
)

// brokenProgram is what a release that is no good looks like from outside: it says its version, and as a daemon it does what its
// last line does.
const brokenProgram = `#!/bin/sh
case "$*" in *--version*) echo '{"version": "%s"}'; exit 0 ;; esac
%s
`

// updateBox is box a of a world, with a skywire of its own that is replaced.
type updateBox struct {
	*world
	program string
	key     string // of the releases
	keyFile string
	dir     string
}

// TestE2EUpdate: a box under viscript changes to a release that another box gives over the mesh, goes back by itself from one that
// exits and from one that is never ready, ends a change that was cut off, and rolls back when asked.
func TestE2EUpdate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "upd")
	w.boxes("a", "b")
	w.must(w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("b", "prev", "10.1.0.2/24")))
	dir := t.TempDir()
	u := &updateBox{world: w, program: filepath.Join(dir, "bin", "skywire"), dir: dir, keyFile: filepath.Join(dir, "release.key")}
	w.must(os.MkdirAll(filepath.Dir(u.program), 0o755))
	w.must(os.MkdirAll(filepath.Join(dir, "good"), 0o755))
	buildVersion(t, "1.0.0", u.program)
	platform := runtime.GOOS + "-" + runtime.GOARCH
	buildVersion(t, "1.1.0", filepath.Join(dir, "good", "skywire-"+platform))
	u.key = strings.TrimSpace(w.exec("a", u.program, "update", "keygen", u.keyFile))
	w.exec("a", u.program, "install-links", filepath.Dir(u.program))
	w.exec("b", u.program, "update", "sign", filepath.Join(dir, "good"), "--key-file", u.keyFile, "--version", "1.1.0")

	w.node("b", "--allow", w.key["a"])
	w.must(w.box["a"].WriteConfig(fmt.Sprintf(`settings: {runHeadless: true}
node: {listen: ["udp://[::]:%s"], open: true, peers: ["%s"]}
update: {keys: [%s], from: "mesh:%s", gate: 15s}
apps:
  node: {path: skywire-node, default_args: [run], autostart: true, restart: always}
`, meshPort, w.peer("b", "10.1.0.2"), u.key, w.key["b"])))
	v, err := w.box["a"].Start("viscript", u.program, "viscript", "run", "--headless")
	w.must(err)
	w.run["a viscript"] = v
	w.start("b", "serve", "update", "serve", filepath.Join(dir, "good"), "--allow", w.key["a"])
	w.reach("a", "b")

	var check struct {
		Current, Version string
		Suits            bool
	}
	w.wait("the release is given", func(ctx context.Context) error {
		out, err := w.box["a"].Exec(ctx, u.program, "update", "check", "--json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &check)
		}
		return err
	})
	if check.Current != "1.0.0" || check.Version != "1.1.0" || !check.Suits {
		t.Fatalf("check: %+v", check)
	}
	u.wantExit(5, "update", "check", "--key", w.key["b"]) // not who signed it
	w.exec("a", u.program, "update", "apply")
	u.wantVersion("1.1.0", "the release over the mesh")
	if out := w.exec("a", u.program, "update", "status"); !strings.Contains(out, "kept      1.0.0") || !strings.Contains(out, "applied: 1.0.0 to 1.1.0") {
		t.Errorf("status:\n%s", out)
	}
	w.exec("a", u.program, "update", "apply") // nothing newer is no failure

	web := w.listen("a", "127.0.0.1:8099")
	go func() { _ = http.Serve(web, http.FileServer(http.Dir(dir))) }()
	u.broken("exits", "1.2.0", "exit 1")
	u.wantExit(1, "update", "apply", "--from", "http://127.0.0.1:8099/exits/", "--gate", "2s")
	u.wantVersion("1.1.0", "one that exits")
	u.wantExit(5, "update", "apply", "--from", filepath.Join(dir, "exits")) // once was enough

	u.broken("mute", "1.3.0", "exec tail -f /dev/null")
	u.wantExit(1, "update", "apply", "--from", filepath.Join(dir, "mute"), "--gate", "2s")
	u.wantVersion("1.1.0", "one that is never ready")
	u.cutOff()
	u.wantVersion("1.1.0", "one that was cut off")

	// The program of before lies beside no more: going back used it up.
	u.wantExit(4, "update", "rollback")
	w.must(v.Stop(patience))
}

// cutOff kills the change to a version that is never ready in the middle, and has the old program end it as the start of the box
// would.
func (u *updateBox) cutOff() {
	u.t.Helper()
	u.broken("cut", "1.4.0", "exec tail -f /dev/null")
	p, err := u.box["a"].Start("apply", u.program, "update", "apply", "--from", filepath.Join(u.dir, "cut"), "--gate", "5m")
	u.must(err)
	u.wait("the change", func(ctx context.Context) error {
		j, err := update.ReadJournal(u.box["a"].State())
		if err == nil && j.Trial == nil {
			err = errors.New("no trial yet")
		}
		if err == nil {
			if b, rerr := os.ReadFile(u.program); rerr != nil || !strings.HasPrefix(string(b), "#!") {
				err = errors.Join(errors.New("the program is the old one"), rerr)
			}
		}
		return err
	})
	p.Kill()
	if out, err := u.box["a"].Exec(u.t.Context(), u.program+".old", "update", "resume", "--gate", "2s"); err == nil || !strings.Contains(err.Error(), "1.4.0") {
		u.t.Errorf("resume: %q, %v", out, err)
	}
}

// broken makes a signed release of a program that is no good.
func (u *updateBox) broken(name, version, line string) {
	u.t.Helper()
	dir := filepath.Join(u.dir, name)
	u.must(os.MkdirAll(dir, 0o755))
	text := fmt.Sprintf(brokenProgram, version, line)
	u.must(os.WriteFile(filepath.Join(dir, "skywire-"+runtime.GOOS+"-"+runtime.GOARCH), []byte(text), 0o755))
	u.exec("b", u.program, "update", "sign", dir, "--key-file", u.keyFile, "--version", version)
}

func (u *updateBox) wantExit(code int, args ...string) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	_, err := u.box["a"].Exec(ctx, u.program, args...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		u.t.Errorf("skywire %v: %v, want status %d", args, err, code)
	}
}

// wantVersion wants the file, the node and viscript to be one version, and the link to stand.
func (u *updateBox) wantVersion(version, after string) {
	u.t.Helper()
	u.must(lab.Wait(u.t.Context(), patience, "version "+version+" after "+after, func(ctx context.Context) error {
		for _, words := range [][]string{{"--version"}, {"node", "status"}, {"viscript", "status"}} {
			out, err := u.box["a"].Exec(ctx, u.program, append(words, "--json")...)
			if err != nil {
				return err
			}
			var s struct {
				Version string
				Links   *int
			}
			if err := json.Unmarshal([]byte(out), &s); err != nil {
				return err
			}
			if s.Version != version || s.Links != nil && *s.Links == 0 {
				return fmt.Errorf("%v: %s", words, out)
			}
		}
		return nil
	}))
}

// buildVersion builds skywire as that version.
func buildVersion(t *testing.T, version, path string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w -X skywire/cmd/internal/applet.version="+version, "-o", path, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -trimpath")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}
