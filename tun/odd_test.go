package tun

import (
	"slices"
	"testing"
)

// TestOddHeaders gives the segmenter every virtio header of border values, with whole packets and with packets cut short
// or too long: what comes out is whole IP packets of the lengths that they say, or nothing.
func TestOddHeaders(t *testing.T) {
	t.Parallel()
	packets := oddPackets()
	edges := []uint16{0, 1, 6, 16, 19, 20, 28, 39, 40, 41, 60, 99, 100, 139, 140, 1500, 32768, 65534, 65535}
	out := make([]byte, 3000)
	n := 0
	for _, p := range packets {
		for _, cutTo := range []int{0, 1, 19, 20, 27, 28, 39, 40, 59, 60, len(p) - 1, len(p), len(p) + 7} {
			q := slices.Grow(slices.Clone(p), 7)[:max(0, min(cutTo, len(p)+7))]
			for _, kind := range []uint8{gsoNone, gsoTCP4, 2, 3, gsoTCP6, gsoUDP, 6, 0x7f, gsoECN, gsoTCP4 | gsoECN, 0xff} {
				for _, flags := range []uint8{0, virtioNeedsChecksum, 2, 3, 4, 0xff} {
					for i, size := range edges {
						h := virtio{flags, kind, edges[(i*7+3)%len(edges)], size, edges[(i*5+n)%len(edges)], edges[(i*3+n/7)%len(edges)]}
						n++
						checkCut(t, h, slices.Clone(q), out)
					}
				}
			}
		}
	}
	t.Logf("%d headers", n)
}

// oddPackets returns packets of 139 bytes and less for headers that do not fit.
func oddPackets() [][]byte {
	f := &flow{options: []byte{1, 1, 1, 1}}
	g := &flow{v6: true}
	short := (&flow{}).packet(nil)
	short[32] = 0xf0 // a TCP header longer than the packet
	return [][]byte{
		f.packet(make([]byte, 95)), g.packet(make([]byte, 79)), udpPacket(false, make([]byte, 100)),
		udpPacket(true, nil), short, append(header(false, 1, 20, 1, false, 0), make([]byte, 20)...),
		append(header(true, 44, 20, 1, false, 0), make([]byte, 20)...),
	}
}

// checkCut cuts p as h says and looks at the packets.
func checkCut(t *testing.T, h virtio, p, out []byte) {
	t.Helper()
	var s segmenter
	promised := s.load(h, p)
	got := 0
	for {
		n, more := s.packet(out)
		if !more {
			break
		}
		if got++; n == 0 {
			continue // longer than out
		}
		q, ok := sized(out[:n])
		if !ok || len(q) != n {
			t.Fatalf("%+v on %x: a packet of %d bytes says another length: %x", h, p, n, out[:n])
		}
		if in, ok := parseInner(q); s.checksum && (!ok || in.end != n) {
			t.Fatalf("%+v on %x: %x with an open checksum does not parse", h, p, q)
		}
	}
	if got != promised {
		t.Fatalf("%+v on %x: %d packets, promised %d", h, p, got, promised)
	}
}
