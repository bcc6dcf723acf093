package tun

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
)

// datagrams makes n UDP packets of one flow, of that payload.
func datagrams(v6 bool, n, payload int, port byte) (out [][]byte) {
	for i := range n {
		p := udpPacket(v6, bytes.Repeat([]byte{byte(i)}, payload))
		at := ipv4Len
		if v6 {
			at = ipv6Len
		} else {
			put16(p, 4, uint16(100+i))
			headerSum(p)
		}
		p[at+1] = port
		in, _ := parseInner(p)
		in.fill(p)
		out = append(out, p)
	}
	return out
}

func TestCoalescesUDP(t *testing.T) {
	t.Parallel()
	for _, v6 := range []bool{false, true} {
		change := func(p []byte, at int, v byte) []byte { // of an IP header
			p = slices.Clone(p)
			p[at] = v
			if !v6 {
				headerSum(p)
			}
			in, _ := parseInner(p)
			in.fill(p)
			return p
		}
		at := map[bool]int{false: 20, true: 40}[v6]
		run := datagrams(v6, 10, 1000, 1)
		with := func(i int, p []byte) [][]byte {
			l := slices.Clone(run)
			l[i] = p
			return l
		}
		broken := slices.Clone(run[4])
		broken[len(broken)-1] ^= 1
		without := slices.Clone(run[4])
		put16(without, at+6, 0)
		hops := map[bool]int{false: 8, true: 7}[v6]
		tests := []struct {
			name   string
			in     [][]byte
			writes int
		}{
			{"equal ones", run, 1},
			{"one", run[:1], 1},
			{"64 and 36", datagrams(v6, 100, 100, 1), 2},
			{"65,535 bytes", datagrams(v6, 60, 1400, 1), 2},
			{"a shorter one ends it", with(4, datagrams(v6, 5, 999, 1)[4]), 2},
			{"a longer one begins anew", slices.Concat(datagrams(v6, 1, 10, 1), datagrams(v6, 5, 20, 1)[1:]), 2},
			{"empty ones", datagrams(v6, 5, 0, 1), 5},
			{"wrong checksum", with(4, broken), 3},
			{"no checksum", with(4, without), 3},
			{"other TTL", with(4, change(run[4], hops, 9)), 3},
			{"other ECN", with(4, change(run[4], 1, 0x10|map[bool]byte{false: 1}[v6])), 3},
			{"two flows", interleave(run, datagrams(v6, 10, 1000, 2)), 2},
			{"four flows", interleave(run, datagrams(v6, 10, 900, 2), datagrams(v6, 10, 1000, 3), datagrams(!v6, 10, 1000, 1)), 4},
		}
		if !v6 {
			tests = append(tests, []struct {
				name   string
				in     [][]byte
				writes int
			}{
				{"identification that jumps", with(4, change(run[4], 5, 77)), 3},
				{"may be fragmented or not", with(4, change(run[4], 6, 0x40)), 3},
				{"IP options", with(4, withOptions(run[4])), 3},
			}...)
		}
		for _, tt := range tests {
			writes, out := joinAndCut(t, tt.in, false)
			if writes != tt.writes {
				t.Errorf("IPv6 %v, %s: %d writes, want %d", v6, tt.name, writes, tt.writes)
			}
			if !slices.EqualFunc(byFlow(out), byFlow(tt.in), bytes.Equal) {
				t.Errorf("IPv6 %v, %s: packets changed", v6, tt.name)
			}
		}
	}
}

func withOptions(p []byte) []byte {
	p = slices.Insert(slices.Clone(p), 20, 0x94, 4, 0, 0) // router alert
	p[0] = 0x46
	put16(p, 2, uint16(len(p)))
	return headerSum(p)
}

func interleave(runs ...[][]byte) (out [][]byte) {
	for i := range runs[0] {
		for _, r := range runs {
			out = append(out, r[i])
		}
	}
	return out
}

// TestRefused has the kernel refuse super-packets: nothing is lost where single packets pass, and what is lost is counted in
// packets.
func TestRefused(t *testing.T) {
	t.Parallel()
	f := &flow{dont: true}
	var tcp [][]byte
	for range 10 {
		tcp = append(tcp, f.packet(make([]byte, 500)))
	}
	for _, tt := range []struct {
		name    string
		in      [][]byte
		supers  syscall.Errno // what a super-packet meets
		singles syscall.Errno
		lost    int
		joinUDP bool // afterwards
	}{
		{"UDP, EINVAL", datagrams(false, 10, 500, 1), syscall.EINVAL, 0, 0, false},
		{"UDP over IPv6, EINVAL", datagrams(true, 10, 500, 1), syscall.EINVAL, 0, 0, false},
		{"UDP, no memory", datagrams(true, 10, 500, 1), syscall.ENOMEM, 0, 0, true},
		{"TCP, EINVAL", tcp, syscall.EINVAL, 0, 0, true},
		{"down", datagrams(false, 10, 500, 1), syscall.EIO, syscall.EIO, 10, true},
		{"all refused", tcp, syscall.EINVAL, syscall.ENOMEM, 10, true},
		{"one", tcp[:1], syscall.EINVAL, syscall.EPERM, 1, true},
	} {
		var out [][]byte
		supers := 0
		c := newCoalescer(virtioLen, true, func(b []byte) error {
			if b[1] != gsoNone {
				supers++
				if tt.supers != 0 {
					return tt.supers
				}
			}
			if tt.singles != 0 {
				return tt.singles
			}
			l, err := kernelTake(b, virtioLen)
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			out = append(out, l...)
			return nil
		})
		var errs []error
		for _, p := range tt.in {
			errs = append(errs, c.send(p, true))
		}
		errs = append(errs, c.flush())
		lost := 0
		for _, err := range errs {
			var several *LostError
			switch {
			case errors.As(err, &several):
				lost += several.Lost()
			case err != nil:
				lost++
			}
			if err != nil && !errors.Is(err, tt.singles) && !errors.Is(err, tt.supers) {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if lost != tt.lost || lost == 0 && !slices.EqualFunc(out, tt.in, bytes.Equal) {
			t.Errorf("%s: %d lost, want %d; %d of %d came out", tt.name, lost, tt.lost, len(out), len(tt.in))
		}
		if c.joinUDP.Load() != tt.joinUDP {
			t.Errorf("%s: joins UDP: %v, want %v", tt.name, !tt.joinUDP, tt.joinUDP)
		}
		tried := supers
		for _, p := range datagrams(false, 5, 400, 9) {
			_ = c.send(p, true)
		}
		if _ = c.flush(); (supers > tried) != tt.joinUDP {
			t.Errorf("%s: %d UDP super-packets afterwards", tt.name, supers-tried)
		}
	}
}

func TestCoalesceAllocations(t *testing.T) {
	f := &flow{dont: true, v6: true}
	var tcp [][]byte
	for range 20 {
		tcp = append(tcp, f.packet(make([]byte, 1300)))
	}
	for name, in := range map[string][][]byte{
		"TCP": tcp, "UDP": datagrams(true, 20, 1000, 1), "alone": datagrams(true, 20, 0, 1),
		"six flows": interleave(tcp, datagrams(true, 20, 100, 1), datagrams(true, 20, 100, 2), datagrams(true, 20, 100, 3),
			datagrams(false, 20, 100, 4), datagrams(false, 20, 1000, 5)),
	} {
		for _, checksum := range []bool{false, true} {
			c := newCoalescer(maxVirtioLen, true, func([]byte) error { return nil })
			if n := testing.AllocsPerRun(50, func() {
				for _, p := range in {
					_ = c.send(p, checksum)
				}
				_ = c.flush()
			}); n != 0 {
				t.Errorf("%s, open %v: %v allocations", name, checksum, n)
			}
		}
	}
}

// FuzzJoin sends pieces of the input as packets of a few flows: what the kernel makes of it is what went in.
func FuzzJoin(f *testing.F) {
	f.Add(slices.Concat(datagrams(false, 3, 100, 1)...), uint16(128), true)
	f.Add(slices.Concat(datagrams(true, 3, 100, 1)...), uint16(148), false)
	g := &flow{dont: true}
	f.Add(slices.Concat(g.packet(make([]byte, 100)), g.packet(make([]byte, 100)), g.packet(make([]byte, 50))), uint16(140), false)
	f.Fuzz(func(t *testing.T, b []byte, size uint16, checksum bool) {
		if size == 0 || len(b) > 100_000 {
			return
		}
		var sent []item
		var got [][]byte
		c := newCoalescer(maxVirtioLen, true, func(w []byte) error {
			l, err := kernelTake(w, maxVirtioLen)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, l...)
			return nil
		})
		for p := range slices.Chunk(b, int(size)) {
			if c.send(p, checksum) != nil {
				continue
			}
			p, _ = sized(p)
			p = slices.Clone(p)
			if in, ok := parseInner(p); ok && checksum {
				put16(p, in.transport+in.checksum, kernelPseudo(p, in.proto, in.transport))
				kernelFill(p, in.transport, in.checksum)
			}
			sent = append(sent, item{name: fmt.Sprint(len(sent)), want: [][]byte{p}})
		}
		_ = c.flush()
		if err := compareFlows(sent, got, true); err != nil {
			t.Fatal(err)
		}
	})
}
