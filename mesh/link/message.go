package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Send seals one message to a neighbour, in pieces if it doesn't fit one frame.
func (s *Links) Send(now time.Duration, l *Link, m wire.Message) error {
	s.plain = wire.AppendMessage(s.plain[:0], m)
	if len(s.plain) <= frameRoom {
		return s.seal(now, l, l.endpoint)
	}
	l.pieceID++
	pieces, err := wire.Cut(bytes.Clone(s.plain), l.pieceID, frameRoom)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if err := s.sendFrame(now, l, l.endpoint, p); err != nil {
			return err
		}
	}
	return nil
}

// SendMoving is Send of one frame to a neighbour that may have moved to an address that is not proven yet: it goes there,
// as far as what came from there allows.
func (s *Links) SendMoving(now time.Duration, l *Link, m wire.Message) error {
	to := l.endpoint
	if l.move.tries > 0 {
		to = l.move.to
	}
	return s.sendFrame(now, l, to, m)
}

// SendAll seals messages to a neighbour, as many in a frame as fit; one that does not fit a frame goes in pieces.
func (s *Links) SendAll(now time.Duration, l *Link, messages []wire.Message) error {
	room := frameRoom
	if l.mtu.until == 0 && !l.mtu.waits { // probed, and not about to be
		room = max(room, l.mtu.size-wire.LinkOverhead)
	}
	s.plain = s.plain[:0]
	flush := func() error {
		if len(s.plain) == 0 {
			return nil
		}
		err := s.seal(now, l, l.endpoint)
		s.plain = s.plain[:0]
		return err
	}
	for _, m := range messages {
		had := len(s.plain)
		s.plain = wire.AppendMessage(s.plain, m)
		if len(s.plain) <= room {
			continue
		}
		size := len(s.plain) - had
		s.plain = s.plain[:had]
		if err := flush(); err != nil {
			return err
		}
		if size > room {
			if err := s.Send(now, l, m); err != nil {
				return err
			}
			s.plain = s.plain[:0]
			continue
		}
		s.plain = wire.AppendMessage(s.plain, m)
	}
	return flush()
}

// sendFrame seals one message in one LINK frame to an address of the neighbour.
func (s *Links) sendFrame(now time.Duration, l *Link, to forward.Endpoint, m wire.Message) error {
	s.plain = wire.AppendMessage(s.plain[:0], m)
	return s.seal(now, l, to)
}

// seal sends s.plain in one LINK frame.
func (s *Links) seal(now time.Duration, l *Link, to forward.Endpoint) error {
	if !to.Addr.IsValid() || l.ring.Sending(now) == nil {
		return ErrDown
	}
	if to != l.endpoint && !l.move.afford(to, wire.LinkOverhead+len(s.plain)) {
		return ErrUnproven
	}
	return s.sealTo(now, l, to)
}

// sealTo is seal to an address that may be unproven: no more bytes than caused it, or a Port.
func (s *Links) sealTo(now time.Duration, l *Link, to forward.Endpoint) error {
	keys := l.ring.Sending(now)
	if keys == nil {
		return ErrDown
	}
	h := wire.Header{Type: wire.TypeLink, Key: keys.SendID, Label: l.theirLabel, Counter: l.counter}
	l.counter++
	l.ring.Sent(now, 1)
	b := h.Append(s.buf[:0])
	session.LinkNonce(&s.nonce, h.Counter)
	b = keys.Send.Seal(b, &s.nonce, s.plain, b[:wire.AADLen])
	binary.BigEndian.PutUint64(b[wire.TaggedLen:], keys.HopSend.Tag(b[:wire.TaggedLen], len(b)))
	s.buf = b
	l.lastTx = now
	s.host.Transmit(to, b)
	return nil
}

// receiveLink opens a LINK frame and handles its messages.
func (s *Links) receiveLink(now time.Duration, from forward.Endpoint, b []byte) {
	h, err := wire.ParseHeader(b)
	if err != nil || len(b) < wire.MinLinkFrame {
		s.drops.Malformed++
		return
	}
	l := s.byLabel[h.Label]
	if l == nil {
		if p := s.gate.Pending(h.Label); p != nil {
			if s.crossed(now, p) {
				return
			}
			l = s.confirm(now, from, p, h, b)
		}
	}
	if l == nil {
		s.drops.NoLabel++
		s.Unplaced(now, from, b)
		return
	}
	keys := l.ring.ByRecvID(h.Key)
	if keys == nil {
		s.drops.NoLabel++
		s.Unplaced(now, from, b)
		return
	}
	if keys.HopRecv.Tag(b[:wire.TaggedLen], len(b)) != h.Tag {
		s.drops.BadTag++
		return
	}
	w := l.windows[h.Key]
	if w == nil || !w.Check(h.Counter) {
		s.drops.Replayed++
		return
	}
	session.LinkNonce(&s.nonce, h.Counter)
	// The opened body has a buffer of its own: messages may cause frames to be sent, which use s.plain.
	body, err := keys.Recv.Open(make([]byte, 0, len(b)), &s.nonce, b[wire.HeaderLen:], b[:wire.AADLen])
	if err != nil {
		s.drops.BadTag++
		return
	}
	w.Mark(h.Counter)
	newest := h.Counter >= w.highest
	w.highest = max(w.highest, h.Counter)
	at := from
	if movesNothing(body) && l.endpoint.Addr.IsValid() {
		at = l.endpoint
	}
	if l.heard = from; from == l.endpoint {
		l.way.rx = now
	}
	s.opened(now, l, keys, at, len(b), newest)
	s.messages(now, l, from, body)
}

// opened notes that a frame of keys was good: it proves a new key, and shows where the neighbour is.
// Only the newest frame of a key shows that: an older one may have been under way while the neighbour moved.
func (s *Links) opened(now time.Duration, l *Link, keys *session.Keys, from forward.Endpoint, size int, newest bool) {
	l.lastRx = now
	l.openedWith = keys
	first := l.ring.Opened(now, keys.RecvID)
	switch {
	case from == l.endpoint:
	case l.state != Up:
		l.endpoint = from
	case newest && !l.lately(now, from):
		s.challenge(now, l, from, size)
	}
	if first || l.state != Up {
		s.dropWindows(l)
		if l.state == Up && keys.Theirs.Boot == l.boot {
			s.host.Changed(now, l)
			if l.mtu.until == 0 && s.usedLately(now, l) {
				s.reprobe(now, l)
			}
			return
		}
		s.proven(now, l, keys)
	}
}

// dropWindows forgets the windows of keys that are gone.
func (s *Links) dropWindows(l *Link) {
	for id := range l.windows {
		if l.ring.ByRecvID(id) == nil {
			delete(l.windows, id)
		}
	}
}

func (s *Links) messages(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	for len(b) > 0 {
		kind, body, rest, err := wire.NextMessage(b)
		if err != nil {
			s.drops.Malformed++
			return
		}
		s.message(now, l, from, kind, body)
		b = rest
	}
}

func (s *Links) message(now time.Duration, l *Link, from forward.Endpoint, kind uint8, b []byte) {
	switch kind {
	case paddingType, wire.MessageKeep:
	case wire.MessagePing:
		s.receivePing(now, l, from, b)
	case wire.MessagePong:
		s.receivePong(now, l, b)
	case wire.MessageMeasure:
		s.receiveMeasure(now, l, b)
	case wire.MessageChallenge:
		if f, err := wire.ParseChallenge(b); err == nil {
			s.sendFrame(now, l, from, wire.Response(f))
		}
	case wire.MessageResponse:
		s.receiveResponse(now, l, from, b)
	case wire.MessagePort:
		s.receivePort(now, l, from, b)
	case wire.MessagePortOpen:
		s.receivePortOpen(now, l, from, b)
	case wire.MessageLater:
		s.receiveLater(now, l, b)
	case wire.MessageLaterAnswer:
		s.receiveLaterAnswer(now, l, from, b)
	case wire.MessageTry:
		s.receiveTry(now, l, from, b)
	case wire.MessageTried:
		s.receiveTried(now, l, from, b)
	case wire.MessageRekey1:
		s.receiveRekey1(now, l, b)
	case wire.MessageRekey2:
		s.receiveRekey2(now, l, b)
	case wire.MessagePiece:
		s.receivePiece(now, l, from, b)
	case wire.MessageBye:
		s.down(now, l, Goodbye)
	default:
		if l.state == Up {
			s.host.Message(now, l, kind, b)
		}
	}
}

// pieceBuffer gathers one message.
type pieceBuffer struct {
	parts [][]byte
	have  int
	at    time.Duration
}

func (s *Links) receivePiece(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	p, err := wire.ParsePiece(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	q := l.pieces[p.ID]
	if q == nil {
		for id, old := range l.pieces {
			if now-old.at > 2*time.Second || len(l.pieces) >= maxPieces {
				delete(l.pieces, id)
			}
		}
		q = &pieceBuffer{parts: make([][]byte, p.Count), at: now}
		l.pieces[p.ID] = q
	}
	if len(q.parts) != int(p.Count) || q.parts[p.Index] != nil {
		s.drops.Malformed++
		return
	}
	q.parts[p.Index] = bytes.Clone(p.Bytes)
	if q.have++; q.have < len(q.parts) {
		return
	}
	delete(l.pieces, p.ID)
	kind, body, rest, err := wire.NextMessage(bytes.Join(q.parts, nil))
	if err != nil || len(rest) > 0 || kind == wire.MessagePiece { // no nesting
		s.drops.Malformed++
		return
	}
	s.message(now, l, from, kind, body)
}

func (s *Links) receiveRekey1(now time.Duration, l *Link, b []byte) {
	f, err := wire.ParseRekey1(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	if reply := l.ring.Repeat(f.Noise[:]); reply != nil {
		s.sendFrame(now, l, l.endpoint, wire.Rekey2{Noise: [wire.Noise2Len]byte(reply)})
		return
	}
	// The rekey is bound to the key that carried it: that is the one the other side began from.
	noise, keys, err := session.Respond(s.sessionConfig(l.openedWith.Hash[:]), f.Noise[:], func(key.Public, wire.Payload) (wire.Payload, error) {
		return s.payload(l), nil
	})
	if err != nil || keys.Peer != l.peer {
		s.drops.Handshake++
		return
	}
	l.ring.Answered(f.Noise[:], noise)
	s.sendFrame(now, l, l.endpoint, wire.Rekey2{Noise: [wire.Noise2Len]byte(noise)})
	s.install(now, l, keys)
	s.host.Changed(now, l)
}

func (s *Links) receiveRekey2(now time.Duration, l *Link, b []byte) {
	f, err := wire.ParseRekey2(b)
	if err != nil || l.rekey == nil {
		s.drops.Malformed++
		return
	}
	keys, err := l.rekey.Finish(f.Noise[:])
	if err == nil || errors.Is(err, session.ErrSpent) {
		l.rekey = nil // a stale answer to an attempt before must not end this one
	}
	if err != nil || keys.Peer != l.peer {
		s.drops.Handshake++
		return
	}
	s.install(now, l, keys)
	s.host.Changed(now, l)
	s.sendPing(now, l) // repeated until answered: while the other end is without a frame under the new key, it may refuse data
}

// install adds a key to the link, with a replay window of its own.
func (s *Links) install(now time.Duration, l *Link, keys *session.Keys) {
	l.ring.Install(now, keys)
	l.windows[keys.RecvID] = &window{Window: session.NewWindow(linkWindow)}
	s.dropWindows(l)
}

// window is the replay window of the LINK frames under one key.
type window struct {
	*session.Window
	highest uint64
}
