package node

import (
	"time"

	"skywire/mesh/link"
	"skywire/mesh/route"
)

// Counts implements link.Host: losses are measured over the data that the plane moves.
func (h *host) Counts(l *link.Link) (received, sent, bytes uint64) {
	st := h.core().neighbour(l).plane.Stats()
	return st.ReceivedFrames, st.SentFrames, st.ReceivedBytes
}

// stated is what our record says of a link.
func stated(now time.Duration, l *link.Link) route.Link {
	return route.Link{
		Peer: l.Peer(), RTT: l.RTT(), Loss: l.Loss(), Capacity: l.Capacity(now), Jitter: l.Jitter(), Flaps: l.Flaps(now),
		Up: route.UpSteps(now - l.UpSince()), MTU: l.MTU(), Carrier: route.CarrierUDP + uint8(link.CarrierOf(l.Endpoint())),
	}
}
