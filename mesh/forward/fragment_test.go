package forward

import (
	"bytes"
	"container/heap"
	"fmt"
	"slices"
	"testing"
	"time"

	"skywire/mesh/wire"
)

// TestFragments is test 12: what the TUN promises crosses underlays that carry less.
func TestFragments(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ mtu, size, pieces int }{
		{548, 1280, 3}, {1000, 1280, 2}, {1323, 1280, 2}, {1324, 1280, 1}, {548, 504, 1}, {548, 505, 2}, {548, 2016, 4}, {1372, 1408, 2},
	} {
		for _, reversed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/%v", tt, reversed), func(t *testing.T) {
				t.Parallel()
				f, p, l, hops := chain(t, 1, 2, tt.mtu, 1)
				frames := 0
				f.seen = func(_, to *box, train []byte, seg int) {
					if to == p.b {
						frames += segments(len(train), seg)
					}
					if seg > tt.mtu {
						t.Errorf("frame of %d bytes over %d", seg, tt.mtu)
					}
				}
				want := p.packet(tt.size, 1)
				q := slices.Clone(want)
				if tt.pieces > 1 {
					q[46], q[47] = 0, 0 // the checksum is missing, and filled in before cutting
				}
				p.a.workers[0].Originate(f.now, q, tt.pieces > 1)
				p.a.workers[0].Flush()
				if reversed {
					reverseSegments(f)
				}
				f.run()
				if frames != tt.pieces || l.pa.Stats().Next[0] != uint64(tt.pieces) {
					t.Errorf("%d frames, want %d", frames, tt.pieces)
				}
				if len(p.b.tun.got) != 1 || !bytes.Equal(p.b.tun.got[0], want) {
					t.Errorf("%d packets arrived, or another one", len(p.b.tun.got))
				}
				for _, h := range hops {
					h.wantDrops(t, nil)
				}
			})
		}
	}
	f, p, _, _ := chain(t, 0, 2, 548, 1)
	p.a.workers[0].Originate(f.now, p.packet(2017, 1), false)
	p.a.wantDrops(t, map[string]uint64{"too_big": 1})
}

// reverseSegments turns every train in flight into single frames, the last first.
func reverseSegments(f *fabric) {
	old := f.queue
	f.queue = nil
	for _, x := range old {
		for i := segments(len(x.b), x.seg) - 1; i >= 0; i-- {
			y := x
			y.b = x.b[i*x.seg : min((i+1)*x.seg, len(x.b))]
			y.seg = len(y.b)
			f.seq++
			y.seq = f.seq
			heap.Push(&f.queue, y)
		}
	}
}

// TestReassembly enters pieces one by one.
func TestReassembly(t *testing.T) {
	t.Parallel()
	type piece struct {
		at      time.Duration
		counter uint64
		id      byte
		index   byte
		body    string
	}
	const last = pieceLast
	ms := time.Millisecond
	tests := []struct {
		name    string
		pieces  []piece
		want    string // what the last piece completes
		bad     int    // refused
		expired int
	}{
		{"in order", []piece{{0, 5, 5, 0, "ab"}, {0, 6, 5, 1, "cd"}, {0, 7, 5, 2 | last, "e"}}, "abcde", 0, 0},
		{"last first", []piece{{0, 7, 5, 2 | last, "e"}, {0, 6, 5, 1, "cd"}, {0, 5, 5, 0, "ab"}}, "abcde", 0, 0},
		{"one missing", []piece{{0, 5, 5, 0, "ab"}, {0, 7, 5, 2 | last, "e"}}, "", 0, 0},
		{"too late", []piece{{0, 5, 5, 0, "ab"}, {501 * ms, 6, 5, 1 | last, "cd"}}, "", 0, 1},
		{"just in time", []piece{{0, 5, 5, 0, "ab"}, {500 * ms, 6, 5, 1 | last, "cd"}}, "abcd", 0, 0},
		{"overlap", []piece{{0, 5, 5, 0, "ab"}, {0, 5, 5, 0, "xx"}, {0, 6, 5, 1 | last, "cd"}}, "", 1, 0},
		{"two ends", []piece{{0, 6, 5, 1 | last, "cd"}, {0, 7, 5, 2 | last, "e"}, {0, 5, 5, 0, "ab"}}, "", 1, 0},
		{"beyond the end", []piece{{0, 6, 5, 1 | last, "cd"}, {0, 7, 5, 2, "e"}, {0, 5, 5, 0, "ab"}}, "", 1, 0},
		{"end before others", []piece{{0, 7, 5, 2, "e"}, {0, 6, 5, 1 | last, "cd"}, {0, 5, 5, 0, "ab"}}, "", 1, 0},
		{"index 4", []piece{{0, 9, 5, 4, "ab"}}, "", 1, 0},
		{"index above counter", []piece{{0, 1, 5, 2, "ab"}}, "", 1, 0},
		{"empty", []piece{{0, 9, 5, 1, ""}}, "", 1, 0},
		{"single", []piece{{0, 9, 5, 0 | last, "ab"}}, "", 1, 0},
		{"id comes round", []piece{{0, 5, 5, 0, "ab"}, {0, 5 + 256 + 1, 5, 1 | last, "cd"}}, "", 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var r reassembly
			path, dst := &Path{}, make([]byte, maxPacket)
			got, bad, gone := "", 0, 0
			for _, x := range tt.pieces {
				n, expired, ok := r.add(x.at, path, 0, x.counter, append([]byte{wire.KindFragment, x.id, x.index, 0}, x.body...), 0, dst)
				got = string(dst[:n])
				gone += expired
				if !ok {
					bad++
				}
			}
			if got != tt.want || bad != tt.bad || gone != tt.expired {
				t.Errorf("got %q, %d refused, %d expired", got, bad, gone)
			}
		})
	}
}

func TestReassemblyBound(t *testing.T) {
	t.Parallel()
	var r reassembly
	path, dst := &Path{}, make([]byte, maxPacket)
	gone := 0
	for i := range 1000 {
		_, expired, ok := r.add(time.Duration(i), path, 0, uint64(10*i), []byte{wire.KindFragment, byte(i), 0, 0, 'x'}, 0, dst)
		if !ok {
			t.Fatal("refused")
		}
		gone += expired
	}
	if len(r.slots) != maxAssembling || gone != 1000-maxAssembling {
		t.Errorf("%d kept, %d given up", len(r.slots), gone)
	}
	// The newest are the ones kept.
	if n, _, _ := r.add(1000, path, 0, 9991, []byte{wire.KindFragment, byte(999 & 0xff), 1 | pieceLast, 0, 'y'}, 0, dst); n != 2 {
		t.Error("the newest packet was given up")
	}
}

func TestChecksum(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, b := f.box("a", 1).plane.Address(), f.box("b", 1).plane.Address()
	p := packet6(a, b, []byte("odd"))
	s, d := p[8:24], p[24:40]
	sum := addWords(addWords(addWords(0, s), d), []byte{0, protoUDP, 0, 11})
	if fold(addWords(sum, p[40:])) != 0xffff {
		t.Error("checksum does not verify")
	}
}
