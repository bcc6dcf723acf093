package session

import "math/bits"

// Window sizes in frames: at the end of a path per lane, at a relay per label.
const (
	EndWindow   = 8192
	CopyWindow  = 1024 // numbers of copies, of a session
	RelayWindow = 2048
)

// Window remembers which counters came. Check before opening a frame, Mark after it proved good. The bitmap is a
// ring of words, so a jump forward clears at most all of them. Not safe for concurrent use.
type Window struct {
	words   []uint64
	size    uint64
	highest uint64
}

// NewWindow makes a window of so many bits, at least 64.
func NewWindow(size int) *Window {
	size = max(size, 64)
	words := 1 << bits.Len(uint((size+63)/64)) // a power of two above size/64: one word is always being reused
	return &Window{words: make([]uint64, words), size: uint64(size)}
}

// Check reports whether counter is new and not too old.
func (w *Window) Check(counter uint64) bool {
	if counter > w.highest {
		return true
	}
	if w.highest-counter >= w.size {
		return false
	}
	return w.words[w.index(counter)]&(1<<(counter&63)) == 0
}

// Mark records counter, which Check has let pass.
func (w *Window) Mark(counter uint64) {
	if counter > w.highest {
		from, to := w.highest>>6, counter>>6
		if to-from >= uint64(len(w.words)) {
			clear(w.words)
		} else {
			for i := from + 1; i <= to; i++ {
				w.words[i&uint64(len(w.words)-1)] = 0
			}
		}
		w.highest = counter
	} else if w.highest-counter >= w.size {
		return
	}
	w.words[w.index(counter)] |= 1 << (counter & 63)
}

// Highest is the highest counter marked, 0 at first.
func (w *Window) Highest() uint64 { return w.highest }

func (w *Window) index(counter uint64) uint64 { return counter >> 6 & uint64(len(w.words)-1) }
