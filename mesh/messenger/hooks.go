package messenger

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// Bounds of hooks: what a peer sends decides how often they run, so it must not decide how many run at once.
const (
	hooksAtOnce = 4
	// hooksWaiting bounds the events that wait for their turn. Messages wait in the history instead: no event of one is lost.
	hooksWaiting   = 64
	hookTime       = 30 * time.Second
	maxHookTime    = 10 * time.Minute
	hookCursor     = "cursor"
	hooksBucket    = "hooks"
	presencePeriod = 20 * time.Second
)

// HooksConfig is the world of Hooks.
type HooksConfig struct {
	Hooks  []Hook
	Engine interface {
		Messages(ctx context.Context, q Query) ([]Message, error)
		Changed() <-chan struct{}
		Files() ([]File, error)
		Book(f func(*Book, time.Time) error) error
		Seen() map[key.Public]time.Time
	}
	Shelf    Shelf
	Presence *Presence
	// Online is the home network's; nil: unknown.
	Online func() []key.Public
	// Exec runs a program; Post sends to an address, nil: this build can't.
	Exec func(ctx context.Context, argv, environ []string, stdin []byte) error
	Post func(ctx context.Context, url string, body []byte) error
	Log  *slog.Logger
}

// Hooks watches the engine, keeps Presence, and runs what the owner has named.
type Hooks struct {
	c       HooksConfig
	queue   chan hookRun
	dropped atomic.Uint64
	failed  atomic.Uint64

	// for Run alone
	cursor   uint64
	files    map[MessageID]FileState
	standing map[key.Public]Standing
}

type hookRun struct {
	hook  Hook
	event *HookEvent
	done  func()
}

// NewHooks checks the hooks and returns what runs them.
func NewHooks(c HooksConfig) (*Hooks, error) {
	for _, h := range c.Hooks {
		if err := h.Validate(); err != nil {
			return nil, err
		}
		if h.Post != "" && c.Post == nil {
			return nil, fmt.Errorf("hook: post %s: %w in this build for small routers, which has no HTTP; let exec call wget or curl", h.Post, ErrNoHTTP)
		}
	}
	return &Hooks{c: c, queue: make(chan hookRun, hooksWaiting), files: map[MessageID]FileState{}, standing: map[key.Public]Standing{}}, nil
}

// Counters are how many events were dropped, since too many waited, and how many hooks have failed.
func (h *Hooks) Counters() (dropped, failed uint64) { return h.dropped.Load(), h.failed.Load() }

// Run watches until ctx ends, and returns when the last hook has ended.
func (h *Hooks) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer h.drain()
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range hooksAtOnce {
		wg.Go(func() { h.work(ctx) })
	}
	if err := h.begin(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(presencePeriod)
	defer tick.Stop()
	for {
		changed := h.c.Engine.Changed()
		h.presence(time.Now())
		if err := h.look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
	}
}

// begin finds where an earlier run has stopped; the first one begins with what comes now.
func (h *Hooks) begin(ctx context.Context) error {
	raw, err := h.c.Shelf.Get(hooksBucket, []byte(hookCursor))
	if err != nil {
		return err
	}
	if len(raw) == 8 {
		h.cursor = binary.BigEndian.Uint64(raw)
	} else if end, err := h.c.Engine.Messages(ctx, Query{Last: true, Limit: 1}); err != nil {
		return err
	} else if len(end) > 0 {
		h.cursor = end[0].Cursor
	}
	files, err := h.c.Engine.Files()
	if err != nil {
		return err
	}
	for _, f := range files {
		h.files[f.ID] = f.State
	}
	return h.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, c := range b.All() {
			h.standing[c.Account] = c.Standing
		}
		return nil
	})
}

// look makes events of what is new.
func (h *Hooks) look(ctx context.Context) error {
	if len(h.c.Hooks) == 0 {
		return nil // presence is kept for the socket all the same
	}
	names, err := h.contacts(ctx)
	if err != nil {
		return err
	}
	files, err := h.c.Engine.Files()
	if err != nil {
		return err
	}
	now := map[MessageID]FileState{}
	for _, f := range files {
		now[f.ID] = f.State
		if !f.Out && f.State != h.files[f.ID] && (f.State == FileOffered || f.State == FileDone || f.State == FileFailed) {
			info := FileInfo{f.ID.String(), names[f.Account], f}
			h.emit(ctx, &HookEvent{Event: EventFile, Time: f.Since, Account: f.Account, Name: names[f.Account], State: string(f.State), File: &info}, nil)
		}
	}
	h.files = now
	return h.messages(ctx, names)
}

// contacts makes events of the contacts whose standing is another, and returns our names for all.
func (h *Hooks) contacts(ctx context.Context) (map[key.Public]string, error) {
	names, standing := map[key.Public]string{}, map[key.Public]Standing{}
	var news []Contact
	err := h.c.Engine.Book(func(b *Book, _ time.Time) error {
		for _, c := range b.contacts {
			names[c.Account], standing[c.Account] = c.Name, c.Standing
			if h.standing[c.Account] != c.Standing {
				news = append(news, *c)
			}
		}
		return nil
	})
	h.standing = standing
	for _, c := range news {
		h.emit(ctx, &HookEvent{Event: EventContact, Time: c.Since, Account: c.Account, Name: c.Name, State: string(c.Standing)}, nil)
	}
	return names, err
}

// messages hands on the texts that came, in order, and remembers how far; a kill repeats the last ones and loses none.
func (h *Hooks) messages(ctx context.Context, names map[key.Public]string) error {
	for ctx.Err() == nil {
		page, err := h.c.Engine.Messages(ctx, Query{After: h.cursor, Limit: 4 * hooksAtOnce})
		if err != nil || len(page) == 0 {
			return err
		}
		var runs sync.WaitGroup
		for _, m := range page {
			if !m.Out && !m.Copied && m.Kind == envelope.KindText {
				h.emit(ctx, &HookEvent{Event: EventMessage, Time: m.Time, Account: m.Account, Name: names[m.Account], Message: &m}, &runs)
			}
			h.cursor = m.Cursor
		}
		if !waited(ctx, &runs) {
			return ctx.Err() // those that were not run come again
		}
		if err := h.c.Shelf.Put(hooksBucket, []byte(hookCursor), seqKey(h.cursor)); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// waited waits for runs, unless ctx ends first: then nobody takes the rest of them from the queue.
func waited(ctx context.Context, runs *sync.WaitGroup) bool {
	all := make(chan struct{})
	go func() { // ends with the runs; those left in the queue are ended by drain
		runs.Wait()
		close(all)
	}()
	select {
	case <-all:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// presence brings Presence up to date, and makes events of who came and went.
func (h *Hooks) presence(now time.Time) {
	if h.c.Presence == nil {
		return
	}
	var online []key.Public
	if h.c.Online != nil {
		online = h.c.Online()
	}
	h.c.Presence.Update(online, h.c.Engine.Seen(), now)
	var accounts []key.Public
	names := map[key.Public]string{}
	_ = h.c.Engine.Book(func(b *Book, _ time.Time) error {
		for k, c := range b.contacts {
			if c.Standing == Confirmed {
				accounts = append(accounts, k)
				names[k] = c.Name
			}
		}
		return nil
	})
	for k, here := range h.c.Presence.Look(accounts, now) {
		h.emit(context.Background(), &HookEvent{Event: EventPresence, Time: now.UTC(), Account: k, Name: names[k], Online: &here}, nil)
	}
}

// emit queues the hooks of an event. One with runs waits for room, and is counted there until it has ended.
func (h *Hooks) emit(ctx context.Context, e *HookEvent, runs *sync.WaitGroup) {
	for _, hook := range h.c.Hooks {
		if !hook.wants(e) {
			continue
		}
		r := hookRun{hook, e, func() {}}
		if runs == nil {
			select {
			case h.queue <- r:
			default:
				h.dropped.Add(1)
			}
			continue
		}
		runs.Add(1)
		r.done = runs.Done
		select {
		case h.queue <- r:
		case <-ctx.Done():
			runs.Done()
		}
	}
}

// drain ends what waits in the queue after the workers have.
func (h *Hooks) drain() {
	for {
		select {
		case r := <-h.queue:
			r.done()
		default:
			return
		}
	}
}

func (h *Hooks) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-h.queue:
			if err := h.run(ctx, r); err != nil && ctx.Err() == nil {
				h.failed.Add(1)
				h.c.Log.Warn("hook failed", "type", r.event.Event, "err", err)
			}
			r.done()
		}
	}
}

func (h *Hooks) run(ctx context.Context, r hookRun) error {
	body, err := json.Marshal(r.event)
	if err != nil {
		return err
	}
	limit := r.hook.Time
	if limit == 0 {
		limit = hookTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if r.hook.Post != "" {
		return h.c.Post(ctx, r.hook.Post, body)
	}
	return h.c.Exec(ctx, r.hook.Exec, r.event.Environ(), append(body, '\n'))
}
