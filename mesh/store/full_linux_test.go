package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"skywire/mesh/key"
)

func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	path := filepath.Join(dir, "x.db")
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged uint64
	for n := uint64(1); n < 1000; n++ {
		err = d.Batch(func(tx *Tx) error {
			putState(tx, n)
			tx.PutRecord(key.Public{1, byte(n >> 8), byte(n)}, make([]byte, 4000))
			return nil
		})
		if err != nil {
			break
		}
		acknowledged = n
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("after %d batches: %v", acknowledged, err)
	}
	if n, err := d.Number(); n != acknowledged || err != nil {
		t.Fatalf("number %d, %v after the failed batch; want %d", n, err, acknowledged)
	}
	// Small changes still fit in pages that are free already, once there is less to keep.
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(path, Options{}); err != nil || d.Warning() != nil {
		t.Fatalf("open again: %v, %v", err, d.Warning())
	}
	if n, err := d.Number(); n != acknowledged || err != nil {
		t.Errorf("number %d, %v after opening again; want %d", n, err, acknowledged)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNewFileOnFullDisk(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t)
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, 250<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(dir, "x.db"), Options{}); !errors.Is(err, ErrFull) {
		t.Errorf("got %v", err)
	}
}
