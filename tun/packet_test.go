package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// flow makes packets of one TCP flow for tests.
type flow struct {
	v6      bool
	seq     uint32
	id      uint16
	flags   uint8
	options []byte
	tos     uint8
	window  uint16
	port    uint16
	dont    bool
}

var (
	test4a, test4b = netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.4.5.6")
	test6a, test6b = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
)

// header makes an IP header for a transport of n bytes.
func header(v6 bool, proto uint8, n int, id uint16, dont bool, tos uint8) []byte {
	if v6 {
		b := make([]byte, ipv6Len)
		b[0], b[1] = 0x60|tos>>4, tos<<4
		binary.BigEndian.PutUint16(b[4:], uint16(n))
		b[6], b[7] = proto, 64
		copy(b[8:], test6a.AsSlice())
		copy(b[24:], test6b.AsSlice())
		return b
	}
	b := make([]byte, ipv4Len)
	b[0], b[1] = 0x45, tos
	binary.BigEndian.PutUint16(b[4:], id)
	if dont {
		b[6] = 0x40
	}
	b[8], b[9] = 64, proto
	copy(b[12:], test4a.AsSlice())
	copy(b[16:], test4b.AsSlice())
	fixIPv4(b, ipv4Len+n)
	return b
}

// packet makes the flow's next packet, with a right checksum, and moves on.
func (f *flow) packet(payload []byte) []byte {
	t := make([]byte, tcpLen, tcpLen+len(f.options)+len(payload))
	e := binary.BigEndian
	e.PutUint16(t, 1000+f.port)
	e.PutUint16(t[2:], 80)
	e.PutUint32(t[4:], f.seq)
	e.PutUint32(t[8:], 77)
	t[12] = uint8((tcpLen + len(f.options)) / 4 << 4)
	t[13] = f.flags | tcpACK
	e.PutUint16(t[14:], 500+f.window)
	t = append(append(t, f.options...), payload...)
	p := append(header(f.v6, protoTCP, len(t), f.id, f.dont, f.tos), t...)
	in, ok := parseInner(p)
	if !ok {
		panic("test packet does not parse")
	}
	in.fill(p)
	f.seq += uint32(len(payload))
	f.id++
	return p
}

func udpPacket(v6 bool, payload []byte) []byte {
	t := make([]byte, udpLen, udpLen+len(payload))
	binary.BigEndian.PutUint16(t, 5000)
	binary.BigEndian.PutUint16(t[2:], 53)
	binary.BigEndian.PutUint16(t[4:], uint16(udpLen+len(payload)))
	p := append(header(v6, protoUDP, udpLen+len(payload), 9, false, 0), append(t, payload...)...)
	in, _ := parseInner(p)
	in.fill(p)
	return p
}

// slowSum is RFC 1071 word by word.
func slowSum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		s += w
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestSum(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if got, want := fold(sum(b, 0)), slowSum(b); got%0xffff != want%0xffff {
			t.Fatalf("%d bytes: %#x, want %#x", n, got, want)
		}
	}
	// RFC 1071, section 3.
	if got := fold(sum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0)); got != 0xddf2 {
		t.Errorf("RFC 1071 example: %#x, want 0xddf2", got)
	}
	full := bytes.Repeat([]byte{0xff}, 65536)
	if got := fold(sum(full, 0xffffffff)); got != 0xffff {
		t.Errorf("all ones: %#x", got)
	}
}

func TestParseInner(t *testing.T) {
	t.Parallel()
	tcp4 := (&flow{}).packet([]byte("hello"))
	tcp6 := (&flow{v6: true}).packet([]byte("hello"))
	change := func(p []byte, at int, v ...byte) []byte {
		p = slices.Clone(p)
		copy(p[at:], v)
		return p
	}
	hop := func(p []byte, next, length byte) []byte { // an extension header of 8 bytes that claims 8+8·length
		q := slices.Insert(slices.Clone(p), ipv6Len, p[6], length, 0, 0, 0, 0, 0, 0)
		q[6] = next
		binary.BigEndian.PutUint16(q[4:], uint16(len(q)-ipv6Len))
		return q
	}
	for _, c := range []struct {
		name      string
		p         []byte
		ok        bool
		transport int
	}{
		{"tcp4", tcp4, true, 20},
		{"tcp6", tcp6, true, 40},
		{"udp4", udpPacket(false, nil), true, 20},
		{"udp6", udpPacket(true, []byte("x")), true, 40},
		{"trailing bytes", append(slices.Clone(tcp4), 0, 0), true, 20},
		{"hop by hop", hop(tcp6, 0, 0), true, 48},
		{"destination options twice", hop(hop(tcp6, 60, 0), 60, 0), true, 56},
		{"too many extensions", hop(hop(hop(hop(tcp6, 60, 0), 60, 0), 60, 0), 60, 0), false, 0},
		{"extension overflow", hop(tcp6, 0, 200), false, 0},
		{"routing header", hop(tcp6, 43, 0), false, 0},
		{"fragment header", hop(tcp6, 44, 0), false, 0},
		{"empty", nil, false, 0},
		{"version 5", change(tcp4, 0, 0x55), false, 0},
		{"header length 4", change(tcp4, 0, 0x44), false, 0},
		{"header beyond packet", change(tcp4, 0, 0x4f), false, 0},
		{"total length too long", change(tcp4, 2, 0xff, 0xff), false, 0},
		{"total length too short", change(tcp4, 2, 0, 10), false, 0},
		{"first fragment", change(tcp4, 6, 0x20, 0), false, 0},
		{"later fragment", change(tcp4, 6, 0, 1), false, 0},
		{"icmp", change(tcp4, 9, 1), false, 0},
		{"tcp header cut", change(tcp4[:30], 2, 0, 30), false, 0},
		{"payload length beyond packet", change(tcp6, 4, 0xff, 0xff), false, 0},
	} {
		in, ok := parseInner(c.p)
		if ok != c.ok || ok && in.transport != c.transport {
			t.Errorf("%s: %+v, %v; want transport %d, %v", c.name, in, ok, c.transport, c.ok)
		}
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	for _, p := range [][]byte{
		(&flow{}).packet([]byte("odd")), (&flow{v6: true}).packet(make([]byte, 1400)),
		udpPacket(false, []byte{1}), udpPacket(true, make([]byte, 999)),
	} {
		in, _ := parseInner(p)
		if !in.valid(p) {
			t.Errorf("checksum of %d bytes is not valid after fill", len(p))
		}
		p[len(p)-1] ^= 1
		if in.valid(p) {
			t.Error("a flipped bit is not found")
		}
	}
}

// segments reads what a super-packet is cut into.
func segments(h virtio, p []byte) (out [][]byte, checksum bool) {
	var s segmenter
	s.load(h, p)
	b := make([]byte, 65600)
	for {
		n, more := s.packet(b)
		if !more {
			return out, s.checksum
		}
		out = append(out, slices.Clone(b[:n]))
	}
}

// TestRoundTrip joins random runs of packets and cuts the result again: the same packets in the same order.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		f := &flow{v6: r.IntN(2) == 0, dont: r.IntN(2) == 0, seq: r.Uint32(), id: uint16(r.Uint32())}
		if r.IntN(2) == 0 {
			f.options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
		}
		var in [][]byte
		for range 1 + r.IntN(80) {
			f.flags = 0
			switch r.IntN(20) {
			case 0:
				f.flags = tcpPSH
			case 1:
				f.flags = tcpFIN
			case 2:
				f.tos ^= 2
			case 3:
				f.seq += 100 // a lost packet
			case 4:
				in = append(in, udpPacket(f.v6, []byte("between")))
			case 5:
				f.window++
			case 6:
				f.port++
			}
			in = append(in, f.packet(bytes.Repeat([]byte{byte(r.Uint32())}, []int{1000, 1000, 1000, 1000, 700, 0}[r.IntN(6)])))
		}
		writes, out := joinAndCut(t, in, r.IntN(2) == 0)
		if len(out) != len(in) {
			t.Fatalf("%d packets became %d in %d writes", len(in), len(out), writes)
		}
		in, out = byFlow(in), byFlow(out)
		for i := range in {
			if !bytes.Equal(in[i], out[i]) {
				t.Fatalf("packet %d of %d:\n%x\nwant\n%x", i, len(in), out[i], in[i])
			}
		}
	}
}

// byFlow sorts packets by flow and leaves each flow in its order.
func byFlow(packets [][]byte) [][]byte {
	packets = slices.Clone(packets)
	slices.SortStableFunc(packets, func(a, b []byte) int { return strings.Compare(flowOf(a), flowOf(b)) })
	return packets
}

// joinAndCut sends packets through a coalescer, as with an open checksum or with a right one, and cuts what it writes.
func joinAndCut(t *testing.T, in [][]byte, open bool) (writes int, out [][]byte) {
	t.Helper()
	c := newCoalescer(virtioLen, true, func(b []byte) error {
		writes++
		h, ok := parseVirtio(b)
		if !ok {
			t.Fatal("no header")
		}
		checkHeader(t, h, b[virtioLen:])
		cut, checksum := segments(h, slices.Clone(b[virtioLen:]))
		for _, p := range cut {
			if checksum {
				q, _ := parseInner(p)
				q.fill(p)
			}
			out = append(out, p)
		}
		return nil
	})
	for _, p := range in {
		p = slices.Clone(p)
		if q, ok := parseInner(p); ok && open {
			copy(p[q.transport+q.checksum:], []byte{0xde, 0xad}) // what stands there does not count
		}
		if err := c.send(p, open); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.flush(); err != nil {
		t.Fatal(err)
	}
	return writes, out
}

// checkHeader is what tun_get_user relies on, and more.
func checkHeader(t testing.TB, h virtio, p []byte) {
	t.Helper()
	if h.flags&^virtioNeedsChecksum != 0 {
		t.Fatalf("flags %#x", h.flags)
	}
	if h.flags == 0 {
		if h != (virtio{}) {
			t.Fatalf("header without checksum is not empty: %+v", h)
		}
		return
	}
	in, ok := parseInner(p)
	if !ok || in.end != len(p) || int(h.checksumStart) != in.transport || int(h.checksumOffset) != in.checksum ||
		in.transport+in.checksum+2 > len(p) || int(h.headerLen) > len(p) {
		t.Fatalf("%+v does not fit a packet of %d bytes (%+v)", h, len(p), in)
	}
	if got := binary.BigEndian.Uint16(p[in.transport+in.checksum:]); got != in.pseudo(p) {
		t.Fatalf("checksum field %#x, want the pseudo header's %#x", got, in.pseudo(p))
	}
	switch h.gsoType {
	case gsoNone:
		if h.gsoSize != 0 {
			t.Fatalf("gso size without gso: %+v", h)
		}
	case gsoTCP4, gsoTCP6:
		if (h.gsoType == gsoTCP6) != in.v6 || in.proto != protoTCP || h.gsoSize == 0 || int(h.headerLen) >= len(p) ||
			len(p)-int(h.headerLen) <= int(h.gsoSize) || int(h.headerLen) != in.transport+int(p[in.transport+12]>>4)*4 {
			t.Fatalf("%+v does not fit a packet of %d bytes", h, len(p))
		}
	case gsoUDP:
		if in.proto != protoUDP || h.gsoSize == 0 || int(h.headerLen) != in.transport+udpLen || len(p)-int(h.headerLen) <= int(h.gsoSize) ||
			len(p)-int(h.headerLen) > maxDatagrams*int(h.gsoSize) || int(binary.BigEndian.Uint16(p[in.transport+4:])) != len(p)-in.transport {
			t.Fatalf("%+v does not fit a datagram of %d bytes", h, len(p))
		}
	default:
		t.Fatalf("gso type %d", h.gsoType)
	}
}

func TestCoalesces(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		f := &flow{v6: v6, dont: true}
		var in [][]byte
		for range 45 {
			in = append(in, f.packet(make([]byte, 1348)))
		}
		if writes, _ := joinAndCut(t, in, true); writes != 1 {
			t.Errorf("v6 %v: 45 segments in %d writes, want 1", v6, writes)
		}
		in = append(in, f.packet(make([]byte, 1348)), f.packet(make([]byte, 1348)), f.packet(make([]byte, 1348)), f.packet(make([]byte, 1348)))
		if writes, _ := joinAndCut(t, in, true); writes != 2 {
			t.Errorf("v6 %v: 49 segments, 65.9 KB, in %d writes, want 2", v6, writes)
		}
	}
}

// A wrong checksum must reach the kernel as it is, alone: joined, the kernel would make it right.
func TestWrongChecksumStaysWrong(t *testing.T) {
	t.Parallel()
	f := &flow{}
	in := [][]byte{f.packet(make([]byte, 100)), f.packet(make([]byte, 100)), f.packet(make([]byte, 100))}
	in[1][50] ^= 1
	if _, out := joinAndCut(t, in, false); !slices.EqualFunc(in, out, bytes.Equal) {
		t.Error("packets changed")
	}
}

func TestSendRefuses(t *testing.T) {
	t.Parallel()
	c := newCoalescer(virtioLen, true, func([]byte) error { t.Error("written"); return nil })
	icmp := append(header(false, 1, 8, 1, false, 0), make([]byte, 8)...)
	for _, p := range [][]byte{nil, {0x45}, make([]byte, 40), icmp, append(header(true, 44, 8, 0, false, 0), make([]byte, 8)...)} {
		if err := c.send(p, true); !errors.Is(err, ErrPacket) {
			t.Errorf("%x: %v, want ErrPacket", p, err)
		}
	}
}

func TestSegmentUDP(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		p := udpPacket(v6, bytes.Repeat([]byte("0123456789"), 250))
		out, checksum := segments(virtio{flags: 1, gsoType: gsoUDP, gsoSize: 1200}, p)
		if len(out) != 3 || !checksum {
			t.Fatalf("%d datagrams, checksum open %v", len(out), checksum)
		}
		for i, want := range []int{1200, 1200, 100} {
			in, ok := parseInner(out[i])
			if !ok || in.end != len(out[i]) || len(out[i])-in.transport-udpLen != want ||
				int(binary.BigEndian.Uint16(out[i][in.transport+4:])) != want+udpLen {
				t.Errorf("datagram %d: %d bytes %+v, want payload %d", i, len(out[i]), in, want)
			}
		}
	}
}

func TestSegmentFlags(t *testing.T) {
	t.Parallel()
	f := &flow{flags: tcpPSH | tcpFIN | tcpCWR}
	out, _ := segments(virtio{flags: 1, gsoType: gsoTCP4 | gsoECN, gsoSize: 100}, f.packet(make([]byte, 250)))
	want := []uint8{tcpACK | tcpCWR, tcpACK, tcpACK | tcpPSH | tcpFIN}
	for i, p := range out {
		if p[33] != want[i] {
			t.Errorf("segment %d: flags %#x, want %#x", i, p[33], want[i])
		}
		if slowSum(p[:20]) != 0xffff {
			t.Errorf("segment %d: IPv4 header checksum", i)
		}
	}
	if len(out) != 3 {
		t.Errorf("%d segments", len(out))
	}
}

// A checksum open at a place that one bit cannot name is filled in here.
func TestInnerTunnelChecksum(t *testing.T) {
	t.Parallel()
	p := udpPacket(false, (&flow{}).packet([]byte("inside")))
	inside := p[28:]
	in, _ := parseInner(inside)
	binary.BigEndian.PutUint16(inside[in.transport+in.checksum:], in.pseudo(inside))
	out, checksum := segments(virtio{flags: 1, checksumStart: uint16(28 + in.transport), checksumOffset: 16}, p)
	if len(out) != 1 || checksum {
		t.Fatalf("%d packets, checksum open %v", len(out), checksum)
	}
	if in, _ := parseInner(out[0][28:]); !in.valid(out[0][28:]) {
		t.Error("inner checksum is wrong")
	}
	if out, _ := segments(virtio{flags: 1, checksumStart: 60000, checksumOffset: 16}, p); len(out) != 0 {
		t.Error("a checksum outside the packet is taken")
	}
}

func FuzzSend(f *testing.F) {
	g := &flow{v6: true}
	f.Add((&flow{}).packet(make([]byte, 100)), g.packet(make([]byte, 1300)), true)
	f.Add(udpPacket(true, []byte("x")), udpPacket(false, nil), false)
	f.Add(g.packet(make([]byte, 99)), g.packet(make([]byte, 99)), true)
	f.Fuzz(func(t *testing.T, a, b []byte, checksum bool) {
		if len(a)+len(b) > 200000 {
			return
		}
		c := newCoalescer(maxVirtioLen, true, func(w []byte) error {
			if len(w) < maxVirtioLen+ipv4Len || len(w) > bufferSize {
				t.Fatalf("%d bytes written", len(w))
			}
			h, _ := parseVirtio(w)
			checkHeader(t, h, w[maxVirtioLen:])
			return nil
		})
		for _, p := range [][]byte{a, b, a, b} {
			was := slices.Clone(p)
			_ = c.send(p, checksum)
			if !bytes.Equal(was, p) {
				t.Fatal("the caller's packet was changed")
			}
		}
		_ = c.flush()
	})
}

func FuzzReceive(f *testing.F) {
	h := make([]byte, virtioLen)
	virtio{flags: 1, gsoType: gsoTCP4, gsoSize: 100, headerLen: 40, checksumStart: 20, checksumOffset: 16}.put(h)
	f.Add(slices.Concat(h, (&flow{}).packet(make([]byte, 1000))))
	virtio{flags: 1, gsoType: gsoUDP, gsoSize: 7, checksumStart: 40, checksumOffset: 6}.put(h)
	f.Add(slices.Concat(h, udpPacket(true, make([]byte, 50))))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := parseVirtio(b)
		if !ok {
			return
		}
		var s segmenter
		n := s.load(h, b[virtioLen:])
		out := make([]byte, 2000)
		got := 0
		for {
			k, more := s.packet(out)
			if !more {
				break
			}
			got++
			if k > 0 && s.checksum {
				if in, ok := parseInner(out[:k]); !ok || in.end != k {
					t.Fatalf("segment of %d bytes with an open checksum does not parse: %+v", k, in)
				}
			}
		}
		if got != n {
			t.Fatalf("%d packets, promised %d", got, n)
		}
	})
}

func BenchmarkCut(b *testing.B) {
	p := (&flow{}).packet(make([]byte, 60000))
	out := make([]byte, 2000)
	var s segmenter
	b.ReportAllocs()
	b.SetBytes(60000)
	for b.Loop() {
		s.load(virtio{flags: 1, gsoType: gsoTCP4, gsoSize: 1348}, p)
		for more := true; more; {
			_, more = s.packet(out)
		}
	}
}

func BenchmarkJoin(b *testing.B) {
	for _, open := range []bool{true, false} {
		b.Run(map[bool]string{true: "open", false: "filled"}[open], func(b *testing.B) {
			f := &flow{dont: true}
			var in [][]byte
			for range 45 {
				in = append(in, f.packet(make([]byte, 1348)))
			}
			c := newCoalescer(virtioLen, true, func([]byte) error { return nil })
			b.ReportAllocs()
			b.SetBytes(45 * 1348)
			for b.Loop() {
				for _, p := range in {
					_ = c.send(p, open)
				}
				_ = c.flush()
			}
		})
	}
}
