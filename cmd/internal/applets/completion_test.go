//go:build !mini

package applets

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"skywire/cmd/internal/applet"
)

func testTable(t *testing.T) []completed {
	t.Helper()
	return completionTable(t.Context(), All(), Tools())
}

func TestCompletionSyntax(t *testing.T) {
	t.Parallel()
	for shell, print := range map[string]func(io.Writer, []completed){"bash": completeBash, "zsh": completeZsh, "fish": completeFish} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			print(&b, testTable(t))
			for _, want := range []string{"pass-file", "doctor", "skywire-socks"} {
				if !strings.Contains(b.String(), want) {
					t.Errorf("the script lacks %q", want)
				}
			}
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("needs %s", shell)
			}
			file := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(path, "-n", file).CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v\n%s", shell, err, out)
			}
		})
	}
}

// TestCompletionBash lets bash complete command lines with the script.
func TestCompletionBash(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	var script bytes.Buffer
	completeBash(&script, testTable(t))
	tests := []struct {
		line string // words; the last one is being completed, _ stands for an empty one
		want []string
		not  []string
	}{
		{"skywire so", []string{"socks"}, []string{"doctor"}},
		{"skywire _", []string{"socks", "doctor", "completion", "install-links"}, nil},
		{"skywire socks _", []string{"client", "server", "status", "servers"}, []string{"--json"}},
		{"skywire socks client --", []string{"--listen", "--pass-file", "--run", "--help"}, []string{"--allow", "client"}},
		{"/usr/bin/skywire-socks server --a", []string{"--allow", "--allow-private"}, []string{"--listen"}},
		{"skywire-socks --run /tmp server --per", []string{"--per-key"}, nil},
		{"skywire doctor --j", []string{"--json"}, nil},
		{"skywire completion _", []string{"bash", "zsh", "fish"}, nil},
		{"skywire socks client --pass-file /etc/host", []string{"/etc/hostname"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			t.Parallel()
			words := strings.Fields(strings.ReplaceAll(tt.line, "_", "''"))
			run := fmt.Sprintf("%s\nCOMP_WORDS=(%s)\nCOMP_CWORD=%d\n_skywire\nprintf '%%s\\n' \"${COMPREPLY[@]}\"\n",
				script.String(), strings.Join(words, " "), len(words)-1)
			c := exec.Command(bash, "--norc", "--noprofile")
			c.Stdin = strings.NewReader(run)
			out, err := c.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got := strings.Fields(string(out))
			for _, w := range tt.want {
				if !slices.Contains(got, w) {
					t.Errorf("got %q, want %q in it", got, w)
				}
			}
			for _, w := range tt.not {
				if slices.Contains(got, w) {
					t.Errorf("got %q with %q in it", got, w)
				}
			}
		})
	}
}

func TestCompletionUsage(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]int{"bash": 0, "zsh": 0, "fish": 0, "tcsh": 2, "": 2, "bash zsh": 2} {
		var out, talk bytes.Buffer
		e := &applet.Env{Args: strings.Fields(words), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk}
		if code := completionApplet().Run(t.Context(), e); code != want || (out.Len() > 0) != (want == 0) {
			t.Errorf("completion %s: status %d, want %d; stdout %d bytes, stderr %q", words, code, want, out.Len(), talk.String())
		}
	}
}
