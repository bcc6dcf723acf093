package meshtest

import (
	"encoding/binary"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/node"
)

// udpPacket is packet as UDP from a port.
func udpPacket(from, to *Node, port uint16, number uint32) []byte {
	p := packet(from, to, number)
	p[6] = 17
	binary.BigEndian.PutUint16(p[40:], port)
	binary.BigEndian.PutUint16(p[42:], 5004)
	binary.BigEndian.PutUint16(p[44:], 100)
	binary.BigEndian.PutUint32(p[48:], number)
	return p
}

// TestSpreadFlows spreads forty flows over three relays and kills one: only its flows notice, and come back.
func TestSpreadFlows(t *testing.T) {
	t.Parallel()
	n := New(70, testLog())
	a, b, rs := fan(n, Options{Core: node.CoreConfig{Ways: node.WaysConfig{Spread: 3}}}, 3, Wire{Delay: 4 * time.Millisecond})
	const flows = 40
	var last, gap [flows]time.Duration
	b.Stack = func(_ *Node, p []byte) {
		i := binary.BigEndian.Uint16(p[40:])
		gap[i] = max(gap[i], n.Now()-last[i])
		last[i] = n.Now()
	}
	var send func()
	send = func() {
		for i := range uint16(flows) {
			a.Send(udpPacket(a, b, i, 0))
		}
		n.After(10*time.Millisecond, send)
	}
	n.Run(3 * time.Second)
	send()
	n.Run(8 * time.Second)
	shares := map[*Node]int{}
	n.Tap = func(from, to *Node, d []byte) {
		if isData(d) && to == b {
			shares[from]++
		}
	}
	n.Run(time.Second)
	n.Tap = nil
	for _, r := range rs {
		if share := shares[r]; share < 500 || share > 2500 { // of 4,000
			t.Errorf("%s carries %d of 4,000 packets", r.Name, share)
		}
	}
	gap = [flows]time.Duration{}
	rs[1].Stop()
	n.Run(2 * time.Second)
	hit := 0
	for i := range gap {
		gap[i] = max(gap[i], n.Now()-last[i])
		switch {
		case gap[i] > 400*time.Millisecond:
			t.Errorf("flow %d has a gap of %v", i, gap[i])
		case gap[i] > 40*time.Millisecond:
			hit++
		}
	}
	t.Logf("%d of %d flows had a gap", hit, flows)
	if hit == 0 || hit > flows*2/3 {
		t.Errorf("%d of %d flows had a gap, want those of one path of three", hit, flows)
	}
}

// TestCopiedPackets sends small packets twice over lossy ways, and kills the relay in use.
func TestCopiedPackets(t *testing.T) {
	t.Parallel()
	for _, there := range []bool{true, false} {
		n := New(71, testLog())
		o := Options{Core: node.CoreConfig{Ways: node.WaysConfig{Copies: forward.Copies{Size: 256, Ports: []forward.PortRange{{First: 5004, Last: 5005}}}}}}
		a, b, rs := fan(n, o, 2, Wire{Delay: 4 * time.Millisecond})
		if !there {
			a, b = b, a
		}
		seen := map[uint32]int{}
		b.Stack = func(_ *Node, p []byte) { seen[binary.BigEndian.Uint32(p[48:])]++ }
		number, stop := uint32(0), false
		var send func()
		send = func() {
			if !stop {
				number++
				a.Send(udpPacket(a, b, 1, number))
				n.After(5*time.Millisecond, send)
			}
		}
		n.Run(3 * time.Second)
		send()
		n.Run(4 * time.Second)
		lost := func() int { return int(number) - len(seen) }
		settled := lost()
		rs[0].Stop()
		n.Run(2 * time.Second)
		if got := lost() - settled; got > 4 { // what is under way
			t.Errorf("%d packets lost when a relay was killed", got)
		}
		rs[0].Start()
		rs[0].Dial(a)
		rs[0].Dial(b)
		n.Run(10 * time.Second)
		settled = lost()
		at := number
		for _, w := range n.wires {
			w.Loss = 0.03
		}
		n.Run(10 * time.Second)
		stop = true
		n.Run(time.Second)
		if share := float64(lost()-settled) / float64(number-at); share > 0.02 {
			t.Errorf("%.1f %% lost of packets that travel twice, over ways that lose 6 %%", share*100)
		}
		for i, times := range seen {
			if times != 1 {
				t.Fatalf("packet %d came %d times", i, times)
			}
		}
	}
}
