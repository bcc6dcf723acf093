package tun

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// What Linux does with super-packets and virtio headers, written down from its source, for tests: word by word, with
// nothing shared with the code that is tested.

// put16 and get16 spare the tests a line.
func put16(b []byte, at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }
func get16(b []byte, at int) uint16    { return binary.BigEndian.Uint16(b[at:]) }

// kernelPseudo is the folded sum of the pseudo header of a packet whose transport begins at transport.
func kernelPseudo(p []byte, proto byte, transport int) uint16 {
	addresses := p[12:20]
	if p[0]>>4 == 6 {
		addresses = p[8:40]
	}
	tail := make([]byte, 4)
	put16(tail, 0, uint16(len(p)-transport))
	tail[3] = proto
	var sum [8]byte // the parts' sums, summed
	put16(sum[:], 0, slowSum(addresses))
	put16(sum[:], 2, slowSum(tail))
	return slowSum(sum[:])
}

// kernelFill is skb_checksum_help: the field holds the pseudo header's sum already.
func kernelFill(p []byte, start, offset int) {
	c := ^slowSum(p[start:])
	if c == 0 {
		c = 0xffff
	}
	put16(p, start+offset, c)
}

// kernelCut is inet_gso_segment or ipv6_gso_segment with tcp_gso_segment or __udp_gso_segment, on a packet of which the
// device said where the transport begins.
func kernelCut(p []byte, proto byte, transport, size int) (out [][]byte) {
	header := transport + 8
	if proto == protoTCP {
		header = transport + int(p[transport+12]>>4)*4
	}
	for from, i := header, 0; from < len(p); from, i = from+size, i+1 {
		to := min(from+size, len(p))
		q := slices.Concat(p[:header], p[from:to])
		if q[0]>>4 == 4 {
			put16(q, 2, uint16(len(q)))
			put16(q, 4, get16(p, 4)+uint16(i)) // no SKB_GSO_TCP_FIXEDID from a TUN
			ihl := int(q[0]&15) * 4
			put16(q, 10, 0)
			put16(q, 10, ^slowSum(q[:ihl]))
		} else {
			put16(q, 4, uint16(len(q)-40))
		}
		offset := 6
		if proto == protoTCP {
			offset = 16
			seq := binary.BigEndian.Uint32(p[transport+4:]) + uint32(from-header)
			binary.BigEndian.PutUint32(q[transport+4:], seq)
			if to < len(p) {
				q[transport+13] &^= tcpFIN | tcpPSH
			}
			if i > 0 {
				q[transport+13] &^= tcpCWR
			}
		} else {
			put16(q, transport+4, uint16(len(q)-transport))
		}
		put16(q, transport+offset, kernelPseudo(q, proto, transport))
		kernelFill(q, transport, offset)
		out = append(out, q)
	}
	return out
}

// kernelTake is tun_get_user with virtio_net_hdr_to_skb, and what a receiver sees of the result: packets with their
// checksums. It fails where the kernel says EINVAL, and where it would take what is wrong.
func kernelTake(w []byte, headLen int) ([][]byte, error) {
	h, ok := parseVirtio(w)
	if !ok || len(w) < headLen+20 {
		return nil, fmt.Errorf("%d bytes written", len(w))
	}
	p := slices.Clone(w[headLen:])
	start, offset := int(h.checksumStart), int(h.checksumOffset)
	if h.flags&virtioNeedsChecksum == 0 {
		if h != (virtio{}) {
			return nil, fmt.Errorf("%+v without a checksum to fill in", h)
		}
		return [][]byte{p}, nil
	}
	if int(h.headerLen) > len(p) || start+offset+2 > len(p) {
		return nil, fmt.Errorf("%+v: EINVAL, packet of %d bytes", h, len(p))
	}
	proto := byte(protoTCP)
	if offset == 6 {
		proto = protoUDP
	}
	if got, want := get16(p, start+offset), kernelPseudo(p, proto, start); got%0xffff != want%0xffff {
		return nil, fmt.Errorf("checksum field %#x, want the pseudo header's %#x", got, want)
	}
	if h.gsoType == gsoNone {
		kernelFill(p, start, offset)
		return [][]byte{p}, nil
	}
	if err := kernelTakesSuper(h, p); err != nil {
		return nil, err
	}
	return kernelCut(p, proto, start, int(h.gsoSize)), nil
}

func kernelTakesSuper(h virtio, p []byte) error {
	six, start := p[0]>>4 == 6, int(h.checksumStart)
	next, length := p[9], get16(p, 2)
	if six {
		next, length = p[6], get16(p, 4)+40
	}
	switch {
	case h.gsoType == gsoTCP4 && !six && next == protoTCP && h.checksumOffset == 16:
	case h.gsoType == gsoTCP6 && six && next == protoTCP && h.checksumOffset == 16:
	case h.gsoType == gsoUDP && next == protoUDP && h.checksumOffset == 6:
		if int(get16(p, start+4)) != len(p)-start {
			return fmt.Errorf("UDP length %d of %d", get16(p, start+4), len(p)-start)
		}
		if len(p)-start-8 > int(h.gsoSize)*64 {
			return fmt.Errorf("%+v: EINVAL of kernels before 6.9, more than 64 datagrams", h)
		}
	default:
		return fmt.Errorf("%+v on protocol %d: EINVAL", h, next)
	}
	payload := start + 8
	if h.checksumOffset == 16 {
		payload = start + int(p[start+12]>>4)*4
	}
	if h.gsoSize == 0 || len(p)-payload <= int(h.gsoSize) || int(h.headerLen) != payload {
		return fmt.Errorf("%+v does not fit a packet of %d bytes", h, len(p))
	}
	if int(length) != len(p) {
		return fmt.Errorf("IP length %d of %d", length, len(p))
	}
	if !six && slowSum(p[:int(p[0]&15)*4]) != 0xffff {
		return fmt.Errorf("IPv4 header checksum of a super-packet: %x", p[:20])
	}
	return nil
}

// same reports whether a receiver could not tell got from want. Two things may differ: a TCP checksum of 0 and of 0xffff
// are one number, and the identification of an IPv4 packet that must not be fragmented means nothing (RFC 6864).
func same(got, want []byte) bool {
	if bytes.Equal(got, want) {
		return true
	}
	if len(got) != len(want) {
		return false
	}
	got, want = slices.Clone(got), slices.Clone(want)
	in, ok := parseInner(got)
	if ok && in.proto == protoTCP {
		at := in.transport + 16
		for _, p := range [][]byte{got, want} {
			if get16(p, at) == 0xffff {
				put16(p, at, 0)
			}
		}
	}
	if ok && !in.v6 && got[6]&0x40 != 0 {
		ihl := in.transport
		if slowSum(got[:ihl]) == 0xffff && slowSum(want[:ihl]) == 0xffff {
			for _, p := range [][]byte{got, want} {
				put16(p, 4, 0)
				put16(p, 10, 0)
			}
		}
	}
	return bytes.Equal(got, want)
}
