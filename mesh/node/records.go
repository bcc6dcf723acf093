package node

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/route"
	"skywire/mesh/wire"
)

// Times of the flooding of records.
const (
	recordRetry  = 200 * time.Millisecond // doubling, recordTries times
	recordTries  = 7
	recordScan   = 50 * time.Millisecond  // between two looks for what to repeat: there may be thousands
	recordGather = 50 * time.Millisecond  // between two batches to a neighbour; the first goes at once
	digestEvery  = time.Minute            // of the comparison that repairs what flooding lost
	digestGap    = 5 * time.Second        // between two digests that a neighbour's sums may cause
	digestSmall  = 4 * wire.MaxDigests    // records of which the digest goes without comparing sums first
	recordLook   = 200 * time.Millisecond // after an event, until its news is out
	recordHold   = 150 * time.Millisecond // at most, for the first round trip of a link that has just come up
	recordSettle = 3 * time.Second        // so long after it
	recordDrift  = 5 * time.Second        // else: measures drift
	expireRecord = 15 * time.Second
)

// pendingRecord is a record on its way to a neighbour that has not acknowledged it.
type pendingRecord struct {
	key   key.Public
	raw   []byte
	num   uint64
	seq   uint64
	at    time.Duration
	tries int
}

// shown is our digest on its way to a neighbour: no record comes from there before it has arrived.
type shown struct {
	request uint32
	pages   int
	open    int           // pages that are not acknowledged; 0: nothing waits
	at      time.Duration // when to show it again
	tries   int
}

// DB returns the records held, for the API and the managers; the owner reads it.
func (n *Core) DB() *route.DB { return n.db }

// SetServices states what the apps of this node offer.
func (n *Core) SetServices(now time.Duration, s []route.Service) {
	n.services = s
	n.newsOfRecord(now)
}

// SetListen states the addresses at which the node can be reached, as ADDR.
func (n *Core) SetListen(addrs []string) { n.listen = addrs }

// PutRecord takes a signed record from a store, a manager or an app. from is our own key for the store.
func (n *Core) PutRecord(now time.Duration, raw []byte, from key.Public) route.Verdict {
	return n.PutRecordAged(now, raw, from, 0)
}

// PutRecordAged is PutRecord for one that is known to be that old.
func (n *Core) PutRecordAged(now time.Duration, raw []byte, from key.Public, age time.Duration) route.Verdict {
	if k, _, err := route.Peek(raw); err == nil && !n.belongs(k) {
		n.members.drops.strangers++
		return route.Verdict{Outcome: route.Bad, Err: n.notMember(k)}
	}
	v := n.db.PutAged(now, raw, from, age)
	n.recordPut(now, v, from)
	return v
}

// newsOfRecord makes the own record be looked at now and again soon, since rates may hold it back.
func (n *Core) newsOfRecord(now time.Duration) {
	n.recordNews = now
	n.nextRecord = min(n.nextRecord, now)
}

// record returns what our record says now.
func (n *Core) record() *route.Record {
	r := &route.Record{
		Key: n.self, Name: n.cfg.Name, Version: n.cfg.Version, Addrs: n.published(), Services: n.services,
		Links: n.ownLinks(),
	}
	if wall := n.cfg.Wall(); wall.Year() > 2000 {
		r.Made = wall.Unix()
	}
	return r
}

// ownLinks states our links as they are this moment, oldest first.
func (n *Core) ownLinks() []route.Link {
	var all []route.Link
	n.links.All(func(l *link.Link) {
		if n.admittedLink(l) {
			all = append(all, stated(n.now, l))
		}
	})
	return all
}

// graphRecords are the records held, our own with the links of this moment.
func (n *Core) graphRecords() []*route.Record {
	all := slices.DeleteFunc(n.db.All(), func(r *route.Record) bool { return r.Key == n.self })
	return append(all, &route.Record{Key: n.self, Links: n.ownLinks()})
}

// tickRecords signs our record when there is news, repeats what was not acknowledged, and compares with neighbours.
func (n *Core) tickRecords(now time.Duration) time.Duration {
	if n.nextRecord == 0 && !n.anyUp() {
		n.nextRecord = now + recordLook // a record without links would only be the first of two
	}
	if now >= n.nextRecord {
		n.nextRecord = n.recordHeld(now)
	}
	if now >= n.nextRecord {
		n.nextRecord = now + recordDrift
		if now < n.recordNews+recordSettle {
			n.nextRecord = now + recordLook
		}
		if e, ok := n.db.Originate(now, n.record(), n.cfg.Identity); ok {
			n.flood(now, e, n.self)
			n.replan(now) // what we measure counts for our own paths too
			n.out.RecordsChanged()
		}
	}
	if now >= n.nextAged {
		n.nextAged = now + expireRecord
		if gone := n.db.Expire(now); len(gone) > 0 {
			n.forget(now, gone)
		}
	}
	if now >= n.nextDigest {
		n.nextDigest = now + digestEvery
		n.links.All(func(l *link.Link) {
			if n.admittedLink(l) {
				n.send(now, n.neighbour(l), n.recordsSum())
			}
		})
	}
	next := min(n.nextRecord, n.nextDigest)
	n.links.All(func(l *link.Link) { next = min(next, n.repeatRecords(now, n.neighbour(l))) })
	return next
}

// recordHeld returns when to make the own record: now, or soon, if a link has come up whose first round trip will be over in a
// moment. Without that the record would tell neither its measure nor where we are seen, and a second one would follow through
// the whole mesh.
func (n *Core) recordHeld(now time.Duration) time.Duration {
	at := now
	n.links.All(func(l *link.Link) {
		if l.State() == link.Up && l.RTT() == 0 && now < n.neighbour(l).upAt+recordHold {
			at = now + recordHold/16
		}
	})
	return at
}

func (n *Core) anyUp() (up bool) {
	n.links.All(func(l *link.Link) { up = up || l.State() == link.Up })
	return up
}

// repeatRecords sends what is new to a neighbour and what it has not acknowledged in time. What is new goes at once, and
// after that in batches, many records and acknowledgements in a frame: where thousands are on their way, many turn out to be known
// there before their batch goes.
func (n *Core) repeatRecords(now time.Duration, b *neighbour) time.Duration {
	next := now + time.Second
	if n.showAgain(now, b); b.shown.open > 0 {
		next = min(next, b.shown.at)
	}
	if len(b.fresh)+len(b.acks) > 0 {
		if now >= b.freshAt {
			n.sendFresh(now, b)
			b.freshAt = now + recordGather
		} else {
			next = min(next, b.freshAt)
		}
	}
	if len(b.flood) == 0 {
		return next
	}
	if now < b.floodAt {
		return min(next, b.floodAt)
	}
	var due []*pendingRecord
	b.floodAt = next
	earliest := now + recordScan
	for _, p := range b.flood {
		if now < p.at {
			b.floodAt = min(b.floodAt, max(p.at, earliest))
			continue
		}
		due = append(due, p)
	}
	slices.SortFunc(due, func(a, c *pendingRecord) int { return cmp.Compare(a.seq, c.seq) })
	for _, p := range due {
		if p.tries >= recordTries || !b.up {
			delete(b.flood, p.key)
			continue
		}
		n.sendRecord(now, b, p)
	}
	return min(next, b.floodAt)
}

func (n *Core) sendRecord(now time.Duration, b *neighbour, p *pendingRecord) {
	p.at = now + b.retry(now, recordRetry)<<p.tries
	p.tries++
	b.tell(now, p.key)
	b.floodAt = min(b.floodAt, p.at)
	n.send(now, b, wire.Record{Raw: p.raw})
}

// acksAtOnce is how many acknowledgements wait at most.
const acksAtOnce = 64

// sendFresh sends acknowledgements and new records together.
func (n *Core) sendFresh(now time.Duration, b *neighbour) {
	for _, p := range b.fresh {
		if b.flood[p.key] == p {
			b.acks = append(b.acks, wire.Record{Raw: p.raw})
			p.at = now + b.retry(now, recordRetry)
			p.tries = 1
			b.tell(now, p.key)
			b.floodAt = min(b.floodAt, p.at)
		}
	}
	b.fresh = b.fresh[:0]
	n.sent(b, wire.MessageRecord, n.links.SendAll(now, b.link, b.acks))
	clear(b.acks)
	b.acks = b.acks[:0]
}

// flood passes a record on to every neighbour but the one it came from. Its maker too, if others told us: of a record that an
// earlier start of it made, or a twin makes, it must hear.
func (n *Core) flood(now time.Duration, e *route.Entry, from key.Public) {
	n.links.All(func(l *link.Link) {
		if n.admittedLink(l) && l.Peer() != from {
			n.offer(now, n.neighbour(l), e)
		}
	})
}

// offer sends one record to a neighbour, at the end of the batch of events in hand, until it is acknowledged.
func (n *Core) offer(now time.Duration, b *neighbour, e *route.Entry) {
	old := b.flood[e.Key]
	if old != nil && old.num >= e.Number {
		return // on its way
	}
	n.seq++
	p := &pendingRecord{key: e.Key, raw: e.Raw, num: e.Number, seq: n.seq, at: now + b.retry(now, recordRetry)}
	b.flood[e.Key] = p
	if at := b.toldUntil(e.Key, old); now < at {
		p.at = at
	} else {
		b.fresh = append(b.fresh, p)
	}
	b.floodAt = min(b.floodAt, p.at)
}

func (n *Core) receiveRecord(now time.Duration, b *neighbour, body []byte) {
	k, number, err := route.Peek(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if !n.belongs(k) {
		n.members.drops.strangers++ // it comes again, and its certificate may come before
		return
	}
	from := b.link.Peer()
	v := n.db.Put(now, body, from)
	if v.Outcome != route.Busy { // a record over quota is to come again
		if b.acks = append(b.acks, wire.RecordAck{Key: k, Number: number}); len(b.acks) >= acksAtOnce {
			n.sendFresh(now, b)
		}
	}
	if p := b.flood[k]; p != nil && p.num <= number {
		delete(b.flood, k) // the neighbour has it already
	}
	if v.Outcome == route.Stale && v.Newer != nil {
		n.offer(now, b, v.Newer)
	}
	n.recordPut(now, v, from)
}

// recordPut follows up what became of a record.
func (n *Core) recordPut(now time.Duration, v route.Verdict, from key.Public) {
	if v.Outcome == route.Twin {
		n.twinAlarm(now, netip.AddrPort{})
	}
	if v.Outcome == route.Overtaken {
		n.newsOfRecord(now)
	}
	if !v.Flood() {
		return
	}
	k := v.Entry.Key
	n.byAddr[n.cfg.Network.Address(k)] = k
	n.flood(now, v.Entry, from)
	n.forget(now, v.Gone)
	if v.Graph() {
		n.replan(now)
	}
	n.out.RecordsChanged()
}

// forget drops what hung on records that are gone.
func (n *Core) forget(now time.Duration, gone []key.Public) {
	for _, k := range gone {
		n.forgetAddr(k)
		delete(n.proposals, k)
	}
	if len(gone) > 0 {
		n.replan(now)
		n.out.RecordsChanged()
	}
}

// forgetAddr forgets the mesh address of a node of which we know nothing any more.
func (n *Core) forgetAddr(k key.Public) {
	if n.sessions[k] == nil && n.links.ByPeer(k) == nil && n.db.Get(k) == nil {
		delete(n.byAddr, n.cfg.Network.Address(k))
	}
}

func (n *Core) receiveRecordAck(b *neighbour, body []byte) {
	f, err := wire.ParseRecordAck(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if p := b.flood[f.Key]; p != nil && p.num <= f.Number {
		delete(b.flood, f.Key)
	}
}

// recordsSum is what stands for our whole database: the digest of a thousand records is 40 kB, and nearly always the same as
// the neighbour's.
func (n *Core) recordsSum() wire.RecordsSum {
	return wire.RecordsSum{Sum: n.db.Sum(), Count: uint32(n.db.Len())}
}

// greetRecords begins the comparison with a neighbour whose link came up.
func (n *Core) greetRecords(now time.Duration, b *neighbour) {
	if n.db.Len() > digestSmall {
		n.send(now, b, n.recordsSum())
		return
	}
	n.syncRecords(now, b, 0)
}

// receiveSum answers another sum than ours with our digest.
func (n *Core) receiveSum(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRecordsSum(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if f == n.recordsSum() || now < b.digestAt {
		return
	}
	b.digestAt = now + digestGap
	n.syncRecords(now, b, 0)
}

// syncRecords tells a neighbour what we hold, so that it sends what we lack. tries is how often it was told so before.
func (n *Core) syncRecords(now time.Duration, b *neighbour, tries int) {
	digests := n.db.Digests(wire.MaxDigests)
	n.request++
	b.shown = shown{request: n.request, pages: len(digests), open: len(digests), at: now + b.retry(now, recordRetry)<<tries, tries: tries}
	for i, d := range digests {
		page := wire.RecordsDigest{Request: n.request, Page: uint16(i), Pages: uint16(len(digests))}
		for _, e := range d.Entries {
			page.Records = append(page.Records, wire.RecordID(e))
		}
		n.send(now, b, page)
	}
}

// showAgain repeats a digest of which nothing is acknowledged in time, a small one also if a page is not. What a large one lacks, the
// comparison of each minute brings.
func (n *Core) showAgain(now time.Duration, b *neighbour) {
	s := &b.shown
	if s.open == 0 || now < s.at {
		return
	}
	if s.tries++; s.tries >= recordTries || !b.up || s.open < s.pages && s.pages > digestSmall/wire.MaxDigests {
		s.open = 0
		return
	}
	n.syncRecords(now, b, s.tries)
}

// receiveDigest answers a page of a neighbour's digest with what is newer here. What we lack, it learns from our own.
func (n *Core) receiveDigest(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseRecordsDigest(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	n.ack(now, b, f.Request)
	if f.Page == 0 || f.Request != b.digest {
		b.digest, b.digestNext = f.Request, key.Public{}
	}
	g := route.Digest{First: b.digestNext}
	for i := range g.Last {
		g.Last[i] = 0xff
	}
	for _, r := range f.Records {
		g.Entries = append(g.Entries, route.DigestEntry(r))
	}
	if f.Page+1 < f.Pages && len(f.Records) > 0 {
		g.Last = f.Records[len(f.Records)-1].Key
		b.digestNext = g.Last
	}
	newer, _ := n.db.Diff(now, g)
	for _, e := range newer { // its own too: that is how a node restored from a backup, or copied, learns of itself
		n.offer(now, b, e)
	}
}

// maxProposal bounds how long a manager's proposal is a candidate.
const maxProposal = time.Hour

// proposal is what a manager holds to be good paths to a node.
type proposal struct {
	paths [][]key.Public
	until time.Duration
}

// Propose takes paths from a manager: they become candidates, no more.
func (n *Core) Propose(now time.Duration, to key.Public, paths [][]key.Public, life time.Duration) {
	var good [][]key.Public
	for _, hops := range paths {
		if len(hops) >= 2 && len(hops) <= wire.MaxHops && hops[0] == n.self && hops[len(hops)-1] == to && len(good) < 4 {
			good = append(good, hops)
		}
	}
	if len(n.proposals) >= maxSessions && n.proposals[to].paths == nil {
		return
	}
	n.proposals[to] = proposal{paths: good, until: now + min(life, maxProposal)}
	if s := n.sessions[to]; s != nil {
		s.planAt = min(s.planAt, now)
		n.nextSession = min(n.nextSession, now)
	}
}
