package forward

import (
	"encoding/binary"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// Limits of using several paths at once.
const (
	MaxSpread = 4   // paths of one session that its flows are spread over
	MaxCopied = 512 // bytes of a packet that travels twice
)

// Ways says how a session uses paths beside the active one. It must not change once it is set.
type Ways struct {
	Spread []*Path // flows are spread over these, each kept to one; fewer than 2: the active path has them all
	Second *Path   // takes the other copy of packets that travel twice; nil: none does
	Copies Copies
}

// Copies says which packets travel twice: of at most Size bytes, and either with one of the code points or to or from a UDP port.
type Copies struct {
	Size  int
	DSCP  uint64 // bit i: code point i
	Ports []PortRange
}

// PortRange is UDP ports, both ends included.
type PortRange struct{ First, Last uint16 }

// SetWays says how several paths are used; nil: one is. now starts the numbers of copies where no session before has been.
func (s *Session) SetWays(now time.Duration, v *Ways) {
	if v != nil && v.Second != nil {
		s.copies.CompareAndSwap(0, uint64(max(now, 1)))
	}
	s.ways.Store(v)
}

// path returns the path of a packet's flow. Of every path and flow a number is drawn, and the highest wins, so that a path that goes
// or comes moves no flows but its own (rendezvous hashing).
func (v *Ways) path(active *Path, packet []byte) *Path {
	if len(v.Spread) < 2 {
		return active
	}
	flow := flowOf(packet)
	var best *Path
	var most uint64
	for _, t := range v.Spread {
		if x := mix(flow ^ uint64(t.Number)*0x9e3779b97f4a7c15); best == nil || x > most {
			best, most = t, x
		}
	}
	return best
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// flowOf hashes the addresses, protocol and ports of a packet that was parsed already; pieces of packets have no ports.
func flowOf(p []byte) uint64 {
	h := uint64(14695981039346656037)
	add := func(b []byte) {
		for ; len(b) >= 4; b = b[4:] {
			h = mix(h ^ uint64(binary.BigEndian.Uint32(b)))
		}
	}
	proto, at := transport(p)
	if p[0]>>4 == 4 {
		add(p[12:20])
	} else {
		add(p[8:40])
	}
	h = mix(h ^ uint64(proto))
	if (proto == protoTCP || proto == protoUDP) && len(p) >= at+4 {
		add(p[at : at+4])
	}
	return h
}

// transport returns the protocol of a packet that was parsed already, and where its header begins; protoFragment for a piece.
func transport(p []byte) (proto byte, at int) {
	if p[0]>>4 == 4 {
		if binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return protoFragment, len(p)
		}
		return p[9], int(p[0]&15) * 4
	}
	proto, at, _ = transport6(p)
	return proto, at
}

// match says whether a packet travels twice.
func (c *Copies) match(p []byte) bool {
	if len(p) > c.Size || len(p) > MaxCopied {
		return false
	}
	class := p[1]
	if p[0]>>4 == 6 {
		class = p[0]<<4 | p[1]>>4
	}
	if c.DSCP&(1<<(class>>2)) != 0 {
		return true
	}
	if len(c.Ports) == 0 {
		return false
	}
	proto, at := transport(p)
	if proto != protoUDP || len(p) < at+4 {
		return false
	}
	from, to := binary.BigEndian.Uint16(p[at:]), binary.BigEndian.Uint16(p[at+2:])
	for _, r := range c.Ports {
		if from >= r.First && from <= r.Last || to >= r.First && to <= r.Last {
			return true
		}
	}
	return false
}

// originateTwice sends a packet on t and on a second path, both copies with one number; false if it is none that travels twice.
func (w *Worker) originateTwice(s *Session, v *Ways, t *Path, packet []byte, in inner, checksum bool) bool {
	second := v.Second
	if second == nil || !v.Copies.match(packet) {
		return false
	}
	if second == t {
		if second = s.active.Load(); second == nil || second == t {
			return false
		}
	}
	if checksum && !fillChecksum(packet) {
		w.plane.drop(DropChecksum, 1)
		return true
	}
	if w.twice == nil {
		w.twice = make([]byte, wire.CopyIDLen+MaxCopied) // once a worker
	}
	binary.BigEndian.PutUint64(w.twice, s.copies.Add(1))
	p := payload{kind: wire.KindCopy, body: w.twice[:wire.CopyIDLen+copy(w.twice[wire.CopyIDLen:], packet)], ecn: in.ecn}
	err := w.seal(t, t.lane(w.index), p)
	if other := w.seal(second, second.lane(w.index), p); err != nil {
		err = other
	}
	w.originated(packet, err)
	return true
}

// once returns the packet behind the number of a copy, or nil if its other copy came before.
func (s *Session) once(body []byte) []byte {
	if len(body) <= wire.CopyIDLen {
		s.plane.drop(DropPacket, 1)
		return nil
	}
	id := binary.BigEndian.Uint64(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copied == nil {
		s.copied = session.NewWindow(session.CopyWindow) // once a session
	}
	if !s.copied.Check(id) {
		return nil
	}
	s.copied.Mark(id)
	return body[wire.CopyIDLen:]
}
