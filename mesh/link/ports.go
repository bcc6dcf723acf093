package link

import (
	"net/netip"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

const (
	// portBusy is how often an open port is asked while data flows: with portLosses it bounds how long a lane goes nowhere.
	portBusy = 500 * time.Millisecond
	// portLosses in a row close a port: the lane falls back to the link's own.
	portLosses = 3
)

// ports are the further ports of a link: lane i goes from our port i mod ours to their port i mod theirs, as soon as that
// pair was asked and answered. A firewall or NAT that knows one port only leaves all lanes on the link's own endpoint.
type ports struct {
	base   forward.Endpoint // the link's endpoint, which the rest is reckoned from
	theirs int
	pairs  int // beside that of lane 0
	lanes  [wire.MaxLanes]lane
}

// lane is the way of one lane, or a reference to an earlier one that has the same pair of ports.
type lane struct {
	same   int              // the first lane with this pair; 0: the link's own
	first  forward.Endpoint // where their port is by reckoning
	seen   forward.Endpoint // where a Port of theirs for this lane came from
	ask    forward.Endpoint // what was asked last
	open   bool             // ask answers
	out    bool             // a Port is unanswered
	lost   int
	last   time.Duration // when it was asked
	random [8]byte
}

// Endpoints returns where the frames of each lane go.
func (l *Link) Endpoints() []forward.Endpoint {
	all := make([]forward.Endpoint, wire.MaxLanes)
	for i := range all {
		all[i] = l.endpoint
		if w := &l.ports.lanes[l.ports.lanes[i].same]; w.open && l.ports.base == l.endpoint {
			all[i] = w.ask
		}
	}
	return all
}

// Ports returns how many pairs of ports carry data, the link's own among them, and how many there could be.
func (l *Link) Ports() (open, all int) {
	for i := range l.ports.lanes {
		if l.ports.lanes[i].open && l.ports.base == l.endpoint {
			open++
		}
	}
	return open + 1, l.ports.pairs + 1
}

// at reports whether the neighbour is known to be there.
func (l *Link) at(e forward.Endpoint) bool {
	if e == l.endpoint {
		return true
	}
	for i := range l.ports.lanes {
		if w := &l.ports.lanes[i]; w.open && w.ask == e {
			return true
		}
	}
	return false
}

// reckon works out the pairs of ports anew: the link is up, or has moved.
func (s *Links) reckon(now time.Duration, l *Link) {
	p := &l.ports
	*p = ports{base: l.endpoint, theirs: l.theirPorts}
	if l.endpoint.Socket >= forward.FirstTCP {
		return // one connection for all lanes
	}
	group := int(l.endpoint.Socket) / s.cfg.Ports * s.cfg.Ports
	for i := range p.lanes {
		ours, theirs := i%s.cfg.Ports, i%p.theirs
		w := &p.lanes[i]
		for j := range i {
			if j%s.cfg.Ports == ours && j%p.theirs == theirs {
				w.same = j
				break
			}
			w.same = j + 1
		}
		port := int(l.endpoint.Addr.Port()) + theirs
		if w.same != i || i == 0 || port > 65535 {
			continue
		}
		p.pairs++
		w.first = forward.Endpoint{Socket: uint16(group + ours)}
		w.first.Addr = netip.AddrPortFrom(l.endpoint.Addr.Addr(), uint16(port))
		w.ask = w.first
		w.last = now - portBusy + s.timers.RetryMin/4 // soon, but after the frames that prove the key
	}
}

// tickPorts asks what is due.
func (s *Links) tickPorts(now time.Duration, l *Link) time.Duration {
	p := &l.ports
	if p.base != l.endpoint || p.theirs != l.theirPorts {
		s.reckon(now, l)
	}
	next := now + time.Second
	if p.pairs == 0 {
		return next
	}
	every := s.timers.PingIdle
	if s.busy(now, l) {
		every = portBusy
	}
	for i := range p.lanes {
		w := &p.lanes[i]
		if !w.first.Addr.IsValid() {
			continue
		}
		due := w.last + every
		switch {
		case w.out && w.lost < portLosses:
			due = w.last + max(s.timers.RetryMin, 3*l.ping.srtt)
		case w.out:
			due = w.last + s.timers.PingIdle
		case !w.open:
			due = w.last + portBusy
		}
		if now >= due {
			s.askPort(now, l, i)
			due = w.last + s.timers.RetryMin
		}
		next = min(next, due)
	}
	return next
}

// busy reports whether data flows on the link.
func (s *Links) busy(now time.Duration, l *Link) bool {
	data := max(s.host.Traffic(l))
	return data != 0 && now-data < 2*s.timers.PingBusy
}

// askPort sends a Port on a lane's way. After losses it tries where the neighbour's own Port came from, and in turn what
// was reckoned.
func (s *Links) askPort(now time.Duration, l *Link, i int) {
	w := &l.ports.lanes[i]
	if w.out {
		w.lost++
	}
	if w.lost >= portLosses {
		if w.open {
			w.open = false
			s.cfg.Log.Info("port does not answer", "peer", l.peer.Short(), "addr", w.ask.Addr)
			s.host.Changed(now, l)
		}
		if w.ask = w.first; w.seen.Addr.IsValid() && w.lost%2 == 1 {
			w.ask = w.seen
		}
	}
	w.out, w.last = true, now
	s.fillRandom(w.random[:])
	s.plain = wire.AppendMessage(s.plain[:0], wire.Port{Lane: uint8(i), Random: w.random})
	_ = s.sealTo(now, l, w.ask)
}

// receivePort answers a Port from where it arrived, with as many bytes. An address that differs from the reckoned one is
// where a NAT puts the neighbour's port.
func (s *Links) receivePort(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParsePort(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	s.plain = wire.AppendMessage(s.plain[:0], wire.PortOpen(f))
	_ = s.sealTo(now, l, from)
	w := &l.ports.lanes[f.Lane]
	if l.state != Up || !w.first.Addr.IsValid() || from.Socket != w.first.Socket {
		return
	}
	w.seen = from
	if !w.open && w.ask != from && now-w.last >= s.timers.RetryMin/2 {
		w.ask, w.lost, w.out = from, 0, false
		s.askPort(now, l, int(f.Lane))
	}
}

// receivePortOpen opens the way of a lane.
func (s *Links) receivePortOpen(now time.Duration, l *Link, from forward.Endpoint, b []byte) {
	f, err := wire.ParsePortOpen(b)
	if err != nil {
		s.drops.Malformed++
		return
	}
	w := &l.ports.lanes[f.Lane]
	if !w.out || from != w.ask || f.Random != w.random {
		s.drops.Refused++
		return
	}
	w.out, w.lost = false, 0
	if !w.open {
		w.open = true
		s.cfg.Log.Debug("port answers", "peer", l.peer.Short(), "addr", w.ask.Addr)
		s.host.Changed(now, l)
	}
}
