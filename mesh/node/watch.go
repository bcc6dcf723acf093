package node

import (
	"slices"
	"time"

	"skywire/mesh/wire"
)

// watch is what was sent on a path and reported from its far end at the last look.
type watch struct {
	next      time.Duration
	sent, got uint64
	bad       int
}

// look reads the data plane's counts.
func (p *path) look(now time.Duration) {
	st := p.fp.Stats()
	var tx, rx uint64
	for _, c := range st.Next {
		tx += c
	}
	for _, l := range st.In {
		rx += l.Received + l.Streams
	}
	tx -= min(tx, p.control)
	rx -= min(rx, p.controlRx)
	if tx != p.dataTx || rx > p.dataRx {
		p.dataAt = now
	}
	if rx > p.dataRx {
		p.rxAt, p.rxBurst = now, rx-p.dataRx
	}
	if tx > p.dataTx {
		p.txBurst = tx - p.dataTx
		if p.unconfirmed == 0 {
			p.unconfirmed = now
		}
	}
	p.dataTx, p.dataRx = tx, max(rx, p.dataRx)
}

// Of a path that carries probes and no data: how long it is watched, how much must have been sent, and how long it is
// not tried again.
const (
	swallowLook  = time.Second
	swallowLooks = 2
	swallowLeast = 20
	swallowPause = time.Minute
)

// swallowed leaves a path whose far end reports almost nothing of what we send, though probes come back: a relay drops
// data. Only where there is another path, since the fault may be the far end's own.
func (n *Core) swallowed(now time.Duration, p *path) bool {
	w := &p.watch
	if p.sess.active != p || p.state != pathUsable {
		*w = watch{}
		return false
	}
	if now < w.next {
		return false
	}
	sent, got := p.dataTx-w.sent, p.delivered-min(w.got, p.delivered)
	bad := w.next != 0 && sent >= swallowLeast && got < sent/10
	*w = watch{next: now + swallowLook, sent: p.dataTx, got: p.delivered, bad: w.bad}
	if !bad {
		w.bad = 0
		return false
	}
	if w.bad++; w.bad < swallowLooks {
		return false
	}
	other := slices.ContainsFunc(p.sess.paths, func(o *path) bool { return o != p && o.source && o.state == pathUsable })
	if !other {
		return false
	}
	s := p.sess
	n.log.Warn("path left", "path", p.String(), "reason", "it carries probes but no data")
	s.hold(now, p.hops)
	if t := s.trouble(p.hops); t != nil { // the next one of the same hops answers probes as well
		t.until = max(t.until, now+swallowPause)
	}
	n.pathLost(now, p, "data does not arrive")
	for i := range s.failed {
		if slices.Equal(s.failed[i].hops, p.hops) {
			s.failed[i].until = now + swallowPause
		}
	}
	return true
}

// report tells the far end what arrived, while something arrives: the more, the sooner, since its silence is what a sender notices.
func (n *Core) report(now time.Duration, p *path) {
	every := p.reportEvery()
	if p.dataRx-p.reported >= denseBurst && !p.slow() {
		every = reportDense
	}
	if p.dataRx == p.reported || now < p.reportAt+every {
		return
	}
	p.reported, p.reportAt = p.dataRx, now
	f := wire.Report{Path: p.number}
	for _, l := range p.fp.Stats().In {
		f.Lanes = append(f.Lanes, wire.LaneReport{Highest: l.Highest, Frames: l.Received + l.Streams})
	}
	n.control(now, p, f)
}

// receiveReport learns how much of what we send arrives: of the counters passed since the last report, how many came. The
// stream lane is left out, its pre-sealed frames move no counter at the end.
func (n *Core) receiveReport(at time.Duration, p *path, f wire.Report) {
	had := p.delivered
	p.delivered = 0
	for _, l := range f.Lanes {
		p.delivered += l.Frames
	}
	if p.delivered > had {
		p.confirm(at)
	}
	var now wire.LaneReport
	for _, l := range f.Lanes[:max(len(f.Lanes)-1, 0)] {
		now.Highest += l.Highest
		now.Frames += l.Frames
	}
	passed, came := now.Highest-p.heard.Highest, now.Frames-p.heard.Frames
	if now.Highest < p.heard.Highest || now.Frames < p.heard.Frames || passed < 16 {
		return // too few to tell
	}
	p.heard = now
	if passed > came+passed/4 {
		p.doubtSize(at)
	}
	p.loss += (max(0, 1-float64(came)/float64(passed)) - p.loss) / 8
	if p.grey.add(at, passed, came) {
		n.pathGrey(at, p)
	}
}

// A path that goes on carrying, but loses a good part of what it is given, is left where another one does better: measured
// over greyLook, greyLooks times in a row, so that a burst of losses is not enough.
const (
	greyLook  = 200 * time.Millisecond
	greyLooks = 2
	greyShare = 0.2
)

// grey counts what was lost lately.
type grey struct {
	at           time.Duration
	passed, came uint64
	bad          int
}

// add takes what one report says; true: too much is lost.
func (g *grey) add(now time.Duration, passed, came uint64) bool {
	if g.at == 0 || now-g.at > 10*greyLook { // what lies in between says nothing
		*g = grey{at: now}
		return false
	}
	g.passed += passed
	g.came += came
	if now-g.at < greyLook {
		return false
	}
	if g.bad++; float64(g.came) > float64(g.passed)*(1-greyShare) {
		g.bad = 0
	}
	*g = grey{at: now, bad: g.bad}
	return g.bad >= greyLooks
}

// pathGrey leaves a path that loses much, if another one is at least known to answer.
func (n *Core) pathGrey(now time.Duration, p *path) {
	s := p.sess
	if !s.carries(p) || p.state != pathUsable || s.held(now, p.hops) {
		return
	}
	if !slices.ContainsFunc(s.paths, func(o *path) bool { return o != p && n.rank(now, o) == rankGood }) {
		return
	}
	n.log.Warn("path left", "path", p.String(), "reason", "it loses data")
	n.notePath(EventPathSuspect, p, "it loses data")
	s.hold(now, p.hops)
	n.chooseActive(now, s)
}

func (p *path) lastReceived() time.Duration {
	if p.fp == nil {
		return 0
	}
	return p.fp.Stats().LastReceived
}

func (p *path) lastFrame() time.Duration {
	if p.fp == nil {
		return p.created
	}
	st := p.fp.Stats()
	return max(p.created, st.LastReceived)
}
