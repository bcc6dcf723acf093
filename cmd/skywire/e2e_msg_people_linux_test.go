package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
)

// grown collects what a program prints.
type grown struct {
	mu sync.Mutex // guards the field below
	b  bytes.Buffer
}

func (g *grown) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(b)
}

func (g *grown) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

func (w *world) prints(g *grown, want string) {
	w.t.Helper()
	w.wait(fmt.Sprintf("%q is printed", want), func(context.Context) error {
		if s := g.String(); !strings.Contains(s, want) {
			return errors.New(s[max(0, len(s)-300):])
		}
		return nil
	})
}

// TestE2EMessagePeople is the walk of the README with two people on a LAN that leads nowhere: invite, add, send, tail, file, chat on
// a terminal, and what a hook hears of it.
func TestE2EMessagePeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgppl")
	w.boxes("ann", "bob")
	w.must(w.lab.Wire(w.end("ann", "eth0", "10.1.0.1/24"), w.end("bob", "eth0", "10.1.0.2/24")))
	w.node("ann")
	w.node("bob", "--peer", w.peer("ann", "10.1.0.1"))
	hooked := filepath.Join(w.box["bob"].Dir, "hooked")
	hook := filepath.Join(w.box["bob"].Dir, "hook")
	w.must(os.WriteFile(hook, []byte("#!/bin/sh\necho \"$SKYWIRE_EVENT $SKYWIRE_NAME $SKYWIRE_ONLINE $(cat)\" >> "+hooked+"\n"), 0o700),
		w.box["bob"].WriteConfig("messenger: {files: "+w.box["bob"].Dir+"/files, hooks: [{on: [message, file, presence], exec: ["+hook+"]}]}\n"))
	w.messenger("ann")
	w.messenger("bob")
	link := strings.TrimSpace(w.skywire("ann", "messenger", "contact", "invite", "--name", "bob"))
	w.skywire("bob", "messenger", "contact", "add", link, "--name", "ann")

	var tail grown
	path, err := builtBinary()
	w.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := w.box["bob"].Command(ctx, path, "messenger", "tail", "-f", "--json")
	c.Stdout = &tail
	w.must(c.Start())
	w.standing("ann", "bob", "confirmed")
	id := strings.TrimSpace(w.skywire("ann", "messenger", "send", "bob", "-w", "delivered", "--timeout", "30", "hello", "bob"))
	w.prints(&tail, `"text":"hello bob"`)
	var line struct{ ID, Name, Text string }
	first, _, _ := strings.Cut(tail.String(), "\n")
	if err := json.Unmarshal([]byte(first), &line); err != nil || line.ID != id || line.Name != "ann" {
		t.Errorf("tail: %v in %s", err, first)
	}
	if out := w.skywire("bob", "messenger", "read"); !strings.Contains(out, "hello bob") {
		t.Errorf("read: %s", out)
	}
	w.state("ann", id, patience, "read")
	if a, b := w.skywire("ann", "messenger", "contact", "verify", "bob"), w.skywire("bob", "messenger", "contact", "verify", "ann"); a != b || len(a) != 71 {
		t.Errorf("safety numbers %q and %q", a, b)
	}
	w.skywire("bob", "node", "ping", "ann", "-c", "1") // the node knows the petname, too

	body := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	w.must(os.WriteFile(filepath.Join(w.box["ann"].Dir, "photo.jpg"), body, 0o600))
	w.skywire("ann", "messenger", "file", "bob", "photo.jpg", "-w", "--timeout", "60")
	if got, err := os.ReadFile(filepath.Join(w.box["bob"].Dir, "files", "photo.jpg")); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes of the file: %v", len(got), err)
	}
	w.chat("ann", "bob")
	cancel()
	_ = c.Wait()

	// The messenger of ann goes: bob's hooks have heard of it all.
	w.wait("the hook has run", func(context.Context) error {
		b, err := os.ReadFile(hooked)
		for _, want := range []string{"presence ann true", "message ann ", `"text":"hello bob"`, "file ann ", "photo.jpg"} {
			if err == nil && !bytes.Contains(b, []byte(want)) {
				err = fmt.Errorf("%q is missing in %s", want, b)
			}
		}
		return err
	})
}

// chat talks on a terminal.
func (w *world) chat(from, to string) {
	w.t.Helper()
	path, err := builtBinary()
	w.must(err)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	c := w.box[from].Command(ctx, path, "messenger", "chat", to)
	c.SysProcAttr = nil // a terminal wants a session of its own
	tty, err := pty.StartWithSize(c, &pty.Winsize{Rows: 40, Cols: 120})
	w.must(err)
	defer tty.Close()
	var screen grown
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := tty.Read(b)
			_, _ = screen.Write(b[:n])
			if err != nil {
				return
			}
		}
	})
	w.prints(&screen, to+"> ")
	w.prints(&screen, "we: hello "+to) // of before
	_, err = tty.WriteString("how are you?\r")
	w.must(err)
	w.wait("the line is there", func(context.Context) error {
		all, err := w.heard(to, from)
		if err == nil && (len(all) == 0 || all[len(all)-1] != "how are you?") {
			err = errors.New(strings.Join(all, "|"))
		}
		return err
	})
	w.say(to, from, "well, \x1b[31mthank you")
	w.prints(&screen, to+": well, ?[31mthank you")
	_, err = tty.WriteString("\x04")
	w.must(err, c.Wait())
	tty.Close()
	reading.Wait()
}

// TestE2EMessageDevices: two boxes of one cluster are one account: what one sends and gets, the other has, too.
func TestE2EMessageDevices(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgdev")
	w.boxes("one", "two", "far")
	w.must(w.lab.Switch(w.box["one"], "lan", w.end("one", "eth0", "10.1.0.1/24"), w.end("two", "eth0", "10.1.0.2/24"), w.end("far", "eth0", "10.1.0.3/24")))
	w.node("one", "--no-lan")
	w.found("one")
	w.node("two", "--no-lan", "--peer", w.peer("one", "10.1.0.1"))
	w.node("far", "--no-lan", "--peer", w.peer("one", "10.1.0.1"))
	w.join("two", w.invite("one", "--name", "two", "--role", "messenger", "--addr", "10.1.0.1:"+meshPort))
	w.join("far", w.invite("one", "--name", "far", "--addr", "10.1.0.1:"+meshPort))
	w.messenger("one", "--account", "cluster")
	w.messenger("two", "--account", "cluster")
	w.messenger("far")
	w.wait("one knows its other device", func(context.Context) error {
		var all []struct{ Own, Self bool }
		err := w.ask("one", "messenger.devices", struct{}{}, &all)
		n := 0
		for _, d := range all {
			if d.Own {
				n++
			}
		}
		if err == nil && n != 2 {
			err = fmt.Errorf("%d devices", n)
		}
		return err
	})
	defer func() {
		if t.Failed() {
			for _, box := range []string{"one", "far"} {
				for _, verb := range []string{"devices", "status", "id"} {
					out, err := w.box[box].Skywire(t.Context(), "messenger", verb)
					t.Log(box, verb, "\n", out, err)
				}
			}
		}
	}()
	link := strings.TrimSpace(w.skywire("one", "messenger", "contact", "invite", "--name", "far"))
	w.skywire("far", "messenger", "contact", "add", link, "--name", "us")
	w.standing("far", "us", "confirmed")
	w.skywire("far", "messenger", "send", "us", "-w", "delivered", "--timeout", "30", "to both of you")
	w.skywire("one", "messenger", "send", "far", "-w", "delivered", "--timeout", "30", "from one")
	for _, box := range []string{"one", "two"} {
		w.wait(box+" has the whole history", func(context.Context) error {
			var all []shownMessage
			err := w.ask(box, "msg.list", map[string]any{"limit": 100}, &all)
			texts := ""
			for _, m := range all {
				texts += m.Text + ","
			}
			if err == nil && (!strings.Contains(texts, "to both of you,") || !strings.Contains(texts, "from one,")) {
				err = errors.New(texts)
			}
			return err
		})
	}
}
