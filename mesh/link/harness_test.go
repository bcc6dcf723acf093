package link

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/forward"
	"skywire/mesh/key"
	"skywire/mesh/session"
	"skywire/mesh/wire"
)

// lab is two or more machines on virtual time with wires between their addresses, and nothing else: no data plane.
type lab struct {
	t     *testing.T
	now   time.Duration
	seq   int
	queue labQueue
	rand  *rand.Rand
	at    map[netip.AddrPort]*box
	boxes []*box

	// fate says what becomes of a datagram: the delays of its copies, none if it is lost.
	fate func(from, to netip.AddrPort, b []byte) []time.Duration
	// tap sees every datagram that is sent.
	tap func(from, to netip.AddrPort, b []byte)
}

type labEvent struct {
	at  time.Duration
	seq int
	f   func()
}

type labQueue []labEvent

func (q labQueue) Len() int { return len(q) }
func (q labQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q labQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *labQueue) Push(x any)   { *q = append(*q, x.(labEvent)) }
func (q *labQueue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

const labDelay = 5 * time.Millisecond

func newLab(t *testing.T) *lab {
	t.Helper()
	return &lab{
		t: t, now: time.Second, rand: rand.New(rand.NewPCG(7, 7)), at: map[netip.AddrPort]*box{},
		fate: func(netip.AddrPort, netip.AddrPort, []byte) []time.Duration { return []time.Duration{labDelay} },
	}
}

func (b *lab) after(d time.Duration, f func()) {
	b.seq++
	heap.Push(&b.queue, labEvent{at: b.now + d, seq: b.seq, f: f})
}

// run lets time pass: datagrams arrive, machines tick.
func (b *lab) run(d time.Duration) {
	end := b.now + d
	for {
		next, due := end+1, (*box)(nil)
		for _, x := range b.boxes {
			if x.next < next {
				next, due = max(x.next, b.now), x
			}
		}
		if len(b.queue) > 0 && b.queue[0].at <= min(next, end) {
			e := heap.Pop(&b.queue).(labEvent)
			b.now = e.at
			e.f()
			continue
		}
		if due == nil || next > end {
			break
		}
		b.now = next
		due.next = max(due.links.Tick(b.now), b.now+time.Millisecond)
	}
	b.now = end
}

// until lets time pass until ok, at most d.
func (b *lab) until(d time.Duration, what string, ok func() bool) {
	b.t.Helper()
	for end := b.now + d; b.now < end; {
		if ok() {
			return
		}
		b.run(time.Millisecond)
	}
	if !ok() {
		b.t.Fatalf("not within %v: %s", d, what)
	}
}

// box is one machine with its host.
type box struct {
	lab   *lab
	links *Links
	id    *key.Private
	key   key.Public
	addr  netip.AddrPort     // of its first port
	nat   *nat               // that it is behind, if any
	more  []forward.Endpoint // further addresses of its own, with their sockets
	next  time.Duration

	refuse                       bool
	ups                          int
	restarts                     int
	forgotten                    int
	downs                        []string
	messages                     [][]byte // kind, then body
	sentData                     map[uint32]bool
	dataGot, dataSent, dataBytes uint64
	dataRx                       time.Duration
	dataTx                       time.Duration
	bytesOut                     int
	onMessage                    func(l *Link, kind uint8, body []byte)
}

func identity(t testing.TB, n byte) *key.Private {
	t.Helper()
	for seed := ([32]byte{n, 1}); ; seed[2]++ {
		if k, err := key.FromSeed(seed); err == nil {
			return k
		}
	}
}

func addrPort(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 7667)
}

func (b *lab) add(n byte, c Config) *box {
	b.t.Helper()
	x := &box{lab: b, addr: addrPort(n), id: identity(b.t, n), sentData: map[uint32]bool{}}
	x.key = x.id.Public()
	x.start(c)
	for i := range max(c.Ports, 1) {
		b.at[above(x.addr, i)] = x
	}
	b.boxes = append(b.boxes, x)
	return x
}

// above is the address i ports higher.
func above(a netip.AddrPort, i int) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr(), a.Port()+uint16(i))
}

// nat gives each pair of an inner and an outer address a port of its own, and lets nothing in that was not asked for.
type nat struct {
	lab  *lab
	box  *box
	addr netip.Addr
	out  map[[2]netip.AddrPort]netip.AddrPort // inner, outer → port of ours
	in   map[[2]netip.AddrPort]netip.AddrPort // port of ours, outer → inner
}

func (x *box) behind(addr netip.Addr) {
	x.nat = &nat{lab: x.lab, box: x, addr: addr, out: map[[2]netip.AddrPort]netip.AddrPort{}, in: map[[2]netip.AddrPort]netip.AddrPort{}}
}

func (a *nat) leave(from, to netip.AddrPort) netip.AddrPort {
	k := [2]netip.AddrPort{from, to}
	if _, ok := a.out[k]; !ok {
		a.out[k] = netip.AddrPortFrom(a.addr, uint16(30000+97*len(a.out)%1000))
		a.in[[2]netip.AddrPort{a.out[k], to}] = from
		a.lab.at[a.out[k]] = a.box
	}
	return a.out[k]
}

// start makes the machine anew, as a restart would.
func (x *box) start(c Config) {
	c.Identity, c.Network = x.id, key.Open()
	c.Boot = x.lab.rand.Uint64()
	c.Rand = rand.New(rand.NewPCG(x.lab.rand.Uint64(), 1))
	if c.Session.Ciphers == 0 {
		c.Session.Ciphers = session.ChaCha
	}
	l, err := New(c, x)
	if err != nil {
		x.lab.t.Fatal(err)
	}
	x.links, x.next = l, x.lab.now
}

// move gives the machine another address, as a NAT or a new uplink does.
func (x *box) move(to netip.AddrPort) {
	delete(x.lab.at, x.addr)
	x.addr = to
	x.lab.at[to] = x
}

// also gives the machine a further address, on a socket of its own.
func (x *box) also(at netip.AddrPort, socket uint16) {
	x.more = append(x.more, forward.Endpoint{Addr: at, Socket: socket})
	x.lab.at[at] = x
}

func (x *box) dial(to *box, persistent bool) *Link {
	x.lab.t.Helper()
	l, err := x.links.Dial(x.lab.now, to.key, []forward.Endpoint{{Addr: to.addr}}, persistent)
	if err != nil {
		x.lab.t.Fatal(err)
	}
	x.next = x.lab.now
	return l
}

// inject delivers a datagram as if it came from there.
func (x *box) inject(from netip.AddrPort, b []byte) {
	x.links.Datagram(x.lab.now, forward.Endpoint{Addr: from}, bytes.Clone(b))
	x.next = x.lab.now
}

func (x *box) link(to *box) *Link { return x.links.ByPeer(to.key) }

func (x *box) up(to *box) bool { l := x.link(to); return l != nil && l.State() == Up }

func (x *box) Transmit(to forward.Endpoint, b []byte) {
	n := x.lab
	x.bytesOut += len(b)
	from, b := above(x.addr, int(to.Socket)), bytes.Clone(b)
	for _, m := range x.more {
		if m.Socket == to.Socket {
			from = m.Addr
		}
	}
	if x.nat != nil {
		from = x.nat.leave(from, to.Addr)
	}
	if n.tap != nil {
		n.tap(from, to.Addr, b)
	}
	for _, d := range n.fate(from, to.Addr, b) {
		n.after(d, func() {
			dst, at := n.at[to.Addr], to.Addr
			if dst != nil && dst.nat != nil {
				at = dst.nat.in[[2]netip.AddrPort{to.Addr, from}]
			}
			if dst != nil && at.IsValid() {
				socket := at.Port() - dst.addr.Port()
				for _, m := range dst.more {
					if m.Addr == at {
						socket = m.Socket
					}
				}
				dst.links.Datagram(n.now, forward.Endpoint{Addr: from, Socket: socket}, b)
				dst.next = n.now
			}
		})
	}
}

func (x *box) Admit(key.Public) error {
	if x.refuse {
		return ErrSelf
	}
	return nil
}

func (x *box) Up(_ time.Duration, _ *Link, restarted bool) {
	x.ups++
	if restarted {
		x.restarts++
	}
}

func (x *box) Down(_ time.Duration, _ *Link, reason string) { x.downs = append(x.downs, reason) }
func (x *box) Forgotten(time.Duration, *Link)               { x.forgotten++ }
func (x *box) Changed(time.Duration, *Link)                 {}
func (x *box) Sent(_ *Link, h wire.Header) bool             { return x.sentData[h.Label] }
func (x *box) Counts(*Link) (received, sent, bytes uint64)  { return x.dataGot, x.dataSent, x.dataBytes }
func (x *box) Traffic(*Link) (rx, tx time.Duration)         { return x.dataRx, x.dataTx }
func (x *box) Message(_ time.Duration, l *Link, kind uint8, body []byte) {
	x.messages = append(x.messages, append([]byte{kind}, body...))
	if x.onMessage != nil {
		x.onMessage(l, kind, body)
	}
}

// linked makes two boxes with a link between them, settled.
func linked(t *testing.T, c Config) (*lab, *box, *box) {
	t.Helper()
	n := newLab(t)
	a, b := n.add(1, c), n.add(2, c)
	a.dial(b, true)
	n.until(2*time.Second, "link up", func() bool { return a.up(b) && b.up(a) })
	n.run(time.Second)
	return n, a, b
}

// checkData fails unless dataPasses.
func checkData(t *testing.T, n *lab, a, b *box) {
	t.Helper()
	if err := dataPasses(n, a, b); err != nil {
		t.Error(err)
	}
}

// dataPasses tells whether hop tags made at either end are taken at the other one at this moment, as data frames' are,
// and whether link labels are known.
func dataPasses(n *lab, a, b *box) error {
	for _, d := range [][2]*box{{a, b}, {b, a}} {
		from, to := d[0].link(d[1]), d[1].link(d[0])
		_, _, out := from.Ring().HopKeys(n.now)
		in, other, _ := to.Ring().HopKeys(n.now)
		if out == nil || in == nil {
			return fmt.Errorf("%v to %v: no hop key", d[0].addr, d[1].addr)
		}
		if *out != *in && (other == nil || *out != *other) {
			return fmt.Errorf("data from %v is refused at %v: hop keys differ", d[0].addr, d[1].addr)
		}
		if from.theirLabel != to.label && !isOldLabel(to, from.theirLabel) {
			return fmt.Errorf("%v writes a link label that %v has forgotten", d[0].addr, d[1].addr)
		}
	}
	return nil
}

func isOldLabel(l *Link, label uint32) bool {
	for _, o := range l.oldLabels {
		if o.label == label {
			return true
		}
	}
	return false
}

func typeIs(b []byte, k byte) bool { return len(b) > 0 && b[0] == k }
