package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// HearPunch handles a message as if a peer had sent it on the path in use.
func (n *Core) HearPunch(now time.Duration, from key.Public, m wire.Control) {
	n.now = now
	switch m := m.(type) {
	case wire.Punch:
		n.receivePunch(now, n.sessions[from], m)
	case wire.PunchGo:
		n.receivePunchGo(now, n.sessions[from], m)
	}
}

// Punchers returns how many peers' attempts are remembered.
func (n *Core) Punchers() int { return len(n.punch.all) }

// KeepAlive returns the measured silence that idle links may keep.
func (n *Core) KeepAlive() time.Duration { return n.reach.mapping.keep() }
