package stream

import (
	"math"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// Which connections Cubic holds back. The measure is QUIC's own: packets sent and lost, and round trips, of the very
// packets that the streams are made of.

const (
	// moveAfter is what a stream has sent before its end thinks of moving it: most streams are over by then.
	moveAfter = 64 << 10
	// sampleLost and sampleFew close a sample once it says something; sampleMany closes one that shows no loss to speak of.
	sampleLost = 2
	sampleFew  = 100
	sampleMany = 20_000
	// heldStrikes is how many samples in a row must be bad: the end of slow start loses a burst once.
	heldStrikes = 2
	// heldBelow is the rate, in bits a second, from which on it does not matter that loss bounds it.
	heldBelow = 100e6
	// heldFor is how long a peer's path counts as bad for streams of later connections.
	heldFor = 10 * time.Minute
)

// sample is what a connection's health is judged by.
type sample struct {
	sent, lost      float64 // packets
	minRTT, meanRTT time.Duration
}

// held reports whether loss, and not a full queue, bounds a Cubic sender to less than heldBelow. The rate is the larger of
// the two of RFC 9438: of Cubic itself (5.1, figure 6) and of a Reno sender (4.3), which Cubic is never below.
func (s sample) held() bool {
	if s.lost < sampleLost || s.sent <= 0 || s.meanRTT <= 0 {
		return false
	}
	if s.meanRTT > 2*s.minRTT+10*time.Millisecond {
		return false // packets wait: the path is full, and any sender would lose some
	}
	p, rtt := s.lost/s.sent, s.meanRTT.Seconds()
	root := math.Sqrt(rtt / p)
	window := max(1.054*root*math.Sqrt(root), math.Sqrt(1.5/p)) // packets; (rtt/p)^0.75 without linking math.Pow
	return window*minPacket*8/rtt < heldBelow
}

// health is the judgement of a connection.
type health struct {
	mu         sync.Mutex // guards the fields below
	sent, lost uint64     // at the end of the last sample
	strikes    int
}

// look takes a sample if there is enough for one, and reports whether the connection is held back; known is false as long
// as it can't tell.
func (h *health) look(st quic.ConnectionStats) (held, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if st.PacketsLost < h.lost { // packets that were only late count as lost no more
		h.lost = st.PacketsLost
	}
	s := sample{
		sent: float64(st.PacketsSent - h.sent), lost: float64(st.PacketsLost - h.lost),
		minRTT: st.MinRTT, meanRTT: st.SmoothedRTT,
	}
	if s.sent < sampleFew || s.lost < sampleLost && s.sent < sampleMany {
		return h.strikes >= heldStrikes, h.strikes >= heldStrikes
	}
	h.sent, h.lost = st.PacketsSent, st.PacketsLost
	if !s.held() {
		h.strikes = 0
		return false, true
	}
	h.strikes++
	return h.strikes >= heldStrikes, h.strikes >= heldStrikes
}

// heldBack reports whether streams to the peer are better off on TCP.
func (c *connection) heldBack(now time.Time) bool {
	held, known := c.health.look(c.quic.ConnectionStats())
	switch {
	case known && held:
		c.peer.heldUntil.Store(now.Add(heldFor).UnixNano())
	case known:
		c.peer.heldUntil.Store(0)
	}
	return c.peer.heldUntil.Load() > now.UnixNano()
}
