package node

import (
	"time"

	"skywire/mesh/wire"
)

// Detection rides on data. While data flows, its receiver reports it each 20 to 50 ms, and a sender that hears no more reports
// begins to probe; so does a receiver of dense data that stops. A path whose probes stay unanswered is suspect, and traffic
// leaves it. How soon depends on what the other paths of the session answer meanwhile:
//
//	data ──no report, or silence──► probes each 40 ms ──another path answers──────► suspect after 80 ms or 1.5 RTT
//	                                     │            ──there is no other path────► suspect after 120 ms or 2 RTT
//	                                     │            ──the others are silent too─► suspect after 400 ms or 4 RTT:
//	                                     └─ answered: no more than that             the far end may just be busy

// Times of finding out, beside those of core.go.
const (
	reportDense = 20 * time.Millisecond  // between REPORTs where denseBurst frames came since the last
	rttUnknown  = 200 * time.Millisecond // of a path that was not measured yet
	busyKeep    = 2 * time.Second        // of a standby whose session carries data: it may be needed any moment
	heldKeep    = 250 * time.Millisecond // of one that was in trouble lately
)

// doubt is why a path is being probed.
type doubt uint8

const (
	doubtNone doubt = iota
	doubtKeep       // nothing is wrong: it is time
	doubtRx         // dense data stopped coming
	doubtTx         // what we send is not reported
)

// recentProbes is how many probes may be out at once.
const recentProbes = 16

// reviveTries is how many probes of a path in doubt may stay unanswered before it is lost.
const reviveTries = 5

// prober sends sealed probes, measures the path, and tells when it is broken.
type prober struct {
	id    uint32                      // of the last probe
	at    [recentProbes]time.Duration // when probes went out, by id; 0: answered
	first time.Duration               // when the first unanswered one went out; 0: none is out
	sent  time.Duration               // of the last one
	lost  int                         // unanswered in a row
	why   doubt
	srtt  time.Duration
	last  time.Duration // when one was last answered
}

// begin notes that a probe goes out.
func (r *prober) begin(now time.Duration, why doubt) {
	if r.first == 0 {
		r.first, r.lost = now, 0
	}
	r.why = max(r.why, why)
}

func (r *prober) clear() { r.first, r.lost, r.why = 0, 0, doubtNone }

// confirm notes that the far end told of what we sent: the path works in both directions.
func (p *path) confirm(now time.Duration) {
	p.confirmed, p.unconfirmed = now, 0
	if p.state == pathUsable {
		p.probe.clear()
	}
}

// tickProbe watches a path: its source always, the other end while it sends on it or is in doubt.
func (n *Core) tickProbe(now time.Duration, p *path) {
	if p.state != pathUsable {
		n.tickRevive(now, p)
		return
	}
	r := &p.probe
	if r.first != 0 && r.why != doubtTx && p.lastReceived() > r.first {
		r.clear() // something came: alive, only the answer is late
	}
	why := p.doubts(now)
	if r.first == 0 {
		if why != doubtNone {
			n.probe(now, p, why)
		}
		return
	}
	r.why = max(r.why, why)
	if now-r.sent < p.probeAgain() {
		return
	}
	r.lost++
	p.sess.shakes(now, p.hops)
	if now-r.first >= n.patience(p) {
		n.pathSuspect(now, p, "probes unanswered")
		return
	}
	for _, o := range p.sess.paths {
		if o != p && o.state == pathUsable && o.probe.first == 0 && o.confirmed < r.first {
			n.probe(now, o, doubtKeep) // does it do better?
		}
	}
	n.probe(now, p, why)
}

// patience is how long probes of a path may stay unanswered.
func (n *Core) patience(p *path) time.Duration {
	if p.poor() {
		return poorPatience * n.usualPatience(p)
	}
	return n.usualPatience(p)
}

func (n *Core) usualPatience(p *path) time.Duration {
	r := &p.probe
	rtt := p.trip()
	if rtt == 0 {
		rtt = rttUnknown
	}
	others := false
	for _, o := range p.sess.paths {
		if o == p || o.state != pathUsable {
			continue
		}
		if o.confirmed >= r.first {
			return max(2*probeRetry, rtt+rtt/2+probeRetry)
		}
		others = true
	}
	if others {
		return max(10*probeRetry, 4*rtt)
	}
	return max(suspectAfter*probeRetry, 2*rtt+probeRetry)
}

// doubts says whether a path that counts as usable should be probed.
func (p *path) doubts(now time.Duration) doubt {
	r := &p.probe
	busy := now-p.dataAt < busyFor
	if busy && now >= p.keepAt {
		quiet := 2*p.reportEvery() + p.trip()
		if p.txBurst >= denseBurst && !p.slow() {
			quiet = 3 * reportDense
		}
		if p.unconfirmed != 0 && now-p.unconfirmed > quiet {
			p.doubtSize(now)
			p.keepAt = now + quiet
			return doubtTx
		}
		if p.rxBurst >= denseBurst && !p.slow() && now-p.rxAt > denseQuiet && p.rxDoubted != p.rxAt {
			p.rxDoubted, p.keepAt = p.rxAt, now+denseQuiet // once for each silence: a flow may just have ended
			return doubtRx
		}
	}
	if now-max(r.last, r.sent) > p.keepEvery(now, busy) {
		return doubtKeep
	}
	return doubtNone
}

// keepEvery is how often a path is probed that nobody doubts.
func (p *path) keepEvery(now time.Duration, busy bool) time.Duration {
	wanted := now-p.sess.wantedAt < busyFor
	switch {
	case p.slow() && (busy || p.sess.held(now, p.hops) && wanted):
		return max(time.Second, slowKeep*p.trip())
	case p.sess.held(now, p.hops) && wanted:
		return heldKeep
	case busy:
		return time.Second
	case p.sess.active == p:
		return 10 * time.Second
	case wanted:
		return busyKeep
	}
	return standbyKeep
}

// tickRevive repeats the proof of a new path and the probes of a suspected one, until it answers or is lost.
func (n *Core) tickRevive(now time.Duration, p *path) {
	r := &p.probe
	if r.first != 0 {
		if now-r.sent < max(4*probeRetry, 3*p.trip())<<min(r.lost, 3) {
			return
		}
		if r.lost++; r.lost >= p.reviveTries() {
			n.pathLost(now, p, "probes unanswered")
			return
		}
	}
	if p.state == pathProving {
		n.prove(now, p)
	} else {
		n.probe(now, p, doubtKeep)
	}
}

// leastProbe is the size of a probe that asks for nothing but an answer.
const leastProbe = wire.SealedOverhead + 8

func (n *Core) probe(now time.Duration, p *path, why doubt) {
	n.control(now, p, wire.ProbeFor(p.probe.next(now, why), leastProbe))
}

// next returns the id of a probe that goes out now.
func (r *prober) next(now time.Duration, why doubt) uint32 {
	r.begin(now, why)
	r.id = (r.id + 1) % sizeIDs
	r.sent = now
	r.at[r.id%recentProbes] = now
	return r.id
}

// prove asks for the sealed round trip that opens a path for use.
func (n *Core) prove(now time.Duration, p *path) {
	p.probe.next(now, doubtKeep)
	n.control(now, p, wire.Proof{ID: p.id})
}

func (n *Core) receiveProof(now time.Duration, p *path, f wire.Proof) {
	if !f.Answer {
		n.control(now, p, wire.Proof{Answer: true, ID: p.id})
		return
	}
	if p.state == pathProving {
		n.probeAnswered(now, p, p.probe.id)
	}
}

// probeAnswered takes the answer to one of the last probes.
func (n *Core) probeAnswered(now time.Duration, p *path, id uint32) {
	r := &p.probe
	at := &r.at[id%recentProbes]
	if r.id-id >= recentProbes || *at == 0 {
		return
	}
	rtt := now - *at
	*at = 0
	if p.first.link.Slow() {
		rtt = max(rtt, p.first.link.RTT()) // the answer to a proof may be one to an earlier try
	}
	if r.srtt == 0 || r.srtt < slowTrip && rtt >= slowTrip && p.first.link.Slow() { // the line has become another one
		r.srtt = rtt
	} else {
		r.srtt += (rtt - r.srtt) / 4
	}
	r.last = now
	was := p.state
	if was == pathProving || was == pathSuspected {
		p.state = pathUsable
	}
	p.confirm(now)
	switch was {
	case pathProving:
		n.log.Info("path ready", "path", p.String(), "rtt_ms", rtt.Milliseconds())
		n.notePath(EventPathReady, p, "")
		fallthrough
	case pathSuspected:
		n.chooseActive(now, p.sess)
	}
}
