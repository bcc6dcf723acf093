package link

import (
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// line makes all wires of a lab take so long, and lose such a share.
func (b *lab) line(delay time.Duration, loss float64) {
	b.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration {
		if b.rand.Float64() < loss {
			return nil
		}
		return []time.Duration{delay}
	}
}

// busy has both ends send data for so long, and hear what the other one sends as far as the wire carries it.
func (b *lab) busy(x, y *box, lasts time.Duration) {
	var send func()
	end := b.now + lasts
	send = func() {
		if b.now >= end {
			return
		}
		for _, d := range [][2]*box{{x, y}, {y, x}} {
			d[0].dataSent++
			d[0].dataTx = b.now
			for _, after := range b.fate(d[0].addr, d[1].addr, nil) {
				b.after(after, func() { d[1].dataGot, d[1].dataRx = d[1].dataGot+1, b.now })
			}
		}
		b.after(400*time.Millisecond, send)
	}
	send()
}

const slowDelay = 500 * time.Millisecond

// slowShare is the most that a link may say itself, in bytes a second with all headers: a seventh of 20 kbit/s.
const slowShare = 350

// TestSlowLine keeps a link over a line of half a second that loses a third for ten minutes, busy and idle: it is never called down and
// says little.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		n, a, b := linked(t, Config{})
		for range seed {
			n.rand.Uint64()
		}
		n.line(slowDelay, 0.3)
		if seed%2 == 0 {
			n.busy(a, b, time.Hour)
		}
		n.run(30 * time.Second)
		said, long := map[netip.AddrPort]int{}, 0
		n.tap = func(from, _ netip.AddrPort, f []byte) {
			said[from] += len(f) + 42
			if len(f) > startMTU {
				long++
			}
		}
		downs := len(a.downs) + len(b.downs)
		const lasts = 10 * time.Minute
		n.run(lasts)
		if len(a.downs)+len(b.downs) > downs || !a.up(b) || !b.up(a) {
			t.Errorf("seed %d: called down by the loss of a third: %v %v", seed, a.downs, b.downs)
		}
		for _, x := range []*box{a, b} {
			if rate := said[x.addr] / int(lasts/time.Second); rate > slowShare {
				t.Errorf("seed %d: %d bytes/s", seed, rate)
			}
		}
		if long > 40 {
			t.Errorf("seed %d: %d long frames", seed, long)
		}
	}
}

// TestBecomesSlow has a link's line turn slow and lossy at once. It comes to terms with that, without filling the line with searches for
// its size: those wait until it is known how long an answer takes.
func TestBecomesSlow(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		n, a, b := linked(t, Config{})
		for range seed {
			n.rand.Uint64()
		}
		n.run(3 * time.Second)
		size, bytes := a.link(b).MTU(), map[netip.AddrPort]int{}
		n.tap = func(from, _ netip.AddrPort, f []byte) { bytes[from] += len(f) + 42 }
		n.line(slowDelay, 0.3)
		n.busy(a, b, time.Hour)
		n.run(20 * time.Second)
		for _, x := range []*box{a, b} {
			if got := bytes[x.addr]; got > 20*slowShare+10_000 {
				t.Errorf("seed %d: %d bytes in the first 20 s", seed, got)
			}
		}
		n.run(40 * time.Second)
		if !a.up(b) || !b.up(a) {
			t.Errorf("seed %d: down after a minute", seed)
			continue
		}
		if !a.link(b).Slow() || !b.link(a).Slow() {
			t.Errorf("seed %d: round trips %v and %v", seed, a.link(b).RTT(), b.link(a).RTT())
		}
		if got := a.link(b).MTU(); got != size {
			t.Errorf("seed %d: size %d, was %d", seed, got, size)
		}
	}
}

// TestDeadLine: what is dead is found as fast as ever where round trips are below 300 ms, and late only where the neighbour is heard,
// but hears nothing, and on slow lines.
func TestDeadLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		delay         time.Duration
		oneWay        bool
		least, within time.Duration
	}{
		{labDelay, false, 0, 2200 * time.Millisecond},
		{100 * time.Millisecond, false, 0, 3200 * time.Millisecond},
		{labDelay, true, 2200 * time.Millisecond, 6500 * time.Millisecond},
		{slowDelay, false, 9 * time.Second, 40 * time.Second},
		{slowDelay, true, 40 * time.Second, 80 * time.Second},
	} {
		n := newLab(t)
		n.line(c.delay, 0)
		a, b := n.add(1, Config{}), n.add(2, Config{})
		a.dial(b, true)
		n.until(30*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
		n.busy(a, b, time.Hour)
		n.run(10 * time.Second)
		n.fate = func(from, _ netip.AddrPort, _ []byte) []time.Duration {
			if from == a.addr || !c.oneWay {
				return nil
			}
			return []time.Duration{c.delay}
		}
		cut := n.now
		n.until(2*time.Minute, "the link is down", func() bool { return len(a.downs) > 0 })
		if took := n.now - cut; took < c.least || took > c.within+time.Second {
			t.Errorf("%v, one way %v: down after %v, want %v to %v and a ping's pause", c.delay, c.oneWay, took, c.least, c.within)
		}
	}
}

// TestSizesTried: all sizes are tried at once up to a round trip of 300 ms, few from there on.
func TestSizesTried(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trip time.Duration
		most int
	}{{10 * time.Millisecond, 16}, {280 * time.Millisecond, 16}, {320 * time.Millisecond, 4}} {
		n := newLab(t)
		n.line(c.trip/2, 0)
		a, b := n.add(1, Config{}), n.add(2, Config{})
		sizes := map[int]bool{}
		n.tap = func(from, _ netip.AddrPort, f []byte) {
			if from == a.addr && typeIs(f, wire.TypeLink) && len(f) >= probeSizes[len(probeSizes)-1] {
				sizes[len(f)] = true
			}
		}
		a.dial(b, true)
		n.run(10 * time.Second)
		if !a.up(b) || a.link(b).MTU() != 1472 || b.link(a).MTU() != 1472 {
			t.Fatalf("%v: size %d", c.trip, a.link(b).MTU())
		}
		if want := min(c.most, len(probeSizes)-1); len(sizes) > want || c.most == 16 && len(sizes) < want { // 8,932 is no size of this link
			t.Errorf("%v: %d sizes tried, want %d", c.trip, len(sizes), want)
		}
	}
}

// TestRaceFindsSize: a link whose INIT went to several addresses knows its size soon, too.
func TestRaceFindsSize(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	if _, err := a.links.Dial(n.now, b.key, []forward.Endpoint{{Addr: addrPort(100)}, {Addr: b.addr}}, true); err != nil {
		t.Fatal(err)
	}
	a.next = n.now
	n.run(3 * time.Second)
	if got := a.link(b).MTU(); got != 1472 {
		t.Errorf("size %d", got)
	}
}

// TestDoubtIsPaced: the trains of frames that ask about an idle link in doubt do not fill a slow line.
func TestDoubtIsPaced(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{labDelay, slowDelay} {
		n, a, b := linked(t, Config{})
		n.line(delay, 0.3)
		n.busy(a, b, 30*time.Second)
		n.run(30 * time.Second)
		bytes, frames, most := 0, 0, 0
		n.tap = func(from, _ netip.AddrPort, f []byte) {
			if from == a.addr {
				bytes, frames = bytes+len(f)+42, frames+1
			}
		}
		for range 2 * 60 {
			bytes = 0
			n.run(time.Second)
			most = max(most, bytes)
		}
		if frames < doubtTrain {
			t.Errorf("%v: %d frames, so there was no train", delay, frames)
		}
		if slow := delay == slowDelay; slow != (most < 3*slowShare) {
			t.Errorf("%v: %d bytes in a second", delay, most)
		}
	}
}
