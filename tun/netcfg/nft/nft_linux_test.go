package nft

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// inNamespace runs f on a thread in a network namespace of its own, which ends with it.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Skip("no network namespace:", err)
	}
}

func TestBatch(t *testing.T) {
	t.Parallel()
	inNamespace(t, func() {
		table := Table{unix.NFPROTO_INET, "skywire_test"}
		commit := func(change func(b *Batch)) error {
			b := &Batch{}
			change(b)
			return b.Commit()
		}
		if err := commit(func(*Batch) {}); err != nil {
			t.Error("an empty batch:", err)
		}
		hook := &Hook{Type: "filter", Number: unix.NF_INET_FORWARD, Priority: -7, Policy: PolicyDrop}
		err := commit(func(b *Batch) {
			b.AddTable(table)
			b.AddChain(table, "base", hook)
			b.AddChain(table, "other", nil)
			for range 500 { // more than a socket holds answers to
				b.AddRule(table, "base", Drop())
			}
			b.InsertRule(table, "base", "of ours", Jump("other"))
		})
		if err != nil {
			t.Error(err)
			return
		}
		chains, err := Chains()
		if err != nil || len(chains) != 2 || chains[0].Name != "base" || chains[0].Table != table || *chains[0].Hook != *hook ||
			chains[1].Name != "other" || chains[1].Hook != nil {
			t.Errorf("chains %+v, %v", chains, err)
		}
		rules, err := Rules(table, "base")
		if err != nil || len(rules) != 501 || rules[0].Comment != "of ours" || rules[1].Comment != "" || rules[0].Handle == 0 {
			t.Errorf("%d rules, %v", len(rules), err)
		}
		err = commit(func(b *Batch) {
			b.DelRule(table, "base", rules[0].Handle)
			b.DelRule(table, "none", 1)
			b.DelTable(table)
		})
		if !errors.Is(err, unix.ENOENT) {
			t.Errorf("a batch with a fault in the middle: %v, want ENOENT", err)
		}
		if again, err := Rules(table, "base"); err != nil || len(again) != len(rules) {
			t.Errorf("%d rules after a batch that could not be done, %v", len(again), err)
		}
		if err := commit(func(b *Batch) { b.DelRule(table, "base", rules[0].Handle) }); err != nil {
			t.Error(err)
		}
		if rules, err = Rules(table, "base"); err != nil || len(rules) != 500 {
			t.Errorf("%d rules left, %v", len(rules), err)
		}
		if rules, err = Rules(Table{unix.NFPROTO_INET, "none"}, "base"); len(rules) != 0 || err != nil && !errors.Is(err, unix.ENOENT) {
			t.Errorf("a table that is not there: %v, %v", rules, err)
		}
	})
}

func TestComment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		data []byte
		want string
	}{
		{userData("skywire sw0"), "skywire sw0"},
		{append([]byte{1, 2, 9, 9}, userData("after another")...), "after another"},
		{[]byte{0, 200, 'x'}, ""},
		{[]byte{0}, ""},
		{nil, ""},
		{userData(strings.Repeat("x", 300)), strings.Repeat("x", maxComment)},
	} {
		if got := comment(c.data); got != c.want {
			t.Errorf("comment(%x) = %q, want %q", c.data, got, c.want)
		}
	}
}

// FuzzAnswer feeds what a kernel could send to all that reads it.
func FuzzAnswer(f *testing.F) {
	attrs := appendNested(appendString(nil, unix.NFTA_CHAIN_NAME, "base"), unix.NFTA_CHAIN_HOOK, append32(nil, unix.NFTA_HOOK_HOOKNUM, 2))
	f.Add(appendMessage(nil, tablesMessage(unix.NFT_MSG_NEWCHAIN), 0, beginSeq, unix.NFPROTO_INET, 0, attrs))
	f.Add(appendMessage(nil, unix.NLMSG_ERROR, 0, beginSeq, 0xff, 0xff, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		for rest := b; len(rest) > 0; {
			m, next, err := nextMessage(rest)
			if err != nil {
				break
			}
			if m.errno() != errAnswer && len(m.body) >= 4 {
				parseChain(m.body)
				parseRule(m.body)
			}
			if len(next) >= len(rest) {
				t.Fatal("no way forward")
			}
			rest = next
		}
		if !bytes.Equal(b, before) {
			t.Fatal("changed what it read")
		}
	})
}
