//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

// TestLuCIBackend asks as rpcd does: what there is, and each method with what it needs, without it, and with words that are flags.
func TestLuCIBackend(t *testing.T) {
	t.Parallel()
	var asked, stdin []string
	run := func(_ context.Context, e *applet.Env) int {
		asked = append(asked, strings.Join(e.Args, " "))
		text, _ := bytes.Buffer{}, 0
		_, _ = text.ReadFrom(e.Stdin)
		stdin = append(stdin, text.String())
		switch e.Args[0] {
		case "vpn":
			e.Talk("vpn", "not running")
			fmt.Fprintln(e.Stderr, "usage: vpn …")
			return applet.NotRunning
		case "socks":
			list := make([]int, luciMost+7)
			list[luciMost+6] = 1
			_ = e.PrintJSON(list)
		default:
			_ = e.PrintJSON(map[string]string{"of": e.Args[0]})
		}
		return applet.OK
	}
	call := func(method, params string) (out string, code int) {
		asked, stdin = nil, nil
		var b, said bytes.Buffer
		code = luci(t.Context(), &applet.Env{Args: []string{"call", method}, Stdin: strings.NewReader(params), Stdout: &b, Stderr: &said}, run)
		return b.String() + said.String(), code
	}
	out, code := call("status", "")
	var s map[string]luciAnswer
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 {
		t.Fatalf("%d %v: %s", code, err, out)
	}
	if string(s["node"].Data) == "" || s["vpn"].Error != "vpn: not running" || s["vpn"].Code != applet.NotRunning || s["socks"].More != 7 {
		t.Errorf("status: %s", out)
	}
	if out, _ = call("start", `{"app": "backup", "ubus_rpc_session": "x"}`); !slices.Equal(asked, []string{"viscript --json start backup"}) {
		t.Errorf("start asks %q: %s", asked, out)
	}
	if call("join", `{"invite": "skywire:join?secret"}`); !slices.Equal(stdin, []string{"skywire:join?secret\n"}) || strings.Contains(strings.Join(asked, ""), "secret") {
		t.Errorf("join asks %q with %q", asked, stdin)
	}
	for _, bad := range []string{`{}`, `{"app": ""}`, `{"app": "--config=/tmp/x"}`, `{"app": "-n"}`, `{"app": "a\nb"}`, `{"app": 3}`, `[]`, `nonsense`, strings.Repeat(" ", luciMax+1)} {
		if out, code := call("start", bad); len(asked) > 0 || code == 0 && !strings.Contains(out, `"error"`) {
			t.Errorf("%.40s: %d %s, asks %q", bad, code, out, asked)
		}
	}
	for _, args := range [][]string{{}, {"list", "x"}, {"call"}, {"call", "reboot"}} {
		var said bytes.Buffer
		if code := luci(t.Context(), &applet.Env{Args: args, Stderr: &said, Stdout: &said}, run); code != applet.BadUsage || said.Len() == 0 {
			t.Errorf("%q: %d %s", args, code, &said)
		}
	}
}

// TestLuCIRights: the package's rights name each method of the backend once, what changes something under write, and the pages that
// the menu shows are there.
func TestLuCIRights(t *testing.T) {
	t.Parallel()
	acl := readACL(t)
	change := []string{"start", "stop", "join", "release"}
	for _, m := range luciMethods() {
		read, write := slices.Contains(acl.Read.UBus[luciName], m.name), slices.Contains(acl.Write.UBus[luciName], m.name)
		if want := slices.Contains(change, m.name); write != want || read == want {
			t.Errorf("%s: read %v, write %v", m.name, read, write)
		}
	}
	if n := len(acl.Read.UBus[luciName]) + len(acl.Write.UBus[luciName]); n != len(luciMethods()) {
		t.Errorf("%d methods have rights, and there are %d", n, len(luciMethods()))
	}
	if !slices.Equal(slices.Sorted(maps.Keys(acl.Read.UBus)), []string{luciName, "service"}) || len(acl.Write.UBus) != 1 || len(acl.Read.File) != 1 || len(acl.Write.File) != 0 {
		t.Errorf("more rights than the pages use: %+v", acl)
	}
	var menu map[string]struct {
		Action struct{ Type, Path string }
	}
	must(t, json.Unmarshal(readFile(t, luciDir+"/root/usr/share/luci/menu.d/luci-app-skywire.json"), &menu))
	var pages []string
	for _, m := range menu {
		if m.Action.Type == "view" {
			pages = append(pages, m.Action.Path+".js")
		}
	}
	views, err := filepath.Glob(luciDir + "/htdocs/luci-static/resources/view/skywire/*.js")
	must(t, err)
	for i := range views {
		views[i] = "skywire/" + filepath.Base(views[i])
	}
	if slices.Sort(pages); !slices.Equal(pages, views) {
		t.Errorf("the menu shows %q, and there are %q", pages, views)
	}
}

var translated = regexp.MustCompile(`\b_\('((?:[^'\\]|\\.)*)'`)

// TestLuCITemplate holds the template for translators to the words of the pages; with SKYWIRE_UPDATE set it writes it.
func TestLuCITemplate(t *testing.T) {
	t.Parallel()
	where := map[string][]string{}
	must(t, filepath.WalkDir(luciDir+"/htdocs", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, luciDir+"/")
		for _, m := range translated.FindAllStringSubmatch(string(readFile(t, path)), -1) {
			if !slices.Contains(where[m[1]], name) {
				where[m[1]] = append(where[m[1]], name)
			}
		}
		return nil
	}))
	var b strings.Builder
	b.WriteString("msgid \"\"\nmsgstr \"Content-Type: text/plain; charset=UTF-8\"\n")
	for _, text := range slices.Sorted(maps.Keys(where)) {
		fmt.Fprintf(&b, "\n#: %s\nmsgid \"%s\"\nmsgstr \"\"\n", strings.Join(where[text], "\n#: "), strings.ReplaceAll(strings.ReplaceAll(text, `\'`, `'`), `"`, `\"`))
	}
	path := luciDir + "/po/templates/skywire.pot"
	if os.Getenv("SKYWIRE_UPDATE") != "" {
		must(t, os.WriteFile(path, []byte(b.String()), 0o644))
	}
	if got := string(readFile(t, path)); got != b.String() {
		t.Errorf("%s is not what the pages say: run this test with SKYWIRE_UPDATE=1", path)
	}
	if len(where) < 50 {
		t.Errorf("only %d texts were found", len(where))
	}
}

// TestLuCILint has ESLint read the views, in a copy: it must find nothing in them, and something in a fault.
func TestLuCILint(t *testing.T) {
	t.Parallel()
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("no npm")
	}
	dir := filepath.Join(t.TempDir(), "luci")
	must(t, os.CopyFS(dir, os.DirFS(luciDir+"/htdocs")))
	must(t, os.Rename(dir, dir+".htdocs"))
	must(t, os.Mkdir(dir, 0o755))
	must(t, os.Rename(dir+".htdocs", dir+"/htdocs"))
	for _, name := range []string{"package.json", "package-lock.json", "eslint.config.mjs"} {
		copyFile(t, filepath.Join(luciDir, name), filepath.Join(dir, name))
	}
	run := func(name string, args ...string) (string, error) {
		c := exec.CommandContext(t.Context(), name, args...)
		c.Dir = dir
		c.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin") // without links of ours: node is Node.js
		out, err := c.CombinedOutput()
		return string(out), err
	}
	if out, err := run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	if out, err := run("node_modules/.bin/eslint", "--max-warnings=0", "."); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "htdocs/fault.js"), []byte("'use strict';\nreturn nobody.extend({});\n"), 0o644))
	if out, err := run("node_modules/.bin/eslint", "."); err == nil || !strings.Contains(out, "no-undef") {
		t.Errorf("a fault passes: %v\n%s", err, out)
	}
}
