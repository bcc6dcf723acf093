package node

import (
	"errors"
	"slices"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// tickSessionRekey makes a new key inside the old one; the source of the path in use does it.
func (n *Core) tickSessionRekey(now time.Duration, s *peerSession) {
	if s.active == nil || now < s.rekeyT {
		return
	}
	cur := s.ring.Sending(now)
	if cur == nil {
		s.renew = true // too old for anything: the next setup brings a handshake
		if s.rekeyT = now + time.Second; s.active.source {
			n.pathSuspect(now, s.active, "keys too old")
		}
		return
	}
	if !s.ring.RekeyDue(now) {
		return
	}
	hs, noise, err := session.Initiate(n.sessionConfig(cur.Hash[:]), s.peer, n.sessionPayload(s))
	if err != nil {
		return
	}
	s.rekey = hs
	s.rekeyT = now + max(500*time.Millisecond, 3*s.active.probe.srtt)
	n.control(now, s.active, wire.ControlRekey1{Noise: [wire.Noise1Len]byte(noise)})
}

// receiveRekey handles both messages of a rekey.
func (n *Core) receiveRekey(now time.Duration, p *path, body []byte) error {
	s := p.sess
	if wire.ControlType(body) == wire.CtlRekey2 {
		f, err := wire.ParseControlRekey2(body)
		if err != nil || s.rekey == nil {
			return err
		}
		keys, err := s.rekey.Finish(f.Noise[:])
		if err == nil || errors.Is(err, session.ErrSpent) {
			s.rekey = nil // a stale answer to an attempt before must not end this one
		}
		if err != nil || keys.Peer != s.peer {
			n.drops.badSignatures++
			return nil
		}
		n.installKeys(now, s, keys)
		n.control(now, p, wire.ControlKeep{})
		return nil
	}
	f, err := wire.ParseControlRekey1(body)
	if err != nil {
		return err
	}
	if reply := s.ring.Repeat(f.Noise[:]); reply != nil {
		n.control(now, p, wire.ControlRekey2{Noise: [wire.Noise2Len]byte(reply)})
		return nil
	}
	noise, keys := n.respondRekey(s, f.Noise[:])
	if keys == nil || keys.Peer != s.peer {
		n.drops.badSignatures++
		return nil
	}
	s.ring.Answered(f.Noise[:], noise)
	n.control(now, p, wire.ControlRekey2{Noise: [wire.Noise2Len]byte(noise)})
	n.installKeys(now, s, keys)
	return nil
}

// respondRekey answers a rekey, which is bound to the key that carried it: one of the few that are held.
func (n *Core) respondRekey(s *peerSession, noise []byte) ([]byte, *session.Keys) {
	for _, old := range slices.Backward(s.ring.All()) {
		answer, keys, err := session.Respond(n.sessionConfig(old.Hash[:]), noise, func(key.Public, wire.Payload) (wire.Payload, error) {
			return n.sessionPayload(s), nil
		})
		if err == nil {
			return answer, keys
		}
	}
	return nil, nil
}
