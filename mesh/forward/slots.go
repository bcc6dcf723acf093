package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/session"
)

const (
	slotBits  = 20
	slotMask  = 1<<slotBits - 1
	genMask   = 1<<(32-slotBits) - 1
	chunkSize = 1024
	// slotRest is how long a freed label means nothing, so that frames still under way find nothing instead of a stranger.
	slotRest = 60 * time.Second
	// maxRun is the longest run of labels of one path: lanes in SETUP have four bits.
	maxRun = 16
)

// chunk is a piece of the label table; the table grows by chunks, so that a small node pays for a small one.
type chunk [chunkSize]atomic.Pointer[entry]

// entry is the meaning of one label: a step of a relayed path, or a lane that ends here. Immutable but for its window
// and its counts.
type entry struct {
	label  uint32
	stream bool // last lane: pre-sealed frames are allowed
	in     *Link

	relay *Relay // nil: ends here
	out   uint32 // label at the next node

	path *Path
	lane uint8 // of the path that ends or passes here

	frames  atomic.Uint64
	bytes   atomic.Uint64 // as billed
	lastUse atomic.Int64

	mu     sync.Mutex // guards window; once a run
	window *session.Window
}

// Relay is a rule: what comes from In under the installed labels goes to Out under OutBase and up.
type Relay struct {
	In, Out *Link
	OutBase uint32
	ID      [16]byte // of the path

	lanes []*entry
}

// RelayStats are the counts of a rule over all its lanes.
type RelayStats struct {
	Frames  uint64
	Bytes   uint64        // as billed: what was sealed, without tag and kind; a pre-sealed packet whole
	LastUse time.Duration // 0: never
}

// Stats returns the counts so far.
func (r *Relay) Stats() (st RelayStats) {
	for _, e := range r.lanes {
		st.Frames += e.frames.Load()
		st.Bytes += e.bytes.Load()
		st.LastUse = max(st.LastUse, time.Duration(e.lastUse.Load()))
	}
	return st
}

// slots is control's book about the label table.
type slots struct {
	base  uint32      // generation of a slot that was never used
	state []slotState // by slot, grown as needed; slot 0 is never given out, so that no label is 0
	most  int         // so many slots at most
	next  int         // where the search starts
}

type slotState struct {
	uses  uint32 // generation = base + uses; only rises
	taken bool
	until time.Duration // rests until then
}

func newSlots(n int, generation uint32) slots {
	return slots{base: generation & genMask, most: n, next: 1}
}

// growLocked makes room for more slots, at least up to least; false if there are as many as may be.
func (t *slots) growLocked(least int) bool {
	had := len(t.state)
	if had >= t.most {
		return false
	}
	size := min(t.most, max(had+chunkSize, least))
	t.state = append(t.state, make([]slotState, size-had)...)
	t.next = max(1, had)
	return true
}

// Alloc reserves n consecutive labels of one generation; base+i is the label of lane i. They mean nothing until installed.
func (p *Plane) Alloc(n int) (base uint32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.slots
	if n < 1 || n > maxRun || n >= t.most {
		return 0, ErrSlots
	}
	now := time.Duration(p.clock.Load())
	for {
		if first, ok := t.findLocked(n, now); ok {
			t.next = first + n
			return t.takeLocked(first, n), nil
		}
		if !t.growLocked(0) {
			return 0, ErrSlots
		}
	}
}

// findLocked returns the first slot of a run that is free.
func (t *slots) findLocked(n int, now time.Duration) (first int, ok bool) {
	for range 2 {
		for first := t.next; first+n <= len(t.state); {
			busy := t.busyLocked(first, n, now)
			if busy < 0 {
				return first, true
			}
			first = busy + 1
		}
		t.next = 1
	}
	return 0, false
}

// busyLocked returns the last slot of the run that is not free, or -1.
func (t *slots) busyLocked(first, n int, now time.Duration) int {
	for i := first + n - 1; i >= first; i-- {
		if t.state[i].taken || t.state[i].until > now {
			return i
		}
	}
	return -1
}

// takeLocked gives the run the highest generation that any of its slots is at: none ever goes back.
func (t *slots) takeLocked(first, n int) uint32 {
	var uses uint32
	for i := first; i < first+n; i++ {
		uses = max(uses, t.state[i].uses)
	}
	for i := first; i < first+n; i++ {
		t.state[i] = slotState{uses: uses, taken: true}
	}
	return (t.base+uses)&genMask<<slotBits | uint32(first)
}

// Restore reserves the n labels from base on as they were before a restart.
func (p *Plane) Restore(base uint32, n int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := &p.slots
	first := int(base & slotMask)
	if first == 0 || n < 1 || n > maxRun || first+n > t.most {
		return ErrSlotTaken
	}
	if first+n > len(t.state) {
		next := t.next
		t.growLocked(first + n)
		t.next = next
	}
	if t.busyLocked(first, n, 0) >= 0 {
		return ErrSlotTaken
	}
	for i := first; i < first+n; i++ {
		t.state[i] = slotState{uses: (base>>slotBits - t.base) & genMask, taken: true}
	}
	return nil
}

// Taken returns how many labels are given out.
func (p *Plane) Taken() (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.slots.state {
		if p.slots.state[i].taken {
			n++
		}
	}
	return n
}

// Free ends the meaning of n labels at once and lets them rest before they are given out under the next generation. Those
// that never meant anything need no rest: of a setup that was refused no frame is under way, and it must not use up the table.
// Labels that are not allocated, or of another generation, are left alone.
func (p *Plane) Free(base uint32, n int, now time.Duration) {
	p.Advance(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range uint32(max(n, 0)) {
		slot := (base + i) & slotMask
		if int(slot) >= len(p.slots.state) {
			return
		}
		s := &p.slots.state[slot]
		if !s.taken || (p.slots.base+s.uses)&genMask != base>>slotBits {
			continue
		}
		*s = slotState{uses: s.uses + 1}
		if c := p.chunks[slot/chunkSize].Load(); c != nil && c[slot%chunkSize].Swap(nil) != nil {
			s.until = now + slotRest
		}
	}
}

// InstallRelay gives n allocated labels the meaning of r, replacing what they meant. The last one is the stream lane.
func (p *Plane) InstallRelay(base uint32, n int, r Relay) *Relay {
	rule := &Relay{In: r.In, Out: r.Out, OutBase: r.OutBase, ID: r.ID, lanes: make([]*entry, n)}
	for i := range n {
		e := &entry{label: base + uint32(i), stream: i == n-1, in: r.In, relay: rule, lane: uint8(i), out: r.OutBase + uint32(i)}
		rule.lanes[i] = e
		p.install(e)
	}
	return rule
}

// InstallEnd gives n allocated labels the meaning "lane i of t ends here, coming from in".
func (p *Plane) InstallEnd(base uint32, n int, in *Link, t *Path) {
	for i := range min(n, len(t.in)) {
		p.install(&entry{label: base + uint32(i), stream: i == n-1, in: in, path: t, lane: uint8(i)})
	}
}

func (p *Plane) install(e *entry) {
	slot := e.label & slotMask
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(slot) >= len(p.slots.state) || !p.slots.state[slot].taken {
		panic("forward: install of a label that is not allocated")
	}
	c := p.chunks[slot/chunkSize].Load()
	if c == nil {
		c = new(chunk)
		p.chunks[slot/chunkSize].Store(c)
	}
	c[slot%chunkSize].Store(e)
}

// entry returns the meaning of a label, or nil.
func (p *Plane) entry(label uint32) *entry {
	i := label & slotMask / chunkSize
	if int(i) >= len(p.chunks) {
		return nil
	}
	c := p.chunks[i].Load()
	if c == nil {
		return nil
	}
	e := c[label&slotMask%chunkSize].Load()
	if e == nil || e.label != label {
		return nil
	}
	return e
}
