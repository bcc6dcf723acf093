package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skywire/mesh/key"
	"skywire/signal"
)

func TestPetnames(t *testing.T) {
	t.Parallel()
	dir, alice, bob := t.TempDir(), someKey(t, 1).Public(), someKey(t, 2).Public()
	p, err := openPetnames(dir, map[string]key.Public{"alice": alice})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  key.Public
		want error
	}{
		{"bob", bob, nil},
		{"bobby", bob, nil},
		{"alice", bob, signal.ErrRefused},
		{"Bob", bob, signal.ErrUsage},
		{"a.b", bob, signal.ErrUsage},
		{"", bob, signal.ErrUsage},
		{"carol", key.Public{}, signal.ErrNotFound},
	} {
		err := p.set(c.name, c.key)
		if !errors.Is(err, c.want) {
			t.Errorf("%q: %v, want %v", c.name, err, c.want)
		}
	}
	if err := p.set("bobby", key.Public{}); err != nil {
		t.Error(err)
	}
	again, err := openPetnames(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := again.find("bob"); !ok || k != bob || again.of(bob) != "bob" || len(again.list()) != 1 {
		t.Errorf("after a restart: %v", again.list())
	}
	if l := p.list(); len(l) != 2 || l[0].Name != "alice" || !l[0].Fixed || l[1].Fixed {
		t.Errorf("%+v", l)
	}
	if err := os.WriteFile(filepath.Join(dir, PetnamesName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if torn, err := openPetnames(dir, nil); err == nil || len(torn.list()) != 0 {
		t.Error("a torn file goes unnoticed")
	}
}

func TestShortName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"Alice": "alice", "alice.mesh": "alice", "ALICE.Mesh.": "alice", "mesh": "mesh", "": "", "a.b.mesh": "a.b"} {
		if got := shortName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
