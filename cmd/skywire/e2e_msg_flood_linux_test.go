package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/messenger"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

const (
	floodMessages = 10_000
	floodLinks    = 20
	floodQuota    = 4 << 20 // a router's
	floodBits     = 8       // of a stamp: 256 hashes
)

// strangers are messages to one device, each of another key that nobody knows.
type strangers struct {
	node    *app.Client
	to      key.Public
	letters [][]byte
	length  time.Duration // that sending them takes

	answers [256]atomic.Int64 // by status
}

// strangers has a box join the mesh as a program of its own that will flood another one's messenger.
func (w *world) strangers(box, to string) *strangers {
	w.t.Helper()
	s := &strangers{length: 3 * time.Second}
	var err error
	s.to, err = key.Parse(w.key[to])
	w.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	s.node, err = app.Dial(ctx, w.box[box].Run())
	w.must(err)
	var tie sync.WaitGroup
	tie.Go(func() { _ = s.node.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		_ = s.node.Close()
		tie.Wait()
	})
	return s
}

// dial opens a link with a new key.
func (s *strangers) dial(ctx context.Context) (*msgLink, error) {
	k, err := key.Generate()
	if err != nil {
		return nil, err
	}
	conn, err := s.node.Dial(ctx, s.to, messenger.Service, nil)
	if err != nil {
		return nil, err
	}
	l := newMsgLink(conn)
	if err := l.meet(k); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// card asks for the card of the device, which it gives to everybody.
func (s *strangers) card(ctx context.Context) (*envelope.Card, error) {
	l, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer l.conn.Close()
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		op, body, err := l.read()
		if err != nil {
			return nil, err
		}
		if op == msgCards && len(body) > 2 {
			return envelope.ParseCard(body[2 : 2+int(binary.BigEndian.Uint16(body))])
		}
	}
}

// write seals n messages: each asks to be a contact and says more than it may.
func (s *strangers) write(ctx context.Context, n int) error {
	card, err := s.card(ctx)
	if err != nil {
		return err
	}
	s.letters = make([][]byte, n)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for worker := range errs {
		all.Go(func() {
			for i := worker; i < n && errs[worker] == nil; i += len(errs) {
				s.letters[i], errs[worker] = strangersLetter(ctx, card, i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func strangersLetter(ctx context.Context, card *envelope.Card, i int) ([]byte, error) {
	k, err := key.Generate()
	if err != nil {
		return nil, err
	}
	ask := append(append([]byte{1}, make([]byte, 16)...), "\x01x\x08buy this"...)
	over := time.Now().Add(time.Hour).Unix()
	x := &envelope.Bundle{Account: k.Public(), Device: k.Public(), To: card.Device, Card: 1, Epoch: 1, Floor: 1, Items: []envelope.Item{
		{Kind: envelope.KindContact, Seq: 1, Time: int64(2*i + 1), Expires: over, Body: ask},
		{Kind: envelope.KindText, Seq: 2, Time: int64(2*i + 2), Expires: over, Body: make([]byte, 1500)},
	}}
	p, err := card.Pick(time.Now().Unix(), x)
	if err != nil {
		return nil, err
	}
	raw, err := envelope.Seal(x, k, p, envelope.SealOptions{})
	if err == nil {
		err = envelope.Stamp(ctx, raw, floodBits)
	}
	return raw, err
}

// pour sends all letters by many links at once, evenly, and returns when each was answered.
func (s *strangers) pour(ctx context.Context) error {
	errs := make([]error, floodLinks)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() {
			errs[i] = s.pourOne(ctx, s.letters[i*len(s.letters)/floodLinks:(i+1)*len(s.letters)/floodLinks])
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *strangers) pourOne(ctx context.Context, letters [][]byte) error {
	l, err := s.dial(ctx)
	if err != nil {
		return err
	}
	var reader sync.WaitGroup
	var broken error
	reader.Go(func() {
		for n := 0; n < len(letters) && broken == nil; {
			op, body, err := l.read()
			if op == msgTaken && len(body) == 5 {
				s.answers[body[4]].Add(1)
				n++
			}
			broken = err
		}
	})
	defer l.conn.Close()
	const bursts = 100
	tick := time.NewTicker(s.length / bursts)
	defer tick.Stop()
	for i := range bursts {
		for n, raw := range letters[i*len(letters)/bursts : (i+1)*len(letters)/bursts] {
			if err := l.write(msgDeposit, tag(uint32(i<<16|n)), raw); err != nil {
				return err
			}
		}
		<-tick.C
	}
	_ = l.conn.SetReadDeadline(time.Now().Add(patience))
	reader.Wait()
	return broken
}

// delays sends texts, each when the one before is known to have arrived, until stop is closed but least at least, and returns how
// long each took, sorted.
func (w *world) delays(from, to string, first, least int, stop <-chan struct{}) (all []time.Duration) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	c, err := signal.Dial(ctx, filepath.Join(w.box[from].Run(), "messenger.sock"), nil)
	w.must(err)
	defer c.Close()
	for {
		began := time.Now()
		var r struct{ ID string }
		w.must(c.Call(ctx, "msg.send", map[string]any{"to": to, "text": fmt.Sprint(first+len(all), " meanwhile")}, &r))
		w.must(c.Call(ctx, "msg.wait", map[string]any{"id": r.ID, "state": "delivered"}, nil))
		all = append(all, time.Since(began))
		if len(all) < least {
			continue
		}
		select {
		case <-stop:
			slices.Sort(all)
			return all
		default:
		}
	}
}

func percentile(sorted []time.Duration, p int) time.Duration { return sorted[(len(sorted)-1)*p/100] }

// TestE2EMessageFlood is T-M6: ten thousand messages of strangers, each of another key, under each policy. A contact's texts arrive
// meanwhile as before, store and memory stay small.
func TestE2EMessageFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgflood")
	w.boxes("a", "b", "x")
	w.must(w.lab.Switch(w.box["b"], "lan", w.end("b", "eth0", "10.1.0.2/24"), w.end("a", "eth0", "10.1.0.1/24"), w.end("x", "eth0", "10.1.0.3/24")))
	w.node("b")
	w.node("a", "--peer", w.peer("b", "10.1.0.2"))
	w.node("x", "--peer", w.peer("b", "10.1.0.2"))
	w.reach("x", "b")
	begin := func(policy string) {
		w.messenger("b", "--quota", fmt.Sprint(floodQuota), "--strangers", policy, "--stamp-bits", fmt.Sprint(floodBits))
	}
	w.messenger("a")
	begin("closed")
	w.friends("a", "b")
	s := w.strangers("x", "b")
	began := time.Now()
	w.must(s.write(t.Context(), floodMessages))
	t.Logf("%d letters sealed in %s", len(s.letters), time.Since(began).Round(time.Millisecond))
	said := 0
	for i, policy := range []string{"closed", "stamp", "open"} {
		if i > 0 {
			w.endMessenger("b", syscall.SIGTERM)
			begin(policy)
		}
		said += w.flood(s, policy, said)
	}
	w.texts("b", "a", said, patience)
}

// flood has strangers flood b while a writes to it, and returns how many texts a said.
func (w *world) flood(s *strangers, policy string, first int) int {
	w.t.Helper()
	type status struct {
		Store    int64 `json:"store_bytes"`
		Counters map[string]uint64
	}
	var before, after status
	stop := make(chan struct{})
	close(stop)
	quiet := w.delays("a", "b", first, 50, stop)
	w.must(w.ask("b", "messenger.status", struct{}{}, &before))
	rss := w.run["b messenger"].RSS()
	for i := range s.answers {
		s.answers[i].Store(0)
	}

	done, poured := make(chan struct{}), error(nil)
	began := time.Now()
	go func() {
		defer close(done)
		poured = s.pour(w.t.Context())
	}()
	flooded := w.delays("a", "b", first+len(quiet), 1, done)
	<-done
	took := time.Since(began)
	w.must(poured)
	// Quiet is what it is before and after: the machine has other things to do, too.
	quiet = append(quiet, w.delays("a", "b", first+len(quiet)+len(flooded), 50, stop)...)
	slices.Sort(quiet)

	w.must(w.ask("b", "messenger.status", struct{}{}, &after))
	grown := w.run["b messenger"].RSS()
	file, err := os.Stat(filepath.Join(w.box["b"].State(), "messenger.db"))
	w.must(err)
	answered := 0
	for i := range s.answers {
		answered += int(s.answers[i].Load())
	}
	w.t.Logf("%s: %d letters in %s, answered: %d taken, %d later, %d never; a contact's text took %s, p99 %s (%d texts), without them %s, p99 %s (%d)",
		policy, answered, took.Round(time.Millisecond), s.answers[msgOK].Load(), s.answers[msgLater].Load(), s.answers[msgRefused].Load(),
		percentile(flooded, 50), percentile(flooded, 99), len(flooded), percentile(quiet, 50), percentile(quiet, 99), len(quiet))
	w.t.Logf("%s: live store %d bytes before, %d after; file %d of %d; resident %.1f MB before, %.1f MB after; %v", policy,
		before.Store, after.Store, file.Size(), floodQuota, float64(rss)/1e6, float64(grown)/1e6, after.Counters)
	if answered != len(s.letters) {
		w.t.Errorf("%s: %d letters, %d answered", policy, len(s.letters), answered)
	}
	// The slowest one of a hundred may have met with something else that this machine does.
	for p, more := range map[int]time.Duration{50: 200 * time.Millisecond, 99: time.Second} {
		was, is := percentile(quiet, p), percentile(flooded, p)
		if is > max(3*was, was+more) {
			w.t.Errorf("%s: p%d of a contact's texts is %s, and was %s without the flood", policy, p, is, was)
		}
	}
	if own := int64(len(flooded)+len(quiet)) * 1024; after.Store-before.Store > floodQuota/10+own {
		w.t.Errorf("%s: strangers have %d bytes of the store, more than a tenth", policy, after.Store-before.Store-own)
	}
	if file.Size() > floodQuota {
		w.t.Errorf("%s: the file has %d bytes", policy, file.Size())
	}
	if grown > rss+16e6 {
		w.t.Errorf("%s: resident memory grew by %d bytes", policy, grown-rss)
	}
	return len(quiet) + len(flooded)
}
