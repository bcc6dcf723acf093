package meshtest

import (
	"net/netip"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// queueMost is how much a wire of limited rate holds back before it drops.
const queueMost = 100 * time.Millisecond

// Wire joins two nodes. The zero value is perfect and instant. Its fields may be changed at any time.
type Wire struct {
	Delay, Jitter time.Duration
	Loss          float64 // 0 to 1, as the shares below
	Reorder       float64 // come later than what is sent after them, by three times the delay and 1 ms
	Duplicate     float64 // come twice
	Corrupt       float64 // come with a bit turned over
	Rate          uint64  // bit/s each way, 0 unlimited; what waits longer than 100 ms is dropped
	MTU           int     // largest UDP payload; 0: 1472
	Down          bool

	busy [2]time.Duration // until when each direction sends what it holds
}

// Connect puts a wire between two nodes.
func (n *Net) Connect(a, b *Node, w Wire) *Wire {
	if w.MTU == 0 {
		w.MTU = 1472
	}
	p := &w
	if n.wires[[2]*Node{a, b}] == nil {
		n.pairs = append(n.pairs, [2]*Node{a, b})
	}
	n.wires[[2]*Node{a, b}] = p
	n.wires[[2]*Node{b, a}] = p
	return p
}

// Wire returns the wire between two nodes, nil if there is none.
func (n *Net) Wire(a, b *Node) *Wire { return n.wires[[2]*Node{a, b}] }

// Wires calls f for each wire, in the order in which they were made.
func (n *Net) Wires(f func(a, b *Node, w *Wire)) {
	for _, p := range n.pairs {
		f(p[0], p[1], n.wires[p])
	}
}

// transmit puts datagrams on the wire to an address.
func (n *Net) transmit(from *Node, to netip.AddrPort, train []byte, seg int) {
	dst, src := n.leave(from, to)
	w := n.wires[[2]*Node{from, dst}]
	if w == nil || w.Down {
		return
	}
	for len(train) > 0 {
		size := min(seg, len(train))
		b := n.buffer(train[:size])
		train = train[size:]
		n.Datagrams++
		from.SentDatagrams++
		from.SentBytes += uint64(size)
		if t := b[0]; t != wire.TypeSealed && t != wire.TypePresealed {
			from.SentControl += uint64(size)
		}
		for _, v := range [...]uint64{uint64(n.now), uint64(from.index), uint64(dst.index), uint64(size)} {
			n.trace = (n.trace ^ v) * 0x100000001b3 // FNV-1a, by words
		}
		if n.Tap != nil {
			n.Tap(from, dst, b)
		}
		if size > w.MTU || n.rand.Float64() < w.Loss || n.Drop != nil && n.Drop(from, dst, b) {
			n.lose(b)
			continue
		}
		d, ok := w.takes(n.now, from.index < dst.index, size)
		if !ok {
			n.lose(b)
			continue
		}
		if w.Jitter > 0 {
			d += time.Duration(n.rand.Int64N(int64(w.Jitter)))
		}
		if w.Reorder > 0 && n.rand.Float64() < w.Reorder {
			d += 3*w.Delay + time.Millisecond
		}
		if w.Corrupt > 0 && n.rand.Float64() < w.Corrupt {
			b[n.rand.IntN(len(b))] ^= 1 << n.rand.IntN(8)
		}
		if w.Duplicate > 0 && n.rand.Float64() < w.Duplicate {
			n.arrive(w, to, src, n.buffer(b), d)
		}
		n.arrive(w, to, src, b, d)
	}
}

// takes returns when a datagram has passed the wire, false if too many wait for that.
func (w *Wire) takes(now time.Duration, up bool, size int) (after time.Duration, ok bool) {
	if w.Rate == 0 {
		return w.Delay, true
	}
	busy := &w.busy[0]
	if up {
		busy = &w.busy[1]
	}
	start := max(now, *busy)
	if start-now > queueMost {
		return 0, false
	}
	*busy = start + time.Duration(uint64(size+28)*8*uint64(time.Second)/w.Rate) // with headers of IP and UDP
	return *busy - now + w.Delay, true
}

func (n *Net) arrive(w *Wire, to, src netip.AddrPort, b []byte, after time.Duration) {
	n.After(after, func() {
		if dst := n.enter(src, to); !w.Down && dst != nil { // else it moved away meanwhile, or a NAT keeps it out
			dst.receive(forward.Endpoint{Addr: src}, b)
		}
		n.release(b)
	})
}

func (n *Net) lose(b []byte) {
	n.Lost++
	n.release(b)
}

// buffer copies b into a buffer that release takes back: a minute of a thousand nodes is millions of datagrams.
func (n *Net) buffer(b []byte) []byte {
	if i := len(n.spare) - 1; i >= 0 {
		s := n.spare[i]
		n.spare = n.spare[:i]
		return append(s, b...)
	}
	return append(make([]byte, 0, max(1536, len(b))), b...)
}

func (n *Net) release(b []byte) { n.spare = append(n.spare, b[:0]) }
