package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const controlConfig = `settings: {runHeadless: true}
apps:
  held: {path: /bin/sleep, default_args: [1000], autostart: true}
  messenger: {path: messenger, default_args: [run], autostart: true, daemon: true}
`

// TestE2EMessageControl is T-M9: by message a contact may have a box do what its scope says and no more, also a box that was off;
// what it was refused stands in the audit beside what it did. The messenger is an app of viscript there.
func TestE2EMessageControl(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgctl")
	w.chain("op", "box")
	w.must(w.box["box"].WriteConfig(controlConfig))
	w.messenger("op")
	p := w.start("box", "viscript", "viscript", "run")
	up := func() {
		w.wait("messenger of box", func(context.Context) error { return w.alive(p, w.ask("box", "messenger.status", struct{}{}, nil)) })
	}
	up()
	w.friends("op", "box")
	ctl := func(args ...string) []string {
		return append(append([]string{"messenger", "ctl", "box"}, args...), "-w", "--timeout", "30")
	}
	w.fails("op", 5, "not allowed here", ctl("status")...)
	w.skywire("box", "messenger", "contact", "allow", "op", "read")
	if out := w.skywire("op", ctl("status")...); !strings.Contains(out, `"apps"`) && !strings.Contains(out, `"version"`) {
		t.Errorf("status of the box: %s", out)
	}
	if out := w.skywire("op", ctl("ps")...); !strings.Contains(out, `"held"`) {
		t.Errorf("ps of the box: %s", out)
	}
	w.fails("op", 5, "stop needs the scope operate, this account has read", ctl("stop", "held")...)
	if !strings.Contains(w.commands("box"), "sleep 1000") {
		t.Fatal("a call that was refused was done")
	}
	audit := w.skywire("box", "messenger", "audit")
	for _, want := range []string{"status", "allowed", "stop held", "refused"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit lacks %q:\n%s", want, audit)
		}
	}
	// As an app it answers viscript: ru counts it, sd ends it, and it is ready when it says so.
	if out := w.skywire("box", "viscript", "ru", "messenger"); !strings.Contains(out, "rss") {
		t.Errorf("ru: %s", out)
	}
	// A box that is off does it when it comes back, once.
	w.skywire("box", "messenger", "contact", "allow", "op", "operate")
	w.skywire("box", "viscript", "sd", "messenger")
	id := strings.TrimSpace(w.skywire("op", "messenger", "ctl", "box", "restart", "held"))
	w.fails("op", 1, "no answer yet", "messenger", "ctl", "--result", id)
	before := w.skywire("box", "viscript", "ps", "--json")
	w.skywire("box", "viscript", "start", "messenger")
	up()
	w.skywire("op", "messenger", "ctl", "--result", id, "-w", "--timeout", "40")
	w.wait("held was restarted", func(context.Context) error {
		if w.skywire("box", "viscript", "ps", "--json") == before {
			return errors.New("not yet")
		}
		return nil
	})
	if n := strings.Count(w.skywire("box", "messenger", "audit"), "restart held"); n != 1 {
		t.Errorf("%d restarts in the audit", n)
	}
	// Desired state needs admin.
	next := filepath.Join(w.box["op"].Dir, "next.yaml")
	w.must(os.WriteFile(next, []byte(controlConfig+"  more: {path: /bin/sleep, default_args: [2000], autostart: true}\n"), 0o600))
	w.fails("op", 5, "needs the scope admin", "messenger", "ctl", "box", "apply", next, "-w", "--timeout", "30")
	w.skywire("box", "messenger", "contact", "allow", "op", "admin")
	w.skywire("op", "messenger", "ctl", "box", "apply", next, "-w", "--timeout", "30")
	w.wait("the box runs what was applied", func(context.Context) error {
		if !strings.Contains(w.commands("box"), "sleep 2000") {
			return errors.New("not yet")
		}
		return nil
	})
}
