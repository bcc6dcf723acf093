package link

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// Measuring of links. It rides on what goes over them in any case: pings, which an idle link needs to stay known to NATs, and data.
const (
	recentLeast = 4                // of the last round trips count, however old
	recentLife  = 30 * time.Second // and younger ones
	idleLong    = time.Minute      // without data the pings of a link become rare
	lossHalf    = 8 * time.Second  // after which what was counted of losses weighs half
	lossIdle    = 2 * time.Second  // without a Measure: there was no data, and what was counted weighs as little as it can
	lossLeast   = 32               // frames that count however old
	lossDoubt   = 32               // fewer frames than this are taken as so many, so that one lost ping is no bad link
	lossTold    = 8                // frames before anything is told
	outage      = 4                // frames missing at once with nothing between them: that was no loss
	flapHalf    = 15 * time.Second
	rateLook    = 400 * time.Millisecond // of the rate at which data comes
	rateLife    = 10 * time.Minute       // of a capacity
	rateDoubt   = 10 * time.Second       // full at a lower rate for so long: that is it
	rateSome    = 500                    // kbit/s; what queues at less is not our traffic
	poorLeast   = 0.05                   // loss of a line that is poor …
	poorMost    = 0.7                    // … and of one of which a direction may be cut
	fullPings   = 3                      // in a row that had to queue
	fullLeast   = 15 * time.Millisecond  // and so long
	floorLife   = 5 * time.Minute        // of the round trip of an empty link, and once more as long
)

// pinger measures the round trip of a link and notices when it is dead.
type pinger struct {
	id       uint32
	sent     time.Duration // of the ping that is out; 0 if none
	first    time.Duration // of the first that no answer came for since
	last     time.Duration // when the last ping was answered or begun
	lost     int           // unanswered in a row
	srtt     time.Duration
	recent   [8]trip
	count    int // of round trips measured since the link came up
	observed netip.AddrPort
}

// trip is a round trip and when it ended.
type trip struct{ took, at time.Duration }

// reset begins anew on a link that came up or goes another way.
func (p *pinger) reset(now time.Duration) {
	p.sent, p.lost, p.last, p.count = 0, 0, now-time.Hour, 0
}

// least returns the least of the last round trips: what the wire takes, without the waits of busy machines.
func (p *pinger) least() time.Duration {
	n := min(p.count, len(p.recent))
	if n == 0 {
		return p.srtt
	}
	newest := p.recent[(p.count-1)%len(p.recent)].at
	least := time.Duration(math.MaxInt64)
	for i := range n {
		if t := p.recent[(p.count-1-i)%len(p.recent)]; i < recentLeast || newest-t.at <= recentLife {
			least = min(least, t.took)
		}
	}
	return least
}

// jitter returns by how much the last round trips exceed the least of them, without the two worst: one that met a busy machine says
// nothing about the wire.
func (p *pinger) jitter() time.Duration {
	n := min(p.count, len(p.recent))
	if n < recentLeast {
		return 0
	}
	var all [len(p.recent)]time.Duration
	for i := range n {
		all[i] = p.recent[i].took
	}
	slices.Sort(all[:n])
	sum := time.Duration(0)
	for _, t := range all[:n-2] {
		sum += t - all[0]
	}
	return sum / time.Duration(n-2)
}

// measured takes a round trip.
func (p *pinger) measured(now, rtt time.Duration) {
	p.recent[p.count%len(p.recent)] = trip{rtt, now}
	p.count++
	if p.srtt == 0 || p.count == 1 { // the wire may be another one than before
		p.srtt = rtt
		return
	}
	p.srtt += (rtt - p.srtt) / 8
}

// meter counts what is lost on a link each way, and how much it carries when it is full.
type meter struct {
	measures uint64 // sent
	got      uint64 // Measures received
	primed   bool
	frames   uint64 // of the neighbour's last Measure
	came     uint64 // what had come by then
	seen     float64
	missing  float64
	at       time.Duration
	told     uint32 // what the neighbour said of ours

	flaps   float64
	flapsAt time.Duration

	rate    uint64 // kbit/s at which data came while the link was full
	rateAt  time.Duration
	bytes   uint64
	bytesAt time.Duration
	floor   [2]time.Duration // least round trips of this span of time and of the one before; 0: none
	floorAt time.Duration
	queued  int // pings in a row that queued
}

// restart forgets what was counted: the neighbour counts anew, and what got lost while it or the wire was away is no loss of the
// link as it is now.
func (m *meter) restart() { m.primed, m.seen, m.missing, m.told = false, 0, 0, wire.LossUnknown }

// receive takes a Measure; came is how many labelled frames the data plane has received.
func (m *meter) receive(now time.Duration, f wire.Measure, came uint64) {
	m.got++
	m.told = f.Loss
	came += m.got
	sent, got := f.Frames-m.frames, came-m.came
	fresh := !m.primed || f.Frames < m.frames || came < m.came
	m.primed, m.frames, m.came = true, f.Frames, came
	if fresh || got <= 1 && sent >= got+outage {
		return
	}
	m.fade(now)
	m.seen += float64(sent)
	m.missing += float64(sent) - float64(got) // less than 0 if frames overtook the Measure; the next one makes up for it
}

// fade lets old counts weigh less.
func (m *meter) fade(now time.Duration) {
	if m.seen > lossLeast {
		f := lossLeast / m.seen
		if now-m.at < lossIdle {
			f = max(f, math.Exp2(-float64(now-m.at)/float64(lossHalf)))
		}
		m.seen, m.missing = m.seen*f, m.missing*f
	}
	m.at = now
}

// lost returns the share that does not come here; known is false while too little came to tell.
func (m *meter) lost() (share float64, known bool) {
	if m.seen < lossTold {
		return 0, false
	}
	return min(max(m.missing, 0)/max(m.seen, lossDoubt), 1), true
}

// loss returns the worse of both directions.
func (m *meter) loss() float64 {
	share, _ := m.lost()
	if m.told != wire.LossUnknown {
		share = max(share, float64(m.told)/1e6)
	}
	return share
}

// measure returns what to say beside a ping or pong; sent is how many labelled frames went.
func (m *meter) measure(sent uint64) wire.Measure {
	m.measures++
	f := wire.Measure{Frames: sent + m.measures, Loss: wire.LossUnknown}
	if share, known := m.lost(); known {
		f.Loss = uint32(share * 1e6)
	}
	return f
}

// cameBack counts a link that was up before and is again.
func (m *meter) cameBack(now time.Duration) {
	m.flaps, m.flapsAt = m.flapped(now)+1, now
}

func (m *meter) flapped(now time.Duration) float64 {
	return m.flaps * math.Exp2(-float64(max(now-m.flapsAt, 0))/float64(flapHalf))
}

// trip takes a round trip: what it takes more than on an empty link, it spent in a queue.
func (m *meter) trip(now, rtt time.Duration) {
	if m.floorAt == 0 || now-m.floorAt > floorLife {
		m.floor[1], m.floor[0], m.floorAt = m.floor[0], 0, now
	}
	if m.floor[0] == 0 || rtt < m.floor[0] {
		m.floor[0] = rtt
	}
	if least := m.emptyTrip(); rtt > 2*least && rtt > least+fullLeast {
		m.queued++
	} else {
		m.queued = 0
	}
}

func (m *meter) emptyTrip() time.Duration {
	if m.floor[1] != 0 {
		return min(m.floor[0], m.floor[1])
	}
	return m.floor[0]
}

// flow looks at how many bytes of data have come. While pings queue the link is full, and what it carries is its capacity; more than
// that proves more at any time.
func (m *meter) flow(now time.Duration, bytes uint64) {
	since := now - m.bytesAt
	if since < rateLook {
		return
	}
	kbit := uint64(float64(bytes-min(m.bytes, bytes)) * 8 / 1000 / since.Seconds())
	stale := m.bytesAt == 0 || since > 5*time.Second
	m.bytes, m.bytesAt = bytes, now
	switch {
	case stale:
	case kbit > m.capacity(now) && (m.queued >= fullPings && kbit >= rateSome || m.rate != 0):
		m.rate, m.rateAt = kbit, now
	case m.queued >= fullPings && kbit > m.rate*3/4:
		m.rateAt = now
	case m.queued >= fullPings && kbit >= rateSome && now-m.rateAt > rateDoubt:
		m.rate, m.rateAt = kbit, now // it has become narrower, or is shared
	}
}

// capacity returns the kbit/s that came while the link was full, 0 if it was not for long.
func (m *meter) capacity(now time.Duration) uint64 {
	if m.rate == 0 || now-m.rateAt > rateLife {
		m.rate = 0
	}
	return m.rate
}

// Slow tells whether the link's round trip is one of a line on which what a node says of its own accord should be little.
func (l *Link) Slow() bool { return l.ping.srtt >= slowTrip }

// Jitter returns how much round trips vary.
func (l *Link) Jitter() time.Duration { return l.ping.jitter() }

// Loss returns the share of frames lost, 0 to 1, in the worse direction: counted by both ends over data and pings, of the last
// seconds where data flows.
func (l *Link) Loss() float64 { return l.meter.loss() }

// LossIn returns the share of the neighbour's frames that do not come here, and LossOut what it says of ours.
func (l *Link) LossIn() float64 {
	share, _ := l.meter.lost()
	return share
}

// LossOut is LossIn of the other direction.
func (l *Link) LossOut() float64 {
	if l.meter.told == wire.LossUnknown {
		return 0
	}
	return float64(l.meter.told) / 1e6
}

// Capacity returns the kbit/s that the link carried towards us while it was full, 0 if it has not been.
func (l *Link) Capacity(now time.Duration) uint64 { return l.meter.capacity(now) }

// Flaps returns how often the link came back lately: each time counts half after 15 s.
func (l *Link) Flaps(now time.Duration) float64 { return l.meter.flapped(now) }

// SetKeepAlive says how long a link without data may stay silent: as long as the NATs on the way remember it. 0: 25 s.
func (l *Link) SetKeepAlive(d time.Duration) { l.keepAlive = d }

// tickPing measures the link, and finds out when it is dead.
func (s *Links) tickPing(now time.Duration, l *Link) time.Duration {
	p := &l.ping
	if l.restless != 0 {
		return s.tickRestless(now, l)
	}
	if p.sent != 0 {
		due := p.sent + s.pingWait(l)
		if now < due {
			return due
		}
		p.lost++
		if s.pingsLost(now, l) {
			s.down(now, l, "pings unanswered")
			return now
		}
		s.sendPing(now, l)
		return p.sent + s.pingWait(l)
	}
	if due := p.last + s.pingEvery(now, l); now < due {
		return min(due, now+s.timers.PingBusy)
	}
	s.sendPing(now, l)
	return now + s.timers.PingLost
}

// poor tells whether a line is slow and lossy, but a line: what is unanswered there says little as long as anything comes. Where a
// third of the frames is lost each way, half of the pings are.
func (s *Links) poor(now time.Duration, l *Link) bool {
	loss := l.meter.loss()
	if l.ping.srtt < slowTrip || loss < poorLeast || loss > poorMost {
		return false
	}
	rx, _ := s.host.Traffic(l)
	return now-max(rx, l.lastRx) < 3*l.ping.srtt
}

// pingWait is how long an answer is waited for before the next ping. A line that has become slow answers late: what is said again
// meanwhile only fills it.
func (s *Links) pingWait(l *Link) time.Duration {
	d := max(s.timers.PingLost, 3*l.ping.srtt)
	if l.ping.lost >= s.timers.LostPings {
		d = 2 * max(s.timers.PingLost, l.ping.srtt)
	}
	return d
}

// pingsLost tells whether so many pings in a row are unanswered that the link is down. While the neighbour is heard it may be that
// the line has just become slow, and the answers are under way: it has three times as long. On a slow line of which a third is lost
// each way half of the pings are unanswered, five in a row every minute, and three times as many about once in a busy day; where the
// neighbour is heard it takes six times as many.
func (s *Links) pingsLost(now time.Duration, l *Link) bool {
	p, most := &l.ping, s.timers.LostPings
	rx, _ := s.host.Traffic(l)
	silent := now - max(rx, l.lastRx)
	heard := silent < now-p.first
	switch {
	case l.Slow() && heard:
		return p.lost >= 6*most
	case l.Slow():
		return p.lost >= 3*most
	case p.lost >= most && heard && silent < time.Duration(most)*s.timers.PingLost:
		return now-p.first >= 3*time.Duration(most)*max(s.timers.PingLost, 3*p.srtt)
	}
	return p.lost >= most
}

// Late returns for how long the link has not answered, 0 if nothing is due from it.
func (l *Link) Late(now time.Duration) time.Duration {
	if l.ping.sent == 0 {
		return 0
	}
	return max(now-l.ping.first, 0)
}

// pingEvery returns how long after the last ping the next one is due.
func (s *Links) pingEvery(now time.Duration, l *Link) time.Duration {
	p := &l.ping
	rx, tx := s.host.Traffic(l)
	switch data := max(rx, tx); {
	case tx > max(rx, l.lastRx)+s.timers.PingLost: // we send, nothing comes back: ask now
		return 0
	case now < l.life.silence: // a test of the NATs between
		return l.life.silence - p.last
	case p.count < len(p.recent)/2: // a new link: one round trip says little
		return s.timers.PingLost / 4
	case s.busy(now, l): // LINK frames don't count: pings are such
		_, _, bytes := s.host.Counts(l)
		l.meter.flow(now, bytes)
		if l.Slow() {
			return max(s.timers.PingBusy, 2*p.srtt)
		}
		return s.timers.PingBusy
	case now-max(data, l.upSince) < idleLong || p.count < len(p.recent):
		return s.timers.PingIdle
	case l.keepAlive != 0:
		return l.keepAlive
	}
	return s.timers.PingLong
}

func (s *Links) sendPing(now time.Duration, l *Link) {
	s.plain = s.appendPing(now, l, s.plain[:0])
	_ = s.seal(now, l, l.endpoint)
}

// appendPing begins a ping, with its Measure.
func (s *Links) appendPing(now time.Duration, l *Link, b []byte) []byte {
	p := &l.ping
	p.id++
	if p.sent == 0 {
		p.first = now
	}
	p.sent, p.last = now, now
	b = wire.AppendMessage(b, wire.Ping{ID: p.id, Time: uint64(now)})
	if l.restless != 0 {
		return b // many of these are lost, which says nothing of the link
	}
	return s.appendMeasure(l, b)
}

func (s *Links) appendMeasure(l *Link, b []byte) []byte {
	_, sent, _ := s.host.Counts(l)
	return wire.AppendMessage(b, l.meter.measure(sent))
}

func (s *Links) receivePing(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParsePing(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	s.plain = wire.AppendMessage(s.plain[:0], wire.Pong{ID: f.ID, Time: f.Time, Observed: from.Addr})
	if f.ID < mtuIDs && l.state == Up && from == l.endpoint {
		if l.ping.sent == 0 && l.restless == 0 && now-l.ping.last > s.pingEvery(now, l)/2 {
			s.plain = s.appendPing(now, l, s.plain) // ours is nearly due: one datagram for both
		} else {
			s.plain = s.appendMeasure(l, s.plain)
		}
	}
	// The answer goes where the ping came from: a neighbour that moved learns its new address at once.
	_ = s.seal(now, l, from)
}

func (s *Links) receivePong(now time.Duration, l *Link, b []byte) {
	f, err := wire.ParsePong(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	if l.mtu.answered(f.ID) {
		return
	}
	p := &l.ping
	rtt := now - time.Duration(f.Time)
	if f.ID > p.id || f.ID+16 < p.id || rtt < 0 || rtt > time.Minute {
		return
	}
	p.measured(now, rtt)
	l.meter.trip(now, rtt)
	if l.mtu.waits && l.state == Up {
		s.probeMTU(now, l)
	}
	if f.ID >= l.movedPing { // an older one says nothing of where we are now
		p.sent, p.lost = 0, 0
		p.observed = f.Observed
	}
}

func (s *Links) receiveMeasure(now time.Duration, l *Link, b []byte) {
	f, err := wire.ParseMeasure(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	came, _, _ := s.host.Counts(l)
	l.meter.receive(now, f, came)
}

// usedLately tells whether data went over the link since the last key but one: only then is it worth 15 kB to look whether its size
// has changed.
func (s *Links) usedLately(now time.Duration, l *Link) bool {
	data := max(s.host.Traffic(l))
	return data != 0 && now-data < 2*s.timers.Rekey
}
