package messenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// memoryShelf is a Shelf of a test; it survives the Control that used it.
type memoryShelf struct {
	mu   sync.Mutex // guards all
	all  map[string]map[string][]byte
	full bool
}

var errFull = errors.New("disk full")

func (s *memoryShelf) Put(bucket string, k, v []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return errFull
	}
	if s.all == nil {
		s.all = map[string]map[string][]byte{}
	}
	if s.all[bucket] == nil {
		s.all[bucket] = map[string][]byte{}
	}
	s.all[bucket][string(k)] = slices.Clone(v)
	return nil
}

func (s *memoryShelf) Get(bucket string, k []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[bucket][string(k)], nil
}

func (s *memoryShelf) Delete(bucket string, k []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all[bucket], string(k))
	return nil
}

func (s *memoryShelf) Range(bucket string, from []byte, f func(k, v []byte) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []string
	for k := range s.all[bucket] {
		if k >= string(from) {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	for _, k := range keys {
		if !f([]byte(k), s.all[bucket][k]) {
			break
		}
	}
	return nil
}

// box is one that is called, with what it did and answered.
type box struct {
	t       *testing.T
	shelf   *memoryShelf
	scopes  map[key.Public]Scope
	granted map[string]bool
	control *Control
	audit   *Audit

	mu       sync.Mutex // guards the fields below
	did      []string
	answered map[string]Result
}

func newBox(t *testing.T) *box {
	return &box{t: t, shelf: &memoryShelf{}, scopes: map[key.Public]Scope{}, granted: map[string]bool{}, answered: map[string]Result{}}
}

// starts is a start of the daemon. block is called in the middle of the verb "stop".
func (b *box) starts(block func(context.Context)) {
	b.t.Helper()
	var err error
	if b.audit, err = OpenAudit(b.shelf); err != nil {
		b.t.Fatal(err)
	}
	verbs := ViscriptVerbs(func(ctx context.Context, method string, p map[string]any) (json.RawMessage, error) {
		b.mu.Lock()
		b.did = append(b.did, strings.TrimSpace(fmt.Sprint(method, " ", p["id"])))
		b.mu.Unlock()
		if method == "viscript.stop" && block != nil {
			block(ctx)
		}
		if p["id"] == "long" {
			return json.RawMessage(`"` + strings.Repeat("x", maxResult) + `"`), nil
		}
		return json.RawMessage(`{"ok":true}`), ctx.Err()
	})
	b.control, err = NewControl(ControlConfig{
		Shelf: b.shelf, Audit: b.audit, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Scope:   func(k key.Public) (Scope, string) { return b.scopes[k], "bob" },
		Granted: func(_ key.Public, verb string) bool { return b.granted[verb] },
		Answer: func(_ context.Context, _ key.Public, body []byte) error {
			r, err := ParseResult(body)
			if err != nil {
				b.t.Error(err)
			}
			b.mu.Lock()
			b.answered[r.Call] = r
			b.mu.Unlock()
			return nil
		},
	}, verbs)
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) take(from key.Public, id byte, expires int64, verb string, args ...string) {
	b.t.Helper()
	body, _ := json.Marshal(Call{Verb: verb, Args: args})
	if err := b.control.Take(b.t.Context(), from, from, envelope.ItemID{id}, expires, body); err != nil {
		b.t.Fatal(err)
	}
}

// settle runs the daemon until nothing moves any more, and ends it.
func (b *box) settle() {
	ctx, cancel := context.WithCancel(b.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = b.control.Run(ctx) })
	synctest.Wait()
	cancel()
	wg.Wait()
}

func (b *box) wants(id byte, name string) Result {
	b.t.Helper()
	r, ok := b.answered[envelope.ItemID{id}.String()]
	switch {
	case !ok:
		b.t.Errorf("call %d was not answered", id)
	case (r.Error == nil) != (name == "") || r.Error != nil && r.Error.Name != name:
		b.t.Errorf("call %d: %v %s, want %q", id, r.Error, r.Result, name)
	}
	return r
}

// TestControlScopes is T-M9 without a network: default deny, status with read, stop refused, both in the audit.
func TestControlScopes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.starts(nil)
		bob, eve := newKey(t), newKey(t)
		b.scopes[bob] = ScopeRead
		b.take(eve, 1, 0, "status")
		b.take(eve, 2, 0, "nonsense")
		b.take(bob, 3, 0, "status")
		b.take(bob, 4, 0, "stop", "web")
		b.take(bob, 5, 0, "nonsense")
		b.take(bob, 6, time.Now().Unix()-1, "ps")
		b.take(bob, 7, 0, "ru")
		b.take(bob, 8, 0, "ru", "long")
		b.granted["stop"] = true
		b.take(eve, 9, 0, "stop", "granted")
		b.settle()
		if r := b.wants(1, "refused"); strings.Contains(r.Error.Message, "stop") {
			t.Error("who may nothing is told what there is:", r.Error)
		}
		b.wants(2, "refused")
		if r := b.wants(3, ""); string(r.Result) != `{"ok":true}` {
			t.Errorf("%s", r.Result)
		}
		b.wants(4, "refused")
		b.wants(5, "unknown_method")
		b.wants(6, "timeout")
		b.wants(7, "usage")
		b.wants(8, "internal")
		b.wants(9, "")
		if want := []string{"viscript.status <nil>", "viscript.ru long", "viscript.stop granted"}; !slices.Equal(b.did, want) {
			t.Errorf("did %q, want %q", b.did, want)
		}
		lines, err := b.audit.Lines(0)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, l := range lines {
			got[map[string]string{bob.String(): "bob ", eve.String(): "eve "}[l.From]+l.Verb] = l.Verdict
		}
		for call, want := range map[string]string{"eve status": verdictRefused, "bob status": verdictAllowed, "bob stop": verdictRefused, "bob ps": verdictFailed, "eve stop": verdictAllowed} {
			if got[call] != want {
				t.Errorf("audit of %s: %q, want %q", call, got[call], want)
			}
		}
		if len(lines) != 9 {
			t.Errorf("%d lines", len(lines))
		}
	})
}

// TestControlOnce: a call is done once, however often it comes, and whatever dies meanwhile.
func TestControlOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		bob := newKey(t)
		b.scopes[bob] = ScopeOperate
		b.starts(func(ctx context.Context) { <-ctx.Done() }) // killed in the middle of a stop
		b.take(bob, 1, 0, "restart", "a")
		b.take(bob, 1, 0, "restart", "a")
		b.settle()
		b.take(bob, 1, 0, "restart", "a")
		b.take(bob, 2, 0, "stop", "b")
		b.take(bob, 3, 0, "restart", "c")
		b.settle()
		b.wants(1, "")
		if _, ok := b.answered[envelope.ItemID{2}.String()]; ok {
			t.Error("answered what was not over")
		}
		b.starts(nil)
		b.settle()
		b.wants(2, "internal")
		b.wants(3, "")
		b.starts(nil)
		b.take(bob, 2, 0, "stop", "b")
		b.settle()
		if want := []string{"viscript.restart a", "viscript.stop b", "viscript.restart c"}; !slices.Equal(b.did, want) {
			t.Errorf("did %q, want %q", b.did, want)
		}
	})
}

// TestControlRightsGone: rights that were taken while a call waited are gone.
func TestControlRightsGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.starts(nil)
		bob := newKey(t)
		b.scopes[bob] = ScopeOperate
		b.take(bob, 1, 0, "stop", "a")
		delete(b.scopes, bob)
		b.settle()
		b.wants(1, "refused")
		if len(b.did) != 0 {
			t.Error(b.did)
		}
	})
}

// TestControlBounds: the room that callers take is bounded.
func TestControlBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBox(t)
		b.starts(nil)
		bob := newKey(t)
		b.scopes[bob] = ScopeRead
		for i := range maxPending + 5 {
			b.take(bob, byte(i), 0, "ps")
		}
		for i := range 5 {
			b.wants(byte(maxPending+i), "busy")
		}
		b.settle()
		for i := range 2 * callsKept {
			body, _ := json.Marshal(Call{Verb: "ps"})
			if err := b.control.Take(t.Context(), bob, bob, envelope.ItemID{byte(i), byte(i >> 8), 1}, 0, body); err != nil {
				t.Fatal(err)
			}
			if i%maxPending == maxPending-1 {
				b.settle()
			}
		}
		b.settle()
		if n := len(b.shelf.all[callsBucket]); n > callsKept {
			t.Errorf("%d calls kept", n)
		}
		if err := b.control.Take(t.Context(), bob, bob, envelope.ItemID{7, 7, 7}, 0, []byte("{")); err != nil {
			t.Error(err)
		}
		b.shelf.full = true
		body, _ := json.Marshal(Call{Verb: "ps"})
		if err := b.control.Take(t.Context(), bob, bob, envelope.ItemID{8, 8, 8}, 0, body); !errors.Is(err, errFull) {
			t.Error("a call that was not kept counts as taken:", err)
		}
	})
}

func TestAuditBounds(t *testing.T) {
	t.Parallel()
	s := &memoryShelf{}
	a, err := OpenAudit(s)
	if err != nil {
		t.Fatal(err)
	}
	at := start()
	for i := range 3000 { // a flood of refusals does not push out the rest
		if err := a.Note(AuditLine{Time: at.Add(time.Duration(i) * time.Second), From: "a", Verb: "stop", Verdict: verdictRefused}); err != nil {
			t.Fatal(err)
		}
	}
	lines, _ := a.Lines(0)
	if len(lines) != refusalsAnHour {
		t.Fatalf("%d lines of refusals in an hour", len(lines))
	}
	a.Note(AuditLine{Time: at.Add(2 * time.Hour), From: "a", Verdict: verdictRefused})
	if lines, _ = a.Lines(1); len(lines) != 1 || lines[0].Missed != 3000-refusalsAnHour {
		t.Errorf("%+v", lines)
	}
	for range auditLines + 100 {
		a.Note(AuditLine{Time: at, From: "b", Verdict: verdictAllowed})
	}
	if a, err = OpenAudit(s); err != nil {
		t.Fatal(err)
	}
	lines, _ = a.Lines(0)
	if len(lines) != auditLines || lines[len(lines)-1].Seq != uint64(auditLines+100+refusalsAnHour+1) {
		t.Errorf("%d lines, the last %d", len(lines), lines[len(lines)-1].Seq)
	}
	a.Note(AuditLine{Verdict: verdictAllowed})
	if got, _ := a.Lines(1); got[0].Seq != lines[len(lines)-1].Seq+1 {
		t.Error("numbers begin again after a restart")
	}
}

func FuzzCall(f *testing.F) {
	f.Add([]byte(`{"verb":"ps","args":["a"]}`))
	f.Add([]byte(`{"verb":"apply","text":"apps: {}"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCall(b); err == nil && (c.Verb == "" || len(c.Args) > maxArgs) {
			t.Error(c)
		}
		_, _ = ParseResult(b)
		if s, err := ParseScope(string(b)); err == nil && s.String() != string(b) {
			t.Error(s)
		}
		if p, err := ParseStrangers(string(b)); err == nil && string(p) != string(b) && len(b) > 0 {
			t.Error(p)
		}
	})
}

// TestControlVerbsOfViscript: no verb of the table asks less than viscript does for the same.
func TestControlVerbsOfViscript(t *testing.T) {
	t.Parallel()
	for _, v := range ViscriptVerbs(nil) {
		if v.Scope == ScopeNone || v.Summary == "" || v.Do == nil {
			t.Errorf("%+v", v)
		}
	}
}
