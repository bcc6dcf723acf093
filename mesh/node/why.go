package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/node/api"
	"skywire/mesh/route"
)

// How many candidates a why names: of those that the rules permit, and of the others.
const (
	whyPermitted = 6
	whyRefused   = 3
	whyMost      = 12
	whyNotes     = 6
)

// Why implements api.Node.
func (n *Node) Why(ctx context.Context, to key.Public) (w api.Why, err error) {
	err = n.do(ctx, func(now time.Duration) { w = n.core.Why(now, to) })
	return w, err
}

// Why says which path traffic to a node takes, and why not another one.
func (n *Core) Why(now time.Duration, to key.Public) api.Why {
	w := api.Why{Key: to, Name: n.nameOf(to), Tried: []api.Tried{}, Notes: []string{}, Paths: []api.WhyChoice{}}
	if to == n.self {
		w.Summary, w.Direct = "this is the node itself", "no link is needed"
		return w
	}
	s := n.sessions[to]
	w.InUse = n.inUse(now, s)
	w.Direct, w.Tried = n.whyDirect(now, to), n.tried(now, to)
	w.NAT.Ours = n.NAT().String()
	if theirs, _ := n.PeerNAT(to); theirs.Kind != 0 {
		w.NAT.Theirs = theirs.String()
	}
	w.Paths = n.choices(now, s, to)
	w.Notes = n.notes(now, to)
	switch {
	case w.InUse != nil:
		w.Summary = fmt.Sprintf("%s since %s: %s", wayText(len(w.InUse.Hops)), span(now-s.usedAt), w.InUse.Cause)
	case n.admit(to) != nil:
		w.Summary = "not reached: " + n.admit(to).Error()
	case len(w.Paths) == 0:
		w.Summary = "not reached; the records show no way to it: " + n.whyNone(to)
	case s == nil:
		w.Summary = "no path is in use, since nothing was sent there lately"
	default:
		w.Summary = "no path is in use"
	}
	return w
}

func wayText(nodes int) string {
	switch nodes {
	case 2:
		return "directly"
	case 3:
		return "over one relay"
	}
	return fmt.Sprintf("over %d relays", nodes-2)
}

// span writes a time for people.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h", int(d.Hours()))
}

func (n *Core) inUse(now time.Duration, s *peerSession) *api.InUse {
	if s == nil || s.active == nil {
		return nil
	}
	p := s.active
	u := &api.InUse{
		Hops: p.hops, SinceS: (now - s.usedAt).Seconds(), Cause: s.usedFor, SetUp: "us", RTT: ms(p.probe.srtt), Loss: p.loss, MTU: p.mtu,
	}
	if !p.source {
		u.SetUp = "the other side"
		u.Hops = slices.Clone(p.hops)
		slices.Reverse(u.Hops)
	}
	u.Names = n.names(u.Hops)
	return u
}

func (n *Core) names(hops []key.Public) []string {
	all := make([]string, len(hops))
	for i, k := range hops {
		all[i] = n.called(k)
	}
	return all
}

// whyDirect says how it stands with a direct link.
func (n *Core) whyDirect(now time.Duration, to key.Public) string {
	l, e := n.links.ByPeer(to), n.db.Get(to)
	switch {
	case l != nil && l.State() == link.Up:
		return fmt.Sprintf("there is a link, up for %s: %s, %.1f ms, %s lost there, %s back",
			span(now-l.UpSince()), endpointText(l.Endpoint()), ms(l.RTT()), percentText(l.LossOut()), percentText(l.LossIn()))
	case l != nil && l.UpSince() != 0:
		return "there was a link" + n.lastCause(now, EventLinkDown, to, nil) + "; it is dialled: " + cmp.Or(l.Trouble(), "no answer yet")
	case l != nil:
		return "no link; it is dialled at " + endpointText(l.Dialled()) + ": " + cmp.Or(l.Trouble(), "no answer yet")
	case e == nil:
		return "no link: nothing is known of the node (no record of it has come)"
	case len(e.Addrs) == 0:
		return "no link: its record names no address, and it did not link with us"
	}
	return "no link: it is no configured peer and did not link with us; its record names " + strings.Join(e.Addrs, " ")
}

func percentText(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// lastCause says when and why something last happened to a peer, or to a path of these hops; empty if that is not known.
func (n *Core) lastCause(now time.Duration, kind string, peer key.Public, hops []key.Public) string {
	for _, e := range slices.Backward(n.events.own) {
		if e.Kind == kind && e.Peer == peer && (hops == nil || slices.Equal(e.Hops, hops)) {
			return " " + span(now-e.At) + " ago" + prefixed(": ", e.Cause)
		}
	}
	return ""
}

func prefixed(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// tried lists what was done to link directly: the tries told to Tried, and the ways that the link knows.
func (n *Core) tried(now time.Duration, to key.Public) []api.Tried {
	all := []api.Tried{}
	for _, a := range n.attemptsTo(now, to) {
		all = append(all, api.Tried{
			AgoS: (now - a.At).Seconds(), Carrier: a.Carrier, Address: a.Address, Way: a.Way, Result: cmp.Or(a.Result, "no answer yet"), Open: a.Open,
		})
	}
	l := n.links.ByPeer(to)
	if l == nil {
		return all
	}
	for _, c := range l.Candidates() {
		t := api.Tried{Carrier: link.CarrierOf(c.Endpoint).String(), Address: c.Endpoint.Addr.String(), Way: "known address"}
		switch {
		case l.State() == link.Up && c.Endpoint == l.Endpoint():
			t.Result, t.Open = "in use", true
		case c.Answered != 0:
			t.AgoS, t.Open = (now - c.Answered).Seconds(), true
			t.Result = fmt.Sprintf("answered in %.1f ms", ms(c.RTT))
		case c.Lost > 0:
			t.Result = fmt.Sprintf("no answer to %d questions", c.Lost)
		default:
			t.Result = "not asked, or no answer"
		}
		if !slices.ContainsFunc(all, func(o api.Tried) bool { return o.Carrier == t.Carrier && o.Address == t.Address }) {
			all = append(all, t)
		}
	}
	return all
}

// choices lists the paths that there are, the one in use first, then by what they cost.
func (n *Core) choices(now time.Duration, s *peerSession, to key.Public) []api.WhyChoice {
	var all []route.Path
	add := func(hops []key.Public) {
		if p, ok := n.judged(hops); ok && !hasHops(all, hops) && len(all) < whyMost {
			all = append(all, p)
		}
	}
	if s != nil {
		for _, p := range s.paths {
			if p.source {
				add(p.hops)
			}
		}
		for _, f := range s.failed {
			add(f.hops)
		}
	}
	g := n.topology()
	for _, p := range route.Paths(g, n.self, to, whyPermitted, n.cfg.Paths) {
		add(p.Hops)
	}
	for _, p := range route.Paths(g, n.self, to, 1, n.cfg.Paths) { // alone it may be another one than among many
		add(p.Hops)
	}
	for _, hops := range n.proposals[to].paths {
		add(hops)
	}
	for i, refused := 0, route.Paths(g, n.self, to, whyPermitted, route.Constraints{}); i < len(refused) && i < whyRefused; i++ {
		add(refused[i].Hops)
	}
	choices := make([]api.WhyChoice, 0, len(all))
	for _, p := range all {
		v := api.WhyChoice{
			Hops: p.Hops, Names: n.names(p.Hops), RTT: ms(p.RTT), Loss: p.Loss, Capacity: p.Capacity, Cost: float64(p.Rank) / 1000,
		}
		v.State, v.Reason = n.verdict(now, s, p)
		v.Used = v.State == "used"
		choices = append(choices, v)
	}
	sort.SliceStable(choices, func(i, j int) bool {
		a, b := &choices[i], &choices[j]
		return a.Used && !b.Used || a.Used == b.Used && a.Cost < b.Cost
	})
	return choices
}

// verdict says where a candidate stands, and why it is not the one in use.
func (n *Core) verdict(now time.Duration, s *peerSession, p route.Path) (state, reason string) {
	if r := n.cfg.Paths.Refusal(p.Hops); r != nil {
		return "refused", n.refusalText(p.Hops, r)
	}
	if n.upLink(p.Hops[1]) == nil {
		return "down", "our link to " + n.called(p.Hops[1]) + " is down" + n.lastCause(now, EventLinkDown, p.Hops[1], nil)
	}
	if s == nil {
		return "possible", ""
	}
	state = "possible"
	for _, q := range s.paths {
		if q.source && slices.Equal(q.hops, p.Hops) {
			if q == s.active {
				return "used", s.usedFor
			}
			state = q.state.String()
			if q.state == pathUsable {
				state = "standby"
			}
		}
	}
	for _, f := range s.failed {
		if now < f.until && slices.Equal(f.hops, p.Hops) {
			return "failed", "failed" + cmp.Or(n.failure(now, s, p.Hops), " "+span(now-f.at)+" ago") + "; tried again in " + span(f.until-now)
		}
	}
	if t := s.trouble(p.Hops); t != nil && now < t.until {
		return state, "in trouble" + cmp.Or(n.failure(now, s, p.Hops), " "+span(now-t.at)+" ago") + "; not used before " + span(t.until-now) + " unless there is nothing else"
	}
	return state, n.whyNotBetter(now, s, p)
}

// failure says when and how a path last failed.
func (n *Core) failure(now time.Duration, s *peerSession, hops []key.Public) string {
	for _, e := range slices.Backward(n.events.own) {
		switch e.Kind {
		case EventPathLost, EventPathSuspect, EventPathRefused:
			if e.Peer == s.peer && slices.Equal(e.Hops, hops) {
				return " " + span(now-e.At) + " ago" + prefixed(": ", e.Cause)
			}
		}
	}
	return ""
}

// whyNotBetter compares a candidate with the path in use.
func (n *Core) whyNotBetter(now time.Duration, s *peerSession, p route.Path) string {
	if s.active == nil {
		return ""
	}
	if !s.active.source {
		return "the other side set up the path in use, and keeps up the standbys"
	}
	old, ok := n.judged(s.active.hops)
	if !ok {
		return ""
	}
	if route.Better(old, p) {
		mover := s.mover // a copy: asking changes nothing
		switch mover.Judge(now, old, p) {
		case route.MoveWaits:
			return "better, but traffic moved too often lately"
		case route.MoveSettles:
			return "better since just now: waits until that lasts"
		}
		return "better: taken as soon as it is ready"
	}
	need := route.NeedRank(old, len(p.Hops) < len(old.Hops))
	switch {
	case p.Rank >= old.Rank:
		return "costs " + costText(p.Rank-old.Rank) + " more than the one in use" + n.dearest(p)
	case need == 0:
		return "nothing is enough better than the one in use to leave it"
	}
	return "better by " + costText(old.Rank-p.Rank) + " only: it would have to cost less than " + costText(need)
}

// dearest names what makes a path dear beside its round trip and hops, where that is the better part.
func (n *Core) dearest(p route.Path) string {
	g := n.topology()
	worst, most, word := key.Public{}, uint64(0), ""
	for i, hop := range p.Hops[1:] {
		e, ok := g.Edge(p.Hops[i], hop)
		if !ok {
			continue
		}
		base := route.Link{RTT: e.RTT}.Cost()
		for j, l := range [...]route.Link{
			{RTT: e.RTT, Flaps: e.Flaps}, {RTT: e.RTT, Capacity: e.Capacity}, {RTT: e.RTT, Jitter: e.Jitter}, {RTT: e.RTT, Loss: e.Loss},
		} {
			if more := l.Cost() - base; more > most {
				worst, most, word = hop, more, [...]string{"a flapping link", "a narrow link", "jitter", "loss"}[j]
			}
		}
	}
	if most*4 < p.Cost {
		return ""
	}
	return fmt.Sprintf(", %s of it for %s before %s", costText(most), word, n.called(worst))
}

func (n *Core) refusalText(hops []key.Public, r *route.Refusal) string {
	switch r.Rule {
	case route.RuleAvoid:
		return "to be avoided: " + n.called(r.Relay)
	case route.RuleAvoidLink:
		return "a link at " + n.called(r.Relay) + " is to be avoided"
	case route.RuleTrusted:
		return n.called(r.Relay) + " is no trusted relay"
	}
	return fmt.Sprintf("%d hops, at most %d are allowed", len(hops)-1, r.Limit)
}

// notes lists what the records say of links that can't be used.
func (n *Core) notes(now time.Duration, to key.Public) []string {
	notes := []string{}
	add := func(format string, args ...any) {
		if len(notes) < whyNotes {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	e := n.db.Get(to)
	if e == nil {
		return notes
	}
	if age := e.Age(now); age > route.DefaultResign+time.Minute {
		add("its record is %s old: it may be gone", span(age))
	}
	for _, l := range e.Links {
		switch o := n.db.Get(l.Peer); {
		case o == nil:
			add("it states a link with %s, of which no record is here", n.called(l.Peer))
		case l.Peer != n.self && !states(o.Record, to):
			add("it states a link with %s, which does not state it: that link does not count", n.called(l.Peer))
		case l.Peer == n.self && n.upLink(to) == nil:
			add("it states a link with us that we do not have")
		case l.Loss >= 1:
			add("all is lost on its link with %s", n.called(l.Peer))
		}
	}
	for _, o := range n.db.Entries() {
		if states(o.Record, to) && !states(e.Record, o.Key) {
			add("%s states a link with it, which it does not state: that link does not count", n.called(o.Key))
		}
	}
	return notes
}

func states(r *route.Record, peer key.Public) bool {
	return slices.ContainsFunc(r.Links, func(l route.Link) bool { return l.Peer == peer })
}

// whyNone says why the records show no way to a node.
func (n *Core) whyNone(to key.Public) string {
	e := n.db.Get(to)
	switch {
	case !n.anyUp():
		return "we have no link at all (see node peers)"
	case e == nil:
		return "it has not been heard of"
	case len(e.Links) == 0:
		return "it states no link"
	case len(route.Paths(n.topology(), n.self, to, 1, route.Constraints{})) > 0:
		return "the rules of this node (paths in its config) permit none of those that there are"
	}
	return "none of the links that it states leads here"
}
