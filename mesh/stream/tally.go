package stream

import "sync/atomic"

// Tally counts what the pumps of several streams and flows have carried, while they do. Its zero value is ready.
type Tally struct{ sent, received atomic.Uint64 }

// Carried is what went into the streams and came out of them, in bytes.
func (t *Tally) Carried() (sent, received uint64) { return t.sent.Load(), t.received.Load() }

// CountIn has Pump count into t too; call it before. A nil t counts nowhere.
func (s *Stream) CountIn(t *Tally) { s.tally = t }

// CountIn has PumpFlow count into t too; call it before. A nil t counts nowhere.
func (f *Flow) CountIn(t *Tally) { f.stream.tally = t }

func (t *Tally) send(n int64) {
	if t != nil && n > 0 {
		t.sent.Add(uint64(n))
	}
}

func (t *Tally) receive(n int64) {
	if t != nil && n > 0 {
		t.received.Add(uint64(n))
	}
}
