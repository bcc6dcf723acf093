// Package emulator is a bad link in user space: loss, delay, jitter, reordering, duplication, a rate with a queue, and
// an MTU, for kernels without netem. A Direction is pure: frames and time in, frames out, replayable from a seed. Run
// carries real frames between two TAP devices, which may lie in two network namespaces.
//
// It does not shape by address or protocol: a frame is bytes. Rules: a Direction belongs to one goroutine; time is a
// duration since any fixed start and never goes back; Put copies the frame.
package emulator

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// defaultQueue holds what waits for the rate when Profile.Queue is 0: about 100 full frames, as an Ethernet driver's.
const defaultQueue = 150_000

// headerLen is the part of a frame that an MTU does not count (Ethernet).
const headerLen = 14

// Profile says what one direction of a link does to frames. The zero value does nothing.
type Profile struct {
	Loss      float64       // probability that a frame is lost
	Duplicate float64       // probability that it arrives twice
	Reorder   float64       // probability that it overtakes: it skips Delay and Jitter
	Delay     time.Duration // every frame takes at least this long
	Jitter    time.Duration // and up to this much longer, evenly spread; order is kept
	Rate      uint64        // bits per second; 0 is unlimited
	Queue     int           // bytes that may wait for the rate; beyond it frames are dropped
	MTU       int           // bytes of a frame's payload; longer ones are dropped; 0 is unlimited
}

// Validate reports values outside their range.
func (p Profile) Validate() error {
	for name, v := range map[string]float64{"loss": p.Loss, "duplicate": p.Duplicate, "reorder": p.Reorder} {
		if v < 0 || v > 1 {
			return fmt.Errorf("emulator: %s is %v, not a probability", name, v)
		}
	}
	if p.Delay < 0 || p.Jitter < 0 || p.Queue < 0 || p.MTU < 0 {
		return fmt.Errorf("emulator: negative value in %+v", p)
	}
	return nil
}

// Stats count frames.
type Stats struct {
	Put, Delivered, Lost, Duplicated, Reordered, Overflowed, TooBig uint64
}

// Direction is one direction of a link.
type Direction struct {
	p      Profile
	rand   *rand.Rand
	queue  events
	number uint64        // of the next event; keeps frames of the same instant in order
	busy   time.Duration // when the transmitter is free
	last   time.Duration // arrival of the latest frame in order
	stats  Stats
}

// NewDirection makes a direction; the same seed and the same calls give the same losses.
func NewDirection(p Profile, seed uint64) (*Direction, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if p.Queue == 0 {
		p.Queue = defaultQueue
	}
	return &Direction{p: p, rand: rand.New(rand.NewPCG(seed, 0x736b7977697265))}, nil
}

// Put sends a frame into the link at now. It copies frame.
func (d *Direction) Put(now time.Duration, frame []byte) {
	d.stats.Put++
	if d.p.MTU > 0 && len(frame)-headerLen > d.p.MTU {
		d.stats.TooBig++
		return
	}
	depart, ok := d.transmit(now, len(frame))
	if !ok {
		d.stats.Overflowed++
		return
	}
	// Every chance is drawn for every frame, so that changing one probability leaves the other draws alone.
	lost, twice, early := d.chance(d.p.Loss), d.chance(d.p.Duplicate), d.chance(d.p.Reorder)
	jitter := time.Duration(d.rand.Float64() * float64(d.p.Jitter))
	if lost {
		d.stats.Lost++
		return
	}
	frame = slices.Clone(frame)
	at := depart
	if early && d.p.Delay+d.p.Jitter > 0 {
		d.stats.Reordered++
	} else {
		at = max(depart+d.p.Delay+jitter, d.last)
		d.last = at
	}
	d.push(at, frame)
	if twice {
		d.stats.Duplicated++
		d.push(at, frame)
	}
}

// transmit passes n bytes through the rate and returns when they have left, or false when the queue is full.
func (d *Direction) transmit(now time.Duration, n int) (time.Duration, bool) {
	if d.p.Rate == 0 {
		return now, true
	}
	start := max(now, d.busy)
	waiting := uint64(start-now) * d.p.Rate / 8 / uint64(time.Second)
	if waiting+uint64(n) > uint64(max(d.p.Queue, n)) {
		return 0, false
	}
	d.busy = start + time.Duration(uint64(n)*8*uint64(time.Second)/d.p.Rate)
	return d.busy, true
}

func (d *Direction) chance(p float64) bool { return d.rand.Float64() < p }

func (d *Direction) push(at time.Duration, frame []byte) {
	heap.Push(&d.queue, event{at, d.number, frame})
	d.number++
}

// Next tells when the next frame arrives.
func (d *Direction) Next() (at time.Duration, ok bool) {
	if len(d.queue) == 0 {
		return 0, false
	}
	return d.queue[0].at, true
}

// Take returns a frame that has arrived by now; the caller owns it, but must not write into it (a duplicate shares it).
func (d *Direction) Take(now time.Duration) (frame []byte, ok bool) {
	if at, ok := d.Next(); !ok || at > now {
		return nil, false
	}
	d.stats.Delivered++
	return heap.Pop(&d.queue).(event).frame, true
}

// Set changes the profile for frames put from now on.
func (d *Direction) Set(p Profile) error {
	if err := p.Validate(); err != nil {
		return err
	}
	if p.Queue == 0 {
		p.Queue = defaultQueue
	}
	d.p = p
	return nil
}

// Stats returns the counts so far.
func (d *Direction) Stats() Stats { return d.stats }

type event struct {
	at     time.Duration
	number uint64
	frame  []byte
}

// events is a heap by time, then by number.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(v any)   { *e = append(*e, v.(event)) }

func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].number < e[j].number
}

func (e *events) Pop() any {
	old := *e
	v := old[len(old)-1]
	old[len(old)-1] = event{}
	*e = old[:len(old)-1]
	return v
}
