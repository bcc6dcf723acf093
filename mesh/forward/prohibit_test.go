package forward

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// ipv4 makes a packet of a protocol; from is added to its payload, flags to its header.
func ipv4(proto byte, fragment uint16, body ...byte) []byte {
	p := make([]byte, 20, 20+len(body))
	p[0], p[8], p[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(p[6:], fragment)
	copy(p[12:], []byte{100, 64, 0, 5})
	copy(p[16:], []byte{10, 91, 0, 9})
	p = append(p, body...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

func ipv6(proto byte, body ...byte) []byte {
	p := make([]byte, 40, 40+len(body))
	p[0], p[6], p[7] = 0x60, proto, 64
	copy(p[8:], netip.MustParseAddr("fd09::5").AsSlice())
	copy(p[24:], netip.MustParseAddr("fd77::9").AsSlice())
	p = append(p, body...)
	binary.BigEndian.PutUint16(p[4:], uint16(len(body)))
	return p
}

func TestAnswerable(t *testing.T) {
	t.Parallel()
	eight := make([]byte, 8)
	with := func(first byte) []byte { return append([]byte{first}, make([]byte, 15)...) }
	for _, tc := range []struct {
		name string
		p    []byte
		want bool
	}{
		{"tcp", ipv4(protoTCP, 0, eight...), true},
		{"udp", ipv4(protoUDP, 0, eight...), true},
		{"echo", ipv4(protoICMP, 0, with(8)...), true},
		{"unreachable", ipv4(protoICMP, 0, with(3)...), false},
		{"time exceeded", ipv4(protoICMP, 0, with(11)...), false},
		{"icmp without a type", ipv4(protoICMP, 0), false},
		{"first piece", ipv4(protoUDP, 0x2000, eight...), true},
		{"later piece", ipv4(protoUDP, 0x2001, eight...), false},
		{"no payload", ipv4(protoUDP, 0), true},
		{"tcp 6", ipv6(protoTCP, eight...), true},
		{"echo 6", ipv6(protoICMPv6, with(128)...), true},
		{"packet too big 6", ipv6(protoICMPv6, with(2)...), false},
		{"icmp without a type 6", ipv6(protoICMPv6), false},
		{"first piece 6", ipv6(protoFragment, append([]byte{protoUDP, 0, 0, 1, 0, 0, 0, 1}, eight...)...), true},
		{"later piece 6", ipv6(protoFragment, append([]byte{protoUDP, 0, 0, 8, 0, 0, 0, 1}, eight...)...), false},
		{"error in a first piece 6", ipv6(protoFragment, append([]byte{protoICMPv6, 0, 0, 1, 0, 0, 0, 1}, with(1)...)...), false},
		{"piece without payload 6", ipv6(protoFragment, protoICMPv6, 0, 0, 1, 0, 0, 0, 1), false},
	} {
		if got := answerable(tc.p); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestProhibited(t *testing.T) {
	t.Parallel()
	own := netip.MustParseAddr("fd09::1")
	for _, tc := range []struct {
		name string
		p    []byte
		most int
	}{
		{"small", ipv4(protoTCP, 0, make([]byte, 21)...), icmpMost4},
		{"large", ipv4(protoTCP, 0, make([]byte, 1380)...), icmpMost4},
		{"small 6", ipv6(protoTCP, make([]byte, 21)...), icmpMost6},
		{"large 6", ipv6(protoTCP, make([]byte, 1380)...), icmpMost6},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			in, ok := parseInner(tc.p)
			if !ok {
				t.Fatal("no packet")
			}
			b := prohibited(tc.p, in, own)
			out, ok := parseInner(b)
			if !ok || out.dst != in.src || len(b) > tc.most {
				t.Fatalf("answer of %d bytes to %v, parses %v", len(b), out.dst, ok)
			}
			head, sum := 20, uint32(0)
			from, code := in.dst, [2]byte{3, 13}
			if out.src.Is6() {
				head, from, code = 40, own, [2]byte{1, 1}
				sum = addWords(protoICMPv6+uint32(len(b)-40), b[8:40])
			} else if fold(addWords(0, b[:20])) != 0xffff {
				t.Error("the header's checksum is wrong")
			}
			if out.src != from || [2]byte(b[head:]) != code {
				t.Errorf("from %v with type and code %v, want %v and %v", out.src, b[head:head+2], from, code)
			}
			if fold(addWords(sum, b[head:])) != 0xffff {
				t.Error("the checksum is wrong")
			}
			if q := b[head+icmpHeader:]; string(q) != string(tc.p[:len(q)]) || len(q) < min(len(tc.p), 548) {
				t.Errorf("%d bytes quoted of %d", len(q), len(tc.p))
			}
			if answerable(b) {
				t.Error("the answer would be answered")
			}
		})
	}
}

func TestProhibitRate(t *testing.T) {
	t.Parallel()
	var r rate
	for _, second := range []time.Duration{1, 2, 9} {
		passed := 0
		for i := range 1000 {
			if r.take(second*time.Second+time.Duration(i)*time.Millisecond, prohibitsPerSecond) {
				passed++
			}
		}
		if passed != prohibitsPerSecond {
			t.Errorf("second %d: %d passed, want %d", second, passed, prohibitsPerSecond)
		}
	}
}
