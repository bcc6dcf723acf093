package link

import (
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
)

// raceStagger is the pause between two addresses that get the same INIT: the first ones have the better chances (they
// are of the better carrier, or worked last time), and a LAN answers before the second one is asked.
const raceStagger = 75 * time.Millisecond

// race is a handshake under way: one INIT, sent to one address after another until an answer comes.
type race struct {
	frame  []byte
	order  []forward.Endpoint // the best first
	sent   int                // of them
	at     time.Duration      // when the next one gets the INIT
	began  time.Duration      // and before the INIT before
	before time.Duration
	took   time.Duration // until the answer, or until ours to the neighbour's was: a round trip, or more
	once   bool          // it is not repeated: somebody else has chosen the moment
}

// arrived returns where the INIT went that was answered from there. The answer is fresh, so the INIT arrived somewhere;
// where it came from is anybody's word, and is believed only of an address that we asked.
func (r *race) arrived(from forward.Endpoint) forward.Endpoint {
	for _, e := range r.order[:r.sent] {
		if e == from {
			return e
		}
	}
	return r.order[0]
}

// order returns the addresses for the next INIT: where the link last was first, then those known, in another order with
// each round, so that a way which loses the answers does not win each time.
func (l *Link) order() []forward.Endpoint {
	var all []forward.Endpoint
	n := len(l.candidates)
	if l.endpoint.Addr.IsValid() && (n == 0 || l.hsTries%2 == 0 || l.state == Up) {
		all = append(all, l.endpoint)
	}
	if l.state == Up { // new keys for the link where it is
		return all
	}
	for i := range n {
		if e := l.candidates[(l.hsTries+i)%n].ep; len(all) == 0 || e != all[0] {
			all = append(all, e)
		}
	}
	return all
}

// initiate sends a fresh INIT to the first of the known addresses, arms the next ones and the retry.
func (s *Links) initiate(now time.Duration, l *Link) {
	order := l.order()
	if len(order) == 0 {
		l.hsAt = 0
		return
	}
	if !s.begin(now, l, order) {
		return
	}
	if l.persistent {
		s.diagnose(now, l, order[0])
	}
	s.advance(now, l)
	pause := s.timers.RetryMin
	for range min(l.hsTries, 16) {
		pause = min(pause*3/2, s.timers.RetryMax)
	}
	pause = max(pause, time.Duration(len(order)-1)*raceStagger+s.timers.RetryMin/2)
	if l.Slow() {
		pause = max(pause, min(l.ping.srtt*3/2, 2*s.timers.RetryMax))
	}
	l.hsTries++
	l.hsAt = now + pause + time.Duration(s.cfg.Rand.Int64N(int64(pause)/4+1))
}

// begin makes the INIT of a race.
func (s *Links) begin(now time.Duration, l *Link, order []forward.Endpoint) bool {
	hs, noise, err := session.Initiate(s.sessionConfig(nil), l.peer, s.payload(l))
	if err != nil {
		s.cfg.Log.Warn("handshake not begun", "peer", l.peer.Short(), "err", err)
		return false
	}
	l.hs, l.hsBefore, l.dialled = hs, l.hs, order[0]
	l.race = race{frame: l.jar.Init(now, l.label, noise), order: order, at: now, began: now, before: l.race.began}
	return true
}

// enter makes an address a candidate, and lets it join a race that is on.
func (l *Link) enter(now time.Duration, e forward.Endpoint) {
	if l.candidate(e) != nil || l.addAddr(now, e) == nil || l.hs == nil || l.state == Up || l.race.once {
		return
	}
	l.race.order = append(l.race.order, e)
}

// advance sends the INIT to whoever is next, and returns when to call again.
func (s *Links) advance(now time.Duration, l *Link) time.Duration {
	r := &l.race
	for l.hs != nil && r.sent < len(r.order) {
		if now < r.at {
			return r.at
		}
		to := r.order[r.sent]
		r.sent++
		if !r.once {
			r.at = now + raceStagger
		}
		s.host.Transmit(to, r.frame)
	}
	return now + time.Second
}

// Burst sends one INIT to each of eps now, for a caller that has chosen the moment: nothing is repeated. A link that is
// made for it is forgotten where no answer comes; one that is up asks at eps by Probe.
func (s *Links) Burst(now time.Duration, peer key.Public, eps []forward.Endpoint) error {
	l := s.byPeer[peer]
	if l == nil {
		var err error
		if l, err = s.add(peer); err != nil {
			return err
		}
	}
	if l.state == Up {
		s.Probe(now, l, eps)
		return nil
	}
	l.state = Dialing
	if len(eps) == 0 || !s.begin(now, l, eps) {
		return nil
	}
	l.race.once = true
	l.hsAt = now + s.timers.RetryMax/2
	s.advance(now, l)
	return nil
}
