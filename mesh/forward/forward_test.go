package forward

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

func TestRelayedHops(t *testing.T) {
	t.Parallel()
	for relays := range 4 {
		t.Run(fmt.Sprint(relays), func(t *testing.T) {
			t.Parallel()
			f, p, l, hops := chain(t, relays, 3, 1472, 1)
			trains := 0
			f.seen = func(_, to *box, train []byte, seg int) {
				trains++
				if segments(len(train), seg) != 40 {
					t.Errorf("train of %d segments, want 40", segments(len(train), seg))
				}
				if to == p.b {
					if ttl := train[2]; ttl != byte(wire.MaxTTL-relays) {
						t.Errorf("ttl %d at the end of %d relays", ttl, relays)
					}
				}
			}
			var sent [][]byte
			for i := range 40 {
				n := 1400
				if i == 39 {
					n = 700 // only the last of a train may be short
				}
				sent = append(sent, p.packet(n, i))
				p.a.workers[0].Originate(f.now, slices.Clone(sent[i]), i%2 == 0)
			}
			p.a.workers[0].Flush()
			f.run()
			if len(p.b.tun.got) != 40 {
				t.Fatalf("%d packets arrived; drops %v", len(p.b.tun.got), p.b.plane.Counters().Drops)
			}
			for i, b := range p.b.tun.got {
				if !bytes.Equal(b, sent[i]) || p.b.tun.gotC[i] != (i%2 == 0) {
					t.Fatalf("packet %d changed on the way", i)
				}
			}
			if trains != relays+1 {
				t.Errorf("%d trains for %d links: a train must go on whole", trains, relays+1)
			}
			for i, r := range l.relays {
				st := r.Stats()
				if st.Frames != 40 || st.Bytes != 39*1400+700 || st.LastUse != f.now {
					t.Errorf("relay %d counted %+v", i, st)
				}
			}
			st := l.pb.Stats()
			lane := l.pa.lane(0)
			if st.In[lane].Received != 40 || st.In[lane].Highest != 39 || l.pa.Stats().Next[lane] != 40 {
				t.Errorf("lane %d: got %+v, sent %d", lane, st.In[lane], l.pa.Stats().Next[lane])
			}
			// And back.
			f.seen = nil
			p.b.workers[0].Originate(f.now, p.packetBack(1000, 1), false)
			p.b.workers[0].Flush()
			f.run()
			if len(p.a.tun.got) != 1 {
				t.Errorf("nothing came back")
			}
			for _, h := range hops {
				h.wantDrops(t, nil)
			}
		})
	}
}

func TestControlAndOthers(t *testing.T) {
	t.Parallel()
	f, p, l, _ := chain(t, 1, 2, 1472, 1)
	if err := p.a.workers[0].Control(f.now, l.pa, []byte("keep")); err != nil {
		t.Fatal(err)
	}
	f.run()
	if len(p.b.calls.control) != 1 || string(p.b.calls.control[0]) != "keep" {
		t.Fatalf("control: %q", p.b.calls.control)
	}
	if p.sb.Opened(1) != 1 || p.sa.Sealed() != 1 {
		t.Errorf("opened %d, sealed %d", p.sb.Opened(1), p.sa.Sealed())
	}
	for _, kind := range []byte{wire.TypeInit, wire.TypeResp, wire.TypeCookie, wire.TypeWho, wire.TypeIsMe, wire.TypeHint, wire.TypeLink} {
		p.b.workers[0].Receive(f.now, p.a.at, []byte{kind, 0, 0}, 3, 0)
	}
	if len(p.b.calls.datagrams) != 7 {
		t.Errorf("%d datagrams handed up, want 7", len(p.b.calls.datagrams))
	}
	p.b.workers[0].Receive(f.now, p.a.at, []byte{0x28, 0, 0}, 3, 0)
	p.b.workers[0].Receive(f.now, p.a.at, []byte{wire.TypeSealed, 0, 0}, 3, 0)
	p.b.wantDrops(t, map[string]uint64{"type": 1, "short": 1})

	p.sa.SetSendKey(0, nil)
	if err := p.a.workers[0].Control(f.now, l.pa, nil); err != ErrNoKey {
		t.Errorf("got %v, want ErrNoKey", err)
	}
	p.use(1)
	l.pa.First.SetUp(false)
	if err := p.a.workers[0].Control(f.now, l.pa, nil); err != ErrLinkDown {
		t.Errorf("got %v, want ErrLinkDown", err)
	}
}

// TestChecks sends one frame, spoiled in one way, to a relay and to an end.
func TestChecks(t *testing.T) {
	t.Parallel()
	retag := func(b []byte, k *session.HopKey) []byte {
		binary.BigEndian.PutUint64(b[16:], k.Tag(b[:16], len(b)))
		return b
	}
	tests := []struct {
		name   string
		spoil  func(b []byte, k *session.HopKey) []byte
		relay  string // the drop that is counted there; "": it goes on
		end    string
		placed bool // no HINT
	}{
		{"nothing", func(b []byte, _ *session.HopKey) []byte { return b }, "", "", true},
		{"label", func(b []byte, k *session.HopKey) []byte { b[7] += 9; return retag(b, k) }, "no_label", "no_label", false},
		{"generation", func(b []byte, k *session.HopKey) []byte { b[4] ^= 0x10; return retag(b, k) }, "no_label", "no_label", false},
		{"tag", func(b []byte, _ *session.HopKey) []byte { b[20] ^= 1; return b }, "bad_tag", "bad_tag", false},
		{"counter", func(b []byte, _ *session.HopKey) []byte { b[8] = 0x80; return b }, "bad_tag", "bad_tag", false},
		{"length", func(b []byte, _ *session.HopKey) []byte { return append(b, 0) }, "bad_tag", "bad_tag", false},
		{"shortened", func(b []byte, _ *session.HopKey) []byte { return b[:len(b)-1] }, "bad_tag", "bad_tag", false},
		{"ttl", func(b []byte, k *session.HopKey) []byte { b[2] = 1; return retag(b, k) }, "ttl", "", true},
		{"payload", func(b []byte, _ *session.HopKey) []byte { b[40] ^= 1; return b }, "", "bad_seal", true},
		{"key", func(b []byte, k *session.HopKey) []byte { b[1] = 9; return retag(b, k) }, "", "no_key", true},
		{"other key", func(b []byte, k *session.HopKey) []byte { b[1] = 2; return retag(b, k) }, "", "bad_seal", true},
		{"counter, tag right", func(b []byte, k *session.HopKey) []byte { b[8] = 0x80; return retag(b, k) }, "", "bad_seal", true},
		{"presealed", func(b []byte, k *session.HopKey) []byte { b[0] = wire.TypePresealed; return retag(b, k) }, "presealed", "presealed", true},
		{"oversize", func(b []byte, k *session.HopKey) []byte { return retag(append(b, make([]byte, 2000)...), k) }, "oversize", "oversize", true},
	}
	for _, tt := range tests {
		for relays, want := range []string{tt.end, tt.relay} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, relays), func(t *testing.T) {
				t.Parallel()
				f, p, _, hops := chain(t, relays, 2, 1472, 1)
				p.install(t, 2)
				b := tt.spoil(f.one(p, 600), hopKey(hops[0], hops[1], 0))
				to := hops[1]
				to.workers[0].Receive(f.now, p.a.at, b, len(b), 0)
				to.workers[0].Flush()
				if want != "" {
					to.wantDrops(t, map[string]uint64{want: 1})
				} else {
					to.wantDrops(t, nil)
				}
				if went := len(f.queue) + len(to.tun.got); (went == 1) != (want == "") {
					t.Errorf("%d went on", went)
				}
				if (len(to.calls.noLabel) == 0) != tt.placed {
					t.Errorf("hints: %x", to.calls.noLabel)
				}
				// Whatever came, the genuine frame afterwards passes, unless it is the same one.
				if want == "" {
					return
				}
				f.queue = f.queue[:0]
				f.now += time.Millisecond
				p.a.workers[0].Originate(f.now, p.packet(300, 7), false)
				p.a.workers[0].Flush()
				f.run()
				if len(p.b.tun.got) != 1 {
					t.Errorf("the next frame is lost: %v", to.plane.Counters().Drops)
				}
			})
		}
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	for relays := range 2 {
		f, p, _, hops := chain(t, relays, 2, 1472, 1)
		b := f.one(p, 600)
		// Twice in one train, and once more by itself.
		to := hops[1]
		twice := slices.Concat(b, b)
		to.workers[0].Receive(f.now, p.a.at, slices.Clone(twice), len(b), 0)
		to.workers[0].Receive(f.now, p.a.at, slices.Clone(b), len(b), 0)
		to.workers[0].Flush()
		to.wantDrops(t, map[string]uint64{"replay": 2})
		f.run()
		if len(p.b.tun.got) != 1 {
			t.Errorf("%d relays: %d copies arrived", relays, len(p.b.tun.got))
		}
	}
}

// TestMixedTrain has one train with frames of two paths over two next links, some of them bad.
func TestMixedTrain(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	a, r, b, c := f.box("a", 1), f.box("r", 1), f.box("b", 1), f.box("c", 1)
	for _, x := range []*box{a, b, c} {
		f.link(r, x, 1472)
	}
	pb, pc := f.session(a, b), f.session(a, c)
	f.lay(pb, 2, 1, 1472, a, r, b)
	f.lay(pc, 2, 1, 1472, a, r, c)
	a.plane.SetRoutes(&Routes{Hosts: map[netip.Addr]*Session{b.plane.Address(): pb.sa, c.plane.Address(): pc.sa}})
	for i := range 30 {
		p := pb
		if i/3%2 == 1 {
			p = pc
		}
		a.workers[0].Originate(f.now, p.packet(500, i), false)
	}
	a.workers[0].Flush()
	if len(f.queue) != 1 {
		t.Fatalf("%d trains to one neighbour, want 1: labels may mix", len(f.queue))
	}
	f.queue[0].b[2*544+20] ^= 1 // the third frame gets a bad tag
	f.run()
	if len(b.tun.got) != 14 || len(c.tun.got) != 15 {
		t.Errorf("%d and %d arrived, want 14 and 15", len(b.tun.got), len(c.tun.got))
	}
	r.wantDrops(t, map[string]uint64{"bad_tag": 1})
}

func TestTooBig(t *testing.T) {
	t.Parallel()
	f, p, _, hops := chain(t, 1, 2, 1472, 1)
	hops[1].links[p.b].SetMTU(1472, 1000)
	p.a.workers[0].Originate(f.now, p.packet(1200, 1), false)
	p.a.workers[0].Originate(f.now, p.packet(900, 2), false)
	p.a.workers[0].Flush()
	f.run()
	hops[1].wantDrops(t, map[string]uint64{"too_big": 1})
	want := []string{"relay=true label=true size=1244 mtu=1000"}
	if !slices.Equal(hops[1].calls.tooBig, want) || len(p.b.tun.got) != 1 {
		t.Errorf("got %v and %d packets", hops[1].calls.tooBig, len(p.b.tun.got))
	}
}

func TestLinkDown(t *testing.T) {
	t.Parallel()
	f, p, _, hops := chain(t, 1, 2, 1472, 1)
	hops[1].links[p.b].SetUp(false)
	p.a.workers[0].Originate(f.now, p.packet(300, 1), false)
	p.a.workers[0].Flush()
	f.run()
	hops[1].wantDrops(t, map[string]uint64{"link_down": 1})
	// The neighbour comes back elsewhere, with other keys: the rule needs no change.
	l, m := hops[1].links[p.b], p.b.links[hops[1]]
	l.SetKeys(hopKey(p.b, hops[1], 5), nil, hopKey(hops[1], p.b, 5))
	m.SetKeys(hopKey(hops[1], p.b, 5), nil, hopKey(p.b, hops[1], 5))
	l.SetUp(true)
	p.a.workers[0].Originate(f.now, p.packet(300, 2), false)
	p.a.workers[0].Flush()
	f.run()
	if len(p.b.tun.got) != 1 {
		t.Errorf("%d arrived after the link came back", len(p.b.tun.got))
	}
}

// TestSpoofed is test 3 of the protocol's list: true label, counter 2^63, and forged QUIC, on direct and relayed paths.
func TestSpoofed(t *testing.T) {
	t.Parallel()
	for relays := range 2 {
		t.Run(fmt.Sprint(relays), func(t *testing.T) {
			t.Parallel()
			f, p, l, hops := chain(t, relays, 3, 1472, 1)
			outsider := Endpoint{Addr: netip.MustParseAddrPort("203.0.113.9:53")}
			rng := rand.New(rand.NewPCG(3, 3))
			sent := 0
			flow := func(n int) {
				for range n {
					sent++
					p.a.workers[0].Originate(f.now, p.packet(800, sent), false)
				}
				p.a.workers[0].Flush()
				f.run()
			}
			flow(100)
			before, _ := p.b.links[hops[len(hops)-2]].Endpoint()
			for i := range 1000 {
				kind := byte(wire.TypeSealed)
				if i%2 == 0 {
					kind = wire.TypePresealed
				}
				at := 1 + i%(len(hops)-1)
				b := wire.Header{Type: kind, Key: 1, TTL: 32, Label: l.labels[at] + uint32(i%3), Counter: 1<<63 + uint64(i), Tag: rng.Uint64()}.Append(nil)
				b = append(b, make([]byte, 1200)...)
				b[sealedAt] = []byte{0xc3, 0x43}[i/2%2] // a forged Initial, or a forged short header
				hops[at].workers[0].Receive(f.now, outsider, b, len(b), 0)
				hops[at].workers[0].Flush()
			}
			flow(100)
			if len(p.b.tun.got) != sent {
				t.Errorf("%d of %d arrived: %v", len(p.b.tun.got), sent, p.b.plane.Counters().Drops)
			}
			if len(p.b.calls.quic) != 0 {
				t.Errorf("%d forged packets reached QUIC", len(p.b.calls.quic))
			}
			if after, _ := p.b.links[hops[len(hops)-2]].Endpoint(); after != before {
				t.Errorf("the link moved to %v", after)
			}
			if n := len(hops[1].calls.noLabel); n > hintsPerSecond {
				t.Errorf("%d hints in one second", n)
			}
			// A relay that holds the hop key may forge headers: no window at the end moves, and no long header passes.
			last := hops[len(hops)-2]
			k := hopKey(last, p.b, 0)
			for i, first := range []byte{0xc3, 0x43} {
				b := wire.Header{Type: wire.TypePresealed, TTL: 9, Label: l.labels[len(hops)-1] + 2, Counter: 1<<63 + uint64(i)}.Append(nil)
				b = append(append(b, first), make([]byte, 1199)...)
				binary.BigEndian.PutUint64(b[16:], k.Tag(b[:16], len(b)))
				p.b.workers[0].Receive(f.now, last.at, b, len(b), 0)
			}
			if len(p.b.calls.quic) != 1 || p.b.calls.quic[0][0] != 0x43 {
				t.Errorf("QUIC got %d packets, want the short one alone", len(p.b.calls.quic))
			}
			flow(10)
			q := slices.Repeat([]byte{0x40}, 1250)
			if err := p.a.workers[0].QUIC(f.now, p.sa, q, 1250); err != nil {
				t.Fatal(err)
			}
			f.run()
			if len(p.b.tun.got) != sent || len(p.b.calls.quic) != 2 {
				t.Errorf("the stream lane or the flow is hurt")
			}
		})
	}
}

func TestQUIC(t *testing.T) {
	t.Parallel()
	f, p, l, _ := chain(t, 1, 3, 1472, 1)
	var want [][]byte
	var packets []byte
	for i := range 12 {
		q := bytes.Repeat([]byte{0x40 + byte(i)}, 1250)
		if i == 3 {
			q[0] = 0xc0 // a long header in the middle: sealed
		}
		if i == 11 {
			q = q[:333]
		}
		want = append(want, q)
		packets = append(packets, q...)
	}
	if err := p.a.workers[0].QUIC(f.now, p.sa, packets, 1250); err != nil {
		t.Fatal(err)
	}
	f.run()
	got := p.b.calls.quic
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d: %v", len(got), len(want), p.b.plane.Counters().Drops)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("packet %d changed", i)
		}
	}
	// Three before the sealed one, that one, the one that ended its train by being shorter, and the rest.
	if p.b.calls.trains != 4 {
		t.Errorf("%d upcalls, want 4: trains stay trains", p.b.calls.trains)
	}
	st := l.pb.Stats()
	if st.In[2].Streams != 11 || st.In[2].Received != 0 || st.In[0].Received != 1 {
		t.Errorf("lanes: %+v", st.In)
	}
	if err := p.a.workers[0].QUIC(f.now, p.sa, make([]byte, 1449), 1449); err != ErrTooBig {
		t.Errorf("got %v, want ErrTooBig", err)
	}
	if err := p.a.workers[0].QUIC(f.now, p.sa, make([]byte, 1448), 1448); err != nil {
		t.Errorf("largest packet: %v", err)
	}
	p.sa.SetActive(nil)
	if err := p.a.workers[0].QUIC(f.now, p.sa, make([]byte, 100), 100); err != ErrNoPath {
		t.Errorf("got %v, want ErrNoPath", err)
	}
}

// TestInnerAddresses is test 13: what a peer may claim to be, and where it may go.
func TestInnerAddresses(t *testing.T) {
	t.Parallel()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	third := f.box("c", 1)
	ip := netip.MustParseAddr
	a, b, c := p.a.plane.Address(), p.b.plane.Address(), third.plane.Address()
	exit := Grants{
		Sources: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("192.168.7.0/24")},
		Serve:   []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
	subnet := Grants{
		Sources: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("100.64.0.7/32")},
		Serve:   []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")},
	}
	p.b.plane.SetOwn(Own{
		Addresses: []netip.Addr{ip("100.64.0.9")},
		Subnets:   []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("2001:db8:7::/48")},
	})
	x := []byte("x")
	mapped := netip.AddrFrom16(ip("10.1.2.3").As16())
	bad := func(spoil func(p []byte)) []byte {
		q := packet6(a, b, bytes.Repeat(x, 40))
		spoil(q)
		return q
	}
	tests := []struct {
		name   string
		grants Grants
		packet []byte
		drop   string
	}{
		{"own address", Grants{}, packet6(a, b, x), ""},
		{"third node", Grants{}, packet6(c, b, x), "source"},
		{"third node, exit", exit, packet6(c, b, x), "source"},
		{"our own address, exit", exit, packet6(b, b, x), "source"},
		{"our own IPv4, exit", exit, packet4(ip("100.64.0.9"), ip("100.64.0.9"), x), "source"},
		{"LAN", Grants{}, packet4(ip("192.168.7.5"), ip("100.64.0.9"), x), "source"},
		{"LAN, exit", exit, packet4(ip("192.168.9.5"), ip("100.64.0.9"), x), "source"},
		{"LAN6, exit", exit, packet6(ip("2001:db8:7::1"), b, x), "source"},
		{"LAN granted exactly", exit, packet4(ip("192.168.7.5"), ip("100.64.0.9"), x), ""},
		{"world, exit", exit, packet4(ip("9.9.9.9"), ip("100.64.0.9"), x), ""},
		{"world", Grants{}, packet4(ip("9.9.9.9"), ip("100.64.0.9"), x), "source"},
		{"granted subnet", subnet, packet4(ip("10.1.2.3"), ip("100.64.0.9"), x), ""},
		{"certified IPv4 to served", subnet, packet4(ip("100.64.0.7"), ip("192.168.7.1"), x), ""},
		{"not served", subnet, packet4(ip("100.64.0.7"), ip("192.168.8.1"), x), "destination"},
		{"to a third node, exit", exit, packet6(a, c, x), "destination"},
		{"to the world, exit", exit, packet6(a, ip("2001:db8::1"), x), ""},
		{"4-in-6", exit, packet6(mapped, b, x), "packet"},
		{"to 4-in-6", exit, packet6(a, mapped, x), "packet"},
		{"loopback", exit, packet4(ip("127.0.0.1"), ip("100.64.0.9"), x), "packet"},
		{"to loopback", exit, packet6(a, ip("::1"), x), "packet"},
		{"link-local", exit, packet6(ip("fe80::1"), b, x), "packet"},
		{"multicast", exit, packet6(a, ip("ff02::1"), x), "packet"},
		{"broadcast", exit, packet4(ip("9.9.9.9"), ip("255.255.255.255"), x), "packet"},
		{"unspecified", exit, packet4(ip("0.0.0.0"), ip("100.64.0.9"), x), "packet"},
		{"version 5", exit, bad(func(p []byte) { p[0] = 0x50 }), "packet"},
		{"IPv4 inside", exit, bad(func(p []byte) { p[6] = protoIPv4 }), "packet"},
		{"IPv6 inside options", exit, bad(func(p []byte) { p[6], p[40], p[41] = protoOptions, protoIPv6, 0 }), "packet"},
		{"options past the end", exit, bad(func(p []byte) { p[6], p[41] = protoHopByHop, 200 }), "packet"},
		{"options for ever", exit, bad(func(p []byte) { p[6] = protoHopByHop; clear(p[40:]) }), "packet"},
		{"routing header", exit, bad(func(p []byte) { p[6] = protoRouting; clear(p[40:]); p[40], p[43] = protoUDP, 1 }), "packet"},
		{"routing header, arrived", exit, bad(func(p []byte) { p[6] = protoRouting; clear(p[40:]); p[40] = protoUDP }), ""},
		{"source route", exit, withOptions(packet4(ip("9.9.9.9"), ip("100.64.0.9"), x), 1, 131, 7, 4, 10, 0, 0, 1), "packet"},
		{"router alert", exit, withOptions(packet4(ip("9.9.9.9"), ip("100.64.0.9"), x), 148, 4, 0, 0), ""},
		{"broken options", exit, withOptions(packet4(ip("9.9.9.9"), ip("100.64.0.9"), x), 148, 9, 0, 0), "packet"},
		{"length", exit, bad(func(p []byte) { p[5]++ }), "packet"},
		{"empty", exit, nil, "packet"},
	}
	for _, tt := range tests {
		p.sb.SetGrants(tt.grants)
		n := len(p.b.tun.got)
		before := p.b.plane.Counters().Drops
		// Sealed without asking, as a hostile peer would.
		w := p.a.workers[0]
		w.now = f.now
		if err := w.seal(p.sa.Active(), 0, payload{kind: wire.KindPacket, body: tt.packet}); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		f.run()
		after := p.b.plane.Counters().Drops
		if tt.drop == "" && len(p.b.tun.got) != n+1 {
			t.Errorf("%s: dropped: %v → %v", tt.name, before, after)
		}
		if tt.drop != "" && (len(p.b.tun.got) != n || after[tt.drop] != before[tt.drop]+1) {
			t.Errorf("%s: not dropped as %s: %v → %v", tt.name, tt.drop, before, after)
		}
	}
}

// withOptions puts options, a multiple of four bytes, into an IPv4 packet.
func withOptions(p []byte, options ...byte) []byte {
	p = slices.Concat(p[:20], options, p[20:])
	p[0] += byte(len(options) / 4)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

func TestOriginateRoutes(t *testing.T) {
	t.Parallel()
	f, p, _, _ := chain(t, 0, 2, 1472, 1)
	ip, pre := netip.MustParseAddr, netip.MustParsePrefix
	third := f.box("c", 1)
	other := p.a.plane.NewSession(third.key, third.plane.Address()) // no path
	p.a.plane.SetRoutes(&Routes{
		Hosts: map[netip.Addr]*Session{p.b.plane.Address(): p.sa},
		Prefixes: []PrefixRoute{
			{pre("10.0.0.0/8"), other}, {pre("10.1.0.0/16"), p.sa}, {pre("::/0"), p.sa}, {pre("10.1.2.0/24"), other},
		},
	})
	x := []byte("x")
	me := p.a.plane.Address()
	tests := []struct {
		name   string
		packet []byte
		drop   string
	}{
		{"host", packet6(me, p.b.plane.Address(), x), ""},
		{"longest", packet4(ip("10.9.9.9"), ip("10.1.3.4"), x), ""},
		{"longer still", packet4(ip("10.9.9.9"), ip("10.1.2.4"), x), "no_path"},
		{"shorter", packet4(ip("10.9.9.9"), ip("10.2.2.4"), x), "no_path"},
		{"none", packet4(ip("10.9.9.9"), ip("9.9.9.9"), x), "unrouted"},
		{"default", packet6(me, ip("2001:db8::1"), x), ""},
		{"mesh address never by prefix", packet6(me, third.plane.Address(), x), "destination"},
		{"multicast", packet6(me, ip("ff02::16"), x), "local"},
		{"link-local", packet6(ip("fe80::1"), ip("2001:db8::1"), x), "local"},
		{"malformed", []byte{0x60}, "packet"},
	}
	for _, tt := range tests {
		before := p.a.plane.Counters()
		p.a.workers[0].Originate(f.now, tt.packet, false)
		p.a.workers[0].Flush()
		sent := len(f.queue)
		f.queue = f.queue[:0]
		after := p.a.plane.Counters()
		if tt.drop == "" && sent != 1 || tt.drop != "" && (sent != 0 || after.Drops[tt.drop] != before.Drops[tt.drop]+1) {
			t.Errorf("%s: sent %d, drops %v → %v", tt.name, sent, before.Drops, after.Drops)
		}
	}
	if p.a.calls.unrouted != 4 {
		t.Errorf("%d unrouted upcalls, want 4", p.a.calls.unrouted)
	}
}

// TestRekey is test 1 in small: session keys change under a relayed flow, hop keys too; nothing is dropped.
func TestRekey(t *testing.T) {
	t.Parallel()
	f, p, _, hops := chain(t, 2, 2, 1472, 1)
	f.delay = func(*box, *box, int) time.Duration { return 3 * time.Millisecond }
	sent := 0
	for round := range 40 {
		if round%10 == 5 {
			p.install(t, p.keys+1)
		}
		if round%10 == 6 {
			p.use(p.keys)
		}
		if round%10 == 9 && p.keys > 2 {
			p.sa.SetRecvKey(uint8(p.keys-2), nil)
			p.sb.SetRecvKey(uint8(p.keys-2), nil)
		}
		for i := range len(hops) - 1 {
			x, y := hops[i], hops[i+1]
			n := byte(round / 8)
			if round%8 == 7 { // receivers learn the next key first, and keep the old one for those under way
				x.links[y].SetKeys(hopKey(y, x, n+1), hopKey(y, x, n), hopKey(x, y, n))
				y.links[x].SetKeys(hopKey(x, y, n+1), hopKey(x, y, n), hopKey(y, x, n))
			} else if round%8 == 0 && round > 0 {
				x.links[y].SetKeys(hopKey(y, x, n), hopKey(y, x, n-1), hopKey(x, y, n))
				y.links[x].SetKeys(hopKey(x, y, n), hopKey(x, y, n-1), hopKey(y, x, n))
			}
		}
		for range 30 {
			sent++
			p.a.workers[0].Originate(f.now, p.packet(400, sent), false)
		}
		p.a.workers[0].Flush()
		if round%3 == 0 {
			f.run()
		}
	}
	f.run()
	if len(p.b.tun.got) != sent {
		t.Errorf("%d of %d arrived", len(p.b.tun.got), sent)
	}
	for _, h := range hops {
		h.wantDrops(t, nil)
	}
}

// TestPreviousHopKey checks that the old hop key dies ten seconds after the first look at its successor.
func TestPreviousHopKey(t *testing.T) {
	t.Parallel()
	f, p, _, hops := chain(t, 1, 2, 1472, 1)
	r := hops[1]
	r.links[p.a].SetKeys(hopKey(p.a, r, 1), hopKey(p.a, r, 0), hopKey(r, p.a, 0))
	for i, after := range []time.Duration{0, 10 * time.Second, time.Millisecond} {
		f.now += after
		p.a.workers[0].Originate(f.now, p.packet(200, i), false)
		p.a.workers[0].Flush()
		f.run()
	}
	if len(p.b.tun.got) != 2 {
		t.Errorf("%d arrived under the old key, want 2", len(p.b.tun.got))
	}
	r.wantDrops(t, map[string]uint64{"bad_tag": 1})
}

func TestSlots(t *testing.T) {
	t.Parallel()
	p := New(Config{Network: key.Open(), Slots: 64, Generation: 0xffe}, &upcalls{})
	base, err := p.Alloc(8)
	if err != nil || base != 0xffe<<slotBits|1 {
		t.Fatalf("first: %#x, %v", base, err)
	}
	link := p.NewLink(key.Public{})
	p.InstallRelay(base, 8, Relay{In: link, Out: link})
	if p.entry(base+7) == nil || p.entry(base+8) != nil || p.entry(base^1<<31) != nil {
		t.Error("installed labels are wrong")
	}
	for i := 0; ; i++ {
		if _, err := p.Alloc(8); err != nil {
			if i != 6 { // 63 slots
				t.Errorf("%d more runs of 8, want 6", i)
			}
			break
		}
	}
	p.Free(base^1<<31, 8, time.Second) // another generation: nothing happens
	if p.entry(base) == nil {
		t.Error("freed by a stranger's label")
	}
	p.Free(base, 8, time.Second)
	if p.entry(base) != nil {
		t.Error("freed label still means something")
	}
	p.Advance(60 * time.Second)
	if l, err := p.Alloc(8); err == nil {
		t.Errorf("label %#x came back while it rests", l)
	}
	if p.Restore(base, 8) == nil {
		t.Error("restored while it rests")
	}
	p.Advance(61 * time.Second)
	again, err := p.Alloc(8)
	if err != nil || again != 0xfff<<slotBits|1 {
		t.Fatalf("again: %#x, %v", again, err)
	}
	p.Free(again, 8, 70*time.Second)
	p.Advance(200 * time.Second)
	if third, err := p.Alloc(8); err != nil || third != 0<<slotBits|1 { // generations come round
		t.Fatalf("third: %#x, %v", third, err)
	}
	for _, n := range []int{0, -1, 17, 64} {
		if _, err := p.Alloc(n); err == nil {
			t.Errorf("Alloc(%d) succeeds", n)
		}
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	p := New(Config{Network: key.Open(), Slots: 64, Generation: 5}, &upcalls{})
	old := uint32(0x123<<slotBits | 10)
	if err := p.Restore(old, 3); err != nil {
		t.Fatal(err)
	}
	if err := p.Restore(old, 3); err == nil {
		t.Error("restored twice")
	}
	link := p.NewLink(key.Public{})
	p.InstallRelay(old, 3, Relay{In: link, Out: link})
	if p.entry(old+2) == nil {
		t.Error("restored label means nothing")
	}
	seen := map[uint32]bool{}
	for {
		l, err := p.Alloc(1)
		if err != nil {
			break
		}
		if s := l & slotMask; s >= 10 && s < 13 {
			t.Fatalf("label %#x given out over a restored one", l)
		}
		seen[l] = true
	}
	if len(seen) != 60 {
		t.Errorf("%d labels, want 60", len(seen))
	}
	p.Free(old, 3, 0)
	p.Advance(slotRest)
	if l, err := p.Alloc(3); err != nil || l != old+1<<slotBits {
		t.Errorf("after restore and free: %#x, %v; want %#x", l, err, old+1<<slotBits)
	}
	for _, bad := range []uint32{0, 0x123<<slotBits | 63, 0xfff<<slotBits | 5000} {
		if p.Restore(bad, 3) == nil {
			t.Errorf("Restore(%#x) succeeds", bad)
		}
	}
}

func TestDropNames(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for d := range dropCount {
		if d.String() == "" || seen[d.String()] {
			t.Errorf("drop %d has no name of its own: %q", d, d)
		}
		seen[d.String()] = true
	}
}
