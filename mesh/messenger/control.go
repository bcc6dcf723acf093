package messenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"sync"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// Bounds of calls that come by message.
const (
	// maxCall bounds the body of a call, so that a config.yaml fits; maxResult that of a result.
	maxCall   = envelope.MaxBody
	maxResult = 40 << 10
	maxArgs   = 32
	// maxPending bounds the calls that wait for their turn. They run one after the other: whoever sent three of them meant that
	// order.
	maxPending = 64
	// callTime is how long one may take; stopping an app takes its grace.
	callTime = 2 * time.Minute
	// callsKept is how many calls are remembered after they are done, so that one that comes again is not done again. The engine
	// drops what comes twice, too; this is for its memory being lost between the doing and the writing.
	callsKept   = 512
	callsBucket = "calls"
)

// Call is the body of an item of the kind control.
type Call struct {
	Verb string   `json:"verb"`
	Args []string `json:"args,omitempty"`
	Text string   `json:"text,omitempty"` // of apply: a config.yaml
}

// Result is the body of an item of the kind result.
type Result struct {
	Call   string          `json:"call"` // the id of the item that asked
	Error  *signal.Error   `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// ParseCall decodes a call.
func ParseCall(b []byte) (Call, error) {
	var c Call
	if len(b) > maxCall {
		return c, fmt.Errorf("call: %w: too long", ErrFormat)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("call: %w: %v", ErrFormat, err)
	}
	if c.Verb == "" || len(c.Verb) > 40 || len(c.Args) > maxArgs {
		return c, fmt.Errorf("call: %w: no verb, or too many words", ErrFormat)
	}
	return c, nil
}

// ParseResult decodes a result.
func ParseResult(b []byte) (Result, error) {
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("result: %w: %v", ErrFormat, err)
	}
	return r, nil
}

// ControlVerb is what may be called by message. One that no scope is enough for is not in the table.
type ControlVerb struct {
	Name    string
	Args    string
	Scope   Scope
	Summary string
	Do      func(ctx context.Context, from key.Public, c Call) (any, error)
}

// ControlConfig is the world of a Control.
type ControlConfig struct {
	Shelf Shelf
	Audit *Audit
	// Scope is what an account may ask, and our name for it.
	Scope func(account key.Public) (Scope, string)
	// Granted says which single verbs a peering lets an account call beside its scope; nil: none.
	Granted func(account key.Public, verb string) bool
	// Answer sends a result to an account.
	Answer func(ctx context.Context, to key.Public, body []byte) error
	Log    *slog.Logger
	Now    func() time.Time
}

// Control does what accounts that have a scope ask by message, once each, and notes it.
type Control struct {
	c     ControlConfig
	verbs map[string]ControlVerb
	wake  chan struct{} // capacity 1: there may be work

	mu      sync.Mutex // guards the fields below; held over the shelf
	pending []string   // ids in the order of their coming
	kept    int
}

// called is a call as it is kept.
type called struct {
	From    key.Public      `json:"from"`
	Device  key.Public      `json:"device"`
	Call    Call            `json:"call"`
	Expires int64           `json:"expires,omitempty"`
	State   string          `json:"state"`
	At      int64           `json:"at"` // when it came: unix milliseconds
	Result  json.RawMessage `json:"result,omitempty"`
}

const (
	callWaits = "waits"
	callBegun = "begun"
	callDone  = "done"
)

// NewControl returns a Control that knows these verbs. It takes up what an earlier one had not begun; what that one had begun and
// not ended is answered so, and not done again.
func NewControl(c ControlConfig, verbs []ControlVerb) (*Control, error) {
	t := &Control{c: c, verbs: map[string]ControlVerb{}, wake: make(chan struct{}, 1)}
	for _, v := range verbs {
		t.verbs[v.Name] = v
	}
	type left struct {
		id string
		at int64
	}
	var open []left
	err := c.Shelf.Range(callsBucket, nil, func(k, v []byte) bool {
		t.kept++
		var x called
		if json.Unmarshal(v, &x) == nil && x.State != callDone {
			open = append(open, left{string(k), x.At})
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read calls: %w", err)
	}
	sort.Slice(open, func(i, j int) bool { return open[i].at < open[j].at })
	for _, l := range open {
		t.pending = append(t.pending, l.id)
	}
	t.poke()
	return t, nil
}

// Verbs is the table, by name.
func (t *Control) Verbs() []ControlVerb {
	all := make([]ControlVerb, 0, len(t.verbs))
	for _, v := range t.verbs {
		all = append(all, v)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all
}

func (t *Control) poke() {
	select {
	case t.wake <- struct{}{}:
	default: // it is awake
	}
}

// Take keeps a call until Run does it. It is idempotent by id. expires is in unix seconds, 0 for never.
func (t *Control) Take(ctx context.Context, from, device key.Public, id envelope.ItemID, expires int64, body []byte) error {
	call, err := ParseCall(body)
	if err != nil {
		return t.answer(ctx, from, id.String(), nil, signal.Errorf(signal.ErrUsage, "%v", err))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := []byte(id.String())
	if had, err := t.c.Shelf.Get(callsBucket, k); err != nil || had != nil {
		return err
	}
	x := called{From: from, Device: device, Call: call, Expires: expires, State: callWaits, At: t.c.Now().UnixMilli()}
	_, scope, name, err := t.admit(x)
	if err == nil && len(t.pending) >= maxPending {
		err = signal.Errorf(signal.ErrBusy, "%d calls wait already", maxPending)
	}
	if err != nil { // at once: a refusal takes no room
		t.note(x, id.String(), scope, name, err)
		return t.answer(ctx, from, id.String(), nil, err)
	}
	if err := t.putLocked(string(k), x); err != nil {
		return err
	}
	t.kept++
	t.pending = append(t.pending, string(k))
	t.poke()
	return nil
}

func (t *Control) putLocked(id string, x called) error {
	raw, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return t.c.Shelf.Put(callsBucket, []byte(id), raw)
}

// admit checks what a caller may. It is asked again when the call's turn comes: rights may be gone by then.
func (t *Control) admit(x called) (v ControlVerb, s Scope, name string, err error) {
	s, name = t.c.Scope(x.From)
	v, known := t.verbs[x.Call.Verb]
	granted := known && t.c.Granted != nil && t.c.Granted(x.From, x.Call.Verb)
	switch {
	case s == ScopeNone && !granted:
		// Who may nothing is told no more than that, not even which verbs there are.
		return v, s, name, signal.Errorf(signal.ErrRefused, "calls of this account are not allowed here")
	case !known:
		return v, s, name, signal.Errorf(signal.ErrUnknownMethod, "no verb %q can be called by message; there are: %s", x.Call.Verb, t.words(s))
	case s < v.Scope && !granted:
		return v, s, name, signal.Errorf(signal.ErrRefused, "%s needs the scope %s, this account has %s", x.Call.Verb, v.Scope, s)
	case x.Expires != 0 && t.c.Now().Unix() >= x.Expires:
		return v, s, name, signal.Errorf(signal.ErrTimeout, "the call came after it had expired; it was not done")
	}
	return v, s, name, nil
}

func (t *Control) words(s Scope) string {
	var words []string
	for _, v := range t.Verbs() {
		if v.Scope <= s {
			words = append(words, v.Name)
		}
	}
	return strings.Join(words, " ")
}

// note writes the audit. A line that can't be written is told in the log; the box stays under control.
func (t *Control) note(x called, id string, s Scope, name string, err error) {
	l := AuditLine{
		Time: t.c.Now().UTC(), From: x.From.String(), Name: name, Device: x.Device.String(), Scope: s.String(), Verb: x.Call.Verb, Args: x.Call.Args, ID: id,
		Verdict: verdictAllowed,
	}
	switch {
	case errors.Is(err, signal.ErrRefused), errors.Is(err, signal.ErrUnknownMethod), errors.Is(err, signal.ErrBusy):
		l.Verdict, l.Error = verdictRefused, err.Error()
	case err != nil:
		l.Verdict, l.Error = verdictFailed, err.Error()
	}
	if err := t.c.Audit.Note(l); err != nil {
		t.c.Log.Warn("a call was not noted", "err", err)
	}
	t.c.Log.Info("call by message", "type", x.Call.Verb, "from", x.From, "verdict", l.Verdict)
}

// Run does the calls, one after the other, until ctx ends.
func (t *Control) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.wake:
		}
		for ctx.Err() == nil {
			t.mu.Lock()
			if len(t.pending) == 0 {
				t.mu.Unlock()
				break
			}
			id := t.pending[0]
			t.mu.Unlock()
			if err := t.do(ctx, id); err != nil {
				return err
			}
			t.mu.Lock()
			t.pending = t.pending[1:]
			t.mu.Unlock()
		}
	}
}

// do does one call, and answers.
func (t *Control) do(ctx context.Context, id string) error {
	t.mu.Lock()
	raw, err := t.c.Shelf.Get(callsBucket, []byte(id))
	var x called
	if err == nil && (raw == nil || json.Unmarshal(raw, &x) != nil) {
		t.mu.Unlock()
		return nil // forgotten
	}
	begun := x.State == callBegun
	if err == nil && !begun {
		x.State = callBegun
		err = t.putLocked(id, x)
	}
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("keep a call: %w", err)
	}
	var result any
	verb, scope, name, failed := t.admit(x)
	switch {
	case begun:
		failed = signal.Errorf(signal.ErrInternal, "the messenger of that box ended while it did this; whether it was done is not known")
	case failed == nil:
		limited, cancel := context.WithTimeout(ctx, callTime)
		result, failed = verb.Do(limited, x.From, x.Call)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err() // begun: the next start answers
		}
	}
	t.note(x, id, scope, name, failed)
	if err := t.answer(ctx, x.From, id, result, failed); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	x.State, x.Call.Text = callDone, ""
	if err := t.putLocked(id, x); err != nil {
		return fmt.Errorf("keep a call: %w", err)
	}
	return t.forgetLocked()
}

// forgetLocked drops the oldest of those that are done when there are too many.
func (t *Control) forgetLocked() error {
	if t.kept <= callsKept {
		return nil
	}
	type old struct {
		id []byte
		at int64
	}
	var done []old
	err := t.c.Shelf.Range(callsBucket, nil, func(k, v []byte) bool {
		var x called
		if json.Unmarshal(v, &x) != nil || x.State == callDone {
			done = append(done, old{append([]byte{}, k...), x.At})
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("read calls: %w", err)
	}
	sort.Slice(done, func(i, j int) bool { return done[i].at < done[j].at })
	for _, o := range done[:max(0, min(len(done), t.kept-callsKept+callsKept/8))] {
		if err := t.c.Shelf.Delete(callsBucket, o.id); err != nil {
			return fmt.Errorf("forget a call: %w", err)
		}
		t.kept--
	}
	return nil
}

// Answer tells what became of an item that is no call.
func (t *Control) Answer(ctx context.Context, from key.Public, id envelope.ItemID, result any, failed error) error {
	return t.answer(ctx, from, id.String(), result, failed)
}

// answer sends what became of a call.
func (t *Control) answer(ctx context.Context, to key.Public, id string, result any, failed error) error {
	r := Result{Call: id}
	if failed != nil {
		r.Error = signal.AsError(failed)
		if len(r.Error.Message) > 1000 {
			r.Error.Message = r.Error.Message[:1000] + "…"
		}
	} else if raw, err := json.Marshal(result); err != nil || len(raw) > maxResult {
		r.Error = signal.Errorf(signal.ErrInternal, "done, but its answer has %d bytes and a message takes %d: ask for less", len(raw), maxResult)
	} else {
		r.Result = raw
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := t.c.Answer(ctx, to, body); err != nil {
		t.c.Log.Warn("the answer of a call was not sent", "peer", to, "err", err)
	}
	return nil
}
