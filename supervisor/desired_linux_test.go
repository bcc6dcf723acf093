package supervisor

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skywire/signal"
	"skywire/supervisor/config"
	"skywire/supervisor/proc"
)

const (
	oneApp  = "apps:\n  one: {path: /bin/sleep, default_args: [\"1000\"], autostart: true}\n"
	twoApps = oneApp + "  two: {path: /bin/sleep, default_args: [\"2000\"], autostart: true}\n"
)

// onDisk is the config.yaml of the world.
func (w *world) onDisk() string {
	w.t.Helper()
	b, err := os.ReadFile(w.config.File)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func appsOf(t *testing.T, s *Supervisor) string {
	t.Helper()
	list, err := s.List(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, it := range list {
		names = append(names, it.App)
	}
	return strings.Join(names, " ")
}

// TestApplyConfirmed: a change applies the difference, is refused while another waits, and stays once confirmed.
func TestApplyConfirmed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneApp)
	s, _ := w.run()
	ctx := t.Context()
	before := stateOf(t, s, 1)
	if a, err := s.Apply(ctx, []byte(twoApps), time.Hour, true, "me"); err != nil || len(a.Plan.Started) != 1 || w.onDisk() != oneApp {
		t.Fatalf("%+v, %v", a, err)
	}
	a, err := s.Apply(ctx, []byte(twoApps), time.Hour, false, "me")
	if err != nil || a.Confirm != 3600 || len(a.Plan.Started) != 1 || w.onDisk() != twoApps || appsOf(t, s) != "two one" && appsOf(t, s) != "one two" {
		t.Fatalf("%+v, %v, %s", a, err, appsOf(t, s))
	}
	if it := stateOf(t, s, 1); *it.PID != *before.PID {
		t.Error("an app that did not change was started again")
	}
	if _, err := s.Apply(ctx, []byte(oneApp), 0, false, "you"); !errors.Is(err, signal.ErrBusy) || !strings.Contains(err.Error(), "by me") {
		t.Errorf("a second change: %v", err)
	}
	if _, err := s.Confirm(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Confirm(ctx); !errors.Is(err, signal.ErrNotFound) {
		t.Errorf("confirmed twice: %v", err)
	}
	if a, err := s.Apply(ctx, []byte(twoApps), time.Hour, false, "me"); err != nil || !a.Unchanged {
		t.Errorf("the same again: %+v, %v", a, err)
	}
	if a, err := s.Rollback(ctx, 0); err != nil || w.onDisk() != oneApp || len(a.Plan.Stopped) != 1 {
		t.Errorf("rollback: %+v, %v", a, err)
	}
	for _, bad := range []string{"apps: {x: {}}", "nosuch: 1\napps: [", "apps:\n  x: {path: a, patth: b}"} {
		if _, err := s.Apply(ctx, []byte(bad), 0, false, "me"); !errors.Is(err, signal.ErrUsage) || w.onDisk() != oneApp {
			t.Errorf("%q: %v", bad, err)
		}
	}
	list, err := s.Versions()
	if err != nil || len(list) != 3 || list[0].Number != 0 || list[0].Hash != hashOf([]byte(oneApp)) || list[1].Hash != hashOf([]byte(twoApps)) {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestApplyReturns: what nobody confirms goes, with the apps that it brought, and what somebody wrote meanwhile is kept.
func TestApplyReturns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneApp)
	s, _ := w.run()
	if _, err := s.Apply(t.Context(), []byte(twoApps), 300*time.Millisecond, false, "me"); err != nil {
		t.Fatal(err)
	}
	w.write(twoApps + "# mine\n")
	for w.onDisk() != oneApp || appsOf(t, s) != "one" {
		time.Sleep(5 * time.Millisecond)
	}
	list, err := s.Versions()
	if err != nil || len(list) < 2 || list[1].Hash != hashOf([]byte(twoApps+"# mine\n")) {
		t.Errorf("what was written meanwhile: %+v, %v", list, err)
	}
	if _, err := os.Stat(s.pendingFile()); !os.IsNotExist(err) {
		t.Errorf("pending: %v", err)
	}
}

// TestApplyOverRestart: a viscript that was killed goes on waiting in the same boot, and returns at once in another, or when
// the time went by meanwhile.
func TestApplyOverRestart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(p *pending)
		back   bool
	}{
		{"same boot", func(*pending) {}, false},
		{"other boot", func(p *pending) { p.Boot = "another" }, true},
		{"too late", func(p *pending) { p.Until = proc.Uptime() - 1 }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, oneApp)
			s, stop := w.run()
			if _, err := s.Apply(t.Context(), []byte(twoApps), time.Hour, false, "me"); err != nil {
				t.Fatal(err)
			}
			stop()
			p, err := s.pending()
			if err != nil || p == nil {
				t.Fatalf("not written down: %+v, %v", p, err)
			}
			tt.change(p)
			if err := writeAtomic(s.pendingFile(), p, true); err != nil {
				t.Fatal(err)
			}
			s, _ = w.run()
			for want := map[bool]string{true: "one", false: "two"}[tt.back]; !strings.Contains(appsOf(t, s), want); {
				time.Sleep(5 * time.Millisecond)
			}
			if back := w.onDisk() == oneApp; back != tt.back || strings.Contains(appsOf(t, s), "two") == tt.back {
				t.Errorf("returned %v, runs %s", back, appsOf(t, s))
			}
			if _, err := s.Confirm(t.Context()); errors.Is(err, signal.ErrNotFound) != tt.back {
				t.Errorf("confirm: %v", err)
			}
		})
	}
}

// TestApplyWithoutRoom: a state directory that takes nothing keeps the change away.
func TestApplyWithoutRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, oneApp)
	s, _ := w.run()
	if err := os.WriteFile(filepath.Join(w.config.StateDir, "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(t.Context(), []byte(twoApps), time.Hour, false, "me"); err == nil || w.onDisk() != oneApp {
		t.Errorf("%v", err)
	}
}

// TestReloadSections: an app whose section of config.yaml changes starts again, others don't.
func TestReloadSections(t *testing.T) {
	t.Parallel()
	apps := "apps:\n  one: {path: /bin/sleep, default_args: [\"1000\"], autostart: true}\n  two: {path: sleep, default_args: [\"1000\"], autostart: true}\n"
	w := newWorld(t, apps+"node: {name: a}\n")
	w.config.Sections = []string{"node"}
	w.config.SectionOf = func(a *config.App) string {
		if a.Name == "one" {
			return "node"
		}
		return ""
	}
	s, _ := w.run()
	for text, want := range map[string]int{apps + "node: {name: a} # as before\n": 0, apps + "node: {name: b}\n": 1} {
		w.write(text)
		if p, err := s.Reload(t.Context(), true); err != nil || len(p.Again) != want || want == 1 && !strings.HasPrefix(p.Again[0], "one#") {
			t.Errorf("%s: %+v, %v", text, p, err)
		}
	}
}

// TestAudit: who changed what and who was refused is there with its outcome, over a restart too; who looked is not.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "settings: {audit_file: audit.log}\n"+oneApp)
	s, stop := w.run()
	for _, c := range []struct {
		scope  Scope
		method string
		p      map[string]any
	}{
		{Admin, "viscript.ps", nil},
		{Operate, "viscript.restart", map[string]any{"id": "1"}},
		{Operate, "viscript.stop", map[string]any{"id": "77"}},
		{Read, "viscript.stop", map[string]any{"id": "1"}},
		{Operate, "viscript.apply", map[string]any{"text": twoApps}},
		{Admin, "viscript.apply", map[string]any{"text": twoApps, "dry_run": true}},
	} {
		operator(t, s, c.scope).Call(t.Context(), c.method, c.p, nil)
	}
	var list []Asked
	if err := operator(t, s, Admin).Call(t.Context(), "viscript.audit", nil, &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, a := range list {
		result := "done"
		if a.Error != "" {
			result = a.Error
		}
		got = append(got, a.Who+" "+a.Method+" "+a.What+": "+result)
		if a.Seq != uint64(i+1) || a.Time.IsZero() {
			t.Errorf("%+v", a)
		}
	}
	want := []string{
		"key operate restart 1: done", "key operate stop 77: ", "key read stop 1: stop needs the scope operate",
		"key operate apply : apply needs the scope admin",
	}
	for i := range want {
		if len(got) != len(want) || !strings.HasPrefix(got[i], want[i]) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if err := operator(t, s, Operate).Call(t.Context(), "viscript.audit", nil, nil); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("audit for an operator: %v", err)
	}
	stop()
	b, err := os.ReadFile(filepath.Join(w.config.StateDir, "audit.log"))
	if err != nil || strings.Count(string(b), "\n") != len(want)+1 {
		t.Errorf("%v, %s", err, b)
	}
	_, line, _ := strings.Cut(string(b), "audit: ")
	line, _, _ = strings.Cut(line, "\n")
	if a := (Asked{}); json.Unmarshal([]byte(line), &a) != nil || a.Method != "restart" {
		t.Errorf("%s", line)
	}
}
