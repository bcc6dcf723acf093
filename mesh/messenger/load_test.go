package messenger

import (
	"encoding/binary"
	"net"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// stranger is one made of nothing: it dials, proves its key and says what it likes, as fast as it can.
type stranger struct {
	key  *key.Private
	conn net.Conn
}

func (w *world) stranger(to *testNode) *stranger {
	k, err := key.Generate()
	if err != nil {
		w.t.Fatal(err)
	}
	a, b := net.Pipe()
	select {
	case to.incoming <- b:
	case <-time.After(time.Second):
		w.t.Fatal("not taken in")
	}
	s := &stranger{key: k, conn: a}
	mine := &hello{account: k.Public(), device: k.Public(), nonce: newNonce()}
	s.write(mine.append(nil))
	theirs, err := parseHello(s.read()[1:])
	if err != nil {
		w.t.Fatal(err)
	}
	sig := k.Sign("hello", key.NetworkID{}, proofOf(mine, theirs))
	s.write(append([]byte{opProof}, sig[:]...))
	return s
}

func (s *stranger) write(frame []byte) bool {
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, err := s.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err == nil
}

func (s *stranger) read() []byte {
	_ = s.conn.SetDeadline(time.Now().Add(5 * time.Second))
	var head [4]byte
	if _, err := readFull(s.conn, head[:]); err != nil {
		return []byte{0}
	}
	b := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, _ = readFull(s.conn, b)
	return b
}

func readFull(c net.Conn, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = c.Read(b[n:])
		n += m
	}
	return n, err
}

// TestStrangerFlood: 10,000 messages of strangers, each of another key, under each policy; contacts notice nothing, and the store
// stays within what strangers may have.
func TestStrangerFlood(t *testing.T) {
	for policy, n := range map[Strangers]int{StrangersClosed: 10_000, StrangersOpen: 2_000} {
		if testing.Short() {
			n /= 25
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			a := w.node(nil)
			b := w.node(func(c *Config) { c.Quota, c.Policy.Strangers = DefaultQuota, policy })
			ea, eb := a.start(), b.start()
			defer a.stop()
			defer b.stop()
			befriend(t, ea, eb)
			waitState(t, ea, send(t, ea, eb, "before"), Delivered, time.Minute)
			before := eb.Status().Store
			const links = 40
			card, err := envelope.ParseCard(eb.Card())
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan int, links)
			for range links {
				go func() {
					sent := 0
					defer func() { done <- sent }()
					s := w.stranger(b)
					defer s.conn.Close()
					go func() {
						for len(s.read()) > 1 {
						}
					}()
					for i := range n / links {
						k, _ := key.Generate()
						ask := word{op: opAsk, name: "x", text: "buy this"}
						x := &envelope.Bundle{Account: k.Public(), Device: k.Public(), To: eb.core.self, Card: 1, Epoch: 1, Floor: 1, Items: []envelope.Item{
							{Kind: envelope.KindContact, Seq: 1, Time: int64(i + 1), Expires: time.Now().Add(time.Hour).Unix(), Body: ask.append(nil)},
							{Kind: envelope.KindText, Seq: 2, Time: int64(i + 2), Expires: time.Now().Add(time.Hour).Unix(), Body: make([]byte, 1500)},
						}}
						p, _ := card.Pick(time.Now().Unix(), x)
						raw, err := envelope.Seal(x, k, p, envelope.SealOptions{})
						if err != nil || !s.write(tagged(opDeposit, uint32(i), raw...)) {
							return
						}
						sent++
					}
				}()
			}
			var worst time.Duration
			for range 20 {
				began := time.Now()
				waitState(t, ea, send(t, ea, eb, "meanwhile"), Delivered, time.Minute)
				worst = max(worst, time.Since(began))
				pause(t.Context(), 100*time.Millisecond)
			}
			sent := 0
			for range links {
				sent += <-done
			}
			s := eb.Status()
			t.Logf("%s: %d sent; a contact's message took %s at most; the store grew from %d to %d of %d; %v", policy, sent, worst, before, s.Store, s.Quota, s.Counters)
			if sent != n {
				t.Errorf("%d of %d were sent", sent, n)
			}
			if worst > time.Second {
				t.Errorf("a contact's message took %s", worst)
			}
			if s.Store-before > s.Quota/10+128<<10 {
				t.Errorf("strangers have taken %d bytes", s.Store-before)
			}
		})
	}
}

// TestThousandContacts: what a thousand contacts cost in memory, and what a quiet hour with them writes.
func TestThousandContacts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var before, after runtime.MemStats
		w := newWorld(t)
		a := w.node(func(c *Config) { c.Quota = DefaultQuota })
		a.dir = t.TempDir()
		e := a.start()
		defer a.stop()
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 1000 {
			k, err := key.Generate()
			if err != nil {
				t.Fatal(err)
			}
			card := &envelope.Card{Account: k.Public(), Device: k.Public(), Number: 1, Issued: time.Now().Unix(), Name: "someone"}
			s, _ := envelope.NewSecret(1, time.Now().Unix())
			for _, suite := range []envelope.Suite{envelope.SuiteX25519, envelope.SuiteHybrid} {
				p, _ := s.Prekey(suite)
				card.Prekeys = append(card.Prekeys, p)
			}
			raw, err := card.Sign(k)
			if err != nil {
				t.Fatal(err)
			}
			e.call(func(c *core) {
				if _, err := c.book.Add(k.Public(), [16]byte{}, "", "", "", "", c.now); err != nil {
					t.Fatal(err)
				}
				c.book.set(c.book.contacts[k.Public()], Confirmed, c.now)
				c.saveBook()
				if _, err := c.admit(raw, func(_, _ key.Public) bool { return true }); err != nil {
					t.Fatal(err)
				}
			})
		}
		pause(t.Context(), time.Minute)
		runtime.GC()
		runtime.ReadMemStats(&after)
		heap := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		writes := e.Status().Writes
		pause(t.Context(), time.Hour)
		quiet := e.Status().Writes - writes
		t.Logf("1,000 contacts: %d KiB of heap, %d bytes of store; a quiet hour: %d writes", heap>>10, e.Status().Store, quiet)
		if heap > 8<<20 {
			t.Errorf("%d bytes of heap", heap)
		}
		if quiet > 6 {
			t.Errorf("%d writes in a quiet hour", quiet)
		}
		b := w.node(nil)
		eb := b.start()
		defer b.stop()
		befriend(t, e, eb)
		for _, s := range numbered(100) {
			send(t, e, eb, s)
		}
		if got := waitTexts(t, eb, 100, time.Minute); !slices.Equal(got, numbered(100)) {
			t.Error("lost some")
		}
	})
}
