package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"skywire/signal"
)

// ask calls a method of the messenger of a box.
func (w *world) ask(box, method string, params, result any) error {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	c, err := signal.Dial(ctx, filepath.Join(w.box[box].Run(), "messenger.sock"), nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call(ctx, method, params, result)
}

// messenger starts the messenger of a box and waits until it answers.
func (w *world) messenger(box string, args ...string) {
	w.t.Helper()
	p := w.start(box, "messenger", append([]string{"messenger", "run"}, args...)...)
	w.wait("messenger of "+box, func(context.Context) error {
		return w.alive(p, w.ask(box, "messenger.status", struct{}{}, nil))
	})
}

// friends makes two boxes contacts of each other under their names.
func (w *world) friends(a, b string) {
	w.t.Helper()
	var invite struct{ Link string }
	w.must(w.ask(a, "contact.invite", map[string]any{"name": b}, &invite))
	w.must(w.ask(b, "contact.add", map[string]any{"who": invite.Link, "name": a}, nil))
	for _, p := range [][2]string{{a, b}, {b, a}} {
		w.wait(p[0]+" knows "+p[1], func(context.Context) error {
			var c struct{ Standing string }
			if err := w.ask(p[0], "contact.show", map[string]any{"who": p[1]}, &c); err != nil {
				return err
			}
			if c.Standing != "confirmed" {
				return errors.New(c.Standing)
			}
			return nil
		})
	}
}

type shownMessage struct {
	Cursor uint64
	ID     string
	Text   string
	State  string
	Reason string
	Where  string

	GroupName string `json:"group_name"`
}

func (w *world) say(from, to, text string) (id string) {
	w.t.Helper()
	var r struct{ ID string }
	w.must(w.ask(from, "msg.send", map[string]any{"to": to, "text": text}, &r))
	return r.ID
}

func (w *world) message(box, id string) (m shownMessage, err error) {
	return m, w.ask(box, "msg.show", map[string]any{"id": id}, &m)
}

// state waits until a message has come so far.
func (w *world) state(box, id string, limit time.Duration, want ...string) shownMessage {
	w.t.Helper()
	var m shownMessage
	end := time.Now().Add(limit)
	for {
		var err error
		if m, err = w.message(box, id); err == nil && slices.Contains(want, m.State) {
			return m
		}
		if time.Now().After(end) {
			w.t.Fatalf("message of %s is %s (%s) after %s, want %s: %v", box, m.State, m.Reason, limit, want, err)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// heard are the texts that a box has from another, in the order of its history.
func (w *world) heard(box, from string) (all []string, err error) {
	for after := uint64(0); ; {
		var page []shownMessage
		err := w.ask(box, "msg.list", map[string]any{"with": from, "receive": true, "after": after, "limit": 1000}, &page)
		if err != nil || len(page) == 0 {
			return all, err
		}
		for _, m := range page {
			all, after = append(all, m.Text), m.Cursor
		}
	}
}

// texts waits until a box has so many texts of another, and wants them to be 0, 1, 2, … in this order.
func (w *world) texts(box, from string, n int, limit time.Duration) {
	w.t.Helper()
	var all []string
	end := time.Now().Add(limit)
	for {
		var err error
		if all, err = w.heard(box, from); err == nil && len(all) >= n {
			break
		}
		if time.Now().After(end) {
			w.t.Fatalf("%s has %d of %d texts of %s after %s: %v", box, len(all), n, from, limit, err)
		}
		<-time.After(200 * time.Millisecond)
	}
	for i, text := range all {
		if want := fmt.Sprint(i); text != want && !strings.HasPrefix(text, want+" ") {
			w.t.Fatalf("%s has %q as number %d of %s", box, text[:min(len(text), 20)], i, from)
		}
	}
	if len(all) != n {
		w.t.Fatalf("%s has %d texts of %s, want %d", box, len(all), from, n)
	}
}

// trio makes boxes a, m and b on one LAN; m keeps the mail of its contacts, and is named as their mailbox by a and b.
func (w *world) trio() {
	w.t.Helper()
	w.boxes("a", "m", "b")
	w.must(w.lab.Switch(w.box["m"], "lan", w.end("m", "eth0", "10.1.0.2/24"), w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.3/24")))
	w.node("m")
	w.messenger("m", "--keep-for-contacts")
	for _, x := range []string{"a", "b"} {
		w.node(x, "--peer", w.peer("m", "10.1.0.2"))
		w.startWithBox(x)
		w.friends("m", x)
	}
	w.friends("a", "b")
}

func (w *world) startWithBox(box string, more ...string) {
	w.t.Helper()
	var id struct{ Link string }
	w.must(w.ask("m", "messenger.id", struct{}{}, &id))
	w.messenger(box, append([]string{"--mailbox", id.Link}, more...)...)
}

func (w *world) endMessenger(box string, s syscall.Signal) {
	w.t.Helper()
	p := w.run[box+" messenger"]
	if s == syscall.SIGKILL {
		p.KillAlone()
	} else {
		p.Signal(s)
	}
	<-p.Done()
}

// TestE2EMessageDelivery: two who are never on together reach each other by a mailbox, once and in order, and the receipt comes
// the same way back.
func TestE2EMessageDelivery(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgdeliver")
	w.trio()
	first := w.say("a", "b", "0")
	w.state("a", first, 10*time.Second, "delivered")
	w.endMessenger("b", syscall.SIGTERM)
	var last string
	for i := 1; i < 30; i++ {
		last = w.say("a", "b", fmt.Sprint(i, strings.Repeat(" text", i*20)))
	}
	began := time.Now()
	m := w.state("a", last, 20*time.Second, "stored")
	if m.Where == "" {
		t.Errorf("stored, and not said where: %+v", m)
	}
	t.Logf("the mailbox has it after %s", time.Since(began).Round(time.Millisecond))
	w.endMessenger("a", syscall.SIGTERM)
	began = time.Now()
	w.startWithBox("b")
	w.texts("b", "a", 30, 20*time.Second)
	t.Logf("b has 29 of them %s after it was started", time.Since(began).Round(time.Millisecond))
	w.wait("b leaves its receipt at the mailbox", func(context.Context) error {
		var s struct{ Counters map[string]uint64 }
		if err := w.ask("b", "messenger.status", struct{}{}, &s); err != nil {
			return err
		}
		if s.Counters["box_left"] == 0 {
			return fmt.Errorf("not yet: %v", s.Counters)
		}
		return nil
	})
	w.endMessenger("b", syscall.SIGTERM)
	began = time.Now()
	w.startWithBox("a")
	w.state("a", last, 20*time.Second, "delivered")
	t.Logf("a is told %s after it was started", time.Since(began).Round(time.Millisecond))
}

// messengerStatus is for the eyes of who reads a log.
func (w *world) messengerStatus(box string) string {
	var v map[string]any
	if err := w.ask(box, "messenger.status", struct{}{}, &v); err != nil {
		return err.Error()
	}
	b, _ := json.Marshal(v)
	return string(b)
}
