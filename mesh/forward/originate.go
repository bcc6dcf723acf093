package forward

import (
	"time"

	"skywire/mesh/wire"
)

// Originate takes a packet of ours from a TUN and seals it into the train being built; Flush sends that. packet is not
// kept, but its checksum may be filled in. checksum says that the transport checksum is still missing.
func (w *Worker) Originate(now time.Duration, packet []byte, checksum bool) {
	w.now = now
	p := w.plane
	in, ok := parseInner(packet)
	if !ok {
		d := DropPacket
		if in.dst.IsValid() && (!unicast(in.dst) || !unicast(in.src)) {
			d = DropLocal
		}
		p.drop(d, 1)
		return
	}
	s, d := w.route(in)
	if s == nil {
		p.drop(d, 1)
		p.up.Unrouted(now, packet)
		return
	}
	t := s.active.Load()
	if t == nil {
		p.drop(DropNoPath, 1)
		p.up.Unrouted(now, packet)
		return
	}
	if v := s.ways.Load(); v != nil {
		if t = v.path(t, packet); w.originateTwice(s, v, t, packet, in, checksum) {
			return
		}
	}
	pieces, size := cut(len(packet), min(t.MTU(), t.First.outMTU()))
	switch {
	case pieces == 0:
		p.drop(DropTooBig, 1)
		p.up.TooBig(now, nil, t.First, 0, len(packet)+wire.SealedOverhead, t.MTU())
		return
	case pieces == 1:
		kind := byte(wire.KindPacket)
		if checksum {
			kind = wire.KindPacketChecksum
		}
		err := w.seal(t, t.lane(w.index), payload{kind: kind, body: packet, ecn: in.ecn})
		w.originated(packet, err)
	default:
		w.originatePieces(t, packet, checksum, pieces, size, in.ecn)
	}
}

// route returns the session of a destination; the last answer is kept, since packets come in trains.
func (w *Worker) route(in inner) (*Session, Drop) {
	r := w.plane.routes.Load()
	if r == w.lastRoutes && in.dst == w.lastAddr {
		return w.lastSession, DropUnrouted
	}
	s := r.lookup(in.dst)
	// A mesh address belongs to one node only, whatever prefixes say.
	if s != nil && w.plane.prefix.Contains(in.dst) && in.dst != s.Addr {
		return nil, DropDestination
	}
	w.lastRoutes, w.lastAddr, w.lastSession = r, in.dst, s
	return s, DropUnrouted
}

// originatePieces cuts a packet. All pieces take consecutive counters, by which the receiver knows that they belong
// together, so the counters are claimed at once.
func (w *Worker) originatePieces(t *Path, packet []byte, checksum bool, pieces, size int, ecn uint8) {
	if checksum && !fillChecksum(packet) {
		w.plane.drop(DropChecksum, 1)
		return
	}
	lane := t.lane(w.index)
	k, to, err := t.ready(lane)
	if err != nil {
		w.originated(packet, err)
		return
	}
	base := t.claim(lane, pieces)
	for i := range pieces {
		body := packet[i*size : min((i+1)*size, len(packet))]
		meta := [3]byte{byte(base), byte(i), 0}
		if i == pieces-1 {
			meta[1] |= pieceLast
		}
		err = w.sealWith(t, lane, base+uint64(i), k, to, payload{kind: wire.KindFragment, meta: meta, body: body, ecn: ecn})
		if err != nil {
			break
		}
	}
	w.originated(packet, err)
}

// originated counts a packet that was sealed, or could not be.
func (w *Worker) originated(packet []byte, err error) {
	p := w.plane
	switch err {
	case nil:
		w.tally.packets++
		w.tally.bytes += uint64(len(packet))
		return
	case ErrNoKey:
		p.drop(DropNoKey, 1)
		p.up.Unrouted(w.now, packet)
	case ErrLinkDown:
		p.drop(DropLinkDown, 1)
	case ErrRetired:
		p.drop(DropRetired, 1)
	default:
		p.drop(DropTooBig, 1)
	}
}

// Control seals body as a control frame (kind 5) of t's session, on t whether it is the active path or not, and sends it.
func (w *Worker) Control(now time.Duration, t *Path, body []byte) error {
	w.now = now
	if len(body)+wire.SealedOverhead > t.MTU() {
		return ErrTooBig
	}
	if err := w.seal(t, t.lane(w.index), payload{kind: wire.KindControl, body: body}); err != nil {
		return err
	}
	return w.sendTrain()
}

// QUIC sends a train of QUIC packets to s's peer, each seg bytes long, the last maybe shorter. Packets of the short form
// travel as they are on the stream lane, all others sealed. ErrTooBig: they don't fit the path or the network; syscall.EAGAIN:
// the socket is full and the train was dropped.
func (w *Worker) QUIC(now time.Duration, s *Session, packets []byte, seg int) error {
	w.now = now
	t := s.active.Load()
	if t == nil {
		return ErrNoPath
	}
	seg = min(seg, len(packets))
	mtu := min(t.MTU(), t.First.outMTU())
	if seg <= 0 || seg+wire.HeaderLen > mtu {
		return ErrTooBig
	}
	for len(packets) > 0 {
		q := packets[:min(seg, len(packets))]
		packets = packets[len(q):]
		var err error
		switch {
		case q[0]&0x80 == 0 && len(q) >= wire.SealedOverhead-wire.HeaderLen:
			err = w.preseal(t, q)
		case len(q)+wire.SealedOverhead > mtu:
			err = ErrTooBig
		default:
			err = w.seal(t, t.lane(w.index), payload{kind: wire.KindQUIC, body: q})
		}
		if err != nil {
			_ = w.sendTrains()
			return err
		}
	}
	return w.sendTrains() // the stream lane's endpoint may be another one
}
