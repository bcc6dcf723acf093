package link

import (
	"slices"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// Candidates, the ways by which a neighbour may be reached: addresses, and carriers. A link that is not up tries all of
// them with one INIT (race.go). A link that is up asks at others with Try and moves to one that answers: when it is better,
// or when the present one fails; the present one carries on meanwhile.

const (
	// maxCandidates of a link: a record states 8 addresses, and as many again come of punching.
	maxCandidates = 16
	// tryTimes is how often one candidate is asked in a row.
	tryTimes = 5
	// trySamples are the answers that tell whether a candidate is faster.
	trySamples = 3
	// tryFull of these, after the first answer, are as long as the frames of the link: without an answer the way is narrow.
	tryFull = 2
	// tryAgain is the pause before an answered candidate is asked for its next sample.
	tryAgain = 100 * time.Millisecond
	// gainShare and gainLeast are what a candidate of the same carrier must save of the round trip: the share, in percent, and
	// at least so much. Less is not worth a move.
	gainShare = 20
	gainLeast = 2 * time.Millisecond
	// upgradeFirst and upgradeMax bound the pause between two attempts to come back to a better carrier.
	upgradeFirst = 2 * time.Second
	upgradeMax   = time.Minute
	// upgradeSettled is how long a link must stay on its carrier until the pause begins anew.
	upgradeSettled = time.Minute
	// leftFor is how long frames from the way that a link has left move nothing: the neighbour has not followed yet.
	leftFor = 3 * time.Second
)

// Carrier is how the datagrams of a link travel, the better first.
type Carrier uint8

// The carriers.
const (
	UDP Carrier = iota
	TCP
	WSS
)

func (c Carrier) String() string { return [...]string{"udp", "tcp", "wss"}[c] }

// CarrierOf returns the carrier of an endpoint.
func CarrierOf(e forward.Endpoint) Carrier {
	switch {
	case e.Socket >= forward.FirstWSS:
		return WSS
	case e.Socket >= forward.FirstTCP:
		return TCP
	}
	return UDP
}

// candidate is one way.
type candidate struct {
	ep       forward.Endpoint
	added    time.Duration
	answered time.Duration // when it last did; 0: never
	rtt      time.Duration // least of the samples
	samples  int
	random   [8]byte
	sent     time.Duration // of the Try that is out
	out      bool
	tries    int           // unanswered ones
	narrow   bool          // what the link carries now does not pass there, but less does
	at       time.Duration // when the next Try is due; 0: none
}

// Candidate is what is known of one way, for people.
type Candidate struct {
	Endpoint forward.Endpoint
	Answered time.Duration // when it last answered a Try; 0: never
	RTT      time.Duration // 0: unknown
	Lost     int           // Trys in a row without an answer
	Asked    time.Duration // when the last Try went there; 0: never
}

// Candidates returns the ways to the neighbour that are known, the present one perhaps among them.
func (l *Link) Candidates() []Candidate {
	all := make([]Candidate, 0, len(l.candidates))
	for i := range l.candidates {
		c := &l.candidates[i]
		all = append(all, Candidate{c.ep, c.answered, c.rtt, c.tries, c.sent})
	}
	return all
}

// switching is the state of a link's moves by its own decision.
type switching struct {
	left    forward.Endpoint // what it moved away from
	at      time.Duration    // when; 0: never
	pause   time.Duration    // until the next attempt to come back to a better carrier
	upgrade time.Duration    // when that is due
	failed  bool             // the failure under way has set off its search
	since   time.Duration    // when that was
	rx      time.Duration    // when a good frame last came by the present way
}

func (l *Link) candidate(e forward.Endpoint) *candidate {
	for i := range l.candidates {
		if l.candidates[i].ep == e {
			return &l.candidates[i]
		}
	}
	return nil
}

// addAddr remembers a way. Where there are too many, the one goes that did not answer for the longest time.
func (l *Link) addAddr(now time.Duration, e forward.Endpoint) *candidate {
	if !e.Addr.IsValid() {
		return nil
	}
	if c := l.candidate(e); c != nil {
		return c
	}
	if len(l.candidates) >= maxCandidates {
		worst := -1
		for i := range l.candidates {
			c := &l.candidates[i]
			if c.ep == l.endpoint {
				continue
			}
			if worst < 0 || max(c.answered, c.added) < max(l.candidates[worst].answered, l.candidates[worst].added) {
				worst = i
			}
		}
		l.candidates = slices.Delete(l.candidates, worst, worst+1)
	}
	l.candidates = append(l.candidates, candidate{ep: e, added: now})
	return &l.candidates[len(l.candidates)-1]
}

// Probe asks whether the neighbour of a link that is up can be reached at eps too; none: at every way that is known. The
// link moves there by itself if that is better, or as soon as the present way fails.
func (s *Links) Probe(now time.Duration, l *Link, eps []forward.Endpoint) {
	if l.state != Up {
		return
	}
	if eps == nil {
		for i := range l.candidates {
			eps = append(eps, l.candidates[i].ep)
		}
	}
	for _, e := range eps {
		if c := l.addAddr(now, e); c != nil && c.ep != l.endpoint {
			c.samples, c.tries, c.out = 0, 0, false
			s.try(now, l, c)
		}
	}
}

// try sends a Try, and has the next one due. It goes to where nobody may be, so it is short and seldom.
func (s *Links) try(now time.Duration, l *Link, c *candidate) {
	c.out, c.sent = true, now
	c.at = now + max(s.timers.RetryMin, 3*l.ping.srtt)
	s.fillRandom(c.random[:])
	s.plain = wire.AppendMessage(s.plain[:0], wire.Try{Random: c.random})
	if c.narrow = c.samples > 0 && c.tries >= tryFull; c.samples > 0 && !c.narrow && CarrierOf(c.ep) == UDP && !l.Slow() {
		s.plain = wire.AppendMessage(s.plain, padding(l.mtu.size-wire.LinkOverhead-len(s.plain)-wire.MessageHead))
	}
	_ = s.sealTo(now, l, c.ep)
}

// tickCandidates asks what is due, and looks for another way where the present one fails or is of the worse kind.
func (s *Links) tickCandidates(now time.Duration, l *Link) time.Duration {
	w := &l.way
	next := now + time.Second
	late := l.ping.sent + max(tryAgain, 3*l.ping.srtt)
	if l.ping.sent != 0 && now < late {
		next = late
	}
	switch failing := (l.ping.lost > 0 || l.ping.sent != 0 && now >= late) && !s.poor(now, l); {
	case failing && !w.failed:
		w.failed, w.since = true, now
		s.Probe(now, l, nil)
	case !failing:
		w.failed = false
	case l.ping.lost == 1 && !s.silent(now, l):
		next = min(next, now+tryAgain)
	case s.silent(now, l):
		if c := l.spare(w.since); c != nil {
			s.moveTo(now, l, c)
		}
	}
	next = min(next, s.tickUpgrade(now, l))
	for i := range l.candidates {
		c := &l.candidates[i]
		if c.at == 0 {
			continue
		}
		if now >= c.at {
			if c.out {
				c.tries++
			}
			if c.at = 0; c.tries < tryTimes && (c.out || c.samples < trySamples) {
				s.try(now, l, c)
			}
			c.out = c.at != 0
		}
		if c.at != 0 {
			next = min(next, c.at)
		}
	}
	return next
}

// silent tells whether the present way has failed as far as can be told: pings are lost, and nothing at all has come.
func (s *Links) silent(now time.Duration, l *Link) bool {
	rx, _ := s.host.Traffic(l)
	if s.poor(now, l) {
		return false
	}
	return l.ping.lost >= 2 || l.ping.lost == 1 && now-max(rx, l.way.rx) >= 2*s.timers.PingLost
}

// spare is the best of the ways that have answered since then.
func (l *Link) spare(since time.Duration) *candidate {
	var best *candidate
	for i := range l.candidates {
		c := &l.candidates[i]
		if c.ep == l.endpoint || c.samples == 0 || c.answered < since {
			continue
		}
		if a := CarrierOf(c.ep); best == nil || a < CarrierOf(best.ep) || a == CarrierOf(best.ep) && c.rtt < best.rtt {
			best = c
		}
	}
	return best
}

// tickUpgrade asks, ever more seldom, at the ways of a better carrier than the present one.
func (s *Links) tickUpgrade(now time.Duration, l *Link) time.Duration {
	w := &l.way
	present := CarrierOf(l.endpoint)
	if present == UDP || l.ping.lost > 0 {
		w.upgrade = 0
		return now + time.Second
	}
	if w.upgrade == 0 {
		if w.pause == 0 || now-w.at > upgradeSettled {
			w.pause = upgradeFirst
		}
		w.upgrade = now + w.pause
	}
	if now < w.upgrade {
		return w.upgrade
	}
	var better []forward.Endpoint
	for i := range l.candidates {
		if e := l.candidates[i].ep; CarrierOf(e) < present {
			better = append(better, e)
		}
	}
	if len(better) > 0 {
		s.Probe(now, l, better)
	}
	w.pause = min(2*w.pause, upgradeMax)
	w.upgrade = now + w.pause
	return w.upgrade
}

func (s *Links) receiveTry(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParseTry(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	s.plain = wire.AppendMessage(s.plain[:0], wire.Tried{Random: f.Random, Observed: from.Addr})
	_ = s.sealTo(now, l, from)
}

// receiveTried takes the answer of a candidate, which proves it: only the neighbour could read the question.
func (s *Links) receiveTried(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParseTried(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	c := l.candidate(from)
	if c == nil || !c.out || c.random != f.Random || l.state != Up {
		s.drops.Refused++
		return
	}
	rtt := now - c.sent
	if c.samples == 0 || rtt < c.rtt {
		c.rtt = rtt
	}
	c.samples++
	c.answered, c.out, c.tries = now, false, 0
	if c.at = 0; c.samples < trySamples {
		c.at = now + tryAgain
	}
	if c.ep != l.endpoint && s.preferable(now, l, c) {
		s.moveTo(now, l, c)
	}
}

// preferable tells whether a candidate that has just answered shall take the place of the present way.
func (s *Links) preferable(now time.Duration, l *Link, c *candidate) bool {
	if s.silent(now, l) {
		return true
	}
	if a, b := CarrierOf(c.ep), CarrierOf(l.endpoint); a != b {
		return a < b && c.samples >= 2 // one answer of a way that was cut lately says little
	}
	present := l.ping.least()
	gain := present - c.rtt
	return c.samples >= trySamples && gain >= gainLeast && gain*100 >= present*gainShare
}

// moveTo makes a proven candidate the link's way. The neighbour follows when it has challenged it.
func (s *Links) moveTo(now time.Duration, l *Link, c *candidate) {
	s.cfg.Log.Info("link moved", "peer", l.peer.Short(), "from", l.endpoint.Addr, "to", c.ep.Addr, "carrier", CarrierOf(c.ep).String())
	w, late := &l.way, l.Late(now) >= slowTrip && CarrierOf(c.ep) == UDP
	if CarrierOf(c.ep) <= CarrierOf(l.endpoint) || now-w.at > upgradeSettled {
		w.upgrade = 0
	}
	w.left, w.at, w.failed, w.rx = l.endpoint, now, false, now
	l.endpoint = c.ep
	l.move = mover{}
	p := &l.ping
	p.reset(now)
	p.srtt = c.rtt
	l.meter.restart()
	l.mtu.begin(now, l.mtu.limit)
	if c.narrow {
		l.mtu.size = min(l.mtu.size, startMTU)
	}
	s.host.Changed(now, l)
	s.sendPing(now, l)
	if !late { // else the first answer says how many sizes to try at once
		s.probeMTU(now, l)
	}
}

// lately tells whether the link has just left an endpoint by its own decision: what the neighbour still sends from there
// does not call it back.
func (l *Link) lately(now time.Duration, e forward.Endpoint) bool {
	return l.way.at != 0 && l.way.left == e && now-l.way.at < leftFor && l.ping.lost == 0
}

// Lost is told that the stream connection of an endpoint has ended. gone: it can't be made again from here. Links on it look
// for another way at once.
func (s *Links) Lost(now time.Duration, e forward.Endpoint, gone bool) {
	for _, l := range slices.Clone(s.order) {
		if l.state == Up && l.endpoint == e {
			if l.ping.lost = max(l.ping.lost, 2); l.ping.sent == 0 {
				l.ping.first = now
			}
			l.ping.sent = now
			l.way.failed, l.way.since = true, now
			s.Probe(now, l, nil)
		}
		if gone && l.endpoint != e {
			l.candidates = slices.DeleteFunc(l.candidates, func(c candidate) bool { return c.ep == e })
		}
	}
}

// Know tells of further ways to a neighbour whose link is up: they are asked when the present one fails.
func (s *Links) Know(now time.Duration, l *Link, eps []forward.Endpoint) {
	for _, e := range eps {
		l.addAddr(now, e)
	}
}

// Using returns the endpoints that the link uses or is about to use: where it is, where it is asked to prove itself, and
// those that its race has reached.
func (l *Link) Using() []forward.Endpoint {
	all := []forward.Endpoint{l.endpoint}
	if l.move.tries > 0 {
		all = append(all, l.move.to)
	}
	if l.hs != nil {
		all = append(all, l.race.order[:l.race.sent]...)
	}
	return all
}

// Heard reports whether a link that is up has had a sealed frame from there.
func (s *Links) Heard(e forward.Endpoint) bool {
	for _, l := range s.order {
		if l.state == Up && l.heard == e {
			return true
		}
	}
	return false
}

// movesNothing reports whether a LINK frame's messages are questions about ports and other ways: where such a frame comes
// from says nothing about where the link is.
func movesNothing(body []byte) bool {
	kind, _, _, err := wire.NextMessage(body)
	if err != nil {
		return false
	}
	switch kind {
	case wire.MessagePort, wire.MessagePortOpen, wire.MessageTry, wire.MessageTried:
		return true
	}
	return false
}
