package signal

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestStrangersDirectory: a run directory that another user has made in /tmp before us is not used.
func TestStrangersDirectory(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root to give a directory away")
	}
	const me, stranger = 1000, 65534
	open := t.TempDir()
	if err := os.Chmod(open, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	dir := func(name string, owner int) string {
		d := filepath.Join(open, name)
		if err := errors.Join(os.MkdirAll(filepath.Join(d, "in"), 0o755), os.Chown(d, owner, owner)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	theirs, mine, roots := dir("theirs", stranger), dir("mine", me), dir("roots", 0)
	link := filepath.Join(open, "link")
	if err := errors.Join(os.Symlink(mine, link), os.Lchown(link, stranger, stranger)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir string
		uid int
		bad bool
	}{
		{theirs, me, true},
		{filepath.Join(theirs, "in"), me, true},
		{filepath.Join(theirs, "missing"), me, true},
		{link, me, true},
		{mine, me, false},
		{filepath.Join(mine, "in"), me, false},
		{roots, me, false},
		{theirs, 0, false},
		{"/run/user/1000", me, false},
	} {
		if err := trustedPlace(c.dir, c.uid); errors.Is(err, ErrPlace) != c.bad || !c.bad && err != nil {
			t.Errorf("%s for %d: %v, want refused %v", c.dir, c.uid, err, c.bad)
		}
	}
}

// TestLockHeld: a user who locks the run directory and keeps it keeps nobody from starting.
func TestLockHeld(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	l, err := Listen(path, 0o600)
	if err != nil || time.Since(before) > 2*lockPatience {
		t.Fatalf("%v after %v", err, time.Since(before))
	}
	l.Close()
}

// TestFolderEmptied: a listener whose folder was emptied, or taken away, is found at its path again, with the same mode, and
// what was connected stays so.
func TestFolderEmptied(t *testing.T) {
	t.Parallel()
	path := filepath.Join(filepath.Dir(socketPath(t)), "sub", "s")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l.(*listener).look = 5 * time.Millisecond
	served := make(chan error, 1)
	go func() {
		served <- Serve(t.Context(), l, func(*Conn) Handler {
			return func(context.Context, *Request) (any, error) { return "here", nil }
		})
	}()
	call := func(c *Conn) error {
		var answer string
		return c.Call(t.Context(), "anything", nil, &answer)
	}
	first, err := Dial(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	for range 3 {
		for os.RemoveAll(filepath.Dir(path)) != nil { // it may be making the next one in there
		}
		c, err := Dial(t.Context(), path, nil)
		for ; err != nil && t.Context().Err() == nil; c, err = Dial(t.Context(), path, nil) {
			<-time.After(2 * time.Millisecond)
		}
		if err := errors.Join(call(c), call(first), c.Close()); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", st, err)
		}
	}
	l.Close()
	if err := <-served; err == nil {
		t.Error("Serve ended without an error though its listener was closed")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("file after Close: %v", err)
	}
}
