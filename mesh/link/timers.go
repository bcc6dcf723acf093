package link

import (
	"slices"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Tick does what is due and returns when it wants to be called again.
func (s *Links) Tick(now time.Duration) time.Duration {
	next := now + time.Second
	for _, l := range slices.Clone(s.order) {
		next = min(next, s.tickLink(now, l))
	}
	for ep, q := range s.asking {
		if now >= q.at {
			if q.tries > 8 && !q.persistent || q.suspect != nil && q.suspect.state == Up {
				delete(s.asking, ep)
				continue
			}
			s.ask(now, ep, q)
		}
		next = min(next, q.at)
	}
	return next
}

func (s *Links) tickLink(now time.Duration, l *Link) time.Duration {
	next := now + time.Second
	s.dropLabels(now, l)
	if len(l.ring.Expire(now)) > 0 {
		s.dropWindows(l)
		s.host.Changed(now, l)
	}
	if l.hsAt != 0 {
		if now >= l.hsAt {
			if s.giveUp(l) {
				s.forget(now, l)
				return next
			}
			if l.race.once && l.hs != nil { // nobody answered
				l.hs, l.hsBefore, l.hsAt, l.race.once = nil, nil, 0, false
			} else {
				s.initiate(now, l)
			}
		}
		if l.hsAt != 0 {
			next = min(next, l.hsAt, s.advance(now, l))
		}
	}
	if l.state != Up {
		if l.hsAt == 0 && l.hs == nil && l.persistent {
			l.hsTries, l.hsAt = 0, now
			next = now
		}
		if !l.persistent && l.hsAt == 0 {
			s.forget(now, l)
		}
		return next
	}
	next = min(next, s.tickLife(now, l))
	next = min(next, s.tickDoubt(now, l))
	next = min(next, s.tickPing(now, l))
	next = min(next, s.tickRekey(now, l))
	next = min(next, s.tickMTU(now, l))
	next = min(next, s.tickPorts(now, l))
	next = min(next, s.tickCandidates(now, l))
	return min(next, s.tickMove(now, l))
}

// giveUp tells when a link that nobody holds on to was dialled in vain often enough.
func (s *Links) giveUp(l *Link) bool { return !l.persistent && l.state != Up && l.hsTries > 12 }

func (s *Links) forget(now time.Duration, l *Link) {
	s.Remove(now, l)
	s.host.Forgotten(now, l)
}

// Goodbye is why a link is down whose neighbour ended it in order.
const Goodbye = "the neighbour said goodbye"

// down takes a link out of service and, where it is wanted, dials again at once.
func (s *Links) down(now time.Duration, l *Link, reason string) {
	if l.state != Up {
		return
	}
	l.state = Dialing
	l.hs, l.hsBefore, l.hsTries, l.hsAt = nil, nil, 0, now
	l.move = mover{}
	s.host.Down(now, l, reason)
}

func (s *Links) tickRekey(now time.Duration, l *Link) time.Duration {
	cur := l.ring.Sending(now)
	if cur == nil {
		s.down(now, l, "keys too old")
		return now
	}
	if l.rekey != nil && now < l.rekeyAt {
		return l.rekeyAt
	}
	if !l.ring.RekeyDue(now) {
		l.rekey, l.rekeyN = nil, 0
		return now + time.Second
	}
	if l.rekeyN >= 8 { // the sealed way does not work: a full handshake does
		l.rekey, l.rekeyN = nil, 0
		l.hsTries = 0
		s.initiate(now, l)
		return now + s.timers.RetryMax
	}
	hs, noise, err := session.Initiate(s.sessionConfig(cur.Hash[:]), l.peer, s.payload(l))
	if err != nil {
		return now + s.timers.RetryMax
	}
	l.rekey = hs
	l.rekeyN++
	l.rekeyAt = now + max(s.timers.RetryMin<<min(l.rekeyN-1, 4), 3*l.ping.srtt)
	s.sendFrame(now, l, l.endpoint, wire.Rekey1{Noise: [wire.Noise1Len]byte(noise)})
	return l.rekeyAt
}

// startMTU is what a link carries before its size was probed: IPv6's least, less IPv6 and UDP headers.
const startMTU = 1232

// probeSizes are the datagram sizes tried on a new link or address, largest first: Ethernet with IPv4 and IPv6 outside,
// PPPoE, common tunnels, and what is left on underlays down to 576 bytes.
var probeSizes = [...]int{8932, 1472, 1452, 1444, 1424, 1412, 1392, 1372, 1352, 1312, 1280, 1232, 1112, 952, 752, 548}

// Sizes returns the datagram sizes at which common networks end, largest first.
func Sizes() []int { return slices.Clone(probeSizes[:]) }

// mtuProbe finds the largest datagram that reaches the neighbour and is answered.
type mtuProbe struct {
	size  int // in force
	limit int
	first uint32 // ping ids of the probes out: first+i belongs to probeSizes[i]
	best  int
	until time.Duration
	again int
	began time.Duration // when the last probes went out
	blind int           // searches that found nothing at all
	waits bool          // for the first answer from the address: how long answers take says how many sizes to try at once, and the
	// INIT of a race has not proved it: a liar could name somebody else's
}

// few tells whether a size is one of those that are tried on a slow line: the largest and the one in force, and where these were not
// answered what passes nearly everywhere.
func (m *mtuProbe) few(size int) bool {
	return size == min(m.limit, probeSizes[1]) || size == m.size || m.again < 2 && (size == startMTU || size == probeSizes[len(probeSizes)-1])
}

const mtuIDs = 1 << 31 // ids of probes have the top bit set

func (m *mtuProbe) begin(now time.Duration, limit int) {
	m.limit, m.best, m.again, m.blind, m.waits = limit, 0, 3, 0, true
	m.size = min(m.size, limit)
	m.until = now
}

// answered takes the answer to a size probe; false if the ping was an ordinary one.
func (m *mtuProbe) answered(id uint32) bool {
	if id < mtuIDs {
		return false
	}
	if i := int(id - mtuIDs - m.first); i >= 0 && i < len(probeSizes) {
		m.best = max(m.best, probeSizes[i])
	}
	return true
}

// slowest is a round trip that is waited for where nothing comes back. A search that no size came back of is made again after
// blindPause, blindTries times, and the link goes on with the size that it had.
const (
	slowest    = 3 * time.Second
	blindPause = 5 * time.Second
	blindTries = 4
)

// slowTrip is the round trip of a line on which all sizes at once, 20 kB, would stand in the way of data for long and lose each
// other in its queue: there few are tried.
const slowTrip = 300 * time.Millisecond

func (s *Links) probeMTU(now time.Duration, l *Link) {
	m := &l.mtu
	m.waits = false
	m.first = (m.first + 64) % (1 << 20)
	m.began, m.until = now, now+max(s.timers.MTUSettled, 3*l.ping.srtt)
	m.again--
	for i, size := range probeSizes {
		if size > m.limit || l.ping.srtt >= slowTrip && !m.few(size) {
			continue
		}
		s.plain = wire.AppendMessage(s.plain[:0], wire.Ping{ID: mtuIDs + m.first + uint32(i), Time: uint64(now)})
		s.plain = wire.AppendMessage(s.plain, padding(size-wire.LinkOverhead-len(s.plain)-wire.MessageHead))
		_ = s.seal(now, l, l.endpoint) // a size the socket refuses is a size that does not pass
	}
}

// paddingType is no message's type, so that receivers skip it.
const paddingType = 0

// padding fills a frame.
type padding int

// Type implements wire.Message.
func (padding) Type() uint8 { return paddingType }

// Append implements wire.Message.
func (p padding) Append(dst []byte) []byte { return append(dst, make([]byte, max(int(p), 0))...) }

// Refused is told that the network refused a datagram of size bytes to the neighbour: the wire has become smaller.
func (s *Links) Refused(now time.Duration, l *Link, size int) {
	m := &l.mtu
	if l.state != Up || size > m.size {
		return
	}
	// Down at once to what passes nearly everywhere; the probes bring it up again to what passes here.
	if m.size = startMTU; size <= startMTU {
		m.size = probeSizes[len(probeSizes)-1]
	}
	s.cfg.Log.Info("wire has become smaller", "peer", l.peer, "mtu", m.size)
	s.host.Changed(now, l)
	s.reprobe(now, l)
}

// reprobe looks for the size of the wire again, which may have changed either way since the last time.
func (s *Links) reprobe(now time.Duration, l *Link) {
	l.mtu.best, l.mtu.again, l.mtu.blind = 0, 3, 0
	s.probeMTU(now, l)
}

func (s *Links) tickMTU(now time.Duration, l *Link) time.Duration {
	m := &l.mtu
	if m.until == 0 || m.waits {
		return now + time.Second
	}
	if m.best == m.limit {
		m.until = now
	}
	if now < m.until {
		return m.until
	}
	if m.best == 0 && l.ping.sent != 0 && now-m.began < slowest {
		m.until = now + s.timers.MTUSettled // the ping has no answer either: it may be a slow line
		return m.until
	}
	m.until = 0
	if m.best < m.size && m.again > 0 { // one lost probe is no smaller wire
		s.probeMTU(now, l)
		return m.until
	}
	if m.best == 0 && m.blind < blindTries { // not even the smallest: that is not about size
		m.blind++
		m.again, m.until = 1, now+blindPause
		return m.until
	}
	if m.best == 0 {
		m.best = probeSizes[len(probeSizes)-1]
	}
	if m.best != m.size {
		m.size = m.best
		s.host.Changed(now, l)
	}
	return now + time.Second
}
