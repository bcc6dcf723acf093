package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

type shownFile struct {
	Path, State, Reason string
	Size, Done, Stored  int64
}

// onlyFile waits until the one file of a box is as far as ok wants it.
func (w *world) onlyFile(box, what string, ok func(shownFile) bool) (f shownFile) {
	w.t.Helper()
	w.wait(box+": "+what, func(context.Context) error {
		var all []shownFile
		err := w.ask(box, "file.list", struct{}{}, &all)
		if err != nil || len(all) != 1 {
			return fmt.Errorf("%d files: %v", len(all), err)
		}
		if f = all[0]; !ok(f) {
			return fmt.Errorf("%+v", f)
		}
		return nil
	})
	return f
}

// TestE2EMessageFileAway: a file goes to one who is never on together with the sender, in turns, by a mailbox that is started anew
// meanwhile and keeps a part of it at a time.
func TestE2EMessageFileAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgfile")
	w.trio()
	folder := filepath.Join(w.box["b"].Dir, "files")
	content := make([]byte, 300_000)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	path := filepath.Join(w.box["a"].Dir, "plan.pdf")
	w.must(os.WriteFile(path, content, 0o600))
	w.state("a", w.say("a", "b", "0"), 10*time.Second, "delivered")
	w.endMessenger("b", syscall.SIGTERM)
	began := time.Now()
	var sent struct{ ID string }
	w.must(w.ask("a", "file.send", map[string]any{"to": "b", "path": path}, &sent))
	w.state("a", sent.ID, 20*time.Second, "stored")

	defer func() {
		if t.Failed() {
			for _, box := range []string{"a", "m", "b"} {
				var all []map[string]any
				err := w.ask(box, "messenger.devices", struct{}{}, &all)
				t.Log(box, w.messengerStatus(box), all, err)
			}
		}
	}()
	turns, most, expect, there := 0, int64(0), int64(0), shownFile{}
	for ; there.State != "done"; turns++ {
		if turns > 8 {
			t.Fatalf("after %d turns: %+v", turns, there)
		}
		w.endMessenger("a", syscall.SIGTERM)
		if turns == 2 {
			w.endMessenger("m", syscall.SIGKILL)
			w.messenger("m", "--keep-for-contacts")
		}
		w.startWithBox("b", "--files", folder)
		there = w.onlyFile("b", "has all that lay there", func(f shownFile) bool { return f.State != "offered" && f.Done >= expect })
		w.wait("b has said so at the mailbox", func(context.Context) error {
			var s struct{ Counters map[string]uint64 }
			err := w.ask("b", "messenger.status", struct{}{}, &s)
			if err == nil && s.Counters["box_left"] == 0 {
				err = fmt.Errorf("nothing: %v", s.Counters)
			}
			var all []struct {
				Device string
				Owed   bool
			}
			err = errors.Join(err, w.ask("b", "messenger.devices", struct{}{}, &all))
			for _, d := range all {
				if d.Owed {
					err = errors.Join(err, fmt.Errorf("%s is still owed", d.Device))
				}
			}
			return err
		})
		there = w.onlyFile("b", "is there", func(shownFile) bool { return true })
		w.endMessenger("b", syscall.SIGTERM)
		w.startWithBox("a")
		f := w.onlyFile("a", "more is at the mailbox, or all there", func(f shownFile) bool {
			full := f.Stored >= 12*8<<10 || f.Done+f.Stored == f.Size
			return f.State == "done" || f.State == "moving" && f.Done >= expect && full && f.Stored > 0
		})
		expect, most = f.Done+f.Stored, max(most, f.Stored)
	}
	w.onlyFile("a", "is told", func(f shownFile) bool { return f.State == "done" })
	t.Logf("%d turns, %d bytes at the mailbox at most, %s", turns, most, time.Since(began).Round(time.Second))
	got, err := os.ReadFile(there.Path)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(content) || !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d, another hash: %v", len(got), len(content), err)
	}
	if turns < 2 || most > 12*8<<10 {
		t.Errorf("%d turns, %d bytes at a time", turns, most)
	}
}
