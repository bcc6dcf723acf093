package node

import (
	"slices"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/link"
)

// Kinds of events, as people and scripts read them.
const (
	EventLinkUp       = "link_up"
	EventLinkDown     = "link_down"
	EventLinkMoved    = "link_moved" // the neighbour's address, or the carrier, changed
	EventPathReady    = "path_ready" // proven: it may carry data
	EventPathUsed     = "path_used"  // it carries what we send from now on
	EventPathSuspect  = "path_suspect"
	EventPathLost     = "path_lost"
	EventPathRefused  = "path_refused"
	EventPathDropped  = "path_dropped" // let go in order
	EventPathBetter   = "path_better"  // a better one was found and is being set up
	EventSessionEnd   = "session_end"
	EventNodeKnown    = "node_known" // its first record
	EventNodeGone     = "node_gone"  // its record aged or was revoked
	EventNodeLinks    = "node_links" // a node states other links than before
	EventManager      = "manager"
	EventMember       = app.EventMember // our own membership, and what neighbours are
	EventCertificate  = app.EventCertificate
	EventNetwork      = "network" // addresses, interfaces or NAT of this box
	EventTwin         = "twin"
	EventUnreachable  = "unreachable" // traffic for a node that no path leads to
	maxEvents         = 384           // kept of this node's own
	maxNewsEvents     = 128           // kept of what records tell, which a big mesh makes a lot of
	maxAttempts       = 16            // tries remembered for a node
	maxAttempted      = 256           // nodes of which tries are remembered
	attemptRemembered = 30 * time.Minute
)

// Event is one change and its cause.
type Event struct {
	Seq   uint64
	At    time.Duration
	Kind  string
	Peer  key.Public   // whom it is about; zero: this node
	Hops  []key.Public // of the path, if it is about one
	What  string       // what changed, in words; may be empty where the kind says it
	Cause string       // why
}

// eventRing holds the last events. What records tell has a ring of its own, so that news of a thousand nodes do not push out why
// our own link broke.
type eventRing struct {
	seq       uint64
	own, news []Event
	// followers wait for the channel to be closed; nil: nobody does.
	wake chan struct{}
}

// news tells which kinds are about others.
func (e Event) news() bool {
	return e.Kind == EventCertificate || e.Kind == EventNodeKnown || e.Kind == EventNodeGone || e.Kind == EventNodeLinks
}

func (r *eventRing) add(e Event) {
	r.seq++
	e.Seq = r.seq
	ring, most := &r.own, maxEvents
	if e.news() {
		ring, most = &r.news, maxNewsEvents
	}
	if len(*ring) >= most { // a copy each time the ring is half full of dead ones would be no cheaper
		copy(*ring, (*ring)[1:])
		*ring = (*ring)[:most-1]
	}
	*ring = append(*ring, e)
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

// after returns what followed an event, oldest first, at most limit; the newest ones if seq is 0.
func (r *eventRing) after(seq uint64, limit int) []Event {
	var all []Event
	own, news := r.own, r.news
	for len(own)+len(news) > 0 {
		from := &own
		if len(own) == 0 || len(news) > 0 && news[0].Seq < own[0].Seq {
			from = &news
		}
		if e := (*from)[0]; e.Seq > seq {
			all = append(all, e)
		}
		*from = (*from)[1:]
	}
	if len(all) > limit {
		if seq == 0 {
			return all[len(all)-limit:]
		}
		all = all[:limit]
	}
	return all
}

// missed tells how many events after seq are no longer held.
func (r *eventRing) missed(seq uint64) uint64 {
	if seq == 0 || seq >= r.seq {
		return 0
	}
	return r.seq - seq - uint64(len(r.after(seq, maxEvents+maxNewsEvents)))
}

// wait returns a channel that is closed at the next event.
func (r *eventRing) wait() <-chan struct{} {
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	return r.wake
}

// note remembers a change. Peer may be the zero key.
func (n *Core) note(kind string, peer key.Public, what, cause string) {
	n.events.add(Event{At: n.now, Kind: kind, Peer: peer, What: what, Cause: cause})
}

// notePath remembers a change of a path of ours.
func (n *Core) notePath(kind string, p *path, cause string) {
	n.events.add(Event{At: n.now, Kind: kind, Peer: p.sess.peer, Hops: p.hops, What: p.changeText(n.now, kind), Cause: cause})
}

// Attempt is one try to reach a node directly, as punching, dialling and carriers make them.
type Attempt struct {
	At      time.Duration
	Carrier string // udp, tcp, wss
	Address string // host:port, or how people write the carrier's address
	Way     string // what was tried: dial, punch, lan, mapped, …
	Result  string // what it answered, in words; "" while nothing is known
	Open    bool   // it worked
}

// attempted is what was tried to reach one node.
type attempted struct {
	all []Attempt
	at  time.Duration
}

// Tried remembers a try to reach peer directly; node why shows them. A try with the carrier, address and way of an earlier one takes
// its place, so a result may be told later than the beginning.
func (n *Core) Tried(now time.Duration, peer key.Public, a Attempt) {
	a.At = now
	t := n.attempts[peer]
	if t == nil {
		n.forgetAttempts(now)
		t = &attempted{}
		n.attempts[peer] = t
	}
	t.at = now
	t.all = slices.DeleteFunc(t.all, func(o Attempt) bool {
		return o.Carrier == a.Carrier && o.Address == a.Address && o.Way == a.Way || now-o.At > attemptRemembered
	})
	if len(t.all) >= maxAttempts {
		t.all = slices.Delete(t.all, 0, 1)
	}
	t.all = append(t.all, a)
}

// forgetAttempts makes room: what is old goes, and if that is not enough, what is oldest.
func (n *Core) forgetAttempts(now time.Duration) {
	if len(n.attempts) < maxAttempted {
		return
	}
	var oldest key.Public
	at := now + 1
	for k, t := range n.attempts {
		if now-t.at > attemptRemembered {
			delete(n.attempts, k)
			continue
		}
		if t.at < at || t.at == at && k.Less(oldest) {
			oldest, at = k, t.at
		}
	}
	if len(n.attempts) >= maxAttempted {
		delete(n.attempts, oldest)
	}
}

// attemptsTo returns what was tried to reach a node, oldest first.
func (n *Core) attemptsTo(now time.Duration, k key.Public) []Attempt {
	t := n.attempts[k]
	if t == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(t.all), func(a Attempt) bool { return now-a.At > attemptRemembered })
}

// changeText says what changed about a path, with what is known of it at that time.
func (p *path) changeText(now time.Duration, kind string) string {
	switch kind {
	case EventPathReady, EventPathUsed:
		return "round trip " + p.probe.srtt.Round(10*time.Microsecond).String()
	case EventPathLost, EventPathSuspect, EventPathDropped:
		return "after " + (now - p.created).Round(time.Second).String()
	}
	return ""
}

// noteLink remembers a change of a link.
func (n *Core) noteLink(kind string, l *link.Link, cause string) {
	n.note(kind, l.Peer(), endpointText(l.Endpoint()), cause)
}

// noteMove remembers that a neighbour that was and is up is reached by another address or carrier.
func (n *Core) noteMove(b *neighbour) {
	at := b.link.Endpoint()
	if b.link.State() != link.Up {
		return
	}
	if b.seenAt.Addr.IsValid() && b.seenAt != at {
		n.note(EventLinkMoved, b.link.Peer(), endpointText(b.seenAt)+" to "+endpointText(at), "")
	}
	b.seenAt = at
}

// refusal says who of a path refused it: the one at index, and why.
func refusal(hops []key.Public, index uint8, reason string) string {
	if int(index) < len(hops) {
		return reason + " at " + hops[index].Short()
	}
	return reason
}
