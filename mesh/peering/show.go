package peering

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"skywire/mesh/messenger/envelope"
)

func (g *Gateway) inviteInfo(o Offered, now int64) InviteInfo {
	i := InviteInfo{
		ID: hex.EncodeToString(o.ID[:]), State: "open", Cluster: o.Offer.Cluster, Admin: o.Offer.Admin, Name: o.Offer.Name,
		Gives: grantInfo(&o.Offer.Gives), Asks: grantInfo(&o.Asks), Expires: time.Unix(o.Expires, 0).UTC(),
	}
	if o.Until > 0 {
		i.Until = time.Unix(o.Until, 0).UTC()
	}
	switch {
	case o.Done:
		i.State = "used"
	case now >= o.Expires:
		i.State = "expired"
	case o.Pending != nil:
		i.State = "pending"
		if _, other, ok := o.Pending.Of(o.Offer.Cluster); ok {
			i.By, i.Number = other.Cluster, envelope.SafetyNumber(o.Offer.Cluster, other.Cluster)
		}
	}
	return i
}

func grantInfo(g *Grant) GrantInfo {
	i := GrantInfo{Exports: []ExportInfo{}, Messaging: g.Messaging.String(), Verbs: append([]string{}, g.Verbs...), Nodes: g.Nodes, Rate: g.Rate, Quota: g.Quota}
	for _, e := range g.Exports {
		i.Exports = append(i.Exports, ExportInfo{Name: e.Name, Type: e.Type, To: e.to(), Port: e.Port})
	}
	return i
}

// to says in words what an export stands for.
func (e *Export) to() string {
	switch {
	case e.Service == "" && e.Type == "tcp":
		return "tcp://" + netip.AddrPortFrom(e.Subnet.Addr(), e.Low).String()
	case e.Service == "":
		return fmt.Sprintf("%s:%d-%d", e.Subnet, e.Low, e.High)
	case e.Tag != "":
		return "@" + e.Tag + ":" + e.Service
	case !e.Node.IsZero():
		return e.Node.Short() + ":" + e.Service
	}
	return e.Service
}

func (g *Gateway) methodList() (any, error) {
	book, _, own, err := g.beside()
	if err != nil {
		return nil, err
	}
	r := ListResult{Cluster: own.cluster, Peerings: []PeeringInfo{}, Invites: []InviteInfo{}, Suggested: g.suggestions(book)}
	for _, p := range book.All() {
		r.Peerings = append(r.Peerings, g.info(&p))
	}
	now := g.now()
	for _, o := range book.Offers() {
		r.Invites = append(r.Invites, g.inviteInfo(o, now))
	}
	return r, nil
}

func (g *Gateway) methodShow(_ context.Context, p PeerParams) (any, error) {
	book, err := g.theBook()
	if err != nil {
		return nil, err
	}
	v, err := book.Find(p.Peer)
	if err != nil {
		return nil, err
	}
	return g.info(&v), nil
}

func (g *Gateway) info(p *Peering) PeeringInfo {
	i := PeeringInfo{
		Name: p.Alias, Cluster: p.Other, State: "in force", Services: []string{}, Gates: []string{}, Allow: p.Allow, Used: p.Used.Bytes,
		Number60: envelope.SafetyNumber(p.own, p.Other), Gives: grantInfo(&Grant{}), Gets: grantInfo(&Grant{}),
	}
	now := g.now()
	if p.Record != nil {
		own, other, _ := p.Record.Of(p.own)
		i.Number, i.Signed = p.Record.Seq, time.Unix(p.Record.Issued, 0).UTC()
		if p.Record.Expires > 0 {
			i.Expires = time.Unix(p.Record.Expires, 0).UTC()
		}
		i.Admins.Ours, i.Admins.Theirs = own.Admin, other.Admin
		i.Gives, i.Gets = grantInfo(&own.Gives), grantInfo(&other.Gives)
		for _, e := range other.Gives.Exports {
			i.Services = append(i.Services, ServiceName(e.Name, p.Alias))
		}
		for _, c := range other.Gates {
			i.Gates = append(i.Gates, c.Key.String()+"@"+c.Addr)
		}
	}
	i.Rotated = g.rotated(p)
	switch err := g.holds(p); {
	case !p.Moved.IsZero():
		i.State, i.Why = "replaced", movedWhy(p)
	case p.Ended != nil && (p.Record == nil || p.Ended.Seq >= p.Record.Seq):
		i.State, i.By, i.Number = "revoked", p.Ended.By, p.Ended.Seq
		i.Why = "by " + map[bool]string{true: "us", false: "the other side"}[p.Ended.By == p.own] + " on " + time.Unix(p.Ended.Issued, 0).UTC().Format(time.DateOnly)
	case p.Record != nil && p.Record.Expires > 0 && now >= p.Record.Expires:
		i.State = "expired"
	case err != nil:
		i.State, i.Why = "suspended", err.Error()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range g.guests {
		if v.pair == p.Pair {
			i.Visitors++
			i.Streams += v.streams
		}
	}
	return i
}
