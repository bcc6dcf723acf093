package forward

import "sync/atomic"

// Drop is why a frame or packet went no further.
type Drop uint8

// The reasons, in the order in which the checks stand.
const (
	DropShort           Drop = iota // datagram is too short for its type
	DropType                        // unknown version or type
	DropNoLabel                     // slot empty, or of another generation
	DropOversize                    // longer than the link says it takes in
	DropTag                         // hop tag is wrong
	DropTTL                         // ttl used up
	DropReplay                      // counter seen before, or older than the window
	DropTooBig                      // longer than the next link or the path carries
	DropPresealed                   // pre-sealed off the stream lane, or not a QUIC packet of the short form
	DropLinkDown                    // next link is down or has no key or address
	DropNoKey                       // no key of that id, or none to send with
	DropSeal                        // AEAD does not open
	DropKind                        // unknown kind of payload
	DropPacket                      // inner packet is malformed, 4-in-6, or of a version we don't know
	DropLocal                       // what our own kernel says to the TUN's link: router solicitations, multicast
	DropSource                      // inner source is not the peer's
	DropDestination                 // inner destination is not ours to reach, or never routed
	DropECN                         // congestion mark on a packet that can't carry it
	DropFragment                    // pieces overlap, contradict or are too many
	DropFragmentExpired             // pieces that never became a packet
	DropChecksum                    // checksum can't be filled in
	DropNoTUN                       // nobody takes inner packets
	DropTUN                         // the TUN refused it
	DropUnrouted                    // no route for the destination
	DropNoPath                      // the session has no path
	DropRetired                     // the lane's counter is used up
	DropSocketFull                  // the socket took no more
	DropBacklog                     // waited too long for a full socket
	DropSend                        // the socket refused it
	DropReceive                     // the socket gave us a train cut short
	dropCount
)

// String returns the name shown by node status.
func (d Drop) String() string {
	names := [dropCount]string{
		"short", "type", "no_label", "oversize", "bad_tag", "ttl", "replay", "too_big", "presealed", "link_down", "no_key",
		"bad_seal", "kind", "packet", "local", "source", "destination", "ecn", "fragment", "fragment_expired", "checksum", "no_tun",
		"tun", "unrouted", "no_path", "retired", "socket_full", "backlog", "send", "receive",
	}
	if d >= dropCount {
		return "unknown"
	}
	return names[d]
}

// totals are added to once a run or train.
type totals struct {
	relayedN, relayedB     atomic.Uint64
	deliveredN, deliveredB atomic.Uint64
	originN, originB       atomic.Uint64
	marked                 atomic.Uint64
}

// Counters is a snapshot of what the plane did. Bytes of relayed frames are as billed, of others inner bytes.
type Counters struct {
	RelayedFrames, RelayedBytes        uint64
	DeliveredPackets, DeliveredBytes   uint64            // inner packets handed to a TUN
	OriginatedPackets, OriginatedBytes uint64            // inner packets sealed
	MarkedFrames                       uint64            // got the mark of congestion in the backlog
	Drops                              map[string]uint64 // by reason, those above 0
}

// Counters returns a snapshot.
func (p *Plane) Counters() Counters {
	c := Counters{
		RelayedFrames: p.total.relayedN.Load(), RelayedBytes: p.total.relayedB.Load(),
		DeliveredPackets: p.total.deliveredN.Load(), DeliveredBytes: p.total.deliveredB.Load(),
		OriginatedPackets: p.total.originN.Load(), OriginatedBytes: p.total.originB.Load(),
		MarkedFrames: p.total.marked.Load(), Drops: map[string]uint64{},
	}
	for d := range dropCount {
		if n := p.drops[d].Load(); n > 0 {
			c.Drops[d.String()] = n
		}
	}
	return c
}

// Dropped returns how often d happened.
func (p *Plane) Dropped(d Drop) uint64 { return p.drops[d].Load() }

func (p *Plane) drop(d Drop, n int) {
	if n > 0 {
		p.drops[d].Add(uint64(n))
	}
}
