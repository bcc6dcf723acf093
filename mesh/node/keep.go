package node

import (
	"fmt"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/link"
	"skywire/mesh/route"
	"skywire/mesh/store"
	"skywire/mesh/wire"
)

// What outlives a process: relay rules, records, numbers, the last addresses of neighbours. Never keys, counters of lanes
// or paths that end here: their nonces must not come back.

// saveEvery is how often changes are written: flash wears out. Rules are written sooner while the node is young, so that
// a test or a new mesh does not wait for a minute.
const (
	saveEvery = time.Minute
	saveSoon  = 5 * time.Second
)

// Flags of a stored rule.
const ruleBackward = 1 << 0

// Kept is what of a Core outlives a process.
type Kept struct {
	Number  uint64 // highest used
	Records [][]byte
	Rules   []Rule
	Replays map[key.Public]store.Replay // of setups, by source
}

// Keep returns what is worth keeping.
func (n *Core) Keep(now time.Duration) Kept {
	k := Kept{Number: n.Number(), Rules: n.Rules(now), Replays: make(map[key.Public]store.Replay, len(n.sources))}
	for _, e := range n.db.Entries() {
		if e.Key != n.self {
			k.Records = append(k.Records, e.Raw)
		}
	}
	for source, s := range n.sources {
		k.Replays[source] = store.Replay{Highest: s.highest, Window: s.seen}
	}
	return k
}

// RestoreKept takes what an earlier start kept, before any link is up. Number is for CoreConfig.Sequence: it is not read here.
func (n *Core) RestoreKept(now time.Duration, k Kept, wall time.Time) {
	for _, raw := range k.Records {
		n.PutRecordAged(now, raw, n.self, route.StoredAge(raw, wall, 0))
	}
	for source, r := range k.Replays {
		n.sources[source] = &setupNumbers{highest: r.Highest, seen: r.Window, at: now}
	}
	n.Restore(now, k.Rules)
}

// restore reads what an earlier start kept.
func (n *Node) restore() error {
	if n.store == nil {
		return nil
	}
	now := link.Now()
	var k Kept
	var err error
	if k.Records, err = n.store.Records(); err != nil {
		n.log.Warn("records not restored", "err", err)
	}
	if k.Replays, err = n.store.Replays(); err != nil {
		n.log.Warn("setup numbers not restored", "err", err)
	}
	stored, err := n.store.Rules()
	if err != nil {
		n.log.Warn("rules not restored", "err", err)
	}
	rules := joinRules(stored)
	k.Rules = rules
	n.core.RestoreKept(now, k, time.Now())
	if len(rules) > 0 {
		n.log.Info("relay rules restored", "paths", len(rules))
	}
	n.dialNeighbours(now, rules)
	return nil
}

// dialNeighbours dials the neighbours of restored rules first, where they last were.
func (n *Node) dialNeighbours(now time.Duration, rules []Rule) {
	pins, err := n.store.Pins()
	if err != nil {
		return
	}
	for addr, k := range pins {
		wanted := false
		for _, r := range rules {
			wanted = wanted || r.Previous == k || r.Next == k
		}
		if !wanted {
			continue
		}
		eps := n.lastEndpoint(addr)
		if len(eps) == 0 {
			continue
		}
		if _, err := n.core.links.Dial(now, k, eps, false); err != nil {
			n.log.Debug("neighbour not dialled", "peer", k.Short(), "err", err)
		}
	}
}

// joinRules puts the two directions of each path together again.
func joinRules(stored []store.Rule) []Rule {
	byID := map[wire.PathID]*Rule{}
	var order []wire.PathID
	for _, s := range stored {
		r := byID[s.ID]
		if r == nil {
			r = &Rule{ID: s.ID, Source: s.Source, Idle: time.Duration(s.Idle) * time.Second}
			byID[s.ID] = r
			order = append(order, s.ID)
		}
		if s.Flags&ruleBackward == 0 {
			r.Previous, r.Next, r.ForwardBase, r.NextBase, r.Forward = s.In, s.Out, s.InBase, s.OutBase, s.Lanes
		} else {
			r.BackBase, r.PreviousBase, r.Back = s.InBase, s.OutBase, s.Lanes
		}
	}
	var all []Rule
	for _, id := range order {
		if r := byID[id]; r.Forward > 0 && r.Back > 0 {
			all = append(all, *r)
		}
	}
	return all
}

// save writes what changed, if it is time.
func (n *Node) save(now time.Duration, force bool) {
	if n.store == nil || !force && now < n.saveAt {
		return
	}
	n.saveAt = now + saveEvery
	if n.cfg.StoreAfter > 0 && n.cfg.StoreAfter < saveEvery || time.Since(n.started) < saveEvery {
		n.saveAt = now + saveSoon
	}
	c := n.core
	kept := c.Keep(now)
	err := n.store.Batch(func(t *store.Tx) error {
		t.PutNumber(kept.Number)
		t.PutRules(splitRules(kept.Rules))
		for _, raw := range kept.Records {
			k, _, _ := route.Peek(raw)
			t.PutRecord(k, raw)
		}
		for k, s := range kept.Replays {
			t.PutReplay(k, s)
		}
		for _, l := range c.linkList() {
			if l.State() == link.Up {
				t.Pin(n.pinName(l.Endpoint()), l.Peer())
			}
			st := c.neighbour(l).plane.Stats()
			t.PutCounters(store.CounterKey{Peer: l.Peer()}, store.Counters{
				RxPackets: n.base(l.Peer()).RxPackets + st.ReceivedFrames, RxBytes: n.base(l.Peer()).RxBytes + st.ReceivedBytes,
				TxPackets: n.base(l.Peer()).TxPackets + st.SentFrames, TxBytes: n.base(l.Peer()).TxBytes + st.SentBytes,
			})
		}
		return nil
	})
	if err != nil && fmt.Sprint(err) != n.saveError {
		n.log.Error("state not saved: the node goes on, but a restart will not know its routes", "err", err)
	}
	n.saveError = ""
	if err != nil {
		n.saveError = fmt.Sprint(err)
	}
}

func splitRules(rules []Rule) []store.Rule {
	var all []store.Rule
	for _, r := range rules {
		idle := uint16(r.Idle / time.Second)
		all = append(all,
			store.Rule{
				InBase: r.ForwardBase, OutBase: r.NextBase, Lanes: r.Forward, Idle: idle, In: r.Previous, Out: r.Next,
				Source: r.Source, ID: r.ID,
			},
			store.Rule{
				InBase: r.BackBase, OutBase: r.PreviousBase, Lanes: r.Back, Idle: idle, In: r.Next, Out: r.Previous,
				Source: r.Source, ID: r.ID, Flags: ruleBackward,
			})
	}
	return all
}

// base returns what earlier starts counted for a neighbour.
func (n *Node) base(k key.Public) store.Counters {
	if n.counted == nil {
		n.counted = map[store.CounterKey]store.Counters{}
		if all, err := n.store.Counters(); err == nil {
			n.counted = all
		}
	}
	return n.counted[store.CounterKey{Peer: k}]
}
