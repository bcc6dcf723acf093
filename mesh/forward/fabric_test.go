package forward

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// fabric carries trains between boxes of one test on virtual time, in one goroutine.
type fabric struct {
	t     testing.TB
	now   time.Duration
	boxes map[netip.AddrPort]*box
	queue flights
	seq   int
	// delay of a train on its way; nil: none. A negative one loses it.
	delay func(from, to *box, worker int) time.Duration
	// seen is called for every train as it was sent; nil: not.
	seen func(from, to *box, train []byte, seg int)
}

type flight struct {
	at   time.Duration
	seq  int
	to   *box
	from Endpoint
	b    []byte
	seg  int
	ecn  uint8
}

type flights []flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	return f[i].at < f[j].at || f[i].at == f[j].at && f[i].seq < f[j].seq
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(flight)) }
func (f *flights) Pop() any {
	x := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return x
}

// run delivers everything that is due until nothing is left.
func (f *fabric) run() {
	for len(f.queue) > 0 {
		f.step()
	}
}

// step delivers what is due first.
func (f *fabric) step() {
	x := heap.Pop(&f.queue).(flight)
	f.now = max(f.now, x.at)
	x.to.workers[0].Receive(f.now, x.from, x.b, x.seg, x.ecn)
	x.to.workers[0].Flush()
}

// box is a node of the test: plane, workers, what came out of it.
type box struct {
	f       *fabric
	name    string
	key     key.Public
	at      Endpoint
	plane   *Plane
	workers []*Worker
	links   map[*box]*Link
	tun     memTUN
	calls   upcalls
}

// port is the Output of one worker.
type port struct {
	b     *box
	index int
}

func (o *port) Send(to Endpoint, train []byte, seg int, ecn uint8) error {
	f := o.b.f
	d := f.boxes[to.Addr]
	if d == nil {
		f.t.Fatalf("%s sends to nobody: %v", o.b.name, to)
	}
	if f.seen != nil {
		f.seen(o.b, d, train, seg)
	}
	at := f.now
	if f.delay != nil {
		wait := f.delay(o.b, d, o.index)
		if wait < 0 {
			return nil
		}
		at += wait
	}
	f.seq++
	heap.Push(&f.queue, flight{at: at, seq: f.seq, to: d, from: o.b.at, b: slices.Clone(train), seg: seg, ecn: ecn})
	return nil
}

// memTUN takes what is delivered, at Flush.
type memTUN struct {
	held [][]byte
	sums []bool
	got  [][]byte
	gotC []bool
}

func (t *memTUN) FD() int                         { return -1 }
func (t *memTUN) Receive() (int, error)           { return 0, nil }
func (t *memTUN) Packet([]byte) (int, bool, bool) { return 0, false, false }
func (t *memTUN) Close() error                    { return nil }
func (t *memTUN) Send(p []byte, checksum bool) error {
	t.held, t.sums = append(t.held, slices.Clone(p)), append(t.sums, checksum)
	return nil
}

func (t *memTUN) Flush() error {
	for i, p := range t.held {
		t.got, t.gotC = append(t.got, p), append(t.gotC, t.sums[i])
	}
	t.held, t.sums = t.held[:0], t.sums[:0]
	return nil
}

type upcalls struct {
	datagrams [][]byte
	control   [][]byte
	quic      [][]byte // single packets
	trains    int
	unrouted  int
	noLabel   [][]byte
	tooBig    []string
}

func (u *upcalls) Datagram(_ time.Duration, _ Endpoint, b []byte) {
	u.datagrams = append(u.datagrams, slices.Clone(b))
}

func (u *upcalls) Control(_ time.Duration, _ *Path, b []byte) {
	u.control = append(u.control, slices.Clone(b))
}

func (u *upcalls) QUIC(_ *Session, b []byte, seg int) {
	u.trains++
	for p := range slices.Chunk(b, seg) {
		u.quic = append(u.quic, slices.Clone(p))
	}
}
func (u *upcalls) Unrouted(time.Duration, []byte) { u.unrouted++ }
func (u *upcalls) NoLabel(_ time.Duration, _ Endpoint, b []byte) {
	u.noLabel = append(u.noLabel, slices.Clone(b))
}

func (u *upcalls) TooBig(_ time.Duration, r *Relay, _ *Link, label uint32, size, mtu int) {
	u.tooBig = append(u.tooBig, fmt.Sprintf("relay=%v label=%v size=%d mtu=%d", r != nil, label != 0, size, mtu))
}

func newFabric(t testing.TB) *fabric {
	return &fabric{t: t, now: time.Second, boxes: map[netip.AddrPort]*box{}}
}

func (f *fabric) box(name string, workers int) *box {
	f.t.Helper()
	k, err := key.FromSeed([32]byte{byte(len(f.boxes) + 1)})
	if err != nil {
		// Half of all seeds give a key with the wrong sign.
		for i := byte(100); err != nil; i++ {
			k, err = key.FromSeed([32]byte{byte(len(f.boxes) + 1), i})
		}
	}
	b := &box{f: f, name: name, key: k.Public(), links: map[*box]*Link{}}
	b.at.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(len(f.boxes) + 1)}), 4000)
	b.plane = New(Config{Network: key.Open(), Self: b.key, Generation: uint32(77 * (len(f.boxes) + 1)), Loops: workers}, &b.calls)
	for i := range workers {
		w := b.plane.NewWorker(&port{b: b, index: i})
		w.SetTUN(&b.tun)
		b.workers = append(b.workers, w)
	}
	f.boxes[b.at.Addr] = b
	return b
}

func hopKey(a, b *box, n byte) *session.HopKey {
	var k session.HopKey
	copy(k[:], a.name+"→"+b.name)
	k[15] = n
	return &k
}

// link joins two boxes.
func (f *fabric) link(a, b *box, mtu int) {
	for _, x := range [][2]*box{{a, b}, {b, a}} {
		l := x[0].plane.NewLink(x[1].key)
		l.SetEndpoint(x[1].at)
		l.SetKeys(hopKey(x[1], x[0], 0), nil, hopKey(x[0], x[1], 0))
		l.SetMTU(mtu, mtu)
		l.SetUp(true)
		x[0].links[x[1]] = l
	}
}

func aead(t testing.TB, seed string) *session.AEAD {
	t.Helper()
	var k [32]byte
	copy(k[:], seed)
	a, err := session.NewAEAD(session.ChaCha, k)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// pair is a session with both its ends.
type pair struct {
	a, b   *box
	sa, sb *Session
	keys   int
	made   []byte
}

// session joins two boxes end to end and routes their mesh addresses.
func (f *fabric) session(a, b *box) *pair {
	p := &pair{a: a, b: b}
	p.sa = a.plane.NewSession(b.key, b.plane.Address())
	p.sb = b.plane.NewSession(a.key, a.plane.Address())
	p.install(f.t, 1)
	p.use(1)
	a.plane.SetRoutes(&Routes{Hosts: map[netip.Addr]*Session{b.plane.Address(): p.sa}})
	b.plane.SetRoutes(&Routes{Hosts: map[netip.Addr]*Session{a.plane.Address(): p.sb}})
	return p
}

// install makes key n receivable at both ends; use sends with it.
func (p *pair) install(t testing.TB, n int) {
	p.sa.SetRecvKey(uint8(n), aead(t, fmt.Sprintf("%s→%s %d", p.b.name, p.a.name, n)))
	p.sb.SetRecvKey(uint8(n), aead(t, fmt.Sprintf("%s→%s %d", p.a.name, p.b.name, n)))
	p.keys = n
}

func (p *pair) use(n int) {
	p.sa.SetSendKey(uint8(n), p.sb.receiveKey(uint8(n)).aead)
	p.sb.SetSendKey(uint8(n), p.sa.receiveKey(uint8(n)).aead)
}

// laid is a path as its nodes installed it.
type laid struct {
	pa, pb  *Path
	relays  []*Relay // forward ones
	labels  []uint32 // forward, by node from the second on
	aLabels uint32
}

// lay sets a path up along hops, the first of which is a and the last b, and makes it active.
func (f *fabric) lay(p *pair, number uint16, lanes, mtu int, hops ...*box) *laid {
	f.t.Helper()
	alloc := func(b *box) uint32 {
		base, err := b.plane.Alloc(lanes)
		if err != nil {
			f.t.Fatal(err)
		}
		return base
	}
	n := len(hops) - 1
	forward, backward := make([]uint32, n+1), make([]uint32, n+1)
	for i, h := range hops {
		if i > 0 {
			forward[i] = alloc(h)
		}
		if i < n {
			backward[i] = alloc(h)
		}
	}
	l := &laid{labels: forward, aLabels: backward[0]}
	for i := 1; i < n; i++ {
		prev, next := hops[i].links[hops[i-1]], hops[i].links[hops[i+1]]
		id := [16]byte{byte(number)}
		l.relays = append(l.relays, hops[i].plane.InstallRelay(forward[i], lanes, Relay{In: prev, Out: next, OutBase: forward[i+1], ID: id}))
		hops[i].plane.InstallRelay(backward[i], lanes, Relay{In: next, Out: prev, OutBase: backward[i-1], ID: id})
	}
	first, last := hops[0].links[hops[1]], hops[n].links[hops[n-1]]
	c := PathConfig{Number: number, OutLanes: uint8(lanes), InLanes: uint8(lanes), MTU: mtu}
	c.First, c.OutBase = first, forward[1]
	l.pa = p.a.plane.NewPath(p.sa, c)
	c.First, c.OutBase = last, backward[n-1]
	l.pb = p.b.plane.NewPath(p.sb, c)
	p.a.plane.InstallEnd(backward[0], lanes, first, l.pa)
	p.b.plane.InstallEnd(forward[n], lanes, last, l.pb)
	p.sa.SetActive(l.pa)
	p.sb.SetActive(l.pb)
	return l
}

// chain is a, n relays and b, with one session over one path.
func chain(t testing.TB, relays, lanes, mtu, workers int) (*fabric, *pair, *laid, []*box) {
	t.Helper()
	f := newFabric(t)
	hops := []*box{f.box("a", workers)}
	for i := range relays {
		hops = append(hops, f.box(fmt.Sprintf("r%d", i+1), 1))
	}
	hops = append(hops, f.box("b", workers))
	for i := range len(hops) - 1 {
		f.link(hops[i], hops[i+1], mtu)
	}
	p := f.session(hops[0], hops[len(hops)-1])
	return f, p, f.lay(p, 2, lanes, mtu, hops...), hops
}

// packet6 is an inner UDP packet with a checksum that is right.
func packet6(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 48, 48+len(payload))
	p[0], p[6], p[7] = 0x60, protoUDP, 64
	binary.BigEndian.PutUint16(p[4:], uint16(8+len(payload)))
	s, d := src.As16(), dst.As16()
	copy(p[8:], s[:])
	copy(p[24:], d[:])
	binary.BigEndian.PutUint16(p[40:], 1000)
	binary.BigEndian.PutUint16(p[42:], 2000)
	binary.BigEndian.PutUint16(p[44:], uint16(8+len(payload)))
	p = append(p, payload...)
	if !fillChecksum(p) {
		panic("packet6")
	}
	return p
}

func packet4(src, dst netip.Addr, payload []byte) []byte {
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	s, d := src.As4(), dst.As4()
	copy(p[12:], s[:])
	copy(p[16:], d[:])
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	binary.BigEndian.PutUint16(p[10:], ^fold(addWords(0, p[:20])))
	p = append(p, payload...)
	if !fillChecksum(p) {
		panic("packet4")
	}
	return p
}

// packet is one from a to b of a pair, n bytes long, told apart by i.
func (p *pair) packet(n, i int) []byte {
	payload := bytes.Repeat([]byte{byte(i)}, n-48)
	if len(payload) >= 8 {
		binary.BigEndian.PutUint64(payload, uint64(i))
	}
	return packet6(p.a.plane.Address(), p.b.plane.Address(), payload)
}

func (p *pair) packetBack(n, i int) []byte {
	payload := bytes.Repeat([]byte{byte(i)}, n-48)
	if len(payload) >= 8 {
		binary.BigEndian.PutUint64(payload, uint64(i))
	}
	return packet6(p.b.plane.Address(), p.a.plane.Address(), payload)
}

// wantDrops fails unless exactly these drops were counted.
func (b *box) wantDrops(t testing.TB, want map[string]uint64) {
	t.Helper()
	got := b.plane.Counters().Drops
	if len(got) != len(want) {
		t.Errorf("%s drops: got %v, want %v", b.name, got, want)
		return
	}
	for k, n := range want {
		if got[k] != n {
			t.Errorf("%s drops: got %v, want %v", b.name, got, want)
		}
	}
}

// one catches the single frame that a sends for a packet, without carrying it on.
func (f *fabric) one(p *pair, n int) []byte {
	f.t.Helper()
	p.a.workers[0].Originate(f.now, p.packet(n, 1), false)
	p.a.workers[0].Flush()
	if len(f.queue) != 1 || len(f.queue[0].b) != n+wire.SealedOverhead {
		f.t.Fatalf("want one frame, got %d trains", len(f.queue))
	}
	b := f.queue[0].b
	f.queue = f.queue[:0]
	return b
}
