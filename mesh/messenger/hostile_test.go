package messenger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// boxEntry is an envelope that a mailbox keeps, and for whom.
type boxEntry struct {
	d *device
	k kept
}

// meddle lets a mailbox do with what it keeps whatever it likes: fn gets all of it, in order, and gives what it has then.
func meddle(t testing.TB, m *Engine, fn func(all []boxEntry, dev func(*Engine) *device) []boxEntry) {
	t.Helper()
	m.call(func(c *core) {
		var all []boxEntry
		for _, e := range c.all(bBox) {
			d := c.devByNo[binary.BigEndian.Uint32(e.key)]
			k := parseKept(bytes.Clone(e.value))
			all = append(all, boxEntry{d, *k})
			c.unkeep(d, binary.BigEndian.Uint64(e.key[4:]), e.value)
		}
		for _, x := range fn(all, func(e *Engine) *device { return c.devices[e.core.self] }) {
			no := c.number()
			c.put(bBox, append(be32(x.d.number), be64(no)...), x.k.append(nil))
			id := envelope.EnvelopeID{0xee} // of what is no envelope any more
			binary.BigEndian.PutUint64(id[8:], no)
			c.boxed(x.d, &x.k, id, no, 1)
		}
	})
}

func TestHostileMailbox(t *testing.T) {
	t.Parallel()
	for name, evil := range map[string]func(all []boxEntry, own, other *device) []boxEntry{
		"drops": func(all []boxEntry, _, _ *device) (left []boxEntry) {
			for i, x := range all {
				if i%2 == 0 {
					left = append(left, x)
				}
			}
			return left
		},
		"drops all":  func([]boxEntry, *device, *device) []boxEntry { return nil },
		"replays":    func(all []boxEntry, _, _ *device) []boxEntry { return slices.Concat(all, all, all) },
		"turns over": func(all []boxEntry, _, _ *device) []boxEntry { slices.Reverse(all); return all },
		"alters": func(all []boxEntry, _, _ *device) []boxEntry {
			for i := range all {
				if i%2 == 1 {
					all[i].k.raw = bytes.Clone(all[i].k.raw)
					all[i].k.raw[50+97*i%(len(all[i].k.raw)-58)] ^= 1 << (i % 8)
				}
			}
			return all
		},
		"cuts": func(all []boxEntry, _, _ *device) []boxEntry {
			for i := range all {
				if i%2 == 1 {
					all[i].k.raw = all[i].k.raw[:len(all[i].k.raw)-64]
				}
			}
			return all
		},
		"gives to another": func(all []boxEntry, _, other *device) []boxEntry {
			for i := range all {
				all[i].d = other
			}
			return all
		},
		"addresses to another": func(all []boxEntry, _, other *device) []boxEntry {
			for i := range all {
				all[i].d = other
				all[i].k.raw = bytes.Clone(all[i].k.raw)
				copy(all[i].k.raw[2:], other.key[:])
			}
			return all
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { hostileMailbox(t, evil) })
		})
	}
}

// hostileMailbox: a sends to b, who is off, by a mailbox that does evil. b reads each text once and in order, c nothing; what did
// not come is not called delivered, and comes when the mailbox mends its ways.
func hostileMailbox(t *testing.T, evil func(all []boxEntry, own, other *device) []boxEntry) {
	w := newWorld(t)
	m := w.node(func(c *Config) { c.KeepFor = true })
	withBox := func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} }
	a, b, c := w.node(withBox), w.node(withBox), w.node(withBox)
	nodes := []*testNode{m, a, b, c}
	em, ea, eb, ec := m.start(), a.start(), b.start(), c.start()
	for _, e := range []*Engine{ea, eb, ec} {
		befriend(t, em, e)
	}
	befriend(t, ea, eb)
	befriend(t, ea, ec)
	waitState(t, ea, send(t, ea, eb, "text 0"), Delivered, time.Minute)
	waitState(t, ea, send(t, ea, ec, "for c"), Delivered, time.Minute)
	a.cut[b.key.Public()], b.cut[a.key.Public()] = true, true // from now on they have the mailbox alone
	a.cut[c.key.Public()], c.cut[a.key.Public()] = true, true
	b.off()
	c.off()
	ids := []MessageID{}
	const n = 12
	for i := 1; i <= n; i++ {
		id := send(t, ea, eb, fmt.Sprintf("text %d", i))
		waitState(t, ea, id, Stored, time.Hour)
		ids = append(ids, id)
	}
	count := 0
	meddle(t, em, func(all []boxEntry, dev func(*Engine) *device) []boxEntry {
		for _, x := range all {
			if _, err := envelope.Open(x.k.raw, m.key.Public(), m.ring.Secret); !errors.Is(err, envelope.ErrMisdirected) {
				t.Errorf("the mailbox opens it: %v", err)
			}
			raw := bytes.Clone(x.k.raw)
			self := m.key.Public()
			copy(raw[2:], self[:])
			if _, err := envelope.Open(raw, self, m.ring.Secret); err == nil {
				t.Error("the mailbox opens it, addressed to itself")
			}
			if who := a.key.Public(); bytes.Contains(x.k.raw, []byte("text")) || bytes.Contains(x.k.raw, who[:]) {
				t.Error("the mailbox sees text or sender")
			}
		}
		count = len(all)
		return evil(all, dev(eb), dev(ec))
	})
	if count < n {
		t.Fatalf("%d envelopes for %d texts", count, n)
	}
	b.back()
	c.back()
	time.Sleep(20 * time.Minute)
	got := texts(t, eb)
	if !slices.Equal(got, numbered(n + 1)[:len(got)]) {
		t.Errorf("after the evil b has %q", got)
	}
	if all := texts(t, ec); !slices.Equal(all, []string{"for c"}) {
		t.Errorf("c has %q", all)
	}
	eb.mu.Lock()
	in := eb.core.devices[a.key.Public()].in[streamOrdered]
	eb.mu.Unlock()
	missing := 0
	for i, id := range ids {
		seq := uint64(i + 2) // the first went directly
		has := seq <= in.Upto || in.early[seq]
		if !has {
			missing++
		}
		if v, err := ea.Message(id); err != nil || v.State == Failed || v.State == Delivered && !has {
			t.Errorf("text %d is %s (%s), b has it: %v; %v", i+1, v.State, v.Reason, has, err)
		}
	}
	// The sender leaves it again where no receipt came, and all arrives, nothing twice.
	ctx, cancel := context.WithTimeout(t.Context(), 72*time.Hour)
	defer cancel()
	for i, id := range ids {
		if v, err := ea.Wait(ctx, id, Delivered); err != nil {
			t.Errorf("text %d is %s (%s) after three days", i+1, v.State, v.Reason)
			for _, e := range []*Engine{ea, em, eb} {
				t.Logf("%+v\n%+v", e.Status(), e.Devices(key.Public{}))
			}
			break
		}
	}
	if got := texts(t, eb); !slices.Equal(got, numbered(n+1)) {
		t.Errorf("b has %q", got)
	}
	t.Logf("%d missing at first; counters of b: %v", missing, eb.Status().Counters)
	for _, n := range nodes {
		n.stop()
	}
}
