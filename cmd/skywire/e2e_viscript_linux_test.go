package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fixture2017 is the config.yaml of 2017. It is not ours to keep, so it is read where it lies, beside the repository.
const fixture2017 = "../../../shared/testdata/viscript-2017-config.yaml"

// TestE2EViscript2017 runs the config.yaml of 2017 unchanged: its programs' paths lead to links of install-links, and the
// full example commands of its help texts start.
func TestE2EViscript2017(t *testing.T) {
	text, err := os.ReadFile(fixture2017)
	if err != nil {
		t.Skip("the fixture is not beside the repository: ", err)
	}
	w := newWorld(t, "v2017")
	w.boxes("a")
	box := w.box["a"]
	w.must(box.WriteConfig(string(text)))
	if _, err := box.Skywire(t.Context(), "install-links", "bin/meshnet"); err != nil {
		t.Fatal(err)
	}
	p := w.start("a", "viscript", "viscript", "run", "--headless")
	w.wait("viscript", func(ctx context.Context) error {
		_, err := box.Skywire(ctx, "viscript", "ps")
		return w.alive(p, err)
	})
	apps := w.viscript("apps")
	for _, name := range []string{"meshnet-node", "meshnet-socks-client", "meshnet-socks-server", "meshnet-vpn-client", "meshnet-vpn-server", "apptracker"} {
		if !strings.Contains(apps, name) {
			t.Errorf("apps does not list %s: %s", name, apps)
		}
		if name != "apptracker" && !strings.Contains(w.viscript("help", name), "Full Example Command") {
			t.Errorf("help %s lacks the text of the file", name)
		}
	}
	for _, line := range []string{
		"start meshnet-node 127.0.0.1:5000 127.0.0.1:5999 true 8000 node0",
		"s meshnet-socks-server sockssrv0 127.0.0.1:9000 8001",
		"start meshnet-socks-client sockscli0 127.0.0.1:9000 8001",
		"start meshnet-vpn-server vpnsrv0 127.0.0.1:9000",
		"s apptracker 127.0.0.1:20000",
	} {
		id := strings.TrimSpace(w.viscript(strings.Fields(line)...))
		w.wait(line, func(ctx context.Context) error { return w.running(ctx, id) })
		for _, verb := range []string{"ping", "ru"} { // one that was started before its node serves is started again
			w.wait(verb+" of "+line, func(ctx context.Context) error {
				_, err := box.Skywire(ctx, "viscript", verb, id)
				return err
			})
		}
	}
	w.emptyTree()
}

func (w *world) viscript(args ...string) string {
	w.t.Helper()
	out, err := w.box["a"].Skywire(w.t.Context(), append([]string{"viscript"}, args...)...)
	w.must(err)
	return out
}

type psEntry struct {
	ID    int
	Name  string
	State string
	PID   int
}

func (w *world) running(ctx context.Context, id string) error {
	var all []psEntry
	if err := w.box["a"].SkywireJSON(ctx, &all, "viscript", "ps"); err != nil {
		return err
	}
	for _, p := range all {
		if fmt.Sprint(p.ID) == id {
			if p.State == "running" || p.State == "ready" {
				return nil
			}
			out, _ := w.box["a"].Skywire(ctx, "viscript", "logs", id, "-n", "5")
			return fmt.Errorf("%s is %s: %s", p.Name, p.State, out)
		}
	}
	return fmt.Errorf("no id %q in %+v", id, all)
}

// emptyTree shuts every app down and wants no process of the links to be left.
func (w *world) emptyTree() {
	w.t.Helper()
	var all []psEntry
	w.must(w.box["a"].SkywireJSON(w.t.Context(), &all, "viscript", "ps"))
	for _, p := range all {
		w.viscript("sd", fmt.Sprint(p.ID))
	}
	w.wait("an empty tree", func(context.Context) error {
		if out := w.commands("a"); strings.Contains(out, "meshnet-run") {
			return errors.New(out)
		}
		return nil
	})
}

// commands are the command lines of all processes in a box.
func (w *world) commands(box string) string {
	w.t.Helper()
	return w.exec(box, "sh", "-c", "for p in $(ip netns pids "+w.box[box].NS+"); do tr '\\0' ' ' </proc/$p/cmdline; echo; done 2>/dev/null || true")
}

// TestE2EViscript: case and quotes of arguments arrive as written, stop empties a tree, ids live through a restart.
func TestE2EViscript(t *testing.T) {
	w := newWorld(t, "visc")
	w.boxes("a")
	box := w.box["a"]
	echo := filepath.Join(box.Dir, "echo.sh")
	w.must(os.WriteFile(echo, []byte("#!/bin/sh\nfor a; do echo \"[$a]\"; done\nsleep 1000 & sleep 1000 & wait\n"), 0o755),
		box.WriteConfig("apps:\n  echo:\n    path: "+echo+"\n    desc: prints its arguments\n"))
	p := w.start("a", "viscript", "viscript", "run", "--headless")
	w.wait("viscript", func(ctx context.Context) error {
		_, err := box.Skywire(ctx, "viscript", "ps")
		return w.alive(p, err)
	})
	first := strings.TrimSpace(w.viscript("start", "echo", "Mixed Case", "it's", "-x", ""))
	want := "[Mixed Case]\n[it's]\n[-x]\n[]\n"
	w.wait("the echo", func(ctx context.Context) error {
		if out := w.viscript("logs", first); !strings.Contains(out, want) && !strings.Contains(strings.ReplaceAll(out, "\r", ""), want) {
			return errors.New(out)
		}
		return nil
	})
	var ru struct{ Processes int }
	w.must(box.SkywireJSON(t.Context(), &ru, "viscript", "ru", first))
	if ru.Processes != 3 {
		t.Errorf("ru counts %d processes of three", ru.Processes)
	}
	w.viscript("sd", first)
	if out := w.commands("a"); strings.Contains(out, "sleep 1000") {
		t.Error("left after stop:", out)
	}
	w.run["a viscript"].Kill()
	w.start("a", "viscript", "viscript", "run", "--headless")
	w.wait("viscript again", func(ctx context.Context) error {
		_, err := box.Skywire(ctx, "viscript", "ps")
		return err
	})
	if second := strings.TrimSpace(w.viscript("start", "echo")); second == first {
		t.Errorf("id %s was given twice", second)
	}
	path, err := builtBinary()
	w.must(err)
	w.refuses("a", []string{"exit status 4", "did you mean", "echo"}, path, "viscript", "start", "ecoh")
	w.refuses("a", []string{"exit status 4"}, path, "viscript", "ping", "999")
}
