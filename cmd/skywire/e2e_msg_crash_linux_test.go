package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
	"skywire/signal"
)

// TestE2EMessageKills kills the messengers of sender, mailbox and receiver with SIGKILL, again and again at random moments, while
// texts go both ways: nothing is lost, nothing comes twice, all is in order. SKYWIRE_E2E=full goes on for ten minutes.
func TestE2EMessageKills(t *testing.T) {
	t.Parallel()
	kills := 15
	if full() {
		kills = 500
	}
	w := newWorld(t, "msgkills")
	w.trio()
	var talk sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	said := map[string]int{}
	for _, way := range [][2]string{{"a", "b"}, {"b", "a"}} {
		n := 0
		talk.Go(func() {
			for {
				if w.queued(way[0], way[1], n) {
					n++
				}
				select {
				case <-stop:
					for !w.queued(way[0], way[1], n) { // one more, so that the last kill is followed by something
						<-time.After(100 * time.Millisecond)
					}
					n++
					mu.Lock()
					said[way[0]+way[1]] = n
					mu.Unlock()
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range kills {
		<-time.After(time.Duration(r.IntN(600)) * time.Millisecond)
		x := []string{"a", "m", "b"}[r.IntN(3)]
		w.endMessenger(x, syscall.SIGKILL)
		if x == "m" {
			w.messenger("m", "--keep-for-contacts")
		} else {
			w.startWithBox(x)
		}
	}
	close(stop)
	talk.Wait()
	w.texts("b", "a", said["ab"], time.Minute)
	w.texts("a", "b", said["ba"], time.Minute)
	t.Logf("%d kills; %d and %d texts", kills, said["ab"], said["ba"])
}

// queued has a box say number n. A call that was cut off by a kill may have been obeyed: then it is not said again.
func (w *world) queued(from, to string, n int) bool {
	var last []shownMessage
	if err := w.ask(from, "msg.list", map[string]any{"with": to, "last": true, "limit": 200}, &last); err != nil {
		return false
	}
	for _, m := range last {
		if m.State != "received" && strings.HasPrefix(m.Text, fmt.Sprint(n, " ")) {
			return true
		}
	}
	return w.ask(from, "msg.send", map[string]any{"to": to, "text": fmt.Sprint(n, " of ", from)}, nil) == nil
}

// TestE2EMessageKillSteps is the crash matrix: the messenger of the sender, of the mailbox or of the receiver is killed before and
// after every call that changes a file or says something to others, from its start on, while a text goes to one who is away, and
// its receipt back to one who is away by then. Each text that was taken arrives once, in order, and is known to have.
// SKYWIRE_E2E=full takes every step, otherwise some spread over all of them.
func TestE2EMessageKillSteps(t *testing.T) {
	t.Parallel()
	for _, victim := range []string{"a", "m", "b"} {
		t.Run(map[string]string{"a": "sender", "m": "mailbox", "b": "receiver"}[victim], func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "msgstep"+victim)
			w.trio()
			k := &killSteps{world: w, victim: victim}
			w.must(w.ask("m", "messenger.id", struct{}{}, &k.id))
			all := k.round(0)
			if all < 50 {
				t.Fatalf("%d steps seen in a round", all)
			}
			stride := all / 5
			if full() {
				stride = 1
			}
			rounds, killed := 0, 0
			for at := 1 + stride/2; at <= all; at += stride {
				k.round(at)
				rounds++
				if k.stepper.dead() {
					killed++
				}
			}
			w.texts("b", "a", k.said, time.Second)
			t.Logf("%d steps in a round, killed at %d of them: %d texts, none lost, none twice", all, killed, k.said)
			if killed < rounds/2 { // no two rounds have quite as many steps
				t.Errorf("killed in %d of %d rounds", killed, rounds)
			}
		})
	}
}

// killSteps is a world of three in which one is killed at a step.
type killSteps struct {
	*world
	victim  string
	id      struct{ Link string } // of the mailbox
	said    int
	stepper *stepper
	off     bool // the victim is away, as it should be
}

// round has one text go all the way, and returns how many steps the victim made.
func (k *killSteps) round(at int) int {
	k.t.Helper()
	k.stepper = &stepper{w: k.world, box: k.victim, kill: at}
	began := time.Now()
	k.end("b")
	if k.victim != "b" {
		k.end(k.victim)
		k.begin(k.victim)
	}
	id := k.sayNext()
	k.until("a has left it at the mailbox", func() error { return k.isState(id, "stored", "delivered") })
	k.end("a")
	k.begin("b")
	k.until("b has it", func() error {
		all, err := k.heard("b", "a")
		if err == nil && len(all) != k.said {
			err = fmt.Errorf("%d of %d texts", len(all), k.said)
		}
		return err
	})
	k.until("b has left its receipt at the mailbox", func() error {
		var all []struct {
			Device string
			Kept   int
		}
		err := k.ask("m", "messenger.devices", struct{}{}, &all)
		for _, d := range all {
			if d.Device == k.key["a"] && d.Kept > 0 {
				return err
			}
		}
		return errors.Join(err, errors.New("nothing is kept for a"))
	})
	k.end("b")
	k.begin("a")
	k.until("a is told that it arrived", func() error { return k.isState(id, "delivered", "read") })
	k.begin("b")
	k.t.Logf("step %d of %s: killed %s; %s", at, k.victim, k.stepper.killed, time.Since(began).Round(time.Millisecond))
	return k.stepper.count()
}

// begin starts a messenger, the victim's under the eyes of the stepper until it was killed.
func (k *killSteps) begin(box string) {
	k.t.Helper()
	k.off = k.off && box != k.victim
	args := []string{"messenger", "run", "--mailbox", k.id.Link}
	if box == "m" {
		args = []string{"messenger", "run", "--keep-for-contacts"}
	}
	if box == k.victim && !k.stepper.dead() {
		k.stepper.start("messenger", args...)
	} else {
		k.start(box, "messenger", args...)
	}
	k.until("messenger of "+box, func() error { return k.ask(box, "messenger.status", struct{}{}, nil) })
}

// end ends a messenger in good order, if the stepper was not first.
func (k *killSteps) end(box string) {
	k.t.Helper()
	p := k.run[box+" messenger"]
	p.Signal(syscall.SIGTERM)
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.Done():
	case <-limit.C:
		p.Signal(syscall.SIGQUIT)
		<-p.Done()
		k.t.Fatalf("the messenger of %s did not end: %s", box, p.Tail(400))
	}
	if box == k.victim {
		k.off = true
		k.stepper.settle()
	}
}

// until waits, and starts the victim again when it was killed.
func (k *killSteps) until(what string, check func() error) {
	k.t.Helper()
	k.must(lab.Wait(k.t.Context(), time.Minute, what, func(context.Context) error {
		err := check()
		if err != nil {
			k.revive()
		}
		return err
	}))
}

func (k *killSteps) revive() {
	p := k.run[k.victim+" messenger"]
	select {
	case <-p.Done():
	default:
		return
	}
	if k.off {
		return
	}
	k.stepper.settle()
	if !k.stepper.dead() {
		k.t.Fatalf("the messenger of %s ended by itself: %s", k.victim, p.Tail(10))
	}
	k.begin(k.victim)
}

// sayNext has a say the next text. One that was taken is there after a crash; one of which nothing was heard may be.
func (k *killSteps) sayNext() (id string) {
	k.t.Helper()
	k.until("a takes a text", func() error {
		var last []shownMessage
		if err := k.ask("a", "msg.list", map[string]any{"with": "b", "last": true, "limit": 10}, &last); err != nil {
			return err
		}
		for _, m := range last {
			if m.State != "received" && strings.HasPrefix(m.Text, fmt.Sprint(k.said, " ")) {
				id = m.ID
				return nil
			}
		}
		var r struct{ ID string }
		err := k.ask("a", "msg.send", map[string]any{"to": "b", "text": fmt.Sprint(k.said, " of a")}, &r)
		if err == nil {
			id = r.ID
		}
		return err
	})
	k.said++
	return id
}

// isState asks for a message of a. A message that was taken is there, whatever happened since.
func (k *killSteps) isState(id string, want ...string) error {
	m, err := k.message("a", id)
	var refused *signal.Error
	if errors.As(err, &refused) {
		k.t.Fatalf("a has lost a message that it had taken: %v", err)
	}
	if err == nil && !slices.Contains(want, m.State) {
		err = fmt.Errorf("it is %s (%s)", m.State, m.Reason)
	}
	return err
}
