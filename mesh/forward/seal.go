package forward

import (
	"encoding/binary"
	"errors"
	"syscall"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

const (
	// maxHeadroom is what frames of a full train may have beyond maxDatagram while one more is tried.
	maxHeadroom = 64
	// retireAt ends a lane long before its counter could come round.
	retireAt = 1 << 62
	// maxTrains is how many endpoints a worker builds trains for at once: a router's clients, or the next hops of a relay.
	maxTrains = 8
)

// train is what is being built for one endpoint: frames of one size and one ECN field back to back, the last maybe shorter.
type train struct {
	buf  []byte
	n    int
	seg  int
	ecn  uint8
	link *Link
	to   Endpoint
}

// payload is what a frame carries; body is copied.
type payload struct {
	kind byte
	meta [3]byte
	body []byte
	ecn  uint8
}

// ready returns what sending on a lane of t needs.
func (t *Path) ready(lane int) (*sendKey, way, error) {
	k := t.Session.send.Load()
	if k == nil {
		return nil, way{}, ErrNoKey
	}
	to, ok := t.First.way(lane)
	if !ok {
		return nil, way{}, ErrLinkDown
	}
	if t.out[lane].next.Load() >= retireAt {
		return nil, way{}, ErrRetired
	}
	return k, to, nil
}

// claim takes n counters of a lane.
func (t *Path) claim(lane, n int) uint64 { return t.out[lane].next.Add(uint64(n)) - uint64(n) }

func (l *Link) outMTU() int { return int(l.mtuOut.Load()) }

// seal claims a counter and appends one sealed frame to the train.
func (w *Worker) seal(t *Path, lane int, p payload) error {
	k, to, err := t.ready(lane)
	if err != nil {
		return err
	}
	return w.sealWith(t, lane, t.claim(lane, 1), k, to, p)
}

// sealWith appends the frame with that counter, sealed in place: header, kind and body are laid out in the train first.
func (w *Worker) sealWith(t *Path, lane int, counter uint64, k *sendKey, to way, p payload) error {
	n := wire.SealedOverhead + len(p.body)
	f := w.grow(t.First, to.to, n, p.ecn)
	if f == nil {
		return ErrTooBig
	}
	putHeader(f, wire.TypeSealed, k.id, p.ecn, t.base+uint32(lane), counter)
	f[sealedAt] = p.kind
	copy(f[sealedAt+1:], p.meta[:])
	copy(f[sealedAt+kindLen:], p.body)
	session.PathNonce(&w.nonce, t.Number, uint8(lane), counter)
	k.aead.Seal(f[sealedAt:sealedAt], &w.nonce, f[sealedAt:sealedAt+kindLen+len(p.body)], f[:2])
	w.close(f, to.key)
	w.sealed(k, t)
	return nil
}

// preseal appends a QUIC packet as it is.
func (w *Worker) preseal(t *Path, q []byte) error {
	lane := t.streamLane()
	to, ok := t.First.way(lane)
	if !ok {
		return ErrLinkDown
	}
	f := w.grow(t.First, to.to, wire.HeaderLen+len(q), 0)
	if f == nil {
		return ErrTooBig
	}
	putHeader(f, wire.TypePresealed, 0, 0, t.base+uint32(lane), t.claim(lane, 1))
	copy(f[wire.HeaderLen:], q)
	w.close(f, to.key)
	w.sealed(nil, t)
	return nil
}

func putHeader(f []byte, kind, key, bits byte, label uint32, counter uint64) {
	f[0], f[1], f[2], f[3] = kind, key, wire.MaxTTL, bits
	binary.BigEndian.PutUint32(f[4:], label)
	binary.BigEndian.PutUint64(f[8:], counter)
}

// close puts the hop tag and makes the frame part of the train.
func (w *Worker) close(f []byte, key *session.HopKey) {
	binary.BigEndian.PutUint64(f[16:], key.Tag(f[:16], len(f)))
	w.train.n += len(f)
}

// grow returns room for a frame of n bytes at the end of the train, after sending what it can't join: another endpoint or
// ECN field, a longer frame, a train that ended with a short one or is full. nil: no train holds it.
func (w *Worker) grow(l *Link, to Endpoint, n int, ecn uint8) []byte {
	t := w.train
	if t.link != l || t.to != to {
		t = w.trainTo(l, to)
	}
	if n > len(t.buf) {
		return nil
	}
	if t.n > 0 && (t.ecn != ecn || n > t.seg || t.n%t.seg != 0 || t.n >= maxSegments*t.seg || t.n+n > min(maxTrain, len(t.buf))) {
		_ = w.sendTrain()
	}
	if t.n == 0 {
		t.link, t.to, t.seg, t.ecn = l, to, n, ecn
	}
	return t.buf[t.n : t.n+n]
}

// trainTo makes the train to an endpoint the present one: the one that is being built, else an empty one, else, after
// sending what it has, each in its turn. There is one train to an endpoint, so frames to it stay in their order.
func (w *Worker) trainTo(l *Link, to Endpoint) *train {
	var free *train
	for i := range w.trains {
		t := &w.trains[i]
		if t.link == l && t.to == to {
			w.train = t
			return t
		}
		if t.n == 0 && free == nil {
			free = t
		}
	}
	if free == nil {
		free = &w.trains[w.turn%maxTrains]
		w.turn++
		w.train = free
		_ = w.sendTrain()
	}
	if free.buf == nil {
		free.buf = make([]byte, len(w.trains[0].buf)) // once a train
	}
	w.train = free
	return free
}

// sendTrainTo sends what waits for an endpoint.
func (w *Worker) sendTrainTo(l *Link, to Endpoint) {
	for i := range w.trains {
		if t := &w.trains[i]; t.n > 0 && t.link == l && t.to == to {
			w.train = t
			_ = w.sendTrain()
		}
	}
}

// sendTrains sends all trains built so far and returns the first error.
func (w *Worker) sendTrains() (first error) {
	for i := range w.trains {
		w.train = &w.trains[i]
		if err := w.sendTrain(); first == nil {
			first = err
		}
	}
	w.train = &w.trains[0]
	return first
}

// sendTrain sends the present train as far as it is built.
func (w *Worker) sendTrain() error {
	t := w.train
	if t.n == 0 {
		return nil
	}
	w.settle()
	err := w.send(t.link, t.to, t.buf[:t.n], t.seg, t.ecn)
	t.n, t.link = 0, nil
	if errors.Is(err, syscall.EMSGSIZE) {
		return ErrTooBig
	}
	return err
}
