package tun

import (
	"encoding/binary"
	"math/bits"
)

const (
	protoTCP = 6
	protoUDP = 17

	ipv4Len = 20
	ipv6Len = 40
	tcpLen  = 20
	udpLen  = 8

	// maxExtensions bounds the walk over IPv6 extension headers; real packets have at most two.
	maxExtensions = 4
)

// inner is where things are in an IP packet: the result of a parse that trusted nothing.
type inner struct {
	v6        bool
	proto     uint8
	transport int // offset of the TCP or UDP header
	checksum  int // offset of the checksum in that header
	end       int // length of the packet by its own IP header, ≤ len(p)
}

// parseInner finds the TCP or UDP header of p. ok is false for all else: other protocols, fragments, lengths that do
// not fit, extension headers other than hop-by-hop and destination options.
func parseInner(p []byte) (in inner, ok bool) {
	if len(p) < ipv4Len {
		return inner{}, false
	}
	switch p[0] >> 4 {
	case 4:
		ihl := int(p[0]&15) * 4
		in.end = int(binary.BigEndian.Uint16(p[2:]))
		if ihl < ipv4Len || in.end < ihl || in.end > len(p) || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
			return inner{}, false
		}
		in.proto, in.transport = p[9], ihl
	case 6:
		if !in.parseV6(p) {
			return inner{}, false
		}
	default:
		return inner{}, false
	}
	switch {
	case in.proto == protoTCP && in.end-in.transport >= tcpLen:
		in.checksum = 16
	case in.proto == protoUDP && in.end-in.transport >= udpLen:
		in.checksum = 6
	default:
		return inner{}, false
	}
	return in, true
}

func (in *inner) parseV6(p []byte) bool {
	if len(p) < ipv6Len {
		return false
	}
	in.v6 = true
	in.end = ipv6Len + int(binary.BigEndian.Uint16(p[4:]))
	if in.end > len(p) {
		return false
	}
	in.proto, in.transport = p[6], ipv6Len
	for range maxExtensions {
		if in.proto != 0 && in.proto != 60 {
			return true
		}
		if in.end-in.transport < 8 {
			return false
		}
		next, length := p[in.transport], 8*(1+int(p[in.transport+1]))
		if in.end-in.transport < length {
			return false
		}
		in.proto, in.transport = next, in.transport+length
	}
	return false
}

// pseudo is the folded sum of the pseudo header with the transport length: what the kernel wants in the checksum field
// of a packet whose checksum it is to fill in.
func (in inner) pseudo(p []byte) uint16 {
	length := uint64(in.end - in.transport)
	addresses := p[12:20]
	if in.v6 {
		addresses = p[8:40]
	}
	return fold(sum(addresses, length+uint64(in.proto)))
}

// fill computes the transport checksum of p and writes it.
func (in inner) fill(p []byte) {
	at := in.transport + in.checksum
	binary.BigEndian.PutUint16(p[at:], in.pseudo(p))
	c := ^fold(sum(p[in.transport:in.end], 0))
	if c == 0 && in.proto == protoUDP {
		c = 0xffff // 0 says "no checksum" in UDP
	}
	binary.BigEndian.PutUint16(p[at:], c)
}

// valid reports whether the transport checksum of p is right.
func (in inner) valid(p []byte) bool {
	return fold(sum(p[in.transport:in.end], uint64(in.pseudo(p)))) == 0xffff
}

// fixIPv4 writes the length and the header checksum of the IPv4 header.
func fixIPv4(p []byte, total int) {
	ihl := int(p[0]&15) * 4
	binary.BigEndian.PutUint16(p[2:], uint16(total))
	binary.BigEndian.PutUint16(p[10:], 0)
	binary.BigEndian.PutUint16(p[10:], ^fold(sum(p[:ihl], 0)))
}

// sum adds b as big-endian 16-bit words in ones' complement, 64 bits at a time; fold makes 16 bits of it (RFC 1071).
func sum(b []byte, start uint64) uint64 {
	acc, carry := start, uint64(0)
	for len(b) >= 32 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b[24:]), carry)
		acc += carry
		b = b[32:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(b), 0)
		acc += carry
		b = b[8:]
	}
	if len(b) > 0 {
		var tail [8]byte
		copy(tail[:], b)
		acc, carry = bits.Add64(acc, binary.BigEndian.Uint64(tail[:]), 0)
		acc += carry
	}
	return acc
}

func fold(v uint64) uint16 {
	v = v>>32 + v&0xffffffff
	v = v>>32 + v&0xffffffff
	v = v>>16 + v&0xffff
	v = v>>16 + v&0xffff
	return uint16(v)
}

// sized returns p without what lies behind its IP length; ok is false when p is no whole IP packet.
func sized(p []byte) (_ []byte, ok bool) {
	if len(p) < ipv4Len {
		return nil, false
	}
	n := 0
	switch p[0] >> 4 {
	case 4:
		n = int(binary.BigEndian.Uint16(p[2:]))
		if n < ipv4Len {
			return nil, false
		}
	case 6:
		if len(p) < ipv6Len {
			return nil, false
		}
		n = ipv6Len + int(binary.BigEndian.Uint16(p[4:]))
	}
	if n == 0 || n > len(p) {
		return nil, false
	}
	return p[:n], true
}
