//go:build !mini

package applets

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/manager"
)

// lockedBuffer is where a daemon of a test talks to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// testBox is a pair of directories for the daemons of one box; its sockets need a short path.
func testBox(t *testing.T) []string {
	t.Helper()
	dir, err := os.MkdirTemp("", "box")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return []string{"SKYWIRE_STATE=" + dir + "/state", "SKYWIRE_RUN=" + dir + "/run", "HOME=" + dir, "SKYWIRE_CONFIG="}
}

// runApplet runs words in a box and returns what they printed.
func runApplet(ctx context.Context, a applet.Applet, box []string, words ...string) (code int, stdout, stderr string) {
	var out, talk lockedBuffer
	code = a.Run(ctx, &applet.Env{Args: words, Environ: box, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &talk})
	return code, out.String(), talk.String()
}

// startApplet runs a daemon until the test ends; it must end with status 0.
func startApplet(t *testing.T, a applet.Applet, box []string, words ...string) (talk *lockedBuffer) {
	t.Helper()
	talk = &lockedBuffer{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	code := -1
	running.Go(func() {
		code = a.Run(ctx, &applet.Env{Args: words, Environ: box, Stdin: strings.NewReader(""), Stdout: talk, Stderr: talk})
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if code != applet.OK || t.Failed() {
			t.Errorf("%v ended with %d:\n%s", words, code, talk)
		}
	})
	return talk
}

// eventually asks until ok, for at most 20 s.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("not within 20 s: %s", what)
}

func TestManagerWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"--help"}, applet.OK, "manager path A B [-k N]"},
		{[]string{"path", "--help"}, applet.OK, "how many paths at most"},
		{nil, applet.BadUsage, "which verb?"},
		{[]string{"node"}, applet.BadUsage, `did you mean "nodes"?`},
		{[]string{"path", "a"}, applet.BadUsage, "too few arguments"},
		{[]string{"path", "a", "b", "-k", "0"}, applet.BadUsage, "at least 1"},
		{[]string{"run", "--open"}, applet.BadUsage, "give --listen ADDR too"},
		{[]string{"nodes"}, applet.NotRunning, "start it with: skywire node run"},
		{[]string{"links", "--json"}, applet.NotRunning, "start it with: skywire node run"},
		{[]string{"id"}, applet.NotRunning, "start it with: skywire node run"},
		{[]string{"path", "a", "b"}, applet.NotRunning, "start it with: skywire node run"},
	} {
		code, stdout, stderr := runApplet(t.Context(), managerApplet(), testBox(t), c.words...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("manager %v: %d, %q %q; want %d, %q", c.words, code, stdout, stderr, c.code, c.want)
		}
	}
}

// TestManagerWithItsNode runs a manager with a node of its own, in this process, and asks it everything.
func TestManagerWithItsNode(t *testing.T) {
	t.Parallel()
	box := testBox(t)
	startApplet(t, managerApplet(), box, "run", "--listen", ":0", "--open", "--name", "boss")
	var id manager.ID
	eventually(t, "manager id", func() bool {
		code, stdout, _ := runApplet(t.Context(), managerApplet(), box, "id", "--json")
		return code == applet.OK && json.Unmarshal([]byte(stdout), &id) == nil && id.Nodes == 1
	})
	_, stdout, _ := runApplet(t.Context(), managerApplet(), box, "id")
	if k, err := key.Parse(strings.TrimSpace(stdout)); err != nil || k != id.Key {
		t.Errorf("id: %q, %v; want %s", stdout, err, id.Key)
	}
	var code int
	var stderr string
	eventually(t, "its node to be online by its name", func() bool {
		code, stdout, stderr = runApplet(t.Context(), managerApplet(), box, "nodes", "--json")
		var nodes []manager.NodeInfo
		return json.Unmarshal([]byte(stdout), &nodes) == nil && code == 0 && len(nodes) == 1 && nodes[0].Name == "boss" && nodes[0].Online
	})
	if code, stdout, stderr = runApplet(t.Context(), managerApplet(), box, "nodes"); code != 0 || !strings.Contains(stdout, "online") {
		t.Errorf("nodes: %d, %s %s", code, stdout, stderr)
	}
	if code, stdout, stderr = runApplet(t.Context(), managerApplet(), box, "links", "--json"); code != 0 || strings.TrimSpace(stdout) != "[]" {
		t.Errorf("links: %d, %s %s", code, stdout, stderr)
	}
	if code, _, stderr = runApplet(t.Context(), managerApplet(), box, "path", "boss", "nobody"); code != applet.NotFound || !strings.Contains(stderr, `"nobody"`) {
		t.Errorf("path: %d, %s", code, stderr)
	}
	if code, _, stderr = runApplet(t.Context(), apptrackerApplet(), box, "list"); code != applet.NotRunning || !strings.Contains(stderr, "skywire apptracker run") {
		t.Errorf("tracker beside a node, not running: %d, %s", code, stderr)
	}
}
