package link

import (
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// How long the NATs between two neighbours remember a link without data is found by trying: one end asks the other to be silent, as
// it is itself, and to say something after so many seconds. If that arrives, the link may be silent so long.

// LifeResult is what became of such a test.
type LifeResult uint8

// The results.
const (
	LifeNone    LifeResult = iota // no test was made, or its result was taken
	LifeRunning                   // both ends are silent
	LifeVoid                      // somebody had to say something: nothing is known
	LifeLived                     // the answer arrived
	LifeDied                      // it did not
)

const (
	// lifeSlack is how long after its time the answer is waited for, and how long the first word is.
	lifeSlack = 2 * time.Second
	// lifeAgain after the answer it is sent again: one lost datagram is no lost mapping.
	lifeAgain = 400 * time.Millisecond
)

// lifetime is a test of a link, of ours and of the neighbour's.
type lifetime struct {
	result  LifeResult
	ask     wire.Later
	asked   time.Duration
	agreed  bool
	silence time.Duration // until when neither end pings

	answer   wire.LaterAnswer // that we owe
	answerAt time.Duration    // when; 0: none
	answers  int              // sent
}

// TestLife begins a test of a link that is up and has no data; keep is the silence that we want on it meanwhile, 0: as it is.
func (s *Links) TestLife(now time.Duration, l *Link, d, keep time.Duration) {
	t := &l.life
	if l.state != Up || t.result == LifeRunning || CarrierOf(l.endpoint) != UDP {
		return
	}
	t.ask = wire.Later{Seconds: uint16(min(d, wire.MaxLater*time.Second) / time.Second), Keep: uint16(min(keep, wire.MaxLater*time.Second) / time.Second)}
	s.fillRandom(t.ask.Random[:])
	t.result, t.agreed, t.asked = LifeRunning, false, now
	if s.sendFrame(now, l, l.endpoint, t.ask) != nil {
		t.result = LifeVoid
	}
}

// Life returns how the last test of a link ended; a result is told once.
func (l *Link) Life() LifeResult {
	r := l.life.result
	if r != LifeRunning {
		l.life.result = LifeNone
	}
	return r
}

func (s *Links) receiveLater(now time.Duration, l *Link, b []byte) {
	f, err := wire.ParseLater(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	if f.Keep != 0 {
		l.keepAlive = time.Duration(f.Keep) * time.Second
	}
	if f.Seconds == 0 || l.state != Up {
		return
	}
	t := &l.life
	t.answer, t.answers = wire.LaterAnswer{Seconds: f.Seconds, Random: f.Random}, 0
	t.answerAt = now + time.Duration(f.Seconds)*time.Second
	t.silence = t.answerAt + lifeSlack
	_ = s.sendFrame(now, l, l.endpoint, wire.LaterAnswer{Random: f.Random})
}

func (s *Links) receiveLaterAnswer(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParseLaterAnswer(b)
	t := &l.life
	switch {
	case err != nil:
		s.drops.Malformed++
	case t.result != LifeRunning || f.Random != t.ask.Random || from != l.endpoint:
		// of a test that is over
	case f.Seconds == 0:
		t.agreed, t.asked = true, now
		t.silence = now + time.Duration(t.ask.Seconds)*time.Second + lifeSlack
	case t.agreed && f.Seconds == t.ask.Seconds:
		t.result, t.silence = LifeLived, 0
	}
}

// tickLife ends tests and sends what we owe.
func (s *Links) tickLife(now time.Duration, l *Link) time.Duration {
	t := &l.life
	next := now + time.Second
	if t.answerAt != 0 {
		if now >= t.answerAt {
			_ = s.sendFrame(now, l, l.endpoint, t.answer)
			t.answerAt += lifeAgain
			if t.answers++; t.answers > 1 {
				t.answerAt, t.silence = 0, 0
			}
		}
		if t.answerAt != 0 {
			next = min(next, t.answerAt)
		}
	}
	if t.result != LifeRunning {
		return next
	}
	rx, tx := s.host.Traffic(l)
	due := t.asked + time.Duration(t.ask.Seconds)*time.Second + lifeSlack
	switch {
	case !t.agreed && now > t.asked+lifeSlack,
		t.agreed && (max(tx, rx) > t.asked || l.lastTx > t.asked+lifeSlack/4 || l.lastRx > t.asked+lifeSlack/4):
		t.result, t.silence = LifeVoid, 0
	case t.agreed && now >= due:
		t.result, t.silence = LifeDied, 0
		l.ping.last = 0 // it has to be found out at once whether the link lives, and that opens the NATs again
	}
	return min(next, max(due, now+time.Millisecond))
}
