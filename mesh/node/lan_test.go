package node

import (
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
)

func lanAddr(n int) forward.Endpoint {
	return forward.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(n >> 8), byte(n)}), 7667)}
}

// TestMet: who says to be on the LAN gets one handshake, if it may link at all.
func TestMet(t *testing.T) {
	t.Parallel()
	friend, stranger := someKey(t, 20).Public(), someKey(t, 21).Public()
	n, out := loneCore(t, func(c *CoreConfig) { c.Allow = []key.Public{friend} })
	now := time.Second
	n.Met(now, stranger, lanAddr(1))
	n.Met(now, n.self, lanAddr(2))
	if len(out.sent) > 0 || len(n.meetings) > 0 {
		t.Errorf("sent to %v, met %v", out.sent, n.meetings)
	}
	n.Met(now, friend, lanAddr(3))
	n.Met(now+time.Millisecond, friend, lanAddr(4))
	if len(out.sent) != 1 || out.sent[0] != lanAddr(3) {
		t.Errorf("sent to %v", out.sent)
	}
	for range 100 {
		now += 100 * time.Millisecond
		n.Tick(now)
	}
	if len(out.sent) != 1 || n.links.ByPeer(friend) != nil {
		t.Errorf("nobody was there, and still %d were sent", len(out.sent))
	}
}

// TestMetStorm: in an open mesh anybody can invent keys. They cost few handshakes and little memory, and leave room for links.
func TestMetStorm(t *testing.T) {
	t.Parallel()
	n, out := loneCore(t, func(c *CoreConfig) { c.Open = true })
	now := time.Second
	for i := range 3000 {
		k := key.Public{byte(i), byte(i >> 8), 1}
		n.Met(now, k, lanAddr(i))
		if i%10 == 0 {
			now += 100 * time.Millisecond // thirty seconds in all
			n.Tick(now)
		}
		pending := 0
		n.links.All(func(*link.Link) { pending++ })
		if pending > lanPending {
			t.Fatalf("%d links under way", pending)
		}
	}
	if len(n.meetings) > lanHeard {
		t.Errorf("%d remembered", len(n.meetings))
	}
	if len(out.sent) > 200 {
		t.Errorf("%d handshakes in thirty seconds", len(out.sent))
	}
}

// TestSeeks: with links enough only the next key in the ring is sought.
func TestSeeks(t *testing.T) {
	t.Parallel()
	n, _ := loneCore(t, func(c *CoreConfig) { c.Open = true })
	n.meetings = map[key.Public]meeting{}
	n.self = key.Public{50}
	for _, first := range []byte{10, 60, 70, 200} {
		n.meetings[key.Public{first}] = meeting{heard: time.Second}
	}
	if got := n.next(2 * time.Second); got != (key.Public{60}) {
		t.Errorf("after 50 comes %d", got[0])
	}
	n.self = key.Public{201}
	if got := n.next(2 * time.Second); got != (key.Public{10}) {
		t.Errorf("after 201 comes %d", got[0])
	}
	if got := n.next(time.Hour); !got.IsZero() {
		t.Errorf("%d was heard too long ago", got[0])
	}
}

func TestKnown(t *testing.T) {
	t.Parallel()
	friend := someKey(t, 20).Public()
	static, _ := loneCore(t, func(c *CoreConfig) { c.Allow = []key.Public{friend} })
	open, _ := loneCore(t, func(c *CoreConfig) { c.Open = true })
	cluster, _ := loneCore(t, func(c *CoreConfig) { c.Network = key.Cluster(friend) })
	if static.known() || !open.known() || !cluster.known() {
		t.Error(static.known(), open.known(), cluster.known())
	}
	if m := static.missing(); len(m) != 1 || m[0] != friend {
		t.Error(m)
	}
}
