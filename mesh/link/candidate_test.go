package link

import (
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/wire"
)

// TestRace dials several addresses of which one answers: the dead ones cost a stagger each, no retry.
func TestRace(t *testing.T) {
	t.Parallel()
	for _, dead := range []int{0, 1, 3, 7} {
		n := newLab(t)
		a, b := n.add(1, Config{}), n.add(2, Config{})
		var eps []forward.Endpoint
		for i := range dead {
			eps = append(eps, forward.Endpoint{Addr: addrPort(byte(100 + i))})
		}
		eps = append(eps, forward.Endpoint{Addr: b.addr})
		begun := n.now
		if _, err := a.links.Dial(n.now, b.key, eps, true); err != nil {
			t.Fatal(err)
		}
		a.next = n.now
		n.until(2*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
		if took, want := n.now-begun, time.Duration(dead)*raceStagger+4*labDelay; took > want {
			t.Errorf("%d dead addresses: up after %v, want at most %v", dead, took, want)
		}
		if got := a.link(b).Endpoint().Addr; got != b.addr {
			t.Errorf("endpoint %v, want %v", got, b.addr)
		}
		n.run(time.Second)
		checkData(t, n, a, b)
	}
}

// TestRaceOfLosers has the way that is asked first lose all answers: the next round begins with another one.
func TestRaceOfLosers(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	lame := forward.Endpoint{Addr: addrPort(77), Socket: forward.FirstTCP}
	b.also(lame.Addr, forward.FirstTCP+1)
	a.also(addrPort(78), lame.Socket)
	n.fate = func(from, _ netip.AddrPort, _ []byte) []time.Duration {
		if from == lame.Addr {
			return nil
		}
		return []time.Duration{labDelay}
	}
	if _, err := a.links.Dial(n.now, b.key, []forward.Endpoint{lame, {Addr: b.addr}}, true); err != nil {
		t.Fatal(err)
	}
	a.next = n.now
	n.until(3*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
}

// TestRaceIsNoAmplifier: of the address that an answer came from, and of no other, it is known only after a ping that the
// neighbour is there. Until then it gets little.
func TestRaceIsNoAmplifier(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	victim := addrPort(99)
	sent := 0
	n.tap = func(_, to netip.AddrPort, f []byte) {
		if to == victim && !typeIs(f, wire.TypeInit) {
			sent += len(f)
		}
	}
	n.fate = func(_, to netip.AddrPort, f []byte) []time.Duration {
		if typeIs(f, wire.TypeResp) {
			n.after(labDelay, func() { a.inject(victim, f) })
			return nil
		}
		return []time.Duration{labDelay}
	}
	if _, err := a.links.Dial(n.now, b.key, []forward.Endpoint{{Addr: victim}, {Addr: b.addr}}, true); err != nil {
		t.Fatal(err)
	}
	a.next = n.now
	n.run(3 * time.Second)
	if sent > 2000 {
		t.Errorf("%d bytes sent to an address that never answered", sent)
	}
}

// TestBurst makes a link by one INIT to each of several addresses, and forgets it where nobody answers.
func TestBurst(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b, c := n.add(1, Config{}), n.add(2, Config{}), n.add(3, Config{})
	if err := a.links.Burst(n.now, b.key, []forward.Endpoint{{Addr: addrPort(98)}, {Addr: b.addr}}); err != nil {
		t.Fatal(err)
	}
	if err := a.links.Burst(n.now, c.key, []forward.Endpoint{{Addr: addrPort(98)}, {Addr: addrPort(97)}}); err != nil {
		t.Fatal(err)
	}
	a.next = n.now
	n.until(4*labDelay, "link up", func() bool { return a.up(b) && b.up(a) })
	n.until(5*time.Second, "the other one forgotten", func() bool { return a.link(c) == nil })
}

// ways makes a link between a and b, who have another way between them of some carrier, which is returned as a names it.
// cut and slow say what the network does to what goes by either.
type ways struct {
	*lab
	a, b  *box
	other forward.Endpoint
	delay [2]time.Duration // of the first way and the other one; 0: all is lost
}

func newWays(t *testing.T, first uint16) *ways {
	t.Helper()
	n := newLab(t)
	w := &ways{lab: n, a: n.add(1, Config{}), b: n.add(2, Config{}), delay: [2]time.Duration{labDelay, labDelay}}
	w.other = forward.Endpoint{Addr: addrPort(52), Socket: first + 3}
	w.a.also(addrPort(51), w.other.Socket)
	w.b.also(w.other.Addr, first+9)
	n.fate = func(from, to netip.AddrPort, _ []byte) []time.Duration {
		d := w.delay[0]
		if from == w.other.Addr || to == w.other.Addr {
			d = w.delay[1]
		}
		if d == 0 {
			return nil
		}
		return []time.Duration{d}
	}
	return w
}

// up dials b at some of the ways.
func (w *ways) up(eps ...forward.Endpoint) {
	w.t.Helper()
	if _, err := w.a.links.Dial(w.now, w.b.key, eps, true); err != nil {
		w.t.Fatal(err)
	}
	w.a.next = w.now
	w.until(time.Second, "link up", func() bool { return w.a.up(w.b) && w.b.up(w.a) })
}

// flow has a send data for a while, which b answers as long as there is a way.
func (w *ways) flow(d time.Duration) {
	for end := w.now + d; w.now < end; w.run(10 * time.Millisecond) {
		w.a.dataTx = w.now
		way := 0
		if w.a.link(w.b).Endpoint() == w.other {
			way = 1
		}
		if w.delay[way] != 0 {
			w.a.dataRx, w.b.dataRx = w.now, w.now
		}
	}
}

func (w *ways) still() {
	w.t.Helper()
	if len(w.a.downs)+len(w.b.downs) > 0 {
		w.t.Errorf("went down: %v %v", w.a.downs, w.b.downs)
	}
	checkData(w.t, w.lab, w.a, w.b)
}

// udpSocket is a second UDP socket.
const udpSocket = 100

// TestProbeMoves asks at another address of the neighbour: the link moves there if that is better, and only then.
func TestProbeMoves(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		delays [2]time.Duration
		moves  bool
	}{
		{"faster", [2]time.Duration{20 * time.Millisecond, 5 * time.Millisecond}, true},
		{"slower", [2]time.Duration{5 * time.Millisecond, 20 * time.Millisecond}, false},
		{"as fast", [2]time.Duration{20 * time.Millisecond, 20 * time.Millisecond}, false},
		{"hardly faster", [2]time.Duration{20 * time.Millisecond, 19 * time.Millisecond}, false},
		{"dead", [2]time.Duration{20 * time.Millisecond, 0}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWays(t, udpSocket)
			w.delay = c.delays
			w.up(forward.Endpoint{Addr: w.b.addr})
			w.run(20 * time.Second) // until the round trip is known
			w.a.links.Probe(w.now, w.a.link(w.b), []forward.Endpoint{w.other})
			w.run(5 * time.Second)
			if got := w.a.link(w.b).Endpoint() == w.other; got != c.moves {
				t.Errorf("moved: %v, want %v", got, c.moves)
			}
			w.run(40 * time.Second)
			if got := w.a.link(w.b).Endpoint() == w.other; got != c.moves {
				t.Errorf("moved later: %v, want %v", got, c.moves)
			}
			w.still()
		})
	}
}

// TestFallsBack cuts the way of a link that knows another one, while data flows and on an idle link: it moves without going
// down.
func TestFallsBack(t *testing.T) {
	t.Parallel()
	for _, first := range []uint16{udpSocket, forward.FirstTCP, forward.FirstWSS} {
		w := newWays(t, first)
		w.up(forward.Endpoint{Addr: w.b.addr}, w.other)
		w.flow(5 * time.Second)
		w.delay[0] = 0
		begun := w.now
		for w.a.link(w.b).Endpoint() != w.other && w.now-begun < 3*time.Second {
			w.flow(10 * time.Millisecond)
		}
		took := w.now - begun
		w.until(time.Second, "the neighbour follows", func() bool { return CarrierOf(w.b.link(w.a).Endpoint()) == CarrierOf(w.other) })
		t.Logf("%v: moved after %v, the neighbour after %v", CarrierOf(w.other), took, w.now-begun)
		if took > 1200*time.Millisecond {
			t.Errorf("moved after %v", took)
		}
		w.run(20 * time.Second)
		w.still()
	}
}

// TestLost ends the stream under a link: it moves at once, not after pings; an answer to an earlier one may hold it up a little.
func TestLost(t *testing.T) {
	t.Parallel()
	w := newWays(t, forward.FirstTCP)
	w.delay[0] = 0
	udp := forward.Endpoint{Addr: w.b.addr}
	w.up(udp, w.other)
	w.delay[0] = labDelay
	w.run(100 * time.Millisecond)
	if got := w.a.link(w.b).Endpoint(); got != w.other {
		t.Fatalf("endpoint %v, want the stream's", got)
	}
	w.delay[1] = 0
	begun := w.now
	w.a.links.Lost(w.now, w.other, false)
	w.a.next = w.now
	w.until(time.Second, "over udp", func() bool { return w.a.link(w.b).Endpoint() == udp })
	if took := w.now - begun; took > 300*time.Millisecond {
		t.Errorf("moved after %v", took)
	}
	w.run(10 * time.Second)
	w.still()
}

// TestCarriers: a link that began over TCP goes over to UDP when that works, and back when UDP is cut; an attempt of UDP
// that fails costs it nothing.
func TestCarriers(t *testing.T) {
	t.Parallel()
	w := newWays(t, forward.FirstTCP)
	w.delay[0] = 0
	udp := forward.Endpoint{Addr: w.b.addr}
	begun := w.now
	w.up(udp, w.other)
	t.Logf("up after %v", w.now-begun)
	w.run(30 * time.Second)
	if got := w.a.link(w.b).Endpoint(); got != w.other {
		t.Fatalf("endpoint %v, want the stream's", got)
	}
	w.delay[0] = labDelay
	w.until(upgradeMax+5*time.Second, "over udp", func() bool { return w.a.link(w.b).Endpoint() == udp })
	w.until(2*time.Second, "the neighbour too", func() bool { return CarrierOf(w.b.link(w.a).Endpoint()) == UDP })
	w.run(10 * time.Second)
	if got := w.a.link(w.b).Endpoint(); got != udp {
		t.Errorf("endpoint %v, want %v", got, udp)
	}
	w.delay[0] = 0
	w.until(12*time.Second, "over tcp again", func() bool { return w.a.link(w.b).Endpoint() == w.other })
	w.until(2*time.Second, "the neighbour too", func() bool { return CarrierOf(w.b.link(w.a).Endpoint()) == TCP })
	w.run(2 * time.Minute)
	if got := w.a.link(w.b).Endpoint(); got != w.other {
		t.Errorf("endpoint %v, want the stream's", got)
	}
	w.still()
}

// TestFlappingUDP lets UDP pass for a second in each ten: the link does not go along each time.
func TestFlappingUDP(t *testing.T) {
	t.Parallel()
	w := newWays(t, forward.FirstTCP)
	udp := forward.Endpoint{Addr: w.b.addr}
	w.up(udp, w.other)
	moves, last := 0, w.a.link(w.b).Endpoint()
	for range 60 {
		for _, d := range []time.Duration{0, labDelay} {
			w.delay[0] = d
			for range 10 + 80*int(1-d/labDelay) {
				w.flow(100 * time.Millisecond)
				if e := w.a.link(w.b).Endpoint(); e != last {
					moves, last = moves+1, e
				}
			}
		}
	}
	t.Logf("%d moves in ten minutes", moves)
	if moves > 20 {
		t.Errorf("%d moves", moves)
	}
	w.still()
}
