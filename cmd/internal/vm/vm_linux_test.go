package vm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, want string }{
		{"bin/busybox", "busybox"},
		{"usr/bin/busybox", "busybox"},
		{"boot/vmlinuz-6.1.0-50-arm64", "kernel"},
		{"usr/lib/modules/7.2.12+deb14-riscv64/vmlinuz", "kernel"},
		{"lib/modules/6.1.0-50-arm64/modules.builtin", "modules/6.1.0-50-arm64/modules.builtin"},
		{"lib/modules/6.1/kernel/drivers/net/tun.ko", "modules/6.1/tun.ko"},
		{"usr/lib/modules/7.2/kernel/net/netfilter/nf_tables.ko.xz", "modules/7.2/nf_tables.ko.xz"},
		{"lib/modules/6.1/kernel/drivers/gpu/drm/drm.ko", ""},
		{"usr/share/doc/x", ""},
		{"", ""},
	} {
		if got := place(c.in); got != c.want {
			t.Errorf("place(%q) is %q, want %q", c.in, got, c.want)
		}
	}
}

// TestArchive has cpio read what was written.
func TestArchive(t *testing.T) {
	t.Parallel()
	tool := "busybox"
	if _, err := exec.LookPath(tool); err != nil {
		t.Skip("busybox is missing (apt-get install busybox-static)")
	}
	var b bytes.Buffer
	a := newArchive(&b)
	a.file("bin/a", []byte("five!"))
	a.file("bin/deep/er/b", nil)
	a.file("/c", bytes.Repeat([]byte("x"), 4097))
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), tool, "cpio", "-idm")
	c.Dir, c.Stdin = t.TempDir(), &b
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, want := range map[string]int{"bin/a": 5, "bin/deep/er/b": 0, "c": 4097} {
		got, err := os.ReadFile(filepath.Join(c.Dir, name))
		if err != nil || len(got) != want {
			t.Errorf("%s: %d bytes, want %d: %v", name, len(got), want, err)
		}
	}
}

// TestArchiveError: the first error stays, whatever comes after.
func TestArchiveError(t *testing.T) {
	t.Parallel()
	a := newArchive(full{})
	a.file("a", []byte("b"))
	if err := a.close(); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestModulesOfNowhere(t *testing.T) {
	t.Parallel()
	s := &System{Version: "1", dir: t.TempDir()}
	dir := filepath.Join(s.dir, "modules", "1")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"modules.builtin": "kernel/net/ipv6/ipv6.ko\nkernel/fs/a-b.ko\n", "broken.ko": "no ELF"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.modules([]string{"ipv6", "a_b"}); err != nil || len(got) != 0 {
		t.Errorf("built in: %v, %v", got, err)
	}
	if _, err := s.modules([]string{"tun"}); err == nil || !strings.Contains(err.Error(), "no module tun") {
		t.Errorf("missing: %v", err)
	}
	if _, err := s.modules([]string{"broken"}); err == nil || !strings.Contains(err.Error(), "module broken") {
		t.Errorf("broken: %v", err)
	}
}

// TestListen: lines of the guest come out of the kernel's, and only Done means that it came to its end.
func TestListen(t *testing.T) {
	t.Parallel()
	var got []string
	m := &Machine{Line: func(l string) { got = append(got, l) }}
	done, tail := m.listen(strings.NewReader("booting\r\n[ 1.0] x @vm one\r\n\n@vm two\r\nlast\r\n"))
	if done || !slices.Equal(got, []string{"one", "two"}) || tail != "booting\n\nlast" {
		t.Errorf("%v %q %q", done, got, tail)
	}
	if done, _ := m.listen(strings.NewReader("@vm done\n")); !done {
		t.Error("not done")
	}
	if done, _ := m.listen(strings.NewReader(strings.Repeat("x", 3<<20) + "\n@vm done\n")); done {
		t.Error("a line without end was read")
	}
}
