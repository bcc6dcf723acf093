package main

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
)

// TestE2EMessageSecrecy is T-M4: all packets of a delivery are recorded, and the mailbox that it goes by keeps a copy of every
// envelope. The packets show neither texts nor envelopes; and who gets all keys and disks when the prekeys are over opens none of
// the envelopes. The time that passes is told to the rings of prekeys, as the daemon tells it at its start.
func TestE2EMessageSecrecy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgsecret")
	w.trio()
	var id struct{ Link string }
	w.must(w.ask("m", "messenger.id", struct{}{}, &id))
	w.state("a", w.say("a", "b", "0"), patience, "delivered")
	tape := w.record("m")
	w.endMessenger("b", syscall.SIGTERM)
	m := w.takeOver("m")
	secrets := []string{"the treasure is under the birch", strings.Repeat("and the map is this: ", 100)}
	for _, s := range secrets {
		w.state("a", w.say("a", "b", s), patience, "stored")
	}
	letters := m.letters("b")
	m.gone("a")
	rings := map[string]*prekeys.Ring{"a": w.ring("a"), "m": m.ring}
	ring := w.ring("b")
	seeds := w.mayOpen(letters, "b", ring)
	w.must(ring.Close())
	if found(t, w.box["b"].State(), seeds) == 0 {
		t.Fatal("the secrets are not on the disk while they live: the test seeks wrongly")
	}
	w.messenger("b", "--mailbox", id.Link)
	m.give("b", letters...)
	if all, err := w.heard("b", "a"); err != nil || !slices.Equal(all[1:], secrets) {
		t.Fatalf("b has %q: %v", all, err)
	}
	w.wait("b leaves its receipt", func(context.Context) error {
		if len(m.letters("a")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	m.gone("b")
	rings["b"] = w.ring("b")
	seeds = append(seeds, w.mayOpen(m.letters("a"), "a", rings["a"])...)
	letters = append(letters, m.letters("a")...)
	w.silent(bytes.Join(tape.Stop(), nil), letters, secrets)

	for box, r := range rings {
		if _, err := r.Turn(time.Now().Add(envelope.PrekeyLife + 24*time.Hour).Unix()); err != nil {
			t.Fatal(err)
		}
		if n := found(t, w.box[box].State(), seeds); n != 0 {
			t.Errorf("%d secrets are left on the disk of %s", n, box)
		}
	}
	for box, r := range rings {
		own, err := key.Load(filepath.Join(w.box[box].State(), "node.key"))
		w.must(err)
		for _, raw := range letters {
			to := key.Public(raw[2:34])
			for _, with := range []func(uint32) *envelope.Secret{r.Secret, func(uint32) *envelope.Secret { return envelope.OwnSecret(own) }} {
				if _, err := envelope.Open(raw, to, with); err == nil {
					t.Errorf("with what %s has left a letter opens", box)
				}
			}
		}
	}
	w.must(rings["a"].Close(), rings["b"].Close())
	t.Logf("%d letters; none opens when the prekeys are over", len(letters))
}

// mayOpen wants the letters to open with the secrets of a box, and returns the bytes of those.
func (w *world) mayOpen(letters [][]byte, box string, r *prekeys.Ring) (seeds [][]byte) {
	w.t.Helper()
	self, err := key.Parse(w.key[box])
	w.must(err)
	if len(letters) == 0 {
		w.t.Fatalf("no letters for %s", box)
	}
	for _, raw := range letters {
		o, err := envelope.ParseOuter(raw)
		w.must(err)
		if _, err := envelope.Open(raw, self, r.Secret); err != nil {
			w.t.Fatalf("while its secrets live %s can't open a letter: %v", box, err)
		}
		b := r.Secret(o.Prekey).Append(nil)
		seeds = append(seeds, b[len(b)-32:])
	}
	return seeds
}

// silent wants traffic on a tape, and in it no text and no piece of a letter.
func (w *world) silent(tape []byte, letters [][]byte, texts []string) {
	w.t.Helper()
	least := 0
	for _, raw := range letters {
		least += len(raw)
		for at := 46; at+16 <= len(raw); at += 16 { // behind what says whom it is for
			if piece := raw[at : at+16]; !bytes.Equal(piece, make([]byte, 16)) && bytes.Contains(tape, piece) {
				w.t.Errorf("the packets show bytes %d to %d of a letter", at, at+16)
			}
		}
	}
	for _, s := range texts {
		if bytes.Contains(tape, []byte(s)[:21]) {
			w.t.Errorf("the packets show %q", s)
		}
	}
	if len(tape) < least {
		w.t.Errorf("only %d bytes were recorded of %d", len(tape), least)
	}
}

// found counts secrets that a file below dir has the bytes of.
func found(t testing.TB, dir string, secrets [][]byte) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range secrets {
			if bytes.Contains(b, s) {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
