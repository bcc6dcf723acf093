package vpn_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/app"
	"skywire/mesh/key"
	wire "skywire/signal"
	"skywire/tun"
	"skywire/tun/vpn"
)

// TestMain is also the program that the namespace tests run in other namespaces.
func TestMain(m *testing.M) {
	if role := os.Getenv("SKYWIRE_VPN_TEST"); role != "" {
		if err := play(role); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// play runs one App beside a fake node; descriptor 3 is the mesh: a seqpacket socket to the other fake node.
func play(role string) error {
	dir := os.Getenv("SKYWIRE_VPN_DIR")
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c := vpn.Config{Run: dir, State: dir, Plain: os.Getenv("SKYWIRE_VPN_PLAIN") != "", Log: log}
	a, b := testKey(1), testKey(2)
	self, peer := a, b
	switch role {
	case "client", "client-plain":
		c.Client = &vpn.ClientConfig{Servers: []string{b.String()}, Exit: true, Exclude: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}}
	case "server":
		self, peer = b, a
		c.Server = &vpn.ServerConfig{
			Exit: true, Allow: []string{a.String()},
			Subnets: []vpn.Subnet{{Prefix: netip.MustParsePrefix("192.168.9.0/24")}, {Prefix: netip.MustParsePrefix("9.9.9.0/24")}},
		}
	case "closed": // a server that allows nobody
		self, peer = b, a
		c.Server = &vpn.ServerConfig{Exit: true}
	}
	node, err := newFakeNode(self, peer)
	if err != nil {
		return err
	}
	v, err := vpn.New(c, node)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	return v.Run(ctx)
}

func testKey(n byte) key.Public {
	for i := byte(0); ; i++ {
		if k, err := key.FromSeed([32]byte{n, i}); err == nil { // every second seed gives none
			return k.Public()
		}
	}
}

// fakeNode is a mesh of two nodes joined by a socket. Messages: P checksum packet · D header (dial) · A reply · R (refuse) ·
// C (close).
type fakeNode struct {
	self, peer key.Public
	mesh       int // seqpacket socket
	udp        *net.UDPConn

	mu     sync.Mutex
	device tun.Device
	policy app.Policy
	answer chan []byte // of a dial
	in     chan vpn.Incoming
	stream *fakeStream
}

type fakeStream struct {
	n    *fakeNode
	once sync.Once
	done chan struct{}
}

func (s *fakeStream) Read([]byte) (int, error) { <-s.done; return 0, io.EOF }
func (s *fakeStream) end()                     { s.once.Do(func() { close(s.done) }) }
func (s *fakeStream) Close() error {
	s.end()
	s.n.send('C', nil)
	return nil
}

func newFakeNode(self, peer key.Public) (*fakeNode, error) {
	n := &fakeNode{self: self, peer: peer, mesh: 3, answer: make(chan []byte, 1), in: make(chan vpn.Incoming, 8)}
	var err error
	if n.udp, err = net.ListenUDP("udp", nil); err != nil {
		return nil, err
	}
	n.send('C', nil) // streams of a killed predecessor
	go n.receive()
	return n, nil
}

func (n *fakeNode) send(kind byte, b []byte) {
	_ = unix.Send(n.mesh, append([]byte{kind}, b...), unix.MSG_NOSIGNAL)
}

func (n *fakeNode) Self() app.Info { return infoOf(n.self) }

func infoOf(k key.Public) app.Info {
	return app.Info{Key: k, Prefix: key.Open().Prefix(), Address: key.Open().Address(k)}
}

func (n *fakeNode) Run(ctx context.Context) error                    { <-ctx.Done(); return nil }
func (n *fakeNode) Changed() <-chan struct{}                         { return nil }
func (n *fakeNode) OnCall(app.CallHandler)                           {}
func (n *fakeNode) Status(v any) error                               { return nil }
func (n *fakeNode) Register(context.Context, app.Registration) error { return nil }
func (n *fakeNode) Resolve(_ context.Context, name string) (key.Public, error) {
	return key.Parse(name)
}

func (n *fakeNode) Lookup(context.Context, string) (app.Names, error) {
	return app.Names{}, wire.ErrNotFound
}

func (n *fakeNode) LookupAddr(context.Context, netip.Addr) (app.Names, error) {
	return app.Names{}, wire.ErrNotFound
}

func (n *fakeNode) Services(context.Context, string) ([]app.Service, error) { return nil, nil }
func (n *fakeNode) Ping(context.Context, key.Public) (time.Duration, error) {
	return 0, errors.New("the test wants echoes")
}

func (n *fakeNode) Whois(_ context.Context, name string) (app.Identity, error) {
	for _, k := range []key.Public{n.self, n.peer} {
		if name == k.String() {
			return app.Identity{Key: k, Address: infoOf(k).Address, Member: true}, nil
		}
	}
	return app.Identity{}, wire.ErrNotFound
}

func (n *fakeNode) MembersChanged(ctx context.Context, _ uint64) (uint64, bool, error) {
	<-ctx.Done()
	return 0, false, ctx.Err()
}

func (n *fakeNode) Sockets(context.Context) ([]*os.File, error) {
	f, err := n.udp.File()
	return []*os.File{f}, err
}

func (n *fakeNode) SetPolicy(_ context.Context, p app.Policy) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.policy = p
	return nil
}

func (n *fakeNode) Dial(ctx context.Context, to key.Public, _ string, header []byte) (io.ReadCloser, []byte, error) {
	if to != n.peer {
		return nil, nil, wire.ErrNotFound
	}
	s := &fakeStream{n: n, done: make(chan struct{})}
	n.mu.Lock()
	n.stream = s
	n.mu.Unlock()
	n.send('D', header)
	select {
	case b := <-n.answer:
		if b[0] == 'R' {
			return nil, nil, wire.Errorf(wire.ErrRefused, "%s", b[1:])
		}
		return s, b[1:], nil
	case <-time.After(time.Second):
		return nil, nil, wire.ErrUnreachable
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

func (n *fakeNode) Accept(ctx context.Context, _ string) (vpn.Incoming, error) {
	select {
	case in := <-n.in:
		return in, nil
	case <-ctx.Done():
		return vpn.Incoming{}, ctx.Err()
	}
}

func (n *fakeNode) AttachTUN(_ context.Context, queues []*os.File, _ string, mtu int) error {
	fd, err := unix.Dup(int(queues[0].Fd()))
	if err != nil {
		return err
	}
	d, err := tun.FromFile(os.NewFile(uintptr(fd), "tun"), mtu)
	if err != nil {
		return err
	}
	n.mu.Lock()
	n.device = d
	n.mu.Unlock()
	go n.pump(d)
	return nil
}

func (n *fakeNode) DetachTUN(context.Context, string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.device
	n.device = nil
	return d.Close()
}

// pump carries packets from the device to the mesh.
func (n *fakeNode) pump(d tun.Device) {
	b := make([]byte, 65600)
	for {
		fds := []unix.PollFd{{Fd: int32(d.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, 100); err != nil && err != unix.EINTR {
			return
		}
		n.mu.Lock()
		if n.device != d {
			n.mu.Unlock()
			return
		}
		_, err := d.Receive()
		var out [][]byte
		for err == nil {
			k, checksum, ok := d.Packet(b)
			if !ok {
				break
			}
			if n.routed(b[:k]) {
				m := make([]byte, 2+k)
				m[0] = 'P'
				if checksum {
					m[1] = 1
				}
				copy(m[2:], b[:k])
				out = append(out, m)
			}
		}
		n.mu.Unlock()
		for _, m := range out {
			_ = unix.Send(n.mesh, m, unix.MSG_NOSIGNAL)
		}
	}
}

func addresses(p []byte) (src, dst netip.Addr) {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	}
	return netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
}

func covered(list []app.Rule, k key.Public, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r app.Rule) bool { return r.Key == k && r.Prefix.Contains(a) })
}

// routed says whether the policy sends p to the peer. The caller holds mu.
func (n *fakeNode) routed(p []byte) bool {
	_, dst := addresses(p)
	return dst == infoOf(n.peer).Address || covered(n.policy.Routes, n.peer, dst)
}

// admitted says whether the policy takes p from the peer. The caller holds mu.
func (n *fakeNode) admitted(p []byte) bool {
	src, dst := addresses(p)
	return (src == infoOf(n.peer).Address || covered(n.policy.Grants, n.peer, src)) &&
		(dst == infoOf(n.self).Address || covered(n.policy.Serve, n.peer, dst))
}

func (n *fakeNode) receive() {
	b := make([]byte, 66000)
	for {
		k, err := unix.Read(n.mesh, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || k == 0 {
			return
		}
		n.handle(b[0], b[1:k])
	}
}

func (n *fakeNode) handle(kind byte, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch kind {
	case 'P':
		if n.device != nil && n.admitted(b[1:]) {
			_ = n.device.Send(b[1:], b[0] == 1)
			// As the loop does: flush when nothing more waits.
			if fds := []unix.PollFd{{Fd: int32(n.mesh), Events: unix.POLLIN}}; true {
				if k, _ := unix.Poll(fds, 0); k == 0 {
					_ = n.device.Flush()
				}
			}
		}
	case 'D':
		s := &fakeStream{n: n, done: make(chan struct{})}
		n.stream = s
		in := vpn.Incoming{Peer: n.peer, Header: slices.Clone(b)}
		in.Accept = func(reply []byte) (io.ReadCloser, error) { n.send('A', reply); return s, nil }
		in.Refuse = func(_, text string) error { n.send('R', []byte(text)); return nil }
		n.in <- in
	case 'A', 'R':
		select {
		case n.answer <- append([]byte{kind}, b...):
		default:
		}
	case 'C':
		if n.stream != nil {
			n.stream.end()
		}
	}
}
