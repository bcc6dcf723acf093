package messenger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/store"
)

// TestDiskFull: what was promised before the disk was full is kept, nothing is promised meanwhile, and all goes on when there is room.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root: mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	w := newWorld(t)
	a, b := w.node(nil), w.node(nil)
	a.dir = dir
	ea, eb := a.start(), b.start()
	defer a.stop()
	defer b.stop()
	befriend(t, ea, eb)
	waitState(t, ea, send(t, ea, eb, "0"), Delivered, 10*time.Second)
	b.off()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 500<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	n := 1
	var err error
	for ; err == nil && n < 500; n++ {
		_, err = ea.Send(t.Context(), Outgoing{To: eb.core.account, Body: fmt.Appendf(nil, "%d %4000d", n, n)})
	}
	n-- // the last one was refused
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d: %v", n, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	b.back()
	id := send(t, ea, eb, "after")
	waitState(t, ea, id, Delivered, 30*time.Second)
	if got := texts(t, eb); len(got) != n+1 || got[len(got)-1] != "after" {
		t.Errorf("%d texts arrived, %d were promised", len(got), n+1)
	}
	t.Logf("%d messages before the disk was full", n)
}
