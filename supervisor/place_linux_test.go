package supervisor

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// place is where a viscript may find itself.
type place struct {
	name    string
	command func(w *world) *exec.Cmd // becomes the viscript
}

// places are with cgroups, on a kernel without, and as a user who may not make any. All but the first need root to arrange.
var places = []place{
	{"cgroup", func(w *world) *exec.Cmd { return exec.Command(w.config.Self) }},
	{"no cgroup", func(w *world) *exec.Cmd {
		return exec.Command("unshare", "-m", "--propagation", "private", "sh", "-c", `mount -t tmpfs none /sys/fs/cgroup && exec "$0"`, w.config.Self)
	}},
	{"plain user", func(w *world) *exec.Cmd {
		w.give(nobody)
		c := exec.Command(w.config.Self)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return c
	}},
}

const nobody = 65534

// everywhere runs f with a viscript in each place.
func everywhere(t *testing.T, yaml string, f func(t *testing.T, w *world, where string)) {
	t.Helper()
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			if os.Geteuid() != 0 && p.name != "cgroup" {
				t.Skip("needs root")
			}
			w := newWorld(t, yaml)
			d := w.daemonBy(p.command(w))
			t.Cleanup(func() {
				d.Process.Kill()
				d.Wait()
			})
			eventually(t, func() error { return asked(t.Context(), w.config.RunDir, "viscript.status", nil, nil) })
			f(t, w, p.name)
		})
	}
}

// give hands the folders of a world to another user, with a copy of the program, which lies where he can't reach.
func (w *world) give(uid int) {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "visc")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	to := filepath.Join(dir, "self")
	text, err := os.ReadFile(w.config.File)
	if err != nil {
		w.t.Fatal(err)
	}
	text = []byte(strings.ReplaceAll(string(text), w.config.Self, to))
	if err := errors.Join(copyFile(w.config.Self, to), os.WriteFile(w.config.File, text, 0o600), os.Chmod(dir, 0o755)); err != nil {
		w.t.Fatal(err)
	}
	w.config.Self = to
	for _, path := range []string{w.dir, w.config.File} {
		if err := os.Chown(path, uid, uid); err != nil {
			w.t.Fatal(err)
		}
	}
}

// copyFile copies in a process of its own: a child that another test starts meanwhile would hold the new program open for writing.
func copyFile(from, to string) error {
	out, err := exec.Command("cp", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return os.Chmod(to, 0o755)
}

// ofRun counts the processes that descend from the apps of a viscript, by what their environment says of its folder: the
// supervisor does not look at that.
func (w *world) ofRun() (pids []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && slices.Contains(strings.Split(string(b), "\x00"), "SKYWIRE_RUN="+w.config.RunDir) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// TestPlaces: the places are what their names say.
func TestPlaces(t *testing.T) {
	t.Parallel()
	everywhere(t, "apps: {a: {path: /bin/sleep, default_args: [1000]}}\n", func(t *testing.T, w *world, where string) {
		ask := func(method string, p, result any) {
			t.Helper()
			if err := asked(t.Context(), w.config.RunDir, method, p, result); err != nil {
				t.Fatal(err)
			}
		}
		var st Started
		var it Item
		ask("viscript.start", params{App: "a"}, &st)
		var list []Item
		ask("viscript.ps", nil, &list)
		if it = list[0]; it.PID == nil {
			t.Fatalf("%+v", it)
		}
		group, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", *it.PID))
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", *it.PID))
		switch grouped := strings.Contains(string(group), "/viscript-"); {
		case grouped && where != "cgroup":
			t.Errorf("cgroup %s", group)
		case !grouped && where == "cgroup":
			t.Log("no writable cgroup v2 here: trees are held as on a kernel without")
		}
		if strings.Contains(string(status), "Uid:\t65534\t") != (where == "plain user") {
			t.Errorf("%s", status)
		}
		ask("viscript.stop", params{ID: "a"}, nil)
	})
}
