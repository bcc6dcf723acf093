package forward

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"
)

// Whoever sends to where its grants do not lead is told so by ICMP, as a router with a filter would tell: a program that
// opens a private address behind an exit fails at once then, instead of waiting for its own timeout.
const (
	// prohibitsPerSecond bounds these answers, of all loops together (RFC 4443, 2.4 f).
	prohibitsPerSecond = 100

	protoICMP   = 1
	protoICMPv6 = 58
	icmpHeader  = 8
	icmpTTL     = 64
	// What an answer has at most: RFC 1812, 4.3.2.3 and RFC 4443, 2.4 c.
	icmpMost4 = 576
	icmpMost6 = 1280
)

// rate counts events of the second under way; several goroutines may ask.
type rate struct {
	second atomic.Int64
	used   atomic.Int32
}

// take reports whether there were fewer than most in this second.
func (r *rate) take(now time.Duration, most int32) bool {
	s := int64(now / time.Second)
	if old := r.second.Load(); old != s && r.second.CompareAndSwap(old, s) {
		r.used.Store(0)
	}
	return r.used.Add(1) <= most
}

// prohibit answers a packet that its sender may not have delivered.
func (w *Worker) prohibit(now time.Duration, p []byte, in inner) {
	if !answerable(p) || !w.plane.prohibits.take(now, prohibitsPerSecond) {
		return
	}
	w.Originate(now, prohibited(p, in, w.plane.address), false)
}

// answerable refuses what ICMP must not answer (RFC 1812, 4.3.2.7; RFC 4443, 2.4 e): errors, and pieces but the first. That
// addresses mean one host each, parseInner has seen.
func answerable(p []byte) bool {
	if p[0]>>4 == 4 {
		if binary.BigEndian.Uint16(p[6:])&0x1fff != 0 {
			return false
		}
		at := int(p[0]&15) * 4
		if p[9] != protoICMP {
			return true
		}
		return at < len(p) && (p[at] == 0 || p[at] == 8 || p[at] >= 13) // echo, timestamp; the others are errors
	}
	proto, at, ok := transport6(p)
	if !ok || proto == protoFragment && binary.BigEndian.Uint16(p[at+2:])>>3 != 0 {
		return false
	}
	if proto == protoFragment {
		proto, at = p[at], at+8
	}
	return proto != protoICMPv6 || at < len(p) && p[at] >= 128
}

// prohibited makes the answer: destination unreachable, administratively prohibited. For IPv4 it comes from the
// destination itself, since that is what the far end has a route and a grant for; for IPv6 from our mesh address.
func prohibited(p []byte, in inner, own netip.Addr) []byte {
	if in.src.Is4() {
		quote := p[:min(len(p), icmpMost4-20-icmpHeader)]
		b := make([]byte, 20+icmpHeader, 20+icmpHeader+len(quote))
		b[0], b[1], b[8], b[9] = 4<<4|5, 6<<5, icmpTTL, protoICMP // precedence internetwork control
		b[6] = 0x40                                               // don't fragment: then the id may be 0 (RFC 6864)
		binary.BigEndian.PutUint16(b[2:], uint16(cap(b)))
		copy(b[12:], p[16:20])
		copy(b[16:], p[12:16])
		binary.BigEndian.PutUint16(b[10:], ^fold(addWords(0, b[:20])))
		b[20], b[21] = 3, 13
		b = append(b, quote...)
		binary.BigEndian.PutUint16(b[22:], ^fold(addWords(0, b[20:])))
		return b
	}
	quote := p[:min(len(p), icmpMost6-40-icmpHeader)]
	b := make([]byte, 40+icmpHeader, 40+icmpHeader+len(quote))
	b[0], b[6], b[7] = 6<<4, protoICMPv6, icmpTTL
	binary.BigEndian.PutUint16(b[4:], uint16(icmpHeader+len(quote)))
	copy(b[8:], own.AsSlice())
	copy(b[24:], p[8:24])
	b[40], b[41] = 1, 1
	b = append(b, quote...)
	sum := addWords(protoICMPv6+uint32(len(b)-40), b[8:40])
	binary.BigEndian.PutUint16(b[42:], ^fold(addWords(sum, b[40:])))
	return b
}
