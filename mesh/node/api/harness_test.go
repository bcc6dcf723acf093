package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/node/api"
	"skywire/mesh/stream"
	"skywire/mesh/stream/streamtest"
	"skywire/signal"
)

// fakeNode is a node without a mesh.
type fakeNode struct {
	api.Clusters // nil: not asked
	api.Namer    // nor this
	self         key.Public
	network      key.NetworkID

	mu      sync.Mutex // guards the fields below
	tuns    []app.TUN
	policy  app.Policy
	strange map[key.Public]bool // no members
	tags    map[key.Public][]string

	news     chan string // kinds of events
	records  []api.Record
	services []app.Service
}

var errNoTUN = errors.New("the fake node keeps no devices")

func (f *fakeNode) Info() app.Info {
	return app.Info{Key: f.self, Address: f.network.Address(f.self), Name: "fake", Prefix: f.network.Prefix(), Network: f.network}
}

func (f *fakeNode) Status(context.Context) (api.Status, error) {
	return api.Status{Key: f.self, Name: "fake", Ready: true, Drops: map[string]uint64{}}, nil
}
func (f *fakeNode) Peers(context.Context) ([]api.Peer, error)   { return nil, nil }
func (f *fakeNode) Paths(context.Context) ([]api.Path, error)   { return nil, nil }
func (f *fakeNode) Routes(context.Context) ([]api.Route, error) { return nil, nil }
func (f *fakeNode) Records(context.Context) ([]api.Record, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.records, nil
}

func (f *fakeNode) Services(_ context.Context, typ string) ([]app.Service, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.services != nil {
		return f.services, nil
	}
	return []app.Service{{Name: "there", Type: typ, Key: f.self}}, nil
}

func (f *fakeNode) Resolve(_ context.Context, name string) (key.Public, error) {
	if name == "me" {
		return f.self, nil
	}
	return key.Public{}, signal.Errorf(signal.ErrNotFound, "no node %q", name)
}

func (f *fakeNode) Ping(context.Context, key.Public) (time.Duration, error) {
	return 1500 * time.Microsecond, nil
}

func (f *fakeNode) Trace(_ context.Context, k key.Public) (api.Trace, error) {
	return api.Trace{Hops: []api.Hop{{Key: k}}}, nil
}

func (f *fakeNode) Events(ctx context.Context, p api.EventsParams) (api.Events, error) {
	if p.After >= 3 && p.WaitS > 0 {
		select {
		case kind := <-f.news:
			return api.Events{Events: []api.Event{{Seq: p.After + 1, Kind: kind}}, Next: p.After + 1}, nil
		case <-ctx.Done():
			return api.Events{}, ctx.Err()
		}
	}
	return api.Events{Events: []api.Event{}, Next: 3}, nil
}

func (f *fakeNode) Why(_ context.Context, k key.Public) (api.Why, error) {
	return api.Why{Key: k}, nil
}

func (f *fakeNode) Member(k key.Public) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.strange[k]
}

func (f *fakeNode) Whois(_ context.Context, name string) (app.Identity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, err := key.Parse(name)
	return app.Identity{Key: k, Address: f.network.Address(k), Tags: f.tags[k], Member: !f.strange[k]}, err
}

func (f *fakeNode) AttachTUN(_ context.Context, t app.TUN, queues []*os.File) error {
	for _, f := range queues {
		f.Close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tuns = append(f.tuns, t)
	return nil
}
func (f *fakeNode) DetachTUN(context.Context, string) error { return errNoTUN }
func (f *fakeNode) SetPolicy(_ context.Context, p app.Policy) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.policy = p
	return nil
}

func (f *fakeNode) Sockets(context.Context) ([]*os.File, error) {
	var files []*os.File
	for range 2 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return nil, err
		}
		file, err := c.File()
		c.Close()
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}
func (f *fakeNode) PutRecord(context.Context, []byte) error     { return nil }
func (f *fakeNode) Propose(context.Context, api.Proposal) error { return nil }

// box is a node with its socket.
type box struct {
	t        testing.TB
	run      string
	key      key.Public
	node     *fakeNode
	endpoint *stream.Endpoint
	server   *api.Server
	stopAPI  func()
	work     sync.WaitGroup
}

var network = key.Open()

func identity(t testing.TB, i byte) *key.Private {
	t.Helper()
	for salt := range byte(255) {
		if k, err := key.FromSeed([32]byte{i, salt, 'a'}); err == nil {
			return k
		}
	}
	t.Fatal("no seed of that number makes a key")
	return nil
}

func newBox(t testing.TB, net *streamtest.Network, i byte) *box {
	t.Helper()
	id := identity(t, i)
	b := &box{t: t, key: id.Public(), node: &fakeNode{self: id.Public(), network: network, strange: map[key.Public]bool{}, news: make(chan string)}}
	dir, err := os.MkdirTemp("", "api") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b.run = dir
	b.endpoint, err = stream.New(stream.Config{Identity: id, Network: network, Carrier: net.Carrier(b.key)})
	if err != nil {
		t.Fatal(err)
	}
	net.Join(b.key, b.endpoint)
	ctx, cancel := context.WithCancel(context.Background())
	b.work.Go(func() {
		if err := b.endpoint.Run(ctx); err != nil {
			t.Errorf("endpoint: %v", err)
		}
	})
	b.start()
	t.Cleanup(func() {
		b.stopAPI()
		cancel()
		b.work.Wait()
		os.RemoveAll(dir)
	})
	return b
}

// start runs the API, anew if it ran before.
func (b *box) start() {
	b.t.Helper()
	var log *slog.Logger
	if os.Getenv("API_DEBUG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	path := filepath.Join(b.run, app.SocketName)
	s, err := api.New(api.Config{Path: path, Node: b.node, Streams: b.endpoint, Log: log})
	if err != nil {
		b.t.Fatal(err)
	}
	b.server = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Run(ctx); err != nil {
			b.t.Errorf("api: %v", err)
		}
	}()
	b.stopAPI = func() { cancel(); <-done }
	for deadline := time.Now().Add(5 * time.Second); ; {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatal("the socket does not appear")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// client joins a box.
func (b *box) client(t testing.TB) *app.Client {
	t.Helper()
	c, err := app.Dial(context.Background(), b.run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// offer registers services of those names for everyone.
func offer(t testing.TB, c *app.Client, names ...string) {
	t.Helper()
	r := app.Registration{Name: "test", Kind: "test"}
	for _, n := range names {
		r.Services = append(r.Services, app.Service{Name: n, Type: "test", Allow: []string{app.AnyMember}})
	}
	if err := c.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

// eventually waits for real sockets and goroutines, which no bubble can hold.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
