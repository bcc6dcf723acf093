package supervisor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPrivileges: an app has the capabilities that its entry names, and no others; set-user-id programs give it nothing.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to have privileges to take away")
	}
	w := newWorld(t, `apps:
  all:    {path: sh, default_args: [-c, "grep -E 'Cap|NoNew' /proc/self/status"]}
  two:    {path: sh, default_args: [-c, "grep -E 'Cap|NoNew' /proc/self/status"], caps: [net_admin, CAP_CHOWN], no_new_privs: true}
  none:   {path: sh, default_args: [-c, "grep -E 'Cap|NoNew' /proc/self/status"], caps: []}
  nobody: {path: sh, default_args: [-c, "grep -E 'Cap|NoNew' /proc/self/status"], user: "65534", caps: [net_admin]}
`)
	if err := os.Chmod(w.dir, 0o711); err != nil { // where nobody starts
		t.Fatal(err)
	}
	s, _ := w.run()
	status := func(app string) map[string]string {
		id := s.mustStart(t, app)
		for stateOf(t, s, id).State != Exited {
			time.Sleep(5 * time.Millisecond)
		}
		out := map[string]string{}
		for _, l := range linesOf(t, s, id) {
			k, v, _ := strings.Cut(l, ":")
			out[k] = strings.TrimSpace(v)
		}
		return out
	}
	const chownAndNetAdmin, netAdmin, nothing = "0000000000001001", "0000000000001000", "0000000000000000"
	if all := status("all"); all["NoNewPrivs"] != "0" || all["CapBnd"] == nothing || all["CapEff"] != all["CapBnd"] {
		t.Errorf("all: %v", all)
	}
	if two := status("two"); two["NoNewPrivs"] != "1" || two["CapBnd"] != chownAndNetAdmin || two["CapEff"] != chownAndNetAdmin {
		t.Errorf("two: %v", two)
	}
	if none := status("none"); none["CapBnd"] != nothing || none["CapEff"] != nothing {
		t.Errorf("none: %v", none)
	}
	if nobody := status("nobody"); nobody["CapEff"] != netAdmin || nobody["CapAmb"] != netAdmin || nobody["CapBnd"] != netAdmin {
		t.Errorf("nobody: %v", nobody)
	}
	if all := status("all"); all["CapEff"] == nothing || all["NoNewPrivs"] != "0" {
		t.Errorf("viscript lost its own: %v", all)
	}
}

// TestSecrets: a secret is a file that its app alone can read, new at each start, in no environment, and gone with the app.
func TestSecrets(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to run an app as somebody else")
	}
	w := newWorld(t, `apps:
  a: {path: sh, user: "65534", secrets: {pass: "pass.txt"}, default_args: [-c, "cat $CREDENTIALS_DIRECTORY/pass; env; stat -c %a:%u $CREDENTIALS_DIRECTORY $CREDENTIALS_DIRECTORY/pass; exec sleep 1000"]}
  b: {path: sh, secrets: {pass: nosuch}}
`)
	if err := os.Chmod(w.dir, 0o711); err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		if err := os.WriteFile(filepath.Join(w.dir, "pass.txt"), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("first-hunter2")
	s, _ := w.run()
	if err := os.Chmod(w.config.RunDir, 0o711); err != nil {
		t.Fatal(err)
	}
	id := s.mustStart(t, "a")
	shows := func(want ...string) {
		t.Helper()
		eventually(t, func() error {
			text := strings.Join(linesOf(t, s, id), "\n")
			for _, w := range want {
				if !strings.Contains(text, w) {
					return fmt.Errorf("%q is not in\n%s", w, text)
				}
			}
			if strings.Count(text, "hunter2") != strings.Count(text, "-hunter2\n") {
				return fmt.Errorf("a secret in the environment: %s", text)
			}
			return nil
		})
	}
	shows("first-hunter2\n", "700:65534\n400:65534", "CREDENTIALS_DIRECTORY="+s.secretDir(id))
	put("second-hunter2")
	if _, err := s.Restart(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	shows("second-hunter2\n")
	if _, err := s.Stop(t.Context(), "1", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.secretDir(id)); !os.IsNotExist(err) {
		t.Errorf("secret after the end: %v", err)
	}
	if _, err := s.Start(t.Context(), "b", nil, nil); err == nil || !strings.Contains(err.Error(), "secret pass") {
		t.Errorf("without its file: %v", err)
	}
}

// linesOf are the lines that an app has printed.
func linesOf(t *testing.T, s *Supervisor, id uint64) []string {
	t.Helper()
	var texts []string
	if err := s.do(t.Context(), func() error {
		lines, _ := s.table[id].out.ring.From(0, 0)
		for _, l := range lines {
			if l.Stream != streamNote {
				texts = append(texts, l.Text)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return texts
}
