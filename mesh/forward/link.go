package forward

import (
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/session"
)

// previousHop is how long a link's previous hop key is still tried after its successor came.
const previousHop = 10 * time.Second

// Link is an adjacency as the data plane sees it: where its datagrams go, the keys of its hop tags, its limits. It stays
// the same object while the neighbour comes, goes, rekeys and moves, so entries that name it need no change.
type Link struct {
	Peer key.Public

	endpoints    atomic.Pointer[[maxLanes]Endpoint] // by lane
	keys         atomic.Pointer[hopKeys]
	mtuIn        atomic.Int32
	mtuOut       atomic.Int32
	up           atomic.Bool
	lastReceived atomic.Int64
	lastSent     atomic.Int64
	receivedN    atomic.Uint64
	receivedB    atomic.Uint64
	sentN        atomic.Uint64
	sentB        atomic.Uint64
}

// hopKeys is immutable but for since: when a worker first looked, from where the previous key's ten seconds count.
type hopKeys struct {
	in, previous, out *session.HopKey
	since             atomic.Int64
}

// LinkStats are the labelled frames of one link; bytes are whole datagrams without IP and UDP.
type LinkStats struct {
	ReceivedFrames, ReceivedBytes uint64
	SentFrames, SentBytes         uint64
	LastReceived, LastSent        time.Duration // 0: never
}

// NewLink returns a link to peer that is down and has no address and no keys.
func (p *Plane) NewLink(peer key.Public) *Link {
	l := &Link{Peer: peer}
	l.SetMTU(maxDatagram, maxDatagram)
	return l
}

// SetEndpoint says where the link's datagrams go, whatever their lane. Only control calls it, after a challenge: no data
// frame moves a link.
func (l *Link) SetEndpoint(e Endpoint) { l.SetEndpoints(e) }

// SetEndpoints says where the datagrams of each lane go: those of lane i to the i-th endpoint, and round again. The
// first one is the link's own.
func (l *Link) SetEndpoints(lanes ...Endpoint) {
	var all [maxLanes]Endpoint
	for i := range all {
		all[i] = lanes[i%len(lanes)]
	}
	l.endpoints.Store(&all)
}

// Endpoint returns the address in use and whether there is one.
func (l *Link) Endpoint() (Endpoint, bool) {
	e := l.endpoints.Load()
	if e == nil {
		return Endpoint{}, false
	}
	return e[0], true
}

// SetKeys replaces the hop keys: in for received frames, previous (may be nil) tried after it for the ten seconds that
// follow, out for sent ones. All nil ends the traffic of the link.
func (l *Link) SetKeys(in, previous, out *session.HopKey) {
	k := &hopKeys{in: in, previous: previous, out: out}
	k.since.Store(-1)
	l.keys.Store(k)
}

// SetMTU sets the largest datagram received and sent.
func (l *Link) SetMTU(in, out int) {
	l.mtuIn.Store(int32(in))
	l.mtuOut.Store(int32(out))
}

// MTU returns the largest datagram received and sent.
func (l *Link) MTU() (in, out int) { return int(l.mtuIn.Load()), int(l.mtuOut.Load()) }

// SetUp says whether frames may be sent on the link. Frames received with a good tag are taken in any case.
func (l *Link) SetUp(up bool) { l.up.Store(up) }

// Up reports what SetUp said.
func (l *Link) Up() bool { return l.up.Load() }

// Stats returns the counts so far.
func (l *Link) Stats() LinkStats {
	return LinkStats{
		ReceivedFrames: l.receivedN.Load(), ReceivedBytes: l.receivedB.Load(),
		SentFrames: l.sentN.Load(), SentBytes: l.sentB.Load(),
		LastReceived: time.Duration(l.lastReceived.Load()), LastSent: time.Duration(l.lastSent.Load()),
	}
}

// hop returns the keys to receive with at now.
func (l *Link) hop(now time.Duration) (in, previous *session.HopKey) {
	k := l.keys.Load()
	if k == nil {
		return nil, nil
	}
	if k.previous == nil {
		return k.in, nil
	}
	if k.since.Load() < 0 {
		k.since.CompareAndSwap(-1, int64(now))
	}
	if now-time.Duration(k.since.Load()) > previousHop {
		return k.in, nil
	}
	return k.in, k.previous
}

// way is what sending on a link needs, read once a run or packet.
type way struct {
	to  Endpoint
	key *session.HopKey
	mtu int
}

// way returns how to send the frames of a lane on the link, false when it is down.
func (l *Link) way(lane int) (w way, ok bool) {
	e, k := l.endpoints.Load(), l.keys.Load()
	if e == nil || k == nil || k.out == nil || !l.up.Load() {
		return way{}, false
	}
	return way{to: e[lane&(maxLanes-1)], key: k.out, mtu: int(l.mtuOut.Load())}, true
}
