//go:build !mini && (issuer || !(mips || mipsle))

package applets

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/applet"
	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/store"
)

// stateOf is the state directory of a box.
func stateOf(box []string) string { return strings.TrimPrefix(box[0], "SKYWIRE_STATE=") }

// TestClusterCreate makes a cluster on a box whose node does not run, and reads what the node will find.
func TestClusterCreate(t *testing.T) {
	t.Parallel()
	box := testBox(t)
	code, stdout, stderr := runApplet(t.Context(), managerApplet(), box, "cluster", "create", "--name", "boss", "--json")
	var made struct {
		Cluster, Admin, Node key.Public
		ClusterKeyFile       string `json:"cluster_key_file"`
	}
	if err := json.Unmarshal([]byte(stdout), &made); code != applet.OK || err != nil {
		t.Fatalf("%d, %v: %s %s", code, err, stdout, stderr)
	}
	if !strings.Contains(stderr, "keep a copy elsewhere") {
		t.Errorf("no word about the cluster key: %s", stderr)
	}
	for _, name := range []string{"cluster.key", "admin.key", "node.key"} {
		if info, err := os.Stat(filepath.Join(stateOf(box), name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	db, err := store.Open(filepath.Join(stateOf(box), "node.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cluster, err := db.Cluster()
	raws, rawErr := db.Statements()
	if err != nil || rawErr != nil || cluster != made.Cluster {
		t.Fatalf("cluster %s, %v, %v", cluster, err, rawErr)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	at := member.Instant{Wall: time.Now()}
	s := member.New(member.Config{Cluster: cluster}, at)
	if n := s.Load(at, raws); n != 0 || !s.Issuer(at, made.Node) {
		t.Errorf("%d statements refused; the node is %+v", n, s.Member(at, made.Node))
	}
	if name, _ := s.Name(made.Node); name != "boss" || !s.IPv4(made.Node).IsValid() || s.Powers(made.Node) != 0 {
		t.Errorf("name %q, address %v, powers %v", name, s.IPv4(made.Node), s.Powers(made.Node))
	}
	if code, _, stderr = runApplet(t.Context(), managerApplet(), box, "cluster", "create"); code == applet.OK || !strings.Contains(stderr, "belongs to a cluster already") {
		t.Errorf("once more: %d, %s", code, stderr)
	}
	offlineAdmin(t, box, s)
}

// offlineAdmin signs a second admin with the cluster key on a box without a node.
func offlineAdmin(t *testing.T, box []string, s *member.State) {
	t.Helper()
	second := testBox(t)
	code, stdout, stderr := runApplet(t.Context(), managerApplet(), second, "cluster", "admin-key")
	if code != applet.OK {
		t.Fatalf("admin-key: %d, %s", code, stderr)
	}
	admin, err := key.Parse(strings.TrimSpace(stdout))
	if err != nil {
		t.Fatal(err)
	}
	drawer := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.Rename(filepath.Join(stateOf(box), "cluster.key"), drawer); err != nil {
		t.Fatal(err)
	}
	_, raw := s.Admins()
	var list strings.Builder
	if err := printStatement(&applet.Env{Stdout: &list}, raw); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSpace(list.String())
	code, _, stderr = runApplet(t.Context(), managerApplet(), box, "cluster", "sign-admin", admin.String(), "--list", text)
	if code == applet.OK || !strings.Contains(stderr, "--cluster-key") {
		t.Errorf("without the cluster key: %d, %s", code, stderr)
	}
	code, stdout, stderr = runApplet(t.Context(), managerApplet(), second, "cluster", "sign-admin", admin.String(), "--cluster-key", drawer, "--list", text, "--tag", "home")
	if code != applet.OK {
		t.Fatalf("sign-admin: %d, %s", code, stderr)
	}
	next, err := parseStatement(stdout)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(member.Instant{Wall: time.Now()}, next); err != nil {
		t.Fatal(err)
	}
	l, _ := s.Admins()
	a, ok := l.Find(admin)
	if !ok || len(l.Admins) != 2 || a.IPv4.String() != "100.65.0.0/16" || a.Roles != member.RoleMember || len(a.Tags) != 1 {
		t.Errorf("the new list: %+v", l)
	}
}

func TestClusterWords(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		words []string
		code  int
		want  string
	}{
		{[]string{"cluster"}, applet.BadUsage, "which verb?"},
		{[]string{"cluster", "--help"}, applet.OK, "sign-admin"},
		{[]string{"cluster", "create", "--name", "Boss"}, applet.BadUsage, "inner hyphens"},
		{[]string{"cluster", "create", "--ipv4", "100.64.0.1/16"}, applet.BadUsage, "or none"},
		{[]string{"cluster", "sign-admin", "x"}, applet.BadUsage, "key of 1 letters"},
		{[]string{"cluster", "show"}, applet.NotRunning, "skywire node run"},
		{[]string{"cluster", "import", "!"}, applet.BadUsage, "wrong letter"},
		{[]string{"invite", "--role", "king"}, applet.BadUsage, "relay, exit, messenger, border or manager"},
		{[]string{"invite", "--addr", "a@b"}, applet.BadUsage, "--addr a@b"},
		{[]string{"invite"}, applet.NotRunning, "skywire node run"},
		{[]string{"revoke"}, applet.BadUsage, "too few arguments"},
		{[]string{"members", "--json"}, applet.NotRunning, "skywire node run"},
	} {
		code, stdout, stderr := runApplet(t.Context(), managerApplet(), testBox(t), c.words...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("manager %v: %d, %q %q; want %d, %q", c.words, code, stdout, stderr, c.code, c.want)
		}
	}
}

func TestDialable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{
		"udp://192.0.2.1:4000": true, "udp://[2001:db8::1]:4000": true, "wss://relay.example/mesh": true, "udp://0.0.0.0:4000": false,
		"udp://127.0.0.1:4000": false, "udp://[fe80::1]:4000": false, "udp://:4000": false,
	} {
		if dialable(addr) != want {
			t.Errorf("%s: %v", addr, !want)
		}
	}
}
