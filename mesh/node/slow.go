package node

import (
	"time"

	"skywire/mesh/key"
)

// On a slow line what a node says of its own accord is a good part of what the line carries, or more than all of it, since what an
// answer could not have reached yet is said again. So there intervals follow the round trip. Other lines are as they were.
const (
	// slowTrip is the round trip from which on a path is slow.
	slowTrip = 300 * time.Millisecond
	// slowReports is in how many round trips a report goes out, reportMost the longest pause before it.
	slowReports = 2
	reportMost  = 3 * time.Second
	// slowKeep is after how many round trips a path that carries data is probed, whose reports say that it works.
	slowKeep = 4
	// slowRecord is how long a record holds another one of the same node back, and slowTold of how many nodes that is remembered.
	slowRecord = 15 * time.Second
	slowTold   = 1024
	// slowRetry is the longest pause before something is said again because an answer may still be under way.
	slowRetry = 15 * time.Second
	// slowSize is how much more seldom the size in force is confirmed, and slowTries how often a size is tried: where a third is
	// lost each way half of the probes are unanswered.
	slowSize  = 12
	slowTries = 8
	// poorLoss and poorMost bound the loss of a path whose unanswered probes say little, poorPatience is how much longer it is given.
	poorLoss     = 0.05
	poorMost     = 0.7
	poorPatience = 3
)

func (p *path) slow() bool { return p.probe.srtt >= slowTrip || p.first.link.Slow() }

// trip is the round trip of a path, at least that of a slow first link: what was measured may be of before it became slow. 0: not known.
func (p *path) trip() time.Duration {
	if p.first.link.Slow() {
		return max(p.probe.srtt, p.first.link.RTT(), slowTrip)
	}
	return p.probe.srtt
}

// poor tells whether a path is slow and loses so much that some probes in a row may well be lost.
func (p *path) poor() bool {
	loss := max(p.loss, p.first.link.Loss())
	return p.slow() && loss > poorLoss && loss < poorMost
}

// reportEvery returns the pause between the reports of a path.
func (p *path) reportEvery() time.Duration {
	if p.slow() {
		return min(slowReports*p.trip(), reportMost)
	}
	return reportEvery
}

// confirmEvery returns how often the size in force is confirmed. That of one link is looked at with each new key of it.
func (p *path) confirmEvery() time.Duration {
	switch {
	case !p.slow():
		return sizeConfirm
	case len(p.hops) == 2:
		return raiseLast
	}
	return slowSize * sizeConfirm
}

// sizeTries returns how often a size is tried. A larger one than that in force is only worth a few.
func (p *path) sizeTries() int {
	if p.slow() && p.sizer.size <= p.mtu {
		return slowTries
	}
	return sizeTries
}

// setupTries returns how often a setup is sent. Where the first link is slow the pauses are what an answer takes.
func (p *path) setupTries() int {
	if p.first.link.Slow() {
		return slowTries
	}
	return setupTries
}

// reviveTries returns how many probes of a path in doubt may stay unanswered.
func (p *path) reviveTries() int {
	if p.poor() {
		return 2 * reviveTries
	}
	return reviveTries
}

// retry returns when to repeat what a neighbour has not answered: not before an answer can be here. Where pings are late, too, the
// line may have become slow.
func (b *neighbour) retry(now, least time.Duration) time.Duration {
	trip := b.link.Late(now)
	if b.link.Slow() {
		trip = max(trip, b.link.RTT(), slowTrip)
	}
	if trip < slowTrip {
		return least
	}
	return max(least, min(trip*3/2, slowRetry))
}

// tell notes that a record went to a neighbour. On a slow line the next one of the same node waits for slowRecord: most of them say
// no more than that a measure has changed.
func (b *neighbour) tell(now time.Duration, k key.Public) {
	if !b.link.Slow() {
		return
	}
	if b.told == nil || len(b.told) >= slowTold {
		b.told = map[key.Public]time.Duration{}
	}
	b.told[k] = now
}

// toldUntil returns before when a neighbour should get no other record of a node: it takes the place of one that would be repeated, if
// there is one.
func (b *neighbour) toldUntil(k key.Public, old *pendingRecord) time.Duration {
	at, ok := b.told[k]
	switch {
	case !ok || !b.link.Slow():
		return 0
	case old != nil:
		return min(old.at, at+slowRecord)
	}
	return at + slowRecord
}

// probeAgain is the pause before an unanswered probe is repeated.
func (p *path) probeAgain() time.Duration {
	if p.slow() {
		return max(probeRetry, p.trip())
	}
	return max(probeRetry, p.probe.srtt/2)
}
