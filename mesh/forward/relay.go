package forward

import (
	"encoding/binary"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// directBytes is the shortest span that is sent from where it lies. A shorter one is copied to the link's train, to go with
// what else goes there in this batch: a system call and the way through the network stack cost more than that.
const directBytes = 12 << 10

// span is the part of a received train that waits to go out to one link: consecutive segments of one size, as they lie
// in the receive buffer. A dropped segment, another link, size or ECN field ends it.
type span struct {
	link *Link
	to   Endpoint
	b    []byte // starts at the first segment
	seg  int
	ecn  uint8
}

// relayOutcome is what a run did, counted once at its end.
type relayOutcome struct {
	frames, received, billed int
	receivedBytes            int
	size, tag, down          int // drops
	ttl, old, big, stray     int
	tooBig                   int    // size of one that did not fit
	bad                      []byte // one whose tag was wrong
}

// relay takes a run on: the checks of the specification in their order, then the same buffer with a new header.
func (w *Worker) relay(now time.Duration, from Endpoint, e *entry, b []byte, seg int) {
	in, previous := e.in.hop(now)
	out, ok := e.relay.Out.way(int(e.lane))
	var o relayOutcome
	var good uint64
	n := segments(len(b), seg)
	mtu := int(e.in.mtuIn.Load())
	e.mu.Lock()
	for i := range n {
		f := b[i*seg : min((i+1)*seg, len(b))]
		if len(f) > mtu {
			o.size++
		} else if relayOne(&o, e, f, w.ecn, in, previous, &out, ok) {
			good |= 1 << i
		}
	}
	e.mu.Unlock()

	for i := 0; i < n; {
		if good&(1<<i) == 0 {
			i++
			continue
		}
		first := i
		for ecn := b[i*seg+3] & ecnMask; i < n && good&(1<<i) != 0 && b[i*seg+3]&ecnMask == ecn; {
			i++
		}
		w.appendSpan(e.relay.Out, out.to, b[first*seg:min(i*seg, len(b))], seg)
	}
	w.countRelay(now, from, e, &o, out.mtu)
}

// relayOne checks one frame, which came under that ECN field, and rewrites it. e.mu is held; up is false where the next link
// is down.
func relayOne(o *relayOutcome, e *entry, f []byte, ecn uint8, in, previous *session.HopKey, out *way, up bool) bool {
	if !checkTag(f, in, previous) {
		o.tag++
		o.bad = f
		return false
	}
	o.received++
	o.receivedBytes += len(f)
	if !up {
		o.down++
		return false
	}
	if f[2] <= 1 {
		o.ttl++
		return false
	}
	counter := binary.BigEndian.Uint64(f[8:])
	if e.window == nil {
		e.window = session.NewWindow(session.RelayWindow) // once a lane, at its first good frame
	}
	if !e.window.Check(counter) {
		o.old++
		return false
	}
	e.window.Mark(counter)
	if len(f) > out.mtu {
		o.big++
		o.tooBig = len(f)
		return false
	}
	billed := len(f) - wire.SealedOverhead
	if f[0] == wire.TypePresealed {
		if !e.stream {
			o.stray++
			return false
		}
		billed = len(f) - wire.HeaderLen
	}
	f[2]--
	f[3] = inwardECN(f[3], ecn)
	binary.BigEndian.PutUint32(f[4:], e.out)
	binary.BigEndian.PutUint64(f[16:], out.key.Tag(f[:16], len(f)))
	o.frames++
	o.billed += billed
	return true
}

// checkTag tests the hop tag under the present key, else the previous one.
func checkTag(f []byte, in, previous *session.HopKey) bool {
	tag := binary.BigEndian.Uint64(f[16:])
	return in != nil && in.Tag(f[:16], len(f)) == tag || previous != nil && previous.Tag(f[:16], len(f)) == tag
}

func (w *Worker) countRelay(now time.Duration, from Endpoint, e *entry, o *relayOutcome, mtu int) {
	p := w.plane
	p.drop(DropLinkDown, o.down)
	p.drop(DropOversize, o.size)
	p.drop(DropTag, o.tag)
	p.drop(DropTTL, o.ttl)
	p.drop(DropReplay, o.old)
	p.drop(DropTooBig, o.big)
	p.drop(DropPresealed, o.stray)
	if o.received > 0 {
		e.in.received(now, o.received, o.receivedBytes)
	}
	if o.tag > 0 {
		w.hint(now, from, o.bad)
	}
	if o.frames > 0 {
		e.frames.Add(uint64(o.frames))
		e.bytes.Add(uint64(o.billed))
		e.lastUse.Store(int64(now))
		p.total.relayedN.Add(uint64(o.frames))
		p.total.relayedB.Add(uint64(o.billed))
	}
	if o.big > 0 {
		p.up.TooBig(now, e.relay, e.relay.Out, e.label, o.tooBig, mtu)
	}
}

// received counts frames with a good tag. The address they came from is not looked at: only control moves a link.
func (l *Link) received(now time.Duration, frames, bytes int) {
	l.receivedN.Add(uint64(frames))
	l.receivedB.Add(uint64(bytes))
	l.lastReceived.Store(int64(now))
}

// appendSpan adds relabelled segments to what waits for l, or sends that first where they can't join.
func (w *Worker) appendSpan(l *Link, to Endpoint, f []byte, seg int) {
	s := &w.span
	if len(s.b) > 0 && s.link == l && s.to == to && s.seg == seg && s.ecn == f[3]&ecnMask && len(s.b)%seg == 0 &&
		len(s.b)+len(f) <= min(maxSegments*seg, cap(s.b)) && &s.b[:len(s.b)+1][len(s.b)] == &f[0] {
		s.b = s.b[:len(s.b)+len(f)]
		return
	}
	w.sendSpan()
	*s = span{link: l, to: to, b: f, seg: seg, ecn: f[3] & ecnMask}
}

// sendSpan sends what waits, or copies it to a train.
func (w *Worker) sendSpan() {
	s := &w.span
	if len(s.b) == 0 {
		return
	}
	if len(s.b) < directBytes && w.copySpan(s) {
		*s = span{}
		return
	}
	w.sendTrainTo(s.link, s.to) // what came before
	_ = w.send(s.link, s.to, s.b, min(s.seg, len(s.b)), s.ecn)
	*s = span{}
}

// copySpan copies the frames to their link's train; false: no train holds them.
func (w *Worker) copySpan(s *span) bool {
	for b := s.b; len(b) > 0; {
		n := min(s.seg, len(b))
		f := w.grow(s.link, s.to, n, s.ecn)
		if f == nil {
			return false // the first one already: none is longer
		}
		w.train.n += copy(f, b[:n])
		b = b[n:]
	}
	return true
}
