package node

import (
	"time"

	"skywire/mesh/key"
	"skywire/mesh/wire"
)

// echo is a ping of ours that is out.
type echo struct {
	sent time.Duration
	done func(rtt time.Duration, err error)
}

// maxEchoes bounds the pings that are out at once.
const maxEchoes = 1024

// Ping sends one sealed echo to a peer, setting up a session if there is none; done is called once.
func (n *Core) Ping(now time.Duration, k key.Public, done func(time.Duration, error)) {
	n.Want(now, k, func(err error) {
		s := n.sessions[k]
		if err == nil && (s == nil || s.active == nil) {
			err = ErrUnreachable
		}
		if err == nil && len(n.echoes) >= maxEchoes {
			err = ErrBusy
		}
		if err != nil {
			done(0, err)
			return
		}
		n.echoID++
		n.echoes[n.echoID] = echo{sent: n.now, done: done}
		n.control(n.now, s.active, wire.Echo{ID: n.echoID, Time: uint64(n.now)})
		n.worker.Flush()
	})
}

func (n *Core) receiveEchoReply(now time.Duration, f wire.EchoReply) {
	e, ok := n.echoes[f.ID]
	if !ok || f.Time != uint64(e.sent) {
		return
	}
	delete(n.echoes, f.ID)
	e.done(now-e.sent, nil)
}

// tickEchoes ends pings that nobody answered.
func (n *Core) tickEchoes(now time.Duration) {
	for id, e := range n.echoes {
		if now-e.sent > 5*time.Second {
			delete(n.echoes, id)
			e.done(0, ErrTimeout)
		}
	}
	for _, s := range n.sessions {
		late := 0
		for late < len(s.waiters) && now-s.waiters[late].since > 10*time.Second {
			late++
		}
		gone := s.waiters[:late]
		s.waiters = s.waiters[late:]
		for _, w := range gone {
			w.done(ErrUnreachable)
		}
	}
}
