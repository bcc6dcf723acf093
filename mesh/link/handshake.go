package link

import (
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Datagram takes every datagram that is not a labelled data frame: handshakes, cookies, hints and LINK frames.
// b is valid during the call.
func (s *Links) Datagram(now time.Duration, from forward.Endpoint, b []byte) {
	if len(b) == 0 {
		return
	}
	switch b[0] {
	case wire.TypeInit:
		s.receiveInit(now, from, b)
	case wire.TypeResp:
		s.receiveResp(now, from, b)
	case wire.TypeCookie:
		s.receiveCookie(now, b)
	case wire.TypeWho:
		s.receiveWho(now, from, b)
	case wire.TypeIsMe:
		s.receiveIsMe(now, from, b)
	case wire.TypeHint:
		s.receiveHint(now, from, b)
	case wire.TypeLink:
		s.receiveLink(now, from, b)
	default:
		s.drops.Malformed++
	}
}

// Handshakes unanswered until we ask who is there, and until we say that nobody is.
const (
	askAfter  = 4
	tellAfter = 7
)

// diagnose finds out why a peer does not answer: an open node there tells its key.
func (s *Links) diagnose(now time.Duration, l *Link, ep forward.Endpoint) {
	switch {
	case l.hsTries == askAfter && s.asking[ep] == nil && len(s.asking) < MaxLinks:
		q := &whoQuestion{at: now, suspect: l}
		s.fillRandom(q.random[:])
		s.asking[ep] = q
		s.ask(now, ep, q)
	case l.hsTries == tellAfter && l.trouble == "":
		l.trouble = "no answer"
		s.cfg.Log.Warn("no answer from peer", "peer", l.peer, "addr", ep.Addr,
			"remedy", "is the address right, the port open, and are we allowed there (--open or --allow KEY)?")
	}
}

func (s *Links) fillRandom(b []byte) {
	for i := range b {
		b[i] = byte(s.cfg.Rand.Uint32())
	}
}

func (s *Links) sessionConfig(bind []byte) session.Config {
	c := s.cfg.Session
	c.Identity, c.Network, c.Purpose, c.Bind = s.cfg.Identity, s.cfg.Network, session.Link, bind
	return c
}

// payload is what our side of a handshake says; l may be nil for a peer that has no link yet.
func (s *Links) payload(l *Link) wire.Payload {
	p := wire.Payload{Ports: uint8(s.cfg.Ports), Key: 1, MTU: uint16(s.cfg.MTU), Boot: s.cfg.Boot}
	if l != nil {
		p.Key = l.ring.NewRecvID()
	}
	if s.cfg.Members != nil {
		p.Members = s.cfg.Members()
	}
	return p
}

// receiveInit answers a handshake. Until a frame was opened under its key it is an entry in the gate's bounded table:
// no link is made and none is changed by what may be a replay.
func (s *Links) receiveInit(now time.Duration, from forward.Endpoint, b []byte) {
	reply, _, err := s.gate.Respond(now, from.Addr, from.Socket >= forward.FirstTCP, s.sessionConfig(nil), b, func(peer key.Public, _ wire.Payload) (wire.Payload, uint32, error) {
		if err := s.host.Admit(peer); err != nil {
			return wire.Payload{}, 0, err
		}
		l := s.byPeer[peer]
		if l == nil && len(s.byPeer) >= MaxLinks {
			s.drops.Limit++
			return wire.Payload{}, 0, ErrTooManyLinks
		}
		return s.payload(l), s.freeLabel(), nil
	})
	if len(reply) > 0 {
		s.host.Transmit(from, reply)
	}
	if err != nil {
		s.drops.Handshake++
		s.cfg.Log.Debug("handshake refused", "from", from.Addr, "err", err)
	}
}

// confirm makes a pending handshake the key of its link: a LINK frame with a good hop tag came on its label.
func (s *Links) confirm(now time.Duration, from forward.Endpoint, p *session.Pending, h wire.Header, b []byte) *Link {
	keys := p.Keys
	if h.Key != keys.RecvID || keys.HopRecv.Tag(b[:wire.TaggedLen], len(b)) != h.Tag {
		return nil
	}
	l := s.byPeer[keys.Peer]
	if l == nil {
		var err error
		if l, err = s.add(keys.Peer); err != nil {
			s.cfg.Log.Warn("link refused", "peer", keys.Peer.Short(), "err", err)
			return nil
		}
	}
	s.gate.Confirm(p.Label)
	l.race.took = now - p.Answered()
	s.relabel(now, l, p.Label)
	l.theirLabel = p.Theirs
	if l.state != Up {
		l.endpoint = from
	}
	s.install(now, l, keys)
	return l
}

// relabel gives a link a new label of ours; frames under way on the old one are taken for a while.
func (s *Links) relabel(now time.Duration, l *Link, label uint32) {
	l.oldLabels = append(l.oldLabels, oldLabel{l.label, now + session.HopOverlap})
	if len(l.oldLabels) > 8 {
		delete(s.byLabel, l.oldLabels[0].label)
		l.oldLabels = l.oldLabels[1:]
	}
	l.label = label
	s.byLabel[label] = l
}

// oldLabel is a label of ours that a link had before.
type oldLabel struct {
	label uint32
	until time.Duration
}

func (s *Links) dropLabels(now time.Duration, l *Link) {
	for len(l.oldLabels) > 0 && now >= l.oldLabels[0].until {
		if l.oldLabels[0].label != l.label {
			delete(s.byLabel, l.oldLabels[0].label)
		}
		l.oldLabels = l.oldLabels[1:]
	}
}

func (s *Links) freeLabel() uint32 {
	for {
		label := s.cfg.Rand.Uint32()
		if label != 0 && s.byLabel[label] == nil && s.gate.Pending(label) == nil {
			return label
		}
	}
}

// receiveResp ends a handshake that we began. The keys are proven: the peer could only make message 2 with them.
func (s *Links) receiveResp(now time.Duration, from forward.Endpoint, b []byte) {
	f, err := wire.ParseResp(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	l := s.byLabel[f.Yours]
	if l == nil || l.hs == nil {
		s.drops.NoLabel++
		return
	}
	if _, err := l.jar.Resp(b); err != nil {
		s.drops.BadTag++
		return
	}
	began := l.race.began
	keys, err := l.hs.Finish(f.Noise[:])
	if err != nil && l.hsBefore != nil {
		began = l.race.before
		keys, err = l.hsBefore.Finish(f.Noise[:]) // the line is slower than we thought
	}
	if err != nil {
		// A forged answer does not kill the handshake: it goes on waiting, or begins anew with the next retry.
		s.drops.Handshake++
		return
	}
	l.hs, l.hsBefore, l.hsAt, l.hsTries = nil, nil, 0, 0
	l.answered = now
	s.install(now, l, keys)
	l.theirLabel = f.Label
	l.endpoint = l.race.arrived(from)
	l.dialled = l.endpoint
	l.race.took = now - began
	s.proven(now, l, keys)
	s.sendFrame(now, l, l.endpoint, wire.Keep{})
	if l.race.took >= slowTrip { // without it the neighbour forgets the key before the next ping
		s.sendFrame(now, l, l.endpoint, wire.Keep{})
		s.sendFrame(now, l, l.endpoint, wire.Keep{})
	}
	if from != l.endpoint {
		s.challenge(now, l, from, len(b))
	}
}

// crossed reports whether p is the handshake to give up because both ends dialled at once: the one that the larger key
// began counts, so that both ends settle on the same keys and labels. Ours has just been answered.
func (s *Links) crossed(now time.Duration, p *session.Pending) bool {
	l := s.byPeer[p.Keys.Peer]
	if l == nil || l.state != Up || l.boot != p.Keys.Theirs.Boot || now-l.answered >= session.PendingLife {
		return false
	}
	self := s.cfg.Identity.Public()
	return l.answered != 0 && l.peer.Less(self)
}

// proven is called when a key is known to work: the link is up under it.
func (s *Links) proven(now time.Duration, l *Link, keys *session.Keys) {
	restarted := l.boot != 0 && l.boot != keys.Theirs.Boot
	was := l.state
	l.proved = now
	again := l.boot != keys.Theirs.Boot
	l.boot = keys.Theirs.Boot
	l.members = keys.Theirs.Members
	l.theirPorts = min(max(int(keys.Theirs.Ports), 1), wire.MaxLanes)
	l.ports = ports{}
	l.lastRx = now
	l.hsAt, l.hs, l.hsBefore, l.hsTries = 0, nil, nil, 0
	l.ping.reset(now)
	l.meter.restart()
	l.mtu.begin(now, min(int(keys.Theirs.MTU), s.cfg.MTU))
	l.state = Up
	l.addAddr(now, l.endpoint)
	l.way = switching{}
	l.trouble = ""
	s.host.Changed(now, l)
	if was != Up || again {
		if l.upSince != 0 {
			l.meter.cameBack(now)
		}
		l.upSince = now
		s.host.Up(now, l, restarted)
	}
	if back := was != Up && !again; !back && l.race.took < slowTrip && l.race.sent <= 1 {
		s.probeMTU(now, l) // else when the first answer from there shows how long answers take
	}
}

func (s *Links) receiveCookie(now time.Duration, b []byte) {
	f, err := wire.ParseCookie(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	l := s.byLabel[f.Yours]
	if l == nil || l.hs == nil {
		s.drops.NoLabel++
		return
	}
	if err := l.jar.Cookie(now, b); err != nil {
		s.drops.BadTag++
		return
	}
	// A cookie is only good with a fresh INIT; do not wait out the whole retry pause.
	l.hsAt = min(l.hsAt, now+s.timers.RetryMin/5)
}

// whoQuestion is an address whose key we asked for.
type whoQuestion struct {
	random     [8]byte
	at         time.Duration
	tries      int
	persistent bool
	learnt     func(now time.Duration, peer key.Public)
	suspect    *Link // asked because this link's handshakes go unanswered
}

// DialAddr wants a link with whoever is at ep: it asks for the key first (only nodes run open answer), then dials.
// learnt is called once with the key, so that the caller can pin it.
func (s *Links) DialAddr(now time.Duration, ep forward.Endpoint, persistent bool, learnt func(time.Duration, key.Public)) {
	if s.asking[ep] != nil || len(s.asking) >= MaxLinks {
		return
	}
	q := &whoQuestion{persistent: persistent, learnt: learnt, at: now}
	s.fillRandom(q.random[:])
	s.asking[ep] = q
	s.ask(now, ep, q)
}

// Asked calls f for each address of DialAddr where nobody has told a key yet; silent tells that it was asked often enough
// to say that nobody will.
func (s *Links) Asked(f func(ep forward.Endpoint, silent bool)) {
	for ep, q := range s.asking {
		if q.learnt != nil {
			f(ep, q.tries >= tellAfter)
		}
	}
}

func (s *Links) ask(now time.Duration, ep forward.Endpoint, q *whoQuestion) {
	s.buf = wire.Who{Random: q.random}.Append(s.buf[:0])
	s.host.Transmit(ep, s.buf)
	q.at = now + min(s.timers.RetryMin<<min(q.tries, 5), s.timers.RetryMax)
	q.tries++
}

func (s *Links) receiveWho(now time.Duration, from forward.Endpoint, b []byte) {
	if reply := s.gate.Who(now, b); reply != nil {
		s.host.Transmit(from, reply)
		return
	}
	s.drops.Refused++
}

func (s *Links) receiveIsMe(now time.Duration, from forward.Endpoint, b []byte) {
	f, err := wire.ParseIsMe(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	q := s.asking[from]
	if q == nil || q.random != f.Random || f.Network != s.cfg.Network {
		s.drops.Refused++
		return
	}
	delete(s.asking, from)
	if f.Key == s.cfg.Identity.Public() {
		s.cfg.Log.Warn("link refused", "addr", from.Addr, "err", ErrSelf)
		return
	}
	if l := q.suspect; l != nil {
		s.found(l, from, f.Key)
		return
	}
	if q.learnt != nil {
		q.learnt(now, f.Key)
	}
	if _, err := s.Dial(now, f.Key, []forward.Endpoint{from}, q.persistent); err != nil {
		s.cfg.Log.Warn("link refused", "peer", f.Key.Short(), "err", err)
	}
}

// found notes whose key answers where a peer does not.
func (s *Links) found(l *Link, at forward.Endpoint, k key.Public) {
	if l.state == Up {
		return
	}
	if k == l.peer {
		l.trouble = "it is there but does not answer: does it admit our key?"
		s.cfg.Log.Warn("peer does not admit us", "peer", l.peer, "addr", at.Addr, "remedy", "allow our key there: --allow "+s.cfg.Identity.Public().String())
		return
	}
	l.trouble = "another key answers there: " + k.String()
	s.cfg.Log.Warn("peer has another key", "peer", l.peer, "addr", at.Addr, "found", k, "remedy", "correct --peer KEY@ADDR, or whoever answers is not who you mean")
}

// Unplaced answers a frame whose label or tag could not be placed with a HINT: the neighbour that really sent it finds
// out that we restarted. Ten a second at most.
func (s *Links) Unplaced(now time.Duration, from forward.Endpoint, header []byte) {
	var b [wire.HeaderLen]byte // the data plane hands over the first 16 bytes of a frame, which had 44 at least
	copy(b[:], header)
	if hint := s.gate.Hint(now, b[:]); hint != nil {
		s.host.Transmit(from, hint)
	}
}

func (s *Links) receiveHint(now time.Duration, from forward.Endpoint, b []byte) {
	f, err := wire.ParseHint(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	h, err := wire.ParseHeader(append(s.plain[:0], append(f.Echo[:], make([]byte, 8)...)...))
	if err != nil {
		s.drops.Malformed++
		return
	}
	for _, l := range s.order {
		if l.state != Up || !l.at(from) || l.hs != nil || now-l.hsHint < s.timers.HintEvery && l.hsHint != 0 ||
			now-l.proved < s.timers.HintEvery { // it is about a frame of before
			continue
		}
		ours := h.Type == wire.TypeLink && h.Label == l.theirLabel && h.Counter < l.counter && h.Counter+1024 >= l.counter
		if ours || h.Type != wire.TypeLink && s.host.Sent(l, h) {
			l.hsHint = now
			l.hsTries = 0
			s.initiate(now, l)
			return
		}
	}
	s.drops.Refused++
}
