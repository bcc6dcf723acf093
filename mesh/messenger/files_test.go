package messenger

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/messenger/envelope"
)

func waitFile(t testing.TB, e *Engine, id MessageID, s FileState, d time.Duration) File {
	t.Helper()
	timer := time.After(d)
	for {
		changed := e.Changed()
		all, _ := e.Files()
		var f File
		for _, x := range all {
			if x.ID == id {
				f = x
			}
		}
		if f.State == s {
			return f
		}
		select {
		case <-changed:
		case <-timer:
			t.Fatalf("file is %s (%s), %d of %d bytes after %s: %+v\n%+v", f.State, f.Reason, f.Done, f.Size, d, all, e.Status())
		}
	}
}

func randomFile(t testing.TB, dir string, n int) (path string, content []byte) {
	t.Helper()
	content = make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 3))
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	path = filepath.Join(dir, "data.bin")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

// TestFileResumes sends a file while both ends restart and links are cut.
func TestFileResumes(t *testing.T) {
	for _, size := range []int{0, 1, chunkLen, 3<<20 + 5} {
		synctest.Test(t, func(t *testing.T) {
			folder := t.TempDir()
			w := newWorld(t)
			a := w.node(nil)
			b := w.node(func(c *Config) { c.Files = Filing{Folder: folder, Auto: 10 << 20} })
			a.dir, b.dir, a.rate = t.TempDir(), t.TempDir(), 100_000
			ea, eb := a.start(), b.start()
			befriend(t, ea, eb)
			path, content := randomFile(t, t.TempDir(), size)
			f, err := ea.SendFile(t.Context(), eb.core.account, path)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 4 {
				pause(t.Context(), 5*time.Second)
				if all, _ := eb.Files(); size > 1<<20 && (len(all) != 1 || all[0].Done == 0 || all[0].Done == all[0].Size) {
					t.Fatalf("cut %d falls outside of the transfer: %+v", i, all)
				}
				switch i {
				case 0, 2:
					b.off()
					b.back()
				case 1:
					b.stop()
					eb = b.start()
				case 3:
					a.stop()
					ea = a.start()
				}
			}
			got := waitFile(t, eb, f.ID, FileDone, time.Hour)
			waitFile(t, ea, f.ID, FileDone, time.Hour)
			b2, err := os.ReadFile(got.Path)
			if err != nil || !bytes.Equal(b2, content) || filepath.Dir(got.Path) != folder {
				t.Errorf("size %d: %d bytes at %s, %v", size, len(b2), got.Path, err)
			}
			left, _ := os.ReadDir(folder)
			if len(left) != 1 {
				t.Errorf("left in the folder: %v", left)
			}
			a.stop()
			b.stop()
		})
	}
}

func TestFileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		folder := t.TempDir()
		w := newWorld(t)
		a, b := w.node(nil), w.node(func(c *Config) {
			c.Files = Filing{Folder: folder, Auto: 10, Max: 1 << 20, Free: func(string) (uint64, error) { return 600_000, nil }, Spare: 100_000}
		})
		ea, eb := a.start(), b.start()
		defer a.stop()
		defer b.stop()
		befriend(t, ea, eb)
		dir := t.TempDir()
		offer := func(n int) File {
			path, _ := randomFile(t, dir, n)
			f, err := ea.SendFile(t.Context(), eb.core.account, path)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		refused := offer(5000)
		waitFile(t, eb, refused.ID, FileOffered, time.Minute)
		if err := eb.RefuseFile(refused.ID); err != nil {
			t.Fatal(err)
		}
		waitFile(t, ea, refused.ID, FileRefused, time.Minute)
		large := offer(2 << 20)
		if f := waitFile(t, ea, large.ID, FileRefused, time.Minute); f.Reason != "too large" {
			t.Error(f.Reason)
		}
		full := offer(550_000)
		waitFile(t, eb, full.ID, FileOffered, time.Minute)
		if err := eb.AcceptFile(full.ID); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("without room: %v", err)
		}
		yes := offer(5001)
		waitFile(t, eb, yes.ID, FileOffered, time.Minute)
		if err := eb.AcceptFile(yes.ID); err != nil {
			t.Fatal(err)
		}
		one := waitFile(t, eb, yes.ID, FileDone, time.Minute)
		again := offer(5002)
		waitFile(t, eb, again.ID, FileOffered, time.Minute)
		if err := eb.AcceptFile(again.ID); err != nil {
			t.Fatal(err)
		}
		if two := waitFile(t, eb, again.ID, FileDone, time.Minute); two.Path == one.Path {
			t.Error("a file was replaced by one of the same name")
		}
	})
}

// TestFileChanged: a source that is not any more what was offered is not sent as if it were.
func TestFileChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(func(c *Config) { c.Files = Filing{Folder: t.TempDir()} })
		ea, eb := a.start(), b.start()
		defer a.stop()
		defer b.stop()
		befriend(t, ea, eb)
		path, _ := randomFile(t, t.TempDir(), 100_000)
		f, err := ea.SendFile(t.Context(), eb.core.account, path)
		if err != nil {
			t.Fatal(err)
		}
		waitFile(t, eb, f.ID, FileOffered, time.Minute)
		if err := os.WriteFile(path, []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := eb.AcceptFile(f.ID); err != nil {
			t.Fatal(err)
		}
		if x := waitFile(t, ea, f.ID, FileFailed, time.Minute); x.Reason != ErrFileChanged.Error() {
			t.Error(x.Reason)
		}
		waitFile(t, eb, f.ID, FileCanceled, time.Minute)
	})
}

func TestCleanName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a.txt": "a.txt", "../../etc/passwd": "_.._etc_passwd", "/abs": "_abs", "..": "file", "": "file", "a\x00b\n": "a_b", ".bashrc": "bashrc",
		"C:\\x": "C__x", strings.Repeat("ü", 200): strings.Repeat("ü", 60),
	} {
		got := cleanName(in)
		if strings.ContainsAny(got, "/\\\x00\n") || strings.HasPrefix(got, ".") || len(got) > 120 || got == "" {
			t.Errorf("%q: %q", in, got)
		}
		if in != "a\x00b\n" && got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestFileByMailbox: a file goes to one who is never on together with the sender, piece by piece by a mailbox of the least store,
// while all three restart. The mailbox stays within the share of a depositor, and a text finds room beside the file.
func TestFileByMailbox(t *testing.T) {
	for _, contact := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			folder := t.TempDir()
			w := newWorld(t)
			m := w.node(func(c *Config) { c.KeepFor, c.Quota = true, DefaultQuota })
			withBox := func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} }
			a := w.node(withBox)
			b := w.node(func(c *Config) { withBox(c); c.Files = Filing{Folder: folder, Auto: 10 << 20} })
			a.dir, m.dir, b.dir = t.TempDir(), t.TempDir(), t.TempDir()
			defer func() {
				for _, n := range []*testNode{a, m, b} {
					if n.on {
						n.stop()
					}
				}
			}()
			ea, em, eb := a.start(), m.start(), b.start()
			befriend(t, em, eb)
			if contact {
				befriend(t, em, ea)
			} else { // the receiver's mailbox does not know the sender, which has one of its own
				n := w.node(func(c *Config) { c.KeepFor = true })
				en := n.start()
				defer n.stop()
				befriend(t, en, ea)
				a.stop()
				a.conf = func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: n.key.Public()}} }
				ea = a.start()
			}
			befriend(t, ea, eb)
			waitState(t, ea, send(t, ea, eb, "text 0"), Delivered, time.Minute)
			b.stop()
			size := 300_000
			if !contact {
				size = 30_000
			}
			path, content := randomFile(t, t.TempDir(), size)
			f, err := ea.SendFile(t.Context(), eb.core.account, path)
			if err != nil {
				t.Fatal(err)
			}
			done, turns, stored, came := false, 0, int64(0), int64(0)
			for ; turns < 20 && !done; turns++ {
				pause(t.Context(), 2*time.Minute) // a is on alone
				all, err := ea.Files()
				if err != nil || len(all) != 1 {
					t.Fatal(all, err)
				}
				done = all[0].State == FileDone
				stored = max(stored, all[0].Stored)
				if all[0].Done < came {
					t.Errorf("turn %d: %d bytes there, %d before", turns, all[0].Done, came)
				}
				came = all[0].Done
				if all[0].Stored > 0 && all[0].Reason == "" {
					t.Errorf("not said where it is: %+v", all[0])
				}
				if turns == 1 {
					waitState(t, ea, send(t, ea, eb, "text 1"), Stored, time.Minute)
				}
				if got := em.Status().Mailbox; got > DefaultQuota/boxShare/depositorShare {
					t.Errorf("turn %d: the mailbox keeps %d bytes of one", turns, got)
				}
				a.stop()
				m.stop()
				m.start()
				eb = b.start()
				pause(t.Context(), 2*time.Minute)
				b.stop()
				m.stop()
				em = m.start()
				ea = a.start()
			}
			eb = b.start()
			got := waitFile(t, eb, f.ID, FileDone, time.Second)
			b2, err := os.ReadFile(got.Path)
			if err != nil || !bytes.Equal(b2, content) || !done {
				t.Errorf("after %d turns %d bytes, done %v: %v", turns, len(b2), done, err)
			}
			if all := texts(t, eb); len(all) != 2 {
				t.Errorf("texts: %q", all)
			}
			if stored == 0 || contact && eb.Status().Counters["duplicates"] > 0 {
				t.Errorf("%d bytes at the mailbox; %v", stored, eb.Status().Counters)
			}
			t.Logf("contact %v: %d turns, %d bytes at a time", contact, turns, stored)
		})
	}
}
