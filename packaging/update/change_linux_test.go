package update

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is a script that stands for a version of skywire; a bad one runs, and is no good as a service.
func program(version, state string) []byte {
	return []byte(fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = --version ]; then echo %s; else echo %s; fi\n", version, state))
}

// patientRun is Run, again while a test beside this one holds the file open: a process between fork and exec has all descriptors.
func patientRun(ctx context.Context, path string, args ...string) (string, error) {
	for {
		out, err := Run(ctx, path, args...)
		if !errors.Is(err, syscall.ETXTBSY) || ctx.Err() != nil {
			return out, err
		}
	}
}

// fakeService runs the program at each Restart, and is as well as what that printed.
type fakeService struct {
	program  string
	says     string
	restarts int
	broken   error
}

func (s *fakeService) Restart(ctx context.Context) error {
	s.restarts++
	out, err := patientRun(ctx, s.program, "run")
	s.says = out
	return errors.Join(err, s.broken)
}

func (s *fakeService) Healthy(ctx context.Context, version string) error {
	v, err := patientRun(ctx, s.program, "--version")
	if err != nil {
		return err
	}
	if v != version {
		return fmt.Errorf("runs %s, not %s", v, version)
	}
	if s.says != "well" {
		return fmt.Errorf("it is %s", s.says)
	}
	return nil
}

// box is a box with version 1.0 and a release beside it.
type box struct {
	*Changer
	service *fakeService
	release Folder
	m       Manifest
	f       File
}

func newBox(t testing.TB, dir string, version string, next []byte) *box {
	t.Helper()
	path := filepath.Join(dir, "bin", "skywire")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.MkdirAll(filepath.Join(dir, "release"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, program("1.0", "well"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := &box{service: &fakeService{program: path}, release: Folder(filepath.Join(dir, "release"))}
	b.m, b.f = writeRelease(t, string(b.release), newKey(t), version, next)
	b.Changer = &Changer{
		Program: path, State: filepath.Join(dir, "state"), Current: "1.0", Gate: 1200 * time.Millisecond, Settle: 400 * time.Millisecond,
		Free:      func(string) (uint64, error) { return 1 << 40, nil },
		VersionOf: func(ctx context.Context, p string) (string, error) { return patientRun(ctx, p, "--version") },
		Lock:      func() (func(), error) { return func() {}, nil },
		Talk:      t.Logf,
	}
	return b
}

func (b *box) apply(t testing.TB, force bool) error {
	return b.Apply(t.Context(), b.release, b.m, b.f, b.service, json.RawMessage(`{}`), force)
}

// runs is what the program at path says it is.
func runs(t testing.TB, path string) string {
	t.Helper()
	v, err := patientRun(t.Context(), path, "--version")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func journal(t testing.TB, b *box) Journal {
	t.Helper()
	j, err := ReadJournal(b.State)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestApply(t *testing.T) {
	t.Parallel()
	b := newBox(t, t.TempDir(), "1.1", program("1.1", "well"))
	if err := b.apply(t, false); err != nil {
		t.Fatal(err)
	}
	j := journal(t, b)
	if got, old := runs(t, b.Program), runs(t, b.old()); got != "1.1" || old != "1.0" || j.Trial != nil || j.Last.Result != Applied || b.service.restarts != 1 {
		t.Fatalf("%s, %s kept, %d restarts, %+v", got, old, b.service.restarts, j)
	}
	if _, err := os.Stat(b.fresh()); !errors.Is(err, os.ErrNotExist) {
		t.Error("PROGRAM.new is left: ", err)
	}
	b.Current = "1.1"
	if err := b.Rollback(t.Context(), b.service, "1.0"); err != nil {
		t.Fatal(err)
	}
	if got := runs(t, b.Program); got != "1.0" {
		t.Errorf("rolled back to %s", got)
	}
	if err := b.Rollback(t.Context(), b.service, "1.0"); !errors.Is(err, ErrNothing) {
		t.Errorf("a second time: %v", err)
	}
	if err := b.apply(t, false); !errors.Is(err, ErrRejected) {
		t.Errorf("a version that was given up: %v", err)
	}
	if err := b.apply(t, true); err != nil {
		t.Errorf("by force: %v", err)
	}
	if j := journal(t, b); len(j.Rejected) != 0 {
		t.Errorf("it is good now, and still rejected: %v", j.Rejected)
	}
}

// TestReturn: new versions that are no good, each in its own way, leave the old one running.
func TestReturn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		next    []byte
		broken  error
		want    error
		changed bool // the new one was in place for a while
	}{
		"never well":     {program("1.1", "poorly"), nil, ErrReturned, true},
		"exits":          {[]byte("#!/bin/sh\n[ \"$1\" = --version ] && echo 1.1 && exit\nexit 1\n"), nil, ErrReturned, true},
		"no restart":     {program("1.1", "well"), errors.New("systemd is on strike"), ErrReturned, true},
		"no program":     {[]byte("not a program at all"), nil, nil, false},
		"another":        {program("1.2", "well"), nil, ErrFile, false},
		"exits at once":  {[]byte("#!/bin/sh\nexit 1\n"), nil, nil, false},
		"foreign format": {append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 100)...), nil, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBox(t, t.TempDir(), "1.1", c.next)
			b.service.broken = c.broken
			err := b.apply(t, false)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("apply: %v, want %v", err, c.want)
			}
			if got := runs(t, b.Program); got != "1.0" {
				t.Errorf("%s is in place", got)
			}
			if j := journal(t, b); j.Trial != nil || c.changed != (len(j.Rejected) == 1) {
				t.Errorf("%+v", j)
			}
			if want := map[bool]int{true: 2}[c.changed]; b.service.restarts != want {
				t.Errorf("%d restarts, want %d", b.service.restarts, want)
			}
			if _, err := os.Stat(b.fresh()); !errors.Is(err, os.ErrNotExist) {
				t.Error("PROGRAM.new is left: ", err)
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	b := newBox(t, t.TempDir(), "1.1", program("1.1", "well"))
	b.Free = func(string) (uint64, error) { return 1000, nil }
	if err := b.apply(t, false); !errors.Is(err, ErrSpace) {
		t.Errorf("no space: %v", err)
	}
	b.Free = func(string) (uint64, error) { return 0, errors.ErrUnsupported }
	name := filepath.Join(string(b.release), b.f.Name)
	for what, text := range map[string]string{"shorter": "#!/bin/sh\n", "other": strings.Repeat("x", int(b.f.Size)), "longer": strings.Repeat("x", int(b.f.Size)+9)} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := b.apply(t, false); !errors.Is(err, ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := b.apply(t, false); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	b.Lock = func() (func(), error) { return nil, ErrPending }
	if err := b.apply(t, false); !errors.Is(err, ErrPending) {
		t.Error(err)
	}
	if runs(t, b.Program) != "1.0" || b.service.restarts != 0 {
		t.Error("something was changed")
	}
}

// cutAt tells the helper process at which step it is to be killed, and where its box is.
const cutAt, cutDir, cutBad = "UPDATE_CUT_AT", "UPDATE_CUT_DIR", "UPDATE_CUT_BAD"

// TestCutHelper is no test: TestCut runs it in a process of its own, which kills itself in the middle.
func TestCutHelper(t *testing.T) {
	dir := os.Getenv(cutDir)
	if dir == "" {
		return
	}
	state := map[bool]string{true: "poorly", false: "well"}[os.Getenv(cutBad) != ""]
	b := newBox(t, dir, "1.1", program("1.1", state))
	b.step = func(name string) {
		if name == os.Getenv(cutAt) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	_ = b.apply(t, false)
}

// TestCut kills the change at every step. After each there is a whole program in place, and Resume, as at the start of the box,
// brings it to an end: the new version if that is well, the old one if it is not.
func TestCut(t *testing.T) {
	t.Parallel()
	steps := []struct {
		name string
		bad  bool
		want string // after Resume
	}{
		{"fetching", false, "1.0"},
		{"staged", false, "1.0"},
		{"kept", false, "1.0"},
		{"noted", false, "1.0"},
		{"changed", false, "1.1"},
		{"restarted", false, "1.1"},
		{"judged", false, "1.1"},
		{"changed", true, "1.0"},
		{"restarted", true, "1.0"},
		{"judged", true, "1.0"},
		{"verdict", true, "1.0"},
		{"back", true, "1.0"},
		{"back and restarted", true, "1.0"},
	}
	for _, s := range steps {
		t.Run(fmt.Sprint(s.name, s.bad), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			newBox(t, dir, "1.1", program("1.1", "well"))
			c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCutHelper$")
			c.Env = append(os.Environ(), cutAt+"="+s.name, cutDir+"="+dir)
			if s.bad {
				c.Env = append(c.Env, cutBad+"=1")
			}
			out, err := c.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the helper was not killed at %q: %v\n%s", s.name, err, out)
			}
			state := map[bool]string{true: "poorly", false: "well"}[s.bad]
			b := newBox(t, dir, "1.1", program("1.1", state))
			if v := runs(t, b.Program); v != "1.0" && v != "1.1" {
				t.Fatalf("after the cut it says %q", v)
			}
			if _, err := b.Resume(t.Context(), func(before json.RawMessage) Service { return b.service }); err != nil && !errors.Is(err, ErrReturned) {
				t.Error(err)
			}
			j := journal(t, b)
			if got := runs(t, b.Program); got != s.want || j.Trial != nil {
				t.Errorf("after resume: %s, want %s; %+v", got, s.want, j)
			}
			if bad := s.bad && len(j.Rejected) != 1; bad {
				t.Errorf("the bad version is not remembered: %+v", j)
			}
			for _, left := range []string{b.fresh(), b.Program + ".part", b.old() + ".part"} {
				if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s is left: %v", left, err)
				}
			}
			if again, err := b.Resume(t.Context(), nil); again || err != nil {
				t.Errorf("a second resume: %v, %v", again, err)
			}
		})
	}
}

// TestCutAgain: a version that takes the box down each time it is looked at is given up.
func TestCutAgain(t *testing.T) {
	t.Parallel()
	b := newBox(t, t.TempDir(), "1.1", program("1.1", "well"))
	b.step = func(name string) {
		if name == "restarted" {
			panic("cut")
		}
	}
	cut := func(do func()) {
		defer func() { _ = recover() }()
		do()
	}
	cut(func() { _ = b.apply(t, false) })
	for range maxResumes {
		cut(func() { _, _ = b.Resume(t.Context(), func(json.RawMessage) Service { return b.service }) })
		if j := journal(t, b); j.Trial == nil {
			t.Fatalf("%+v", j)
		}
	}
	if _, err := b.Resume(t.Context(), func(json.RawMessage) Service { return b.service }); !errors.Is(err, ErrReturned) {
		t.Error(err)
	}
	if got := runs(t, b.Program); got != "1.0" {
		t.Errorf("%s is in place", got)
	}
}

func TestKeepWithoutLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, []byte("program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(from, to); err != nil {
		t.Fatal(err)
	}
	i, err := os.Stat(to)
	if err != nil || i.Mode().Perm() != 0o755 || i.Size() != 7 {
		t.Errorf("%v, %v", i, err)
	}
}

// TestJournalIsNoOrder: the journal lies in a folder of a lesser user, who must not have root replace or write what he likes.
func TestJournalIsNoOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, t.TempDir(), "1.1", program("1.1", "well"))
	victim := filepath.Join(t.TempDir(), "victim")
	for _, name := range []string{victim, victim + ".old"} {
		if err := os.WriteFile(name, []byte(filepath.Base(name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	j := Journal{Trial: &Trial{From: "1.0", To: "1.1", Program: victim, Verdict: "bad", Result: Returned}}
	if err := j.write(b.State); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Resume(t.Context(), func(json.RawMessage) Service { return b.service }); err == nil || !strings.Contains(err.Error(), "speaks of") {
		t.Error(err)
	}
	path := filepath.Join(b.State, JournalName)
	for _, name := range []string{path, path + ".new"} {
		_ = os.Remove(name)
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := (Journal{}).write(b.State); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(victim); string(text) != "victim" {
		t.Errorf("the file of somebody else is %q now: %v", text, err)
	}
}

func TestJournalDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, JournalName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadJournal(dir); err == nil || !strings.Contains(err.Error(), "if it is removed") {
		t.Error(err)
	}
}
