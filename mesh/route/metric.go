package route

import (
	"math"
	"math/bits"
	"time"
)

// The metric of a link is one number in µs; it adds up along a path. Beside the round trip, which is what it is about, it weighs in µs
// what else makes a link worse:
//
//	HopCost       for the relay's queue and work
//	LossCost      times the share of datagrams lost: 1 % of loss weighs as much as 20 ms
//	half          of the jitter
//	CapacityCost  divided by the kbit/s that the link was seen to be full at: what four full packets wait for each other;
//	              48 ms at 1 Mbit/s, 0.5 ms at 100. A capacity that is not known costs nothing
//	FlapCost      for each time that it came back lately, from the second one on
//	Price         not measured yet: 0
//
// A link whose loss is total is none.
const (
	HopCost      = 1000
	LossCost     = 2_000_000
	CapacityCost = 48_000_000 // µs × kbit/s
	FlapCost     = 20_000
	flapFree     = 1.5 // a link may break once without being any worse for it
	flapMost     = 5.0
	lossGone     = 0.001 // less is none

	maxLinkCost = 1 << 28 // 268 s: keeps sums of costs far from the weight of a shared relay
)

// Cost is the metric of a link with these measures.
func (l Link) Cost() uint64 { return l.cost(0) }

// cost takes a price in µs, for the day when relays have one.
func (l Link) cost(price uint64) uint64 {
	c := uint64(max(l.RTT, 0)/time.Microsecond) + uint64(l.Loss*LossCost) + HopCost + uint64(max(l.Jitter, 0)/time.Microsecond)/2
	if l.Capacity > 0 {
		c += CapacityCost / l.Capacity
	}
	c += uint64(min(max(l.Flaps-flapFree, 0), flapMost) * FlapCost)
	return min(c+min(price, maxLinkCost), maxLinkCost)
}

// worse joins what both ends of a link say of it.
func (l Link) worse(o Link) Link {
	l.RTT, l.Loss, l.Jitter, l.Flaps = max(l.RTT, o.RTT), max(l.Loss, o.Loss), max(l.Jitter, o.Jitter), max(l.Flaps, o.Flaps)
	if l.Capacity == 0 || o.Capacity != 0 && o.Capacity < l.Capacity {
		l.Capacity = o.Capacity
	}
	l.Up = min(l.Up, o.Up)
	if l.MTU == 0 || o.MTU != 0 && o.MTU < l.MTU {
		l.MTU = o.MTU
	}
	l.Carrier = max(l.Carrier, o.Carrier)
	return l
}

// UpFor is how long a link is up at least, as a record tells it.
func (l Link) UpFor() time.Duration {
	if l.Up == 0 {
		return 0
	}
	return time.Second << (min(l.Up, maxUp) - 1)
}

// UpSteps is what Link.Up says of a link that is up for so long: powers of two, so that a record need not be signed anew because time
// passes.
func UpSteps(d time.Duration) uint8 {
	return uint8(min(bits.Len64(uint64(max(d, 0)/time.Second)), maxUp))
}

const maxUp = 24 // half a year

// Values of Link.Carrier.
const (
	CarrierUDP uint8 = iota + 1
	CarrierTCP
	CarrierWSS

	maxCarrier = 7
)

// CarrierName is how people write a carrier; empty where it is not known.
func CarrierName(c uint8) string {
	if c < 1 || c > CarrierWSS {
		return ""
	}
	return [...]string{"udp", "tcp", "wss"}[c-1]
}

// significant tells whether measures of the same links drifted far enough to be told at once: a quarter and 2 ms of round trip, 1 % of
// loss or the end of all loss, a flap, or twice or half the capacity.
func significant(a, b *Record) bool {
	for i := range min(len(a.Links), len(b.Links)) {
		x, y := a.Links[i], b.Links[i]
		if d := (x.RTT - y.RTT).Abs(); d >= 2*time.Millisecond && d >= x.RTT/4 {
			return true
		}
		if math.Abs(x.Loss-y.Loss) >= 0.01 || x.Loss >= 3*lossGone && y.Loss < lossGone {
			return true
		}
		if math.Abs(max(x.Flaps, flapFree)-max(y.Flaps, flapFree)) >= 1 {
			return true
		}
		if low, high := min(x.Capacity, y.Capacity), max(x.Capacity, y.Capacity); high > 2*low && CapacityCost/high+2000 < CapacityCost/max(low, 1) {
			return true
		}
	}
	return false
}

// drifted tells whether measures changed enough to be told at all before a record is signed anew in any case: costs by a twentieth
// and half a millisecond. Round trips differ by microseconds at each look, and a record travels to every node of the mesh.
func drifted(a, b *Record) bool {
	for i := range min(len(a.Links), len(b.Links)) {
		x, y := a.Links[i].Cost(), b.Links[i].Cost()
		if low, high := min(x, y), max(x, y); high-low >= 500 && high-low >= high/20 {
			return true
		}
		if a.Links[i].MTU != b.Links[i].MTU || a.Links[i].Carrier != b.Links[i].Carrier {
			return true
		}
	}
	return false
}
