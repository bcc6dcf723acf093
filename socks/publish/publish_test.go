package publish_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/signal"
	"skywire/socks/publish"
)

// soon bounds what should take a moment on a loaded machine.
const soon = 20 * time.Second

// fakeNode is a mesh in which every service is on this box: a stream that is dialled is joined with what it leads to.
type fakeNode struct {
	self key.Public

	mu         sync.Mutex // guards the fields below
	registered []app.Registration
	services   map[string]string // name → TCP address
	offered    []app.Service
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	k, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return &fakeNode{self: k.Public(), services: map[string]string{}}
}

func (f *fakeNode) Self() app.Info {
	return app.Info{Key: f.self, Address: key.Open().Address(f.self), Prefix: key.Open().Prefix(), Network: key.Open()}
}

func (f *fakeNode) Register(_ context.Context, r app.Registration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registered = append(f.registered, r)
	return nil
}

func (f *fakeNode) Accept(ctx context.Context, _ string) (*app.Incoming, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fakeNode) Whois(context.Context, string) (app.Identity, error) {
	return app.Identity{}, signal.ErrNotFound
}

func (f *fakeNode) MembersChanged(ctx context.Context, after uint64) (uint64, bool, error) {
	<-ctx.Done()
	return after, false, ctx.Err()
}

func (f *fakeNode) Status(any) error { return nil }

func (f *fakeNode) Lookup(_ context.Context, name string) (app.Names, error) {
	if name != "bob" && name != f.self.String() {
		return app.Names{}, signal.ErrNotFound
	}
	return app.Names{Key: f.self, Services: f.offered}, nil
}

func (f *fakeNode) LookupAddr(_ context.Context, a netip.Addr) (app.Names, error) {
	if a != key.Open().Address(f.self) {
		return app.Names{}, signal.ErrNotFound
	}
	return app.Names{Key: f.self, Services: f.offered}, nil
}

func (f *fakeNode) Resolve(_ context.Context, name string) (key.Public, error) {
	if name != "bob" {
		return key.Public{}, signal.ErrNotFound
	}
	return f.self, nil
}

func (f *fakeNode) DialHandOverSocket(_ context.Context, _ key.Public, service string, _ []byte, prepare func([]byte) (app.Socket, error)) (app.Traffic, error) {
	f.mu.Lock()
	addr := f.services[service]
	f.mu.Unlock()
	if addr == "" {
		return app.Traffic{}, signal.Errorf(signal.ErrRefused, "not you")
	}
	there, err := net.Dial("tcp", addr)
	if err != nil {
		return app.Traffic{}, err
	}
	defer there.Close()
	s, err := prepare(nil)
	if err != nil {
		return app.Traffic{}, err
	}
	here := s.(net.Conn)
	defer here.Close()
	go func() {
		io.Copy(there, here)
		there.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(here, there)
	return app.Traffic{Received: uint64(n)}, err
}

func (f *fakeNode) DialPackets(context.Context, key.Public, string, []byte) (*app.PacketConn, error) {
	return nil, signal.Errorf(signal.ErrRefused, "not you")
}

// echo is a TCP server on loopback.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// running runs something until the test ends.
func running(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(soon):
			t.Error("Run does not end")
		}
	})
}

// say sends text to a server and returns all that it answers. A reset may show at any step.
func say(network, addr, text string) (string, error) {
	c, err := net.Dial(network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(soon))
	if _, err := fmt.Fprint(c, text); err != nil {
		return "", err
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	got, err := io.ReadAll(c)
	return string(got), err
}

// TestForward: by name, by port and from a unix socket; who is not admitted is reset, and it shows.
func TestForward(t *testing.T) {
	t.Parallel()
	node := newFakeNode(t)
	node.services["web"] = echo(t)
	node.offered = []app.Service{{Name: "dns", Type: app.TypeUDP, Port: 80}, {Name: "web", Type: app.TypeTCP, Port: 80}}
	socket := filepath.Join(t.TempDir(), "s")
	var all []publish.Forward
	for _, text := range []string{"0=bob:web", "0=bob:80", "unix:" + socket + "=bob:web", "0=bob:secret", "0=bob:81", "0=carol:web"} {
		w, err := publish.ParseForward(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	f, err := publish.NewForwarder(publish.ForwarderConfig{Node: node, Forwards: all})
	if err != nil {
		t.Fatal(err)
	}
	running(t, f.Run)
	for i, s := range f.Status() {
		got, err := say(s.Network, s.Listen, "hello")
		switch {
		case i < 3 && (err != nil || got != "hello"):
			t.Errorf("%v: %q, %v", all[i], got, err)
		case i >= 3 && (err == nil || len(got) > 0):
			t.Errorf("%v: %q, %v, want a reset", all[i], got, err)
		}
	}
	for i, s := range f.Status() {
		if i < 3 && (s.Made != 1 || s.Failed != 0 || s.Fault != "") || i >= 3 && (s.Made != 0 || s.Failed != 1 || s.Fault == "") {
			t.Errorf("status of %v: %+v", all[i], s)
		}
	}
}

// TestForwardInUse: an address that is taken shows at once.
func TestForwardInUse(t *testing.T) {
	t.Parallel()
	w, err := publish.ParseForward(echo(t) + "=bob:web")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publish.NewForwarder(publish.ForwarderConfig{Node: newFakeNode(t), Forwards: []publish.Forward{w}}); !errors.Is(err, publish.ErrListen) {
		t.Errorf("%v, want ErrListen", err)
	}
}

func specs(t *testing.T, texts ...string) []publish.Spec {
	t.Helper()
	var all []publish.Spec
	for _, text := range texts {
		s, err := publish.ParseSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

// TestRegistered: what the node is told, and told again after each change.
func TestRegistered(t *testing.T) {
	t.Parallel()
	node := newFakeNode(t)
	p, err := publish.NewPublisher(publish.PublisherConfig{
		Node: node, Name: "x", Kind: "y", NoVPN: true,
		Specs: specs(t, "web=tcp://127.0.0.1:80", "dns=udp://127.0.0.1:53", "dns=tcp://127.0.0.1:53"),
		Allow: map[string][]string{"web": {"a", "b"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	running(t, p.Run)
	last := func(want int) []app.Service {
		t.Helper()
		for end := time.Now().Add(soon); ; {
			node.mu.Lock()
			n := len(node.registered)
			var s []app.Service
			if n > 0 {
				s = node.registered[n-1].Services
			}
			node.mu.Unlock()
			if n == want {
				return s
			}
			if time.Now().After(end) {
				t.Fatalf("%d registrations, want %d", n, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	s := last(1)
	if len(s) != 2 || s[0].Type != app.TypeTCP || s[0].Packets || s[1].Type != app.TypeBoth || !s[1].Packets || s[1].Port != 53 || len(s[1].Allow) != 0 {
		t.Errorf("registered %+v", s)
	}
	if err := errors.Join(p.Grant(t.Context(), "dns", "@home"), p.Revoke(t.Context(), "web", "a"), p.Grant(t.Context(), "web", "b")); err != nil {
		t.Fatal(err)
	}
	s = last(4)
	if !slices.Equal(s[0].Allow, []string{"b"}) || !slices.Equal(s[1].Allow, []string{"@home"}) {
		t.Errorf("after changes %+v", s)
	}
	if err := p.Grant(t.Context(), "none", "a"); !errors.Is(err, publish.ErrNotPublished) {
		t.Errorf("grant of what is not published: %v", err)
	}
}

// TestSpecsCollide: one name with two ports, one port with two names, and the same twice.
func TestSpecsCollide(t *testing.T) {
	t.Parallel()
	for _, texts := range [][]string{
		{"web=tcp://h:80", "web=tcp://h:80"},
		{"web=tcp://h:80", "web=udp://h:81"},
		{"web=tcp://h:80", "www=tcp://i:80"},
	} {
		_, err := publish.NewPublisher(publish.PublisherConfig{Node: newFakeNode(t), Specs: specs(t, texts...)})
		if !errors.Is(err, publish.ErrSpec) {
			t.Errorf("%q: %v, want ErrSpec", texts, err)
		}
	}
}

// TestFinder: names and addresses of the mesh, and all others.
func TestFinder(t *testing.T) {
	t.Parallel()
	node := newFakeNode(t)
	node.offered = []app.Service{
		{Name: "socks", Type: "socks"},
		{Name: "web", Type: app.TypeTCP, Port: 80},
		{Name: "dns", Type: app.TypeBoth, Port: 53},
	}
	f := publish.NewFinderOf(node, key.Open().Prefix())
	address := key.Open().Address(node.self).String()
	for _, x := range []struct {
		host string
		port uint16
		udp  bool
		want string // empty: not ours; "-": ours, and there is none
	}{
		{"web.bob.mesh", 80, false, "web"},
		{"WEB.Bob.mesh.", 80, false, "web"},
		{"bob.mesh", 80, false, "web"},
		{address, 80, false, "web"},
		{"dns.bob.mesh", 53, true, "dns"},
		{"bob.mesh", 53, false, "dns"},
		{"web.bob.mesh", 81, false, "-"},
		{"web.bob.mesh", 80, true, "-"},
		{"socks.bob.mesh", 0, false, "-"},
		{"bob.mesh", 22, false, "-"},
		{"web.carol.mesh", 80, false, "-"},
		{"a.web.bob.mesh", 80, false, "-"},
		{"example.com", 80, false, ""},
		{"192.0.2.1", 80, false, ""},
		{"2001:db8::1", 80, false, ""},
		{"mesh", 80, false, ""},
	} {
		k, service, ok, err := f.Lookup(t.Context(), x.host, x.port, x.udp)
		switch {
		case x.want == "" && (ok || err != nil),
			x.want == "-" && (!ok || err == nil),
			len(x.want) > 1 && (!ok || err != nil || service != x.want || k != node.self):
			t.Errorf("%s:%d udp %v: %q %v %v, want %q", x.host, x.port, x.udp, service, ok, err, x.want)
		}
	}
}

// TestProxyHeader: a header as the specification of the PROXY protocol (2.2) has it, bytes written down by hand.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	var k key.Public
	got := publish.AppendProxyHeader(nil, netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 80, k)
	text := k.String()
	want := []byte{0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a, 0x21, 0x21, 0, byte(39 + len(text))}
	want = append(want, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 80)
	want = append(append(want, 0xe0, 0, byte(len(text))), text...)
	if !bytes.Equal(got, want) {
		t.Errorf("header\n%x, want\n%x", got, want)
	}
}
