package forward

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// cluster is a fabric whose boxes have several loops, each with a port and a TUN queue of its own. Every pair of ports has
// a delay of its own and keeps the order of what it carries, as networks do; so does every loop, which may be late.
type cluster struct {
	*fabric
	rand  *rand.Rand
	last  map[[2]netip.AddrPort]time.Duration // when the latest datagram between two ports arrives
	free  map[*Worker]time.Duration           // when a loop has done what it has so far
	boxes map[netip.Addr]*kernel
	todo  todos
}

type todo struct {
	at  time.Duration
	seq int
	do  func()
}

type todos []todo

func (t todos) Len() int { return len(t) }
func (t todos) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].seq < t[j].seq
}
func (t todos) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *todos) Push(x any)   { *t = append(*t, x.(todo)) }
func (t *todos) Pop() any {
	x := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return x
}

// kernel is the system around a box: which queue it gives the packets of a flow to.
type kernel struct {
	*box
	c     *cluster
	peer  *kernel
	flows map[int]int // flow → queue, by what was written last
	got   map[int][]int
}

func (c *cluster) kernel(name string, loops int) *kernel {
	k := &kernel{box: c.box(name, loops), c: c, flows: map[int]int{}, got: map[int][]int{}}
	c.boxes[k.at.Addr.Addr()] = k
	for i, w := range k.workers {
		w.SetTUN(&kernelQueue{k: k, queue: i})
		w.out = outputFunc(func(to Endpoint, train []byte, seg int) error {
			c.send(k, to, slices.Clone(train), seg)
			return nil
		})
	}
	return k
}

func (k *kernel) port(i int) netip.AddrPort {
	return netip.AddrPortFrom(k.at.Addr.Addr(), k.at.Addr.Port()+uint16(i))
}

// send carries a train from a box's socket to a port of another.
func (c *cluster) send(from *kernel, to Endpoint, train []byte, seg int) {
	pair := [2]netip.AddrPort{from.port(int(to.Socket)), to.Addr}
	at := max(c.now+time.Duration(c.rand.IntN(3000))*time.Microsecond, c.last[pair])
	c.last[pair] = at
	c.after(at, func() {
		k := c.boxes[to.Addr.Addr()]
		loop := int(to.Addr.Port() - k.at.Addr.Port())
		w := k.workers[loop]
		start := max(c.now, c.free[w])
		c.free[w] = start + time.Duration(c.rand.IntN(2000))*time.Microsecond
		c.after(start, func() {
			w.Receive(c.now, Endpoint{Addr: pair[0], Socket: uint16(loop)}, train, seg, 0)
			w.Flush()
		})
	})
}

// after does f at a time; what has the same time happens in the order in which it was asked for.
func (c *cluster) after(at time.Duration, f func()) {
	c.seq++
	heap.Push(&c.todo, todo{at, c.seq, f})
}

// settle does all that is to do.
func (c *cluster) settle() {
	for len(c.todo) > 0 {
		x := heap.Pop(&c.todo).(todo)
		c.now = max(c.now, x.at)
		x.do()
	}
}

// kernelQueue is a queue of a device: what is written to it shows the kernel where the flow belongs.
type kernelQueue struct {
	memTUN
	k     *kernel
	queue int
}

func (q *kernelQueue) Send(p []byte, _ bool) error {
	flow, n := int(binary.BigEndian.Uint32(p[48:])), int(binary.BigEndian.Uint32(p[52:]))
	q.k.flows[flow] = q.queue
	q.k.got[flow] = append(q.k.got[flow], n)
	return nil
}

// send has the box send the next packets of a flow.
func (k *kernel) send(flow, from, n int) {
	queue, known := k.flows[flow]
	if !known {
		queue = flow % len(k.workers)
	}
	for i := range n {
		payload := make([]byte, 8+k.c.rand.IntN(1200))
		binary.BigEndian.PutUint32(payload, uint32(flow))
		binary.BigEndian.PutUint32(payload[4:], uint32(from+i))
		k.workers[queue].Originate(k.c.now, packet6(k.plane.Address(), k.peer.plane.Address(), payload), false)
	}
	k.workers[queue].Flush()
}

// TestLoopsKeepOrder sends flows both ways between boxes of up to four loops over relays of up to four, through ports of
// which some are shut, with loops and wires that are late at random: no flow is reordered, no packet lost, no nonce
// used twice, and flows settle.
func TestLoopsKeepOrder(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, seed)
			a, b := c.ends()
			const flows, rounds = 12, 30
			next := make([]int, flows)
			for range 6 { // as connections begin: one packet, one answer
				for f := range flows {
					a.send(f, next[f], 1)
					c.settle()
					b.send(f, next[f], 1)
					c.settle()
					next[f]++
				}
			}
			settled := []map[int]int{maps.Clone(a.flows), maps.Clone(b.flows)}
			for range rounds {
				f := c.rand.IntN(flows)
				n := 1 + c.rand.IntN(20)
				a.send(f, next[f], n)
				b.send(f, next[f], n)
				next[f] += n
				for range c.rand.IntN(20) { // some arrive before the next are sent
					if len(c.todo) > 0 {
						x := heap.Pop(&c.todo).(todo)
						c.now = max(c.now, x.at)
						x.do()
					}
				}
			}
			c.settle()
			for i, k := range []*kernel{a, b} {
				for f, got := range k.got {
					if len(got) != next[f] || !slices.IsSorted(got) {
						t.Errorf("%s, flow %d: %d of %d arrived: %v", k.name, f, len(got), next[f], got)
					}
				}
				if !maps.Equal(settled[i], k.flows) {
					t.Errorf("%s: flows moved from %v to %v", k.name, settled[i], k.flows)
				}
			}
			for _, k := range c.boxes {
				k.wantDrops(t, nil)
			}
		})
	}
}

func newCluster(t *testing.T, seed uint64) *cluster {
	return &cluster{
		fabric: newFabric(t), rand: rand.New(rand.NewPCG(seed, 1)), last: map[[2]netip.AddrPort]time.Duration{},
		free: map[*Worker]time.Duration{}, boxes: map[netip.Addr]*kernel{},
	}
}

// ends makes a chain of boxes with a path and returns its ends.
func (c *cluster) ends() (a, b *kernel) {
	var hops []*kernel
	for i := range 2 + c.rand.IntN(3) {
		hops = append(hops, c.kernel(fmt.Sprint("n", i), 1+c.rand.IntN(4)))
	}
	var plain []*box
	for i, k := range hops {
		plain = append(plain, k.box)
		if i > 0 {
			c.link(hops[i-1].box, k.box, 1472)
			c.lanes(hops[i-1], k)
			c.lanes(k, hops[i-1])
		}
	}
	a, b = hops[0], hops[len(hops)-1]
	a.peer, b.peer = b, a
	rec := &nonceRecorder{t: c.t, seen: map[nonceUse]bool{}}
	for _, d := range [][2]*kernel{{a, hops[1]}, {b, hops[len(hops)-2]}} {
		for _, w := range d[0].workers {
			out := w.out
			w.out = outputFunc(func(to Endpoint, train []byte, seg int) error {
				rec.firstHop(d[0].box, d[1].box, train, seg)
				return out.Send(to, train, seg, 0)
			})
		}
	}
	p := c.session(a.box, b.box)
	p.sa.spread = uint8(c.rand.IntN(256)) // by the keys, of which the test has few
	p.sb.spread = p.sa.spread
	c.lay(p, 2, 5, 1472, plain...)
	return a, b
}

// lanes gives the lanes of a link the ports that SPEC.md says, save those that are shut.
func (c *cluster) lanes(from, to *kernel) {
	all := make([]Endpoint, maxLanes)
	shut := c.rand.IntN(8) // bit i: port i+1
	for i := range all {
		port := i % len(to.workers)
		all[i] = Endpoint{Addr: to.port(port), Socket: uint16(i % len(from.workers))}
		if port > 0 && shut>>(port-1)&1 != 0 {
			all[i] = Endpoint{Addr: to.at.Addr}
		}
	}
	from.links[to.box].SetEndpoints(all...)
}

// firstHop notes the nonces of a train that leaves its source: there a label and counter belong to one nonce.
func (r *nonceRecorder) firstHop(from, to *box, train []byte, seg int) {
	for len(train) > 0 {
		b := train[:min(seg, len(train))]
		train = train[len(b):]
		e := to.plane.entry(binary.BigEndian.Uint32(b[4:]))
		u := nonceUse{end: from, key: b[1], lane: e.lane, counter: binary.BigEndian.Uint64(b[8:])}
		r.mu.Lock()
		if r.seen[u] {
			r.t.Errorf("key and nonce used twice: %+v", u)
		}
		r.seen[u] = true
		r.mu.Unlock()
	}
}
