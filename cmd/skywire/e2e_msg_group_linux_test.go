package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// shownGroup is messenger group show --json.
type shownGroup struct {
	ID, Name, Epoch string
	Member          bool
	Members         []struct {
		Account, Name  string
		Admin, Founder bool
	}
}

func (g *shownGroup) accounts() (all []string) {
	for _, m := range g.Members {
		w := m.Account
		if m.Admin {
			w += "*"
		}
		all = append(all, w)
	}
	slices.Sort(all)
	return all
}

func (w *world) group(box, name string) (g shownGroup, err error) {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	return g, w.box[box].SkywireJSON(ctx, &g, "messenger", "group", "show", name, "--json")
}

// oneRoster waits until the boxes have the same roster.
func (w *world) oneRoster(id string, limit time.Duration, boxes ...string) (first shownGroup) {
	w.t.Helper()
	end := time.Now().Add(limit)
	for {
		var states []string
		same := true
		for i, b := range boxes {
			g, err := w.group(b, id)
			if i == 0 {
				first = g
			}
			same = same && err == nil && g.Epoch == first.Epoch && slices.Equal(g.accounts(), first.accounts())
			states = append(states, fmt.Sprintf("%s: %q %s %d members, %v", b, g.Name, g.Epoch, len(g.Members), err))
		}
		if same {
			return first
		}
		if time.Now().After(end) {
			w.t.Fatalf("rosters differ after %s:\n%s", limit, strings.Join(states, "\n"))
		}
		<-time.After(100 * time.Millisecond)
	}
}

// part cuts boxes of different parts off from each other; no parts: nobody. Each box drops what it would send to the others.
func (w *world) part(addr map[string]string, parts ...string) {
	w.t.Helper()
	of := map[string]int{}
	for i, p := range parts {
		for _, b := range strings.Fields(p) {
			of[b] = i
		}
	}
	for b := range addr {
		for o, to := range addr {
			verb := "del"
			if len(parts) > 0 {
				verb = "add"
			}
			ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
			if o != b && (verb == "del" || of[o] != of[b]) {
				_, err := w.box[b].Exec(ctx, "ip", "route", verb, "blackhole", to+"/32")
				if verb == "add" {
					w.must(err)
				}
			}
			cancel()
		}
	}
}

// TestE2EMessageGroup is T-M10: a group of five in three parts, where an admin is evicted while he evicts another, a member is added, and
// the name changes. When they meet again all have one roster: the evicted admin is out, whom he evicted is in.
func TestE2EMessageGroup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "msggroup")
	names := []string{"a", "b", "c", "d", "e"}
	w.boxes(append(names, "lan")...)
	addr := map[string]string{}
	var ends []lab.End
	for i, b := range names {
		addr[b] = fmt.Sprintf("10.1.0.%d", i+1)
		ends = append(ends, w.end(b, "eth0", addr[b]+"/24"))
	}
	w.must(w.lab.Switch(w.box["lan"], "lan", ends...))
	for i, b := range names {
		w.exec(b, "ip", "-6", "addr", "flush", "dev", "eth0") // part cuts the addresses that it knows
		var args []string
		for _, o := range names[:i] {
			args = append(args, "--peer", w.peer(o, addr[o]))
		}
		w.node(b, args...)
		w.messenger(b)
	}
	for _, b := range []string{"b", "c", "d"} {
		w.friends("a", b)
	}
	w.friends("b", "e")

	skywire := func(box string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := w.box[box].Skywire(ctx, append([]string{"messenger", "group"}, args...)...)
		if err != nil {
			t.Fatalf("%s: messenger group %s: %v\n%s", box, strings.Join(args, " "), err, out)
		}
		return strings.TrimSpace(out)
	}
	refused := func(box string, code string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := w.box[box].Skywire(ctx, append([]string{"messenger", "group"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), code) {
			t.Errorf("%s: messenger group %s: %v, want %s\n%s", box, strings.Join(args, " "), err, code, out)
		}
	}
	skywire("a", "create", "hikers", "b", "c", "d")
	skywire("a", "admin", "hikers", "b")
	skywire("a", "admin", "hikers", "c")
	g, err := w.group("a", "hikers")
	w.must(err)
	w.oneRoster(g.ID, 20*time.Second, "a", "b", "c", "d")
	refused("d", "exit status 5", "remove", "hikers", w.key["b"]) // a member evicts nobody
	refused("c", "exit status 5", "remove", "hikers", w.key["a"]) // nobody the founder
	refused("c", "exit status 5", "remove", "hikers", w.key["b"]) // and an admin none who was one before him
	refused("e", "exit status 4", "send", "hikers", "hello")      // who is not in it knows of no such group

	w.part(addr, "a d", "b e", "c")
	skywire("a", "remove", "hikers", w.key["c"])
	skywire("c", "remove", "hikers", w.key["d"])
	skywire("b", "add", "hikers", "e")
	skywire("b", "rename", "hikers", "walkers")
	w.oneRoster(g.ID, 20*time.Second, "b", "e")
	w.oneRoster(g.ID, 20*time.Second, "a", "d")
	for _, p := range [][2]string{{"a", "hikers"}, {"b", "walkers"}, {"c", "hikers"}} {
		if v, err := w.group(p[0], g.ID); err != nil || v.Name != p[1] || len(v.Members) != map[string]int{"a": 3, "b": 5, "c": 3}[p[0]] {
			t.Errorf("%s, apart from the others: %+v, %v", p[0], v, err)
		}
	}

	began := time.Now()
	w.part(addr)
	one := w.oneRoster(g.ID, 60*time.Second, "a", "b", "d", "e")
	t.Logf("one roster %s after they met", time.Since(began).Round(time.Millisecond))
	want := []string{w.key["a"] + "*", w.key["b"] + "*", w.key["d"], w.key["e"]}
	slices.Sort(want)
	if !slices.Equal(one.accounts(), want) || one.Name != "walkers" {
		t.Errorf("the roster is %q %v, want walkers %v", one.Name, one.accounts(), want)
	}
	w.wait("c hears that it is out", func(context.Context) error {
		v, err := w.group("c", g.ID)
		if err == nil && v.Member {
			err = errors.New("it thinks that it is in")
		}
		return err
	})
	refused("c", "exit status 5", "send", g.ID, "let me in")

	// e and d never met but here: what e says all have, and c has not.
	id := skywire("e", "send", "walkers", "-w", "delivered", "--timeout", "30", "hello from e")
	if len(id) != 64 {
		t.Errorf("send printed %q", id)
	}
	for _, b := range []string{"a", "b", "c", "d"} {
		var page []shownMessage
		w.must(w.ask(b, "msg.list", map[string]any{"group": g.ID, "receive": true}, &page))
		if has := len(page) == 1 && page[0].Text == "hello from e"; has != (b != "c") {
			t.Errorf("%s has %+v", b, page)
		} else if has && page[0].GroupName != "walkers" {
			t.Errorf("%s shows the group as %q", b, page[0].GroupName)
		}
	}
	if out := w.skywire("a", "messenger", "list"); !strings.Contains(out, "in group walkers") {
		t.Errorf("messenger list does not name the group:\n%s", out)
	}
	skywire("d", "leave", "walkers")
	w.oneRoster(g.ID, 20*time.Second, "a", "b", "e", "d")
	var list []shownGroup
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w.must(w.box["d"].SkywireJSON(ctx, &list, "messenger", "group", "list", "--json"))
	if len(list) != 1 || list[0].Member || len(list[0].Members) != 3 {
		t.Errorf("after leaving: %+v", list)
	}
}
