package node

import (
	"slices"
	"time"

	"skywire/mesh/wire"
)

// prober sends sealed probes and measures the path.
type prober struct {
	id   uint32
	sent time.Duration // of the one that is out; 0: none
	lost int
	srtt time.Duration
	last time.Duration // when the last one was answered
}

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
	n.pathLost(now, p, "data does not arrive")
	for i := range s.failed {
		if slices.Equal(s.failed[i].hops, p.hops) {
			s.failed[i].until = now + swallowPause
		}
	}
	return true
}

// report tells the far end what arrived, while something arrives.
func (n *Core) report(now time.Duration, p *path) {
	if p.dataRx == p.reported || now < p.reportAt {
		return
	}
	p.reported, p.reportAt = p.dataRx, now+reportEvery
	f := wire.Report{Path: p.number}
	for _, l := range p.fp.Stats().In {
		f.Lanes = append(f.Lanes, wire.LaneReport{Highest: l.Highest, Frames: l.Received + l.Streams})
	}
	n.control(now, p, f)
}

// receiveReport learns how much of what we send arrives: of the counters passed since the last report, how many came. The
// stream lane is left out, its pre-sealed frames move no counter at the end.
func (n *Core) receiveReport(at time.Duration, p *path, f wire.Report) {
	p.delivered = 0
	for _, l := range f.Lanes {
		p.delivered += l.Frames
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
}

// tickProbe watches a path: its source always, the other end while it sends on it. Detection rides on data: while data
// flows something must come back (data or REPORTs); if nothing does, a sealed probe is sent, and suspectAfter unanswered
// ones make the path suspect.
func (n *Core) tickProbe(now time.Duration, p *path) {
	r := &p.probe
	wait := max(probeRetry, 2*r.srtt)
	if p.state == pathSuspected || p.state == pathProving {
		wait = max(4*probeRetry, 3*r.srtt) << min(r.lost, 3)
	}
	if r.sent != 0 {
		if p.lastReceived() > r.sent && p.state == pathUsable {
			r.sent, r.lost = 0, 0 // something came back: alive, only the answer is late
			return
		}
		if now-r.sent < wait {
			return
		}
		r.lost++
		switch {
		case p.state == pathUsable && r.lost >= suspectAfter:
			n.pathSuspect(now, p, "probes unanswered")
		case p.state != pathUsable && r.lost >= 5:
			n.pathLost(now, p, "probes unanswered")
			return
		}
		if p.state == pathProving {
			n.prove(now, p)
		} else {
			n.sendProbe(now, p)
		}
		return
	}
	busy := now-p.dataAt < busyFor
	silent := now - p.lastReceived()
	every := standbyKeep
	if p.sess.active == p {
		every = 10 * time.Second
	}
	if busy {
		every = time.Second
	}
	quiet := 2 * reportEvery
	if p.rxBurst >= denseBurst {
		quiet = max(denseQuiet, 2*r.srtt)
	}
	if busy && silent > quiet {
		p.doubtSize(now)
	}
	if busy && silent > quiet || now-r.last > every || p.state != pathUsable {
		if now >= p.keepAt {
			p.keepAt = now + quiet
			n.sendProbe(now, p)
		}
	}
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
