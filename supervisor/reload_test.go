package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skywire/supervisor/config"
)

// reloadMatrix is every key of an app in config.yaml (and two values of their own), with what a change of it does to the app that runs: true starts it
// again.
var reloadMatrix = map[string]struct {
	to    string
	again bool
}{
	"path":              {"path: y", true},
	"default_args":      {"default_args: [b]", true},
	"daemon":            {"daemon: false", true},
	"env":               {"env: {A: \"2\"}", true},
	"cwd":               {"cwd: /tmp", true},
	"inproc":            {"inproc: true", true},
	"user":              {"user: \"7\"", true},
	"group":             {"group: \"7\"", true},
	"tty":               {"tty: true, daemon: false", true},
	"caps":              {"caps: [chown]", true},
	"caps, none":        {"caps: []", true},
	"ready.fd":          {"ready: {fd: 5}", true},
	"no_new_privs":      {"no_new_privs: true", true},
	"secrets":           {"secrets: {a: b}", true},
	"nice":              {"nice: 5", true},
	"limits":            {"limits: {files: 77}", true},
	"legacy":            {"legacy: true", true},
	"ready":             {"ready: {notify: true}", false},
	"desc":              {"desc: new", false},
	"help":              {"help: new", false},
	"autostart":         {"autostart: false", false},
	"stop_timeout":      {"stop_timeout: 3", false},
	"restart":           {"restart: never", false},
	"restart_delay":     {"restart_delay: 3", false},
	"restart_max_delay": {"restart_max_delay: 30", false},
	"restart_limit":     {"restart_limit: 3", false},
	"log_bytes":         {"log_bytes: 100000", false},
	"log":               {"log: {rate: 7}", false},
	"depends_on":        {"depends_on: [other]", false},
	"health":            {"health: {ping: true}", false},
	"watchdog":          {"watchdog: 3", false},
	"oneshot":           {"oneshot: true, restart: never", false},
	"schedule":          {"schedule: \"@every 1h\"", false},
	"hooks":             {"hooks: {failed: [x]}", false},
}

// reloadApp is an app line in which one key says something else.
func reloadApp(change string) string {
	keys := []string{"path: x", "default_args: [a]", "daemon: true", "autostart: true", "restart: always"}
	key := func(s string) string { k, _, _ := strings.Cut(s, ":"); return k }
	out := []string{}
	for _, k := range keys {
		if !strings.HasPrefix(change, key(k)+":") && !strings.Contains(change, ", "+key(k)+":") {
			out = append(out, k)
		}
	}
	if change != "" {
		out = append(out, change)
	}
	return strings.Join(out, ", ")
}

// reloading is a loop over a file, with three apps that run.
type reloading struct {
	t    *testing.T
	s    *Supervisor
	file string
	made []string // apps as they were started
}

func newReloading(t *testing.T) *reloading {
	r := &reloading{t: t, file: filepath.Join(t.TempDir(), "config.yaml")}
	text := r.with("a", reloadApp(""))
	r.s = bubble(t, text, func(l launch) (running, error) {
		r.made = append(r.made, l.app.Name)
		return &fake{lasts: 1000 * time.Hour, stop: make(chan struct{})}, nil
	})
	r.s.c.File = r.file
	synctest.Wait()
	r.write(text)
	return r
}

// with is a file with app a, unless it is empty, and others.
func (r *reloading) with(name, app string) string {
	text := "settings: {signal_tcp: \"127.0.0.1:7999\"}\napps:\n  other: {path: o, autostart: true}\n  third: {path: o, autostart: true}\n"
	if app != "" {
		text += "  " + name + ": {" + app + "}\n"
	}
	return text
}

func (r *reloading) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// reload writes a file and reads it, first as a plan; it returns which apps were started since.
func (r *reloading) reload(text string) (Plan, []string) {
	r.t.Helper()
	r.write(text)
	before := len(r.made)
	dry, err := r.s.Reload(r.t.Context(), true)
	synctest.Wait()
	if err != nil || len(r.made) != before {
		r.t.Errorf("the plan: %v, started %v", err, r.made[before:])
	}
	p, err := r.s.Reload(r.t.Context(), false)
	if err != nil {
		r.t.Error(err)
	}
	synctest.Wait()
	if dry.DryRun = false; !reflect.DeepEqual(p, dry) {
		r.t.Errorf("planned %+v, done %+v", dry, p)
	}
	return p, r.made[before:]
}

// runs are the apps that run, as name#id.
func (r *reloading) runs() (list []string) {
	r.t.Helper()
	items, err := r.s.List(r.t.Context(), false)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, it := range items {
		list = append(list, fmt.Sprintf("%s#%d %s", it.Name, it.ID, it.State))
	}
	return list
}

// TestReloadMatrix is T-S6: a change of a key of one app does that to it and nothing to the others; with the file as it was
// everything is as it was, but for the runs that had to be new ones.
func TestReloadMatrix(t *testing.T) {
	t.Parallel()
	fields := reflect.TypeFor[config.App]()
	for i := range fields.NumField() {
		key, _, _ := strings.Cut(fields.Field(i).Tag.Get("yaml"), ",")
		if _, there := reloadMatrix[key]; key != "-" && !there {
			t.Errorf("%s is not in the matrix", key)
		}
	}
	for key, tt := range reloadMatrix {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newReloading(t)
				before := r.runs()
				p, made := r.reload(r.with("a", reloadApp(tt.to)))
				again := []string{}
				if tt.again {
					again = []string{"a"}
				}
				if len(p.Again) != len(again) || !slices.Equal(p.Changed, []string{"a"}) || len(p.Added)+len(p.Removed)+len(p.Stopped)+len(p.Started) != 0 {
					t.Errorf("%+v", p)
				}
				if !slices.Equal(made, again) {
					t.Errorf("started %v, want %v", made, again)
				}
				if after := r.runs(); !slices.Equal(after, before) {
					t.Errorf("runs %v, before %v", after, before)
				}
				if p, made := r.reload(r.with("a", reloadApp(""))); len(p.Again) != len(again) || !slices.Equal(made, again) {
					t.Errorf("back: %+v, started %v", p, made)
				}
				if p, made := r.reload(r.with("a", reloadApp("")) + "# a remark\n"); len(p.Changed) != 0 || len(made) != 0 {
					t.Errorf("nothing changed: %+v, started %v", p, made)
				}
			})
		})
	}
}

// TestReloadComesAndGoes: apps that are added, taken away and renamed, and that run more than once.
func TestReloadComesAndGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newReloading(t)
		r.s.mustStart(t, "a", "with", "words")
		r.expect(r.with("a", reloadApp("default_args: [b]")), "changed a; restarted a#1", "a", // the other has words of its own
			"a#1 running", "other#2 running", "third#3 running", "a#4 running")
		r.expect(r.with("b", reloadApp("")), "added b; removed a; stopped a#1 a#4; started b", "b",
			"other#2 running", "third#3 running", "b#5 running")
		r.expect(r.with("b", ""), "removed b; stopped b#5", "", "other#2 running", "third#3 running")
		r.expect(r.with("c", "path: x"), "added c", "", "other#2 running", "third#3 running")
		r.expect(r.with("c", "path: x, autostart: true"), "changed c; started c", "c", "other#2 running", "third#3 running", "c#6 running")
		if _, err := r.s.Stop(t.Context(), "c", 0); err != nil {
			t.Error(err)
		}
		r.expect(r.with("c", "path: y, autostart: true"), "changed c", "", "other#2 running", "third#3 running") // stopped by hand: stays so
	})
}

func (r *reloading) expect(text, plan, started string, runs ...string) {
	r.t.Helper()
	p, made := r.reload(text)
	var got []string
	for _, part := range []struct {
		name string
		list []string
	}{{"added", p.Added}, {"removed", p.Removed}, {"changed", p.Changed}, {"stopped", p.Stopped}, {"restarted", p.Again}, {"started", p.Started}} {
		if len(part.list) > 0 {
			got = append(got, part.name+" "+strings.Join(part.list, " "))
		}
	}
	slices.Sort(got)
	want := strings.Split(plan, "; ")
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: %q, want %q", text, got, want)
	}
	if strings.Join(made, " ") != started {
		r.t.Errorf("%s: started %v, want %s", text, made, started)
	}
	if after := r.runs(); !slices.Equal(after, runs) {
		r.t.Errorf("%s: runs %q, want %q", text, after, runs)
	}
}

// TestReloadOfAWrongFile: it changes nothing, and says where the error is.
func TestReloadOfAWrongFile(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, says string }{
		"no YAML":         {"apps: {a: [", "yaml"},
		"a wrong key":     {"apps:\n  a: {pth: x}\n", `did you mean "path"?`},
		"a wrong value":   {"apps:\n  a: {path: x, restart: sometimes}\n", "restart"},
		"no path":         {"apps:\n  a: {desc: x}\n", "path"},
		"a cycle":         {"apps:\n  a: {path: x, depends_on: [b]}\n  b: {path: x, depends_on: [a]}\n", "depends_on"},
		"nobody to await": {"apps:\n  a: {path: x, depends_on: [nobody]}\n", "nobody"},
		"twice":           {"apps:\n  a: {path: x}\n  a: {path: y}\n", "a"},
		"two documents":   {"apps:\n  a: {path: x}\n---\napps: {}\n", ""},
		"too long":        {"#" + strings.Repeat("x", config.MaxFile), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := newReloading(t)
				before, file := r.runs(), r.s.file
				r.write(tt.text)
				for _, dry := range []bool{true, false} {
					if _, err := r.s.Reload(t.Context(), dry); err == nil || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("dry %v: %v, want %s", dry, err, tt.says)
					}
				}
				synctest.Wait()
				if after := r.runs(); !slices.Equal(after, before) || len(r.made) != 3 || r.s.file != file {
					t.Errorf("runs %v, before %v", after, before)
				}
			})
		})
	}
}
