package forward

// tally is what a worker has sealed and not yet entered into the counters that all loops share: an atomic add a train
// instead of four a packet.
type tally struct {
	key     *sendKey // of sealed
	path    *Path
	sealed  uint64
	packets uint64 // of ours
	bytes   uint64
}

// sealed counts a frame that is in the train; k is nil for one that was sealed already.
func (w *Worker) sealed(k *sendKey, t *Path) {
	y := &w.tally
	if y.path != t || y.key != k {
		w.settle()
		y.path, y.key = t, k
	}
	y.sealed++
}

// settle enters what was counted.
func (w *Worker) settle() {
	y := &w.tally
	if y.path != nil {
		y.path.lastSent.Store(int64(w.now))
		if y.key != nil {
			y.key.sealed.Add(y.sealed)
		}
	}
	if y.packets > 0 {
		w.plane.total.originN.Add(y.packets)
		w.plane.total.originB.Add(y.bytes)
	}
	*y = tally{}
}
