package tun

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// source makes what a kernel, or whoever sits behind it, may write to a TUN: packets of every kind, whole and wrong, and
// super-packets, with what has to come out at the other end of a mesh.
type source struct {
	*rand.Rand
	from, to [2]netip.Addr // IPv4, IPv6
	flows    []*stream
	calls    [3]call
	noise    []byte // payloads are taken from it
}

// call is a UDP flow of datagrams that are mostly of one size.
type call struct {
	v6        bool
	size      int
	id        uint16
	dont      bool
	tos, ttl  byte
	flowLabel byte
}

// stream is a TCP connection in the middle of its life.
type stream struct {
	flow
	ttl     byte
	class   byte   // what the reserved bits and AE of byte 12 hold
	extend  []byte // IPv4 options
	hop     bool   // IPv6 hop-by-hop header
	ack     uint32
	segment int
}

// item is one read of a TUN: a virtio header, the packet, and the packets to expect; none where it must be dropped.
type item struct {
	name string
	h    virtio
	p    []byte
	want [][]byte
}

func newSource(seed uint64, from4, from6, to4, to6 netip.Addr) *source {
	g := &source{
		Rand: rand.New(rand.NewPCG(seed, 9)), from: [2]netip.Addr{from4, from6}, to: [2]netip.Addr{to4, to6},
		noise: make([]byte, 1<<17),
	}
	for i := 0; i < len(g.noise); i += 8 {
		binary.LittleEndian.PutUint64(g.noise[i:], g.Uint64())
	}
	for i := range 6 {
		g.flows = append(g.flows, g.stream(uint16(i)))
	}
	for i := range g.calls {
		g.calls[i] = g.call()
	}
	return g
}

func (g *source) one(n int) bool { return g.IntN(n) == 0 }

// bytes returns n bytes that belong to nobody; they must not be written to.
func (g *source) bytes(n int) []byte {
	at := g.IntN(len(g.noise) - n)
	return g.noise[at : at+n]
}

func (g *source) stream(port uint16) *stream {
	s := &stream{ttl: byte(1 + g.IntN(255)), segment: []int{1, 8, 100, 536, 1228, 1348, 1360, 8948}[g.IntN(8)]}
	s.v6, s.seq, s.id, s.port, s.dont = g.one(2), g.Uint32(), uint16(g.Uint32()), port, g.one(2)
	switch g.IntN(3) {
	case 0:
		s.options = []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	case 1: // with a SACK block
		s.options = append([]byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1, 5, 10}, g.bytes(8)...)
	}
	if g.one(6) {
		s.extend, s.hop = []byte{7, 7, 4, 0, 0, 0, 0, 0}, true // record route
	}
	if g.one(6) {
		s.class = byte(g.IntN(16))
	}
	if g.one(4) {
		s.seq = -uint32(g.IntN(5000)) // wraps soon
	}
	return s
}

// ip puts an IP header with right lengths and header checksum before a transport.
func (g *source) ip(v6 bool, proto byte, transport, options []byte) []byte {
	if v6 {
		b := make([]byte, 40, 40+len(options)+len(transport))
		b[0], b[6], b[7] = 0x60, proto, 64
		put16(b, 4, uint16(len(options)+len(transport)))
		copy(b[8:], g.from[1].AsSlice())
		copy(b[24:], g.to[1].AsSlice())
		return append(append(b, options...), transport...)
	}
	b := make([]byte, 20, 20+len(options)+len(transport))
	b[0], b[8], b[9] = byte(0x45+len(options)/4), 64, proto
	put16(b, 2, uint16(20+len(options)+len(transport)))
	put16(b, 4, uint16(g.Uint32()))
	copy(b[12:], g.from[0].AsSlice())
	copy(b[16:], g.to[0].AsSlice())
	b = append(append(b, options...), transport...)
	return headerSum(b)
}

// headerSum makes the IPv4 header checksum right.
func headerSum(p []byte) []byte {
	put16(p, 10, 0)
	put16(p, 10, ^slowSum(p[:int(p[0]&15)*4]))
	return p
}

// tcp makes the next packet of a stream with an open checksum: the field holds the pseudo header's sum.
func (g *source) tcp(s *stream, flags byte, n int) (p []byte, at int) {
	t := make([]byte, tcpLen, tcpLen+len(s.options)+n)
	put16(t, 0, 1000+s.port)
	put16(t, 2, 80)
	binary.BigEndian.PutUint32(t[4:], s.seq)
	binary.BigEndian.PutUint32(t[8:], s.ack)
	t[12], t[13] = byte((tcpLen+len(s.options))/4<<4)|s.class, flags
	put16(t, 14, 500+s.window)
	t = append(append(t, s.options...), g.bytes(n)...)
	proto, options := byte(protoTCP), s.extend
	if s.v6 {
		if options = nil; s.hop {
			proto, options = 0, []byte{protoTCP, 0, 1, 4, 0, 0, 0, 0}
		}
	}
	p = g.ip(s.v6, proto, t, options)
	at = len(p) - len(t)
	if s.v6 {
		p[0], p[1], p[7] = 0x60|s.tos>>4, s.tos<<4|p[1], s.ttl
	} else {
		p[1], p[8] = s.tos, s.ttl
		if put16(p, 4, s.id); s.dont {
			p[6] = 0x40
		}
		headerSum(p)
	}
	put16(p, at+16, kernelPseudo(p, protoTCP, at))
	s.seq += uint32(n)
	s.id++
	return p, at
}

// flags are mostly those of data under way.
func (g *source) flags() byte {
	switch g.IntN(12) {
	case 0:
		return tcpACK | tcpPSH
	case 1:
		return tcpACK | tcpFIN
	case 2:
		return tcpACK | tcpECE
	case 3:
		return tcpACK | tcpCWR
	case 4:
		return byte(g.Uint32())
	}
	return tcpACK
}

// next makes one read of the TUN.
func (g *source) next() item {
	switch n := g.IntN(20); {
	case n < 6:
		return g.tcpSuper()
	case n < 12:
		return g.tcpSingle()
	case n < 14:
		return g.udpSuper()
	case n < 15:
		return g.udpSingle()
	case n < 17:
		return g.udpNext()
	case n < 18:
		return g.other()
	case n < 19:
		return g.wrong()
	}
	return g.fragment()
}

// pick takes a stream and changes it a little at times, as streams do.
func (g *source) pick() *stream {
	i := g.IntN(len(g.flows))
	if g.IntN(3) > 0 {
		i = 0 // runs of one flow
	}
	if g.one(60) {
		g.flows[i] = g.stream(uint16(i))
	}
	s := g.flows[i]
	switch g.IntN(40) {
	case 0:
		s.window++
	case 1:
		s.tos ^= byte(1 + g.IntN(3))
	case 2:
		s.tos ^= 0x20
	case 3:
		s.seq += 100 // lost before us
	case 4:
		s.seq -= 100 // once more
	case 5:
		s.id += 7
	case 6:
		s.dont = !s.dont
	case 7:
		s.ttl++
		s.ttl = max(s.ttl, 1)
	case 8:
		s.id, s.dont = 0, true // as BSDs send
	case 9:
		s.options = nil
	case 10:
		s.class ^= 1
	case 11:
		s.ack++
	case 12:
		if s.options = slices.Clone(s.options); len(s.options) > 8 {
			s.options[7]++ // timestamp
		}
	}
	return s
}

func (g *source) tcpSuper() item {
	s := g.pick()
	n := g.count(s.segment, 60+len(s.options)+40)
	p, at := g.tcp(s, g.flags(), n)
	s.id += uint16((n - 1) / s.segment)
	h := virtio{virtioNeedsChecksum, gsoTCP4, uint16(g.IntN(len(p) + 1)), uint16(s.segment), uint16(at), 16}
	if s.v6 {
		h.gsoType = gsoTCP6
	}
	if p[at+13]&tcpCWR != 0 {
		h.gsoType |= gsoECN
	}
	return item{"TCP super-packet", h, p, kernelCut(p, protoTCP, at, s.segment)}
}

// count is the payload of a super-packet: mostly a few segments, at times all that an IP packet holds.
func (g *source) count(size, header int) int {
	most := 65535 - header
	n := size*g.IntN(6) + 1 + g.IntN(size)
	if size > 500 && g.one(40) || g.one(2000) {
		if n = most; g.one(2) {
			n -= n % size // the next one could join
		}
	}
	return min(n, most, 3000*size)
}

func (g *source) tcpSingle() item {
	s := g.pick()
	n := s.segment
	switch g.IntN(6) {
	case 0:
		n = 0
	case 1:
		n = g.IntN(s.segment + 1)
	}
	flags := g.flags()
	p, at := g.tcp(s, flags, n)
	if flags&tcpURG != 0 {
		put16(p, at+18, 1)
	}
	it := item{name: "TCP", p: p}
	g.checksum(&it, protoTCP, at, 16)
	if s.v6 || !g.one(40) {
		return it
	}
	it.name = "TCP with a wrong IPv4 header checksum"
	for _, q := range [][]byte{it.p, it.want[0]} {
		q[11] ^= 1
	}
	return it
}

// checksum decides what state the checksum is in: open, right or wrong.
func (g *source) checksum(it *item, proto byte, at, offset int) {
	filled := slices.Clone(it.p)
	put16(filled, at+offset, kernelPseudo(it.p, proto, at))
	kernelFill(filled, at, offset)
	switch g.IntN(5) {
	case 0, 1:
		it.h = virtio{flags: virtioNeedsChecksum, headerLen: uint16(g.IntN(100)), checksumStart: uint16(at), checksumOffset: uint16(offset)}
		it.want = [][]byte{filled}
		return
	case 2:
		it.name += ", wrong checksum"
		filled[at+offset] ^= byte(1 + g.IntN(255))
	default:
		if g.one(2) {
			it.h.flags = 2 // VIRTIO_NET_HDR_F_DATA_VALID
		}
	}
	it.p, it.want = filled, [][]byte{slices.Clone(filled)}
}

func (g *source) udp(n int, options []byte) (p []byte, at int) {
	v6 := g.one(2)
	t := make([]byte, udpLen, udpLen+n)
	put16(t, 0, uint16(5000+g.IntN(2)))
	put16(t, 2, 53)
	put16(t, 4, uint16(udpLen+n))
	if v6 {
		options = nil
	}
	p = g.ip(v6, protoUDP, append(t, g.bytes(n)...), options)
	at = len(p) - udpLen - n
	put16(p, at+6, kernelPseudo(p, protoUDP, at))
	if n > 1 && g.one(20) {
		zeroSum(p, at, at+udpLen)
	}
	return p, at
}

// zeroSum sets two bytes at so that the checksum over p from start becomes 0, which UDP says as 0xffff.
func zeroSum(p []byte, start, at int) {
	put16(p, at, 0)
	put16(p, at, ^slowSum(p[start:]))
}

func (g *source) udpSuper() item {
	size := []int{1, 8, 172, 1200, 1372}[g.IntN(5)]
	n := size*g.IntN(5) + 1 + g.IntN(size)
	p, at := g.udp(n, nil)
	h := virtio{virtioNeedsChecksum, gsoUDP, uint16(len(p) - n), uint16(size), uint16(at), 6}
	return item{"UDP super-packet", h, p, kernelCut(p, protoUDP, at, size)}
}

func (g *source) udpSingle() item {
	n := g.IntN(1400)
	if g.one(4) {
		n = 0
	}
	if g.one(100) {
		n = g.IntN(65000)
	}
	var options []byte
	if g.one(4) {
		options = []byte{0x94, 4, 0, 0} // router alert
	}
	p, at := g.udp(n, options)
	it := item{name: "UDP", p: p}
	g.checksum(&it, protoUDP, at, 6)
	if it.h.flags&virtioNeedsChecksum == 0 && p[0]>>4 == 4 && g.one(4) {
		it.name = "UDP without a checksum"
		for _, q := range [][]byte{it.p, it.want[0]} {
			put16(q, at+6, 0)
		}
	}
	return it
}

func (g *source) call() call {
	return call{
		v6: g.one(2), size: []int{1, 160, 1200, 1350}[g.IntN(4)], id: uint16(g.Uint32()), dont: g.one(2),
		tos: byte(g.IntN(4)), ttl: byte(1 + g.IntN(255)), flowLabel: byte(g.Uint32()),
	}
}

// udpNext is the next datagram of a call, which changes a little at times.
func (g *source) udpNext() item {
	i := g.IntN(len(g.calls))
	if g.IntN(3) > 0 {
		i = 0 // runs of one flow
	}
	if g.one(80) {
		g.calls[i] = g.call()
	}
	c := &g.calls[i]
	n := c.size
	switch g.IntN(40) {
	case 0:
		n = 0
	case 1:
		n = g.IntN(c.size + 1)
	case 2:
		n = c.size + 1 + g.IntN(100)
	case 3:
		c.tos ^= byte(1 + g.IntN(3))
	case 4:
		c.ttl = max(c.ttl+1, 1)
	case 5:
		c.id += 7
	case 6:
		c.dont = !c.dont
	case 7:
		c.id, c.dont = 0, true
	case 8:
		c.flowLabel++
	}
	t := make([]byte, udpLen, udpLen+n)
	put16(t, 0, uint16(7000+i))
	put16(t, 2, 7000)
	put16(t, 4, uint16(udpLen+n))
	it := item{name: "datagram of a call", p: g.ip(c.v6, protoUDP, append(t, g.bytes(n)...), nil)}
	p, at := it.p, 20
	if c.v6 {
		at = 40
		p[0], p[1], p[2], p[7] = 0x60|c.tos>>4, c.tos<<4, c.flowLabel, c.ttl
	} else {
		p[1], p[8] = c.tos, c.ttl
		if put16(p, 4, c.id); c.dont {
			p[6] = 0x40
		}
		headerSum(p)
	}
	c.id++
	put16(p, at+6, kernelPseudo(p, protoUDP, at))
	if n > 1 && g.one(20) {
		zeroSum(p, at, at+udpLen)
	}
	if n > 1 && g.one(40) {
		it.name += " that ends before its packet (RFC 9868)"
		put16(p, at+4, uint16(udpLen+n-1))
	}
	g.checksum(&it, protoUDP, at, 6)
	if !c.v6 && it.h.flags&virtioNeedsChecksum == 0 && g.one(8) {
		it.name += ", without a checksum"
		for _, q := range [][]byte{it.p, it.want[0]} {
			put16(q, at+6, 0)
		}
	}
	return it
}

// other is what is neither TCP nor UDP, or hides it.
func (g *source) other() item {
	v6 := g.one(2)
	body := g.bytes(8 + g.IntN(600))
	whole := func(name string, p []byte) item { return item{name: name, p: p, want: [][]byte{slices.Clone(p)}} }
	switch g.IntN(7) {
	case 0:
		return whole("no transport at all", g.ip(v6, 59, nil, nil))
	case 1: // behind an IPv6 routing header that is done, the checksum open at a place that is not named to the far end
		t := make([]byte, udpLen, udpLen+len(body))
		put16(t, 4, uint16(udpLen+len(body)))
		p := g.ip(true, 43, append(t, body...), []byte{protoUDP, 0, 4, 0, 0, 0, 0, 0})
		put16(p, 48+6, kernelPseudo(p, protoUDP, 48))
		want := slices.Clone(p)
		kernelFill(want, 48, 6)
		return item{"open checksum behind a routing header", virtio{flags: 1, checksumStart: 48, checksumOffset: 6}, p, [][]byte{want}}
	case 2: // VXLAN: the checksum inside is open
		p, at := g.udp(200, nil)
		put16(p, at+6, 0)
		if g.one(2) {
			zeroSum(p, at+60, at+100)
		}
		want := slices.Clone(p)
		kernelFill(want, at+60, 16)
		return item{"open checksum in a tunnel", virtio{flags: 1, checksumStart: uint16(at + 60), checksumOffset: 16}, p, [][]byte{want}}
	case 3:
		p, _ := g.udp(30, nil)
		it := whole("bytes behind the packet", p)
		it.p = append(slices.Clone(p), g.bytes(1+g.IntN(60))...)
		return it
	case 4: // destination options twice, then ICMPv6
		return whole("extension headers", g.ip(true, 0, body, []byte{60, 0, 1, 4, 0, 0, 0, 0, 58, 1, 1, 4, 0, 0, 0, 0, 1, 6, 0, 0, 0, 0, 0, 0}))
	}
	proto := []byte{1, 2, 47, 50, 51, 58, 89, 132, 136, 255}[g.IntN(10)]
	return whole("protocol", g.ip(v6, proto, body, nil))
}

func (g *source) fragment() item {
	body := g.bytes(8 * (1 + g.IntN(100)))
	var p []byte
	if at := uint16(g.IntN(3) * 100); g.one(2) {
		f := []byte{protoTCP, 0, 0, 0, 0, 0, 0, 7}
		put16(f, 2, at<<3|1)
		p = g.ip(true, 44, body, f)
	} else {
		p = g.ip(false, protoTCP, body, nil)
		if s := g.pick(); at == 0 && !s.v6 { // looks like the next segment
			q, transport := g.tcp(s, tcpACK, s.segment)
			kernelFill(q, transport, 16)
			p = q
		}
		put16(p, 6, 0x2000|at)
		headerSum(p)
	}
	return item{name: "fragment", p: p, want: [][]byte{slices.Clone(p)}}
}

// wrong is what must not come out anywhere.
func (g *source) wrong() item {
	p, at := g.udp(100, nil)
	six := p[0]>>4 == 6
	it := item{name: "wrong", p: p}
	super := func(kind uint8, size, start, offset int) {
		it.h = virtio{virtioNeedsChecksum, kind, 40, uint16(size), uint16(start), uint16(offset)}
	}
	switch g.IntN(16) {
	case 0:
		it.p = p[:g.IntN(len(p))]
	case 1:
		p[0] = p[0]&15 | byte([]int{0, 1, 2, 3, 5, 7, 8, 15}[g.IntN(8)])<<4
	case 2:
		it.p = g.ip(six, []byte{4, 41}[g.IntN(2)], p, nil)
	case 3: // source routes, and options that end nowhere
		options := [][]byte{{131, 7, 4, 10, 9, 9, 9, 0}, {137, 7, 4, 10, 9, 9, 9, 0}, {7, 0, 0, 0}, {7, 9, 0, 0}, {1, 1, 1, 7}}
		it.p = g.ip(false, protoUDP, p[at:], options[g.IntN(5)])
	case 4:
		it.p = g.ip(true, 43, p[at:], []byte{protoUDP, 0, 0, 1, 0, 0, 0, 0})
	case 5: // a jumbogram: length 0
		it.p = g.ip(true, 0, p[at:], []byte{protoUDP, 0, 0xc2, 4, 0, 1, 0, 0})
		put16(it.p, 4, 0)
	case 6:
		it.p = g.ip(true, 60, nil, []byte{protoUDP, byte(1 + g.IntN(255)), 1, 4, 0, 0, 0, 0})
	case 7:
		super(gsoTCP4, 50, at, 16)
	case 8:
		super(gsoUDP, 0, at, 6)
	case 9:
		super(uint8(3+g.IntN(2)*120), 50, at, 6) // UFO, and what does not exist
	case 10:
		super(gsoNone, 0, len(p)-g.IntN(8), 6)
		it.h.checksumStart += uint16(g.IntN(60000))
	case 11: // a TCP header that is longer than the packet
		s := g.stream(g.flows[0].port)
		it.p, at = g.tcp(s, tcpACK, 10)
		it.p[at+12] = byte([]int{0x40, 0xf0}[g.IntN(2)])
		super(gsoTCP4, 5, at, 16)
		if s.v6 {
			it.h.gsoType = gsoTCP6
		}
	case 12:
		p = g.ip(false, protoTCP, p[at:], nil)
		copy(p[12+4*g.IntN(2):], [][]byte{{224, 0, 0, 1}, {255, 255, 255, 255}, {127, 0, 0, 1}, {0, 0, 0, 0}, {169, 254, 1, 1}}[g.IntN(5)])
		it.p = headerSum(p)
	case 13:
		p = g.ip(true, protoTCP, p[at:], nil)
		a := [][]byte{{0xff, 2}, {0xfe, 0x80}, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, {0x20, 1}}[g.IntN(4)]
		at := 8
		if g.one(2) {
			at = 24
		}
		clear(p[at : at+16])
		copy(p[at:], a)
		it.p = p
	case 14: // no payload to cut
		it.p, at = g.udp(0, nil)
		super(gsoUDP, 10, at, 6)
	default: // not a header's length
		it.p = nil
	}
	return it
}
