package forward

import (
	"time"

	"skywire/mesh/wire"
)

const (
	maxPieces = wire.MaxFragments
	// maxPacket is the longest packet that pieces may build: pieces exist for what the TUN never goes below, 1280, and for
	// paths that shrank under a larger one; jumbo frames are not cut.
	maxPacket = 4 * 2048
	// maxAssembling packets of one session wait for their other pieces at once, for pieceLife.
	maxAssembling = 32
	pieceLife     = 500 * time.Millisecond
	pieceIndex    = 0x7f
	pieceLast     = 0x80
)

// reassembly holds the unfinished packets of one session. The pieces of one packet take consecutive counters of one lane,
// so (path, lane, counter of piece 0) names a packet for ever, where the 8-bit id comes round in 256 packets.
type reassembly struct {
	slots []assembly
	ecn   uint8 // field of the packet that was put together last
}

type assembly struct {
	used   bool
	path   *Path
	lane   uint8
	id     uint8
	base   uint64 // counter of piece 0
	since  time.Duration
	have   uint8 // bit per piece
	count  uint8 // 0: last piece not seen
	ecn    uint8 // CE as soon as one piece had it
	length [maxPieces]int
	buf    []byte // maxPieces areas of maxPacket/maxPieces
}

const pieceRoom = maxPacket / maxPieces

// deliverPiece enters a piece, and delivers the packet that it completes; it returns that packet's length, else 0.
func (w *Worker) deliverPiece(now time.Duration, e *entry, g *Grants, own *Own, p []byte, counter uint64, bits uint8) int {
	s := e.path.Session
	if w.piece == nil {
		w.piece = make([]byte, maxPacket) // once a worker
	}
	s.mu.Lock()
	n, expired, ok := s.pieces.add(now, e.path, e.lane, counter, p, bits&ecnMask, w.piece)
	ecn := s.pieces.ecn
	s.mu.Unlock()
	w.plane.drop(DropFragmentExpired, expired)
	if !ok {
		w.plane.drop(DropFragment, 1)
	}
	if n == 0 || !w.deliverPacket(s, g, own, w.piece[:n], false, ecn) {
		return 0
	}
	return n
}

// add enters a piece and, when all are there, copies the packet to dst and returns its length. ecn is the piece's.
func (r *reassembly) add(now time.Duration, t *Path, lane uint8, counter uint64, p []byte, ecn uint8, dst []byte) (n, expired int, ok bool) {
	id, index, last, body := p[1], p[2]&pieceIndex, p[2]&pieceLast != 0, p[kindLen:]
	if index >= maxPieces || uint64(index) > counter || len(body) == 0 || len(body) > pieceRoom || last && index == 0 {
		return 0, 0, false
	}
	a, expired := r.find(now, t, lane, id, counter-uint64(index))
	if a.have&(1<<index) != 0 || last && a.count != 0 || a.count != 0 && index >= a.count || last && a.have>>(index+1) != 0 {
		a.used = false
		return 0, expired, false
	}
	a.have |= 1 << index
	a.ecn = inwardECN(ecn, a.ecn)
	a.length[index] = copy(a.buf[int(index)*pieceRoom:][:pieceRoom], body)
	if last {
		a.count = index + 1
	}
	if a.count == 0 || a.have != 1<<a.count-1 {
		return 0, expired, true
	}
	for i := range int(a.count) {
		n += copy(dst[n:], a.buf[i*pieceRoom:][:a.length[i]])
	}
	a.used, r.ecn = false, a.ecn
	return n, expired, true
}

// find returns the packet that the piece belongs to, or an empty one in place of one that expired or, failing that, of
// the oldest.
func (r *reassembly) find(now time.Duration, t *Path, lane, id uint8, base uint64) (a *assembly, expired int) {
	var free *assembly
	for i := range r.slots {
		a := &r.slots[i]
		if a.used && now-a.since > pieceLife {
			a.used = false
			expired++
		}
		switch {
		case !a.used:
			free = a
		case a.path == t && a.lane == lane && a.base == base && a.id == id:
			return a, expired
		}
	}
	if free == nil && len(r.slots) < maxAssembling {
		r.slots = append(r.slots, assembly{buf: make([]byte, maxPacket)}) // at most 32 times a session
		free = &r.slots[len(r.slots)-1]
	}
	if free == nil {
		free = &r.slots[0]
		for i := range r.slots {
			if r.slots[i].since < free.since {
				free = &r.slots[i]
			}
		}
		expired++
	}
	*free = assembly{used: true, path: t, lane: lane, id: id, base: base, since: now, buf: free.buf}
	return free, expired
}

// cut says in how many pieces a packet of n bytes crosses a path with the given largest datagram; 0: it can't.
func cut(n, mtu int) (pieces, size int) {
	room := min(mtu-wire.SealedOverhead, pieceRoom)
	if room < 8 {
		return 0, 0
	}
	if n <= mtu-wire.SealedOverhead {
		return 1, n
	}
	pieces = (n + room - 1) / room
	if pieces > maxPieces || n > maxPacket {
		return 0, 0
	}
	return pieces, (n + pieces - 1) / pieces
}
