package node

import (
	"context"
	"time"

	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// A relay that stops in order says so first: whoever has a path over it moves to another one, or sets one up, while this one still
// works. It goes when nothing has come over it for a moment, so nothing is lost.
const (
	leaveTell    = 200 * time.Millisecond // between two announcements to those who are still there: one may get lost
	leaveQuiet   = 200 * time.Millisecond // since the last frame of a rule: its users are gone
	leaveRecent  = time.Second            // a rule without a frame for so long is not waited for
	leaveMost    = 2 * time.Second
	leaveLook    = 20 * time.Millisecond
	leavingLasts = 10 * time.Second // so long the word of a relay that leaves counts
)

// leaving is where a node stands that is about to stop.
type leaving struct {
	at, told time.Duration
}

// Leave announces that this node will stop, and reports whether it may: nobody sends over it any more, or waited long enough. Call
// it until then; the node goes on forwarding meanwhile and takes no more setups.
func (n *Core) Leave(now time.Duration) bool {
	n.now = now
	first := n.leaving.at == 0
	if first {
		n.leaving.at = now
	}
	if now-n.leaving.at >= leaveMost {
		return true
	}
	recent := leaveQuiet
	if first {
		recent = leaveRecent
	}
	tell := first || now-n.leaving.told >= leaveTell
	if tell {
		n.leaving.told = now
	}
	busy := false
	for _, r := range n.relayList() {
		if r.fwd == nil {
			continue
		}
		used := now-max(r.fwd.Stats().LastUse, r.back.Stats().LastUse) < recent
		busy = busy || used
		if first || tell && used {
			n.passEvent(now, r.prev, r.fwdBase, wire.Event{Kind: wire.EventLeaving})
			n.passEvent(now, r.next, r.backBase, wire.Event{Kind: wire.EventLeaving})
		}
	}
	return !busy
}

// pathLeaving moves traffic off a path before a relay of it leaves. Where there is no other, one is set up, and this one is used
// until it stands.
func (n *Core) pathLeaving(now time.Duration, p *path) {
	if p.fp == nil || p.leaving != 0 && now-p.leaving < leavingLasts {
		return
	}
	p.leaving = now
	n.log.Info("path about to end", "path", p.String(), "reason", "a relay leaves")
	n.notePath(EventPathSuspect, p, "a relay leaves")
	s := p.sess
	n.chooseActive(now, s)
	if p.source {
		s.fail(now, p.hops)
		s.planAt = now
		n.plan(now, s)
	}
	n.nextSession = min(n.nextSession, now)
}

// leave waits until the node is asked to stop, and then for those who use it, or for its end by other means.
func (n *Node) leave(asked, ctx context.Context) error {
	select {
	case <-asked.Done():
	case <-ctx.Done():
		return nil
	}
	look := time.NewTicker(leaveLook)
	defer look.Stop()
	until := link.Now() + leaveMost
	for link.Now() < until {
		done := false
		if err := n.do(ctx, func(now time.Duration) { done = n.core.Leave(now) }); err != nil || done {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
