package messenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
)

// hooked runs Hooks over a tongue, with programs that only note that they ran.
type hooked struct {
	t      *testing.T
	engine *tongue
	shelf  *memoryShelf
	online []key.Public

	mu    sync.Mutex // guards the fields below
	ran   []string
	now   int
	most  int
	takes time.Duration
}

func (h *hooked) hooks(all ...Hook) *Hooks {
	h.t.Helper()
	hooks, err := NewHooks(HooksConfig{
		Hooks: all, Engine: h.engine, Shelf: h.shelf, Presence: NewPresence(), Log: slog.New(slog.DiscardHandler),
		Online: func() []key.Public { h.mu.Lock(); defer h.mu.Unlock(); return h.online },
		Exec: func(ctx context.Context, argv, environ []string, stdin []byte) error {
			h.mu.Lock()
			h.now++
			h.most = max(h.most, h.now)
			takes := h.takes
			h.mu.Unlock()
			defer func() { h.mu.Lock(); h.now--; h.mu.Unlock() }()
			timer := time.NewTimer(takes)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-timer.C:
			}
			var e HookEvent
			var text struct{ Message struct{ Text string } }
			if err := errors.Join(json.Unmarshal(stdin, &e), json.Unmarshal(stdin, &text)); err != nil {
				return err
			}
			line := fmt.Sprint(argv[0], " ", e.Event, " ", e.Name)
			switch {
			case e.Online != nil:
				line += fmt.Sprint(" ", *e.Online)
			case e.Message != nil:
				line += " " + text.Message.Text
			default:
				line += " " + e.State
			}
			if !slices.Contains(environ, "SKYWIRE_EVENT="+e.Event) {
				h.t.Error(environ)
			}
			h.mu.Lock()
			h.ran = append(h.ran, line)
			h.mu.Unlock()
			return nil
		},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return hooks
}

// during runs hooks while do does something and an hour passes.
func (h *hooked) during(hooks *Hooks, do func()) {
	ctx, cancel := context.WithCancel(h.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := hooks.Run(ctx); !errors.Is(err, context.Canceled) {
			h.t.Error(err)
		}
	})
	synctest.Wait()
	do()
	timer := time.NewTimer(time.Hour)
	<-timer.C
	cancel()
	wg.Wait()
}

func (h *hooked) contact(name string) key.Public {
	k := newKey(h.t)
	h.engine.Book(func(b *Book, now time.Time) error {
		if _, err := b.Add(k, [16]byte{}, "", name, "", "", now); err != nil {
			h.t.Fatal(err)
		}
		_, err := b.Word(k, word{op: opAccept}.append(nil), "", now)
		return err
	})
	return k
}

func (h *hooked) text(from key.Public, text string) {
	h.engine.put(Message{Account: from, Kind: envelope.KindText, Body: []byte(text), State: Received})
}

func (h *hooked) wants(want ...string) {
	h.t.Helper()
	slices.Sort(h.ran)
	slices.Sort(want)
	if !slices.Equal(h.ran, want) {
		h.t.Errorf("ran\n%s\nwant\n%s", strings.Join(h.ran, "\n"), strings.Join(want, "\n"))
	}
	h.ran = nil
}

func TestHooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{t: t, engine: newTongue(t), shelf: &memoryShelf{}, takes: time.Second}
		bob, ann := h.contact("bob"), h.contact("ann")
		h.text(bob, "before")
		all := []Hook{
			{Exec: []string{"any"}},
			{On: []string{EventMessage, EventPresence}, With: []string{"ann"}, Exec: []string{"ann"}},
			{On: []string{EventFile, EventContact}, Exec: []string{"rest"}},
		}
		h.during(h.hooks(all...), func() {
			h.text(bob, "one")
			h.text(ann, "two")
			h.engine.put(Message{Account: bob, Out: true, Kind: envelope.KindText, Body: []byte("ours"), State: Queued})
			h.mu.Lock()
			h.online = []key.Public{ann}
			h.mu.Unlock()
			h.engine.mu.Lock()
			h.engine.files = []File{{ID: MessageID{1}, Account: bob, State: FileOffered}}
			h.engine.mu.Unlock()
		})
		h.wants("any message bob one", "any message ann two", "ann message ann two", "ann presence ann true", "rest file bob offered")
		// What came while nobody ran them comes at the next start, once.
		h.text(bob, "three")
		h.during(h.hooks(all...), func() {
			h.engine.Book(func(b *Book, now time.Time) error { return b.Block(bob, now) })
		})
		h.during(h.hooks(all...), func() {})
		// ann is there from the start of each run on, and each run says so.
		h.wants("any message bob three", "rest contact bob blocked", "ann presence ann true", "ann presence ann true")
	})
}

// TestHooksBounded: a flood runs four at a time, loses no message, and a hook that hangs is ended.
func TestHooksBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &hooked{t: t, engine: newTongue(t), shelf: &memoryShelf{}, takes: time.Second}
		bob := h.contact("bob")
		h.during(h.hooks(Hook{Exec: []string{"x"}}), func() {
			for i := range 500 {
				h.text(bob, fmt.Sprint(i))
			}
		})
		if len(h.ran) != 500 || h.most > hooksAtOnce {
			t.Errorf("%d ran, %d at once", len(h.ran), h.most)
		}
		h.ran, h.takes = nil, time.Hour
		hooks := h.hooks(Hook{Exec: []string{"x"}, Time: time.Second})
		h.during(hooks, func() { h.text(bob, "hang") })
		if _, failed := hooks.Counters(); failed != 1 || len(h.ran) != 0 {
			t.Errorf("%d failed, %q ran", failed, h.ran)
		}
	})
}

func TestHookValidate(t *testing.T) {
	t.Parallel()
	for _, bad := range []Hook{
		{},
		{Exec: []string{"a"}, Post: "https://x"},
		{On: []string{"everything"}, Exec: []string{"a"}},
		{Post: "ftp://x"},
		{Exec: []string{"a"}, Time: time.Hour},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v", bad)
		}
	}
	_, err := NewHooks(HooksConfig{Hooks: []Hook{{Post: "https://x"}}})
	if !errors.Is(err, ErrNoHTTP) {
		t.Error(err)
	}
}

func TestPresence(t *testing.T) {
	t.Parallel()
	p := NewPresence()
	bob := newKey(t)
	at := start()
	look := func() (here, news bool) {
		n := p.Look([]key.Public{bob}, at)
		here, news = n[bob]
		return here, news
	}
	if _, news := look(); news {
		t.Error("nobody came")
	}
	p.Update(nil, map[key.Public]time.Time{bob: at}, at)
	if here, _ := look(); !here {
		t.Error("heard, and not here")
	}
	at = at.Add(awayAfter)
	if here, news := look(); here || !news {
		t.Error("silent, and not gone")
	}
	p.Update([]key.Public{bob, newKey(t)}, nil, at)
	if here, _ := look(); !here {
		t.Error("shown by the network, and not here")
	}
	at = at.Add(time.Hour)
	p.Update([]key.Public{bob}, nil, at)
	if _, news := look(); news {
		t.Error("came twice")
	}
	if on, seen := p.Of(bob); !on || !seen.Equal(at) || len(p.seen) != 1 {
		t.Error(on, seen, len(p.seen))
	}
}
