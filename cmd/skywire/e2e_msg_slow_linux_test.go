package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
	"skywire/mesh/meshtest/emulator"
	"skywire/signal"
)

// slowPair makes boxes a and b that are joined by a bad link alone, with messengers that know each other.
func (w *world) slowPair(p emulator.Profile) *emulator.Link {
	w.t.Helper()
	w.boxes("a", "b")
	link, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), emulator.Profile{}, emulator.Profile{}, 1)
	w.must(err)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.messenger("a")
	w.messenger("b", "--files", filepath.Join(w.box["b"].Dir, "files"))
	w.friends("a", "b")
	w.must(link.Set(p, p))
	return link
}

// sayMany queues n texts of size bytes.
func (w *world) sayMany(from, to string, n, size int) (last string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	c, err := signal.Dial(ctx, filepath.Join(w.box[from].Run(), "messenger.sock"), nil)
	w.must(err)
	defer c.Close()
	for i := range n {
		text := fmt.Sprint(i, " ")
		text += strings.Repeat("x", max(0, size-len(text)))
		var r struct{ ID string }
		w.must(c.Call(ctx, "msg.send", map[string]any{"to": to, "text": text}, &r))
		last = r.ID
	}
	return last
}

// TestE2EMessagesSlowLink: a queue of messages crosses a link of 64 kbit/s that loses a tenth and takes half a second each way,
// while it is cut five times. SKYWIRE_E2E=full sends 10,000.
func TestE2EMessagesSlowLink(t *testing.T) {
	t.Parallel()
	n, cut := 180, time.Second
	if full() {
		n, cut = 10_000, 10*time.Second
	}
	const size = 100
	p := emulator.Profile{Rate: 64_000, Loss: 0.1, Delay: 500 * time.Millisecond, Queue: 16 << 10}
	w := newWorld(t, "msgslow")
	link := w.slowPair(p)
	before, back := link.Stats()
	began := time.Now()
	w.sayMany("a", "b", n, size)
	t.Logf("%d texts queued in %s", n, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	gone := p
	gone.Loss = 1
	for i := range 5 {
		w.heardAtLeast("b", "a", n*(i+1)/6, 10*time.Minute)
		w.must(link.Set(gone, gone))
		<-time.After(cut)
		w.must(link.Set(p, p))
	}
	w.texts("b", "a", n, 20*time.Minute)
	took := time.Since(began)
	t.Logf("%d texts of %d bytes in %s with %s of cuts: %.0f bytes/s of %d", n, size, took.Round(time.Millisecond), 5*cut,
		float64(n*size)/(took-5*cut).Seconds(), p.Rate/8)
	after, backAfter := link.Stats()
	t.Logf("frames put on the link: %d, and %d back; %s", after.Put-before.Put, backAfter.Put-back.Put, w.messengerStatus("a"))
}

// heardAtLeast waits until so many texts are there.
func (w *world) heardAtLeast(box, from string, n int, limit time.Duration) {
	w.t.Helper()
	w.must(lab.Wait(w.t.Context(), limit, fmt.Sprint(n, " texts"), func(context.Context) error {
		all, err := w.heard(box, from)
		if err == nil && len(all) < n {
			err = fmt.Errorf("%d texts", len(all))
		}
		return err
	}))
}

// TestE2EMessageBadLink: on a link of 20 kbit/s that loses a third and takes half a second each way a text is there soon.
// With SKYWIRE_E2E=full a megabyte comes whole, too, though the link is cut five times.
func TestE2EMessageBadLink(t *testing.T) {
	t.Parallel()
	const size, cut = 1 << 20, 10 * time.Second
	p := emulator.Profile{Rate: 20_000, Loss: 0.3, Delay: 500 * time.Millisecond, Queue: 8 << 10}
	w := newWorld(t, "msgbad")
	link := w.slowPair(p)
	began := time.Now()
	id := w.say("a", "b", "0 "+strings.Repeat("x", 1022))
	w.heardAtLeast("b", "a", 1, 2*time.Minute)
	t.Logf("1 KB was there after %s", time.Since(began).Round(time.Millisecond))
	w.state("a", id, 2*time.Minute, "delivered")
	t.Logf("and known to be after %s", time.Since(began).Round(time.Millisecond))
	if !full() {
		return // the file takes an hour
	}
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(content)
	path := filepath.Join(w.box["a"].Dir, "file")
	w.must(os.WriteFile(path, content, 0o600))
	began = time.Now()
	w.must(w.ask("a", "file.send", map[string]any{"to": "b", "path": path}, nil))
	gone := p
	gone.Loss = 1
	for i := range 5 {
		w.file("b", func(f sharedFile) bool { return f.Done*6 >= int64(size*(i+1)) || f.State == "done" })
		w.must(link.Set(gone, gone))
		<-time.After(cut)
		w.must(link.Set(p, p))
	}
	f := w.file("b", func(f sharedFile) bool { return f.State == "done" })
	took := time.Since(began)
	got, err := os.ReadFile(f.Path)
	w.must(err)
	if !bytes.Equal(got, content) {
		t.Errorf("%d bytes of %d, or others", len(got), size)
	}
	t.Logf("a file of %d bytes in %s with %s of cuts: %.0f bytes/s of %d", size, took.Round(time.Millisecond), 5*cut,
		float64(size)/(took-5*cut).Seconds(), p.Rate/8)
}

type sharedFile struct {
	State, Path string
	Done        int64
}

// file waits until the one file of a box is as wanted.
func (w *world) file(box string, want func(f sharedFile) bool) (f sharedFile) {
	w.t.Helper()
	w.must(lab.Wait(w.t.Context(), 30*time.Minute, "the file", func(context.Context) error {
		var all []sharedFile
		if err := w.ask(box, "file.list", struct{}{}, &all); err != nil || len(all) != 1 {
			return fmt.Errorf("%d files: %w", len(all), err)
		}
		if f = all[0]; !want(f) {
			return fmt.Errorf("%s, %d bytes", f.State, f.Done)
		}
		return nil
	}))
	return f
}
