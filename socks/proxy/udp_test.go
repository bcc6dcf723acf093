package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"skywire/mesh/key"
	"skywire/socks"
)

// udpResponder answers packets with their own bytes, and tells who sent each.
func udpResponder(t *testing.T, addr string) (at netip.AddrPort, senders <-chan netip.AddrPort, conn *net.UDPConn) {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skipf("no %s here: %v", addr, err)
	}
	conn = pc.(*net.UDPConn)
	seen := make(chan netip.AddrPort, 64)
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			select {
			case seen <- from:
			default:
			}
			_, _ = conn.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	return netip.MustParseAddrPort(conn.LocalAddr().String()), seen, conn
}

// flowTo opens an association at an exit with c.
func flowTo(t *testing.T, c ExitConfig) (net.Conn, *Exit) {
	t.Helper()
	m := newMesh(t)
	x := m.node(t, true, 1)
	c.AllowAny = true
	e := runExit(t, x, c)
	f, err := m.node(t, false, 0).DialPackets(t.Context(), x.key, ServiceUDP, HeaderUDP())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, e
}

func sayPacket(t *testing.T, f net.Conn, d socks.Datagram) {
	t.Helper()
	if _, err := f.Write(d.Append(nil)); err != nil {
		t.Fatal(err)
	}
}

// hearPacket reads a packet; a wait of zero means until a fault is certain.
func hearPacket(t *testing.T, f net.Conn, wait time.Duration) (socks.Datagram, error) {
	t.Helper()
	if wait == 0 {
		wait = 20 * time.Second
	}
	_ = f.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, datagramRoom)
	n, err := f.Read(b)
	if err != nil {
		return socks.Datagram{}, err
	}
	d, err := socks.ParseDatagram(b[:n])
	if err != nil {
		t.Fatalf("%x: %v", b[:min(n, 40)], err)
	}
	return d, nil
}

func TestAssociation(t *testing.T) {
	t.Parallel()
	at, _, _ := udpResponder(t, "127.0.0.1:0")
	six, _, _ := udpResponder(t, "[::1]:0")
	_, ask := startServer(t, map[string][]zone{
		"echo.test. TypeA":    {{addrs: []string{"127.0.0.1"}}, {addrs: []string{"127.0.0.99"}}}, // moves at once
		"six.test. TypeAAAA":  {{addrs: []string{"::1"}, ttl: 60}},
		"echo.test. TypeAAAA": {{addrs: []string{"::1"}, ttl: 60}},
	})
	f, e := flowTo(t, ExitConfig{AllowPrivate: true, Resolver: ask})
	big := bytes.Repeat([]byte("big"), 20_000)
	for i, tt := range []struct {
		to   socks.Datagram
		from netip.AddrPort
	}{
		{socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: []byte("four")}, at},
		{socks.Datagram{Addr: at.Addr(), Port: at.Port()}, at},
		{socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: big}, at},
		{socks.Datagram{Addr: six.Addr(), Port: six.Port(), Payload: []byte("six")}, six},
		{socks.Datagram{Name: "echo.test.", Port: at.Port(), Payload: []byte("by name")}, at},
		{socks.Datagram{Name: "Echo.test", Port: at.Port(), Payload: []byte("pinned")}, at},
		{socks.Datagram{Name: "six.test.", Port: six.Port(), Payload: []byte("six by name")}, six},
	} {
		sayPacket(t, f, tt.to)
		got, err := hearPacket(t, f, 0)
		if err != nil || got.Addr != tt.from.Addr() || got.Port != tt.from.Port() || !bytes.Equal(got.Payload, tt.to.Payload) {
			t.Fatalf("%d: %v:%d, %d bytes, %v", i, got.Addr, got.Port, len(got.Payload), err)
		}
	}
	// A packet is counted after it has been sent, and of a key last.
	var s ExitStatus
	eventually(t, "all packets to be counted", func() bool { s = e.Status(); return s.Keys[0].Sent+s.Keys[0].Received == 2*60031 })
	if s.Associations != 1 || s.Datagrams != 14 || s.Dropped != 0 || s.Keys[0].Sent != s.Sent || s.Sent != s.Received {
		t.Errorf("%+v", s)
	}
	// What is no datagram, and what leads nowhere, is dropped; the association lives on.
	for _, b := range []string{"", "\x05", "\x01\x7f\x00\x00\x01\x00\x00x", "\x03\x00\x00\x50", "\x03\x01 \x00\x50x"} {
		_, _ = f.Write([]byte(b))
	}
	sayPacket(t, f, socks.Datagram{Name: "none.test.", Port: 53, Payload: []byte("x")})
	sayPacket(t, f, socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: []byte("still")})
	if got, err := hearPacket(t, f, 0); err != nil || string(got.Payload) != "still" {
		t.Errorf("%q, %v", got.Payload, err)
	}
	if n := e.Status().Dropped; n < 5 {
		t.Errorf("%d dropped", n)
	}
}

// TestAssociationFilter: only addresses that were sent to may answer, from whatever port.
func TestAssociationFilter(t *testing.T) {
	t.Parallel()
	at, senders, _ := udpResponder(t, "127.0.0.1:0")
	_, _, friend := udpResponder(t, "127.0.0.1:0")
	_, _, stranger := udpResponder(t, "127.0.0.2:0")
	f, e := flowTo(t, ExitConfig{AllowPrivate: true})
	sayPacket(t, f, socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: []byte("hello")})
	if _, err := hearPacket(t, f, 0); err != nil {
		t.Fatal(err)
	}
	port := <-senders
	port = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port.Port())
	if _, err := stranger.WriteToUDPAddrPort([]byte("stranger"), port); err != nil {
		t.Fatal(err)
	}
	for e.Status().Dropped == 0 && t.Context().Err() == nil {
		<-time.After(time.Millisecond)
	}
	if _, err := friend.WriteToUDPAddrPort([]byte("friend"), port); err != nil {
		t.Fatal(err)
	}
	if got, err := hearPacket(t, f, 0); err != nil || string(got.Payload) != "friend" {
		t.Errorf("%q, %v", got.Payload, err)
	}
}

func TestAssociationPolicy(t *testing.T) {
	t.Parallel()
	at, senders, _ := udpResponder(t, "127.0.0.1:0")
	_, ask := startServer(t, map[string][]zone{"inside.test. TypeA": {{addrs: []string{"127.0.0.1"}, ttl: 60}}})
	f, e := flowTo(t, ExitConfig{Resolver: ask})
	sayPacket(t, f, socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: []byte("x")})
	sayPacket(t, f, socks.Datagram{Addr: netip.MustParseAddr("::ffff:127.0.0.1"), Port: at.Port(), Payload: []byte("x")})
	sayPacket(t, f, socks.Datagram{Addr: netip.MustParseAddr("255.255.255.255"), Port: at.Port(), Payload: []byte("x")})
	sayPacket(t, f, socks.Datagram{Name: "inside.test.", Port: at.Port(), Payload: []byte("x")})
	for e.Status().Dropped < 4 && t.Context().Err() == nil {
		<-time.After(time.Millisecond)
	}
	select {
	case s := <-senders:
		t.Errorf("a packet from %v reached this box", s)
	default:
	}
}

func TestAssociationRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	x := m.node(t, true, 1)
	client, stranger := m.node(t, false, 0), m.node(t, false, 0)
	runExit(t, x, ExitConfig{Allow: []key.Public{client.key}, AssociationsPerKey: 2})
	for _, tt := range []struct {
		name   string
		from   *meshNode
		header string
		want   socks.Code
	}{
		{"stranger", stranger, "\x01", verdictStranger},
		{"no version", client, "", socks.Failed},
		{"version", client, "\x02", socks.Failed},
		{"first", client, "\x01", 0},
		{"second", client, "\x01", 0},
		{"third", client, "\x01", verdictBusy},
	} {
		f, err := tt.from.DialPackets(t.Context(), x.key, ServiceUDP, []byte(tt.header))
		var v *Verdict
		if tt.want == 0 && err != nil || tt.want != 0 && (!errors.As(err, &v) || v.Code != tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err == nil {
			defer f.Close()
		}
	}
}

func TestAssociationIdle(t *testing.T) {
	t.Parallel()
	f, e := flowTo(t, ExitConfig{UDPIdle: 50 * time.Millisecond})
	if d, err := hearPacket(t, f, 0); !errors.Is(err, io.EOF) {
		t.Errorf("%+v, %v", d, err)
	}
	for e.Status().Associations > 0 && t.Context().Err() == nil {
		<-time.After(time.Millisecond)
	}
}

// TestAssociationBounds: tables of one association do not grow with what a client does.
func TestAssociationBounds(t *testing.T) {
	t.Parallel()
	_, ask := startServer(t, nil)
	r := newResolver(ask)
	defer r.close()
	a := &association{
		e:       &Exit{policy: newPolicy(true, netip.Prefix{}, nil), names: r},
		targets: make(map[netip.Addr]*udpTarget), pinned: make(map[string]*pin), ctx: t.Context(),
	}
	now := time.Now()
	for i := range 4 * maxTargets {
		a.mayAnswer(socks.Datagram{Port: 53}, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), now.Add(time.Duration(i)))
		a.mu.Lock()
		a.addressLocked(socks.Datagram{Name: string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + ".test", Port: 53}, now)
		a.mu.Unlock()
	}
	a.mu.Lock()
	if len(a.targets) > maxTargets || len(a.pinned) > maxPinned {
		t.Errorf("%d targets, %d names", len(a.targets), len(a.pinned))
	}
	if a.targets[netip.MustParseAddr("10.0.3.255")] == nil {
		t.Error("the latest target is not known")
	}
	a.mu.Unlock()
	a.wg.Wait()
}

// TestAccounts keeps one client from what another has, and the figures bounded.
func TestAccounts(t *testing.T) {
	t.Parallel()
	c := &clock{t: time.Unix(1e9, 0)}
	a := newAccounts(ExitConfig{Connections: 10, PerKey: 6, NewPerKey: 1, Associations: 2, AssociationsPerKey: 1})
	a.now = c.now
	greedy, modest := newKey(t), newKey(t)
	made := 0
	for range 20 {
		if a.open(greedy, false) == nil {
			made++
		}
	}
	if made != newBurst {
		t.Errorf("%d connections at once, want %d", made, newBurst)
	}
	c.move(time.Hour)
	for range 20 {
		if a.open(greedy, false) == nil {
			made++
		}
	}
	if made != 6 {
		t.Errorf("%d connections of one client, want 6", made)
	}
	if err := a.open(modest, false); err != nil {
		t.Error(err)
	}
	if err := errors.Join(a.open(modest, true), a.open(greedy, true)); err != nil {
		t.Error(err)
	}
	if err := a.open(modest, true); !errors.Is(err, ErrManyAssociations) {
		t.Error(err)
	}
	// A rate of 1,000 bytes a second: 64 KiB at once, then as much as time has passed.
	if !a.spend(modest, leastBurst, true, 1000) || a.spend(modest, 1, true, 1000) || !a.spend(modest, 1, false, 1000) || !a.spend(greedy, 1, true, 1000) {
		t.Error("the burst is not what it says, or not one client's")
	}
	c.move(time.Second)
	if a.spend(modest, 1001, true, 1000) || !a.spend(modest, 1000, true, 1000) {
		t.Error("the rate is not what it says")
	}
	for range 2 * maxAccounts {
		k := newKey(t)
		if a.open(k, false) == nil {
			a.close(k, false)
		}
	}
	if n := len(a.per); n > maxAccounts || a.per[modest] == nil || a.per[greedy] == nil {
		t.Errorf("%d accounts", n)
	}
	if r := a.report(); len(r) != maxReports || r[0].Key != greedy.String() {
		t.Errorf("%d reports, the first %+v", len(r), r[0])
	}
}

// TestDrain ends an exit while a connection is being made: it is made and handed over, and later ones are not.
func TestDrain(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddrPort(target(t, echo))
	gate := make(chan struct{})
	s, ask := startServer(t, map[string][]zone{"slow.test. TypeA": {{addrs: []string{"127.0.0.1"}, ttl: 60, wait: gate}}})
	m := newMesh(t)
	x := m.node(t, true, 1)
	e, err := NewExit(ExitConfig{Node: x, AllowAny: true, AllowPrivate: true, Resolver: ask})
	if err != nil {
		t.Fatal(err)
	}
	e.drain = time.Minute
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	st := &meshStream{
		peer: newKey(t), header: Header{Host: "slow.test.", Port: a.Port()}.Append(nil),
		verdict: make(chan meshVerdict, 1), ended: make(chan Traffic, 1),
	}
	x.incoming <- st
	for s.count("slow.test. TypeA") == 0 {
		<-time.After(time.Millisecond)
	}
	end()
	close(gate)
	v := <-st.verdict
	if v.v != nil {
		t.Fatalf("refused: %v", v.v)
	}
	v.conn.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	select {
	case x.incoming <- st:
		t.Error("an exit that has ended takes streams")
	default:
	}
}

// TestAssociationAllocates nothing for a packet, either way.
func TestAssociationAllocates(t *testing.T) {
	at, _, _ := udpResponder(t, "127.0.0.1:0")
	sock, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	e, err := NewExit(ExitConfig{Node: newMesh(t).node(t, true, 1), AllowAny: true, AllowPrivate: true, Limits: Limits{Rate: 1 << 40}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.names.close()
	peer := newKey(t)
	if err := e.accounts.open(peer, true); err != nil {
		t.Fatal(err)
	}
	a := &association{e: e, peer: peer, sock: sock, targets: make(map[netip.Addr]*udpTarget), last: time.Now()}
	packet := socks.Datagram{Addr: at.Addr(), Port: at.Port(), Payload: make([]byte, 1200)}.Append(nil)
	in, out := make([]byte, datagramRoom), make([]byte, 0, datagramRoom)
	now := time.Now()
	n := testing.AllocsPerRun(100, func() {
		d, err := socks.ParseDatagram(packet)
		if err != nil {
			t.Fatal(err)
		}
		a.send(d, d.Addr, now)
		_ = sock.SetReadDeadline(now.Add(20 * time.Second))
		n, from, err := sock.ReadFromUDPAddrPort(in)
		if err != nil || !a.wanted(from.Addr().Unmap()) || !e.accounts.spend(peer, n, false, e.c.Limits.Rate) {
			t.Fatalf("%v from %v", err, from)
		}
		out = socks.Datagram{Addr: from.Addr(), Port: from.Port()}.Append(out[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations for a packet there and back", n)
	}
}
