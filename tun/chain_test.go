package tun

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
)

// chainCases is how many packets and super-packets TestChain sends, over all its ways.
const chainCases = 100_000

// memory is a device whose kernel is the test.
type memory struct {
	in  segmenter
	out *coalescer
	got [][]byte
	err error
}

func newMemory() *memory {
	m := &memory{}
	m.out = newCoalescer(maxVirtioLen, true, func(b []byte) error {
		l, err := kernelTake(b, maxVirtioLen)
		if err != nil && m.err == nil {
			m.err = err
		}
		m.got = append(m.got, l...)
		return nil
	})
	return m
}

func (m *memory) FD() int               { return -1 }
func (m *memory) Receive() (int, error) { return 0, nil }
func (m *memory) Packet(b []byte) (int, bool, bool) {
	for {
		n, more := m.in.packet(b)
		if n > 0 || !more {
			return n, m.in.checksum, more
		}
	}
}
func (m *memory) Send(p []byte, checksum bool) error { return m.out.send(p, checksum) }
func (m *memory) Flush() error                       { return m.out.flush() }
func (m *memory) Close() error                       { return nil }

// deaf takes what the data plane says to control.
type deaf struct{}

func (deaf) Datagram(time.Duration, forward.Endpoint, []byte)                      {}
func (deaf) Control(time.Duration, *forward.Path, []byte)                          {}
func (deaf) QUIC(*forward.Session, []byte, int)                                    {}
func (deaf) Unrouted(time.Duration, []byte)                                        {}
func (deaf) NoLabel(time.Duration, forward.Endpoint, []byte)                       {}
func (deaf) TooBig(time.Duration, *forward.Relay, *forward.Link, uint32, int, int) {}
func (f sendFunc) Send(_ forward.Endpoint, train []byte, seg int, _ uint8) error {
	f(train, seg)
	return nil
}

type sendFunc func(train []byte, seg int)

// chain is a – relay – b in memory: what a sends is at b when a has flushed.
type chain struct {
	tun       *memory
	planes    [3]*forward.Plane
	workers   [3]*forward.Worker
	now       time.Duration
	packet    []byte
	loss      float64
	duplicate float64
	damage    float64
	rand      *rand.Rand
}

func chainKey(t *testing.T, n byte) key.Public {
	t.Helper()
	for i := byte(0); i < 100; i++ {
		if k, err := key.FromSeed([32]byte{n, i}); err == nil {
			return k.Public()
		}
	}
	t.Fatal("no key")
	return key.Public{}
}

var chain4 = [2]netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("10.4.5.6")}

// newChain lays a path for datagrams of mtu bytes.
func newChain(t *testing.T, mtu int) *chain {
	t.Helper()
	c := &chain{tun: newMemory(), now: time.Second, packet: make([]byte, 65536), rand: rand.New(rand.NewPCG(1, 2))}
	var keys [3]key.Public
	var at [3]forward.Endpoint
	for i := range keys {
		keys[i] = chainKey(t, byte(i+1))
		at[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 4000)
		c.planes[i] = forward.New(forward.Config{Network: key.Open(), Self: keys[i], Generation: 1}, deaf{})
		c.workers[i] = c.planes[i].NewWorker(sendFunc(func(train []byte, seg int) { c.carry(i+1, at[i], train, seg) }))
	}
	c.workers[2].SetTUN(c.tun)
	link := func(i, j int) *forward.Link {
		l := c.planes[i].NewLink(keys[j])
		l.SetEndpoint(at[j])
		l.SetKeys(&session.HopKey{byte(j), byte(i)}, nil, &session.HopKey{byte(i), byte(j)})
		l.SetMTU(mtu, mtu)
		l.SetUp(true)
		return l
	}
	alloc := func(i int) uint32 {
		base, err := c.planes[i].Alloc(2)
		if err != nil {
			t.Fatal(err)
		}
		return base
	}
	labels := [3]uint32{0, alloc(1), alloc(2)}
	c.planes[1].InstallRelay(labels[1], 2, forward.Relay{In: link(1, 0), Out: link(1, 2), OutBase: labels[2]})
	aead, err := session.NewAEAD(session.ChaCha, [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	sa, sb := c.planes[0].NewSession(keys[2], c.planes[2].Address()), c.planes[2].NewSession(keys[0], c.planes[0].Address())
	sa.SetSendKey(1, aead)
	sb.SetRecvKey(1, aead)
	sb.SetGrants(forward.Grants{Sources: []netip.Prefix{netip.PrefixFrom(chain4[0], 32)}})
	c.planes[2].SetOwn(forward.Own{Addresses: []netip.Addr{chain4[1]}})
	config := forward.PathConfig{Number: 2, First: link(0, 1), OutBase: labels[1], OutLanes: 2, InLanes: 2, MTU: mtu}
	sa.SetActive(c.planes[0].NewPath(sa, config))
	config.First = link(2, 1)
	c.planes[2].InstallEnd(labels[2], 2, config.First, c.planes[2].NewPath(sb, config))
	c.planes[0].SetRoutes(&forward.Routes{Hosts: map[netip.Addr]*forward.Session{c.planes[2].Address(): sa, chain4[1]: sa}})
	return c
}

// carry takes a train to node i, as whole or as half as the network is.
func (c *chain) carry(i int, from forward.Endpoint, train []byte, seg int) {
	if c.loss > 0 && c.rand.Float64() < c.loss {
		return
	}
	twice := c.duplicate > 0 && c.rand.Float64() < c.duplicate
	b := slices.Clone(train)
	if c.damage > 0 && c.rand.Float64() < c.damage {
		b, seg = c.spoil(b, seg)
	}
	c.workers[i].Receive(c.now, from, b, seg, 0)
	if twice {
		c.workers[i].Receive(c.now, from, slices.Clone(train), seg, 0)
	}
}

// spoil makes a train that nobody sent.
func (c *chain) spoil(b []byte, seg int) ([]byte, int) {
	switch r := c.rand; r.IntN(6) {
	case 0:
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case 1: // in a header
		b[r.IntN(len(b)/seg+1)*seg%len(b)] = byte(r.Uint32())
	case 2:
		b = b[:1+r.IntN(len(b))]
	case 3:
		seg = 1 + r.IntN(2*seg)
	case 4:
		b = append(b, b[:r.IntN(len(b))]...)
	default:
		at := r.IntN(len(b))
		b = slices.Concat(b[:at], b[min(len(b), at+1+r.IntN(50)):])
	}
	return b, min(seg, max(1, len(b)))
}

// send takes one read of a's TUN to b.
func (c *chain) send(it item) {
	c.tun.in.load(it.h, slices.Clone(it.p))
	for {
		n, checksum, ok := c.tun.Packet(c.packet)
		if !ok {
			return
		}
		c.workers[0].Originate(c.now, c.packet[:n], checksum)
	}
}

// flush ends a round of the loops and returns what came out.
func (c *chain) flush() ([][]byte, error) {
	for i := range c.workers {
		c.workers[i].Flush()
	}
	c.now += time.Millisecond
	got := c.tun.got
	c.tun.got = nil
	return got, c.tun.err
}

// TestChain sends generated packets from a TUN over a relay to a TUN: what the second kernel sees is what the first one
// would have sent without offloads, in the order of each flow.
func TestChain(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name            string
		mtu             int
		share           int // of the cases, in percent
		loss, duplicate float64
		damage          float64
	}{
		{"jumbo", 65507, 20, 0, 0, 0},
		{"mtu 1444", 1444, 30, 0, 0, 0},
		{"mtu 576", 576, 20, 0, 0, 0},
		{"loss", 1444, 10, 0.02, 0.02, 0},
		{"loss, mtu 576", 576, 10, 0.02, 0.02, 0},
		{"damage", 1444, 10, 0, 0, 0.3},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			seed := chainSeed(t)
			c := newChain(t, way.mtu)
			c.loss, c.duplicate, c.damage = way.loss, way.duplicate, way.damage
			g := newSource(seed, chain4[0], c.planes[0].Address(), chain4[1], c.planes[2].Address())
			cases := chainCases * way.share / 100
			if testing.Short() {
				cases /= 20
			}
			packets, writes := 0, 0
			for n := 0; n < cases; {
				var sent []item
				for range 1 + g.IntN(60) {
					it := g.next()
					it.want = slices.DeleteFunc(it.want, func(p []byte) bool { return len(p) > longest(way.mtu) })
					sent = append(sent, it)
					c.send(it)
					packets += len(it.want)
				}
				n += len(sent)
				got, err := c.flush()
				if err == nil {
					err = compareFlows(sent, got, way.loss+way.damage == 0)
				}
				if err != nil {
					t.Fatalf("seed %d, about case %d: %v", seed, n, err)
				}
				writes += len(got)
			}
			if writes < packets/2 || way.loss+way.damage == 0 && writes != packets {
				t.Errorf("seed %d: %d packets of %d", seed, writes, packets)
			}
			t.Logf("seed %d: %d cases, %d packets of %d", seed, cases, writes, packets)
		})
	}
}

// chainSeed is SEED, or another one each time.
func chainSeed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("SEED")
	if s == "" {
		return rand.Uint64N(1 << 32)
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// longest is the longest packet that crosses a path, in one frame or in four pieces of at most 2,048 bytes.
func longest(mtu int) int {
	room := mtu - 44
	return max(room, min(4*room, 8192))
}

// flowOf names what must keep its order.
func flowOf(p []byte) string {
	in, ok := parseInner(p)
	if len(p) < 20 {
		return ""
	}
	addresses, proto := p[12:20], p[9]
	if p[0]>>4 == 6 {
		addresses, proto = p[8:40], p[6]
	}
	ports := []byte(nil)
	if ok {
		ports = p[in.transport : in.transport+4]
	}
	return string(addresses) + string([]byte{proto}) + string(ports)
}

// compareFlows holds what came out against what went in. Where nothing may be lost, all of it has to be there.
func compareFlows(sent []item, got [][]byte, all bool) error {
	type expected struct {
		name string
		p    []byte
	}
	want := map[string][]expected{}
	for _, it := range sent {
		for _, p := range it.want {
			f := flowOf(p)
			want[f] = append(want[f], expected{it.name, p})
		}
	}
	for _, p := range got {
		f := flowOf(p)
		l := want[f]
		i := 0
		for !all && i < len(l) && !same(p, l[i].p) {
			i++
		}
		if i == len(l) {
			return fmt.Errorf("nobody sent this, or not in this order: %x", p)
		}
		if all && !same(p, l[0].p) {
			return fmt.Errorf("%s:\n%x\nwant\n%x", l[0].name, p, l[0].p)
		}
		want[f] = l[i+1:]
	}
	for _, l := range want {
		if all && len(l) > 0 {
			return fmt.Errorf("%s is lost: %x", l[0].name, l[0].p)
		}
	}
	return nil
}
