package session

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"skywire/mesh/wire"
)

// fake is a key without ciphers, for tests of the ring alone.
func fake(recvID uint8, hash byte, initiator bool) *Keys {
	return &Keys{RecvID: recvID, SendID: recvID, Hash: [32]byte{31: hash}, Initiator: initiator}
}

func TestRingLife(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	if r.Sending(0) != nil || r.RekeyDue(0) || r.NewRecvID() != 1 {
		t.Fatal("an empty ring sends")
	}
	first := fake(1, 1, true)
	r.Install(0, first)
	if r.Sending(0) != first {
		t.Fatal("initiator does not send with what it finished")
	}
	if r.RekeyDue(109*time.Second) || !r.RekeyDue(131*time.Second) {
		t.Error("rekey not due at 120 s ± 10")
	}
	second := fake(2, 2, false)
	second.Bind = first.Hash
	r.Install(130*time.Second, second)
	if r.RekeyDue(131 * time.Second) {
		t.Error("rekey due while one waits for its proof")
	}
	if r.Sending(130*time.Second) != first {
		t.Error("responder sends before a frame opened")
	}
	if r.ByRecvID(2) != second || r.ByRecvID(1) != first || r.ByRecvID(3) != nil {
		t.Error("ByRecvID")
	}
	if r.Opened(131*time.Second, 1) || !r.Opened(131*time.Second, 2) || r.Opened(132*time.Second, 2) {
		t.Error("Opened reports the switch")
	}
	if r.Sending(131*time.Second) != second {
		t.Error("responder does not switch")
	}
	if got := r.Expire(179 * time.Second); len(got) != 0 {
		t.Error("erased early")
	}
	if got := r.Expire(180 * time.Second); len(got) != 1 || got[0] != first {
		t.Errorf("erased %v", got)
	}
	if r.Sending(310*time.Second) != nil || r.RekeyDue(310*time.Second) {
		t.Error("sends with a key of 180 s")
	}
}

func TestRingFrames(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{RekeyFrames: 100, RejectFrames: 200})
	r.Install(0, fake(1, 1, true))
	for _, c := range []struct {
		frames        uint64
		due, mayStill bool
	}{{99, false, true}, {1, true, true}, {99, true, true}, {1, false, false}} {
		r.Sent(time.Second, c.frames)
		if r.RekeyDue(time.Second) != c.due || (r.Sending(time.Second) != nil) != c.mayStill {
			t.Errorf("after %d more: due %v, sending %v", c.frames, r.RekeyDue(time.Second), r.Sending(time.Second))
		}
	}
}

func TestRingIDs(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	r.Install(0, fake(3, 1, true))
	for range 1000 {
		if id := r.NewRecvID(); id == 0 || id == 3 {
			t.Fatalf("id %d", id)
		}
	}
}

func TestRingIsBounded(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	proven := fake(1, 1, true)
	r.Install(0, proven)
	for i := range byte(100) { // replayed or abandoned handshakes never push out a proven key
		r.Install(time.Second, fake(i+2, i+2, false))
	}
	if len(r.All()) != ringSize || r.Sending(time.Second) != proven {
		t.Errorf("%d keys, sending %v", len(r.All()), r.Sending(time.Second))
	}
}

// Which two hop keys are tried: the one that comes, else the one that went; never an abandoned one between them.
func TestRingHopKeys(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	if in, other, out := r.HopKeys(0); in != nil || other != nil || out != nil {
		t.Error("hop keys out of nothing")
	}
	first, abandoned, next := fake(1, 1, true), fake(2, 2, false), fake(3, 3, false)
	r.Install(0, first)
	expect := func(at time.Duration, current, want *Keys) {
		t.Helper()
		in, other, out := r.HopKeys(at)
		if in != &current.HopRecv || out != &current.HopSend || want == nil && other != nil || want != nil && other != &want.HopRecv {
			t.Errorf("%v: wrong hop keys", at)
		}
	}
	expect(time.Second, first, nil)
	r.Install(100*time.Second, abandoned)
	expect(100*time.Second, first, abandoned)
	r.Install(120*time.Second, next)
	expect(120*time.Second, first, next)
	r.Opened(121*time.Second, 3)
	expect(121*time.Second, next, first)
	expect(130*time.Second, next, first)
	expect(131*time.Second, next, nil)
}

func TestRingRepeat(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	m1, m2 := bytes.Repeat([]byte{1}, wire.Noise1Len), []byte{2}
	if r.Repeat(m1) != nil {
		t.Error("answer out of nothing")
	}
	r.Answered(m1, m2)
	if !bytes.Equal(r.Repeat(m1), m2) || r.Repeat(m1[:40]) != nil || r.Repeat(bytes.Repeat([]byte{3}, wire.Noise1Len)) != nil {
		t.Error("Repeat")
	}
}

// pair is two rings with a wire of random delay between them, on virtual time; it starts rekeys when due or when
// told, sends one frame each way each 20 ms, and fails on a frame that can't be opened or checked.
type pair struct {
	t      *testing.T
	random *rand.Rand
	now    time.Duration
	rings  [2]*Ring
	config [2]Config
	shakes [2]*Handshake
	events []event
	opened int
	rekeys int
}

type event struct {
	at time.Duration
	to int
	do func()
}

func newPair(t *testing.T, seed uint64, rc RingConfig) *pair {
	p := &pair{t: t, random: rand.New(rand.NewPCG(seed, 1))}
	p.config[0], p.config[1] = config(identity(t, 1)), config(identity(t, 30))
	for i := range p.rings {
		p.rings[i] = NewRing(rc)
	}
	ka, kb := shake(t, p.config[0], p.config[1], p.rings[0].NewRecvID(), p.rings[1].NewRecvID())
	p.rings[0].Install(0, ka)
	p.rings[1].Install(0, kb)
	p.rings[1].Opened(0, kb.RecvID)
	return p
}

func (p *pair) post(to int, do func()) {
	delay := 10*time.Millisecond + time.Duration(p.random.IntN(60))*time.Millisecond
	p.events = append(p.events, event{p.now + delay, to, do})
}

// frame sends one frame under the ring's key: a LINK frame, which names its key, with the hop tag.
func (p *pair) frame(from int) {
	k := p.rings[from].Sending(p.now)
	if k == nil {
		p.t.Fatalf("%v: end %d has no key", p.now, from)
	}
	_, _, out := p.rings[from].HopKeys(p.now)
	header := []byte{wire.TypeLink, k.SendID, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte(p.opened)}
	tag := out.Tag(header, 100)
	nonce := new([12]byte)
	sealed := k.Send.Seal(nil, nonce, []byte("x"), header[:2])
	to := 1 - from
	p.post(to, func() {
		r := p.rings[to]
		in, other, _ := r.HopKeys(p.now)
		if in.Tag(header, 100) != tag && (other == nil || other.Tag(header, 100) != tag) {
			p.t.Errorf("%v: end %d can't check the tag under key %d", p.now, to, header[1])
		}
		k := r.ByRecvID(header[1])
		if k == nil {
			p.t.Fatalf("%v: end %d does not hold key %d", p.now, to, header[1])
		}
		if _, err := k.Recv.Open(nil, nonce, sealed, header[:2]); err != nil {
			p.t.Fatalf("%v: %v", p.now, err)
		}
		r.Opened(p.now, header[1])
		p.opened++
	})
}

func (p *pair) rekey(from int) {
	r, to := p.rings[from], 1-from
	current := r.Sending(p.now)
	c := p.config[from]
	c.Bind = current.Hash[:]
	h, m1, err := Initiate(c, p.config[to].Identity.Public(), wire.Payload{Key: r.NewRecvID()})
	if err != nil {
		p.t.Fatal(err)
	}
	p.shakes[from] = h
	sealedBy := current.SendID
	p.post(to, func() {
		bound := p.rings[to].ByRecvID(sealedBy)
		c := p.config[to]
		c.Bind = bound.Hash[:]
		m2, k, err := Respond(c, m1, accept(wire.Payload{Key: p.rings[to].NewRecvID()}))
		if err != nil {
			p.t.Fatal(err)
		}
		p.rings[to].Install(p.now, k)
		p.post(from, func() {
			k, err := h.Finish(m2)
			if err != nil {
				p.t.Fatal(err)
			}
			p.rings[from].Install(p.now, k)
			p.shakes[from] = nil
			p.rekeys++
			p.frame(from) // KEEP
		})
	})
}

func (p *pair) run(until time.Duration, frames bool) {
	for ; p.now < until; p.now += time.Millisecond {
		for i := 0; i < len(p.events); i++ {
			if e := p.events[i]; e.at <= p.now {
				p.events = append(p.events[:i], p.events[i+1:]...)
				i--
				e.do()
			}
		}
		for i, r := range p.rings {
			r.Expire(p.now)
			if frames && p.now%(20*time.Millisecond) == 0 {
				p.frame(i)
				r.Sent(p.now, 1)
			}
			if p.shakes[i] == nil && r.RekeyDue(p.now) {
				p.rekey(i)
			}
		}
	}
}

func (p *pair) agree() bool {
	a, b := p.rings[0].Sending(p.now), p.rings[1].Sending(p.now)
	return a != nil && b != nil && a.Hash == b.Hash
}

// Attack list E 1, the part of the keys: many rekeys under traffic with reordering, no frame is lost.
func TestRekeysLoseNoFrame(t *testing.T) {
	t.Parallel()
	p := newPair(t, 1, RingConfig{RekeyAfter: 10 * time.Second, RekeyJitter: time.Second, RejectAfter: 15 * time.Second})
	p.run(65*time.Second, true)
	if p.rekeys < 5 || p.opened < 6000 {
		t.Errorf("%d rekeys, %d frames", p.rekeys, p.opened)
	}
}

// Both ends start at once: all frames open, and both ends settle on one key.
func TestCrossingRekeysConverge(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			p := newPair(t, seed, RingConfig{})
			p.run(time.Second, false)
			p.rekey(0)
			p.run(p.now+time.Duration(p.random.IntN(40))*time.Millisecond, false)
			p.rekey(1)
			for range 40 { // frames of both ends from now on, but none in the tangle: hop keys hold two at a time
				p.run(p.now+20*time.Millisecond, false)
			}
			p.frame(0)
			p.frame(1)
			p.run(p.now+200*time.Millisecond, true)
			p.run(p.now+200*time.Millisecond, false)
			if p.rekeys != 2 || !p.agree() {
				t.Errorf("%d rekeys, agree %v", p.rekeys, p.agree())
			}
		})
	}
}

// TestRingKeepsFreshKey fills a ring with keys that this end began, as when both ends begin anew again and again: the key
// that the other end began and sends with must outlive the next of ours.
func TestRingKeepsFreshKey(t *testing.T) {
	t.Parallel()
	r := NewRing(RingConfig{})
	for i := range uint8(4) {
		r.Install(time.Duration(i)*time.Second, fake(1+i, 1+i, true))
	}
	theirs := fake(10, 10, false)
	r.Install(4*time.Second, theirs)
	ours := fake(11, 11, true)
	r.Install(4*time.Second+time.Millisecond, ours)
	if r.ByRecvID(10) != theirs {
		t.Error("the key that the peer sends with is gone")
	}
	// Not for ever: one that nobody proves gives way before one that was in use.
	before := r.Sending(15 * time.Second)
	r.Install(15*time.Second, fake(12, 12, true))
	if r.ByRecvID(10) != nil || r.ByRecvID(before.RecvID) == nil {
		t.Error("a key unproven for 10 s pushes out one that was in use")
	}
	// And the key in use stays, however many come that nobody proves.
	now := 16 * time.Second
	sending := r.Sending(now)
	for i := range uint8(40) {
		r.Install(now, fake(100+i, 100+i, false))
		if r.Sending(now) != sending {
			t.Fatal("unproven keys pushed out the one in use")
		}
	}
}
