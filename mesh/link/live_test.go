package link

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// seal makes a LINK frame from a's side of its link to b, as a does, without sending it.
func sealed(t testing.TB, n *lab, a, b *box, messages ...wire.Message) []byte {
	t.Helper()
	var out []byte
	fate, tap := n.fate, n.tap
	n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration { return nil }
	n.tap = func(_, _ netip.AddrPort, f []byte) { out = f }
	l := a.link(b)
	a.links.plain = a.links.plain[:0]
	for _, m := range messages {
		a.links.plain = wire.AppendMessage(a.links.plain, m)
	}
	if err := a.links.seal(n.now, l, l.endpoint); err != nil {
		t.Fatal(err)
	}
	n.fate, n.tap = fate, tap
	return out
}

// TestRoaming moves a node to another address, in the middle of a link.
func TestRoaming(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	fresh := addrPort(50)
	a.move(fresh)
	n.until(15*time.Second, "endpoint moved", func() bool { return b.link(a).Endpoint().Addr == fresh })
	n.run(10 * time.Second)
	if len(a.downs)+len(b.downs) > 0 {
		t.Errorf("went down while roaming: %v %v", a.downs, b.downs)
	}
	checkData(t, n, a, b)
}

// TestNoMoveWithoutChallenge shows the node true frames of its neighbour from an address where the neighbour is not:
// the link stays where it is, and little is sent to the stranger.
func TestNoMoveWithoutChallenge(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		what []wire.Message
	}{
		{"keep", []wire.Message{wire.Keep{}}},
		{"ping", []wire.Message{wire.Ping{ID: 1}}},
		{"pings", bytes20(wire.Ping{ID: 1})},
		{"challenges", bytes20(wire.Challenge{})},
		{"stray responses", bytes20(wire.Response{})},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, a, b := linked(t, Config{})
			victim, out := addrPort(66), 0
			n.tap = func(_, to netip.AddrPort, f []byte) {
				if to == victim {
					out += len(f)
				}
			}
			f := sealed(t, n, a, b, c.what...)
			n.tap = func(_, to netip.AddrPort, f []byte) {
				if to == victim {
					out += len(f)
				}
			}
			b.inject(victim, f)
			n.run(10 * time.Second)
			if got := b.link(a).Endpoint().Addr; got != a.addr {
				t.Errorf("endpoint moved to %v", got)
			}
			if out > 3*len(f) {
				t.Errorf("%d bytes sent to a victim for %d from there", out, len(f))
			}
			if out == 0 {
				t.Error("no challenge")
			}
		})
	}
}

func bytes20(m wire.Message) (all []wire.Message) {
	for range 20 {
		all = append(all, m)
	}
	return all
}

// TestForgedMoves: frames that are not the neighbour's don't even cause a challenge.
func TestForgedMoves(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	f := sealed(t, n, a, b, wire.Keep{})
	b.inject(a.addr, f)
	n.run(time.Millisecond)
	out := 0
	n.tap = func(_, to netip.AddrPort, f []byte) {
		if to == addrPort(66) && !typeIs(f, wire.TypeHint) {
			out += len(f)
		}
	}
	b.inject(addrPort(66), f) // replayed
	for i := range f {
		bad := bytes.Clone(f)
		bad[i] ^= 0x40
		b.inject(addrPort(66), bad)
	}
	n.run(5 * time.Second)
	if out != 0 || b.link(a).move.tries != 0 || b.link(a).Endpoint().Addr != a.addr {
		t.Errorf("%d bytes to a forger, move %+v", out, b.link(a).move)
	}
}

// TestRekey rekeys often, over a lossy wire too, and crossing; at every moment data must pass.
func TestRekey(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		loss  float64
		cross bool
		holes int // tenths of a second without a key, or in which data is refused after a crossing until a frame gets through
	}{{"clean", 0, false, 0}, {"a third lost", 0.3, false, 40}, {"crossing", 0, true, 0}, {"crossing, a third lost", 0.3, true, 60}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, a, b := linked(t, Config{Timers: Timers{Rekey: 20 * time.Second, LostPings: 40}})
			n.fate = func(_, _ netip.AddrPort, f []byte) []time.Duration {
				if n.rand.Float64() < c.loss {
					return nil
				}
				return []time.Duration{labDelay}
			}
			holes, hashes := 0, map[[32]byte]bool{}
			for i := range 1200 {
				n.run(100 * time.Millisecond)
				k := a.link(b).Ring().Sending(n.now)
				if k == nil { // five attempts lost: a full handshake comes
					if holes++; holes > c.holes {
						t.Fatalf("no key at %v", n.now)
					}
					continue
				}
				if c.cross && i%300 == 250 { // both begin in one instant
					forceRekey(t, n, a, a.link(b))
					forceRekey(t, n, b, b.link(a))
				}
				hashes[k.Hash] = true
				if err := dataPasses(n, a, b); err != nil {
					if holes++; holes > c.holes {
						t.Fatalf("at %v: %v", n.now, err)
					}
				}
			}
			if len(hashes) < 4 {
				t.Errorf("%d keys in two minutes, want one each 20 s", len(hashes))
			}
			for _, x := range []*box{a, b} {
				l := x.links.order[0]
				if len(l.windows) > 4 || len(l.Ring().All()) > 4 || len(x.links.byLabel) > 10 {
					t.Errorf("%d windows, %d keys, %d labels: they grow", len(l.windows), len(l.Ring().All()), len(x.links.byLabel))
				}
			}
			if c.loss == 0 && len(a.downs)+len(b.downs) > 0 {
				t.Errorf("went down: %v %v", a.downs, b.downs)
			}
		})
	}
}

// forceRekey starts a rekey now.
func forceRekey(t *testing.T, n *lab, x *box, l *Link) {
	t.Helper()
	cur := l.Ring().Sending(n.now)
	hs, noise, err := session.Initiate(x.links.sessionConfig(cur.Hash[:]), l.peer, x.links.payload(l))
	if err != nil {
		t.Fatal(err)
	}
	l.rekey, l.rekeyAt = hs, n.now+time.Second
	_ = x.links.sendFrame(n.now, l, l.endpoint, wire.Rekey1{Noise: [wire.Noise1Len]byte(noise)})
}

// TestSleep stops a machine for longer than its keys live; it must find back by itself.
func TestSleep(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	a.lab.at = map[netip.AddrPort]*box{}
	n.now += 10 * time.Minute // nobody ticks
	for _, x := range []*box{a, b} {
		n.at[x.addr] = x
		x.next = n.now
	}
	n.run(10 * time.Second)
	if !a.up(b) || !b.up(a) {
		t.Errorf("not up after sleep: %v %v", a.downs, b.downs)
	}
	checkData(t, n, a, b)
}

// TestMTU finds the size that underlays of all sorts carry.
func TestMTU(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ wire, want int }{{1472, 1472}, {1452, 1452}, {1400, 1392}, {1280, 1280}, {1232, 1232}, {1000, 952}, {576, 548}, {548, 548}} {
		t.Run(netip.AddrFrom4([4]byte{0, 0, byte(c.wire >> 8), byte(c.wire)}).String(), func(t *testing.T) {
			t.Parallel()
			n := newLab(t)
			n.fate = func(_, _ netip.AddrPort, f []byte) []time.Duration {
				if len(f) > c.wire {
					return nil
				}
				return []time.Duration{labDelay}
			}
			a, b := n.add(1, Config{}), n.add(2, Config{})
			a.dial(b, true)
			n.run(3 * time.Second)
			if x, y := a.link(b).MTU(), b.link(a).MTU(); x != c.want || y != c.want {
				t.Errorf("MTU %d and %d, want %d", x, y, c.want)
			}
		})
	}
	t.Run("one side takes less", func(t *testing.T) {
		t.Parallel()
		n := newLab(t)
		a, b := n.add(1, Config{MTU: 1000}), n.add(2, Config{})
		a.dial(b, true)
		n.run(3 * time.Second)
		if got := b.link(a).MTU(); got > 1000 {
			t.Errorf("MTU %d to a node that takes 1000", got)
		}
	})
}

// TestPieces sends messages longer than a frame, and pieces that never become a message.
func TestPieces(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	long := wire.Record{Raw: bytes.Repeat([]byte("r"), wire.MaxRecord)}
	for range 50 {
		if err := a.links.Send(n.now, a.link(b), long); err != nil {
			t.Fatal(err)
		}
		n.run(20 * time.Millisecond)
	}
	if len(b.messages) != 50 || !bytes.Equal(b.messages[49][1:], long.Append(nil)) {
		t.Fatalf("%d of 50 long messages came", len(b.messages))
	}
	if err := a.links.Send(n.now, a.link(b), wire.Record{Raw: make([]byte, wire.MaxMessage+1)}); err == nil {
		t.Error("a message of 8 KiB and more was taken")
	}
	for i := range 20_000 {
		p := wire.Piece{ID: uint16(n.rand.Uint32()), Index: uint8(i % 15), Count: 16, Bytes: make([]byte, 400)}
		if i%3 == 0 {
			p.Count, p.Index = 2, uint8(i%2)
		}
		b.inject(a.addr, sealed(t, n, a, b, p))
		if got := len(b.link(a).pieces); got > maxPieces {
			t.Fatalf("%d messages in reassembly", got)
		}
	}
	// Pieces that contain a piece: not followed.
	inner := wire.AppendMessage(nil, wire.Piece{ID: 1, Index: 0, Count: 2, Bytes: []byte("x")})
	b.inject(a.addr, sealed(t, n, a, b, wire.Piece{ID: 7, Index: 0, Count: 2, Bytes: inner[:4]}, wire.Piece{ID: 7, Index: 1, Count: 2, Bytes: inner[4:]}))
	if err := a.links.Send(n.now, a.link(b), long); err != nil {
		t.Fatal(err)
	}
	before := len(b.messages)
	n.run(20 * time.Millisecond)
	if len(b.messages) != before+1 {
		t.Error("after all that, a long message does not get through")
	}
}

// TestSendAll sends messages together: all come, in order, and frames are as full as the wire lets them be.
func TestSendAll(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ wire, most int }{{1472, 12}, {576, 40}} {
		n := newLab(t)
		n.fate = func(_, _ netip.AddrPort, f []byte) []time.Duration {
			if len(f) > c.wire {
				return nil
			}
			return []time.Duration{labDelay}
		}
		a, b := n.add(1, Config{}), n.add(2, Config{})
		a.dial(b, true)
		n.run(3 * time.Second)
		var all []wire.Message
		for i := range 40 {
			size := 250
			if i%20 == 7 {
				size = wire.MaxRecord // longer than any frame
			}
			all = append(all, wire.Record{Raw: bytes.Repeat([]byte{byte(i)}, size)}, wire.RecordAck{Number: uint64(i)})
		}
		frames := 0
		n.tap = func(from, _ netip.AddrPort, _ []byte) {
			if from == a.addr {
				frames++
			}
		}
		if err := a.links.SendAll(n.now, a.link(b), all); err != nil {
			t.Fatal(err)
		}
		n.tap = nil
		b.messages = nil
		n.run(20 * time.Millisecond)
		if len(b.messages) != len(all) {
			t.Fatalf("wire of %d: %d of %d messages came", c.wire, len(b.messages), len(all))
		}
		for i, m := range all {
			if got := b.messages[i]; got[0] != m.Type() || !bytes.Equal(got[1:], m.Append(nil)) {
				t.Fatalf("wire of %d: message %d is another one", c.wire, i)
			}
		}
		pieces := 2 * (wire.MaxRecord/(frameRoom-wire.MessageHead-wire.PieceHead) + 1)
		if frames > pieces+c.most {
			t.Errorf("wire of %d: %d frames, of them about %d of the long messages", c.wire, frames, pieces)
		}
	}
}

func TestBye(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	a.links.Remove(n.now, a.link(b))
	n.run(20 * time.Millisecond)
	if len(b.downs) != 1 {
		t.Errorf("down %v, want once", b.downs)
	}
	// A forged or replayed Bye changes nothing.
	a.dial(b, true)
	n.run(time.Second)
	f := sealed(t, n, a, b, wire.Bye{Reason: wire.ByeClosed})
	b.inject(a.addr, f)
	n.until(2*time.Second, "up again", func() bool { return b.up(a) && a.up(b) })
	n.run(time.Second)
	downs := len(b.downs)
	b.inject(a.addr, f)
	n.run(time.Second)
	if len(b.downs) != downs || !b.up(a) {
		t.Error("a replayed Bye ended the link")
	}
}

// TestHint: the neighbour's word that it does not know a frame is believed if we sent that frame.
func TestHint(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	inits := 0
	n.tap = func(from, _ netip.AddrPort, f []byte) {
		if typeIs(f, wire.TypeInit) && from == a.addr {
			inits++
		}
	}
	l := a.link(b)
	echo := func(h wire.Header) []byte {
		return wire.Hint{Echo: [wire.TaggedLen]byte(h.Append(nil))}.Append(nil)
	}
	forged := []struct {
		name string
		from netip.AddrPort
		h    wire.Header
	}{
		{"label", b.addr, wire.Header{Type: wire.TypeLink, Label: l.theirLabel ^ 1, Counter: l.counter - 1}},
		{"counter to come", b.addr, wire.Header{Type: wire.TypeLink, Label: l.theirLabel, Counter: l.counter}},
		{"other address", addrPort(9), wire.Header{Type: wire.TypeLink, Label: l.theirLabel, Counter: l.counter - 1}},
		{"data label", b.addr, wire.Header{Type: wire.TypeSealed, Label: 12345}},
	}
	for _, f := range forged {
		a.inject(f.from, echo(f.h))
		n.run(20 * time.Millisecond)
		if inits != 0 {
			t.Fatalf("a hint with forged %s was believed", f.name)
		}
	}
	true1 := echo(wire.Header{Type: wire.TypeLink, Label: l.theirLabel, Counter: l.counter - 1})
	for range 1000 {
		a.inject(b.addr, true1)
		n.run(5 * time.Millisecond)
	}
	if inits == 0 || inits > 6 {
		t.Errorf("%d handshakes for 5 s of hints, want one a second at most", inits)
	}
	a.sentData[777] = true
	inits = 0
	n.run(2 * time.Second)
	a.inject(b.addr, echo(wire.Header{Type: wire.TypeSealed, Label: 777}))
	if inits != 1 {
		t.Errorf("%d handshakes for a credible hint about data, want 1", inits)
	}
	n.run(20 * time.Second)
	if len(a.downs)+len(b.downs) > 0 {
		t.Errorf("hints took the link down: %v %v", a.downs, b.downs)
	}
	checkData(t, n, a, b)
	if got := len(b.links.byLabel); got > 10 {
		t.Errorf("%d labels of one link", got)
	}
}

// TestNoAmplification: for every kind of unauthenticated input, no more bytes go out than came in (E20).
func TestNoAmplification(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{Open: true})
	b.links.Remove(n.now, b.link(a))
	a.links.Remove(n.now, a.link(b))
	n.run(time.Second)
	frames := func() map[string][]byte {
		h := func(k uint8, size int) []byte {
			return append(wire.Header{Type: k, Key: 1, TTL: 5, Label: n.rand.Uint32()}.Append(nil), make([]byte, size)...)
		}
		return map[string][]byte{
			"init": forgedInit(t, n, b), "junk init": append([]byte{wire.TypeInit}, make([]byte, wire.InitLen-1)...),
			"resp": wire.Resp{Yours: 1}.Append(nil), "cookie": wire.Cookie{Yours: 1}.Append(nil),
			"who": wire.Who{Random: [8]byte{byte(n.rand.Uint32())}}.Append(nil), "isme": wire.IsMe{}.Append(nil), "hint": wire.Hint{}.Append(nil),
			"link": h(wire.TypeLink, 19), "short link": h(wire.TypeLink, 0), "sealed": h(wire.TypeSealed, 20), "unknown": {0x2f, 1},
		}
	}
	for name := range frames() {
		b.bytesOut = 0
		in := 0
		for range 3000 {
			f := frames()[name]
			in += len(f)
			before := b.bytesOut
			b.inject(addrPort(77), f)
			if b.bytesOut-before > len(f) {
				t.Fatalf("%s: %d bytes for one of %d", name, b.bytesOut-before, len(f))
			}
		}
		n.run(time.Second)
		if b.bytesOut > in {
			t.Errorf("%s: %d bytes out for %d in", name, b.bytesOut, in)
		}
	}
	if len(b.links.byLabel)+len(b.links.byPeer)+len(b.links.asking)+b.links.gate.Len() != 0 {
		t.Error("strangers caused state")
	}
}

// TestFlapping rides on a wire that dies and comes back, for ever: nothing may pile up.
func TestFlapping(t *testing.T) {
	t.Parallel()
	n, a, b := linked(t, Config{})
	wireUp := true
	n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration {
		if !wireUp {
			return nil
		}
		return []time.Duration{labDelay}
	}
	b.dial(a, true)
	for i := range 200 {
		wireUp = i%2 == 1
		n.run(time.Duration(500+n.rand.IntN(6000)) * time.Millisecond)
	}
	wireUp = true
	n.run(15 * time.Second)
	checkData(t, n, a, b)
	for _, x := range []*box{a, b} {
		l := x.links.order[0]
		if len(x.links.byPeer) != 1 || len(x.links.order) != 1 || len(x.links.byLabel) > 10 || len(l.windows) > 4 || len(l.pieces) > maxPieces || len(l.candidates) > maxCandidates || len(x.links.asking) > 1 {
			t.Errorf("it grows: %d peers, %d labels, %d windows, %d addresses, %d questions", len(x.links.byPeer), len(x.links.byLabel), len(l.windows), len(l.candidates), len(x.links.asking))
		}
	}
}

func TestSendOnDownLink(t *testing.T) {
	t.Parallel()
	n := newLab(t)
	a, b := n.add(1, Config{}), n.add(2, Config{})
	b.refuse = true
	if err := a.links.Send(n.now, a.dial(b, true), wire.Keep{}); !errors.Is(err, ErrDown) {
		t.Errorf("%v, want ErrDown", err)
	}
	if _, err := a.links.Dial(n.now, a.key, []forward.Endpoint{{Addr: a.addr}}, true); !errors.Is(err, ErrSelf) {
		t.Errorf("%v, want ErrSelf", err)
	}
}

// FuzzDatagram throws datagrams at a node with a live link, first as they are, then sealed as the neighbour's LINK bodies.
func FuzzDatagram(f *testing.F) {
	t := &testing.T{}
	seedLab := newLab(t)
	seedLab.tap = func(_, _ netip.AddrPort, b []byte) { f.Add(b, false) }
	a, b := seedLab.add(1, Config{Open: true}), seedLab.add(2, Config{Open: true})
	a.dial(b, true)
	seedLab.run(200 * time.Millisecond)
	for _, m := range []wire.Message{
		wire.Keep{},
		wire.Ping{ID: 5},
		wire.Pong{ID: 1},
		wire.Challenge{},
		wire.Response{},
		wire.Bye{},
		wire.Rekey1{},
		wire.Rekey2{},
		wire.Piece{ID: 1, Count: 2, Bytes: []byte("abc")},
		wire.Ack{Request: 9},
	} {
		f.Add(wire.AppendMessage(nil, m), true)
	}
	f.Add(wire.Who{}.Append(nil), false)
	f.Add(wire.Hint{}.Append(nil), false)
	n := newLab(t)
	x, y := n.add(1, Config{Open: true}), n.add(2, Config{Open: true})
	x.dial(y, true)
	n.run(time.Second)
	f.Fuzz(func(t *testing.T, in []byte, inside bool) {
		if len(in) > 1400 {
			return
		}
		if !x.up(y) || !y.up(x) {
			x.dial(y, true)
			n.run(5 * time.Second)
		}
		frame := in
		if inside && x.up(y) {
			frame = sealedRaw(n, x, y, in)
		}
		before := y.bytesOut
		y.inject(addrPort(77), frame)
		if out := y.bytesOut - before; !inside && out > len(frame) || inside && out > 3*len(frame) {
			t.Errorf("%d bytes out for %d in", out, len(frame))
		}
		n.run(time.Millisecond)
		if got := len(y.links.byLabel); got > 16 {
			t.Fatalf("%d labels", got)
		}
	})
}

// sealedRaw is a LINK frame of x with that body.
func sealedRaw(n *lab, x, y *box, body []byte) (out []byte) {
	fate, tap := n.fate, n.tap
	n.fate = func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration { return nil }
	n.tap = func(_, _ netip.AddrPort, f []byte) { out = f }
	x.links.plain = append(x.links.plain[:0], body...)
	_ = x.links.seal(n.now, x.link(y), x.link(y).endpoint)
	n.fate, n.tap = fate, tap
	return out
}
