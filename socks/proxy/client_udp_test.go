package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// udpEcho answers each packet with itself, and says nothing to an empty one.
func udpEcho(t *testing.T) netip.AddrPort {
	t.Helper()
	s, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { s.Close() })
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := s.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if n > 0 {
				_, _ = s.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	})
	return s.LocalAddr().(*net.UDPAddr).AddrPort()
}

// associated is a program with a UDP association.
type associated struct {
	t    *testing.T
	tcp  net.Conn
	sock *net.UDPConn
	at   netip.AddrPort
}

// associate asks a proxy for an association; claim is the port that the program says it will use.
func associate(t *testing.T, proxy string, claim bool) *associated {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	within(t, c)
	s, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	q := []byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0}
	if claim {
		p := s.LocalAddr().(*net.UDPAddr).Port
		copy(q[7:], []byte{127, 0, 0, 1, byte(p >> 8), byte(p)})
	}
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	var r [12]byte
	if _, err := io.ReadFull(c, r[:]); err != nil {
		t.Fatal(err)
	}
	if r[3] != 0 || r[5] != 1 {
		t.Fatalf("reply %x", r)
	}
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte(r[6:10])), uint16(r[10])<<8|uint16(r[11]))
	return &associated{t: t, tcp: c, sock: s, at: at}
}

func (a *associated) send(d socks.Datagram) {
	a.t.Helper()
	if _, err := a.sock.WriteToUDPAddrPort(d.Append([]byte{0, 0, 0}), a.at); err != nil {
		a.t.Fatal(err)
	}
}

// hear waits for an answer.
func (a *associated) hear(wait time.Duration) (socks.Datagram, error) {
	buf := make([]byte, 1<<16)
	if err := a.sock.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return socks.Datagram{}, err
	}
	n, _, err := a.sock.ReadFromUDPAddrPort(buf)
	if err != nil {
		return socks.Datagram{}, err
	}
	return socks.ParseUDP(buf[:n])
}

// asks sends a packet until it comes back: UDP may lose some.
func (a *associated) asks(d socks.Datagram) socks.Datagram {
	a.t.Helper()
	for range 50 {
		a.send(d)
		for {
			got, err := a.hear(200 * time.Millisecond)
			if err != nil {
				break
			}
			if string(got.Payload) == string(d.Payload) {
				return got
			}
		}
	}
	a.t.Fatalf("no answer from %s:%d", d.Host(), d.Port)
	return socks.Datagram{}
}

func TestUDP(t *testing.T) {
	t.Parallel()
	echo, other := udpEcho(t), udpEcho(t)
	rules, err := socks.ParseRules([]string{
		fmt.Sprintf("net:udp,port:%d=direct", other.Port()), "port:9=block", "name:here.test=direct",
	})
	if err != nil {
		t.Fatal(err)
	}
	proxy := chain(t, ClientConfig{Rules: rules, Log: testLog(t)}, ExitConfig{Resolver: names(t, map[string][]string{"echo.test.": {"127.0.0.1"}})})
	for _, claim := range []bool{false, true} {
		a := associate(t, proxy, claim)
		if got := a.asks(socks.Datagram{Addr: echo.Addr(), Port: echo.Port(), Payload: []byte("by address")}); got.Addr != echo.Addr() || got.Port != echo.Port() {
			t.Errorf("answer from %s:%d, want %s", got.Host(), got.Port, echo)
		}
		if got := a.asks(socks.Datagram{Name: "echo.test", Port: echo.Port(), Payload: []byte("by name")}); got.Port != echo.Port() {
			t.Errorf("answer from %s:%d", got.Host(), got.Port)
		}
		if got := a.asks(socks.Datagram{Addr: other.Addr(), Port: other.Port(), Payload: []byte("direct")}); got.Addr != other.Addr() || got.Port != other.Port() {
			t.Errorf("answer from %s:%d, want %s", got.Host(), got.Port, other)
		}
		long := strings.Repeat("x", 60000)
		a.asks(socks.Datagram{Addr: echo.Addr(), Port: echo.Port(), Payload: []byte(long)})
	}
}

// TestUDPRefused sends what an association must not carry, and then what it must.
func TestUDPRefused(t *testing.T) {
	t.Parallel()
	echo := udpEcho(t)
	rules, err := socks.ParseRules([]string{fmt.Sprintf("name:blocked.test,port:%d=block", echo.Port())})
	if err != nil {
		t.Fatal(err)
	}
	m := newMesh(t)
	runExit(t, m.node(t, true, time.Millisecond), ExitConfig{AllowAny: true, AllowPrivate: true})
	p, proxy := runClient(t, m.node(t, false, 0), ClientConfig{Rules: rules})
	a := associate(t, proxy, false)
	good := socks.Datagram{Addr: echo.Addr(), Port: echo.Port(), Payload: []byte("good")}
	a.asks(good)
	b := good.Append([]byte{0, 0, 1}) // a fragment
	raw := func(s *net.UDPConn, b []byte) {
		if _, err := s.WriteToUDPAddrPort(b, a.at); err != nil {
			t.Fatal(err)
		}
	}
	raw(a.sock, b)
	raw(a.sock, []byte{0, 0})
	raw(a.sock, []byte{0, 0, 0, 2, 1, 2, 3})
	a.send(socks.Datagram{Name: "blocked.test", Port: echo.Port(), Payload: []byte("blocked")})
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)} { // another port, another address
		s, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
		if err != nil {
			t.Fatal(err)
		}
		raw(s, good.Append([]byte{0, 0, 0}))
		s.Close()
	}
	eventually(t, "six packets to be dropped", func() bool { return p.stats.dropped.Load() == 6 })
	if d, err := a.hear(50 * time.Millisecond); err == nil {
		t.Errorf("an answer to what was to be dropped: %q", d.Payload)
	}
	a.asks(good)
	if n := p.stats.associations.Load(); n != 1 {
		t.Errorf("%d associations, want 1", n)
	}
	a.tcp.Close()
	eventually(t, "the association to end with its connection", func() bool {
		return p.stats.associations.Load() == 0 && p.stats.active.Load() == 0
	})
}

// TestUDPIdle checks that an association without packets ends, and says so by its connection.
func TestUDPIdle(t *testing.T) {
	t.Parallel()
	a := associate(t, chain(t, ClientConfig{UDPIdle: 100 * time.Millisecond}, ExitConfig{}), false)
	if _, err := io.ReadAll(a.tcp); err != nil {
		t.Error(err)
	}
}

// fakeNames is one published service.
type fakeNames struct {
	host string
	key  key.Public
}

func (f fakeNames) Lookup(_ context.Context, host string, port uint16, _ bool) (key.Public, string, bool, error) {
	switch {
	case host == f.host && port == 80:
		return f.key, "web", true, nil
	case host == f.host:
		return f.key, "", false, errors.New("nothing published there")
	}
	return key.Public{}, "", false, nil
}

// TestUDPPublished carries packets of a published service, which know nothing of targets.
func TestUDPPublished(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	n := m.node(t, true, 1)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	wg.Go(func() {
		select {
		case f := <-n.flows:
			conn, _ := f.Accept()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			buf := make([]byte, 1<<16)
			for {
				k, err := conn.Read(buf)
				if err != nil {
					return
				}
				_, _ = conn.Write(buf[:k])
			}
		case <-ctx.Done():
		}
	})
	_, proxy := runClient(t, m.node(t, false, 0), ClientConfig{Names: fakeNames{"web.alice.mesh", n.key}})
	a := associate(t, proxy, false)
	if got := a.asks(socks.Datagram{Name: "web.alice.mesh", Port: 80, Payload: []byte("hi")}); got.Name != "web.alice.mesh" || got.Port != 80 {
		t.Errorf("answer from %s:%d", got.Host(), got.Port)
	}
}

// TestFlowAllocations checks that a packet on a known way costs none.
func TestFlowAllocations(t *testing.T) {
	m := newMesh(t)
	c, err := NewClient(ClientConfig{Node: m.node(t, false, 0), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := c.newPackets(ctx, socks.Query{UDP: true}, func([]byte) {})
	s, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(udpEcho(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := []byte("\x00\x00\x00\x01\x01\x02\x03\x04\x00\x35payload")
	d, err := socks.ParseUDP(b)
	if err != nil {
		t.Fatal(err)
	}
	a.known[udpTo{d.Addr, d.Name, d.Port}] = &flow{headed: true, conn: s}
	if n := testing.AllocsPerRun(200, func() {
		d, err := socks.ParseUDP(b)
		if err != nil {
			t.Fatal(err)
		}
		a.send(d, b[roomBefore:])
	}); n != 0 {
		t.Errorf("%v allocations a packet, want none", n)
	}
}
