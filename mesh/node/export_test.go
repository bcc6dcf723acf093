package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// Inject handles a message as if a neighbour had sent it.
func (n *Core) Inject(now time.Duration, from key.Public, m wire.Message) {
	n.now = now
	n.message(now, n.neighbour(n.links.ByPeer(from)), m.Type(), m.Append(nil))
}

// Sizes returns how much is in each table that others can fill.
func (n *Core) Sizes() map[string]int { return n.tables() }

// Refused returns how many setups were refused, dropped over quota, and had a bad signature.
func (n *Core) Refused() (refused, limit, bad uint64) {
	return n.drops.refusedSetups, n.drops.limit, n.drops.badSignatures
}

// RelayIDs returns the paths that run through the node, PathIDs those that end here.
func (n *Core) RelayIDs() (ids []wire.PathID) {
	for _, r := range n.relayList() {
		ids = append(ids, r.id)
	}
	return ids
}

// PathIDs returns the paths that end here.
func (n *Core) PathIDs() (ids []wire.PathID) {
	for _, p := range n.pathList() {
		ids = append(ids, p.id)
	}
	return ids
}

// LabelsOf returns a label that a neighbour uses here, and one that we use there, of the oldest rule.
func (n *Core) LabelsOf() (given, used uint32) {
	for _, r := range n.relayList() {
		return r.fwdBase, r.nextBase
	}
	return 0, 0
}

// RulesRequest returns the number of the RULES that a neighbour has not answered.
func (n *Core) RulesRequest(now time.Duration, peer key.Public) uint32 {
	b := n.neighbour(n.links.ByPeer(peer))
	n.syncRules(now, b)
	return b.rulesAsk.Request
}

// EndSession forgets the session with a peer, as if it had been idle.
func (n *Core) EndSession(now time.Duration, peer key.Public) {
	if s := n.sessions[peer]; s != nil {
		n.endSession(now, s, "test")
	}
}

// Limits of the tables.
const (
	MaxRelays   = maxRelays
	MaxSessions = maxSessions
	MaxSources  = maxSources
	MaxWaiters  = maxWaiters
	QuotaShare  = quotaShare
)
