package update

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skywire/mesh/key"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	// Each is older than the one after it.
	order := []string{"(devel)", "0.9", "v1.2.0-rc2", "1.2.0-rc10", "1.2", "v1.2.0-3-gabcdef0", "v1.2.0-10-gabcdef0", "1.2.1", "1.10", "2.0.0~beta", "2"}
	for i, a := range order {
		for j, b := range order {
			got := Compare(a, b)
			if got < 0 != (i < j) || got > 0 != (i > j) {
				t.Errorf("Compare(%q, %q) = %d", a, b, got)
			}
		}
	}
	for _, same := range [][2]string{{"1.2.0", "v1.2"}, {"1.2-dirty", "1.2"}, {"a9630d1", "(devel)"}, {"1.0+deb1", "1.0"}, {"0a9630d", "e2e"}} {
		if got := Compare(same[0], same[1]); got != 0 {
			t.Errorf("Compare(%q, %q) = %d", same[0], same[1], got)
		}
	}
}

func FuzzCompare(f *testing.F) {
	f.Add("1.2.0-rc1", "v1.2.0-3-gabc")
	f.Add("1.2.0", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := Compare(a, b), Compare(b, a)
		if (x < 0) != (y > 0) || (x == 0) != (y == 0) {
			t.Errorf("Compare(%q, %q) = %d, the other way %d", a, b, x, y)
		}
	})
}

// sample is a release with one program for "box".
func sample(version string, program []byte) (Manifest, File) {
	sum, _, _ := digestOf(program)
	f := File{Platform: "box", Name: "skywire-box", Size: int64(len(program)), SHA256: sum}
	return Manifest{Format: 1, Version: version, Time: time.Unix(1_700_000_000, 0).UTC(), Files: []File{f}}, f
}

func digestOf(b []byte) (string, int64, error) {
	dir, err := os.MkdirTemp("", "digest")
	if err != nil {
		return "", 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", 0, err
	}
	return digest(path)
}

func newKey(t testing.TB) *key.Private {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// writeRelease puts a signed release into dir.
func writeRelease(t testing.TB, dir string, k *key.Private, version string, program []byte) (Manifest, File) {
	t.Helper()
	m, f := sample(version, program)
	raw, err := m.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{ManifestName: raw, SignatureName: []byte(Sign(k, raw)), f.Name: program} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return m, f
}

func TestRelease(t *testing.T) {
	t.Parallel()
	dir, k, other := t.TempDir(), newKey(t), newKey(t)
	want, _ := writeRelease(t, dir, k, "1.2.0", []byte("program"))
	m, by, err := Release(t.Context(), Folder(dir), []key.Public{other.Public(), k.Public()})
	if err != nil || by != k.Public() || m.Version != want.Version || len(m.Files) != 1 || m.Files[0] != want.Files[0] {
		t.Fatalf("%+v by %v: %v", m, by, err)
	}
	if _, _, err := Release(t.Context(), Folder(dir), nil); !errors.Is(err, ErrNoKeys) {
		t.Errorf("without keys: %v", err)
	}
	if _, _, err := Release(t.Context(), Folder(dir), []key.Public{other.Public()}); !errors.Is(err, ErrSignature) {
		t.Errorf("signed by somebody else: %v", err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := os.ReadFile(filepath.Join(dir, SignatureName))
	if err != nil {
		t.Fatal(err)
	}
	trusted := []key.Public{k.Public()}
	for i := range raw {
		bad := []byte(string(raw))
		bad[i] ^= 1
		if _, err := Verify(bad, sig, trusted); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for i := range sig {
		bad := []byte(string(sig))
		bad[i] ^= 1
		if _, err := Verify(raw, bad, trusted); err == nil && strings.TrimSpace(string(bad)) != strings.TrimSpace(string(sig)) {
			// base64 has spare bits at its end; what decodes to the same signature is the same.
			if i < len(sig)-4 {
				t.Fatalf("byte %d of the signature changed, and it holds", i)
			}
		}
	}
	// A second key signs too, and either will do.
	both := append(append([]byte{}, sig...), Sign(other, raw)...)
	for _, one := range []*key.Private{k, other} {
		if _, err := Verify(raw, both, []key.Public{one.Public()}); err != nil {
			t.Error(err)
		}
	}
	// A signature of another kind is none of a release.
	wrong := other.Sign("record", key.NetworkID{}, raw)
	if other.Public().Verify(kind, key.NetworkID{}, raw, wrong[:]) {
		t.Error("a signature of a record passes for one of a release")
	}
}

func TestSuits(t *testing.T) {
	t.Parallel()
	m := Manifest{Version: "1.4.0", MinVersion: "1.2.0"}
	for current, want := range map[string]error{"1.3.9": nil, "1.2.0": nil, "1.1.9": ErrStep, "1.4.0": ErrNotNewer, "1.5.0": ErrNotNewer, "(devel)": ErrStep} {
		if err := m.Suits(current); !errors.Is(err, want) || (want == nil) != (err == nil) {
			t.Errorf("from %s: %v, want %v", current, err, want)
		}
	}
	if _, err := m.For("nothing"); !errors.Is(err, ErrPlatform) {
		t.Error(err)
	}
}

func FuzzParseManifest(f *testing.F) {
	m, _ := sample("1.0", []byte("x"))
	raw, err := m.Append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"format":1,"version":"1","files":[{"platform":"a","name":"../a","size":1,"sha256":""}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, file := range m.Files {
			if filepath.Base(file.Name) != file.Name || file.Name == ".." || file.Size <= 0 {
				t.Fatalf("%+v", file)
			}
		}
		again, err := m.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseManifest(again); err != nil {
			t.Fatal(err)
		}
	})
}

func TestManifestRefuses(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("0", 64)
	for name, change := range map[string]func(*Manifest){
		"no files":    func(m *Manifest) { m.Files = nil },
		"no version":  func(m *Manifest) { m.Version = "" },
		"path":        func(m *Manifest) { m.Files[0].Name = "../../etc/passwd" },
		"hidden":      func(m *Manifest) { m.Files[0].Name = ".profile" },
		"flag":        func(m *Manifest) { m.Files[0].Name = "-rf" },
		"size":        func(m *Manifest) { m.Files[0].Size = maxProgram + 1 },
		"no size":     func(m *Manifest) { m.Files[0].Size = 0 },
		"short sum":   func(m *Manifest) { m.Files[0].SHA256 = sum[:62] },
		"twice":       func(m *Manifest) { m.Files = append(m.Files, m.Files[0]) },
		"long":        func(m *Manifest) { m.Version = strings.Repeat("1", 100) },
		"min version": func(m *Manifest) { m.MinVersion = "1 or so" },
	} {
		m := Manifest{Version: "1.0", Files: []File{{Platform: "box", Name: "skywire-box", Size: 1, SHA256: sum}}}
		change(&m)
		if _, err := m.Append(nil); !errors.Is(err, ErrManifest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseManifest([]byte(`{"format":2}`)); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), "format 2") {
		t.Error(err)
	}
}

func TestWeb(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := netip.MustParseAddrPort(l.Addr().String())
	answers := map[string]string{
		"/r/good":     "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 4\r\n\r\nbodyAND MORE",
		"/r/open":     "HTTP/1.0 200 OK\r\n\r\nto the end",
		"/r/moved":    "HTTP/1.1 302 Found\r\nX-Long: " + strings.Repeat("p", 9000) + "\r\nLocation: /r/good\r\n\r\n",
		"/r/loop":     "HTTP/1.1 301 Moved\r\nLocation: loop\r\n\r\n",
		"/r/elsehow":  "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
		"/r/cut":      "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
		"/r/chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
		"/r/longhead": "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 200) + "\r\n",
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 2048)
			n, _ := c.Read(b)
			words := strings.Fields(string(b[:n]))
			text := "HTTP/1.1 404 Not Found\r\n\r\n"
			if len(words) > 1 && answers[words[1]] != "" {
				text = answers[words[1]]
			}
			c.Write([]byte(text))
			c.Close()
		}
	}()
	w, err := NewWeb("http://" + at.String() + "/r/" + ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"good": "body", "open": "to the end", "moved": "body"} {
		got, err := read(t.Context(), w, name, 100)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, want := range map[string]string{
		"none": "404", "loop": "redirects", "elsehow": "redirected", "cut": "unexpected EOF", "chunks": "chunks", "longhead": "head", "../x": "name",
	} {
		if _, err := read(t.Context(), w, name, 1000); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Open(ctx, "good"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, bad := range []string{"ftp://x/", "http://", "/folder", "https:x"} {
		if _, err := NewWeb(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = head(bufio.NewReaderSize(bytes.NewReader(b), maxLine)) })
}
