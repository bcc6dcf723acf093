package messenger

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
)

// T-M4: who has captured the envelopes and gets, three weeks later, the keys of all boxes and every byte of their disks, opens none
// of them.
func TestForwardSecrecy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.node(func(c *Config) { c.KeepFor = true })
		withBox := func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} }
		a, b := w.node(withBox), w.node(withBox)
		nodes := []*testNode{m, a, b}
		var all []*Engine
		for _, n := range nodes {
			n.dir = t.TempDir()
			all = append(all, n.start())
		}
		em, ea, eb := all[0], all[1], all[2]
		befriend(t, em, ea)
		befriend(t, em, eb)
		befriend(t, ea, eb)
		waitState(t, ea, send(t, ea, eb, "text 0"), Delivered, time.Minute)
		b.off()
		a.cut[b.key.Public()], b.cut[a.key.Public()] = true, true
		const secret = "the treasure is under the birch"
		long := strings.Repeat("and the map is this: ", 100) // hybrid
		first := send(t, ea, eb, secret)
		waitState(t, ea, first, Stored, time.Hour)
		last := send(t, ea, eb, long)
		waitState(t, ea, last, Stored, time.Hour)

		// What passes by: the envelopes, and the prekey secrets' bytes, which the test seeks on the disk afterwards.
		var captured [][]byte
		ids := map[uint32]bool{}
		suites := map[envelope.Suite]bool{}
		em.call(func(c *core) {
			for _, e := range c.all(bBox) {
				raw := bytes.Clone(parseKept(e.value).raw)
				o, err := envelope.ParseOuter(raw)
				if err != nil || o.To != b.key.Public() {
					t.Errorf("captured: %+v, %v", o, err)
				}
				ids[o.Prekey], suites[o.Suite] = true, true
				captured = append(captured, raw)
			}
		})
		if len(captured) < 2 || ids[0] || len(suites) != 2 {
			t.Fatalf("captured %d envelopes of prekeys %v, suites %v", len(captured), ids, suites)
		}
		var seeds [][]byte
		for id := range ids {
			s := b.ring.Secret(id).Append(nil)
			seeds = append(seeds, s[len(s)-32:])
		}
		opens := func(secret func(uint32) *envelope.Secret) (n int) {
			for _, raw := range captured {
				if _, err := envelope.Open(raw, b.key.Public(), secret); err == nil {
					n++
				} else if !errors.Is(err, envelope.ErrPrekey) && !errors.Is(err, envelope.ErrSealed) {
					t.Errorf("open: %v", err)
				}
			}
			return n
		}
		if n := opens(b.ring.Secret); n != len(captured) {
			t.Fatalf("while its secrets live the device opens %d of %d", n, len(captured))
		}
		if found(t, b.dir, seeds) == 0 {
			t.Fatal("the secrets are not found on the disk while they live: the test seeks wrongly")
		}
		b.back()
		waitState(t, ea, last, Delivered, 6*time.Hour)

		for _, n := range nodes {
			n.stop()
		}
		time.Sleep(15 * 24 * time.Hour)
		for _, n := range nodes {
			n.start() // which erases what is over before anything else
			n.stop()
			if err := errors.Join(n.kv.Close(), n.ring.Close()); err != nil {
				t.Fatal(err)
			}
		}
		// Now everything is revealed: keys, rings, stores.
		for _, n := range nodes {
			if k := found(t, n.dir, seeds); k != 0 {
				t.Errorf("%d secrets are left on a disk", k)
			}
			ring, err := prekeys.Open(filepath.Join(n.dir, "prekeys"))
			if err != nil {
				t.Fatal(err)
			}
			if n := opens(ring.Secret); n != 0 {
				t.Errorf("%d envelopes open with what a ring holds", n)
			}
			own := envelope.OwnSecret(n.key)
			if n := opens(func(uint32) *envelope.Secret { s := *own; return &s }); n != 0 {
				t.Errorf("%d envelopes open with a node's key", n)
			}
			left, err := ring.Public()
			if err != nil || len(left) == 0 {
				t.Fatalf("prekeys of today: %v, %v", left, err)
			}
			today := ring.Secret(left[0].ID)
			if n := opens(func(id uint32) *envelope.Secret { return renumbered(t, today, id) }); n != 0 {
				t.Errorf("%d envelopes open with another day's secret", n)
			}
			if err := ring.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// renumbered is a secret under another number.
func renumbered(t testing.TB, s *envelope.Secret, id uint32) *envelope.Secret {
	t.Helper()
	b := s.Append(nil)
	b[0], b[1], b[2], b[3] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
	n, err := envelope.ParseSecret(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// found counts secrets that some file below dir has the bytes of.
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
