package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// dropped is what decapsulation does to CE over Not-ECT.
const dropped = 4

// decapsulated is figure 4 of RFC 6040: inner field by row, outer by column.
var decapsulated = [4][4]uint8{
	{0, 0, 0, dropped},
	ecnECT1: {1, 1, 1, ecnCE},
	ecnECT0: {2, 1, 2, ecnCE},
	ecnCE:   {3, 3, 3, ecnCE},
}

func TestMarkECN(t *testing.T) {
	t.Parallel()
	four := packet4(netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), []byte("x"))
	six := packet6(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), []byte("x"))
	for in, row := range decapsulated {
		for outer, want := range row {
			p, q := withECN(four, uint8(in)), withECN(six, uint8(in))
			ok4, ok6 := markECN(p, uint8(in), uint8(outer)), markECN(q, uint8(in), uint8(outer))
			if ok4 != (want != dropped) || ok6 != ok4 {
				t.Errorf("%d under %d: passed %v, %v", in, outer, ok4, ok6)
				continue
			}
			if !ok4 {
				want = 0
			}
			if !bytes.Equal(p, withECN(four, want)) {
				t.Errorf("%d under %d: IPv4 tos %#x, want field %d and a true header sum", in, outer, p[1], want)
			}
			if !bytes.Equal(q, withECN(six, want)) {
				t.Errorf("%d under %d: IPv6 %#x, want field %d", in, outer, q[:2], want)
			}
		}
	}
}

// withECN returns a copy of a packet with that field, DSCP and flow label set, and the header's checksum.
func withECN(p []byte, ecn uint8) []byte {
	q := slices.Clone(p)
	if q[0]>>4 == 6 {
		q[0], q[1] = 0x6b, 0x89|ecn<<4
		return q
	}
	q[1], q[10], q[11] = 0xb8|ecn, 0, 0
	binary.BigEndian.PutUint16(q[10:], ^fold(addWords(0, q[:20])))
	return q
}

// TestECN sends packets of every field over a relay, while every hop shows another field in its outer headers.
func TestECN(t *testing.T) {
	t.Parallel()
	for in := range uint8(4) {
		for first := range uint8(4) {
			for second := range uint8(4) {
				for _, size := range []int{300, 1200} { // whole, and in pieces
					t.Run(fmt.Sprintf("%d/%d/%d/%d", in, first, second, size), func(t *testing.T) {
						checkECN(t, in, [2]uint8{first, second}, size)
					})
				}
			}
		}
	}
}

func checkECN(t *testing.T, in uint8, seen [2]uint8, size int) {
	f, p, l, _ := chain(t, 1, 2, 1472, 1)
	l.pa.SetMTU(600)
	packet := withECN(p.packet(size, 1), in)
	p.a.workers[0].Originate(f.now, packet, false)
	p.a.workers[0].Flush()
	want := in
	for hop, outer := range seen {
		for i := range f.queue {
			if sent := f.queue[i].ecn; sent != f.queue[i].b[3]&ecnMask || hop == 0 && sent != in {
				t.Errorf("hop %d: sent with %d, frame says %d", hop, sent, f.queue[i].b[3])
			}
		}
		f.single()
		n := len(f.queue)
		if n == 0 {
			t.Fatal("nothing was sent")
		}
		f.queue[n-1].ecn = outer // one datagram is enough to tell of congestion
		for range n {
			f.step()
		}
		if want < dropped {
			want = decapsulated[want][outer]
		}
	}
	if want == dropped {
		p.b.wantDrops(t, map[string]uint64{"ecn": 1})
		return
	}
	if len(p.b.tun.got) != 1 || !bytes.Equal(p.b.tun.got[0], withECN(packet, want)) {
		t.Fatalf("%d packets, want one with field %d: %x", len(p.b.tun.got), want, p.b.tun.got)
	}
}

// single takes the trains under way apart.
func (f *fabric) single() {
	for i, x := range f.queue {
		f.queue[i].b = x.b[:min(x.seg, len(x.b))]
		for at := x.seg; at < len(x.b); at += x.seg {
			y := x
			f.seq++
			y.b, y.seq = x.b[at:min(at+x.seg, len(x.b))], f.seq
			f.queue = append(f.queue, y)
		}
	}
}

// TestTrainsOfOneECN checks that trains break where the field changes, at the source and at a relay, and nowhere else.
func TestTrainsOfOneECN(t *testing.T) {
	t.Parallel()
	f, p, _, hops := chain(t, 1, 2, 1472, 1)
	var sent []string
	f.seen = func(from, _ *box, train []byte, seg int) {
		sent = append(sent, fmt.Sprintf("%s:%d", from.name, segments(len(train), seg)))
	}
	for i, ecn := range []uint8{0, 0, 2, 2, 2, 3, 0, 1} {
		p.a.workers[0].Originate(f.now, withECN(p.packet(300, i), ecn), false)
	}
	p.a.workers[0].Flush()
	want := []string{"a:2", "a:3", "a:1", "a:1", "a:1"}
	if !slices.Equal(sent, want) {
		t.Errorf("sent %v, want %v", sent, want)
	}
	// A carrier that loses the fields gives all of them in one train.
	var all []byte
	for len(f.queue) > 0 {
		all = append(all, f.queue[0].b...)
		f.queue = f.queue[1:]
	}
	sent = nil
	hops[1].workers[0].Receive(f.now, p.a.at, all, 344, 0)
	hops[1].workers[0].Flush()
	for i := range want {
		want[i] = hops[1].name + want[i][1:]
	}
	if !slices.Equal(sent, want) {
		t.Errorf("relayed %v, want %v", sent, want)
	}
}
