package store

import (
	"path/filepath"
	"testing"

	"skywire/mesh/key"
)

func TestMembership(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := Open(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	if k, err := d.Cluster(); !k.IsZero() || err != nil {
		t.Errorf("cluster of an empty store: %s, %v", k, err)
	}
	id, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	err = d.Batch(func(tx *Tx) error {
		tx.PutStatement([9]byte{1, 1}, []byte("list"))
		tx.PutStatement([9]byte{4, 2}, []byte("old"))
		tx.PutStatement([9]byte{4, 3}, []byte("new"))
		tx.DeleteStatement([9]byte{4, 2})
		tx.PutFloor(1 << 40)
		tx.PutCluster(id.Public())
		tx.PutOffer([8]byte{1}, []byte("an invite"))
		tx.PutOffer([8]byte{2}, []byte("another"))
		tx.DeleteOffer([8]byte{1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path, Options{NoSync: true}); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raws, err := d.Statements()
	if err != nil || len(raws) != 2 || string(raws[0]) != "list" || string(raws[1]) != "new" {
		t.Errorf("statements %q, %v", raws, err)
	}
	if raws, err = d.Offers(); err != nil || len(raws) != 1 || string(raws[0]) != "another" {
		t.Errorf("offers %q, %v", raws, err)
	}
	if f, err := d.Floor(); f != 1<<40 || err != nil {
		t.Errorf("floor %d, %v", f, err)
	}
	if k, err := d.Cluster(); k != id.Public() || err != nil {
		t.Errorf("cluster %s, %v", k, err)
	}
	if err := d.Batch(func(tx *Tx) error { tx.PutCluster(key.Public{}); tx.DeleteStatements(); return nil }); err != nil {
		t.Fatal(err)
	}
	if k, err := d.Cluster(); !k.IsZero() || err != nil {
		t.Errorf("cluster after leaving: %s, %v", k, err)
	}
	if raws, err = d.Statements(); err != nil || len(raws) != 0 {
		t.Errorf("statements after leaving: %q, %v", raws, err)
	}
}
