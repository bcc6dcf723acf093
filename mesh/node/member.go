package node

import (
	"errors"
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/member"
	"skywire/mesh/wire"
)

// Who belongs to the cluster, and what follows for links, sessions, paths and records. In a node of no cluster all of it
// does nothing: whoever may link is as good as anybody.
//
// A neighbour is admitted when the cluster calls it a member and both ends hold the same lists: until then nothing of it
// is heard but statements, and of a guest, a path of its own to a node that admits members (guests.go).

// Limits of what neighbours can make a node do about membership.
const (
	maxGuests      = 16              // neighbours that are no members
	judgeEvery     = 5 * time.Second // certificates run out without an event
	settleAfter    = 5 * time.Second // with a neighbour whose lists never come to equal ours
	exchangeFirst  = 200 * time.Millisecond
	exchangeMost   = 10 * time.Second
	exchangeSoon   = 20 * time.Millisecond // after news, which most have by then
	listGap        = 100 * time.Millisecond
	sendAtOnce     = 32 << 10 // bytes of statements for one page of a neighbour
	statementRate  = 50       // looked at a second for one neighbour
	statementBurst = 512
)

// members is the part of Core that knows who belongs to the cluster.
type members struct {
	state   *member.State // nil: there is no cluster
	fresh   bool          // what follows is of what state holds now
	lists   [8]byte
	all     [8]byte
	refs    []wire.StatementID
	nlists  int // of refs, those of lists
	judgeAt time.Duration
	guests
	seeking

	drops struct{ guest, strangers, bad uint64 }
}

// exchange is what a node keeps of a neighbour as to membership.
type exchange struct {
	admitted bool
	rights   member.Rights
	settled  bool // both held the same lists once since the link came up
	heard    bool // their digests
	theirs   wire.Members
	at       time.Duration // when to ask again
	tries    int
	listAt   time.Duration // when the next list may go
	tokens   float64       // of statements
	tokensAt time.Duration
	wayAt    time.Duration // when it may ask for a way again
}

// clustered tells whether certificates say who belongs here.
func (n *Core) clustered() bool { return n.members.state != nil }

// Members is who belongs to the cluster, nil where there is none. The owner uses it.
func (n *Core) Members() *member.State { return n.members.state }

func (n *Core) instant() member.Instant { return member.Instant{Up: n.now, Wall: n.cfg.Wall()} }

// standing is what the cluster says of a key; without a cluster everyone is a member.
func (n *Core) standing(k key.Public) member.Membership {
	if !n.clustered() {
		return member.Membership{Rights: member.Member}
	}
	return n.members.state.Member(n.instant(), k)
}

// belongs tells whether records, paths and sessions of a key concern us.
func (n *Core) belongs(k key.Public) bool {
	return !n.clustered() || k == n.self || n.standing(k).Rights == member.Member
}

// notMember is why a key is not admitted.
func (n *Core) notMember(k key.Public) error {
	m := n.standing(k)
	if m.Rights == member.Member {
		return nil
	}
	return fmt.Errorf("%w: %s: %s", ErrNotMember, k.Short(), m.Why)
}

// admitLink says whether a proven key may be a neighbour: anyone who is not revoked, since joiners come by any member.
func (n *Core) admitLink(k key.Public) error {
	m := n.standing(k)
	switch {
	case m.Rights == member.None:
		return n.notMember(k)
	case m.Rights == member.Guest && n.links.ByPeer(k) == nil && n.countGuests() >= maxGuests:
		return fmt.Errorf("%w: %s", ErrTooManyGuests, k.Short())
	}
	return nil
}

func (n *Core) countGuests() (guests int) {
	n.links.All(func(l *link.Link) {
		if l.State() == link.Up && n.neighbour(l).rights != member.Member {
			guests++
		}
	})
	return guests
}

// admittedLink tells whether a link is up and its neighbour admitted.
func (n *Core) admittedLink(l *link.Link) bool {
	return l.State() == link.Up && (!n.clustered() || n.neighbour(l).admitted)
}

// Linked tells whether a link with a key is up, its neighbour a member or a guest.
func (n *Core) Linked(k key.Public) bool { return n.upLink(k) != nil }

// HasSession tells whether there is a session with a key, or one is being sought.
func (n *Core) HasSession(k key.Public) bool { return n.sessions[k] != nil }

// greet begins the exchange with a neighbour whose link came up.
func (n *Core) greet(now time.Duration, b *neighbour) {
	if !n.clustered() {
		b.admitted = true
		n.welcome(now, b)
		return
	}
	n.digests()
	n.members.seeking.askAt = min(n.members.seeking.askAt, now+guestLook/10) // it may know the way; not before it knows us
	theirs, was := b.theirs, b.admitted
	b.exchange = exchange{
		rights: n.standing(b.link.Peer()).Rights, settled: b.link.Members() == n.members.lists, tokens: statementBurst, tokensAt: now,
	}
	if was && b.settled {
		b.theirs = theirs // it was here a moment ago
	}
	if raw := n.members.state.RawCertificate(n.self); raw != nil {
		n.send(now, b, wire.Statement{Raw: raw})
	}
	n.compare(now, b, wire.MembersAnswer)
	n.judge(now, b)
}

// judge follows up what the cluster says of a neighbour now, and whether it calls us a member too: what is said to one who
// does not listen yet would be lost.
func (n *Core) judge(now time.Duration, b *neighbour) {
	k := b.link.Peer()
	m := n.standing(k)
	was, before := b.admitted, b.rights
	b.rights = m.Rights
	b.admitted = b.up && b.settled && b.scope()
	if before != b.rights && b.up {
		n.compare(now, b, wire.MembersAnswer) // it may see all of us now, or no more
	}
	switch {
	case m.Rights == member.None:
		n.expel(now, k, wire.ReasonRevoked, m.Why)
	case was && m.Rights == member.Guest:
		n.log.Warn("neighbour is a guest now", "peer", k, "reason", m.Why)
		n.note(EventMember, k, "neighbour is a guest now", m.Why)
		n.expel(now, k, wire.ReasonPolicy, m.Why)
	case was && !b.admitted && b.up:
		n.log.Warn("neighbour calls us a guest", "peer", k)
		n.note(EventMember, k, "neighbour calls us a guest", n.standing(n.self).Why)
		n.newsOfRecord(now)
		n.replan(now)
	case !was && b.admitted:
		n.log.Info("neighbour admitted", "peer", k, "reason", m.Why)
		n.note(EventMember, k, "neighbour admitted", m.Why)
		n.welcome(now, b)
	}
}

// welcome begins what an admitted neighbour and we do for each other.
func (n *Core) welcome(now time.Duration, b *neighbour) {
	n.linkRestored(now, b)
	n.syncRules(now, b)
	n.greetRecords(now, b)
	n.newsOfRecord(now)
	n.replan(now)
}

// rejudge follows up news about a key.
func (n *Core) rejudge(now time.Duration, k key.Public) {
	if l := n.links.ByPeer(k); l != nil {
		n.judge(now, n.neighbour(l))
	}
	m := n.standing(k)
	switch s := n.sessions[k]; {
	case m.Rights == member.None:
		n.expel(now, k, wire.ReasonRevoked, m.Why)
	case m.Rights == member.Guest && (s != nil && !n.mayTalk(k) || n.db.Get(k) != nil && k != n.self):
		n.expel(now, k, wire.ReasonPolicy, m.Why)
	case m.Rights == member.Member:
		n.lift(k)
		if s != nil {
			n.applyGrants(s)
		}
	}
	n.routesAt = true
}

// rejudgeAll does so for all who have anything to do with us.
func (n *Core) rejudgeAll(now time.Duration) {
	n.members.judgeAt = now + judgeEvery
	all := map[key.Public]bool{}
	n.links.All(func(l *link.Link) { all[l.Peer()] = true })
	for k := range n.sessions {
		all[k] = true
	}
	for _, r := range n.relays {
		all[r.source], all[r.dest], all[r.prev], all[r.next] = true, true, true, true
	}
	for _, e := range n.db.Entries() {
		all[e.Key] = true
	}
	delete(all, n.self)
	delete(all, key.Public{}) // restored rules don't name the destination
	var out []key.Public
	for k := range all {
		out = append(out, k)
	}
	sortKeys(out)
	for _, k := range out {
		n.rejudge(now, k)
	}
}

// mayWant tells whether we may set paths up to a key: to members, and as a guest to the issuer. Guests come by themselves.
func (n *Core) mayWant(k key.Public) bool { return n.belongs(k) || n.seeksIssuer(k) }

// mayTalk tells whether we may have a session with a key.
func (n *Core) mayTalk(k key.Public) bool { return n.mayWant(k) || n.guestsOf(k) > 0 }

// expel ends all that a key has to do with us: its link if it is revoked, else the link goes on as a guest's.
func (n *Core) expel(now time.Duration, k key.Public, reason uint8, why string) {
	did := false
	if s := n.sessions[k]; s != nil {
		n.endSession(now, s, why)
		n.out.PeerRestarted(k)
		did = true
	}
	for _, r := range n.relayList() {
		if r.source == k || r.dest == k || r.prev == k || r.next == k {
			n.removeRelay(now, r, reason, key.Public{})
			did = true
		}
	}
	for _, p := range n.pathList() {
		if n.paths[p.id] == p && contains(p.hops, k) {
			n.pathLost(now, p, "over "+k.Short()+": "+why)
			did = true
		}
	}
	if l := n.links.ByPeer(k); l != nil {
		b := n.neighbour(l)
		clear(b.flood)
		b.fresh, b.acks = nil, nil
		if reason == wire.ReasonRevoked {
			n.cut(now, l, why)
			did = true
		}
	}
	if n.db.Get(k) != nil {
		n.db.Forget(k)
		n.out.RecordsChanged()
		did = true
	}
	delete(n.proposals, k)
	n.forgetAddr(k)
	if did {
		n.log.Warn("node shut out", "peer", k, "reason", why)
		n.note(EventMember, k, "shut out", why)
		n.newsOfRecord(now)
		n.replan(now)
		n.routesAt = true
	}
}

// cut ends a link at once and for good.
func (n *Core) cut(now time.Duration, l *link.Link, why string) {
	b := n.neighbour(l)
	if b.up {
		n.send(now, b, wire.Bye{Reason: wire.ByeRevoked})
		n.log.Warn("link down", "peer", l.Peer(), "reason", why)
	}
	b.up, b.downAt, b.admitted = false, now, false
	n.links.Remove(now, l)
	b.plane.SetUp(false)
	b.plane.SetKeys(nil, nil, nil)
	n.linkLost(now, b)
	(*host)(n).Forgotten(now, l)
}

func contains(all []key.Public, k key.Public) bool {
	for _, o := range all {
		if o == k {
			return true
		}
	}
	return false
}

// guestMessage tells which messages a neighbour that is not admitted may send: statements, and what a path of its own to
// an issuer, or of ours over it, takes.
func guestMessage(kind uint8) bool {
	switch kind {
	case wire.MessageMembers, wire.MessageMembersList, wire.MessageStatement, wire.MessageWayAsk, wire.MessageWay,
		wire.MessageSetup, wire.MessageAccept, wire.MessageRefuse, wire.MessageRemove, wire.MessageEvent, wire.MessageAck:
		return true
	}
	return false
}

// memberMessage handles the messages about membership. It tells whether the message is done with: handled, or not to be
// heard from this neighbour.
func (n *Core) memberMessage(now time.Duration, b *neighbour, kind uint8, body []byte) bool {
	if !n.clustered() {
		return false
	}
	switch kind {
	case wire.MessageMembers:
		n.receiveMembers(now, b, body)
	case wire.MessageMembersList:
		n.receiveMembersList(now, b, body)
	case wire.MessageStatement:
		n.receiveStatement(now, b, body)
	case wire.MessageWayAsk:
		n.receiveWayAsk(now, b, body)
	case wire.MessageWay:
		n.receiveWay(now, b, body)
	default:
		if b.admitted || guestMessage(kind) {
			return false
		}
		n.members.drops.guest++
	}
	return true
}

// Put takes a statement, as an app or the store has it.
func (n *Core) Put(now time.Duration, raw []byte) (news bool, err error) {
	n.now = now
	if !n.clustered() {
		return false, ErrNoCluster
	}
	ch, err := n.members.state.Put(n.instant(), raw)
	if ch.News {
		n.changed(now, ch, raw, nil)
	}
	return ch.News, err
}

// changed follows up a statement that is news: it is stored and passed on before anything else is done.
func (n *Core) changed(now time.Duration, ch member.Change, raw []byte, from *neighbour) {
	n.members.fresh = false
	if n.cfg.Stored != nil {
		n.cfg.Stored(ch, raw)
	}
	n.digests()
	n.links.All(func(l *link.Link) {
		b := n.neighbour(l)
		if !b.up {
			return
		}
		if b != from && n.mayHave(b, ch.Ref, raw) {
			n.send(now, b, wire.Statement{Raw: raw})
		}
		b.tries, b.at = 0, min(b.at, now+exchangeSoon)
	})
	if ch.All {
		n.rejudgeAll(now)
		n.note(EventCertificate, key.Public{}, "the admin list changed", "")
	}
	for _, k := range ch.Keys {
		n.rejudge(now, k)
		n.note(EventCertificate, k, "", n.standing(k).Why)
	}
	n.routesAt = true
}

// mayHave tells whether a neighbour is to have a statement: members all, guests the lists and what is about themselves.
func (n *Core) mayHave(b *neighbour, ref member.Ref, raw []byte) bool {
	if b.rights == member.Member || ref.Kind() != member.KindCertificate {
		return true
	}
	c, err := member.ParseCertificate(raw)
	return err == nil && (c.Node == b.link.Peer() || c.Node == n.self)
}

// tickMembers compares with neighbours that hold something else, and looks for what ran out.
func (n *Core) tickMembers(now time.Duration) time.Duration {
	if !n.clustered() {
		return now + time.Hour
	}
	if now >= n.members.judgeAt {
		n.rejudgeAll(now)
	}
	next := min(n.members.judgeAt, n.tickGuests(now), n.tickSeek(now))
	n.digests()
	for _, l := range n.linkList() {
		b := n.neighbour(l)
		if !b.up {
			continue
		}
		if !b.settled && b.tries >= 3 && now-l.UpSince() >= settleAfter {
			n.log.Warn("lists of neighbour stay different", "peer", l.Peer())
			b.settled = true
			n.judge(now, b)
		}
		if n.same(b) {
			continue
		}
		if now >= b.at {
			n.compare(now, b, wire.MembersAnswer)
			b.at = now + min(exchangeFirst<<min(b.tries, 8), exchangeMost)
			b.tries++
		}
		next = min(next, b.at)
	}
	return next
}

// badStatement tells errors that a neighbour should have seen itself.
func badStatement(err error) bool {
	return errors.Is(err, member.ErrSignature) || errors.Is(err, member.ErrFormat)
}
