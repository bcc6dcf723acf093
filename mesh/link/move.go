package link

import (
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// Moving, as both ends see it. The end that moved says so by LINK frames from where it is now (Moved); the other one
// challenges the new address (mover) and sends there as soon as it answers. Data goes on over the old one meanwhile.

const (
	// restlessFor is how long after Moved pings are repeated fast: routes and neighbour tables settle within it.
	restlessFor = 1500 * time.Millisecond
	// restlessPing is the pause before such a ping is repeated, where the round trip allows it.
	restlessPing = 60 * time.Millisecond
)

// Moved is told that this node's own addresses or routes changed, or that it slept: every neighbour is pinged at once, so
// that it learns our new address, and links that are being dialled begin anew. Links that stand go on meanwhile.
func (s *Links) Moved(now time.Duration) {
	for _, l := range s.order {
		switch {
		case l.state == Up:
			l.restless = now + restlessFor
			l.movedPing = l.ping.id + 1
			s.sendPing(now, l)
		case l.hsAt != 0:
			l.hsTries, l.hsAt = 0, now
		}
	}
	for _, q := range s.asking {
		q.at, q.tries = now, 0
	}
}

// tickRestless repeats the ping of a link fast until one is answered. What is lost just now says nothing about the link.
func (s *Links) tickRestless(now time.Duration, l *Link) time.Duration {
	p := &l.ping
	if p.sent == 0 { // answered
		l.restless = 0
		return now
	}
	due := p.sent + max(restlessPing, 2*p.srtt)
	if now < due {
		return due
	}
	if now >= l.restless {
		l.restless, p.lost = 0, 0
	}
	s.sendPing(now, l)
	return p.sent + max(restlessPing, 2*p.srtt)
}

// mover holds the challenge to an address that the neighbour seems to have moved to.
type mover struct {
	to     forward.Endpoint
	nonce  [8]byte
	at     time.Duration
	since  time.Duration // of the first challenge
	tries  int
	credit int // bytes that may still be sent there
}

// unprovenShare is how many bytes may be sent to an unproven address for each received from it.
const unprovenShare = 3

// afford takes the bytes of a frame to an unproven address from what may be sent there.
func (m *mover) afford(to forward.Endpoint, size int) bool {
	if m.to != to || m.credit < size {
		return false
	}
	m.credit -= size
	return true
}

// challenge asks an unfamiliar address, from which so many bytes came, to prove that the neighbour is really there.
func (s *Links) challenge(now time.Duration, l *Link, to forward.Endpoint, received int) {
	m := &l.move
	if m.to != to {
		*m = mover{to: to, since: now}
		s.fillRandom(m.nonce[:])
	}
	m.credit += unprovenShare * received
	if m.tries == 0 || now >= m.at {
		s.sendChallenge(now, l)
	}
}

func (s *Links) sendChallenge(now time.Duration, l *Link) {
	m := &l.move
	m.tries++
	m.at = now + s.timers.RetryMin
	s.sendFrame(now, l, m.to, wire.Challenge{Random: m.nonce})
}

func (s *Links) tickMove(now time.Duration, l *Link) time.Duration {
	m := &l.move
	if m.tries == 0 {
		return now + time.Second
	}
	if now < m.at {
		return m.at
	}
	if m.tries >= 5 {
		*m = mover{}
		return now + time.Second
	}
	s.sendChallenge(now, l)
	return m.at
}

func (s *Links) receiveResponse(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	m := &l.move
	f, err := wire.ParseResponse(b)
	if m.tries == 0 || err != nil || from != m.to || f.Random != m.nonce {
		s.drops.Refused++
		return
	}
	late := l.Late(now) >= slowTrip || now-m.since >= slowTrip
	s.cfg.Log.Info("neighbour moved", "peer", l.peer.Short(), "from", l.endpoint.Addr, "to", from.Addr)
	l.endpoint = from
	l.meter.restart()
	*m = mover{}
	l.mtu.begin(now, l.mtu.limit)
	s.host.Changed(now, l)
	if late { // the line may have become slow: the first answer says how many sizes to try at once
		s.sendPing(now, l)
		return
	}
	s.probeMTU(now, l)
}
