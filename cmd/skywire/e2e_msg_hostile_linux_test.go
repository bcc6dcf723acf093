package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/mesh/messenger/prekeys"
)

// Frames of a link, by mesh/messenger/SPEC.md and not by the code that is tested.
const (
	msgHello, msgProof, msgCards, msgDeposit, msgTaken, msgCustody = 1, 2, 3, 4, 5, 6

	msgOK, msgLater, msgRefused = 0, 1, 4
)

// msgLink is a link to a messenger that speaks as the test wants.
type msgLink struct {
	conn net.Conn
	in   *bufio.Reader
	peer key.Public // who the other end says it is

	mu sync.Mutex // held while a frame is written
}

func newMsgLink(conn net.Conn) *msgLink { return &msgLink{conn: conn, in: bufio.NewReader(conn)} }

func (l *msgLink) write(op byte, body ...[]byte) error {
	b := slices.Concat(append([][]byte{{0, 0, 0, 0, op}}, body...)...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := l.conn.Write(b)
	return err
}

func (l *msgLink) read() (op byte, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(l.in, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > 1<<20 {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(l.in, b)
	return b[0], b[1:], err
}

// hello is version │ account │ device │ nonce │ no cards.
func hello(self key.Public) []byte {
	b := slices.Concat([]byte{1}, self[:], self[:], make([]byte, 17))
	_, _ = rand.Read(b[65:81])
	return b
}

// take answers a dialer's hello as self.
func (l *msgLink) take(self key.Public) error {
	op, theirs, err := l.read()
	if err != nil || op != msgHello || len(theirs) < 82 {
		return fmt.Errorf("hello: op %d, %d bytes: %w", op, len(theirs), err)
	}
	l.peer = key.Public(theirs[33:65])
	return l.write(msgHello, hello(self))
}

// meet says hello as a dialer with the key k.
func (l *msgLink) meet(k *key.Private) error {
	mine := hello(k.Public())
	if err := l.write(msgHello, mine); err != nil {
		return err
	}
	op, theirs, err := l.read()
	if err != nil || op != msgHello || len(theirs) < 82 {
		return fmt.Errorf("hello: op %d, %d bytes: %w", op, len(theirs), err)
	}
	l.peer = key.Public(theirs[33:65])
	proof := k.Sign("hello", key.NetworkID{}, slices.Concat([]byte{1}, mine[33:65], theirs[33:65], mine[65:81], theirs[65:81]))
	return l.write(msgProof, proof[:])
}

func tag(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// evilMailbox stands where a messenger was, at its node and with its keys, and does with mail whatever the test likes.
type evilMailbox struct {
	w    *world
	key  *key.Private
	ring *prekeys.Ring

	mu      sync.Mutex // guards the fields below
	mail    []letter
	links   map[key.Public]*msgLink // the newest of each device
	answers map[uint32]byte         // of those that letters were given to, by tag
	tags    uint32
	seen    []byte // whatever was left here
}

type letter struct {
	to  key.Public
	raw []byte
}

// takeOver puts one in the place of the messenger of a box.
func (w *world) takeOver(box string) *evilMailbox {
	w.t.Helper()
	w.endMessenger(box, syscall.SIGTERM)
	m := &evilMailbox{w: w, links: map[key.Public]*msgLink{}, answers: map[uint32]byte{}}
	var err error
	m.key, err = key.Load(filepath.Join(w.box[box].State(), "node.key"))
	w.must(err)
	m.ring = w.ring(box)
	ctx, cancel := context.WithCancel(context.Background())
	node, err := app.Dial(ctx, w.box[box].Run())
	w.must(err)
	w.must(node.Register(ctx, app.Registration{Name: "messenger", Kind: "messenger", Services: []app.Service{{
		Name: messenger.Service, Type: "messenger", Allow: []string{app.AnyMember, app.Guests},
	}}}))
	var all sync.WaitGroup
	all.Go(func() { _ = node.Run(ctx) })
	all.Go(func() {
		for {
			in, err := node.Accept(ctx, messenger.Service)
			if err != nil {
				return
			}
			conn, err := in.Accept(nil)
			if err != nil {
				continue
			}
			all.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				m.serve(newMsgLink(conn))
			})
		}
	})
	w.t.Cleanup(func() {
		cancel()
		_ = node.Close()
		all.Wait()
		_ = m.ring.Close()
	})
	return m
}

// ring opens the secrets of a box whose messenger is off.
func (w *world) ring(box string) *prekeys.Ring {
	w.t.Helper()
	r, err := prekeys.Open(filepath.Join(w.box[box].State(), "messenger.prekeys"))
	w.must(err)
	if all, err := r.Public(); err != nil || len(all) == 0 {
		w.t.Fatalf("prekeys of %s: %v, %v", box, all, err)
	}
	return r
}

func (m *evilMailbox) serve(l *msgLink) {
	if l.take(m.key.Public()) != nil {
		return
	}
	for {
		op, body, err := l.read()
		if err != nil {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.links[l.peer] == l {
				delete(m.links, l.peer)
			}
			return
		}
		switch {
		case op == msgProof:
			m.mu.Lock()
			m.links[l.peer] = l
			m.mu.Unlock()
		case op == msgDeposit && len(body) > 4:
			m.keep(l, body[:4], body[4:])
		case op == msgTaken && len(body) == 5:
			m.mu.Lock()
			m.answers[binary.BigEndian.Uint32(body)] = body[4]
			m.mu.Unlock()
		}
	}
}

// keep signs for a letter like an honest one.
func (m *evilMailbox) keep(l *msgLink, tag, raw []byte) {
	o, err := envelope.ParseOuter(raw)
	if err != nil {
		return
	}
	word, err := (&envelope.Custody{Mailbox: m.key.Public(), To: o.To, Issued: time.Now().Unix(), Until: o.Expires, IDs: []envelope.EnvelopeID{o.ID}}).Sign(m.key)
	if err != nil {
		return
	}
	m.mu.Lock()
	m.mail = append(m.mail, letter{o.To, raw})
	m.seen = append(m.seen, raw...)
	m.mu.Unlock()
	_ = l.write(msgCustody, tag, word)
}

// letters are those left for a device so far.
func (m *evilMailbox) letters(to string) (all [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.mail {
		if x.to.String() == m.w.key[to] {
			all = append(all, x.raw)
		}
	}
	return all
}

// met waits until a box has come to its mailbox.
func (m *evilMailbox) met(box string) (l *msgLink) {
	m.w.t.Helper()
	k, err := key.Parse(m.w.key[box])
	m.w.must(err)
	m.w.wait(box+" comes to its mailbox", func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l = m.links[k]; l == nil {
			return errors.New("not yet")
		}
		return nil
	})
	return l
}

// gone forgets the link of a box whose messenger was ended.
func (m *evilMailbox) gone(box string) {
	m.w.endMessenger(box, syscall.SIGTERM)
	k, err := key.Parse(m.w.key[box])
	m.w.must(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.links, k)
}

// give hands letters to a box and returns its answers.
func (m *evilMailbox) give(box string, all ...[]byte) (answers []byte) {
	m.w.t.Helper()
	l := m.met(box)
	var tags []uint32
	for _, raw := range all {
		m.mu.Lock()
		m.tags++
		n := m.tags
		m.mu.Unlock()
		tags = append(tags, n)
		m.w.must(l.write(msgDeposit, tag(n), raw))
	}
	for _, n := range tags {
		m.w.wait("answer of "+box, func(context.Context) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			a, ok := m.answers[n]
			if !ok {
				return errors.New("none")
			}
			answers = append(answers, a)
			return nil
		})
	}
	return answers
}

// tries to read what was left, with all that the mailbox has.
func (m *evilMailbox) reads(all [][]byte, secrets ...string) {
	m.w.t.Helper()
	self := m.key.Public()
	for _, raw := range all {
		to := slices.Concat(raw[:2], self[:], raw[34:])
		for _, own := range []func(uint32) *envelope.Secret{m.ring.Secret, func(uint32) *envelope.Secret { return envelope.OwnSecret(m.key) }} {
			for _, try := range [][]byte{raw, to} {
				if _, err := envelope.Open(try, self, own); err == nil {
					m.w.t.Error("the mailbox opens a letter")
				}
			}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range secrets {
		if bytes.Contains(m.seen, []byte(s)) {
			m.w.t.Errorf("the mailbox sees %q", s)
		}
	}
}

func (w *world) msgCounter(box, name string) uint64 {
	w.t.Helper()
	var s struct{ Counters map[string]uint64 }
	w.must(w.ask(box, "messenger.status", struct{}{}, &s))
	return s.Counters[name]
}

// hears wants the texts of a box of another to be those with these numbers, in this order, and no more.
func (w *world) hears(box, from, when string, want ...string) {
	w.t.Helper()
	all, err := w.heard(box, from)
	for i := range all {
		all[i], _, _ = strings.Cut(all[i], " ")
	}
	if err != nil || !slices.Equal(all, want) {
		w.t.Fatalf("%s: %s has %q of %s, want %q: %v", when, box, all, from, want, err)
	}
}

// TestE2EMessageHostileMailbox is T-M3: the mailbox of two real messengers keeps, drops, holds back, replays, reorders, alters and
// gives to others what they leave there. It reads nothing; who gets it reads everything once, in order, or not at all; and the sender
// does not take for arrived what was dropped, but brings it by another way.
func TestE2EMessageHostileMailbox(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgevil")
	w.boxes("c")
	w.trio()
	w.must(w.lab.Wire(w.end("m", "c", "10.2.0.1/24"), w.end("c", "m", "10.2.0.2/24")))
	w.node("c", "--peer", w.peer("m", "10.2.0.1"))
	w.startWithBox("c")
	w.friends("m", "c")
	var id struct{ Link string }
	w.must(w.ask("m", "messenger.id", struct{}{}, &id))
	again := func(box string) { w.messenger(box, "--mailbox", id.Link) }
	w.state("a", w.say("a", "b", "0 directly"), patience, "delivered")

	w.endMessenger("b", syscall.SIGTERM)
	m := w.takeOver("m")
	const n, secret = 8, "the treasure is under the birch"
	var ids []string
	for i := range n {
		ids = append(ids, w.say("a", "b", fmt.Sprint(i+1, " ", secret, strings.Repeat(".", i*300))))
		w.state("a", ids[i], patience, "stored")
	}
	mail := m.letters("b")
	if len(mail) != n {
		t.Fatalf("%d letters for %d texts", len(mail), n)
	}
	m.reads(mail, secret, "treasure", w.key["a"])
	ring := w.ring("b")
	b, err := key.Parse(w.key["b"])
	w.must(err)
	for i, raw := range mail {
		if x, err := envelope.Open(raw, b, ring.Secret); err != nil || !bytes.Contains(x.Items[0].Body, []byte(secret)) {
			t.Fatalf("with the keys of b letter %d does not open: %v", i, err)
		}
	}
	w.must(ring.Close())

	m.gone("a")
	again("b")
	bad := m.refused("b")
	var altered [][]byte
	for i, raw := range mail {
		// The addressee, the prekey's number, the expiry, the key, the box, its end; what comes behind is the stamp.
		for _, at := range []int{3, 36, 44, 46 + i, len(raw) / 2, len(raw) - 9} {
			x := bytes.Clone(raw)
			x[at] ^= 1 << (i % 8)
			altered = append(altered, x)
		}
	}
	for i, a := range m.give("b", altered...) {
		if a == msgOK {
			t.Errorf("altered letter %d is taken", i)
		}
	}
	if got := m.refused("b") - bad; got != uint64(len(altered)) {
		t.Errorf("%d altered letters, %d counted", len(altered), got)
	}
	w.hears("b", "a", "after altered ones", "0")
	m.swap(mail)
	w.hears("b", "a", "after the swap", "0")

	// The last come first, every other one never.
	m.give("b", mail[7], mail[5], mail[3], mail[1])
	w.hears("b", "a", "without the first", "0")
	m.give("b", mail[0])
	w.hears("b", "a", "with the first", "0", "1", "2")
	for range 3 {
		m.give("b", mail[0], mail[7], mail[1], mail[5], mail[3])
	}
	w.hears("b", "a", "after replays", "0", "1", "2")
	if w.msgCounter("b", "duplicates") < 15 {
		t.Errorf("15 replays, %d duplicates counted", w.msgCounter("b", "duplicates"))
	}
	w.wait("b leaves its receipt", func(context.Context) error {
		if len(m.letters("a")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})

	// It keeps the receipts, too: nothing is known to have arrived. Then it gives them: what it dropped is still not.
	m.gone("b")
	again("a")
	m.met("a")
	for i, id := range ids {
		if s, err := w.message("a", id); err != nil || s.State == "delivered" || s.State == "failed" {
			t.Errorf("without a receipt text %d is %s %s: %v", i+1, s.State, s.Reason, err)
		}
	}
	m.give("a", m.letters("a")...)
	for i, id := range ids {
		arrived := i == 0 || i%2 == 1
		s, err := w.message("a", id)
		if err != nil || (s.State == "delivered") != arrived {
			t.Errorf("with the receipt text %d is %s %s: %v", i+1, s.State, s.Reason, err)
		}
	}
	// Both are on: there is another way.
	again("b")
	for _, id := range ids {
		w.state("a", id, patience, "delivered")
	}
	m.give("b", slices.Concat(mail, mail)...)
	w.hears("b", "a", "at the end", "0", "1", "2", "3", "4", "5", "6", "7", "8")
	m.reads(slices.Concat(m.letters("a"), m.letters("b")), secret)
	t.Logf("%d letters altered, %d swapped; b %s", len(altered), 2*n, w.messengerStatus("b"))
}

// refused counts what a box was given and did not take: spoilt, for a prekey that it has not, or for another.
func (m *evilMailbox) refused(box string) (n uint64) {
	for _, name := range []string{"envelopes_bad", "prekey_gone", "box_refused"} {
		n += m.w.msgCounter(box, name)
	}
	return n
}

// swap gives c what is b's: as it is, and with the address changed.
func (m *evilMailbox) swap(mail [][]byte) {
	m.w.t.Helper()
	c, err := key.Parse(m.w.key["c"])
	m.w.must(err)
	bad := m.refused("c")
	for _, raw := range mail {
		for i, a := range m.give("c", raw, slices.Concat(raw[:2], c[:], raw[34:])) {
			if a == msgOK {
				m.w.t.Errorf("c takes a letter for b, way %d", i)
			}
		}
	}
	if got := m.refused("c") - bad; got != uint64(2*len(mail)) {
		m.w.t.Errorf("%d letters for another, %d counted", 2*len(mail), got)
	}
	var all []shownMessage
	m.w.must(m.w.ask("c", "msg.list", map[string]any{"receive": true}, &all))
	if len(all) != 0 {
		m.w.t.Errorf("c has %+v", all)
	}
}
