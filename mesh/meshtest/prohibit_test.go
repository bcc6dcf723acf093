package meshtest

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/node"
)

// TestProhibited sends to a private address behind an exit that does not serve it: the sender is told, and soon.
func TestProhibited(t *testing.T) {
	t.Parallel()
	n := New(51, testLog())
	a, b := n.Add("a", Options{}), n.Add("b", Options{})
	n.Connect(a, b, Wire{Delay: 5 * time.Millisecond})
	a.Dial(b)
	n.Run(2 * time.Second)
	client, all := netip.MustParsePrefix("100.64.0.5/32"), netip.MustParsePrefix("0.0.0.0/0")
	a.Core.SetPolicy(node.Policy{
		Routes: []node.PrefixOf{{Prefix: all, Key: b.Key}}, Grants: []node.PrefixOf{{Prefix: all, Key: b.Key}},
		Serve: []node.PrefixOf{{Prefix: client, Key: b.Key}},
	})
	b.Core.SetPolicy(node.Policy{
		Routes: []node.PrefixOf{{Prefix: client, Key: a.Key}}, Grants: []node.PrefixOf{{Prefix: client, Key: a.Key}},
		Serve: []node.PrefixOf{{Prefix: netip.MustParsePrefix("8.0.0.0/8"), Key: a.Key}},
	})
	n.Run(time.Second)
	packet := make([]byte, 60)
	packet[0], packet[8], packet[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(packet[2:], 60)
	copy(packet[12:], []byte{100, 64, 0, 5})
	send := func(to byte) { copy(packet[16:], []byte{to, 91, 0, 9}); a.Send(packet) }
	answers, delivered := 0, 0
	a.Stack = func(_ *Node, p []byte) {
		if p[9] == 1 && p[20] == 3 && p[21] == 13 && string(p[28:88]) == string(packet) && [4]byte(p[12:16]) == [4]byte{10, 91, 0, 9} {
			answers++
		}
	}
	b.Stack = func(*Node, []byte) { delivered++ }
	send(8)
	n.Run(2 * time.Second)
	if delivered != 1 || answers != 0 {
		t.Fatalf("to an address served: %d delivered, %d answers", delivered, answers)
	}
	send(10)
	n.Run(100 * time.Millisecond)
	if delivered != 1 || answers != 1 {
		t.Fatalf("to an address not served: %d delivered, %d answers", delivered, answers)
	}
	n.Run(2 * time.Second)
	answers = 0
	for range 5000 {
		send(10)
		n.Run(time.Millisecond / 10)
	}
	if answers < 50 || answers > 200 {
		t.Errorf("%d answers to 5,000 packets within half a second, want 100", answers)
	}
}
