package forward

import (
	"encoding/binary"
	"testing"
	"time"
)

// several lays n paths between two boxes, each over a relay of its own.
func several(t testing.TB, n int) (*fabric, *pair, []*laid) {
	t.Helper()
	f := newFabric(t)
	a, b := f.box("a", 1), f.box("b", 1)
	p := f.session(a, b)
	var all []*laid
	for i := range n {
		r := f.box(string(rune('r'+i)), 1)
		f.link(a, r, 1472)
		f.link(r, b, 1472)
		all = append(all, f.lay(p, uint16(2*i), 2, 1472, a, r, b))
	}
	p.sa.SetActive(all[0].pa)
	p.sb.SetActive(all[0].pb)
	return f, p, all
}

// of gives a packet of a pair other ports.
func (p *pair) of(n int, from, to uint16) []byte {
	b := p.packet(n, 1)
	binary.BigEndian.PutUint16(b[40:], from)
	binary.BigEndian.PutUint16(b[42:], to)
	fillChecksum(b)
	return b
}

func (l *laid) sent() (n uint64) {
	for _, c := range l.pa.Stats().Next {
		n += c
	}
	return n
}

// TestSpread sends a thousand flows over three paths, and takes one away.
func TestSpread(t *testing.T) {
	t.Parallel()
	_, p, all := several(t, 3)
	w := p.a.workers[0]
	v := &Ways{Spread: []*Path{all[0].pa, all[1].pa, all[2].pa}}
	p.sa.SetWays(time.Second, v)
	of := map[uint16]*Path{}
	for port := range uint16(1000) {
		b := p.of(200, port, 443)
		of[port] = v.path(nil, b)
		w.Originate(time.Second, b, false)
	}
	w.Flush()
	for i, l := range all {
		if n := l.sent(); n < 250 || n > 420 {
			t.Errorf("path %d has %d of 1000 flows", i, n)
		}
	}
	less := &Ways{Spread: []*Path{all[0].pa, all[2].pa}}
	for port, had := range of {
		b := p.of(900, port, 443)
		if now := less.path(nil, b); now != had && had != all[1].pa {
			t.Fatalf("flow %d moved from a path that stayed", port)
		}
	}
	p.sa.SetWays(time.Second, nil)
	before := all[0].sent()
	w.Originate(time.Second, p.of(200, 1, 2), false)
	if all[0].sent() != before+1 {
		t.Error("without ways the active path has all")
	}
}

// TestCopies sends packets twice: each arrives once, whichever copy is lost.
func TestCopies(t *testing.T) {
	t.Parallel()
	f, p, all := several(t, 2)
	w := p.a.workers[0]
	p.sa.SetWays(time.Second, &Ways{Second: all[1].pa, Copies: Copies{Size: 256, Ports: []PortRange{{5000, 5009}}}})
	for i := range 90 {
		w.Originate(f.now, p.packet(100, i)[:100], false) // port 2000
		b := p.of(100, 5005, 9)
		w.Originate(f.now, b, i%2 == 0) // with a checksum to fill in
		w.Flush()
		switch i % 3 {
		case 0: // one of the copies is lost
			f.queue = f.queue[:len(f.queue)-1]
		}
		f.run()
	}
	got := 0
	for _, b := range p.b.tun.got {
		if binary.BigEndian.Uint16(b[40:]) == 5005 {
			got++
			if !fillChecksum(b) || len(b) != 100 {
				t.Fatalf("came as %x", b)
			}
		}
	}
	if got != 90 || len(p.b.tun.got) != 180 {
		t.Errorf("%d of 90 packets that travel twice came, %d of 180 in all", got, len(p.b.tun.got))
	}
	if c := p.b.plane.Counters(); c.DeliveredPackets != 180 || len(c.Drops) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestCopiesMatch(t *testing.T) {
	t.Parallel()
	_, p, _ := several(t, 1)
	ef := p.of(100, 1, 2)
	ef[0], ef[1] = 0x60|46>>2, 46<<6&0xff
	for _, c := range []struct {
		name   string
		rule   Copies
		packet []byte
		want   bool
	}{
		{"code point", Copies{Size: 256, DSCP: 1 << 46}, ef, true},
		{"another code point", Copies{Size: 256, DSCP: 1 << 45}, ef, false},
		{"too long", Copies{Size: 99, DSCP: 1 << 46}, ef, false},
		{"source port", Copies{Size: 256, Ports: []PortRange{{7, 9}}}, p.of(80, 8, 1000), true},
		{"destination port", Copies{Size: 256, Ports: []PortRange{{1, 1}, {7, 9}}}, p.of(80, 1000, 9), true},
		{"another port", Copies{Size: 256, Ports: []PortRange{{7, 9}}}, p.of(80, 10, 6), false},
		{"nothing wanted", Copies{Size: 256}, ef, false},
	} {
		if got := c.rule.match(c.packet); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestWaysAllocate: using several paths costs no allocation either.
func TestWaysAllocate(t *testing.T) {
	_, p, all := several(t, 2)
	w := p.a.plane.NewWorker(nowhere{})
	p.sa.SetWays(time.Second, &Ways{
		Spread: []*Path{all[0].pa, all[1].pa}, Second: all[1].pa, Copies: Copies{Size: 256, Ports: []PortRange{{2000, 2000}}},
	})
	small, large := p.packet(100, 1), p.packet(1300, 1)
	if n := testing.AllocsPerRun(200, func() {
		for range 20 {
			w.Originate(time.Second, small, false)
			w.Originate(time.Second, large, false)
		}
		w.Flush()
	}); n != 0 {
		t.Errorf("%v allocations to send over several paths, want 0", n)
	}
	id, copied := uint64(0), make([]byte, 100)
	p.sb.once(append([]byte{7: 1}, small...))
	if n := testing.AllocsPerRun(200, func() {
		id++
		binary.BigEndian.PutUint64(copied, id/2)
		p.sb.once(copied)
	}); n != 0 {
		t.Errorf("%v allocations to take a copy, want 0", n)
	}
}

// FuzzCopies feeds the choice of flows and copies with whatever passes as a packet.
func FuzzCopies(f *testing.F) {
	_, p, all := several(f, 2)
	f.Add(p.packet(100, 1))
	f.Add(p.of(80, 1, 2))
	v := &Ways{Spread: []*Path{all[0].pa, all[1].pa}, Copies: Copies{Size: 512, DSCP: 1, Ports: []PortRange{{1, 2}}}}
	f.Fuzz(func(_ *testing.T, b []byte) {
		if _, ok := parseInner(b); ok {
			v.path(nil, b)
			v.Copies.match(b)
		}
	})
}
