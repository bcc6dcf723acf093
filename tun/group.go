package tun

import (
	"bytes"
	"encoding/binary"
)

// maxDatagrams is how many UDP datagrams a super-packet may hold: kernels from 6.2 on take 64, later ones 128.
const maxDatagrams = 64

// group is consecutive packets of one flow that become one write.
//
// A packet joins when the kernel, cutting the super-packet, would give it back unchanged: same addresses, ports, TOS or
// class, flow label, TTL, no IP options or extension headers, at most as long as the first. TCP segments also need the
// next sequence number, the same options, acknowledgement and window, and nothing but ACK, ECE and PSH. PSH, a shorter
// packet and a full super-packet end the group. One thing may come out changed: the IPv4 identification of packets that
// must not be fragmented, which means nothing (RFC 6864); where they may be, it has to count up by one.
//
// A group gets its checksums from the kernel, which would make wrong ones right, and give one to a UDP packet that has
// none: filled checksums are verified, not before a second packet comes. A packet that stays alone is written as it came.
type group struct {
	buf  []byte // virtio header and held packets: the first one's header, then payloads
	head int    // of the virtio header

	held   int // length of the super-packet
	in     inner
	header int    // IP and transport header of the super-packet
	size   int    // payload of its first packet
	count  int    // packets in it
	open   bool   // the kernel is to fill its checksums in
	right  bool   // or its first packet's checksum is known to be right
	next   uint32 // TCP sequence number that would continue it
	nextID uint16 // IPv4 identification that would continue it
	closed bool   // nothing may follow
}

// joinable reports whether p may stand in a group at all, and where its payload begins.
func (c *coalescer) joinable(p []byte, in inner) (header int, ok bool) {
	plainHeader := in.transport == ipv6Len
	if !in.v6 { // a header that is wrong would come out right
		plainHeader = in.transport == ipv4Len && fold(sum(p[:ipv4Len], 0)) == 0xffff
	}
	t := p[in.transport:in.end]
	length := udpLen
	switch {
	case !plainHeader:
		return 0, false
	case in.proto == protoTCP:
		length = int(t[12]>>4) * 4
		ok = length >= tcpLen && t[13]&^(tcpPSH|tcpECE) == tcpACK
	default: // bytes behind the datagram (RFC 9868) would become part of it
		ok = int(binary.BigEndian.Uint16(t[4:])) == len(t) && c.joinUDP.Load()
	}
	return in.transport + length, ok && length < len(t) // without payload there is nothing to join
}

// final reports whether nothing can follow p in a group.
func final(p []byte, in inner) bool {
	return in.proto == protoTCP && p[in.transport+13]&tcpPSH != 0
}

// right reports whether the transport checksum of p is filled in and right. A UDP field of 0 says that there is none.
func (in inner) right(p []byte) bool {
	at := in.transport + in.checksum
	return (in.proto == protoTCP || p[at]|p[at+1] != 0) && in.valid(p)
}

// begin makes p the first packet of the group.
func (g *group) begin(p []byte, in inner, header int, open bool) {
	g.held = copy(g.buf[g.head:], p)
	g.in, g.header, g.size, g.count = in, header, len(p)-header, 1
	g.open, g.right, g.closed = open, false, false
	if in.proto == protoTCP {
		g.next = binary.BigEndian.Uint32(p[in.transport+4:]) + uint32(g.size)
	}
	if !in.v6 {
		g.nextID = binary.BigEndian.Uint16(p[4:]) + 1
	}
}

// sameFlow compares protocol, addresses and ports.
func (g *group) sameFlow(p []byte, in inner) bool {
	h := g.buf[g.head:]
	if in.v6 != g.in.v6 || in.proto != g.in.proto || !bytes.Equal(p[in.transport:in.transport+4], h[g.in.transport:g.in.transport+4]) {
		return false
	}
	if in.v6 {
		return bytes.Equal(p[8:40], h[8:40])
	}
	return bytes.Equal(p[12:20], h[12:20])
}

// continues reports whether p, of the same flow, is the next packet of the group.
func (g *group) continues(p []byte, in inner, header int) bool {
	h := g.buf[g.head:]
	if header != g.header || len(p)-header > g.size || g.held+len(p)-header > 65535 {
		return false
	}
	if in.v6 {
		if !bytes.Equal(p[:4], h[:4]) || p[7] != h[7] { // version, class, flow label; hop limit
			return false
		}
	} else {
		same := p[1] == h[1] && bytes.Equal(p[6:9], h[6:9]) // TOS; fragment field, TTL
		dontFragment := p[6]&0x40 != 0
		if !same || !dontFragment && binary.BigEndian.Uint16(p[4:]) != g.nextID {
			return false
		}
	}
	if in.proto == protoUDP {
		return true
	}
	t, f := p[in.transport:header], h[in.transport:header]
	return binary.BigEndian.Uint32(t[4:]) == g.next &&
		bytes.Equal(t[8:13], f[8:13]) && // acknowledgement, offset
		(t[13]^f[13])&^tcpPSH == 0 &&
		bytes.Equal(t[14:16], f[14:16]) && // window
		bytes.Equal(t[18:], f[18:]) // urgent pointer, options
}

// trusted reports whether the checksums of the group and of the packet that continues it may be made anew.
func (g *group) trusted(packet bool) bool {
	if packet && !g.open && !g.right {
		g.right = g.in.right(g.buf[g.head : g.head+g.held])
		return g.right
	}
	return packet
}

func (g *group) join(p []byte, header int) {
	payload := p[header:]
	copy(g.buf[g.head+g.held:], payload)
	g.held += len(payload)
	g.count++
	g.nextID++
	g.closed = len(payload) < g.size || g.held+g.size > 65535
	if g.in.proto == protoUDP {
		g.closed = g.closed || g.count == maxDatagrams
		return
	}
	g.next += uint32(len(payload))
	flags := p[g.in.transport+13] & tcpPSH
	g.buf[g.head+g.in.transport+13] |= flags
	g.closed = g.closed || flags != 0
}

// seal makes the group one packet and returns it with its virtio header.
func (g *group) seal() (virtio, []byte) {
	b := g.buf[:g.head+g.held]
	p := b[g.head:]
	var h virtio
	g.in.end = len(p)
	switch {
	case g.count > 1:
		h = g.super(p)
	case g.open:
		h = open(p, g.in)
	}
	h.put(b[:g.head])
	return h, b
}

// super writes the lengths of a super-packet.
func (g *group) super(p []byte) virtio {
	kind := uint8(gsoTCP4)
	if g.in.v6 {
		kind = gsoTCP6
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipv6Len))
	} else {
		fixIPv4(p, len(p))
	}
	if g.in.proto == protoUDP {
		kind = gsoUDP
		binary.BigEndian.PutUint16(p[g.in.transport+4:], uint16(len(p)-g.in.transport))
	}
	h := open(p, g.in)
	h.gsoType, h.gsoSize, h.headerLen = kind, uint16(g.size), uint16(g.header)
	return h
}
