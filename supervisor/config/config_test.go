package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shared finds the fixtures beside the repository, or skips.
func shared(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SKYWIRE_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	path := filepath.Join(dir, "testdata", name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no fixture (set SKYWIRE_SHARED): %v", err)
	}
	return path
}

func TestFileOf2017(t *testing.T) {
	t.Parallel()
	f, err := Load(shared(t, "viscript-2017-config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Apps) != 6 || !f.Settings.VerifyParsingByPrinting || f.Settings.RunHeadless {
		t.Errorf("apps %d, settings %+v", len(f.Apps), f.Settings)
	}
	a := f.Apps["meshnet-socks-server"]
	if !a.Daemon || a.Path != "bin/meshnet/meshnet-run-socks-server" || a.Restart != OnFailure || len(a.DefaultArgs) != 0 {
		t.Errorf("socks server: %+v", a)
	}
	if !strings.Contains(a.Help, "start meshnet-socks-server sockssrv0 101.202.34.56:9000 8001\n") {
		t.Errorf("help: %q", a.Help)
	}
	if err := f.CheckSections(nil); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	f, err := Parse([]byte(`
apps:
  node:
    path: node
    default_args: [run, --mtu, 1400, yes, 0x10]
    autostart: true
    env: {A: 1}
    stop_timeout: 3s
    restart_delay: 0.5
  echo: {path: /bin/echo, restart: always, restart_max_delay: 2m, log_bytes: 1000}
node:
  name: box
`))
	if err != nil {
		t.Fatal(err)
	}
	n := f.Apps["node"]
	if strings.Join(n.DefaultArgs, " ") != "run --mtu 1400 yes 0x10" || n.Env["A"] != "1" || n.Restart != OnFailure ||
		time.Duration(n.StopTimeout) != 3*time.Second || time.Duration(n.Delay) != 500*time.Millisecond || n.LogBytes != DefaultLogBytes {
		t.Errorf("%+v", n)
	}
	if e := f.Apps["echo"]; e.Restart != Always || time.Duration(e.MaxDelay) != 2*time.Minute || time.Duration(e.StopTimeout) != DefaultStop {
		t.Errorf("%+v", e)
	}
	section := struct{ Name, Listen string }{Listen: ":1"}
	if err := f.Section("node", &section); err != nil || section.Name != "box" || section.Listen != ":1" {
		t.Errorf("%+v, %v", section, err)
	}
	if err := f.Section("absent", &section); err != nil {
		t.Error(err)
	}
}

func TestErrorsNameLineAndRemedy(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"typo", "apps:\n  a:\n    path: x\n    deamon: true\n", `line 4: unknown key "deamon" in apps.a, did you mean "daemon"?`},
		{"case", "settings:\n  runheadless: true\n", `did you mean "runHeadless"?`},
		{"nothing near", "settings:\n  xyzzy: 1\n", `line 2: unknown key "xyzzy" in settings`},
		{"type", "apps:\n  a:\n    path: x\n    daemon: maybe\n", "line 4: cannot unmarshal"},
		{"no path", "apps:\n  a:\n    daemon: true\n", "line 2: apps.a: path is missing"},
		{"empty app", "apps:\n  a:\n", "apps.a is empty"},
		{"restart", "apps:\n  a: {path: x, restart: sometimes}\n", "expected never, on-failure or always"},
		{"duration", "apps:\n  a:\n    path: x\n    stop_timeout: soon\n", `line 4: "soon" is no duration`},
		{"number as name", "apps:\n  3: {path: x}\n", "is not a number"},
		{"hash in name", "apps:\n  'a#1': {path: x}\n", "a name is made of"},
		{"twice", "apps: {}\napps: {}\n", `line 2: "apps" is there twice`},
		{"app twice", "apps:\n  a: {path: x}\n  a: {path: y}\n", "already defined"},
		{"list", "- a\n", "line 1: expected keys"},
		{"tab", "apps:\n\ta: 1\n", "line 2"},
		{"documents", "apps: {}\n---\napps: {}\n", "more than one document"},
		{"legacy", "apps:\n  a: {path: x, legacy: true}\n", "line 2: apps.a: legacy needs settings.signal_tcp"},
		{"operator by name", "settings:\n  remote: {operate: [boss]}\n", `"boss" is no key, and who may operate or admin is named by key`},
		{"admin by short key", "settings:\n  remote: {admin: [abcdefghijklmnopqrst]}\n", "is no key"},
		{"anybody as operator", "settings:\n  remote: {operate: [any]}\n", "any may read at most"},
		{"inproc env", "apps:\n  a: {path: node, inproc: true, env: {A: b}}\n", "env has no effect"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.text))
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	f, err := Parse([]byte("noed:\n  a: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.CheckSections([]string{"node"}); err == nil || !strings.Contains(err.Error(), `line 1: unknown section "noed", did you mean "node"?`) {
		t.Errorf("got %v", err)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := Load(path); err != nil || len(f.Apps) != 0 || f.Path != path {
		t.Errorf("%+v, %v", f, err)
	}
	if err := os.WriteFile(path, make([]byte, MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("apps:\n  a: {path: x, default_args: [1, b], env: {A: b}, stop_timeout: 3s}\nsettings: {runHeadless: true}\n"))
	f.Add([]byte("a: &a {<<: *a}\n"))
	f.Add([]byte("apps: &x\n  a: *x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Parse(b)
		if err != nil {
			return
		}
		for name, a := range file.Apps {
			if a.Name != name || a.Path == "" || a.LogBytes <= 0 {
				t.Errorf("incomplete app %+v", a)
			}
		}
	})
}
