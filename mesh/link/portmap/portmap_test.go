package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// gateway is a strict server of PCP and NAT-PMP on a loopback address of its own.
type gateway struct {
	t        *testing.T
	c        *net.UDPConn
	addr     netip.Addr
	mu       sync.Mutex // guards all below
	pcp, pmp bool       // what it speaks; else it is silent
	tell     bool       // without PCP: answers it with version 0, as RFC 6886 wants
	result   uint8      // of PCP, if not 0
	outside  netip.Addr
	port     uint16 // outside; 0: as wished
	life     time.Duration
	epoch    uint32
	mapped   map[uint16]uint16 // inside → outside
	asked    []string
	spoil    func([]byte) []byte // alters PCP's answers
	extra    func(to netip.AddrPort)
}

func newGateway(t *testing.T, addr string) *gateway {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8")
	}
	g := &gateway{
		t: t, addr: netip.MustParseAddr(addr), outside: netip.MustParseAddr("81.2.69.160"), life: time.Hour, epoch: 1000,
		mapped: map[uint16]uint16{}, pcp: true, pmp: true, tell: true,
	}
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(g.addr, serverPort)))
	if err != nil {
		t.Fatal(err)
	}
	g.c = c
	done := make(chan struct{})
	go func() { defer close(done); g.serve() }()
	t.Cleanup(func() { _ = c.Close(); <-done })
	return g
}

func (g *gateway) serve() {
	b := make([]byte, 2000)
	for {
		n, from, err := g.c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		g.mu.Lock()
		answer := g.answer(b[:n], from)
		extra := g.extra
		g.mu.Unlock()
		if extra != nil {
			extra(from)
		}
		if answer != nil {
			_, _ = g.c.WriteToUDPAddrPort(answer, from)
		}
	}
}

func (g *gateway) answer(b []byte, from netip.AddrPort) []byte {
	switch {
	case len(b) == pcpLen && b[0] == pcpVersion && b[1] == pcpMap:
		g.asked = append(g.asked, "pcp")
		if !g.pcp {
			if g.tell {
				return []byte{0, 0x81, 0, 1, 0, 0, 0, 9}
			}
			return nil
		}
		return g.answerPCP(b, from)
	case len(b) == 2 && b[0] == 0 && b[1] == 0 && g.pmp:
		g.asked = append(g.asked, "address")
		out := g.outside.As4()
		a := binary.BigEndian.AppendUint32([]byte{0, 0x80, 0, 0}, g.epoch)
		return append(a, out[:]...)
	case len(b) == 12 && b[0] == 0 && b[1] == 1 && g.pmp:
		life := binary.BigEndian.Uint32(b[8:])
		in, wish := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		g.asked = append(g.asked, map[bool]string{true: "nat-pmp end", false: "nat-pmp"}[life == 0])
		if life == 0 && wish != 0 {
			g.t.Error("RFC 6886, 3.4: ending a mapping names no outside port")
		}
		out := g.change(in, wish, life)
		a := binary.BigEndian.AppendUint32([]byte{0, 0x81, 0, 0}, g.epoch)
		a = binary.BigEndian.AppendUint16(a, in)
		a = binary.BigEndian.AppendUint16(a, out)
		return binary.BigEndian.AppendUint32(a, min(life, uint32(g.life/time.Second)))
	}
	g.asked = append(g.asked, "else")
	return nil
}

func (g *gateway) change(in, wish uint16, life uint32) uint16 {
	if life == 0 {
		delete(g.mapped, in)
		return 0
	}
	if g.port != 0 {
		wish = g.port
	}
	g.mapped[in] = wish
	return wish
}

func (g *gateway) answerPCP(b []byte, from netip.AddrPort) []byte {
	a := bytes.Clone(b)
	life := binary.BigEndian.Uint32(b[4:])
	if client := netip.AddrFrom16([16]byte(b[8:])).Unmap(); client != from.Addr() {
		g.t.Errorf("client address %v, from %v", client, from)
	}
	if b[36] != pcpUDP {
		g.t.Errorf("protocol %d", b[36])
	}
	if life == 0 {
		g.asked[len(g.asked)-1] = "pcp end"
	}
	a[1] |= pcpAnswer
	a[3] = g.result
	clear(a[8:24])
	binary.BigEndian.PutUint32(a[8:], g.epoch)
	out := g.change(binary.BigEndian.Uint16(b[40:]), binary.BigEndian.Uint16(b[42:]), life)
	binary.BigEndian.PutUint32(a[4:], min(life, uint32(g.life/time.Second)))
	binary.BigEndian.PutUint16(a[42:], out)
	outside := g.outside.As16()
	copy(a[44:], outside[:])
	if g.spoil != nil {
		a = g.spoil(a)
	}
	return a
}

func (g *gateway) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func (g *gateway) was(asked string) (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range g.asked {
		if a == asked {
			n++
		}
	}
	return n
}

// running is a mapper at work.
type running struct {
	*Mapper
	t    *testing.T
	told chan []Mapping
	stop context.CancelFunc
	done chan error
}

const inside = 7667

func run(t *testing.T, gs ...*gateway) *running {
	t.Helper()
	r := &running{t: t, told: make(chan []Mapping, 100), done: make(chan error, 1)}
	m, err := New(Config{Port: inside, Changed: func(all []Mapping) { r.told <- all }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.Mapper = m
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() { r.done <- m.Run(ctx) }()
	t.Cleanup(r.end)
	r.Update(of(gs...))
	return r
}

func of(gs ...*gateway) (all []Gateway) {
	for _, g := range gs {
		all = append(all, Gateway{Addr: g.addr, Local: netip.MustParseAddr("127.0.0.1")})
	}
	return all
}

func (r *running) end() {
	r.stop()
	if err, ok := <-r.done; ok {
		if err != nil {
			r.t.Error(err)
		}
		close(r.done)
	}
}

// next is what was told next, as text.
func (r *running) next() string {
	r.t.Helper()
	select {
	case all := <-r.told:
		var words []string
		for _, m := range all {
			words = append(words, m.Way+" "+m.External.String())
		}
		return strings.Join(words, ", ")
	case <-time.After(30 * time.Second):
		r.t.Fatal("nothing told")
		return ""
	}
}

func (r *running) want(want string) {
	r.t.Helper()
	if got := r.next(); got != want {
		r.t.Errorf("told %q, want %q", got, want)
	}
}

func (r *running) never(what string) {
	r.t.Helper()
	r.end()
	if len(r.told) > 0 {
		r.t.Errorf("%s: told %v", what, <-r.told)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal(what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWays(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name string
		set  func(g *gateway)
		want string
		end  string // asked at the end
	}{
		{"PCP", func(*gateway) {}, "pcp 81.2.69.160:7667", "pcp end"},
		{"another port", func(g *gateway) { g.port = 40001 }, "pcp 81.2.69.160:40001", "pcp end"},
		{"NAT-PMP alone", func(g *gateway) { g.pcp = false }, "nat-pmp 81.2.69.160:7667", "nat-pmp end"},
		{"NAT-PMP alone, silent on PCP", func(g *gateway) { g.pcp, g.tell = false, false }, "nat-pmp 81.2.69.160:7667", "nat-pmp end"},
		{"PCP not authorized", func(g *gateway) { g.result = 2 }, "nat-pmp 81.2.69.160:7667", "nat-pmp end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, netip.AddrFrom4([4]byte{127, 11, 0, byte(i + 1)}).String())
			g.set(func() { c.set(g) })
			r := run(t, g)
			r.want(c.want)
			r.end()
			if g.was(c.end) == 0 {
				t.Error("not removed")
			}
			g.set(func() {
				if len(g.mapped) > 0 {
					t.Errorf("left behind: %v", g.mapped)
				}
			})
		})
	}
}

// TestRefused: nothing is told of what is forged, spoiled, private or silent.
func TestRefused(t *testing.T) {
	t.Parallel()
	for i, c := range []struct {
		name string
		set  func(g *gateway)
	}{
		{"behind another NAT", func(g *gateway) { g.outside = netip.MustParseAddr("192.168.3.4") }},
		{"behind the provider's", func(g *gateway) { g.outside = netip.MustParseAddr("100.64.3.4") }},
		{"no address", func(g *gateway) { g.outside = netip.IPv4Unspecified() }},
		{"loopback", func(g *gateway) { g.outside = netip.MustParseAddr("127.0.0.1") }},
		{"another nonce", func(g *gateway) { g.pmp = false; g.spoil = func(b []byte) []byte { b[24] ^= 1; return b } }},
		{"another inside port", func(g *gateway) { g.pmp = false; g.spoil = func(b []byte) []byte { b[41] ^= 1; return b } }},
		{"short", func(g *gateway) { g.pmp = false; g.spoil = func(b []byte) []byte { return b[:24] } }},
		{"a request, echoed", func(g *gateway) { g.pmp = false; g.spoil = func(b []byte) []byte { b[1] &= 0x7f; return b } }},
		{"silent", func(g *gateway) { g.pcp, g.pmp, g.tell = false, false, false }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newGateway(t, netip.AddrFrom4([4]byte{127, 12, 0, byte(i + 1)}).String())
			g.set(func() { c.set(g) })
			r := run(t, g)
			both := false
			g.set(func() { both = g.pmp })
			eventually(t, "not asked", func() bool { return g.was("nat-pmp") > 0 || !both && g.was("pcp")+g.was("else") > 1 })
			r.never(c.name)
		})
	}
}

// TestStranger: answers from another address or port than the gateway's count for nothing, though all in them is right.
func TestStranger(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "127.13.0.1")
	liar, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 13, 0, 2), Port: serverPort})
	if err != nil {
		t.Fatal(err)
	}
	defer liar.Close()
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 13, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var forged []byte
	g.set(func() {
		g.pmp = false
		g.spoil = func(b []byte) []byte {
			forged = bytes.Clone(b)
			copy(forged[56:], []byte{6, 6, 6, 6})
			return nil
		}
		g.extra = func(to netip.AddrPort) {
			_, _ = liar.WriteToUDPAddrPort(forged, to)
			_, _ = other.WriteToUDPAddrPort(forged, to)
		}
	})
	r := run(t, g)
	eventually(t, "not asked again", func() bool { return g.was("pcp") == pcpTries })
	r.never("forged")
}

// TestChanges: another outside port, a gateway that says that it restarted, a gateway that is gone, one more.
func TestChanges(t *testing.T) {
	t.Parallel()
	g, h := newGateway(t, "127.14.0.1"), newGateway(t, "127.14.0.2")
	r := run(t, g)
	r.want("pcp 81.2.69.160:7667")
	g.set(func() { g.port, g.epoch = 50000, 3 }) // it lost all it knew
	r.pokes <- g.addr
	r.want("pcp 81.2.69.160:50000")
	asked := g.was("pcp")
	for range 20 {
		r.pokes <- g.addr // a liar on the LAN
	}
	h.set(func() { h.outside = netip.MustParseAddr("81.2.69.161"); h.pcp = false })
	r.Update(of(g, h))
	r.want("pcp 81.2.69.160:50000, nat-pmp 81.2.69.161:7667")
	if n := g.was("pcp") - asked; n > 2 {
		t.Errorf("asked %d times because of forged announcements", n)
	}
	r.Update(of(h))
	r.want("nat-pmp 81.2.69.161:7667")
	r.Update(nil)
	r.want("")
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	g := newGateway(t, "127.15.0.1")
	r := run(t, g)
	r.want("pcp 81.2.69.160:7667")
	r.end()
	c := r.clients[0]
	if half := c.next - (c.until - time.Hour/2); c.mapping.Lifetime != lifetime || half < lifetime/2-time.Minute || half > lifetime/2+time.Minute {
		t.Errorf("renewed after %v of %v", half, c.mapping.Lifetime)
	}
	// Renewals that fail keep the mapping while it lasts, and not longer.
	g.set(func() { g.result, g.pmp = 8, false })
	told := 0
	r.c.Changed = func([]Mapping) { told++ }
	c.next = 0
	c.renew(t.Context())
	if c.until == 0 || told != 0 || c.next > c.until {
		t.Errorf("until %v, next %v, told %d", c.until, c.next, told)
	}
	c.until = 1
	c.renew(t.Context())
	if c.until != 0 || told != 1 {
		t.Errorf("until %v, told %d", c.until, told)
	}
}

func TestEpoch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		ours        time.Duration
		then, value uint32
		want        bool
	}{
		{"as long as ours", 100 * time.Second, 1000, 1100, false},
		{"a little fast", 100 * time.Second, 1000, 1105, false},
		{"back", 100 * time.Second, 1000, 10, true},
		{"one back", 0, 1000, 999, false},
		{"far too slow", 100 * time.Second, 1000, 1050, true},
		{"far too fast", 100 * time.Second, 1000, 1200, true},
	} {
		e := epoch{}
		if e.lost(time.Hour, c.then) {
			t.Errorf("%s: lost at first", c.name)
		}
		if got := e.lost(time.Hour+c.ours, c.value); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	q := MapRequest{
		Client: netip.MustParseAddr("192.168.1.2"), Nonce: [12]byte{1, 2, 3}, Internal: 7667, Lifetime: 2 * time.Minute,
	}
	b := q.Append(nil)
	if len(b) != pcpLen || b[0] != 2 || b[1] != 1 || binary.BigEndian.Uint32(b[4:]) != 120 {
		t.Errorf("%x", b)
	}
	mappedV4 := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}
	if !bytes.Equal(b[8:20], mappedV4) || !bytes.Equal(b[44:56], mappedV4) || !slices.Equal(b[56:], []byte{0, 0, 0, 0}) {
		t.Errorf("RFC 6887, 5: IPv4 addresses are mapped ones: %x", b)
	}
	if _, err := ParseMapAnswer(b); !errors.Is(err, ErrMalformed) {
		t.Errorf("a request is taken for an answer: %v", err)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a mapper without a port")
	}
}

func FuzzParseMapAnswer(f *testing.F) {
	b := MapRequest{Client: netip.MustParseAddr("192.168.1.2"), Internal: 7667, Lifetime: time.Minute}.Append(nil)
	b[1] |= pcpAnswer
	f.Add(b)
	f.Add([]byte{0, 0x81, 0, 1, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseMapAnswer(b)
		if err == nil && (len(b) < pcpLen || a.Result != b[3]) {
			t.Errorf("%x", b)
		}
	})
}
