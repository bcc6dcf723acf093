package meshtest

import (
	"encoding/binary"
	"time"

	"skywire/mesh/key"
)

const (
	flowHeader = 40 + 4 + 4 + 8 // IPv6 header, id, number, time of sending
	flowProto  = 253            // RFC 3692 experiments
)

// Flow sends numbered packets from one node's TUN to another's, and notes what arrives and when.
type Flow struct {
	From, To *Node
	Sent     uint32
	Arrived  uint32
	Twice    uint32        // arrived more than once
	Gap      time.Duration // longest silence at the far end since Mark
	Last     time.Duration // when the last packet arrived, 0 never
	Delay    time.Duration // of the last packet
	OnPacket func()        // if set, called for each packet that arrives

	net     *Net
	id      uint32
	packet  []byte
	stopped bool
	marked  uint32 // Sent and Arrived at Mark
	arrived uint32
	from    time.Duration // when Mark was
	seen    [4096]uint32  // numbers, to find those that come twice
}

// Flow starts a flow of packets of so many bytes.
func (n *Net) Flow(from, to *Node, every time.Duration, size int) *Flow {
	f := &Flow{From: from, To: to, net: n, id: uint32(len(n.flows)), from: n.now}
	n.flows = append(n.flows, f)
	f.packet = make([]byte, max(size, flowHeader))
	f.packet[0], f.packet[6], f.packet[7] = 6<<4, flowProto, 64
	binary.BigEndian.PutUint16(f.packet[4:], uint16(len(f.packet)-40))
	copy(f.packet[8:], key.Open().Address(from.Key).AsSlice())
	copy(f.packet[24:], key.Open().Address(to.Key).AsSlice())
	binary.BigEndian.PutUint32(f.packet[40:], f.id|1<<31)
	var send func()
	send = func() {
		if f.stopped {
			return
		}
		if from.Core != nil {
			f.Sent++
			binary.BigEndian.PutUint32(f.packet[44:], f.Sent)
			binary.BigEndian.PutUint64(f.packet[48:], uint64(n.now))
			from.Send(f.packet)
		}
		n.After(every, send)
	}
	n.After(0, send)
	return f
}

// Stop ends the flow; what is under way still arrives.
func (f *Flow) Stop() { f.stopped = true }

// Mark begins to count gaps and losses anew.
func (f *Flow) Mark() { f.Gap, f.marked, f.arrived, f.from = 0, f.Sent, f.Arrived, f.net.now }

// Silence is the longest time without a packet since Mark, the present one included.
func (f *Flow) Silence() time.Duration {
	if f.stopped {
		return f.Gap
	}
	return max(f.Gap, f.net.now-max(f.Last, f.from))
}

// Lost is how many packets did not arrive of those sent since Mark. Those under way count as lost.
func (f *Flow) Lost() (lost, sent int) {
	sent = int(f.Sent - f.marked)
	return max(0, sent-int(f.Arrived-f.arrived)), sent
}

// delivered takes a packet out of a TUN; false if it is of no flow.
func (n *Net) delivered(at *Node, p []byte) bool {
	if len(p) < flowHeader || p[0]>>4 != 6 || p[6] != flowProto {
		return false
	}
	id := binary.BigEndian.Uint32(p[40:])
	if id>>31 == 0 || int(id&^(1<<31)) >= len(n.flows) {
		return false
	}
	f := n.flows[id&^(1<<31)]
	if f.To != at {
		n.Stray++
		return true
	}
	number := binary.BigEndian.Uint32(p[44:])
	if seen := &f.seen[number%uint32(len(f.seen))]; *seen == number {
		f.Twice++
		return true
	} else {
		*seen = number
	}
	f.Arrived++
	f.Gap = max(f.Gap, n.now-max(f.Last, f.from))
	f.Last, f.Delay = n.now, n.now-time.Duration(binary.BigEndian.Uint64(p[48:]))
	if f.OnPacket != nil {
		f.OnPacket()
	}
	return true
}
