package forward

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// course is one plane at work on trains of the same frames over and over; renew moves their counters on, as a sender would.
type course struct {
	f    *fabric
	p    *pair
	w    *Worker
	sent []byte // as it was received first
	b    []byte
	seg  int
	from Endpoint
	in   *session.HopKey
	next uint64
}

// newCourse makes a train of n frames and brings it to the first node of the chain after a.
func newCourse(t testing.TB, relays, n, size int) *course {
	f, p, _, hops := chain(t, relays, 2, 1472, 1)
	for i := range n {
		p.a.workers[0].Originate(f.now, p.packet(size, i), false)
	}
	p.a.workers[0].Flush()
	w := hops[1].plane.NewWorker(nowhere{})
	w.SetTUN(quietTUN{})
	x := f.queue[0]
	return &course{f: f, p: p, w: w, sent: x.b, b: slices.Clone(x.b), seg: x.seg, from: x.from, in: hopKey(hops[0], hops[1], 0)}
}

// quietTUN takes everything.
type quietTUN struct{}

func (quietTUN) FD() int                         { return -1 }
func (quietTUN) Receive() (int, error)           { return 0, nil }
func (quietTUN) Packet([]byte) (int, bool, bool) { return 0, false, false }
func (quietTUN) Send([]byte, bool) error         { return nil }
func (quietTUN) Flush() error                    { return nil }
func (quietTUN) Close() error                    { return nil }

// retag gives the frames fresh counters and the tags that belong to them.
func (c *course) retag() {
	copy(c.b, c.sent)
	for i := range segments(len(c.b), c.seg) {
		f := c.b[i*c.seg : min((i+1)*c.seg, len(c.b))]
		c.next++
		binary.BigEndian.PutUint64(f[8:], c.next+1000)
		binary.BigEndian.PutUint64(f[16:], c.in.Tag(f[:16], len(f)))
	}
}

// reseal seals them anew as well.
func (c *course) reseal() {
	s := c.p.sa
	k, t := s.send.Load(), s.active.Load()
	w := c.p.a.workers[0]
	for i := range segments(len(c.b), c.seg) {
		f := c.b[i*c.seg : min((i+1)*c.seg, len(c.b))]
		copy(f, c.sent[i*c.seg:])
		c.next++
		binary.BigEndian.PutUint64(f[8:], c.next+1000)
		binary.BigEndian.PutUint64(f[16:], c.in.Tag(f[:16], len(f)))
		f[sealedAt] = wire.KindPacket
		clear(f[sealedAt+1 : sealedAt+kindLen])
		copy(f[sealedAt+kindLen:], c.p.inner(len(f)-wire.SealedOverhead))
		session.PathNonce(&w.nonce, t.Number, 0, c.next+1000)
		k.aead.Seal(f[sealedAt:sealedAt], &w.nonce, f[sealedAt:len(f)-wire.AEADLen], f[:2])
	}
}

// inner is a packet of the pair made once.
func (p *pair) inner(n int) []byte {
	if len(p.made) != n {
		p.made = p.packet(n, 1)
	}
	return p.made
}

func TestNoAllocations(t *testing.T) {
	now := time.Second
	relay, end := newCourse(t, 1, 40, 1400), newCourse(t, 0, 40, 1400)
	origin, cutting := newCourse(t, 0, 1, 1400), newCourse(t, 0, 1, 1280)
	ow := origin.p.a.plane.NewWorker(nowhere{})
	cw := cutting.p.a.plane.NewWorker(nowhere{})
	cutting.p.sa.Active().SetMTU(600)
	packet, piece := origin.p.packet(1400, 1), cutting.p.packet(1280, 1)
	quic := slices.Repeat([]byte{0x41}, 20*1250)
	tests := []struct {
		name string
		run  func()
	}{
		{"relay", func() { relay.retag(); relay.w.Receive(now, relay.from, relay.b, relay.seg, 0); relay.w.Flush() }},
		{"end", func() { end.reseal(); end.w.Receive(now, end.from, end.b, end.seg, 0); end.w.Flush() }},
		{"junk", func() { end.w.Receive(now, end.from, end.sent[:end.seg], end.seg, 0) }},
		{"originate", func() {
			for range 40 {
				ow.Originate(now, packet, false)
			}
			ow.Flush()
		}},
		{"pieces", func() { cw.Originate(now, piece, false); cw.Flush() }},
		{"control", func() { _ = ow.Control(now, origin.p.sa.Active(), packet[:50]) }},
		{"quic", func() { _ = ow.QUIC(now, origin.p.sa, quic, 1250) }},
	}
	for _, tt := range tests {
		if n := testing.AllocsPerRun(200, tt.run); n != 0 {
			t.Errorf("%s: %v allocations a train, want 0", tt.name, n)
		}
	}
	if c := relay.w.plane.Counters(); c.RelayedFrames < 40*200 || len(c.Drops) != 0 {
		t.Errorf("relay did not work: %+v", c)
	}
	if c := end.w.plane.Counters(); c.DeliveredPackets < 40*200 {
		t.Errorf("end did not work: %+v", c)
	}
}

// BenchmarkRelay is one train of 46 frames through a relay, without I/O; each operation is a train.
func BenchmarkRelay(b *testing.B) {
	c := newCourse(b, 1, 44, 1356)
	n := segments(len(c.b), c.seg)
	b.ReportAllocs()
	b.SetBytes(int64(len(c.b)))
	for b.Loop() {
		c.retag() // one more tag a frame and a copy; subtracted by BenchmarkRetag
		c.w.Receive(time.Second, c.from, c.b, c.seg, 0)
	}
	b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "pps")
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/packet")
	if d := c.w.plane.Counters().Drops; len(d) != 0 {
		b.Fatal(d)
	}
}

// BenchmarkRetag is what BenchmarkRelay does besides relaying.
func BenchmarkRetag(b *testing.B) {
	c := newCourse(b, 1, 44, 1356)
	n := segments(len(c.b), c.seg)
	b.ReportAllocs()
	for b.Loop() {
		c.retag()
	}
	b.ReportMetric(b.Elapsed().Seconds()*1e9/float64(b.N)/float64(n), "ns/packet")
}

// benchCases are a full packet with either cipher, and one of 64 bytes of UDP payload.
var benchCases = []struct {
	name   string
	cipher session.Cipher
	size   int
}{{"AES", session.AES, 1400}, {"ChaCha", session.ChaCha, 1400}, {"AES small", session.AES, 112}}

// BenchmarkOriginate seals packets; each operation is one.
func BenchmarkOriginate(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			x := newCourse(b, 0, 1, c.size)
			a, err := session.NewAEAD(c.cipher, [32]byte{1})
			if err != nil {
				b.Fatal(err)
			}
			x.p.sa.SetSendKey(1, a)
			w := x.p.a.plane.NewWorker(nowhere{})
			p := x.p.packet(c.size, 1)
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			for b.Loop() {
				w.Originate(time.Second, p, false)
			}
			w.Flush()
		})
	}
}

// BenchmarkSealOpen is a packet from one end's TUN to the other's; each operation is one.
func BenchmarkSealOpen(b *testing.B) {
	for _, c := range benchCases {
		b.Run(c.name, func(b *testing.B) {
			f := newFabric(b)
			x, y := f.box("a", 0), f.box("b", 0)
			f.link(x, y, 1472)
			p := f.session(x, y)
			f.lay(p, 2, 2, 1472, x, y)
			a, err := session.NewAEAD(c.cipher, [32]byte{1})
			if err != nil {
				b.Fatal(err)
			}
			p.sa.SetSendKey(1, a)
			p.sb.SetRecvKey(1, a)
			rw := y.plane.NewWorker(nowhere{})
			rw.SetTUN(quietTUN{})
			w := x.plane.NewWorker(outputFunc(func(_ Endpoint, train []byte, seg int) error {
				rw.Receive(time.Second, x.at, train, seg, 0)
				return nil
			}))
			packet := p.packet(c.size, 1)
			b.ReportAllocs()
			b.SetBytes(int64(c.size))
			for b.Loop() {
				w.Originate(time.Second, packet, false)
			}
			w.Flush()
			if n := y.plane.Counters().DeliveredPackets; n != uint64(b.N) && n != x.plane.Counters().OriginatedPackets {
				b.Fatalf("%d delivered: %v", n, y.plane.Counters().Drops)
			}
		})
	}
}

// FuzzReceive feeds a node that is relay and end at once with mutated frames. Nothing may panic, be delivered, relayed or
// moved unless it carries a true tag, and the genuine flow passes afterwards.
func FuzzReceive(f *testing.F) {
	fab, p, l, hops := chain(f, 1, 2, 1472, 1)
	sealed := fab.one(p, 100)
	atEnd := slices.Clone(sealed)
	hops[1].workers[0].Receive(fab.now, p.a.at, atEnd, len(atEnd), 0)
	fab.queue = nil
	if err := p.a.workers[0].QUIC(fab.now, p.sa, slices.Repeat([]byte{0x41}, 60), 30); err != nil {
		f.Fatal(err)
	}
	quic := fab.queue[0]
	fab.queue = nil
	f.Add(sealed, 144, false)
	f.Add(atEnd, 144, true)
	f.Add(slices.Concat(sealed, atEnd, sealed[:50]), 144, false)
	f.Add(quic.b, quic.seg, false)
	f.Add(slices.Concat([]byte{wire.TypeInit}, make([]byte, 199)), 200, true)
	f.Add([]byte{wire.TypeLink, 0, 0}, 3, false)
	// An opened payload, fuzzed behind a true seal: kinds, pieces, inner packets.
	f.Add(append([]byte{wire.KindPacket, 0, 0, 0}, p.packet(100, 1)...), -1, true)
	f.Add([]byte{wire.KindFragment, 1, 0x81, 0, 1}, -1, true)
	f.Add([]byte{wire.KindControl, 0, 0, 0}, -1, true)
	f.Fuzz(func(t *testing.T, b []byte, seg int, end bool) {
		fab.t = t
		to := hops[1]
		if end {
			to = p.b
		}
		if seg < 0 && len(b) >= kindLen && len(b) < 1400 {
			w := p.a.workers[0]
			_ = w.seal(l.pa, 0, payload{kind: b[0], meta: [3]byte(b[1:4]), body: b[kindLen:]})
			w.Flush()
			fab.run()
		} else if len(b) < 1<<16 {
			b = slices.Clone(b)
			to.workers[0].Receive(fab.now, p.a.at, b, max(seg, 1), 0)
			to.workers[0].Flush()
		}
		fab.queue = nil
		p.b.tun.got = nil
		p.a.workers[0].Originate(fab.now, p.packet(100, 1), false)
		p.a.workers[0].Flush()
		fab.run()
		if len(p.b.tun.got) != 1 {
			t.Fatalf("the flow is hurt: %v %v", hops[1].plane.Counters().Drops, p.b.plane.Counters().Drops)
		}
		to.calls = upcalls{}
	})
}

func FuzzInner(f *testing.F) {
	fab := newFabric(f)
	a, b := fab.box("a", 1).plane.Address(), fab.box("b", 1).plane.Address()
	f.Add(packet6(a, b, []byte("x")))
	f.Add(packet4(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), []byte("x")))
	hop := packet6(a, b, make([]byte, 40))
	hop[6], hop[40] = protoHopByHop, protoTCP
	f.Add(hop)
	f.Fuzz(func(t *testing.T, p []byte) {
		in, ok := parseInner(p)
		if !ok {
			return
		}
		if !unicast(in.src) || !unicast(in.dst) || in.src.Is4In6() {
			t.Fatalf("passed: %v", in)
		}
		markECN(slices.Clone(p), in.ecn, ecnCE)
		fillChecksum(slices.Clone(p))
	})
}
