package forward

import (
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

const maxLanes = wire.MaxLanes

// PathConfig is what a finished setup says about a path at one of its ends.
type PathConfig struct {
	Number   uint16 // unique in the session's life
	First    *Link  // to the neighbour that comes first
	OutBase  uint32 // label of lane 0 there; lane i has OutBase+i
	OutLanes uint8  // lanes that we send on, the last one carries streams; 1–8
	InLanes  uint8  // lanes that we receive on
	MTU      int    // largest datagram that all hops carry
}

// Path is one end's view of a path. Number and lanes never change; counters only rise, across rekeys too.
type Path struct {
	Number  uint16
	Session *Session
	First   *Link

	base         uint32
	lanes        [maxLanes]uint8 // the packet lane of each loop
	mtu          atomic.Int32
	out          []outLane
	in           []inLane
	lastReceived atomic.Int64
	lastSent     atomic.Int64
}

// outLane is the counter of a lane that we send on, claimed by one atomic add immediately before sealing.
type outLane struct {
	next atomic.Uint64
	_    [56]byte // lanes are written by different loops: one cache line each
}

// inLane is a lane that we receive on.
type inLane struct {
	mu       sync.Mutex // guards the fields below; never held while calling out
	window   *session.Window
	received uint64
	highest  uint64
	streams  uint64
}

// LaneStats is what a REPORT says about one lane.
type LaneStats struct {
	Highest  uint64 // counter
	Received uint64 // frames opened
	Streams  uint64 // pre-sealed frames, which have no window
}

// PathStats is the state of a path for reports, failure detection and display.
type PathStats struct {
	In           []LaneStats
	Next         []uint64 // counter of each sending lane: frames sent so far
	LastReceived time.Duration
	LastSent     time.Duration
}

// NewPath returns a path of s. It carries nothing until s.SetActive names it or Worker.Control is called with it, and
// receives once InstallEnd gave its labels a meaning.
func (p *Plane) NewPath(s *Session, c PathConfig) *Path {
	t := &Path{
		Number: c.Number, Session: s, First: c.First, base: c.OutBase,
		out: make([]outLane, min(max(c.OutLanes, 1), maxLanes)),
		in:  make([]inLane, min(max(c.InLanes, 1), maxLanes)),
	}
	t.SetMTU(c.MTU)
	for i := range t.lanes {
		t.lanes[i] = uint8(laneOf(i, p.loops, max(len(t.out)-1, 1), s.spread))
	}
	return t
}

// laneOf returns the packet lane of a loop, of so many. A loop keeps to the lanes that leave by its own socket; where
// these are several, the session says which, the same at both ends: so the sessions of boxes with one loop spread over
// the loops of the nodes between them, and what answers a flow comes back to the loop that the flow leaves by.
func laneOf(loop, loops, lanes int, spread uint8) int {
	loop %= min(loops, lanes)
	choices := (lanes - loop + loops - 1) / loops
	return loop + loops*(int(spread)%choices)
}

// SetMTU sets the largest datagram that the path carries.
func (t *Path) SetMTU(mtu int) { t.mtu.Store(int32(mtu)) }

// MTU returns the largest datagram that the path carries; an inner packet has 44 bytes less.
func (t *Path) MTU() int { return int(t.mtu.Load()) }

// Stats returns a snapshot.
func (t *Path) Stats() PathStats {
	st := PathStats{
		In: make([]LaneStats, len(t.in)), Next: make([]uint64, len(t.out)),
		LastReceived: time.Duration(t.lastReceived.Load()), LastSent: time.Duration(t.lastSent.Load()),
	}
	for i := range t.in {
		l := &t.in[i]
		l.mu.Lock()
		st.In[i] = LaneStats{Highest: l.highest, Received: l.received, Streams: l.streams}
		l.mu.Unlock()
	}
	for i := range t.out {
		st.Next[i] = t.out[i].next.Load()
	}
	return st
}

// lane returns the sending lane of a worker: never the stream lane, unless there is only one.
func (t *Path) lane(worker int) int { return int(t.lanes[worker&(maxLanes-1)]) }

func (t *Path) streamLane() int { return len(t.out) - 1 }
