package node

import (
	"bytes"
	"sort"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/wire"
)

// The exchange of statements between neighbours: digests, lists of ids where they differ, and what the other one lacks.

// lastRef is above all ids, lastList above those of lists.
func lastRef() (r wire.StatementID) {
	for i := range r {
		r[i] = 0xff
	}
	return r
}

func lastList() wire.StatementID {
	r := lastRef()
	r[0] = byte(member.KindCertificate) - 1
	return r
}

// digests computes what the ids held come to, if something changed.
func (n *Core) digests() {
	m := &n.members
	if m.fresh {
		return
	}
	m.fresh, m.refs = true, m.refs[:0]
	for p := m.state.Page(member.Ref{}); ; p = m.state.Page(p.Last) {
		for _, r := range p.Refs {
			m.refs = append(m.refs, wire.StatementID(r))
		}
		if p.Done() {
			break
		}
	}
	last := lastList()
	m.nlists = sort.Search(len(m.refs), func(i int) bool { return bytes.Compare(m.refs[i][:], last[:]) > 0 })
	m.lists, m.all = wire.MembersDigest(m.refs[:m.nlists]), wire.MembersDigest(m.refs)
}

// handshakeDigest is what handshakes tell of us; nil where there is no cluster.
func (n *Core) handshakeDigest() func() [8]byte {
	if !n.clustered() {
		return nil
	}
	return func() [8]byte {
		n.digests()
		return n.members.lists
	}
}

// scope is whether certificates are compared with a neighbour: where both call each other members.
func (b *neighbour) scope() bool {
	return b.rights == member.Member && b.theirs.Flags&wire.MembersAll != 0
}

// same tells whether a neighbour and we hold the same, and call each other members. While that is not so both ask again, at
// last every ten seconds: there may be a certificate by then.
func (n *Core) same(b *neighbour) bool {
	return b.heard && b.theirs.Lists == n.members.lists && b.scope() && b.theirs.All == n.members.all
}

// compare sends our digests.
func (n *Core) compare(now time.Duration, b *neighbour, flags uint8) {
	n.digests()
	if b.rights == member.Member {
		flags |= wire.MembersAll
	}
	n.send(now, b, wire.Members{Flags: flags, Lists: n.members.lists, All: n.members.all})
}

func (n *Core) receiveMembers(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseMembers(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	n.digests()
	b.theirs, b.heard = f, true
	if f.Flags&wire.MembersAnswer != 0 {
		n.compare(now, b, 0)
		if raw := n.members.state.RawCertificate(n.self); raw != nil && f.Flags&wire.MembersAll == 0 {
			n.send(now, b, wire.Statement{Raw: raw}) // it does not call us a member
		}
	}
	b.settled = b.settled || f.Lists == n.members.lists
	n.judge(now, b)
	if n.same(b) {
		b.tries = 0
		return
	}
	if f.Lists == n.members.lists && (!b.scope() || f.All == n.members.all) {
		return // there is nothing to send
	}
	b.at = min(b.at, now+exchangeFirst)
	if now >= b.listAt {
		b.listAt = now + listGap
		n.sendIDs(now, b)
	}
}

// sendIDs sends the ids of what we hold.
func (n *Core) sendIDs(now time.Duration, b *neighbour) {
	refs, flags, last := n.members.refs[:n.members.nlists], uint8(0), lastList()
	if b.scope() {
		refs, flags, last = n.members.refs, wire.MembersAll, lastRef()
	}
	var pages []wire.Message
	var after wire.StatementID
	for {
		part := refs[:min(len(refs), wire.MaxStatements)]
		refs = refs[len(part):]
		p := wire.MembersList{Flags: flags, First: after, Last: last}
		p.IDs = part
		if len(refs) > 0 {
			after = part[len(part)-1]
			p.Last = after
		}
		pages = append(pages, p)
		if len(refs) == 0 {
			break
		}
	}
	n.sent(b, wire.MessageMembersList, n.links.SendAll(now, b.link, pages))
}

// receiveMembersList sends what we hold and the page lacks.
func (n *Core) receiveMembersList(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseMembersList(body)
	if err != nil || bytes.Compare(f.First[:], f.Last[:]) >= 0 {
		n.drops.malformed++
		return
	}
	if !n.statementToken(now, b) {
		n.drops.limit++
		return
	}
	page := member.Page{After: member.Ref(f.First), Last: member.Ref(f.Last)}
	for _, id := range f.IDs {
		page.Refs = append(page.Refs, member.Ref(id))
	}
	size := 0
	var out []wire.Message
	for _, raw := range n.members.state.Lacking(page) {
		if !n.mayHave(b, member.RefOf(raw), raw) {
			continue
		}
		if size += len(raw); size > sendAtOnce {
			break // the rest when it asks again
		}
		out = append(out, wire.Statement{Raw: raw})
	}
	if own := n.members.state.RawCertificate(b.link.Peer()); own != nil && b.rights != member.Member && f.Flags&wire.MembersAll == 0 {
		out = append(out, wire.Statement{Raw: own}) // a guest may have lost its own
	}
	n.sent(b, wire.MessageStatement, n.links.SendAll(now, b.link, out))
}

// statementToken takes from what a neighbour may have us look at.
func (n *Core) statementToken(now time.Duration, b *neighbour) bool {
	b.tokens = min(statementBurst, b.tokens+statementRate*(now-b.tokensAt).Seconds())
	b.tokensAt = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (n *Core) receiveStatement(now time.Duration, b *neighbour, body []byte) {
	f, err := wire.ParseStatement(body)
	if err != nil {
		n.drops.malformed++
		return
	}
	if !n.statementToken(now, b) {
		n.drops.limit++
		return
	}
	if !n.mayTell(b, f.Raw) {
		n.members.drops.guest++
		return
	}
	ch, err := n.members.state.Put(n.instant(), f.Raw)
	if badStatement(err) {
		n.members.drops.bad++
		b.tokens -= statementRate / 5 // honest neighbours look before
		n.log.Debug("statement refused", "peer", b.link.Peer().Short(), "err", err)
	}
	if ch.News {
		n.changed(now, ch, f.Raw, b)
	}
}

// mayTell tells whether a neighbour may bring a statement: members any, guests the lists and certificates of theirs or of us.
func (n *Core) mayTell(b *neighbour, raw []byte) bool {
	if b.rights == member.Member || len(raw) == 0 || member.Kind(raw[0]) != member.KindCertificate {
		return true
	}
	c, err := member.ParseCertificate(raw)
	return err == nil && (c.Node == b.link.Peer() || c.Node == n.self)
}

func sortKeys(all []key.Public) {
	sort.Slice(all, func(i, j int) bool { return all[i].Less(all[j]) })
}
