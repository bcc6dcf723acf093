package forward

import (
	"time"

	"skywire/mesh/wire"
)

// Probe is Control for a frame that may be longer than the path is known to carry: it finds out. Only what the first
// link carries bounds it.
func (w *Worker) Probe(now time.Duration, t *Path, body []byte) error {
	w.now = now
	if len(body)+wire.SealedOverhead > t.First.outMTU() {
		return ErrTooBig
	}
	if err := w.seal(t, t.lane(w.index), payload{kind: wire.KindControl, body: body}); err != nil {
		return err
	}
	return w.sendTrain()
}
