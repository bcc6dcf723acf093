package tun

import (
	"bytes"
	"encoding/binary"
)

// coalescer joins consecutive TCP segments of one flow into a super-packet, and writes packets with a virtio header of
// its own making. One group is held at a time, so packets never change their order.
//
// A segment joins the group when the kernel's TSO would give it back unchanged: same addresses, ports, TOS, TTL, flags,
// options, acknowledgement and window, the next sequence number, at most as long as the first, and nothing but ACK and
// PSH. PSH, or a shorter segment, ends the group. Anything else is written alone after the group. One thing may come out
// changed: the IPv4 identification of packets that must not be fragmented, which means nothing (RFC 6864).
type coalescer struct {
	write   func(b []byte) error
	headLen int    // of the virtio header
	buf     []byte // virtio header and held packet

	held   int // length of the held packet in buf, 0 when there is none
	in     inner
	header int    // IP and TCP header of the held packet
	size   int    // payload of its first segment
	count  int    // segments in it
	next   uint32 // sequence number that would continue it
	nextID uint16 // IPv4 identification that would continue it
	closed bool
}

func newCoalescer(headLen int, write func(b []byte) error) *coalescer {
	return &coalescer{write: write, headLen: headLen, buf: make([]byte, bufferSize)}
}

// send takes a packet; see Device.Send.
func (c *coalescer) send(p []byte, checksum bool) error {
	p, ok := sized(p)
	if !ok {
		return ErrPacket
	}
	in, known := parseInner(p)
	if checksum && !known {
		return ErrPacket
	}
	header, joinable := 0, false
	if known && in.proto == protoTCP {
		header, joinable = joinableTCP(p, in)
		// What we join gets its checksum from the kernel anew, so a wrong one must not be among it.
		joinable = joinable && (checksum || in.valid(p))
	}
	if joinable && c.held > 0 && c.continues(p, in, header) {
		c.join(p, header)
		return nil
	}
	err := c.flush()
	c.hold(p, in, header, known && (checksum || joinable))
	if !joinable {
		if e := c.flush(); e != nil {
			return e
		}
	}
	return err
}

// joinableTCP reports whether p may stand in a group at all, and where its payload begins.
func joinableTCP(p []byte, in inner) (header int, ok bool) {
	t := p[in.transport:in.end]
	length := int(t[12]>>4) * 4
	if length < tcpLen || length >= len(t) { // no payload: nothing to join
		return 0, false
	}
	plainHeader := in.transport == ipv6Len
	if !in.v6 { // a header that is wrong would come out right
		plainHeader = in.transport == ipv4Len && fold(sum(p[:ipv4Len], 0)) == 0xffff
	}
	return in.transport + length, plainHeader && t[13]&^tcpPSH == tcpACK
}

// continues reports whether p is the next segment of the held group.
func (c *coalescer) continues(p []byte, in inner, header int) bool {
	h := c.buf[c.headLen:]
	if c.closed || header != c.header || in.v6 != c.in.v6 || len(p)-header > c.size || c.held+len(p)-header > 65535 {
		return false
	}
	if in.v6 {
		// version, class, flow label; next header, hop limit, addresses
		if !bytes.Equal(p[:4], h[:4]) || !bytes.Equal(p[6:ipv6Len], h[6:ipv6Len]) {
			return false
		}
	} else {
		// version, TOS; fragment field, TTL, protocol; addresses
		same := p[1] == h[1] && bytes.Equal(p[6:10], h[6:10]) && bytes.Equal(p[12:20], h[12:20])
		dontFragment := p[6]&0x40 != 0
		if !same || !dontFragment && binary.BigEndian.Uint16(p[4:]) != c.nextID {
			return false
		}
	}
	t, g := p[in.transport:header], h[in.transport:header]
	return binary.BigEndian.Uint32(t[4:]) == c.next &&
		bytes.Equal(t[:4], g[:4]) && // ports
		bytes.Equal(t[8:13], g[8:13]) && // acknowledgement, offset; the flags are ACK by joinableTCP
		bytes.Equal(t[14:16], g[14:16]) && // window
		bytes.Equal(t[18:], g[18:]) // urgent pointer, options
}

func (c *coalescer) join(p []byte, header int) {
	payload := p[header:]
	copy(c.buf[c.headLen+c.held:], payload)
	c.held += len(payload)
	c.count++
	c.next += uint32(len(payload))
	c.nextID++
	flags := p[c.in.transport+13]
	c.buf[c.headLen+c.in.transport+13] |= flags & tcpPSH
	c.closed = len(payload) < c.size || flags&tcpPSH != 0
}

// hold makes p the held packet. open says that the kernel is to fill in its checksum.
func (c *coalescer) hold(p []byte, in inner, header int, open bool) {
	c.held = copy(c.buf[c.headLen:], p)
	c.in, c.header, c.count = in, header, 1
	if !open {
		c.in = inner{}
		return
	}
	if in.proto != protoTCP || header == 0 {
		return
	}
	c.size = len(p) - header
	c.next = binary.BigEndian.Uint32(p[in.transport+4:]) + uint32(c.size)
	if !in.v6 {
		c.nextID = binary.BigEndian.Uint16(p[4:]) + 1
	}
	c.closed = p[in.transport+13]&tcpPSH != 0
}

// flush writes the held packet.
func (c *coalescer) flush() error {
	if c.held == 0 {
		return nil
	}
	b := c.buf[:c.headLen+c.held]
	p := b[c.headLen:]
	c.held = 0
	var h virtio
	if c.in.transport > 0 {
		c.in.end = len(p)
		h = virtio{
			flags: virtioNeedsChecksum, checksumStart: uint16(c.in.transport), checksumOffset: uint16(c.in.checksum),
			headerLen: uint16(c.in.transport),
		}
		if c.count > 1 {
			h.gsoType, h.gsoSize, h.headerLen = gsoTCP4, uint16(c.size), uint16(c.header)
			if c.in.v6 {
				h.gsoType = gsoTCP6
				binary.BigEndian.PutUint16(p[4:], uint16(len(p)-ipv6Len))
			} else {
				fixIPv4(p, len(p))
			}
		}
		binary.BigEndian.PutUint16(p[c.in.transport+c.in.checksum:], c.in.pseudo(p))
	}
	h.put(b[:c.headLen])
	return c.write(b)
}
