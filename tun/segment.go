package tun

import "encoding/binary"

// TCP flags, as they stand in byte 13 of the header.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
	tcpURG
	tcpECE
	tcpCWR
)

// segmenter cuts what the kernel handed over into packets: a super-packet into segments, anything else into itself.
type segmenter struct {
	p        []byte
	in       inner
	checksum bool // the packets' checksum is left open
	super    bool // p is to be cut
	header   int  // bytes repeated in front of each segment
	size     int  // payload of each segment but the last
	next     int  // index of the next segment
	count    int
}

// load takes a packet with the kernel's header and returns how many packets next will give; 0 when it makes no sense.
// It changes p and keeps it until the next load.
func (s *segmenter) load(h virtio, p []byte) int {
	*s = segmenter{}
	p, ok := sized(p)
	if !ok {
		return 0
	}
	in, known := parseInner(p)
	if kind := h.gsoType &^ gsoECN; kind != gsoNone {
		return s.loadSuper(h, kind, p, in, known)
	}
	s.p, s.count = p, 1
	if h.flags&virtioNeedsChecksum == 0 {
		return 1
	}
	if known && int(h.checksumStart) == in.transport && int(h.checksumOffset) == in.checksum {
		s.in, s.checksum = in, true
		return 1
	}
	// Open at another place, as in a tunnel inside: one bit can't say that to the far end, so fill it in here; a place in
	// the IP header is none.
	header := ipv6Len
	if p[0]>>4 == 4 {
		header = max(ipv4Len, int(p[0]&15)*4)
	}
	if int(h.checksumStart) < header || !fillAt(p, int(h.checksumStart), int(h.checksumOffset)) {
		s.count = 0
		return 0
	}
	return 1
}

func (s *segmenter) loadSuper(h virtio, kind uint8, p []byte, in inner, known bool) int {
	header := 0
	switch {
	case !known || h.gsoSize == 0:
		return 0
	case (kind == gsoTCP4 && !in.v6 || kind == gsoTCP6 && in.v6) && in.proto == protoTCP:
		length := int(p[in.transport+12]>>4) * 4
		if header = in.transport + length; length < tcpLen || header > in.end {
			return 0
		}
	case kind == gsoUDP && in.proto == protoUDP:
		header = in.transport + udpLen
	default:
		return 0
	}
	payload := in.end - header
	if payload == 0 {
		return 0
	}
	size := int(h.gsoSize)
	*s = segmenter{p: p, in: in, checksum: true, super: payload > size, header: header, size: size}
	s.count = (payload + size - 1) / size
	return s.count
}

// next copies the next packet to b. more is false when there is none left; n is 0 when b was too short for it.
func (s *segmenter) packet(b []byte) (n int, more bool) {
	if s.next >= s.count {
		return 0, false
	}
	i := s.next
	s.next++
	if !s.super {
		if len(s.p) > len(b) {
			return 0, true
		}
		return copy(b, s.p), true
	}
	from := s.header + i*s.size
	to := min(from+s.size, s.in.end)
	n = s.header + to - from
	if n > len(b) {
		return 0, true
	}
	copy(b, s.p[:s.header])
	copy(b[s.header:], s.p[from:to])
	s.fix(b[:n], i)
	return n, true
}

// fix makes the copied header of the super-packet that of segment i.
func (s *segmenter) fix(b []byte, i int) {
	e := binary.BigEndian
	if s.in.v6 {
		e.PutUint16(b[4:], uint16(len(b)-ipv6Len))
	} else {
		e.PutUint16(b[4:], e.Uint16(b[4:])+uint16(i))
		fixIPv4(b, len(b))
	}
	t := b[s.in.transport:]
	if s.in.proto == protoUDP {
		e.PutUint16(t[4:], uint16(len(t)))
		return
	}
	e.PutUint32(t[4:], e.Uint32(t[4:])+uint32(i*s.size))
	if i > 0 {
		t[13] &^= tcpCWR
	}
	if i < s.count-1 {
		t[13] &^= tcpFIN | tcpPSH
	}
}

// fillAt computes the checksum that covers p from start and whose field stands offset behind it and already holds the
// pseudo header's sum.
func fillAt(p []byte, start, offset int) bool {
	if start+offset+2 > len(p) {
		return false
	}
	c := ^fold(sum(p[start:], 0))
	if c == 0 {
		c = 0xffff // the same number in ones' complement, and right for UDP
	}
	binary.BigEndian.PutUint16(p[start+offset:], c)
	return true
}
