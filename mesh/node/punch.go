package node

import (
	"net/netip"
	"slices"
	"sort"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/node/api"
	"skywire/mesh/wire"
)

// Punching: two nodes with a session over relays, and traffic on it, tell each other their addresses through the session
// and send handshakes to all of them at the same moment, so that each one's NAT or firewall takes the other's for answers.
// What comes of it is a link like any other; the path shortens by the normal plan, and the one over relays stays as standby.

// Bounds of punching.
const (
	maxPunches   = 4   // attempts at once
	maxPunched   = 32  // links that punching made; half of all
	maxPunchers  = 256 // peers whose failures are remembered
	punchOffers  = 4   // of an attempt, until it is answered
	punchGoes    = 2   // words to begin: one may get lost
	punchWish    = 10 * time.Second
	punchLook    = 250 * time.Millisecond
	punchRetry   = 200 * time.Millisecond // of an offer, doubling
	punchGoAgain = 50 * time.Millisecond
	punchWait    = 3 * time.Second  // for the word to begin, after our answer
	punchSettle  = time.Second      // after the last try, for its answer
	punchAgain   = time.Second      // between two attempts with one peer, whoever began them
	punchIdle    = 10 * time.Minute // after the last frame a punched link is let go
	punchNearly  = time.Minute      // by which both ends may differ
)

// PunchConfig is what punching needs of the outside.
type PunchConfig struct {
	// SocketFor returns the socket that can send to an address, false where there is none; nil: the first one can.
	SocketFor func(netip.AddrPort) (uint16, bool)
	Off       bool // never look for direct links by punching, nor answer who does
}

// punchTries is when, after the beginning, each candidate gets its INIT: 200 bytes each.
var punchTries = [...]time.Duration{0, 100 * time.Millisecond, 300 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond}

// punchPauses follow one failure after the other.
var punchPauses = [...]time.Duration{punchAgain, 5 * time.Second, 15 * time.Second, time.Minute, 5 * time.Minute, 10 * time.Minute}

// punchHeeded is the longest of these pauses that a peer's offer has to wait for: its network may have changed.
const punchHeeded = 2

// punchStage is where an attempt stands.
type punchStage uint8

const (
	punchNone     punchStage = iota
	punchOffered             // ours; the answer is awaited
	punchAnswered            // theirs; the word to begin is awaited
	punchGoing               // handshakes go out
)

// puncher is what is known of punching with one peer.
type puncher struct {
	peer    key.Public
	stage   punchStage
	id      uint32
	began   time.Duration // when the offer went out, or came
	at      time.Duration // when the next step is due
	tries   int
	goAt    time.Duration // when the word to begin goes out again
	goes    int
	targets []forward.Endpoint

	fails  int
	next   time.Duration // no attempt before
	nat    uint8         // of the peer, as it said
	cgnat  bool
	result string // of the last attempt, for people
}

// punching is the state of all attempts.
type punching struct {
	all    []*puncher // by age
	of     map[key.Public]*puncher
	nextAt time.Duration
	id     uint32
}

func (p *puncher) wrote(a netip.Addr) bool {
	return slices.ContainsFunc(p.targets, func(e forward.Endpoint) bool { return e.Addr.Addr().Unmap() == a })
}

func (p *puncher) wroteTo(a netip.AddrPort) bool {
	return slices.ContainsFunc(p.targets, func(e forward.Endpoint) bool { return unmapped(e.Addr) == a })
}

// PeerNAT tells what a peer said of its NAT, and how the last attempt to punch went; empty if there was none.
func (n *Core) PeerNAT(peer key.Public) (nat NAT, result string) {
	p := n.punch.of[peer]
	if p == nil {
		return NAT{}, ""
	}
	return NAT{Kind: p.nat, CGNAT: p.cgnat, Observers: 2}, p.result
}

// natStatus is what node status shows.
func (n *Core) natStatus() api.NATStatus {
	t := n.reach.nat
	s := api.NATStatus{
		Kind: t.String(), Observers: t.Observers, CGNAT: t.CGNAT, Punched: n.punchedLinks(), Punching: !n.punchOff(), Seen: []string{},
		KeepAlive: int(n.reach.mapping.keep() / time.Second),
	}
	for _, a := range t.Seen {
		s.Seen = append(s.Seen, a.String())
	}
	return s
}

// punchOff tells whether this node keeps to relays: who tells nobody where he is can't ask others to meet him there.
func (n *Core) punchOff() bool { return n.cfg.Punch.Off || n.cfg.Publish == PublishNone }

// puncher returns what is kept of a peer, new if need be; the one that was not used longest makes room.
func (n *Core) puncher(peer key.Public) *puncher {
	if p := n.punch.of[peer]; p != nil {
		return p
	}
	if len(n.punch.all) >= maxPunchers {
		i := slices.IndexFunc(n.punch.all, func(p *puncher) bool { return p.stage == punchNone })
		if i < 0 {
			return nil
		}
		delete(n.punch.of, n.punch.all[i].peer)
		n.punch.all = slices.Delete(n.punch.all, i, i+1)
	}
	if n.punch.of == nil {
		n.punch.of = map[key.Public]*puncher{}
	}
	p := &puncher{peer: peer}
	n.punch.of[peer] = p
	n.punch.all = append(n.punch.all, p)
	return p
}

// tickPunch drives all attempts and begins those that are due.
func (n *Core) tickPunch(now time.Duration) time.Duration {
	n.lookReach(now)
	next := now + time.Second
	running := 0
	for _, p := range n.punch.all {
		if p.stage == punchNone {
			continue
		}
		n.tickPuncher(now, p)
		if p.stage != punchNone {
			running++
			next = min(next, p.at, max(p.goAt, now))
			if p.goAt != 0 {
				next = min(next, p.goAt)
			}
		}
	}
	if now < n.punch.nextAt {
		return next
	}
	n.punch.nextAt = now + punchLook
	n.tickPunched(now)
	n.tickMapping(now)
	if n.punchOff() || len(n.sessions) == 0 || running >= maxPunches {
		return next
	}
	var wished []*peerSession
	for _, s := range n.sessions {
		if n.punchWished(now, s) {
			wished = append(wished, s)
		}
	}
	sort.Slice(wished, func(i, j int) bool { return wished[i].seq < wished[j].seq })
	for _, s := range wished {
		if p := n.puncher(s.peer); p != nil && running < maxPunches && now >= p.next && p.stage == punchNone {
			running++
			n.beginPunch(now, p)
			next = now
		}
	}
	return next
}

// punchWished tells whether a session has traffic over relays that a direct link would carry better. Its source asks: one
// end is enough.
func (n *Core) punchWished(now time.Duration, s *peerSession) bool {
	return s.active != nil && s.active.source && s.active.state == pathUsable && len(s.active.hops) > 2 &&
		now-s.wantedAt < punchWish && n.upLink(s.peer) == nil && n.admit(s.peer) == nil && n.punchedLinks() < maxPunched
}

func (n *Core) punchedLinks() (count int) {
	n.links.All(func(l *link.Link) {
		if n.neighbour(l).punched != 0 {
			count++
		}
	})
	return count
}

// beginPunch offers our addresses.
func (n *Core) beginPunch(now time.Duration, p *puncher) {
	n.punch.id++
	*p = puncher{peer: p.peer, fails: p.fails, nat: p.nat, cgnat: p.cgnat, result: p.result}
	p.stage, p.id, p.began, p.at = punchOffered, n.punch.id, now, now
	n.tickPuncher(now, p)
}

// tickPuncher does what is due of one attempt.
func (n *Core) tickPuncher(now time.Duration, p *puncher) {
	if n.upLink(p.peer) != nil {
		n.punched(now, p)
		return
	}
	if p.goAt != 0 && now >= p.goAt {
		p.goes++
		p.goAt += punchGoAgain
		if p.goes >= punchGoes {
			p.goAt = 0
		}
		n.tellPunch(now, p.peer, wire.PunchGo{ID: p.id})
	}
	if now < p.at {
		return
	}
	switch p.stage {
	case punchOffered:
		if p.tries >= punchOffers {
			n.punchFailed(now, p, "the peer does not answer offers")
			return
		}
		p.at = now + punchRetry<<p.tries
		p.tries++
		p.began = now
		n.tellPunch(now, p.peer, n.punchMessage(now, wire.PunchOffer, p, true))
	case punchAnswered:
		n.punchFailed(now, p, "the peer did not begin")
	case punchGoing:
		if p.tries >= len(punchTries) {
			n.punchFailed(now, p, "no answer")
			return
		}
		if err := n.links.Burst(now, p.peer, p.targets); err != nil {
			n.punchFailed(now, p, err.Error())
			return
		}
		p.tries++
		p.at = now + punchSettle
		if p.tries < len(punchTries) {
			p.at = now + punchTries[p.tries] - punchTries[p.tries-1]
		}
	}
}

func addrList(all []forward.Endpoint) string {
	s := ""
	for i, e := range all {
		if i > 0 {
			s += " "
		}
		s += e.Addr.String()
	}
	return s
}

// tellPunch seals a message to the peer on the path in use.
func (n *Core) tellPunch(now time.Duration, peer key.Public, m wire.Control) {
	if s := n.sessions[peer]; s != nil && s.active != nil {
		n.control(now, s.active, m)
	}
}

func (n *Core) punchMessage(now time.Duration, step uint8, p *puncher, inside bool) wire.Punch {
	n.reach.nextAt = now // what neighbours see this moment
	n.lookReach(now)
	m := wire.Punch{Step: step, NAT: n.reach.nat.Kind, ID: p.id, Candidates: n.ownCandidates(inside, p.fails)}
	if n.reach.nat.CGNAT {
		m.Flags |= wire.PunchCGNAT
	}
	return m
}

// receivePunch takes an offer or an answer.
func (n *Core) receivePunch(now time.Duration, s *peerSession, f wire.Punch) {
	if n.punchOff() || n.admit(s.peer) != nil {
		return
	}
	p := n.puncher(s.peer)
	if p == nil {
		return
	}
	if f.Step == wire.PunchAnswer {
		if p.stage == punchOffered && p.id == f.ID {
			p.hear(f)
			n.punchGo(now, p, f)
		}
		return
	}
	again := p.stage == punchAnswered && p.id == f.ID
	if !again {
		switch {
		case n.upLink(s.peer) != nil, p.stage == punchGoing, p.stage == punchOffered && p.peer.Less(n.self):
			return
		case p.stage == punchNone && p.began != 0 && now < p.began+p.patience():
			return // too soon after the last one: nobody may have us send handshakes again and again to where nobody answers
		case n.punchedLinks() >= maxPunched:
			return
		}
		p.hear(f)
		p.stage, p.id, p.began, p.goAt, p.targets = punchAnswered, f.ID, now, 0, n.punchTargets(f)
	}
	p.at = now + punchWait
	n.tellPunch(now, p.peer, n.punchMessage(now, wire.PunchAnswer, p, n.neighbourly(f)))
}

// patience is how long after the beginning of an attempt the peer may begin the next one.
func (p *puncher) patience() time.Duration {
	return punchPauses[max(0, min(p.fails-1, punchHeeded))]
}

func (p *puncher) hear(f wire.Punch) { p.nat, p.cgnat = f.NAT, f.Flags&wire.PunchCGNAT != 0 }

// neighbourly tells whether who offers seems to be in our own network, or is one of ours: it may learn addresses of the inside.
func (n *Core) neighbourly(f wire.Punch) bool {
	if !n.cfg.Open || n.clustered() {
		return true
	}
	for _, c := range f.Candidates {
		a := c.Addr.Addr()
		if n.reach.inOwnPrefix(a) || slices.ContainsFunc(n.reach.nat.Seen, func(o netip.AddrPort) bool { return o.Addr() == a }) {
			return true
		}
	}
	return false
}

// punchGo begins after the peer's answer: it is told to begin, and we do when that should have arrived.
func (n *Core) punchGo(now time.Duration, p *puncher, f wire.Punch) {
	rtt := now - p.began
	if s := n.sessions[p.peer]; s != nil && s.active != nil && s.active.probe.srtt != 0 {
		rtt = min(rtt, s.active.probe.srtt) // the offer may have been repeated
	}
	if p.targets = n.punchTargets(f); len(p.targets) == 0 {
		n.punchFailed(now, p, "the peer names no address that we may try")
		return
	}
	p.stage, p.tries = punchGoing, 0
	p.goAt, p.goes, p.at = now, 0, now+rtt/2
	n.tickPuncher(now, p)
}

// receivePunchGo begins.
func (n *Core) receivePunchGo(now time.Duration, s *peerSession, f wire.PunchGo) {
	p := n.punch.of[s.peer]
	if p == nil || p.stage != punchAnswered || p.id != f.ID {
		return
	}
	p.stage, p.tries, p.at = punchGoing, 0, now
	n.tickPuncher(now, p)
}

// punchTargets returns where to send handshakes for the addresses of a peer.
func (n *Core) punchTargets(f wire.Punch) []forward.Endpoint {
	var all []forward.Endpoint
	for _, c := range f.Candidates {
		if !n.mayPunch(c.Addr) {
			continue
		}
		e := forward.Endpoint{Addr: c.Addr}
		if n.cfg.Punch.SocketFor != nil {
			i, ok := n.cfg.Punch.SocketFor(c.Addr)
			if !ok {
				continue
			}
			e.Socket = i
		}
		all = append(all, e)
	}
	return all
}

// mayPunch tells whether an address that a peer names may get handshakes from us: a peer must not be able to aim them at
// what is not out there, or at the inside of our own box or network where we have no foot.
func (n *Core) mayPunch(a netip.AddrPort) bool {
	ip := a.Addr().Unmap()
	switch {
	case !ip.IsValid() || a.Port() == 0 || ip.IsUnspecified() || ip.IsLoopback() || ip.IsMulticast() || ip.IsLinkLocalUnicast():
		return false
	case ip.Is4() && (ip.As4()[0] == 0 || ip.As4()[0] >= 240):
		return false
	case n.cfg.Network.Prefix().Contains(ip):
		return false
	}
	for _, l := range n.reach.locals {
		if l.Addr.Addr() == ip || ip.Is4() && l.Bits < 31 && ip == lastOf(netip.PrefixFrom(l.Addr.Addr(), l.Bits)) {
			return false // ourselves, or everybody on the wire
		}
	}
	return !private(ip) || n.reach.inOwnPrefix(ip)
}

// lastOf returns the broadcast address of an IPv4 prefix; of another one itself.
func lastOf(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return p.Addr()
	}
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// punched ends an attempt that succeeded, or that another link made idle. The other addresses are tried now at leisure: the link
// moves to one that is clearly better, as IPv6 may be, or the LAN.
func (n *Core) punched(now time.Duration, p *puncher) {
	b := n.upLink(p.peer)
	if p.stage == punchGoing {
		at := b.link.Endpoint().Addr
		b.punched = now
		p.result = "punched in " + (now - p.began).Round(time.Millisecond).String() + " at " + at.String()
		n.log.Info("direct link punched", "peer", p.peer, "addr", at, "nat", natName(p.nat))
		n.Tried(now, p.peer, Attempt{Carrier: "udp", Address: at.String(), Way: "punch", Result: p.result, Open: true})
		n.links.Probe(now, b.link, p.targets)
	}
	p.stage, p.fails, p.goAt, p.next = punchNone, 0, 0, now+punchPauses[1]
}

func (n *Core) punchFailed(now time.Duration, p *puncher, why string) {
	p.result = why
	if p.stage == punchGoing {
		p.result = "no answer at " + addrList(p.targets)
		for _, e := range p.targets {
			n.Tried(now, p.peer, Attempt{Carrier: "udp", Address: e.Addr.String(), Way: "punch", Result: why})
		}
	}
	p.stage, p.goAt = punchNone, 0
	p.next = now + punchPauses[min(p.fails, len(punchPauses)-1)]
	p.fails++
	n.log.Info("direct link not punched", "peer", p.peer, "reason", p.result, "nat", natName(p.nat), "retry_ms", (p.next - now).Milliseconds())
}

// tickPunched lets punched links go that nobody has used for long.
func (n *Core) tickPunched(now time.Duration) {
	n.links.All(func(l *link.Link) {
		if b := n.neighbour(l); n.punchedIdle(now, b, punchIdle) {
			n.log.Info("punched link not used any more", "peer", l.Peer())
			n.letGo(now, b)
		}
	})
}

// punchedIdle tells whether a link was punched and nobody has used it for so long.
func (n *Core) punchedIdle(now time.Duration, b *neighbour, d time.Duration) bool {
	if b.punched == 0 {
		return false
	}
	st := b.plane.Stats()
	used := max(st.LastReceived, st.LastSent, b.punched)
	if s := n.sessions[b.link.Peer()]; s != nil {
		used = max(used, s.wantedAt)
	}
	return now-used >= d
}

// letGo ends a link in order.
func (n *Core) letGo(now time.Duration, b *neighbour) {
	if b.up {
		b.up, b.downAt = false, now
		n.linkLost(now, b)
	}
	n.links.Remove(now, b.link)
	(*host)(n).Forgotten(now, b.link)
	n.newsOfRecord(now)
	n.replan(now)
}
