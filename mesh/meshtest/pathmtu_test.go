package meshtest

import (
	"encoding/binary"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/node"
)

// sizedPacket is packet with size bytes.
func sizedPacket(from, to *Node, number uint32, size int) []byte {
	p := append(packet(from, to, number), make([]byte, size-140)...)
	binary.BigEndian.PutUint16(p[4:], uint16(size-40))
	return p
}

// pathMTU is the size of the path that from sends on to to, 0 if there is none.
func pathMTU(from, to *Node) int {
	s := from.Core.SessionAt(key.Open().Address(to.Key))
	if s == nil || s.Active() == nil {
		return 0
	}
	return s.Active().MTU()
}

// stream sends big packets from a to b, and small ones back, until stop.
func stream(n *Net, a, b *Node, every time.Duration) (arrived *int, stop func()) {
	arrived = new(int)
	b.Stack = func(_ *Node, p []byte) { *arrived++ }
	ended := false
	var send func()
	send = func() {
		if ended {
			return
		}
		a.Send(sizedPacket(a, b, 1, 1400))
		b.Send(packet(b, a, 1))
		n.After(every, send)
	}
	n.After(0, send)
	return arrived, func() { ended = true }
}

// slowRekey keeps links from probing their wires anew while a test looks at paths.
func slowRekey() Options {
	return Options{Core: node.CoreConfig{Rekey: time.Hour, Timers: link.Timers{Rekey: time.Hour}}}
}

// TestBlackHole has a wire behind a relay swallow big frames without a word: small ones pass, so the path is alive.
func TestBlackHole(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name     string
		mtu      int // of the wire, all at once
		from, to int // what the path may settle at
	}{
		{"tunnel", 1300, 1232, 1300},
		{"narrow tunnel", 1000, 548, 1000},
		{"576 bytes", 548, 548, 548},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			n := New(31, testLog())
			o := slowRekey()
			a, r, b := n.Add("a", o), n.Add("r", o), n.Add("b", o)
			n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
			w := n.Connect(r, b, Wire{Delay: 5 * time.Millisecond})
			a.Dial(r)
			b.Dial(r)
			n.Run(2 * time.Second)
			arrived, stop := stream(n, a, b, 100*time.Millisecond)
			n.Run(5 * time.Second)
			if mtu := pathMTU(a, b); mtu != 1472 || *arrived < 40 {
				t.Fatalf("before anything happened: mtu %d, %d packets arrived", mtu, *arrived)
			}
			w.MTU = tc.mtu
			*arrived = 0
			if !n.RunUntil(10*time.Second, func() bool { return *arrived > 0 }) {
				t.Fatalf("no packet arrives 10 s after the wire became smaller, mtu %d", pathMTU(a, b))
			}
			n.Run(8 * time.Second)
			if mtu := pathMTU(a, b); mtu < tc.from || mtu > tc.to {
				t.Errorf("mtu %d, want %d to %d", mtu, tc.from, tc.to)
			}
			*arrived = 0
			n.Run(10 * time.Second)
			if *arrived < 95 {
				t.Errorf("%d of 100 packets arrive at the smaller size", *arrived)
			}
			w.MTU = 1472
			n.Run(2 * time.Minute)
			if mtu := pathMTU(a, b); mtu != 1472 {
				t.Errorf("mtu %d two minutes after the wire became whole again, want 1472", mtu)
			}
			stop()
		})
	}
}

// TestBlackHoleDirect is the same on a path of one link, whose own probes find the size.
func TestBlackHoleDirect(t *testing.T) {
	t.Parallel()
	n := New(32, testLog())
	a, b := n.Add("a", slowRekey()), n.Add("b", slowRekey())
	w := n.Connect(a, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(b)
	n.Run(2 * time.Second)
	arrived, stop := stream(n, a, b, 100*time.Millisecond)
	defer stop()
	n.Run(5 * time.Second)
	w.MTU = 1000
	*arrived = 0
	if !n.RunUntil(10*time.Second, func() bool { return *arrived > 0 }) {
		t.Fatalf("no packet arrives 10 s after the wire became smaller, mtu %d", pathMTU(a, b))
	}
	n.Run(5 * time.Second)
	if mtu := pathMTU(a, b); mtu != 952 {
		t.Errorf("mtu %d, want 952", mtu)
	}
}

// TestRaisedAgain lowers a path by a relay's word, and wants it up again when the relay's wire is whole.
func TestRaisedAgain(t *testing.T) {
	t.Parallel()
	n := New(33, testLog())
	o := Options{Core: node.CoreConfig{Timers: link.Timers{Rekey: 20 * time.Second}}}
	a, r, b := n.Add("a", o), n.Add("r", o), n.Add("b", o)
	n.Connect(a, r, Wire{Delay: 5 * time.Millisecond})
	w := n.Connect(r, b, Wire{Delay: 5 * time.Millisecond, MTU: 1380})
	a.Dial(r)
	b.Dial(r)
	n.Run(2 * time.Second)
	arrived, stop := stream(n, a, b, 100*time.Millisecond)
	defer stop()
	n.Run(40 * time.Second)
	if mtu := pathMTU(a, b); mtu != 1372 {
		t.Fatalf("mtu %d of a path over a wire of 1,380, want 1372", mtu)
	}
	before := n.Lost
	w.MTU = 1472 // links find out at their rekeys, the path by itself
	n.Run(10 * time.Minute)
	if mtu := pathMTU(a, b); mtu != 1472 {
		t.Errorf("mtu %d ten minutes after the wire became wider, want 1472", mtu)
	}
	if lost := n.Lost - before; lost > 100 {
		t.Errorf("%d datagrams lost meanwhile: probes are to be few", lost)
	}
	*arrived = 0
	n.Run(10 * time.Second)
	if *arrived < 99 {
		t.Errorf("%d of 100 packets arrive", *arrived)
	}
}

// TestLossIsNoBlackHole wants the size of a path over bad wires to stay.
func TestLossIsNoBlackHole(t *testing.T) {
	t.Parallel()
	n := New(34, testLog())
	a, r, b := n.Add("a", slowRekey()), n.Add("r", slowRekey()), n.Add("b", slowRekey())
	w1, w2 := n.Connect(a, r, Wire{Delay: 20 * time.Millisecond}), n.Connect(r, b, Wire{Delay: 20 * time.Millisecond})
	a.Dial(r)
	b.Dial(r)
	n.Run(5 * time.Second) // the links have found their sizes
	w1.Loss, w2.Loss = 0.05, 0.05
	_, stop := stream(n, a, b, 20*time.Millisecond)
	defer stop()
	small := 0
	for range 600 {
		n.Run(time.Second)
		if mtu := pathMTU(a, b); mtu != 0 && mtu < 1472 {
			small++
		}
	}
	t.Logf("%d of 600 seconds below the full size", small)
	if small > 60 {
		t.Errorf("%d of 600 seconds below the full size", small)
	}
}
