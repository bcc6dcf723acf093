package node

import (
	"slices"
	"time"

	"skywire/mesh/link"
	"skywire/mesh/wire"
)

// The size of a path's datagrams after its setup (RFC 8899, "DPLPMTUD"). The setup says what the links of a path carried
// at that moment; afterwards relays report what does not fit (EventTooBig), and the ends find out by sealed probes: while
// data flows a probe of the size in force is due now and then. Where it vanishes and small frames pass, the path is a black
// hole for big ones: down to the base, and search. Where the size is below what the first link carries, a search looks
// from time to time whether the path has become wider.
//
//	settled ──raise timer──► search ──nothing more passes──► settled
//	   └──confirm──► lost sizeTries times ──► base ──► search
//
// The size in force is the source's own business, and the far end's for what that sends; a path of one link leaves it to the
// link, whose probes see the wire.
const (
	baseMTU     = 1232                   // of frames: what IPv6 carries everywhere (1,280 less IP and UDP)
	sizeTries   = 3                      // MAX_PROBES of RFC 8899
	sizeRetry   = 200 * time.Millisecond // or 3 RTT
	sizeConfirm = 5 * time.Second        // of the size in force, while data flows …
	sizeDoubt   = time.Second            // … and where data or reports stay away
	raiseFirst  = 30 * time.Second       // until the first look for more, doubling to
	raiseLast   = 10 * time.Minute       // PMTU_RAISE_TIMER
)

// sizer finds the size of a path.
type sizer struct {
	ceiling int // of the first link at the last look

	size  int // of the probe that is out; 0: none
	id    uint32
	tries int
	sent  time.Duration
	began time.Duration // when the first try of this size went out

	search      bool
	least, most int // of a search: what passes, and the largest that may
	named       int // a size worth a try beside the usual ones: a relay named it, or it was in force
	was         int // in force when the search began

	confirmAt, raiseAt time.Duration
	pause              time.Duration // of the raise timer
}

// sizeIDs marks the ids of size probes: their loss says nothing of whether a path is alive.
const sizeIDs = 1 << 31

// tickSize drives the search for the size of a path that carries data.
func (n *Core) tickSize(now time.Duration, p *path) {
	z := &p.sizer
	if p.state != pathUsable || !p.source && p.sess.active != p {
		z.size, z.search = 0, false
		return
	}
	ceiling := p.first.link.MTU()
	if z.ceiling != 0 && ceiling > z.ceiling {
		z.raiseAt = now // the wire beside us has become wider: others may have
	}
	z.ceiling = ceiling
	if z.size != 0 {
		if now-z.sent >= max(sizeRetry, 3*p.probe.srtt) {
			n.sizeUnanswered(now, p)
		}
		return
	}
	if now-p.dataAt >= busyFor {
		return
	}
	switch {
	case z.pause == 0:
		z.settle(now, p, true)
	case p.mtu < ceiling && now >= z.raiseAt && p.slow() && len(p.hops) == 2:
		n.setPathMTU(p, ceiling) // the link has just tried it
		z.settle(now, p, true)
	case p.mtu < ceiling && now >= z.raiseAt:
		z.search, z.least, z.most, z.named, z.was = true, p.mtu, ceiling, 0, p.mtu
		n.trySize(now, p, ceiling)
	case now >= z.confirmAt:
		n.trySize(now, p, p.mtu)
	}
}

// settle ends a search or a check. news: the size is another one, or may soon be.
func (z *sizer) settle(now time.Duration, p *path, news bool) {
	z.size, z.search = 0, false
	z.confirmAt = now + p.confirmEvery()
	z.pause = min(2*z.pause, raiseLast)
	if news || z.pause == 0 {
		z.pause = raiseFirst
	}
	z.raiseAt = now + z.pause
}

// doubtSize asks for a probe of the size in force soon: something that was sent seems not to have arrived.
func (p *path) doubtSize(now time.Duration) {
	z := &p.sizer
	if p.slow() {
		return // it is late or lost, as much is there
	}
	z.confirmAt = min(z.confirmAt, max(now, z.confirmAt-sizeConfirm+sizeDoubt))
}

func (n *Core) trySize(now time.Duration, p *path, size int) {
	z := &p.sizer
	z.size, z.tries, z.began = size, 0, now
	n.sendSize(now, p)
}

func (n *Core) sendSize(now time.Duration, p *path) {
	z := &p.sizer
	z.tries++
	z.sent = now
	z.id = (z.id+1)%sizeIDs | sizeIDs
	p.control++
	n.ctl = wire.ProbeFor(z.id, z.size).Append(n.ctl[:0])
	_ = n.worker.Probe(now, p.fp, n.ctl) // what the first link refuses is a size that does not pass
}

// sizeAnswered takes the answer to a size probe; false if it is none.
func (n *Core) sizeAnswered(now time.Duration, p *path, f wire.ProbeAck) bool {
	z := &p.sizer
	if f.ID < sizeIDs {
		return false
	}
	if f.ID != z.id || int(f.Size) != z.size {
		return true
	}
	if !z.search {
		z.size, z.confirmAt = 0, now+p.confirmEvery()
		return true
	}
	z.least = z.size
	n.setPathMTU(p, z.least)
	n.nextSize(now, p)
	return true
}

// sizeUnanswered repeats a probe, or takes its size for one that does not pass.
func (n *Core) sizeUnanswered(now time.Duration, p *path) {
	z := &p.sizer
	switch {
	case z.tries < p.sizeTries():
		n.sendSize(now, p)
	case p.lastReceived() <= z.began:
		z.size, z.search, z.confirmAt = 0, false, now+sizeDoubt // nothing at all comes back: that is not about size
	case z.search:
		if z.most = z.size - 1; z.most < p.mtu {
			n.setPathMTU(p, z.least)
		}
		n.nextSize(now, p)
	default:
		n.blackHole(now, p)
	}
}

// nextSize goes on with a search, in halves of what is left of the usual sizes.
func (n *Core) nextSize(now time.Duration, p *path) {
	z := &p.sizer
	var left []int
	for _, s := range append(link.Sizes(), z.named) {
		if s > z.least && s <= z.most {
			left = append(left, s)
		}
	}
	if len(left) > 0 {
		slices.Sort(left)
		n.trySize(now, p, left[len(left)/2])
		return
	}
	if p.mtu != z.was {
		n.log.Info("path carries another size", "path", p.String(), "mtu", p.mtu)
	}
	z.settle(now, p, p.mtu != z.was)
}

// blackHole lowers the size of a path on which big frames vanish, and looks for what passes.
func (n *Core) blackHole(now time.Duration, p *path) {
	z := &p.sizer
	was := z.size
	if was <= minPathMTU {
		z.settle(now, p, true) // nothing smaller is of use
		return
	}
	base := baseMTU
	if was <= base {
		base = minPathMTU
	}
	n.log.Warn("path swallows big frames", "path", p.String(), "bytes", was, "mtu", base)
	if len(p.hops) == 2 {
		z.settle(now, p, true)
		n.links.Refused(now, p.first.link, was) // the wire itself has shrunk: its own probes find out to what
		return
	}
	n.setPathMTU(p, base)
	z.search, z.least, z.most, z.named, z.was = true, minPathMTU, was, was, was
	n.trySize(now, p, base)
}

// sizeEvent takes a relay's word of the largest frame that fits behind it. Whether that is so, probes find out later.
func (n *Core) sizeEvent(now time.Duration, p *path, most int) {
	z := &p.sizer
	switch {
	case most < minPathMTU:
	case most < p.mtu:
		n.setPathMTU(p, most)
		n.log.Info("path carries another size", "path", p.String(), "mtu", most)
		z.settle(now, p, true)
	case z.search && most < z.size:
		z.most, z.named = most, most
		n.nextSize(now, p)
	}
}

func (n *Core) setPathMTU(p *path, mtu int) {
	p.mtu = min(mtu, p.first.link.MTU())
	p.fp.SetMTU(p.mtu)
}
