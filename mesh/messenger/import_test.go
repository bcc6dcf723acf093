package messenger

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
)

// TestImportGroupsAndFiles: a box that begins with an empty store takes a group and the list of files from an export, once, and goes
// on talking in the group.
func TestImportGroupsAndFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(func(c *Config) { c.Files = Filing{Folder: t.TempDir(), Auto: 1 << 20} })
		ea, eb := a.start(), b.start()
		befriend(t, ea, eb)
		id, err := ea.CreateGroup(t.Context(), "hikers", []key.Public{eb.core.account})
		if err != nil {
			t.Fatal(err)
		}
		settled(t, id, time.Minute, ea, eb)
		path, _ := randomFile(t, t.TempDir(), 1000)
		sent, err := ea.SendFile(t.Context(), eb.core.account, path)
		if err != nil {
			t.Fatal(err)
		}
		waitFile(t, eb, sent.ID, FileDone, time.Minute)
		ops, err := eb.GroupOps(id)
		if err != nil {
			t.Fatal(err)
		}
		files, err := eb.Files()
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		b.stop()
		b.kv, b.ring = nil, nil // another store, the same key
		eb = b.start()
		befriend(t, ea, eb)
		moving := files[0]
		moving.ID[0]++
		moving.State, moving.Name = FileMoving, "../evil"
		for _, want := range []bool{true, false} {
			if added, err := eb.ImportGroup(t.Context(), ops); added != want || err != nil {
				t.Errorf("group: %v, %v", added, err)
			}
			for _, f := range []File{files[0], moving} {
				if added, err := eb.ImportFile(t.Context(), f); added != want || err != nil {
					t.Errorf("file: %v, %v", added, err)
				}
			}
		}
		all, _ := eb.Files()
		for _, f := range all {
			if f.ID == sent.ID && (f.State != FileDone || f.Name != "data.bin") || f.ID != sent.ID && (f.State != FileFailed || f.Name == "../evil") {
				t.Errorf("%+v", f)
			}
		}
		if g := groupOf(eb, id); len(g.Members) != 2 || g.Name != "hikers" {
			t.Errorf("%+v", g)
		}
		if _, err := eb.GroupSend(t.Context(), id, []byte("back")); err != nil {
			t.Fatal(err)
		}
		if got := waitTexts(t, ea, 1, time.Minute); got[0] != "back" {
			t.Errorf("%q", got)
		}
		ops[0][len(ops[0])-1] ^= 1
		if _, err := ea.ImportGroup(t.Context(), ops); err == nil {
			t.Error("an altered change was taken")
		}
		if _, err := ea.ImportGroup(t.Context(), nil); !errors.Is(err, ErrFormat) {
			t.Errorf("no changes: %v", err)
		}
		if _, err := ea.ImportFile(t.Context(), File{}); !errors.Is(err, ErrFormat) {
			t.Errorf("no file: %v", err)
		}
		a.stop()
		b.stop()
	})
}
