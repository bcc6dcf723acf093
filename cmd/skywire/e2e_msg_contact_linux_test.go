package main

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fails runs skywire in a box and wants an exit status and a word on stderr.
func (w *world) fails(box string, status int, word string, args ...string) {
	w.t.Helper()
	path, err := builtBinary()
	w.must(err)
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	c := w.box[box].Command(ctx, path, args...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if got := c.ProcessState.ExitCode(); got != status || !strings.Contains(errs.String(), word) {
		w.t.Fatalf("%s %v: status %d, want %d with %q: %v %s%s", box, args, got, status, word, err, out, errs.String())
	}
}

type shownContact struct {
	Account    string
	Name       string
	Standing   string
	NewAccount string `json:"new_account"`
	Signed     bool
	Safety     string `json:"safety_number"`
	Online     bool
}

func (w *world) contact(box, who string) (c shownContact, err error) {
	return c, w.ask(box, "contact.show", map[string]any{"who": who}, &c)
}

func (w *world) standing(box, who, want string) {
	w.t.Helper()
	w.wait(box+" holds "+who+" for "+want, func(context.Context) error {
		c, err := w.contact(box, who)
		if err == nil && c.Standing != want {
			err = errors.New(c.Standing)
		}
		return err
	})
}

// TestE2EMessageKeyChange is T-M7: a contact that comes back with another key, be it that it says so or that somebody wants its
// name, is blocked until a person confirms it.
func TestE2EMessageKeyChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msgkey")
	w.boxes("a", "b", "c")
	w.must(w.lab.Switch(w.box["a"], "lan", w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), w.end("c", "eth0", "10.1.0.3/24")))
	w.node("a")
	for _, x := range []string{"b", "c"} {
		w.node(x, "--peer", w.peer("a", "10.1.0.1"))
	}
	for _, x := range []string{"a", "b", "c"} {
		w.messenger(x)
	}
	w.friends("a", "b")
	w.skywire("a", "messenger", "contact", "allow", "b", "admin")
	w.skywire("a", "messenger", "contact", "verify", "b", "--yes")
	w.skywire("a", "messenger", "send", "b", "-w", "delivered", "--timeout", "30", "before")

	// Somebody wants the name.
	w.fails("a", 5, "the key of this contact has changed", "messenger", "contact", "add", w.key["c"], "--name", "b")
	w.standing("a", "b", "changed")
	w.fails("a", 5, "has changed", "messenger", "send", "b", "to whom?")
	w.fails("a", 5, "has changed", "messenger", "send", w.key["c"], "to whom?")
	w.fails("a", 5, "has changed", "messenger", "contact", "confirm", "b")
	held := w.say("b", "a", "held")
	<-time.After(2 * time.Second)
	if all, err := w.heard("a", "b"); err != nil || len(all) != 0 {
		t.Errorf("a shows %q of a contact that is held: %v", all, err)
	}
	w.skywire("a", "messenger", "contact", "keep", "b")
	w.endMessenger("b", syscall.SIGTERM) // it would try again in a minute by itself
	w.messenger("b")
	w.state("b", held, patience, "delivered", "read")

	// b says itself that it is c now, signed by both keys.
	saved := w.box["b"].Dir + "/saved"
	w.skywire("b", "messenger", "export", saved)
	w.skywire("c", "messenger", "import", saved)
	if all, err := w.heard("c", "a"); err != nil || strings.Join(all, ",") != "before" {
		t.Errorf("c has %q of the history of b: %v", all, err)
	}
	w.skywire("c", "messenger", "contact", "moved", w.box["b"].State()+"/node.key")
	w.standing("a", "b", "changed")
	c, err := w.contact("a", "b")
	w.must(err)
	other, err := w.contact("c", "a")
	w.must(err)
	if !c.Signed || c.NewAccount != w.key["c"] || len(strings.Fields(c.Safety)) != 12 || c.Safety != other.Safety {
		t.Fatalf("%+v, at c %q", c, other.Safety)
	}
	w.fails("a", 5, "has changed", "messenger", "send", "b", "not yet")
	w.fails("a", 5, "the safety number is another", "messenger", "contact", "confirm", "b", "--number", strings.Repeat("12345 ", 12))
	w.skywire("a", "messenger", "contact", "confirm", "b", "--number", other.Safety)
	w.standing("c", "a", "confirmed")
	w.standing("a", "b", "confirmed")
	if c, err = w.contact("a", "b"); err != nil || c.Account != w.key["c"] {
		t.Fatalf("%+v %v", c, err)
	}
	w.skywire("a", "messenger", "send", "b", "-w", "delivered", "--timeout", "30", "after")
	if all, err := w.heard("c", "a"); err != nil || strings.Join(all, ",") != "before,after" {
		t.Errorf("c heard %q: %v", all, err)
	}
	w.fails("a", 4, "no such contact", "messenger", "send", "--json", w.key["b"], "the old key is nobody")
	if out := w.skywire("a", "messenger", "contact", "list"); strings.Contains(out, "admin") {
		t.Errorf("the rights of the old key went over to the new one:\n%s", out)
	}
}
