package messenger

import (
	"container/heap"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/member"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
	"skywire/mesh/store"
)

// sim runs cores on virtual time, without a goroutine: frames take their time and are lost with their link, commits take
// theirs, and a node may crash at any moment, also between a commit and what rests on it.
type sim struct {
	t     testing.TB
	rand  *rand.Rand
	now   time.Duration
	queue simQueue
	n     int
	nodes []*simNode
}

type simNode struct {
	s       *sim
	name    string
	key     *key.Private
	cfg     Config
	c       *core
	life    int // of which a crash begins another
	on      bool
	held    []effect
	commits bool // one is on its way
	pipes   map[*link]*simPipe
	crashes int
	steps   int      // writes, effects and frames so far
	crashAt int      // before this step; 0: never
	cut     *simNode // it does not reach this one
}

// step counts what a node does, and crashes it where a test wants it.
func (n *simNode) step() (crashed bool) {
	n.steps++
	if n.steps != n.crashAt {
		return false
	}
	n.crash()
	return true
}

// simPipe is one end of a link.
type simPipe struct {
	node  *simNode
	life  int
	l     *link
	other *simPipe
	dead  bool
	last  time.Duration // arrival of the latest frame: order is kept
}

type simEvent struct {
	at time.Duration
	n  int
	f  func()
}

type simQueue []simEvent

func (q simQueue) Len() int { return len(q) }
func (q simQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].n < q[j].n
}
func (q simQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *simQueue) Push(v any)   { *q = append(*q, v.(simEvent)) }
func (q *simQueue) Pop() any {
	old := *q
	v := old[len(old)-1]
	*q = old[:len(old)-1]
	return v
}

var simStart = time.Unix(1_800_000_000, 0)

func newSim(t testing.TB, seed uint64) *sim {
	return &sim{t: t, rand: rand.New(rand.NewPCG(seed, 1))}
}

func (s *sim) instant() member.Instant { return member.Instant{Up: s.now, Wall: simStart.Add(s.now)} }

func (s *sim) at(d time.Duration, f func()) {
	s.n++
	heap.Push(&s.queue, simEvent{s.now + d, s.n, f})
}

func (s *sim) run(until time.Duration, done func() bool) bool {
	for len(s.queue) > 0 && s.queue[0].at <= until {
		e := heap.Pop(&s.queue).(simEvent)
		s.now = e.at
		e.f()
		if done != nil && done() {
			return true
		}
	}
	s.now = until
	return done == nil
}

func (s *sim) between(a, b time.Duration) time.Duration {
	return a + time.Duration(s.rand.Int64N(int64(b-a)))
}

func (s *sim) node(name string, conf func(*Config)) *simNode {
	k, err := key.Generate()
	if err != nil {
		s.t.Fatal(err)
	}
	kv, _ := store.OpenKV("", store.KVOptions{})
	ring, _ := prekeys.Open("")
	n := &simNode{s: s, name: name, key: k, cfg: Config{Key: k, Store: kv, Prekeys: ring, Quota: 8 << 20, Name: name}, on: true}
	if conf != nil {
		conf(&n.cfg)
	}
	s.nodes = append(s.nodes, n)
	n.boot()
	n.tick(n.life)
	return n
}

func (n *simNode) boot() {
	n.life++
	n.pipes, n.held, n.commits = map[*link]*simPipe{}, nil, false
	c, err := newCore(n.cfg, n.s.instant(), n.s.rand.Uint64())
	if err != nil {
		n.s.t.Fatal(err)
	}
	n.c = c
	c.scan()
	n.release()
}

// crash loses all that was not committed, and the links.
func (n *simNode) crash() {
	n.crashes++
	for _, p := range n.pipes {
		p.cut()
	}
	n.boot()
	n.tick(n.life)
}

func (n *simNode) tick(life int) {
	if n.life != life {
		return
	}
	n.c.enter(n.s.instant())
	next := n.c.tick().Sub(n.c.now)
	n.c.flushAll()
	n.release()
	n.s.at(min(max(next, 10*time.Millisecond), time.Second), func() { n.tick(life) })
}

func (n *simNode) call(f func(c *core)) {
	n.c.enter(n.s.instant())
	f(n.c)
	n.c.flushAll()
	n.release()
}

func (n *simNode) release() {
	c := n.c
	out := c.effects
	c.effects = nil
	if c.urgent || len(n.held) > 0 || n.commits {
		n.held = append(n.held, out...)
		out = nil
	}
	if (c.urgent || c.lazy) && !n.commits {
		n.commits = true
		life := n.life
		wait := n.s.between(time.Millisecond, 30*time.Millisecond)
		if !c.urgent {
			wait = lazyWait
		}
		n.s.at(wait, func() { n.commit(life) })
	}
	life := n.life
	for _, e := range out {
		if n.life == life {
			n.do(e)
		}
	}
}

func (n *simNode) commit(life int) {
	if n.life != life {
		return
	}
	c := n.c
	if n.step() {
		return
	}
	f := c.db.fly()
	if f != nil {
		if err := c.db.write(f); err != nil {
			n.s.t.Fatal(err)
		}
	}
	if n.step() {
		return
	}
	c.db.landed(nil)
	c.urgent, c.lazy, n.commits = false, false, false
	out := n.held
	n.held = nil
	for _, e := range out {
		if n.life == life {
			n.do(e)
		}
	}
}

func (n *simNode) do(e effect) {
	if n.step() {
		return
	}
	switch {
	case e.dial != nil:
		n.dial(e)
	case e.link != nil:
		p := n.pipes[e.link]
		if p == nil {
			return
		}
		if e.frame == nil {
			p.cut()
			return
		}
		p.send(e.frame)
	}
}

func (n *simNode) find(k key.Public) *simNode {
	for _, x := range n.s.nodes {
		if x.key.Public() == k {
			return x
		}
	}
	return nil
}

func (n *simNode) dial(e effect) {
	life := n.life
	n.s.at(n.s.between(20*time.Millisecond, 200*time.Millisecond), func() {
		if n.life != life {
			return
		}
		other := n.find(e.node)
		if other == nil || !other.on || !n.on || n.cut == other || other.cut == n {
			n.call(func(c *core) { c.dialed(e.dial, false) })
			return
		}
		a, b := &simPipe{node: n, life: n.life}, &simPipe{node: other, life: other.life}
		a.other, b.other = b, a
		n.call(func(c *core) {
			c.dialed(e.dial, true)
			a.l = c.linkUp(true, e.dial, key.Public{})
			n.pipes[a.l] = a
		})
		other.call(func(c *core) {
			b.l = c.linkUp(false, nil, key.Public{})
			other.pipes[b.l] = b
		})
	})
}

func (p *simPipe) send(frame []byte) {
	s := p.node.s
	at := max(p.last, s.now+s.between(5*time.Millisecond, 60*time.Millisecond))
	p.last = at
	s.at(at-s.now, func() {
		o := p.other
		if o.dead || o.node.life != o.life {
			return
		}
		o.node.receive(o.l, frame)
	})
}

// cut ends both ends, each when it hears of it.
func (p *simPipe) cut() {
	for _, e := range []*simPipe{p, p.other} {
		if e.dead {
			continue
		}
		e.dead = true
		e.node.s.at(e.node.s.between(time.Millisecond, 100*time.Millisecond), func() {
			if e.node.life == e.life {
				e.node.call(func(c *core) { c.linkDown(e.l) })
				delete(e.node.pipes, e.l)
			}
		})
	}
}

func (n *simNode) receive(l *link, b []byte) {
	if n.step() {
		return
	}
	if b[0] != opDeposit {
		n.call(func(c *core) { c.frame(l, b) })
		return
	}
	tag, raw := binary.BigEndian.Uint32(b[1:]), b[5:]
	o, err := envelope.ParseOuter(raw)
	if err != nil {
		n.s.t.Fatal(err)
	}
	if o.To != n.key.Public() {
		n.call(func(c *core) { c.keep(l, tag, o, raw) })
		return
	}
	x := opening{outer: o, bits: uint8(o.Work(raw))}
	x.bundle, x.err = envelope.Open(raw, n.key.Public(), n.cfg.Prekeys.Secret)
	n.call(func(c *core) {
		if !c.mayOpen(l) {
			c.do(effect{link: l, frame: tagged(opTaken, tag, takenLater)})
			return
		}
		c.deposit(l, tag, x)
	})
}

// off takes a node from the net, or brings it back.
func (n *simNode) turn(on bool) {
	n.on = on
	if !on {
		for _, p := range n.pipes {
			p.cut()
		}
		return
	}
	for _, x := range n.s.nodes {
		x.call(func(c *core) { c.online(n.key.Public()) })
	}
}

func (s *sim) befriend(a, b *simNode) {
	for _, p := range [][2]*simNode{{a, b}, {b, a}} {
		p[0].call(func(c *core) {
			k := p[1].c.account
			if _, err := c.book.Add(k, [16]byte{}, "", "", "", "", c.now); err != nil {
				s.t.Fatal(err)
			}
			c.book.set(c.book.contacts[k], Confirmed, c.now)
			c.saveBook()
			c.meet(k, envelope.Place{})
		})
	}
}

// send queues a text; a crash may lose it only before the caller was told that it is queued, which here is the commit.
func (n *simNode) send(to *simNode, text string) {
	n.call(func(c *core) {
		if _, err := c.send([]key.Public{to.c.account}, Outgoing{Body: []byte(text)}); err != nil {
			n.s.t.Fatal(err)
		}
	})
	life := n.life
	n.commit(life)
	if sent := n.c.query(Query{Last: true, Limit: 1}); n.life != life && (len(sent) == 0 || string(sent[0].Body) != text) {
		n.send(to, text) // the caller got no answer, and asks again
	}
}

// texts reads what a node has in its store.
func (n *simNode) texts(from *simNode) (all []string) {
	for after := uint64(0); ; {
		page := n.c.query(Query{After: after, Receive: true, Limit: 1000, With: from.c.account})
		for _, m := range page {
			after = m.Cursor
			all = append(all, string(m.Body))
		}
		if len(page) < 1000 {
			return all
		}
	}
}

// delivered tells whether all that a node sent is known to have arrived.
func (n *simNode) delivered() bool {
	for _, d := range n.c.devices {
		for s := range d.out {
			if d.out[s].Floor != d.out[s].Next {
				return false
			}
		}
	}
	return true
}

func simTexts(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%d", i))
	}
	return all
}

// TestSimCrash sends both ways while links are cut and both ends crash at any moment: nothing is lost, nothing comes twice, all is
// in order.
func TestSimCrash(t *testing.T) {
	t.Parallel()
	seeds := 80
	if testing.Short() {
		seeds = 8
	}
	crashes, epochs := 0, uint64(0)
	for seed := range uint64(seeds) {
		s := newSim(t, seed)
		a, b := s.node("a", nil), s.node("b", nil)
		s.befriend(a, b)
		const n = 60
		for i := range n {
			s.at(time.Duration(i)*500*time.Millisecond, func() { a.send(b, fmt.Sprint(i)) })
			s.at(time.Duration(i)*700*time.Millisecond, func() { b.send(a, fmt.Sprint(i)) })
		}
		for range 25 {
			x := []*simNode{a, b}[s.rand.IntN(2)]
			switch s.rand.IntN(3) {
			case 0:
				s.at(s.between(0, 60*time.Second), func() {
					for _, p := range x.pipes {
						p.cut()
					}
				})
			default:
				s.at(s.between(0, 60*time.Second), x.crash)
			}
		}
		ok := s.run(time.Hour, func() bool {
			return s.now > 61*time.Second && a.delivered() && b.delivered()
		})
		if !ok || !slices.Equal(b.texts(a), simTexts(n)) || !slices.Equal(a.texts(b), simTexts(n)) {
			t.Fatalf("seed %d, ended %v: b has %q, a has %q\n%v\n%v", seed, ok, b.texts(a), a.texts(b), a.c.counters, b.c.counters)
		}
		crashes += a.crashes + b.crashes
		epochs += a.c.counters["epochs"] + b.c.counters["epochs"]
	}
	t.Logf("%d seeds, %d crashes, %d new epochs", seeds, crashes, epochs)
	if epochs > 0 {
		t.Error("a crash alone made a sender think that it had lost its memory")
	}
}

// TestSimMailbox: the two ends are never on together; a mailbox of the receiver is, and crashes too.
func TestSimMailbox(t *testing.T) {
	t.Parallel()
	seeds := 50
	if testing.Short() {
		seeds = 6
	}
	crashes := 0
	for seed := range uint64(seeds) {
		s := newSim(t, seed)
		m := s.node("m", func(c *Config) { c.KeepFor = true })
		withBox := func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} }
		a, b := s.node("a", withBox), s.node("b", withBox)
		s.befriend(a, b)
		s.befriend(a, m)
		s.befriend(b, m)
		s.run(5*time.Second, nil) // cards are exchanged
		a.send(b, "0")
		b.send(a, "0")
		s.run(s.now+20*time.Second, nil)
		const n = 20
		b.turn(false)
		for i := 1; i < n; i++ {
			s.at(time.Duration(i)*time.Second, func() { a.send(b, fmt.Sprint(i)) })
		}
		for range 8 {
			x := []*simNode{a, m, b}[s.rand.IntN(3)]
			s.at(s.between(0, 6*time.Minute), x.crash)
		}
		s.run(s.now+3*time.Minute, nil)
		a.turn(false)
		b.turn(true)
		if !s.run(s.now+time.Hour, func() bool { return len(b.texts(a)) >= n }) {
			t.Fatalf("seed %d: b has %q\na %v\nm %v\nb %v", seed, b.texts(a), a.c.counters, m.c.counters, b.c.counters)
		}
		s.run(s.now+30*time.Second, nil) // the receipt is left at the mailbox
		b.turn(false)
		a.turn(true)
		if !s.run(s.now+3*time.Hour, a.delivered) || !slices.Equal(b.texts(a), simTexts(n)) {
			t.Fatalf("seed %d: a is told %v, b has %q\na %v\nm %v\nb %v", seed, a.delivered(), b.texts(a), a.c.counters, m.c.counters, b.c.counters)
		}
		crashes += a.crashes + m.crashes + b.crashes
	}
	t.Logf("%d seeds, %d crashes", seeds, crashes)
}

// delivery is the course of a message by a mailbox and of its receipt back, in a world of a, m and b.
func delivery(s *sim, crash int, at int) (nodes [3]*simNode, steps [3]int) {
	m := s.node("m", func(c *Config) { c.KeepFor = true })
	withBox := func(c *Config) { c.Mailboxes = []envelope.Mailbox{{Device: m.key.Public()}} }
	a, b := s.node("a", withBox), s.node("b", withBox)
	nodes = [3]*simNode{a, m, b}
	s.befriend(a, b)
	s.befriend(a, m)
	s.befriend(b, m)
	s.run(5*time.Second, nil)
	a.send(b, "0")
	s.run(s.now+5*time.Second, nil)
	for i, n := range nodes {
		if n.steps = 0; i == crash {
			n.crashAt = at
		}
	}
	b.turn(false)
	a.send(b, "1")
	a.send(b, "2")
	s.run(s.now+time.Minute, nil)
	a.turn(false)
	b.turn(true)
	s.run(s.now+30*time.Second, nil)
	b.turn(false)
	a.turn(true)
	s.run(s.now+30*time.Second, nil)
	b.turn(true)
	s.run(s.now+3*time.Hour, func() bool { return a.delivered() && len(b.texts(a)) >= 3 })
	for i, n := range nodes {
		steps[i] = n.steps
	}
	return nodes, steps
}

// TestCrashMatrix crashes sender, mailbox and receiver before every single step of a delivery: each write, each moment after a
// write and before what rests on it, each frame sent and each frame received.
func TestCrashMatrix(t *testing.T) {
	t.Parallel()
	_, steps := delivery(newSim(t, 1), -1, 0)
	runs := 0
	for who, n := range steps {
		every := 1
		if testing.Short() {
			every = 7
		}
		for at := 1; at <= min(n, 400); at += every {
			nodes, _ := delivery(newSim(t, 1), who, at)
			if got := nodes[2].texts(nodes[0]); !slices.Equal(got, simTexts(3)) || !nodes[0].delivered() {
				t.Errorf("%s crashed before its step %d: the receiver has %q, the sender knows of all: %v", nodes[who].name, at, got, nodes[0].delivered())
			}
			runs++
		}
	}
	t.Logf("%d runs; steps of sender, mailbox, receiver: %v", runs, steps)
}
