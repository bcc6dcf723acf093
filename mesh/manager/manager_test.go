package manager

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/manager/report"
	"skywire/mesh/route"
	"skywire/mesh/store"
	"skywire/signal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// identities makes n keys in rising order.
func identities(t *testing.T, n int) []*key.Private {
	t.Helper()
	var all []*key.Private
	for len(all) < n {
		p, err := key.Generate()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *key.Private) int {
		if a.Public().Less(b.Public()) {
			return -1
		}
		return 1
	})
	return all
}

var errDown = errors.New("nobody answers")

// world carries streams between the boxes of a test.
type world struct {
	mu       sync.Mutex
	managers map[key.Public]*hostNode
}

func (w *world) dial(from, to key.Public) (io.ReadWriteCloser, error) {
	w.mu.Lock()
	h := w.managers[to]
	w.mu.Unlock()
	if h == nil {
		return nil, errDown
	}
	here, there := net.Pipe()
	select {
	case h.streams <- stream{from, there}:
		return here, nil
	default:
		return nil, errDown
	}
}

type stream struct {
	peer key.Public
	rw   io.ReadWriteCloser
}

// hostNode is the node beside a manager.
type hostNode struct {
	info    app.Info
	streams chan stream
	local   []report.Record

	mu      sync.Mutex
	handler app.CallHandler
}

func (h *hostNode) Self() app.Info                                        { return h.info }
func (h *hostNode) Register(context.Context, app.Registration) error      { return nil }
func (h *hostNode) Status(any) error                                      { return nil }
func (h *hostNode) LocalRecords(context.Context) ([]report.Record, error) { return h.local, nil }
func (h *hostNode) OnCall(c app.CallHandler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handler = c
}

func (h *hostNode) ask(t *testing.T, method string, params, result any) error {
	t.Helper()
	h.mu.Lock()
	handler := h.handler
	h.mu.Unlock()
	raw, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	v, err := handler(t.Context(), method, raw)
	if err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return json.Unmarshal(b, result)
}

func (h *hostNode) AcceptStream(ctx context.Context, _ string) (key.Public, io.ReadWriteCloser, error) {
	select {
	case <-ctx.Done():
		return key.Public{}, nil, ctx.Err()
	case s := <-h.streams:
		return s.peer, s.rw, nil
	}
}

// start runs a manager in the world until the function it returns is called.
func (w *world) start(t *testing.T, id *key.Private, db *store.DB) (*Manager, *hostNode, func()) {
	t.Helper()
	h := &hostNode{
		info:    app.Info{Key: id.Public(), Network: key.Open(), Name: "boss", Address: key.Open().Address(id.Public())},
		streams: make(chan stream, 16),
	}
	m, err := New(Config{Node: h, Log: quiet(), Store: db})
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.managers[id.Public()] = h
	w.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); err != nil {
			t.Errorf("manager: %v", err)
		}
	})
	return m, h, func() {
		w.mu.Lock()
		if w.managers[id.Public()] == h {
			delete(w.managers, id.Public())
		}
		w.mu.Unlock()
		cancel()
		running.Wait()
	}
}

// box is a node that reports.
type box struct {
	w       *world
	id      *key.Private
	network key.NetworkID
	start   time.Time

	mu        sync.Mutex
	db        *route.DB
	proposals []report.Proposal
	rep       *report.Reporter
}

func newBox(t *testing.T, w *world, id *key.Private, network key.NetworkID, managers ...key.Public) *box {
	t.Helper()
	b := &box{w: w, id: id, network: network, start: time.Now()}
	b.db = route.NewDB(route.DBConfig{Network: network, Self: id.Public(), Boot: 1})
	rep, err := report.New(report.Config{Node: b, Network: network, Managers: managers, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	b.rep = rep
	return b
}

func (b *box) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = b.rep.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

// state signs what the box says of itself.
func (b *box) state(name string, links ...route.Link) {
	b.mu.Lock()
	b.db.Originate(time.Since(b.start), &route.Record{Name: name, Links: links, Services: []route.Service{{Name: "vpn", Type: "vpn"}}}, b.id)
	b.mu.Unlock()
	b.rep.OwnChanged()
}

func (b *box) OwnRecord() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.db.Get(b.id.Public()); e != nil {
		return e.Raw
	}
	return nil
}

func (b *box) Digests() (uint64, []route.Digest) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db.Sum(), b.db.Digests(2)
}

func (b *box) Records(keys []key.Public) (all []report.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range keys {
		if e := b.db.Get(k); e != nil {
			all = append(all, report.NewRecord(e, time.Since(b.start)))
		}
	}
	return all
}

func (b *box) PutRecord(from key.Public, r report.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.db.PutAged(time.Since(b.start), r.Raw, from, r.Age())
}

func (b *box) DialService(_ context.Context, to key.Public, service string) (io.ReadWriteCloser, error) {
	if service != report.Service {
		return nil, errDown
	}
	return b.w.dial(b.id.Public(), to)
}

func (b *box) Propose(p report.Proposal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proposals = append(b.proposals, p)
}

func (b *box) told() []report.Proposal {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.proposals)
}

func (b *box) known() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.db.Len()
}

func settle(d time.Duration) {
	time.Sleep(d) // virtual time
	synctest.Wait()
}

// square is a mesh 0-1-3, 0-2-3 of boxes that all report to one manager; links lists what each says.
func square(t *testing.T, w *world, ids []*key.Private, manager key.Public) (boxes []*box, link func(to int, rtt time.Duration) route.Link, stop func()) {
	t.Helper()
	var stops []func()
	for _, id := range ids {
		b := newBox(t, w, id, key.Open(), manager)
		boxes = append(boxes, b)
		stops = append(stops, b.run(t))
	}
	link = func(to int, rtt time.Duration) route.Link {
		return route.Link{Peer: ids[to].Public(), RTT: rtt * time.Millisecond}
	}
	boxes[0].state("a", link(1, 5), link(2, 20))
	boxes[1].state("b", link(0, 5), link(3, 5))
	boxes[2].state("c", link(0, 20), link(3, 20))
	boxes[3].state("d", link(1, 5), link(2, 20))
	return boxes, link, func() {
		for _, s := range stops {
			s()
		}
	}
}

func TestManagerShowsAndProposes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 5)
		w := &world{managers: map[key.Public]*hostNode{}}
		_, host, stopManager := w.start(t, ids[4], nil)
		defer stopManager()
		boxes, link, stop := square(t, w, ids[:4], ids[4].Public())
		defer stop()
		settle(2 * time.Second)

		var nodes []NodeInfo
		if err := host.ask(t, MethodNodes, nil, &nodes); err != nil || len(nodes) != 4 {
			t.Fatalf("nodes %+v, %v", nodes, err)
		}
		for i, n := range nodes {
			if n.Key != ids[i].Public() || !n.Online || !n.Reports || n.Name != string("abcd"[i]) || len(n.Links) != 2 ||
				len(n.Services) != 1 || n.Address != key.Open().Address(n.Key) || n.LastSeen.IsZero() {
				t.Errorf("node %d: %+v", i, n)
			}
		}
		var links []LinkInfo
		if err := host.ask(t, MethodLinks, nil, &links); err != nil || len(links) != 4 {
			t.Errorf("links %+v, %v", links, err)
		}
		var rest []LinkInfo
		if err := host.ask(t, MethodLinks, LinksParams{AfterA: links[1].A, AfterB: links[1].B}, &rest); err != nil || len(rest) != 2 || rest[0] != links[2] {
			t.Errorf("second page %+v, %v", rest, err)
		}
		var paths []PathInfo
		if err := host.ask(t, MethodPath, PathParams{From: "a", To: ids[3].Public().String()}, &paths); err != nil || len(paths) != 2 {
			t.Fatalf("paths %+v, %v", paths, err)
		}
		if got := strings.Join(paths[0].Names, ""); got != "abd" || paths[0].RTT != 10 || paths[0].Cost >= paths[1].Cost {
			t.Errorf("best path %+v", paths[0])
		}

		// A wish is answered at once, drift is not told, a broken link is.
		boxes[0].rep.Want(ids[3].Public(), 2)
		settle(time.Second)
		if told := boxes[0].told(); len(told) != 1 || len(told[0].Paths) != 2 || told[0].Manager != ids[4].Public() || told[0].LifeS <= 0 {
			t.Fatalf("told %+v", told)
		}
		boxes[1].state("b", link(0, 7), link(3, 7))
		settle(2 * time.Second)
		if told := boxes[0].told(); len(told) != 1 {
			t.Errorf("drift was told: %+v", told[1:])
		}
		boxes[1].state("b", link(0, 7))
		settle(2 * time.Second)
		told := boxes[0].told()
		if len(told) != 2 || len(told[1].Paths) != 1 || told[1].Paths[0].Hops[1] != ids[2].Public() || told[1].Number <= told[0].Number {
			t.Errorf("told %+v", told)
		}
		// What is told runs out; it is told again in time.
		settle(proposalLife)
		if told = boxes[0].told(); len(told) < 3 || len(told) > 4 || !slices.Equal(told[2].Paths[0].Hops, told[1].Paths[0].Hops) {
			t.Errorf("told %+v", told)
		}
		renewed := len(told)
		boxes[0].rep.Want(ids[3].Public(), 0)
		settle(time.Second)
		boxes[1].state("b", link(0, 7), link(3, 5))
		settle(2 * time.Second)
		if told := boxes[0].told(); len(told) != renewed {
			t.Errorf("told after the wish ended: %+v", told[renewed:])
		}
		// Every box has learnt the records of all.
		settle(time.Minute)
		for i, b := range boxes {
			if b.known() != 4 {
				t.Errorf("box %d knows %d records", i, b.known())
			}
		}
	})
}

func TestNodesComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 5)
		w := &world{managers: map[key.Public]*hostNode{}}
		m, _, stopManager := w.start(t, ids[4], nil)
		defer stopManager()
		boxes, link, stop := square(t, w, ids[:4], ids[4].Public())
		defer stop()
		settle(time.Second)

		// A fifth node reports nowhere; its record comes through its neighbour.
		silent := identities(t, 1)[0]
		raw := route.Sign(&route.Record{Number: 1, Name: "s", Links: []route.Link{link(0, 1)}}, silent, key.Open())
		boxes[0].PutRecord(silent.Public(), report.Record{Raw: raw})
		silentLink := route.Link{Peer: silent.Public(), RTT: time.Millisecond}
		boxes[0].state("a", link(1, 5), link(2, 20), silentLink)
		settle(time.Minute)
		find := func(k key.Public) NodeInfo {
			t.Helper()
			all := m.Nodes(NodesParams{})
			i := slices.IndexFunc(all, func(n NodeInfo) bool { return n.Key == k })
			if i < 0 {
				t.Fatalf("no node %s among %d", k.Short(), len(all))
			}
			return all[i]
		}
		if n := find(silent.Public()); !n.Online || n.Reports {
			t.Errorf("silent node: %+v", n)
		}
		// Its neighbour loses it: nobody vouches for it any more.
		boxes[0].state("a", link(1, 5), link(2, 20))
		settle(2 * time.Second)
		gone := time.Now()
		settle(time.Minute)
		if n := find(silent.Public()); n.Online || n.LastSeen.After(gone) {
			t.Errorf("silent node, lost: %+v", n)
		}
		settle(2 * time.Hour)
		if all := m.Nodes(NodesParams{}); slices.ContainsFunc(all, func(n NodeInfo) bool { return n.Key == silent.Public() }) {
			t.Error("a node unheard for two hours is still listed")
		}
	})
}

func TestDeadManagerHurtsNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 6)
		w := &world{managers: map[key.Public]*hostNode{}}
		db, err := store.Open(filepath.Join(t.TempDir(), "manager.db"), store.Options{NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		_, _, kill := w.start(t, ids[4], db)
		b := newBox(t, w, ids[0], key.Open(), ids[4].Public(), ids[5].Public())
		defer b.run(t)()
		b.state("a")
		settle(time.Second)
		status := b.rep.Status()
		if status[0].State != report.Registered || status[1].State != report.Unreachable || !strings.Contains(status[1].Reason, errDown.Error()) {
			t.Errorf("status %+v", status)
		}
		if p, ok := b.rep.Preferred(); !ok || p.Manager != ids[4].Public() {
			t.Errorf("preferred %+v", p)
		}
		kill()
		settle(time.Minute)
		if s := b.rep.Status()[0]; s.State != report.Unreachable || s.Reason == "" {
			t.Errorf("status %+v", s)
		}
		// The other one starts; the first comes back with what it had stored.
		_, _, stop2 := w.start(t, ids[5], nil)
		defer stop2()
		m, _, stop1 := w.start(t, ids[4], db)
		defer stop1()
		synctest.Wait()
		if all := m.Nodes(NodesParams{}); len(all) != 1 || all[0].Name != "a" || all[0].Online {
			t.Errorf("restored %+v", all)
		}
		settle(50 * time.Second)
		for _, s := range b.rep.Status() {
			if s.State != report.Registered {
				t.Errorf("status %+v", s)
			}
		}
		if all := m.Nodes(NodesParams{}); len(all) != 1 || !all[0].Online {
			t.Errorf("back %+v", all)
		}
	})
}

// TestSilentManager: a manager that takes the stream and never answers is left after the timeout.
func TestSilentManager(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 2)
		w := &world{managers: map[key.Public]*hostNode{ids[1].Public(): {streams: make(chan stream, 16)}}}
		b := newBox(t, w, ids[0], key.Open(), ids[1].Public())
		stop := b.run(t)
		settle(time.Second)
		if s := b.rep.Status()[0]; s.State != report.Connecting {
			t.Errorf("status %+v", s)
		}
		settle(time.Minute)
		if s := b.rep.Status()[0]; s.State != report.Unreachable {
			t.Errorf("status %+v", s)
		}
		stop()
	})
}

func TestStrangersAtTheManager(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ids := identities(t, 4)
		w := &world{managers: map[key.Public]*hostNode{}}
		m, host, stop := w.start(t, ids[3], nil)
		defer stop()

		// Another network.
		other := newBox(t, w, ids[0], key.Cluster(ids[0].Public()), ids[3].Public())
		defer other.run(t)()
		settle(2 * time.Second)
		if s := other.rep.Status()[0]; s.State != report.Unreachable || !strings.Contains(s.Reason, "network") {
			t.Errorf("other network: %+v", s)
		}
		// A manager that is not who was asked for.
		w.mu.Lock()
		w.managers[ids[1].Public()] = host
		w.mu.Unlock()
		cheated := newBox(t, w, ids[2], key.Open(), ids[1].Public())
		stopCheated := cheated.run(t)
		settle(2 * time.Second)
		if s := cheated.rep.Status()[0]; s.State != report.Unreachable || !strings.Contains(s.Reason, "says that it is") {
			t.Errorf("impostor: %+v", s)
		}
		stopCheated()
		// Requests before the greeting, nonsense after it.
		rw, err := w.dial(ids[2].Public(), ids[3].Public())
		if err != nil {
			t.Fatal(err)
		}
		conn := signal.NewConn(rw, nil)
		var running sync.WaitGroup
		running.Go(func() { _ = conn.Run(t.Context()) })
		if err := conn.Call(t.Context(), report.MethodGet, report.Get{}, nil); !errors.Is(err, signal.ErrRefused) {
			t.Errorf("no greeting: %v", err)
		}
		if err := conn.Call(t.Context(), report.MethodHello, report.Hello{Version: 1, Network: key.Open()}, nil); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			method string
			params any
			want   error
		}{
			"forged record": {report.MethodPut, report.Record{Raw: make([]byte, 200)}, signal.ErrUsage},
			"bad digest":    {report.MethodGet, report.Get{Digest: []byte{1}}, signal.ErrUsage},
			"path to me":    {report.MethodWant, report.Want{To: ids[2].Public(), K: 2}, signal.ErrUsage},
			"many paths":    {report.MethodWant, report.Want{To: ids[0].Public(), K: 1000}, signal.ErrUsage},
			"no method":     {"manager.nodes", nil, signal.ErrUnknownMethod},
		} {
			if err := conn.Call(t.Context(), c.method, c.params, nil); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		// Wishes are bounded.
		for i := range maxWants {
			k := identities(t, 1)[0].Public()
			if err := conn.Call(t.Context(), report.MethodWant, report.Want{To: k, K: 1}, nil); err != nil {
				t.Fatalf("wish %d: %v", i, err)
			}
		}
		if err := conn.Call(t.Context(), report.MethodWant, report.Want{To: ids[0].Public(), K: 1}, nil); !errors.Is(err, signal.ErrBusy) {
			t.Errorf("one wish too many: %v", err)
		}
		// A newer stream of the same node takes the place of the older one.
		again, err := w.dial(ids[2].Public(), ids[3].Public())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case <-conn.Done():
		default:
			t.Error("the older stream is still there")
		}
		if m.ID().Reports != 1 {
			t.Errorf("id %+v", m.ID())
		}
		again.Close()
		running.Wait()
		// Who says nothing loses the stream.
		mute, err := w.dial(ids[2].Public(), ids[3].Public())
		if err != nil {
			t.Fatal(err)
		}
		settle(time.Second)
		if m.ID().Reports != 1 {
			t.Errorf("id %+v", m.ID())
		}
		if _, err := mute.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("silence: %v", err)
		}
	})
}

func TestWhoIsMeant(t *testing.T) {
	t.Parallel()
	ids := identities(t, 4)
	h := &hostNode{info: app.Info{Key: ids[3].Public(), Network: key.Open()}}
	m, err := New(Config{Node: h, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"kitchen", "attic", "attic"} {
		m.put(key.Public{9}, report.Record{Raw: route.Sign(&route.Record{Number: 1, Name: name}, ids[i], key.Open())})
	}
	for text, want := range map[string]struct {
		k   key.Public
		err error
	}{
		"kitchen": {ids[0].Public(), nil}, "Kitchen.mesh": {ids[0].Public(), nil},
		ids[1].Public().String():                     {ids[1].Public(), nil},
		key.Open().Address(ids[2].Public()).String(): {ids[2].Public(), nil},
		"attic":                  {key.Public{}, signal.ErrUsage},
		"cellar":                 {key.Public{}, signal.ErrNotFound},
		"":                       {key.Public{}, signal.ErrNotFound},
		ids[3].Public().String(): {key.Public{}, signal.ErrNotFound},
	} {
		got, err := m.resolve(m.records(), text)
		if got != want.k || (want.err == nil) != (err == nil) || want.err != nil && !errors.Is(err, want.err) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	if _, err := m.Path(PathParams{From: "kitchen", To: ids[1].Public().String()}); !errors.Is(err, signal.ErrUnreachable) {
		t.Errorf("no path: %v", err)
	}
	if _, err := m.call(t.Context(), "manager.invite", nil); !errors.Is(err, signal.ErrUnknownMethod) {
		t.Errorf("unknown method: %v", err)
	}
}
