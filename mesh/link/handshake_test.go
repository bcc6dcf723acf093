package link

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

func TestHandshake(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	checkData(t, n, a, b)
	if a.ups != 1 || b.ups != 1 || len(a.downs)+len(b.downs) != 0 {
		t.Errorf("up %d and %d times, down %v %v; want once each", a.ups, b.ups, a.downs, b.downs)
	}
	if got := a.link(b).MTU(); got != 1472 {
		t.Errorf("MTU %d, want 1472", got)
	}
	n.run(5 * time.Minute)
	checkData(t, n, a, b)
	if a.ups != 1 || b.ups != 1 {
		t.Errorf("up %d and %d times after five minutes, want once", a.ups, b.ups)
	}
	if rtt := a.link(b).RTT(); rtt != 2*labDelay {
		t.Errorf("rtt %v, want %v", rtt, 2*labDelay)
	}
}

// TestBothAtOnce dials from both ends at all offsets around the round trip: both must settle on one key and one label,
// also after the overlap of replaced hop keys has passed.
func TestBothAtOnce(t *testing.T) {
	t.Parallel()
	for offset := -12 * time.Millisecond; offset <= 12*time.Millisecond; offset += time.Millisecond {
		t.Run(offset.String(), func(t *testing.T) {
			t.Parallel()
			n := newLab(t)
			a, b := n.add(1, Config{}), n.add(2, Config{})
			first, second := a, b
			if offset < 0 {
				first, second = b, a
			}
			first.dial(second, true)
			n.run(offset.Abs())
			if !second.up(first) {
				second.dial(first, true)
			}
			n.until(time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
			inits := 0
			n.tap = func(_, _ netip.AddrPort, f []byte) {
				if typeIs(f, wire.TypeInit) || typeIs(f, wire.TypeHint) {
					inits++
				}
			}
			for range 30 {
				n.run(time.Second)
				checkData(t, n, a, b)
				if t.Failed() {
					t.Fatalf("%v after the start", n.now)
				}
			}
			if inits > 1 {
				t.Errorf("%d INITs and HINTs after the link was up, want none", inits)
			}
			if len(a.downs)+len(b.downs) != 0 {
				t.Errorf("went down: %v %v", a.downs, b.downs)
			}
		})
	}
}

// TestBadWire loses, doubles and reorders: the link must come up all the same, and stay usable.
func TestBadWire(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		loss   float64
		twice  float64
		jitter time.Duration
	}{
		{"loss", 0.4, 0, 0}, {"double", 0, 1, 0}, {"reorder", 0, 0, 40 * time.Millisecond}, {"all", 0.3, 0.5, 40 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newLab(t)
			n.fate = func(netip.AddrPort, netip.AddrPort, []byte) (d []time.Duration) {
				for range 2 {
					if n.rand.Float64() >= c.loss {
						d = append(d, labDelay+time.Duration(n.rand.Int64N(int64(c.jitter)+1)))
					}
					if n.rand.Float64() >= c.twice {
						break
					}
				}
				return d
			}
			a, b := n.add(1, Config{Timers: Timers{Rekey: 20 * time.Second}}), n.add(2, Config{Timers: Timers{Rekey: 20 * time.Second}})
			a.dial(b, true)
			b.dial(a, true)
			n.until(30*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
			up := 0
			for range 240 {
				n.run(500 * time.Millisecond)
				if a.up(b) && b.up(a) {
					up++
				}
			}
			if up < 200 {
				t.Errorf("up in %d of 240 looks; down because %v %v", up, a.downs, b.downs)
			}
			n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration { return []time.Duration{labDelay} }
			n.run(15 * time.Second)
			checkData(t, n, a, b)
		})
	}
}

// forgedInit is an INIT with a right mac1 and nothing else that is right.
func forgedInit(t testing.TB, n *lab, to *box) []byte {
	t.Helper()
	noise := make([]byte, wire.Noise1Len)
	for i := range noise {
		noise[i] = byte(n.rand.Uint32())
	}
	return session.NewJar(to.key).Init(n.now, n.rand.Uint32(), noise)
}

// TestCookies floods a node with forged INITs from forged addresses: nothing grows, and a peer that can receive at its
// address gets in all the same.
func TestCookies(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	flood := true
	var pour func()
	in := 0
	pour = func() {
		for range 3 {
			f := forgedInit(t, n, b)
			in += len(f)
			b.inject(netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, byte(n.rand.Uint32()), byte(n.rand.Uint32()), byte(n.rand.Uint32())}), 9), f)
		}
		if flood {
			n.after(time.Millisecond, pour)
		}
	}
	n.after(0, pour)
	n.run(500 * time.Millisecond)
	cookies := 0
	n.tap = func(from, to netip.AddrPort, f []byte) {
		if typeIs(f, wire.TypeCookie) && to == a.addr {
			cookies++
		}
	}
	a.dial(b, true)
	n.until(15*time.Second, "an honest peer gets in", func() bool { return a.up(b) && b.up(a) })
	n.run(4 * time.Second)
	flood = false
	if cookies == 0 {
		t.Error("came in without a cookie, so the flood was none")
	}
	if in < 10_000*wire.InitLen {
		t.Errorf("a flood of only %d INITs", in/wire.InitLen)
	}
	if b.bytesOut > in {
		t.Errorf("%d bytes out for %d in", b.bytesOut, in)
	}
	if got := len(b.links.byLabel); got > 3 {
		t.Errorf("%d labels after the flood, want those of one link", got)
	}
	if got := b.links.gate.Len(); got > 8 {
		t.Errorf("%d handshakes pending, want few", got)
	}
	n.run(10 * time.Second)
	if !a.up(b) || !b.up(a) {
		t.Error("the link did not stay up")
	}
}

// TestReplayedInits delivers true old INITs 100,000 times to a node that talks with their sender (E7).
func TestReplayedInits(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	var old [][]byte
	n.tap = func(_, _ netip.AddrPort, f []byte) {
		if typeIs(f, wire.TypeInit) {
			old = append(old, f)
		}
	}
	a, b := n.add(1, Config{}), n.add(2, Config{})
	n.fate = func(_, _ netip.AddrPort, f []byte) []time.Duration {
		if len(old) < 5 && typeIs(f, wire.TypeInit) {
			return nil // b has not seen these: its memory of ephemerals does not help
		}
		return []time.Duration{labDelay}
	}
	a.dial(b, true)
	n.until(20*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
	n.run(time.Second)
	got := 0
	b.onMessage = func(*Link, uint8, []byte) { got++ }
	sent := 0
	for i := range 100_000 {
		b.inject(addrPort(byte(100+i%50)), old[i%len(old)])
		if i%100 == 0 {
			sent++
			if err := a.links.Send(n.now, a.link(b), wire.Ack{Request: uint32(i)}); err != nil {
				t.Fatal(err)
			}
			n.run(5 * time.Millisecond)
		}
		if p := b.links.gate.Len(); p > session.MaxPending {
			t.Fatalf("%d pending", p)
		}
	}
	n.run(10 * time.Second)
	if got != sent {
		t.Errorf("%d of %d messages arrived during the replay", got, sent)
	}
	if len(a.downs)+len(b.downs) > 0 || b.link(a).Endpoint().Addr != a.addr || b.ups != 1 {
		t.Errorf("the link was disturbed: down %v %v, endpoint %v, up %d times", a.downs, b.downs, b.link(a).Endpoint(), b.ups)
	}
	checkData(t, n, a, b)
}

// TestSessionHandshakeAsLink delivers a handshake made for a session, true in all else, as a link's (E8).
func TestSessionHandshakeAsLink(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	for _, bind := range [][]byte{make([]byte, 32)} {
		_, noise, err := session.Initiate(session.Config{Identity: a.id, Network: key.Open(), Purpose: session.Session, Bind: bind}, b.key, wire.Payload{Key: 1, Ports: 1, MTU: 1472})
		if err != nil {
			t.Fatal(err)
		}
		b.inject(addrPort(66), session.NewJar(b.key).Init(n.now, 77, noise))
	}
	n.run(time.Second)
	if b.bytesOut != 0 || b.links.gate.Len() != 0 || len(b.links.byPeer) != 0 {
		t.Errorf("%d bytes out, %d pending, %d links; want none", b.bytesOut, b.links.gate.Len(), len(b.links.byPeer))
	}
}

// TestForgedResp puts forged RESPs, also with an ephemeral key of zeros, before the true one (E6).
func TestForgedResp(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	n.fate = func(from, _ netip.AddrPort, f []byte) []time.Duration {
		if typeIs(f, wire.TypeResp) && from == b.addr {
			for i := range 6 {
				bad := append([]byte(nil), f...)
				switch i % 3 {
				case 0:
					clear(bad[12:44]) // ephemeral
				case 1:
					bad[60] ^= 1 // payload
				case 2:
					bad[8] ^= 1 // label
				}
				a.inject(from, bad)
				a.inject(from, remac(b.key, bad))
			}
		}
		return []time.Duration{labDelay}
	}
	a.dial(b, true)
	n.until(time.Second, "link up at the first attempt", func() bool { return a.up(b) && b.up(a) })
	if n.now > 1100*time.Millisecond {
		t.Errorf("took %v, want the first handshake to survive", n.now-time.Second)
	}
}

// remac puts a right mac1 on a RESP, as whoever knows the responder's public key can.
func remac(responder key.Public, f []byte) []byte {
	f = bytes.Clone(f)
	x := responder.X25519()
	k := blake2s.Sum256(append([]byte("skywire mac1"), x[:]...))
	h, err := blake2s.New128(k[:])
	if err != nil {
		panic(err)
	}
	h.Write(f[:wire.RespMAC1])
	copy(f[wire.RespMAC1:], h.Sum(nil))
	return f
}

// TestRespFromElsewhere: an answer that comes from another address than the one dialled does not move the link there
// before that address has answered a challenge.
func TestRespFromElsewhere(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	victim := addrPort(99)
	toVictim := 0
	n.tap = func(_, to netip.AddrPort, f []byte) {
		if to == victim {
			toVictim += len(f)
		}
	}
	n.fate = func(_, to netip.AddrPort, f []byte) []time.Duration {
		if typeIs(f, wire.TypeResp) {
			n.after(labDelay-1, func() { a.inject(victim, f) })
		}
		return []time.Duration{labDelay}
	}
	a.dial(b, true)
	n.run(3 * time.Second)
	if !a.up(b) || !b.up(a) {
		t.Error("the link is not up")
	}
	if got := a.link(b).Endpoint().Addr; got != b.addr {
		t.Errorf("endpoint %v, want %v", got, b.addr)
	}
	if toVictim > 3*wire.RespLen {
		t.Errorf("%d bytes sent to a victim for one forged RESP of %d", toVictim, wire.RespLen)
	}
}

func TestWho(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, open, closed := n.add(1, Config{}), n.add(2, Config{Open: true}), n.add(3, Config{})
	var learnt []key.Public
	for _, to := range []*box{open, closed} {
		a.links.DialAddr(n.now, forward.Endpoint{Addr: to.addr}, true, func(_ time.Duration, k key.Public) { learnt = append(learnt, k) })
	}
	a.next = n.now
	n.run(3 * time.Second)
	if len(learnt) != 1 || learnt[0] != open.key {
		t.Errorf("learnt %v, want the open node's key", learnt)
	}
	if !a.up(open) || a.link(closed) != nil {
		t.Error("want a link to the open node only")
	}
	if closed.bytesOut != 0 {
		t.Errorf("the closed node answered %d bytes", closed.bytesOut)
	}
	// An answer nobody asked for, and one with the wrong random or network, teach nothing.
	before := len(a.links.byPeer)
	for _, f := range []wire.IsMe{{Key: closed.key, Network: key.Open()}, {Random: [8]byte{1}, Key: closed.key, Network: key.Open()}} {
		a.inject(closed.addr, f.Append(nil))
		a.inject(addrPort(77), f.Append(nil))
	}
	n.run(time.Second)
	if len(a.links.byPeer) != before || len(learnt) != 1 {
		t.Error("a forged ISME made a link")
	}
	if n := len(a.links.asking); n != 1 {
		t.Errorf("%d questions open, want the one that is not answered", n)
	}
}

// TestWhoSelf asks the address at which the node itself answers.
func TestWhoSelf(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a := n.add(1, Config{Open: true})
	a.links.DialAddr(n.now, forward.Endpoint{Addr: a.addr}, true, func(_ time.Duration, k key.Public) { t.Errorf("pinned our own key %s", k) })
	a.next = n.now
	n.run(time.Second)
	if len(a.links.byPeer) != 0 {
		t.Error("a link with ourselves")
	}
}

func TestNotAdmitted(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	b.refuse = true
	l := a.dial(b, true)
	n.run(20 * time.Second)
	if a.up(b) || b.link(a) != nil || b.bytesOut != 0 || b.links.gate.Len() != 0 {
		t.Errorf("a refused peer got something: up %v, %d bytes", a.up(b), b.bytesOut)
	}
	if l.Trouble() == "" {
		t.Error("no word about the trouble")
	}
}

// TestTooManyLinks fills the table; it must refuse, and not by breaking what is there.
func TestTooManyLinks(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	b := n.add(200, Config{})
	var all []*box
	for i := range MaxLinks + 4 {
		x := n.add(byte(1+i), Config{})
		x.dial(b, true)
		all = append(all, x)
		n.run(100 * time.Millisecond) // below the gate's threshold
	}
	n.run(5 * time.Second)
	up := 0
	for _, x := range all {
		if b.up(x) && x.up(b) {
			up++
		}
	}
	if up != MaxLinks || len(b.links.byPeer) != MaxLinks {
		t.Errorf("%d links up, %d in the table, want %d", up, len(b.links.byPeer), MaxLinks)
	}
}

// TestUnansweredIsForgotten: a link that nobody holds on to goes, with all that belongs to it.
func TestUnansweredIsForgotten(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	n.at = map[netip.AddrPort]*box{} // nothing arrives any more
	n.run(3 * time.Minute)
	if len(b.downs) != 1 || b.forgotten != 1 || b.link(a) != nil || len(b.links.byLabel) != 0 {
		t.Errorf("down %v, link %v, %d labels; want it gone", b.downs, b.link(a), len(b.links.byLabel))
	}
	if a.link(b) == nil {
		t.Error("the persistent link is gone")
	}
	for _, x := range []*box{a, b} {
		n.at[x.addr] = x
	}
	n.until(6*time.Second, "up again", func() bool { return a.up(b) && b.up(a) })
}

func TestRestart(t *testing.T) {
	t.Parallel()
	for _, who := range []string{"dialler", "listener"} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			n, a, b := linked(t, Config{})
			if who == "dialler" {
				a.start(Config{})
				a.dial(b, true)
				n.until(time.Second, "up again", func() bool { return a.up(b) && b.restarts == 1 })
			} else {
				b.start(Config{})
				n.until(13*time.Second, "up again", func() bool { return b.up(a) && a.restarts == 1 })
			}
			n.run(15 * time.Second)
			checkData(t, n, a, b)
		})
	}
}
