package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeRelease puts the binary under test into a folder as a release.
func makeRelease(t *testing.T, dir string) {
	t.Helper()
	bin, err := builtBinary()
	must(t, err)
	must(t, os.MkdirAll(dir, 0o755))
	copyFile(t, bin, filepath.Join(dir, "skywire-linux-"+runtime.GOARCH))
	c := exec.CommandContext(t.Context(), "../../packaging/release", "e2e", dir, bin)
	c.Env = append(os.Environ(), "SBOM=none", "SOURCE_DATE_EPOCH=1700000000", "RELEASE_KEY=", "GOFLAGS=")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("packaging/release: %v\n%s", err, out)
	}
}

// installRoot is a system that install.sh runs in: busybox alone, or a copy of this machine.
type installRoot struct {
	t     *testing.T
	dir   string
	shell []string
}

func (r *installRoot) path(name string) string { return filepath.Join(r.dir, name) }

// write makes a file, as a shim that notes how it was called if text is empty.
func (r *installRoot) write(name, text string) {
	r.t.Helper()
	if text == "" {
		text = "#!/bin/sh\necho \"${0##*/} $*\" >>/calls\n"
	}
	must(r.t, os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	must(r.t, os.RemoveAll(r.path(name)))
	must(r.t, os.WriteFile(r.path(name), []byte(text), 0o755))
}

// run runs install.sh and wants the exit status.
func (r *installRoot) run(want int, args ...string) string {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	words := append(append([]string{r.dir}, r.shell...), append([]string{"/release/install.sh"}, args...)...)
	c := exec.CommandContext(ctx, "chroot", words...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TMPDIR=/tmp"}
	out, err := c.CombinedOutput()
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		r.t.Fatal(err)
	}
	if got != want {
		r.t.Fatalf("install.sh %v: status %d, want %d\n%s", args, got, want, out)
	}
	return string(out)
}

// tree is what lies in the folders that install.sh may touch.
func (r *installRoot) tree() string {
	r.t.Helper()
	var all []string
	for _, top := range []string{"usr/local", "etc/systemd/system", "etc/init.d", "etc/sv", "etc/service", "etc/skywire", "var/lib/skywire", "opt"} {
		_ = filepath.WalkDir(r.path(top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			i, err := d.Info()
			must(r.t, err)
			line := fmt.Sprintf("%s %s", strings.TrimPrefix(path, r.dir), i.Mode())
			if to, err := os.Readlink(path); err == nil {
				line += " -> " + to
			} else if b, err := os.ReadFile(path); err == nil {
				line += fmt.Sprintf(" %x", sha256.Sum256(b))
			}
			all = append(all, line)
			return nil
		})
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

func (r *installRoot) calls() string {
	b, err := os.ReadFile(r.path("calls"))
	if err != nil {
		return ""
	}
	_ = os.Remove(r.path("calls"))
	return string(b)
}

// busyboxRoot is a system of busybox and nothing else.
func busyboxRoot(t *testing.T) *installRoot {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("busybox is missing (apt-get install busybox-static)")
	}
	r := &installRoot{t: t, dir: t.TempDir(), shell: []string{"/bin/busybox", "sh"}}
	for _, d := range []string{"bin", "sbin", "usr/bin", "tmp", "etc", "root", "dev"} {
		must(t, os.MkdirAll(r.path(d), 0o755))
	}
	copyFile(t, busybox, r.path("bin/busybox"))
	must(t, os.Chmod(r.path("bin/busybox"), 0o755))
	must(t, unix.Mknod(r.path("dev/null"), unix.S_IFCHR|0o666, 1<<8|3))
	if out, err := exec.CommandContext(t.Context(), "chroot", r.dir, "/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		t.Fatalf("busybox --install: %v\n%s", err, out)
	}
	r.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
	r.proc()
	return r
}

// proc mounts /proc, where a program finds its own file.
func (r *installRoot) proc() {
	r.t.Helper()
	must(r.t, os.MkdirAll(r.path("proc"), 0o755))
	must(r.t, unix.Mount("proc", r.path("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, ""))
	at := r.path("proc")
	r.t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
}

// TestE2EInstall runs install.sh under each shell and init system: it changes nothing when dry, nothing at all where a file is somebody
// else's or not the one of SHA256SUMS, installs, installs again, and takes away what it brought.
func TestE2EInstall(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: chroot")
	}
	t.Parallel()
	release := filepath.Join(t.TempDir(), "release")
	makeRelease(t, release)
	for _, c := range []struct {
		init    string
		prepare func(t *testing.T) *installRoot
		file    string // of the service
		content string // in it
		calls   string // of an installation
		stopped string // when it is taken away
	}{
		{"systemd", systemdRoot, "etc/systemd/system/skywire-node.service", "ExecStart=/usr/local/bin/skywire-node run", "systemctl enable --now skywire-node.service", "systemctl disable --now skywire-node.service"},
		{"openrc", openrcRoot, "etc/init.d/skywire", `command="/usr/local/bin/viscript"`, "rc-update add skywire default\nrc-service skywire restart", "rc-service skywire stop\nrc-update del skywire default"},
		{"procd", procdRoot, "etc/init.d/skywire", "command /usr/local/bin/viscript run --headless", "rc.common /etc/init.d/skywire enable\nrc.common /etc/init.d/skywire restart", "rc.common /etc/init.d/skywire stop"},
		{"runit", runitRoot, "etc/sv/skywire/run", "exec /usr/local/bin/viscript run --headless", "", "sv down skywire"},
		{"none", busyboxRoot, "", "", "", ""},
	} {
		t.Run(c.init, func(t *testing.T) {
			t.Parallel()
			r := c.prepare(t)
			r.t = t
			must(t, os.CopyFS(r.path("release"), os.DirFS(release)))
			r.write("usr/local/bin/other", "#!/bin/sh\n")
			before := r.tree()
			r.run(2, "--nonsense")
			if out := r.run(0, "--dry-run"); c.file != "" && !strings.Contains(out, "/"+c.file) {
				t.Errorf("a dry run does not speak of %s:\n%s", c.file, out)
			}
			r.unchanged(before, "a dry run")
			if got := r.calls(); got != "" {
				t.Errorf("a dry run calls %q", got)
			}
			foreign := "usr/local/bin/viscript"
			r.write(foreign, "#!/bin/sh\n")
			r.run(1)
			must(t, os.Remove(r.path(foreign)))
			if c.file != "" {
				r.write(c.file, "of somebody else\n")
				r.run(1)
				must(t, os.Remove(r.path(c.file)))
				damaged := r.path("release/files/config.yaml")
				text := readFile(t, damaged)
				must(t, os.WriteFile(damaged, append(text, '#'), 0o644))
				r.run(1)
				must(t, os.WriteFile(damaged, text, 0o644))
			}
			r.unchanged(before, "a refusal")

			r.run(0)
			if c.file != "" && !strings.Contains(string(readFile(t, r.path(c.file))), c.content) {
				t.Errorf("%s lacks %q:\n%s", c.file, c.content, readFile(t, r.path(c.file)))
			}
			if got := r.calls(); !strings.Contains(got, c.calls) {
				t.Errorf("calls %q, want %q", got, c.calls)
			}
			out, err := exec.CommandContext(t.Context(), "chroot", r.dir, "/usr/local/bin/viscript", "--help").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "viscript") {
				t.Errorf("viscript --help: %v\n%s", err, out)
			}
			installed := r.tree()
			r.run(0)
			r.unchanged(installed, "a second installation")
			r.calls()

			must(t, os.MkdirAll(r.path("var/lib/skywire"), 0o755))
			r.write("var/lib/skywire/node.key", "secret")
			r.run(0, "--uninstall", "--dry-run")
			r.run(0, "--uninstall")
			if got := r.calls(); !strings.Contains(got, c.stopped) {
				t.Errorf("taken away with %q, want %q", got, c.stopped)
			}
			kept := regexp.MustCompile(`^/(etc/skywire/config\.yaml|var/lib/skywire/node\.key) `)
			for line := range strings.Lines(r.tree()) {
				if !strings.Contains(before, strings.TrimSpace(line)) && !kept.MatchString(line) {
					t.Errorf("taken away, and still there: %s", line)
				}
			}
			r.run(1, "--uninstall")
			r.run(0)
			r.run(0, "--uninstall", "--purge")
			r.unchanged(before, "an installation and a purge")
		})
	}
}

func (r *installRoot) unchanged(before, what string) {
	r.t.Helper()
	if after := r.tree(); after != before {
		r.t.Fatalf("%s changes something: before\n%s\nafter\n%s", what, before, after)
	}
}

func systemdRoot(t *testing.T) *installRoot {
	t.Helper()
	if _, err := exec.LookPath("dash"); err != nil {
		t.Skip("dash is missing")
	}
	r := &installRoot{t: t, dir: overlay(t, t.TempDir()), shell: []string{"dash"}}
	must(t, os.MkdirAll(r.path("run/systemd/system"), 0o755))
	for _, left := range []string{"usr/local", "etc/systemd/system", "etc/init.d", "opt"} { // of this machine
		must(t, os.RemoveAll(r.path(left)))
	}
	r.write("usr/bin/systemctl", "")
	r.proc()
	return r
}

func openrcRoot(t *testing.T) *installRoot {
	t.Helper()
	r := busyboxRoot(t)
	for _, name := range []string{"sbin/openrc-run", "sbin/rc-update", "sbin/rc-service"} {
		r.write(name, "")
	}
	return r
}

func procdRoot(t *testing.T) *installRoot {
	t.Helper()
	r := busyboxRoot(t)
	r.write("etc/rc.common", "")
	r.write("sbin/procd", "")
	return r
}

func runitRoot(t *testing.T) *installRoot {
	t.Helper()
	r := busyboxRoot(t)
	must(t, os.MkdirAll(r.path("etc/runit"), 0o755))
	must(t, os.MkdirAll(r.path("etc/service"), 0o755))
	r.write("bin/sv", "")
	return r
}
