package messenger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// settled waits until all rosters are the same, and returns it.
func settled(t testing.TB, id envelope.GroupID, d time.Duration, all ...*Engine) GroupInfo {
	t.Helper()
	deadline := time.Now().Add(d)
	for {
		time.Sleep(time.Second)
		var first GroupInfo
		same := true
		for i, e := range all {
			g := groupOf(e, id)
			if i == 0 {
				first = g
			}
			same = same && g.Epoch == first.Epoch && g.Name == first.Name && reflect.DeepEqual(accounts(g), accounts(first))
		}
		if same && first.Epoch != "" {
			return first
		}
		if time.Now().After(deadline) {
			for _, e := range all {
				t.Logf("%s: %+v\n%v", e.core.self.Short(), groupOf(e, id), e.Status().Counters)
			}
			t.Fatalf("rosters differ after %s", d)
		}
	}
}

func groupOf(e *Engine, id envelope.GroupID) GroupInfo {
	for _, g := range e.Groups() {
		if g.ID == id {
			return g
		}
	}
	return GroupInfo{}
}

func accounts(g GroupInfo) (all []key.Public) {
	for _, m := range g.Members {
		all = append(all, m.Account)
	}
	return all
}

func hasMember(g GroupInfo, e *Engine) bool { return slices.Contains(accounts(g), e.core.account) }

// star is a group of n: all are contacts of the first, and of nobody else.
func star(t testing.TB, n int) (w *world, nodes []*testNode, all []*Engine, id envelope.GroupID) {
	t.Helper()
	w = newWorld(t)
	var keys []key.Public
	for range n {
		nodes = append(nodes, w.node(nil))
	}
	for i, x := range nodes {
		all = append(all, x.start())
		if i > 0 {
			befriend(t, all[0], all[i])
			keys = append(keys, all[i].core.account)
		}
	}
	id, err := all[0].CreateGroup(t.Context(), "hikers", keys)
	if err != nil {
		t.Fatal(err)
	}
	settled(t, id, time.Minute, all...)
	return w, nodes, all, id
}

// Members who are no contacts of each other talk in the group, and only there.
func TestGroupTalks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, nodes, all, id := star(t, 4)
		for i, e := range all {
			if _, err := e.GroupSend(t.Context(), id, fmt.Appendf(nil, "from %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		for i, e := range all {
			got := waitTexts(t, e, 3, time.Minute)
			slices.Sort(got)
			var want []string
			for j := range all {
				if j != i {
					want = append(want, fmt.Sprintf("from %d", j))
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("member %d has %q, want %q", i, got, want)
			}
		}
		if _, err := all[1].Send(t.Context(), Outgoing{To: all[2].core.account, Body: []byte("psst")}); !errors.Is(err, ErrNoContact) {
			t.Errorf("to a member in private: %v, want ErrNoContact", err)
		}
		if err := all[1].GroupAdd(t.Context(), id, all[2].core.account); !errors.Is(err, ErrNoContact) && !errors.Is(err, ErrGroupRule) {
			t.Errorf("a member adds: %v", err)
		}
		if err := all[1].GroupRemove(t.Context(), id, all[2].core.account); !errors.Is(err, ErrGroupRule) {
			t.Errorf("a member evicts: %v, want ErrGroupRule", err)
		}

		// A restart forgets nothing of it.
		nodes[1].stop()
		again := nodes[1].start()
		if g := groupOf(again, id); len(g.Members) != 4 || g.Name != "hikers" {
			t.Errorf("after a restart: %+v", g)
		}
		all[1] = again

		// The evicted gets nothing more, and is not heard.
		if err := all[0].GroupRemove(t.Context(), id, all[3].core.account); err != nil {
			t.Fatal(err)
		}
		settled(t, id, time.Minute, all...)
		if _, err := all[0].GroupSend(t.Context(), id, []byte("among us")); err != nil {
			t.Fatal(err)
		}
		waitTexts(t, all[1], 3, time.Minute) // its two of before came with the store
		time.Sleep(time.Hour)
		if got := texts(t, all[3]); slices.Contains(got, "among us") {
			t.Errorf("who was evicted has %q", got)
		}
		if _, err := all[3].GroupSend(t.Context(), id, []byte("let me in")); !errors.Is(err, ErrNotMember) {
			t.Errorf("who was evicted sends: %v, want ErrNotMember", err)
		}
		// One leaves, and those hear of it whom he knows from there alone.
		if err := all[1].GroupLeave(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if g := settled(t, id, time.Minute, all[:3]...); len(g.Members) != 2 {
			t.Errorf("after one has left: %+v", g)
		}
		for _, n := range nodes {
			n.stop()
		}
	})
}

// T-M10 on the engine: three parts of a group change it against each other, and are one again.
func TestGroupPartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, nodes, all, id := star(t, 5)
		if err := all[0].GroupAdmin(t.Context(), id, all[1].core.account, true); err != nil {
			t.Fatal(err)
		}
		if err := all[0].GroupAdmin(t.Context(), id, all[2].core.account, true); err != nil {
			t.Fatal(err)
		}
		settled(t, id, time.Minute, all...)
		fresh := w.node(nil)
		late := fresh.start()
		befriend(t, all[1], late)
		befriend(t, all[2], late)
		befriend(t, all[2], all[4])

		part := map[*testNode]int{nodes[0]: 0, nodes[3]: 0, nodes[1]: 1, nodes[4]: 1, nodes[2]: 2, fresh: 1}
		split(w, part)
		mustGroup(t, all[0].GroupRemove(t.Context(), id, all[2].core.account)) // evicts an admin,
		mustGroup(t, all[2].GroupRemove(t.Context(), id, all[4].core.account)) // who evicts another meanwhile,
		mustGroup(t, all[2].GroupAdmin(t.Context(), id, all[3].core.account, true))
		mustGroup(t, all[1].GroupAdd(t.Context(), id, late.core.account))
		mustGroup(t, all[1].GroupRename(t.Context(), id, "walkers"))
		time.Sleep(10 * time.Minute)
		if g := groupOf(late, id); !hasMember(g, late) || !hasMember(g, all[2]) {
			t.Errorf("in the second part: %+v", g)
		}
		split(w, nil)
		left := []*Engine{all[0], all[1], all[3], all[4], late}
		g := settled(t, id, 3*time.Hour, left...)
		if len(g.Members) != 5 || hasMember(g, all[2]) || !hasMember(g, all[4]) || !hasMember(g, late) || g.Name != "walkers" {
			t.Errorf("the roster: %+v", g)
		}
		for _, m := range g.Members {
			if m.Admin != (m.Account == all[0].core.account || m.Account == all[1].core.account) {
				t.Errorf("%s is admin: %v", m.Account.Short(), m.Admin)
			}
		}
		if _, err := late.GroupSend(t.Context(), id, []byte("hello all")); err != nil {
			t.Fatal(err)
		}
		for _, e := range left[:4] {
			if got := waitTexts(t, e, 1, time.Hour); got[0] != "hello all" {
				t.Errorf("texts %q", got)
			}
		}
		for _, n := range append(nodes, fresh) {
			n.stop()
		}
	})
}

func mustGroup(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// split cuts nodes of different parts off from each other; nil: from nobody.
func split(w *world, part map[*testNode]int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.nodes {
		n.cut = map[key.Public]bool{}
		for _, o := range w.nodes {
			if part != nil && part[n] != part[o] {
				n.cut[o.key.Public()] = true
			}
		}
		for c := range n.conns {
			c.Close()
			delete(n.conns, c)
		}
	}
}

// A stranger, or a contact who is no member, brings nobody into a group and changes none.
func TestGroupOfStrangers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, nodes, all, id := star(t, 3)
		evil := w.node(nil)
		e := evil.start()
		befriend(t, e, all[1])
		befriend(t, e, all[0])
		before := groupOf(all[1], id).Epoch
		// He has all changes, as one who was evicted has, and says them and some of his own.
		err := e.durable(context.Background(), func(c *core) error {
			all[1].mu.Lock()
			ops := all[1].core.groups[id].roster.Ops()
			all[1].mu.Unlock()
			g := newGroupLog(c.number())
			for _, raw := range ops {
				if _, _, err := g.roster.Put(raw); err != nil {
					return err
				}
			}
			c.groups[id] = g
			c.tellGroup(g, all[1].core.account, ops)
			_, err := c.send([]key.Public{all[1].core.account}, Outgoing{Group: id, Body: []byte("I am one of you")})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := groupOf(all[1], id).Epoch; got != before || len(texts(t, all[1])) != 0 {
			t.Errorf("epoch %s, before %s, texts %q", got, before, texts(t, all[1]))
		}
		if n := all[1].Status().Counters["dropped_group"]; n != 1 {
			t.Errorf("%d texts dropped, want 1", n)
		}
		for _, n := range append(nodes, evil) {
			n.stop()
		}
	})
}
