package forward

import (
	"encoding/binary"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// sealedAt is where the sealed part of a frame begins; its first 4 bytes are kind and three bytes that belong to it.
const (
	sealedAt = wire.HeaderLen
	kindLen  = 4
)

// openScratch holds what the stages of one run hand each other, by segment of the run.
type openScratch struct {
	plain [maxSegments][]byte // opened: kind, three bytes, body
}

// end takes a run that ends here. The window is asked before opening and marked after, each under one lock for the whole
// run, and nothing is opened or delivered while it is held; another worker on the same lane may run in between, so
// marking asks again.
func (w *Worker) end(now time.Duration, from Endpoint, e *entry, b []byte, seg int) {
	l := &e.path.in[e.lane]
	sealed, streams := w.endTags(now, from, e, b, seg)
	if sealed != 0 {
		sealed = w.endCheck(l, sealed, b, seg)
		sealed = w.endOpen(e.path.Session, e, sealed, b, seg)
		sealed = w.endMark(now, e.path, l, sealed, b, seg)
		w.deliver(now, e, sealed, b, seg)
	}
	if streams != 0 {
		w.endStreams(now, e.path, l, streams, b, seg)
	}
}

// endTags returns which segments have a good tag, sealed and pre-sealed apart.
func (w *Worker) endTags(now time.Duration, from Endpoint, e *entry, b []byte, seg int) (sealed, streams uint64) {
	in, previous := e.in.hop(now)
	mtu := int(e.in.mtuIn.Load())
	var frames, bytes, size, tag, stray int
	var bad []byte
	for i := range segments(len(b), seg) {
		f := b[i*seg : min((i+1)*seg, len(b))]
		if len(f) > mtu {
			size++
			continue
		}
		if !checkTag(f, in, previous) {
			tag++
			bad = f
			continue
		}
		frames++
		bytes += len(f)
		switch {
		case f[0] == wire.TypeSealed:
			sealed |= 1 << i
		case e.stream && f[sealedAt]&0x80 == 0:
			streams |= 1 << i
		default:
			stray++
		}
	}
	w.plane.drop(DropOversize, size)
	w.plane.drop(DropTag, tag)
	w.plane.drop(DropPresealed, stray)
	if tag > 0 {
		w.hint(now, from, bad)
	}
	if frames > 0 {
		e.in.received(now, frames, bytes)
		e.lastUse.Store(int64(now))
	}
	return sealed, streams
}

// endCheck takes away what the window already has.
func (w *Worker) endCheck(l *inLane, set uint64, b []byte, seg int) uint64 {
	old := 0
	l.mu.Lock()
	if l.window != nil {
		for i := range segments(len(b), seg) {
			if set&(1<<i) != 0 && !l.window.Check(counterAt(b, i, seg)) {
				set &^= 1 << i
				old++
			}
		}
	}
	l.mu.Unlock()
	w.plane.drop(DropReplay, old)
	return set
}

func counterAt(b []byte, i, seg int) uint64 { return binary.BigEndian.Uint64(b[i*seg+8:]) }

// endOpen opens in place and takes away what does not open.
func (w *Worker) endOpen(s *Session, e *entry, set uint64, b []byte, seg int) uint64 {
	var missing, broken int
	var key *receiveKey
	var opened uint64
	for i := range segments(len(b), seg) {
		if set&(1<<i) == 0 {
			continue
		}
		f := b[i*seg : min((i+1)*seg, len(b))]
		if key == nil || key.id != f[1] {
			if opened > 0 {
				key.opened.Add(opened)
				opened = 0
			}
			if key = s.receiveKey(f[1]); key == nil {
				missing++
				set &^= 1 << i
				continue
			}
		}
		session.PathNonce(&w.nonce, e.path.Number, e.lane, binary.BigEndian.Uint64(f[8:]))
		plain, err := key.aead.Open(f[sealedAt:sealedAt], &w.nonce, f[sealedAt:], f[:2])
		if err != nil || len(plain) < kindLen {
			broken++
			set &^= 1 << i
			continue
		}
		opened++
		w.open.plain[i] = plain
	}
	if opened > 0 {
		key.opened.Add(opened)
	}
	w.plane.drop(DropNoKey, missing)
	w.plane.drop(DropSeal, broken)
	return set
}

// endMark enters what opened into the window and takes away what came twice.
func (w *Worker) endMark(now time.Duration, t *Path, l *inLane, set uint64, b []byte, seg int) uint64 {
	if set == 0 {
		return 0
	}
	old := 0
	l.mu.Lock()
	if l.window == nil {
		l.window = session.NewWindow(session.EndWindow) // once a lane, at its first good frame
	}
	for i := range segments(len(b), seg) {
		if set&(1<<i) == 0 {
			continue
		}
		c := counterAt(b, i, seg)
		if !l.window.Check(c) {
			set &^= 1 << i
			old++
			continue
		}
		l.window.Mark(c)
		l.received++
		l.highest = max(l.highest, c)
	}
	l.mu.Unlock()
	w.plane.drop(DropReplay, old)
	t.lastReceived.Store(int64(now))
	return set
}

// deliver hands each opened frame to whom its kind belongs.
func (w *Worker) deliver(now time.Duration, e *entry, set uint64, b []byte, seg int) {
	t := e.path
	s := t.Session
	grants, own := s.grants.Load(), w.plane.own.Load()
	var packets, bytes, kinds int
	for i := range segments(len(b), seg) {
		if set&(1<<i) == 0 {
			continue
		}
		f := b[i*seg:]
		p := w.open.plain[i]
		body := p[kindLen:]
		switch p[0] {
		case wire.KindPacket, wire.KindPacketChecksum:
			if w.deliverPacket(s, grants, own, body, p[0] == wire.KindPacketChecksum, inwardECN(f[3], w.ecn)) {
				packets++
				bytes += len(body)
			}
		case wire.KindCopy:
			if body = s.once(body); body != nil && w.deliverPacket(s, grants, own, body, false, inwardECN(f[3], w.ecn)) {
				packets++
				bytes += len(body)
			}
		case wire.KindFragment:
			if n := w.deliverPiece(now, e, grants, own, p, counterAt(b, i, seg), inwardECN(f[3], w.ecn)); n > 0 {
				packets++
				bytes += n
			}
		case wire.KindQUIC:
			if len(body) > 0 {
				w.plane.up.QUIC(s, body, len(body))
			}
		case wire.KindControl:
			w.plane.up.Control(now, t, body)
		default:
			kinds++
		}
	}
	w.plane.drop(DropKind, kinds)
	if packets > 0 {
		w.plane.total.deliveredN.Add(uint64(packets))
		w.plane.total.deliveredB.Add(uint64(bytes))
	}
}

// deliverPacket checks an inner packet and gives it to the TUN.
func (w *Worker) deliverPacket(s *Session, grants *Grants, own *Own, p []byte, checksum bool, bits uint8) bool {
	in, ok := parseInner(p)
	if !ok {
		w.plane.drop(DropPacket, 1)
		return false
	}
	if !w.plane.sourceAllowed(s, grants, own, in.src) {
		w.plane.drop(DropSource, 1)
		return false
	}
	if !w.plane.destinationAllowed(grants, own, in.dst) {
		w.plane.drop(DropDestination, 1)
		w.prohibit(w.now, p, in)
		return false
	}
	if !markECN(p, in.ecn, bits&ecnMask) {
		w.plane.drop(DropECN, 1)
		return false
	}
	if w.tun == nil {
		w.plane.drop(DropNoTUN, 1)
		return false
	}
	w.held = true
	if err := w.tun.Send(p, checksum); err != nil {
		w.plane.drop(DropTUN, lostPackets(err))
		return false
	}
	return true
}

// endStreams hands up pre-sealed frames: runs of QUIC packets of one size, moved together over the headers between them.
// No window is read or moved: their counters are under the hop tag alone, and QUIC has a window of its own.
func (w *Worker) endStreams(now time.Duration, t *Path, l *inLane, set uint64, b []byte, seg int) {
	var start, end, count int // the train so far, in b
	size := seg - wire.HeaderLen
	for i := range segments(len(b), seg) {
		if set&(1<<i) == 0 {
			continue
		}
		count++
		p := b[i*seg+wire.HeaderLen : min((i+1)*seg, len(b))]
		if end == start {
			start = i*seg + wire.HeaderLen
			end = start + len(p)
			continue
		}
		end += copy(b[end:], p)
	}
	w.plane.up.QUIC(t.Session, b[start:end], min(size, end-start))
	l.mu.Lock()
	l.streams += uint64(count)
	l.mu.Unlock()
	t.lastReceived.Store(int64(now))
}
