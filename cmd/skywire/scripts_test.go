package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// dialect is how shellcheck is to read a file, by its first line and, for scripts of busybox's shell and files without a first line,
// by where it lies; empty: it is no script.
func dialect(path string, text []byte) string {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	line := string(first)
	switch {
	case !strings.HasPrefix(line, "#!") && filepath.Ext(path) != ".sh":
		return ""
	case strings.Contains(path, "openwrt/"), strings.Contains(line, "rc.common"):
		return "ash" // busybox's
	case strings.Contains(line, "bash"):
		return "bash"
	case strings.Contains(line, "openrc-run"):
		return "sh"
	case strings.HasSuffix(line, "/sh"), !strings.HasPrefix(line, "#!"):
		return "sh"
	}
	return "" // another language
}

// TestShellScripts has shellcheck read every shell script of the tree.
func TestShellScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is missing (apt-get install shellcheck)")
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "ls-files", "-co", "--exclude-standard").Output()
	if err != nil {
		t.Skip("no list of the tree's files: ", err)
	}
	found := map[string]bool{}
	for path := range strings.Lines(string(out)) {
		path = strings.TrimSuffix(path, "\n")
		if strings.HasSuffix(path, ".go") || strings.Contains(path, "node_modules/") {
			continue
		}
		full := filepath.Join("../..", path)
		if i, err := os.Lstat(full); err != nil || !i.Mode().IsRegular() || i.Size() > 1<<20 {
			continue
		}
		text, err := os.ReadFile(full)
		if err != nil {
			t.Fatal(err)
		}
		shell := dialect(path, text)
		if shell == "" {
			continue
		}
		found[path] = true
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			// SC1091: files that are read at run time lie elsewhere. SC2034, SC2154: an init script's variables are read and set by
			// rc.common and openrc-run. SC3043: local, which dash and busybox have.
			c := exec.CommandContext(t.Context(), "shellcheck", "-s", shell, "-e", "SC1091,SC2034,SC2154,SC3043", full)
			if out, err := c.CombinedOutput(); err != nil {
				t.Errorf("as %s: %v\n%s", shell, err, out)
			}
		})
	}
	for _, path := range []string{"packaging/build", "packaging/debian/postinst", "packaging/openwrt/files/skywire.init", "packaging/openrc/skywire.initd", ".ci/run"} {
		if !found[path] {
			t.Errorf("%s was not read", path)
		}
	}
}
