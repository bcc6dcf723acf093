package node

import (
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// control seals one control message on a path.
func (n *Core) control(now time.Duration, p *path, m wire.Control) {
	if p.fp == nil {
		return
	}
	p.control++
	if err := n.worker.Control(now, p.fp, m.Append(n.ctl[:0])); err != nil {
		n.log.Debug("control not sent", "peer", p.sess.peer.Short(), "err", err)
	}
}

// Control takes an opened control frame.
func (n *Core) Control(now time.Duration, fp *forward.Path, body []byte) {
	n.now = now
	p := n.byPath[fp]
	if p == nil || len(body) == 0 {
		return
	}
	p.controlRx++
	if !n.current(p.sess) {
		n.succeed(now, p.sess) // its key opened this
	}
	n.keysOpened(now, p.sess)
	if p.state == pathProving && !p.source {
		p.state = pathUsable // its source has the keys: before that nothing of ours goes there
	}
	if !n.controlMessage(now, p, body) {
		n.drops.malformed++
	}
	n.worker.Flush()
}

// controlMessage handles one message; false if it is malformed.
func (n *Core) controlMessage(now time.Duration, p *path, body []byte) bool {
	var err error
	switch wire.ControlType(body) {
	case wire.CtlKeep:
	case wire.CtlProbe:
		var f wire.Probe
		if f, err = wire.ParseProbe(body); err == nil {
			n.control(now, p, wire.ProbeAck{ID: f.ID, Size: uint16(wire.SealedOverhead + len(body))}) // as it came, whatever it says
		}
	case wire.CtlProbeAck:
		var f wire.ProbeAck
		if f, err = wire.ParseProbeAck(body); err == nil && !n.sizeAnswered(now, p, f) {
			n.probeAnswered(now, p, f.ID)
		}
	case wire.CtlProof:
		var f wire.Proof
		if f, err = wire.ParseProof(body); err == nil && f.ID == p.id {
			n.receiveProof(now, p, f)
		}
	case wire.CtlUse:
		var f wire.Use
		if f, err = wire.ParseUse(body); err == nil {
			n.receiveUse(now, p.sess, p, f)
		}
	case wire.CtlReport:
		var f wire.Report
		if f, err = wire.ParseReport(body); err == nil {
			n.receiveReport(now, p, f)
		}
	case wire.CtlRekey1, wire.CtlRekey2:
		err = n.receiveRekey(now, p, body)
	case wire.CtlEcho:
		var f wire.Echo
		if f, err = wire.ParseEcho(body); err == nil {
			n.control(now, p, wire.EchoReply(f))
		}
	case wire.CtlEchoReply:
		var f wire.EchoReply
		if f, err = wire.ParseEchoReply(body); err == nil {
			n.receiveEchoReply(now, f)
		}
	case wire.CtlPunch:
		var f wire.Punch
		if f, err = wire.ParsePunch(body); err == nil {
			n.receivePunch(now, p.sess, f)
		}
	case wire.CtlPunchGo:
		var f wire.PunchGo
		if f, err = wire.ParsePunchGo(body); err == nil {
			n.receivePunchGo(now, p.sess, f)
		}
	}
	return err == nil
}

// receiveUse obeys the source of a path: it says on which of its paths it wants our answers.
func (n *Core) receiveUse(now time.Duration, s *peerSession, on *path, f wire.Use) {
	if on.number != f.Path || on.source || f.Number < s.useHeard {
		return
	}
	s.used, s.useHeard = on, f.Number
	n.chooseActive(now, s)
}
