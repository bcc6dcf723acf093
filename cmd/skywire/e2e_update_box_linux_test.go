package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestE2EUpdateInit: a router whose daemons an init script starts changes to a newer release, and goes back by itself from one that exits.
func TestE2EUpdateInit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "updin")
	w.boxes("b")
	r := newRouter(t, w, "router", "config globals 'globals'\n\toption enabled '1'\n\nconfig node 'node'\n\toption no_lan '1'\n\toption open '1'\n\tlist peers '"+
		w.peer("b", "10.9.0.2")+"'\n\nconfig socks_server 'socks_server'\n\toption enabled '1'\n\tlist allow '"+w.key["b"]+"'\n")
	w.must(w.lab.Wire(w.end("b", "lan", "10.9.0.2/24"), w.end("router", "wan", "10.9.0.1/24")))
	w.node("b", "--no-lan")
	dir := t.TempDir()
	u := &updateBox{world: w, program: filepath.Join(r.root, "bin", "skywire"), dir: dir, keyFile: filepath.Join(dir, "release.key")}
	buildVersion(t, "1.0.0", u.program)
	must(t, os.MkdirAll(filepath.Join(dir, "good"), 0o755))
	buildVersion(t, "1.1.0", filepath.Join(dir, "good", "skywire-"+runtime.GOOS+"-"+runtime.GOARCH))
	u.key = strings.TrimSpace(w.exec("router", u.program, "update", "keygen", u.keyFile))
	w.exec("router", u.program, "update", "sign", filepath.Join(dir, "good"), "--key-file", u.keyFile, "--version", "1.1.0")
	if out, err := r.script(t.Context(), "start"); err != nil {
		t.Fatalf("start: %v: %s", err, out)
	}
	r.runs("1.0.0")

	etc := r.etcInit()
	apply := func(code int, words ...string) string {
		t.Helper()
		words = append([]string{"-m", "sh", "-c", `mount --bind "$0" /etc/init.d && exec "$@"`, etc, u.program, "update"}, words...)
		c := w.box["router"].Command(t.Context(), "unshare", words...)
		c.Env = append(c.Env, "SKYWIRE_RUN="+r.root+"/var/run/skywire", "SKYWIRE_STATE="+r.root+"/etc/skywire", "SKYWIRE_CONFIG="+r.root+"/var/etc/skywire.yaml")
		out, err := c.CombinedOutput()
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() == code || err == nil && code == 0 {
			return string(out)
		}
		t.Errorf("%v: %v, want status %d\n%s", words[6:], err, code, out)
		return ""
	}
	apply(0, "apply", "--key", u.key, "--from", filepath.Join(dir, "good"), "--gate", "20s")
	r.runs("1.1.0")
	u.broken("exits", "1.2.0", "exit 1")
	if out := apply(1, "apply", "--key", u.key, "--from", filepath.Join(dir, "exits"), "--gate", "3s"); !strings.Contains(out, "the old one runs again") {
		t.Errorf("going back: %s", out)
	}
	r.runs("1.1.0")
	apply(0, "apply", "--key", u.key, "--from", filepath.Join(dir, "good"), "--gate", "20s") // nothing newer is no failure
	r.runs("1.1.0")
}

// etcInit makes a folder that stands for /etc/init.d.
func (r *router) etcInit() string {
	r.owrt.t.Helper()
	shim, err := filepath.Abs("testdata/openwrt/shim.sh")
	must(r.owrt.t, err)
	text := "#!/bin/sh\nexport"
	for _, kv := range r.owrt.env[len(os.Environ()):] {
		text += " '" + kv + "'"
	}
	text += fmt.Sprintf("\nexec %s sh %s %s/skywire.init \"$1\"\n", r.busybox, shim, r.files)
	dir := filepath.Join(r.root, "init.d")
	must(r.owrt.t, os.Mkdir(dir, 0o755))
	must(r.owrt.t, os.WriteFile(filepath.Join(dir, "skywire"), []byte(text), 0o755))
	return dir
}

// runs waits until the node is that version, with its link and its app.
func (r *router) runs(version string) {
	r.owrt.t.Helper()
	r.wait("version "+version, func(ctx context.Context) error {
		status, err := r.skywire(ctx, "node", "status", "--json")
		if err == nil && (!strings.Contains(status, `"version": "`+version+`"`) || strings.Contains(status, `"links": 0`)) {
			err = errors.New(status)
		}
		if err == nil && r.pid("socks_server.pid") == 0 {
			err = errors.New("no socks server runs")
		}
		return err
	})
}

// TestE2EUpdateInside: a viscript with the node inside its own process becomes the newer release, node and all.
func TestE2EUpdateInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "updpr")
	w.boxes("a", "b")
	w.must(w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("b", "prev", "10.1.0.2/24")))
	dir := t.TempDir()
	u := &updateBox{world: w, program: filepath.Join(dir, "bin", "skywire"), dir: dir, keyFile: filepath.Join(dir, "release.key")}
	must(t, os.MkdirAll(filepath.Dir(u.program), 0o755))
	must(t, os.MkdirAll(filepath.Join(dir, "good"), 0o755))
	buildVersion(t, "1.0.0", u.program)
	buildVersion(t, "1.1.0", filepath.Join(dir, "good", "skywire-"+runtime.GOOS+"-"+runtime.GOARCH))
	u.key = strings.TrimSpace(w.exec("a", u.program, "update", "keygen", u.keyFile))
	w.exec("a", u.program, "install-links", filepath.Dir(u.program))
	w.exec("b", u.program, "update", "sign", filepath.Join(dir, "good"), "--key-file", u.keyFile, "--version", "1.1.0")
	w.node("b", "--allow", w.key["a"])
	w.must(w.box["a"].WriteConfig(fmt.Sprintf(`settings: {runHeadless: true}
node: {listen: ["udp://[::]:%s"], open: true, peers: ["%s"]}
update: {keys: [%s], from: %s, gate: 20s}
apps:
  node: {path: skywire-node, inproc: true, default_args: [run], autostart: true, restart: always}
`, meshPort, w.peer("b", "10.1.0.2"), u.key, filepath.Join(dir, "good"))))
	v, err := w.box["a"].Start("viscript", u.program, "viscript", "run", "--headless")
	w.must(err)
	w.run["a viscript"] = v
	w.reach("a", "b")
	u.wantVersion("1.0.0", "the start")
	w.exec("a", u.program, "update", "apply")
	u.wantVersion("1.1.0", "an update of what runs inside viscript")
	w.must(v.Stop(patience))
}
