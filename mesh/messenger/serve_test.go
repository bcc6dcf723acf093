package messenger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/mesh/messenger/envelope"
	"skywire/signal"
)

// tongue is a talker without a network: it keeps what is sent, and lets a test put in what comes.
type tongue struct {
	self key.Public

	mu      sync.Mutex // guards the fields below
	book    *Book
	all     []Message
	words   []key.Public
	files   []File
	seen    map[key.Public]time.Time
	changed chan struct{}
}

func newTongue(t *testing.T) *tongue {
	k := newKey(t)
	return &tongue{self: k, book: NewBook(k, Policy{}), changed: make(chan struct{}), seen: map[key.Public]time.Time{}}
}

func (g *tongue) put(m Message) Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	m.Cursor = uint64(len(g.all) + 1)
	if m.ID == (MessageID{}) {
		m.ID = MessageID{byte(m.Cursor), byte(m.Cursor >> 8), 7}
	}
	if m.Time.IsZero() {
		m.Time = start()
	}
	g.all = append(g.all, m)
	close(g.changed)
	g.changed = make(chan struct{})
	return m
}

func (g *tongue) Send(_ context.Context, o Outgoing) (MessageID, error) {
	if o.Quiet {
		return MessageID{9, 9}, nil
	}
	return g.put(Message{Account: o.To, Out: true, Kind: o.Kind, Body: o.Body, State: Queued}).ID, nil
}

func (g *tongue) Cancel(id MessageID) error {
	return g.on(id, func(m *Message) { m.State, m.Reason = Failed, "canceled" })
}

func (g *tongue) on(id MessageID, do func(*Message)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.all {
		if g.all[i].ID == id {
			do(&g.all[i])
			return nil
		}
	}
	return ErrNoMessage
}

func (g *tongue) Message(id MessageID) (found Message, err error) {
	return found, g.on(id, func(m *Message) { found = *m })
}

func (g *tongue) Messages(_ context.Context, q Query) (page []Message, _ error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, m := range g.all {
		if m.Cursor > q.After && (q.Before == 0 || m.Cursor < q.Before) && (q.With == (key.Public{}) || m.Account == q.With) && (!q.Unread || !m.Out && !m.Seen) {
			page = append(page, m)
		}
	}
	if limit := max(1, q.Limit); len(page) > limit && q.Last {
		return page[len(page)-limit:], nil
	} else if len(page) > limit {
		return page[:limit], nil
	}
	return page, nil
}

func (g *tongue) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

func (g *tongue) Wait(ctx context.Context, id MessageID, s State) (Message, error) {
	m, err := g.Message(id)
	if err == nil && !m.State.reaches(s) && m.State != Failed {
		<-ctx.Done()
		return m, ctx.Err()
	}
	return m, err
}

func (g *tongue) MarkRead(ids []MessageID) error {
	for _, id := range ids {
		if err := g.on(id, func(m *Message) { m.Seen = true }); err != nil {
			return err
		}
	}
	return nil
}

func (g *tongue) Import(_ context.Context, all []Message) (int, error) {
	for _, m := range all {
		g.put(m)
	}
	return len(all), nil
}

func (g *tongue) Book(f func(*Book, time.Time) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return f(g.book, start())
}

func (g *tongue) Word(account key.Public, _ envelope.Place, _ []byte) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.words = append(g.words, account)
	return nil
}

func (g *tongue) AddLink(l *envelope.Link, name, hello string) (Contact, error) {
	var a Added
	err := g.Book(func(b *Book, now time.Time) (err error) {
		a, err = b.Add(l.Account, l.Token, l.Text(), name, hello, "me", now)
		return err
	})
	return a.Contact, err
}

func (g *tongue) Invite(name string, uses int, life time.Duration) (*envelope.Link, error) {
	l := &envelope.Link{Account: g.self}
	return l, g.Book(func(b *Book, now time.Time) error {
		t, err := b.Invite(name, uses, life, now)
		if err == nil {
			l.Token = t.Secret
		}
		return err
	})
}

func (g *tongue) SendFile(_ context.Context, to key.Public, path string) (File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return File{}, err
	}
	f := File{ID: MessageID{1, 2, 3, byte(len(g.files))}, Account: to, Out: true, Name: filepath.Base(path), Size: st.Size(), State: FileOffered}
	g.files = append(g.files, f)
	return f, nil
}
func (g *tongue) AcceptFile(MessageID) error { return nil }
func (g *tongue) RefuseFile(MessageID) error { return nil }
func (g *tongue) Files() ([]File, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.files), nil
}

func (g *tongue) Status() Status { return Status{Account: g.self, Device: g.self} }

func (g *tongue) Devices(key.Public) []Device           { return []Device{{Account: g.self, Device: g.self}} }
func (g *tongue) Meet(key.Public, envelope.Place) error { return nil }
func (g *tongue) Seen() map[key.Public]time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen
}

// socket is a client of a Server over a real unix socket.
type socket struct {
	t *testing.T
	*signal.Conn
	engine *tongue
	calls  *Calls
	ledger *Statements
	notes  chan []Message
}

func newSocket(t *testing.T) *socket {
	t.Helper()
	s := &socket{t: t, engine: newTongue(t), notes: make(chan []Message, 100)}
	shelf := &memoryShelf{}
	audit, err := OpenAudit(shelf)
	if err != nil {
		t.Fatal(err)
	}
	if s.calls, err = OpenCalls(shelf); err != nil {
		t.Fatal(err)
	}
	if s.ledger, err = OpenStatements(shelf, [32]byte{1}, 1<<20); err != nil {
		t.Fatal(err)
	}
	run := t.TempDir()
	l, err := Listen(run)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	srv := NewServer(ServerConfig{
		Engine: s.engine, Account: s.engine.self, Claim: "me", Place: func() envelope.Place { return envelope.Place{} },
		Resolve: func(_ context.Context, word string) (key.Public, error) {
			return key.Public{}, signal.Errorf(signal.ErrNotFound, "the node knows no %q", word)
		},
		Audit: audit, Calls: s.calls, Ledger: s.ledger, Log: slog.New(slog.DiscardHandler),
		More: map[string]Method{"peer.list": func(context.Context, json.RawMessage) (any, error) { return []int{}, nil }},
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	s.Conn, err = signal.Dial(ctx, filepath.Join(run, SocketName), func(_ context.Context, r *signal.Request) (any, error) {
		var page []json.RawMessage
		if err := json.Unmarshal(r.Params, &page); err != nil {
			return nil, err
		}
		var all []Message
		for _, raw := range page {
			m, err := ParseMessage(raw)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		}
		s.notes <- all
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); cancel(); wg.Wait() })
	return s
}

// ask calls a method; name is that of the error that it wants, or "".
func (s *socket) ask(name, method string, params, result any) {
	s.t.Helper()
	err := s.Call(s.t.Context(), method, params, result)
	var e *signal.Error
	if errors.As(err, &e) && e.Name == name || err == nil && name == "" {
		return
	}
	s.t.Errorf("%s %+v: %v, want %q", method, params, err, name)
}

func TestSocketMessages(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	bob := newKey(t)
	s.ask("not_found", "msg.send", MsgParams{To: "bob", Text: "x"}, nil)
	s.ask("not_found", "msg.send", MsgParams{To: bob.String(), Text: "x"}, nil)
	s.ask("usage", "msg.send", map[string]string{"too": "x"}, nil)
	s.ask("unknown_method", "msg.nonsense", nil, nil)
	var c ContactInfo
	s.ask("", "contact.add", ContactParams{Who: bob.String(), Name: "bob"}, &c)
	if c.Standing != "asked" || c.Name != "bob" {
		t.Errorf("%+v", c)
	}
	s.ask("usage", "msg.send", MsgParams{To: "bob"}, nil)
	var sent IDResult
	s.ask("", "msg.send", MsgParams{To: "bob", Text: "hi\nthere"}, &sent)
	s.engine.put(Message{Account: bob, Kind: envelope.KindText, Body: []byte("hello"), State: Received})
	var page []Message
	var raw []json.RawMessage
	s.ask("", "msg.list", MsgParams{With: "bob", Limit: 10}, &raw)
	for _, r := range raw {
		m, err := ParseMessage(r)
		if err != nil {
			t.Fatal(err)
		}
		page = append(page, m)
	}
	if len(page) != 2 || string(page[0].Body) != "hi\nthere" || string(page[1].Body) != "hello" || page[0].ID.String() != sent.ID {
		t.Errorf("%+v", page)
	}
	var n CountResult
	s.ask("", "msg.read", MsgParams{With: "bob"}, &n)
	if n.Count != 1 {
		t.Error(n)
	}
	s.ask("", "msg.read", MsgParams{With: "bob"}, &n)
	if n.Count != 0 {
		t.Error(n)
	}
	var m struct{ State, Text string }
	s.ask("", "msg.show", MsgParams{ID: sent.ID[:8]}, &m)
	if m.State != "queued" || m.Text != "hi\nthere" {
		t.Errorf("%+v", m)
	}
	s.ask("not_found", "msg.show", MsgParams{ID: "ffffffff"}, nil)
	s.ask("not_found", "msg.show", MsgParams{ID: ""}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Call(ctx, "msg.wait", MsgParams{ID: sent.ID, State: Delivered}, nil); err == nil {
		t.Error("a message that is queued counts as delivered")
	}
	s.ask("", "msg.cancel", MsgParams{ID: sent.ID}, &m)
	if m.State != "failed" {
		t.Errorf("%+v", m)
	}
	s.ask("", "peer.list", nil, nil)
}

// TestSocketTail: from a cursor on nothing is missed and nothing comes twice, however fast it comes.
func TestSocketTail(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	bob := newKey(t)
	big := strings.Repeat("x", 40<<10)
	for i := range 30 {
		s.engine.put(Message{Account: bob, Kind: envelope.KindText, Body: []byte(fmt.Sprint(i, " ", big)), State: Received})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Call(ctx, "msg.tail", MsgParams{After: 10, Follow: true}, nil) })
	next := uint64(11)
	for next <= 50 {
		select {
		case page := <-s.notes:
			for _, m := range page {
				if m.Cursor != next {
					t.Fatalf("cursor %d, want %d", m.Cursor, next)
				}
				next++
			}
		case <-t.Context().Done():
			t.Fatal("nothing more comes after ", next)
		}
		if next == 31 {
			for range 20 {
				s.engine.put(Message{Account: bob, Kind: envelope.KindText, Body: []byte("y"), State: Received})
			}
		}
	}
	cancel()
	wg.Wait()
}

func TestSocketContacts(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	var inv Invited
	s.ask("", "contact.invite", ContactParams{Name: "carl"}, &inv)
	l, err := envelope.ParseLink(inv.Link)
	if err != nil || l.Token == (envelope.Token{}) || l.Account != s.engine.self {
		t.Fatal(l, err)
	}
	s.ask("usage", "contact.add", ContactParams{Who: inv.Link}, nil) // our own
	s.ask("usage", "contact.add", ContactParams{Who: inv.Link[:60]}, nil)
	bob, eve := newKey(t), newKey(t)
	s.ask("", "contact.add", ContactParams{Who: (&envelope.Link{Account: bob}).Text(), Name: "bob"}, nil)
	s.ask("refused", "contact.allow", ContactParams{Who: "bob", Scope: "read"}, nil)
	s.engine.Book(func(b *Book, now time.Time) error {
		_, err := b.Word(bob, word{op: opAccept, name: "Bob B."}.append(nil), "", now)
		return err
	})
	s.ask("", "contact.allow", ContactParams{Who: "bob", Scope: "read"}, nil)
	s.ask("usage", "contact.allow", ContactParams{Who: "bob", Scope: "root"}, nil)
	var c ContactInfo
	s.ask("", "contact.verify", ContactParams{Who: "bob"}, &c)
	if c.Verified || c.Safety != envelope.SafetyNumber(bob, s.engine.self) || c.Claims != "Bob B." || c.Control != ScopeRead {
		t.Errorf("%+v", c)
	}
	s.ask("refused", "contact.verify", ContactParams{Who: "bob", Number: "00000" + c.Safety[5:]}, nil)
	s.ask("", "contact.verify", ContactParams{Who: "bob", Number: strings.ReplaceAll(c.Safety, " ", "")}, &c)
	if !c.Verified {
		t.Error("compared, and not verified")
	}
	// Another key wants the name.
	s.ask("refused", "contact.add", ContactParams{Who: eve.String(), Name: "bob"}, nil)
	s.ask("", "contact.show", ContactParams{Who: "bob"}, &c)
	if c.Standing != Changed || c.NewAccount == nil || *c.NewAccount != eve || c.Safety != envelope.SafetyNumber(eve, s.engine.self) {
		t.Errorf("%+v", c)
	}
	s.ask("refused", "msg.send", MsgParams{To: eve.String(), Text: "x"}, nil)
	s.ask("refused", "contact.confirm", ContactParams{Who: "bob"}, nil)
	s.ask("refused", "contact.confirm", ContactParams{Who: "bob", Number: envelope.SafetyNumber(bob, s.engine.self)}, nil)
	s.ask("refused", "contact.verify", ContactParams{Who: "bob", Number: c.Safety}, nil)
	var after ContactInfo
	s.ask("", "contact.confirm", ContactParams{Who: "bob", Number: c.Safety}, &after)
	if c := after; c.Account != eve || c.Name != "bob" || c.Control != ScopeNone {
		t.Errorf("%+v", c)
	}
	s.ask("", "contact.block", ContactParams{Who: "bob"}, &c)
	s.ask("refused", "msg.send", MsgParams{To: "bob", Text: "x"}, nil)
	s.ask("", "contact.unblock", ContactParams{Who: "bob"}, &c)
	s.ask("", "contact.rename", ContactParams{Who: "bob", Name: "robert"}, &c)
	s.ask("not_found", "contact.show", ContactParams{Who: "bob"}, nil)
	var list []ContactInfo
	s.ask("", "contact.list", nil, &list)
	if len(list) != 1 || list[0].Name != "robert" {
		t.Errorf("%+v", list)
	}
	var raw []json.RawMessage
	s.ask("", "contact.list", nil, &raw)
	s.ask("", "contact.remove", ContactParams{Who: "robert"}, nil)
	s.ask("not_found", "contact.remove", ContactParams{Who: "robert"}, nil)
	// What was exported comes back, and is there once.
	for want := 1; want >= 0; want-- {
		var in ImportResult
		s.ask("", "messenger.import", ImportParams{Contacts: raw}, &in)
		if in.Contacts != want {
			t.Errorf("%+v", in)
		}
	}
	s.ask("usage", "messenger.import", ImportParams{Contacts: []json.RawMessage{[]byte("{}"), []byte("1")}}, nil)
	var d DaemonStatus
	s.ask("", "messenger.status", nil, &d)
	var devices []DeviceInfo
	s.ask("", "messenger.devices", nil, &devices)
	if d.Account != s.engine.self || len(devices) != 1 || !devices[0].Self {
		t.Errorf("%+v %+v", d, devices)
	}
}

// TestSocketCalls: an answer counts only from whom was asked, and once.
func TestSocketCalls(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	bob, eve := newKey(t), newKey(t)
	s.ask("", "contact.add", ContactParams{Who: bob.String(), Name: "bob"}, nil)
	s.ask("usage", "ctl.call", CallParams{To: "bob"}, nil)
	var o CallOut
	s.ask("", "ctl.call", CallParams{To: "bob", Verb: "status"}, &o)
	body := func(text string) []byte { return []byte(fmt.Sprintf(`{"call":%q,"result":%q}`, o.ID, text)) }
	for _, r := range []struct {
		from key.Public
		body []byte
	}{{eve, body("false")}, {bob, []byte("{")}, {bob, []byte(`{"call":"00"}`)}, {bob, body("true")}, {bob, body("again")}} {
		if err := s.calls.Answered(r.from, r.body, start()); err != nil {
			t.Error(err)
		}
	}
	s.ask("", "ctl.show", CallParams{ID: o.ID, Wait: true}, &o)
	if string(o.Result) != `"true"` || o.Done.IsZero() {
		t.Errorf("%+v", o)
	}
	s.ask("not_found", "ctl.show", CallParams{ID: "x"}, nil)
	s.ask("usage", "file.send", FileParams{To: "bob", Path: "relative"}, nil)
	s.ask("not_found", "file.accept", FileParams{ID: "123456"}, nil)
}

func TestSocketStatements(t *testing.T) {
	t.Parallel()
	s := newSocket(t)
	bob := newKey(t)
	s.ask("", "contact.add", ContactParams{Who: bob.String(), Name: "bob"}, nil)
	it := &envelope.Item{Kind: envelope.KindStatement, Body: []byte{0, 27, '['}}
	if _, err := s.ledger.Take(Sender{Account: bob, Device: bob}, it, start()); err != nil {
		t.Fatal(err)
	}
	var all []StatementInfo
	s.ask("", "statement.list", nil, &all)
	if len(all) != 1 || all[0].With != "bob" || all[0].Bytes != 3 || all[0].Body != nil {
		t.Fatalf("%+v", all)
	}
	var one StatementInfo
	s.ask("", "statement.show", StatementParams{ID: all[0].ID[:8]}, &one)
	if string(one.Body) != string(it.Body) || one.ID != all[0].ID {
		t.Errorf("%+v", one)
	}
	s.ask("not_found", "statement.drop", StatementParams{}, nil)
	s.ask("", "statement.drop", StatementParams{ID: one.ID}, nil)
	s.ask("", "statement.list", nil, &all)
	if len(all) != 0 {
		t.Errorf("dropped, and listed: %+v", all)
	}
}

func FuzzMessage(f *testing.F) {
	raw, _ := json.Marshal(Message{Cursor: 1, Kind: envelope.KindText, Time: start(), Body: []byte("x"), State: Received})
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			return
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Skip() // a time that JSON does not take
		}
		if again, err := ParseMessage(raw); err != nil || again.ID != m.ID || again.State != m.State {
			t.Fatalf("%s became %s: %v", b, raw, err)
		}
	})
}
