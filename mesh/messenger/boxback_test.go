package messenger

import (
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/messenger/envelope"
)

// TestMailboxComesBack: a device whose mailbox was off for a moment is there again soon, though it has nothing to leave: something
// may have come for it.
func TestMailboxComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		m := w.node(func(c *Config) { c.KeepFor = true })
		a := w.node(func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} })
		em, ea := m.start(), a.start()
		befriend(t, em, ea)
		waitState(t, ea, send(t, ea, em, "text"), Delivered, time.Minute)
		linked := func() bool {
			all := ea.Devices(m.key.Public())
			return len(all) == 1 && all[0].Linked
		}
		pause(t.Context(), 3*time.Minute)
		if !linked() {
			t.Fatal("it does not stay with its mailbox")
		}
		m.stop()
		pause(t.Context(), 10*time.Second)
		if linked() {
			t.Fatal("the mailbox is off, and it has a link to it")
		}
		m.start()
		pause(t.Context(), 30*time.Second)
		if !linked() {
			t.Error("half a minute after the mailbox came back it has no link to it")
		}
		m.stop()
		a.stop()
	})
}
