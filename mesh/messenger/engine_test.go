package messenger

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/messenger/envelope"
)

func TestSendReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(nil)
		ea, eb := a.start(), b.start()
		defer a.stop()
		defer b.stop()
		befriend(t, ea, eb)
		var last MessageID
		for _, s := range numbered(300) {
			last = send(t, ea, eb, s)
		}
		waitState(t, ea, last, Delivered, time.Minute)
		if got := waitTexts(t, eb, 300, time.Minute); !slices.Equal(got, numbered(300)) {
			t.Fatalf("got %q", got)
		}
		back := send(t, eb, ea, "and back")
		waitState(t, eb, back, Delivered, time.Minute)
		m, _ := ea.Messages(t.Context(), Query{Receive: true})
		if len(m) != 1 || string(m[0].Body) != "and back" || m[0].Account != eb.core.account {
			t.Fatalf("%+v", m)
		}
		if err := ea.MarkRead([]MessageID{m[0].ID}); err != nil {
			t.Fatal(err)
		}
		waitState(t, eb, back, Read, time.Minute)
		t.Logf("%+v", ea.Status())
	})
}

func TestInvite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(nil)
		ea, eb := a.start(), b.start()
		defer a.stop()
		defer b.stop()
		l, err := ea.Invite("bob", 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := eb.AddLink(l, "alice", "hello"); err != nil {
			t.Fatal(err)
		}
		id := send(t, eb, ea, "first")
		waitState(t, eb, id, Delivered, time.Minute)
		if got := waitTexts(t, ea, 1, time.Minute); got[0] != "first" {
			t.Fatal(got)
		}
		id = send(t, ea, eb, "second")
		waitState(t, ea, id, Delivered, time.Minute)
	})
}

func TestAwayAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.node(nil), w.node(nil)
		a.dir, b.dir = t.TempDir(), t.TempDir()
		ea, eb := a.start(), b.start()
		befriend(t, ea, eb)
		waitState(t, ea, send(t, ea, eb, "text 0"), Delivered, time.Minute)
		b.stop()
		var last MessageID
		for _, s := range numbered(20)[1:] {
			last = send(t, ea, eb, s)
		}
		pause(t.Context(), time.Hour)
		if m, err := ea.Message(last); err != nil || m.State != Queued || m.Next.IsZero() {
			t.Fatalf("%v %v", m.State, err)
		}
		a.stop()
		ea, eb = a.start(), b.start()
		defer a.stop()
		defer b.stop()
		waitState(t, ea, last, Delivered, time.Hour)
		if got := waitTexts(t, eb, 20, time.Minute); !slices.Equal(got, numbered(20)) {
			t.Fatalf("got %q", got)
		}
	})
}

// TestInviteOfMailbox: a link to whom we ask may be there before the asking, as to a mailbox.
func TestInviteOfMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.node(nil)
		b := w.node(func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} })
		em, eb := m.start(), b.start()
		defer m.stop()
		defer b.stop()
		pause(t.Context(), 10*time.Second)
		if eb.Status().Links != 1 {
			t.Fatal("no link to the mailbox")
		}
		l, err := em.Invite("", 1, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := eb.AddLink(l, "", ""); err != nil {
			t.Fatal(err)
		}
		waitState(t, eb, send(t, eb, em, "first"), Delivered, time.Minute)
	})
}
