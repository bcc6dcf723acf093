package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skywire/mesh/key"
	"skywire/mesh/member"
)

func TestClusterFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	if c, err := ReadCluster(dir); err != nil || !c.Key.IsZero() {
		t.Fatalf("nothing there: %+v, %v", c, err)
	}
	cluster, issuer, other := newKey(t), newKey(t), newKey(t)
	v, err := member.NewInvite(cluster, issuer, []member.Contact{{Key: issuer, Addr: "udp://192.0.2.1:7667"}, {Key: other, Addr: "192.0.2.2:1"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Cluster{}.With(v, v.Text())
	if err == nil {
		c, err = c.With(v, v.Text()) // again: nothing twice
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Peers) != 2 || c.Peers[0] != issuer.String()+"@192.0.2.1:7667" {
		t.Errorf("peers %v", c.Peers)
	}
	if err := WriteCluster(dir, c); err != nil {
		t.Fatal(err)
	}
	got, err := ReadCluster(dir)
	if err != nil || got.Key != cluster || got.Invite != v.Text() || len(got.Peers) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	info, err := os.Stat(filepath.Join(dir, ClusterName))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("a file with a secret in it: %v, %v", info.Mode(), err)
	}
	away, err := member.NewInvite(newKey(t), issuer, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.With(away, away.Text()); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("invite of another cluster: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, ClusterName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadCluster(dir); err == nil {
		t.Error("a damaged file opens the mesh")
	}
	if err := errors.Join(WriteCluster(dir, Cluster{}), WriteCluster(dir, Cluster{})); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func newKey(t *testing.T) key.Public {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}
