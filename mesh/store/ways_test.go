package store

import (
	"path/filepath"
	"testing"

	"skywire/mesh/key"
)

func TestWays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "node.db")
	d, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	a, b := Way{Network: [8]byte{1}, Peer: key.Public{2}}, Way{Network: [8]byte{3}, Peer: key.Public{2}}
	put := func(w Way, carrier string) {
		if err := d.Batch(func(t *Tx) error { t.PutWay(w, carrier); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(a, "tcp")
	put(b, "wss")
	put(a, "")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path, Options{NoSync: true}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got, err := d.Ways()
	if err != nil || len(got) != 1 || got[b] != "wss" {
		t.Errorf("%v, %v; want %v alone", got, err, b)
	}
}
