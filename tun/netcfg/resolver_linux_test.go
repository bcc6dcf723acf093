package netcfg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file is replaced as a whole, a link stays one, rights stay.
func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(dir, "link")
	if err := os.WriteFile(real, []byte("before\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(link, "after\n"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(real)
	i, e := os.Lstat(link)
	r, e2 := os.Stat(real)
	if err != nil || e != nil || e2 != nil || string(b) != "after\n" || i.Mode()&os.ModeSymlink == 0 || r.Mode().Perm() != 0o640 {
		t.Errorf("%q %v %v %v %v", b, err, e, e2, r.Mode())
	}
	nowhere := filepath.Join(dir, "nowhere")
	if err := os.Symlink("made", nowhere); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(nowhere, "new\n"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "made")); err != nil || string(b) != "new\n" {
		t.Errorf("%q %v", b, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".skywire-*")); len(left) > 0 {
		t.Error(left)
	}
}

// A journal that a killed run left takes its lines out of the file, and nothing else.
func TestResolverTakesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "resolv.conf")
	text := withUs("nameserver 10.0.0.1\n", someDevice, true, everyName()) + "# of another\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, "dns-"+someDevice+".journal")
	j, _, err := openJournalAt(at, someDevice)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.add(entry{Kind: kindResolver, Resolver: &resolverChange{Back: BackFile, Path: path}}); err != nil {
		t.Fatal(err)
	}
	if left := ResolverLeftovers(dir); strings.Contains(strings.Join(left, " "), at) {
		t.Errorf("held by a run, and said to be left over: %v", left)
	}
	if err := j.remove(true); err != nil { // killed
		t.Fatal(err)
	}
	if left := ResolverLeftovers(dir); !strings.Contains(strings.Join(left, " "), at) {
		t.Errorf("not found: %v", left)
	}
	if j, _, err = openJournalAt(at, someDevice); err != nil {
		t.Fatal(err)
	}
	r := &Resolver{c: Config{Dir: dir, Device: someDevice}, j: j}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "nameserver 10.0.0.1\n# of another\n" {
		t.Errorf("%q %v", b, err)
	}
	if left := ResolverLeftovers(dir); strings.Contains(strings.Join(left, " "), at) {
		t.Errorf("taken back, and said to be left over: %v", left)
	}
}
