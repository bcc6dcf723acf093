package node

import (
	"slices"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/member"
	"skywire/mesh/route"
	"skywire/mesh/wire"
)

// A guest has one path, its own, to a node that receives guests: one that admits members, or that stands at the border
// to other clusters. It lasts a minute and carries 64 kbit/s, more at the end of it where an app vouches for the guest
// (vouch.go). Any member leads it there.
const (
	guestLife   = time.Minute
	guestRate   = 64_000 / 8 // bytes a second, both directions together
	guestBurst  = 64 << 10
	guestLook   = 200 * time.Millisecond
	guestFrames = 600              // that end here, in the whole life of a path
	maxGuestful = 32               // paths of guests through or to this node
	wayEvery    = time.Second      // between two questions for the way, and between two answers to one guest
	wayAgain    = 10 * time.Second // while there is a path to the one sought
	wayLife     = 30 * time.Second
	maxWays     = 4 // of different neighbours
)

// guests is the paths of guests through and to this node, and those guests for whom an app of this box vouches.
type guests struct {
	paths   map[wire.PathID]*guestPath
	vouched map[key.Public]vouch
}

type guestPath struct {
	source key.Public
	began  time.Duration
}

// seeking is our own search for an issuer, as a guest.
type seeking struct {
	seek    key.Public // the zero key: any
	until   time.Duration
	askAt   time.Duration
	request uint32
	ways    []way
}

// way is what a neighbour told of how to get to an issuer.
type way struct {
	hops []key.Public
	at   time.Duration
}

// issues tells whether this node is one that admits members.
func (n *Core) issues() bool { return n.issuer(n.self) }

// issuer tells whether a node is one that admits members: its certificate says so, even one that ran out.
func (n *Core) issuer(k key.Public) bool { return n.certified(k, member.RoleManager) }

// certified tells whether a node of the cluster has one of these roles.
func (n *Core) certified(k key.Public, roles member.Roles) bool {
	m := n.standing(k)
	return m.Rights != member.None && m.Certificate != nil && m.Certificate.Roles&roles != 0
}

// hostRoles are those of nodes to which a guest may have a path: who admits members, who receives visitors of other
// clusters, and who takes messages for the cluster.
const hostRoles = member.RoleManager | member.RoleBorder | member.RoleMessenger

// receives tells whether a node receives guests: its certificate says so, even one that ran out.
func (n *Core) receives(k key.Public) bool { return n.certified(k, hostRoles) }

// admitSetup says whether a setup may come from this neighbour, for these hops; 0, or the reason of the refusal.
func (n *Core) admitSetup(b *neighbour, hops []key.Public) uint8 {
	source, dest := hops[0], hops[len(hops)-1]
	if !n.clustered() {
		if n.admit(source) != nil || dest != n.self && n.admit(dest) != nil {
			return wire.ReasonPolicy
		}
		return 0
	}
	for _, k := range hops {
		if n.members.state.Revoked(k) {
			return wire.ReasonRevoked
		}
	}
	for i, k := range hops[1:] {
		if k == n.self && i+2 < len(hops) && !n.belongs(hops[i+2]) && !n.receives(hops[i+2]) {
			return wire.ReasonPolicy // the next one is a guest
		}
	}
	if n.standing(source).Rights == member.Member {
		if !b.admitted || dest != n.self && !n.belongs(dest) {
			return wire.ReasonPolicy
		}
		return 0
	}
	if !n.receives(dest) || b.link.Peer() != source && !b.admitted {
		return wire.ReasonPolicy
	}
	if n.guestsOf(source) > 1 || len(n.members.paths) >= maxGuestful { // a second one while the first ends
		return wire.ReasonQuota
	}
	return 0
}

// hostGuest begins to watch a path that was set up, if its source is a guest.
func (n *Core) hostGuest(now time.Duration, id wire.PathID, source key.Public) {
	if !n.clustered() || n.belongs(source) || n.relays[id] == nil && n.paths[id] == nil {
		return
	}
	n.members.paths[id] = &guestPath{source: source, began: now}
	n.log.Info("guest has a path", "peer", source)
}

// guestsOf is how many paths of a guest run through or end at this node.
func (n *Core) guestsOf(k key.Public) (paths int) {
	for _, g := range n.members.paths {
		if g.source == k {
			paths++
		}
	}
	return paths
}

// lift lets the paths of a key be, which is a member now.
func (n *Core) lift(k key.Public) {
	for id, g := range n.members.paths {
		if g.source == k {
			delete(n.members.paths, id)
		}
	}
}

// tickGuests ends paths of guests that last too long or carry too much.
func (n *Core) tickGuests(now time.Duration) time.Duration {
	if len(n.members.paths) == 0 && len(n.members.vouched) == 0 {
		return now + time.Hour
	}
	for id, g := range n.members.paths {
		r, p := n.relays[id], n.paths[id]
		why := ""
		v, vouched := n.members.vouched[g.source]
		switch {
		case r == nil && p == nil:
			delete(n.members.paths, id)
			if s := n.sessions[g.source]; s != nil && !n.mayTalk(g.source) {
				n.endSession(now, s, "")
			}
			continue
		case vouched && p != nil && now < v.until && (v.rate == 0 || received(p) <= v.most(now)):
			continue
		case vouched && p != nil && now >= v.until:
			why = "nobody vouches for it any more"
		case now-g.began > guestLife:
			why = "time is up"
		case r != nil && r.fwd != nil && float64(r.fwd.Stats().Bytes+r.back.Stats().Bytes) > guestBurst+guestRate*(now-g.began).Seconds(),
			p != nil && p.fp != nil && received(p) > guestFrames:
			why = "it carries too much"
			n.members.drops.guest++
			if l := n.links.ByPeer(g.source); l != nil {
				n.neighbour(l).barred = now + time.Minute
			}
		}
		if why == "" {
			continue
		}
		delete(n.members.paths, id)
		n.log.Info("path of guest ended", "peer", g.source, "reason", why)
		if r != nil {
			n.removeRelay(now, r, wire.ReasonPolicy, key.Public{})
		} else {
			n.endSession(now, p.sess, "guest: "+why)
		}
	}
	for k, v := range n.members.vouched {
		if now >= v.until {
			delete(n.members.vouched, k)
		}
	}
	return now + guestLook
}

// received is how many frames came in on a path, of all kinds.
func received(p *path) (frames uint64) {
	for _, l := range p.fp.Stats().In {
		frames += l.Received + l.Streams
	}
	return frames
}

// Seek looks for a way to an issuer, as one who is no member; the zero key means any. Neighbours are asked until the
// time is over or Unseek is called.
func (n *Core) Seek(now time.Duration, issuer key.Public) {
	m := &n.members.seeking
	if m.seek != issuer || m.until == 0 {
		n.request++
		*m = seeking{seek: issuer, request: n.request}
	}
	m.until, m.askAt = now+wayLife, min(m.askAt, now)
}

// Unseek ends the search.
func (n *Core) Unseek() { n.members.seeking = seeking{} }

// Found returns the issuer to which a way was found.
func (n *Core) Found() (key.Public, bool) {
	if len(n.members.ways) == 0 {
		return key.Public{}, false
	}
	hops := n.members.ways[0].hops
	return hops[len(hops)-1], true
}

// seeksIssuer tells whether a key is the issuer that we look for.
func (n *Core) seeksIssuer(k key.Public) bool {
	m := &n.members.seeking
	if m.until == 0 {
		return false
	}
	for _, w := range m.ways {
		if w.hops[len(w.hops)-1] == k {
			return true
		}
	}
	return m.seek == k
}

func (n *Core) tickSeek(now time.Duration) time.Duration {
	m := &n.members.seeking
	switch {
	case m.until == 0:
		return now + time.Hour
	case now >= m.until:
		n.Unseek()
		return now + time.Hour
	case now < m.askAt:
		return m.askAt
	}
	m.askAt = now + wayEvery
	if s := n.sessions[m.seek]; s != nil && s.active != nil {
		m.askAt = now + wayAgain
	}
	n.links.All(func(l *link.Link) {
		if b := n.neighbour(l); b.up {
			n.send(now, b, wire.WayAsk{Request: m.request, Key: m.seek})
		}
	})
	return m.askAt
}

// receiveWayAsk tells a neighbour how to get to an issuer: what it may know of the mesh.
func (n *Core) receiveWayAsk(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseWayAsk(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if now < b.wayAt {
		n.drops.limit++
		return
	}
	b.wayAt = now + wayEvery/2
	n.send(now, b, wire.Way{Request: f.Request, Hops: n.wayTo(b.link.Peer(), f.Key)})
}

// wayTo is the cheapest way from us to a node that receives guests, with the zero key to an issuer, that does not lead
// over the one who asks.
func (n *Core) wayTo(asker, issuer key.Public) []key.Public {
	if issuer == n.self && n.receives(n.self) || issuer.IsZero() && n.issues() {
		return []key.Public{n.self}
	}
	all := []key.Public{issuer}
	if issuer.IsZero() {
		all = n.members.state.Managers(n.instant())
	}
	if !n.belongs(n.self) || n.standing(n.self).Rights != member.Member {
		return nil // others would not take it from us
	}
	var best route.Path
	for _, k := range all[:min(len(all), 8)] {
		if k == asker || !n.receives(k) {
			continue
		}
		for _, p := range route.Paths(n.topology(), n.self, k, 1, route.Constraints{Avoid: []key.Public{asker}}) {
			if len(p.Hops) < wire.MaxHops && (best.Hops == nil || p.Cost < best.Cost) {
				best = p
			}
		}
	}
	return best.Hops
}

// receiveWay takes the answer. It is a neighbour's word: the path proves itself, or does not.
func (n *Core) receiveWay(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseWay(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	m := &n.members.seeking
	if m.until == 0 || f.Request != m.request || len(f.Hops) == 0 || f.Hops[0] != b.link.Peer() || contains(f.Hops, n.self) || twice(f.Hops) {
		return
	}
	to := f.Hops[len(f.Hops)-1]
	if !m.seek.IsZero() && to != m.seek {
		return
	}
	hops := append([]key.Public{n.self}, f.Hops...)
	ways := []way{{hops: hops, at: now}}
	for _, w := range m.ways {
		if w.hops[1] != hops[1] && now-w.at <= wayLife && len(ways) < maxWays {
			ways = append(ways, w)
		}
	}
	sort.SliceStable(ways, func(i, j int) bool { return len(ways[i].hops) < len(ways[j].hops) })
	m.ways = ways
	if s := n.sessions[to]; s != nil {
		s.planAt = min(s.planAt, now)
		n.nextSession = min(n.nextSession, now)
	}
}

// guided returns the paths of a guest to its issuer; nil for who is no guest.
func (n *Core) guided(now time.Duration, s *peerSession) (found []route.Path) {
	if !n.clustered() || !n.seeksIssuer(s.peer) {
		return nil
	}
	for _, w := range n.members.ways {
		if w.hops[len(w.hops)-1] == s.peer && n.upLink(w.hops[1]) != nil &&
			!slices.ContainsFunc(s.failed, func(f failedPath) bool { return now < f.until && slices.Equal(f.hops, w.hops) }) {
			found = append(found, route.Path{Hops: w.hops})
			break // one path is all that a guest may have
		}
	}
	return found
}
