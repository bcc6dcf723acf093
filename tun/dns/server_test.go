package dns_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"skywire/mesh/app"
	"skywire/tun/dns"
)

var (
	aliceAddr = netip.MustParseAddr("fd09:6c88:f521::a")
	aliceIPv4 = netip.MustParseAddr("100.64.0.7")
	loopback  = netip.MustParseAddrPort("127.0.0.1:0")
	errAway   = errors.New("the node is away")
)

// names is a mesh of one node; "away" is asked of a node that does not run.
type names struct{}

func (names) Lookup(_ context.Context, name string) (app.Names, error) {
	switch name {
	case "alice":
		return app.Names{Name: "alice", Address: aliceAddr, IPv4: aliceIPv4, Services: []app.Service{
			{Name: "web", Type: "tcp", Port: 80}, {Name: "vpn", Type: "vpn"},
		}}, nil
	case "away":
		return app.Names{}, errAway
	}
	return app.Names{}, dns.ErrNoName
}

func (n names) LookupAddr(ctx context.Context, a netip.Addr) (app.Names, error) {
	if a == aliceAddr || a == aliceIPv4 {
		return n.Lookup(ctx, "alice")
	}
	return app.Names{}, dns.ErrNoName
}

// start runs a server until the test ends.
func start(t *testing.T, c dns.Config) *dns.Server {
	t.Helper()
	c.Listen = []netip.AddrPort{loopback}
	s, err := dns.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	return s
}

func query(t *testing.T, name string, typ dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name)
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 77, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: typ, Class: dnsmessage.ClassINET}},
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// edns states a size.
func edns(size int) func(*dnsmessage.Message) {
	return func(m *dnsmessage.Message) {
		r := dnsmessage.Resource{Body: &dnsmessage.OPTResource{}}
		r.Header.Name = dnsmessage.MustNewName(".")
		_ = r.Header.SetEDNS0(size, 0, false)
		m.Additionals = append(m.Additionals, r)
	}
}

func exchange(t *testing.T, s *dns.Server, network string, q []byte) dnsmessage.Message {
	t.Helper()
	c, err := net.Dial(network, s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 65535)
	if network == "tcp" {
		q = append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	}
	if _, err := c.Write(q); err != nil {
		t.Fatal(err)
	}
	var n int
	if network == "tcp" {
		if _, err = io.ReadFull(c, b[:2]); err == nil {
			n, err = io.ReadFull(c, b[:binary.BigEndian.Uint16(b)])
		}
	} else {
		n, err = c.Read(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(b[:n]); err != nil {
		t.Fatalf("%x: %v", b[:n], err)
	}
	if m.ID != 77 || !m.Response {
		t.Errorf("id %d, response %v", m.ID, m.Response)
	}
	return m
}

func show(m dnsmessage.Message) string {
	var words []string
	for _, a := range m.Answers {
		switch b := a.Body.(type) {
		case *dnsmessage.AResource:
			words = append(words, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			words = append(words, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.PTRResource:
			words = append(words, b.PTR.String())
		case *dnsmessage.SRVResource:
			words = append(words, b.Target.String())
		case *dnsmessage.SOAResource:
			words = append(words, "SOA")
		}
	}
	return strings.TrimPrefix(m.RCode.String(), "RCode") + " " + strings.Join(words, " ")
}

func TestMesh(t *testing.T) {
	t.Parallel()
	s := start(t, dns.Config{Names: names{}, Reverse: []netip.Prefix{netip.MustParsePrefix("fd09:6c88:f521::/48"), netip.MustParsePrefix("100.64.0.0/16")}})
	for _, c := range []struct {
		name string
		typ  dnsmessage.Type
		want string
	}{
		{"alice.mesh.", dnsmessage.TypeAAAA, "Success " + aliceAddr.String()},
		{"aLiCe.MESH.", dnsmessage.TypeA, "Success " + aliceIPv4.String()},
		{"alice.mesh.", dnsmessage.TypeALL, "Success " + aliceIPv4.String() + " " + aliceAddr.String()},
		{"alice.mesh.", dnsmessage.TypeMX, "Success "},
		{"web.alice.mesh.", dnsmessage.TypeAAAA, "Success " + aliceAddr.String()},
		{"web.alice.mesh.", dnsmessage.TypeSRV, "Success alice.mesh."},
		{"vpn.alice.mesh.", dnsmessage.TypeSRV, "Success "},
		{"_web._tcp.alice.mesh.", dnsmessage.TypeSRV, "Success alice.mesh."},
		{"_web._udp.alice.mesh.", dnsmessage.TypeSRV, "NameError "},
		{"_tcp.alice.mesh.", dnsmessage.TypeSRV, "Success "},
		{"mail.alice.mesh.", dnsmessage.TypeAAAA, "NameError "},
		{"a.b.c.alice.mesh.", dnsmessage.TypeAAAA, "NameError "},
		{"bob.mesh.", dnsmessage.TypeAAAA, "NameError "},
		{"away.mesh.", dnsmessage.TypeAAAA, "ServerFailure "},
		{"mesh.", dnsmessage.TypeSOA, "Success SOA"},
		{"mesh.", dnsmessage.TypeA, "Success "},
		{"alicemesh.", dnsmessage.TypeA, "Refused "},
		{"example.com.", dnsmessage.TypeA, "Refused "},
		{".", dnsmessage.TypeNS, "Refused "},
		{"a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Success alice.mesh."},
		{"b.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "NameError "},
		{"0.1.2.5.f.8.8.c.6.9.0.d.f.ip6.arpa.", dnsmessage.TypePTR, "Success "},
		{"7.0.64.100.in-addr.arpa.", dnsmessage.TypePTR, "Success alice.mesh."},
		{"7.0.65.100.in-addr.arpa.", dnsmessage.TypePTR, "Refused "},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := exchange(t, s, network, query(t, c.name, c.typ, nil))
			if got := show(m); got != c.want {
				t.Errorf("%s %s over %s: %q, want %q", c.name, c.typ, network, got, c.want)
			}
			if len(m.Questions) != 1 || m.Questions[0].Name.String() != c.name {
				t.Errorf("%s: the question came back as %v", c.name, m.Questions)
			}
			if len(m.Answers) > 0 && (m.Answers[0].Header.TTL == 0 || m.Answers[0].Header.TTL > 60) {
				t.Errorf("%s: ttl %d", c.name, m.Answers[0].Header.TTL)
			}
		}
	}
}

// What is no good question is answered with what is wrong with it, or not at all.
func TestOdd(t *testing.T) {
	t.Parallel()
	s := start(t, dns.Config{Names: names{}})
	for name, c := range map[string]struct {
		change func(*dnsmessage.Message)
		want   string
	}{
		"opcode":        {func(m *dnsmessage.Message) { m.OpCode = 2 }, "NotImplemented "},
		"class":         {func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }, "Refused "},
		"two questions": {func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }, "FormatError "},
		"no question":   {func(m *dnsmessage.Message) { m.Questions = nil }, "FormatError "},
		"edns":          {edns(4096), "Success " + aliceAddr.String()},
	} {
		if m := exchange(t, s, "udp", query(t, "alice.mesh.", dnsmessage.TypeAAAA, c.change)); show(m) != c.want {
			t.Errorf("%s: %q, want %q", name, show(m), c.want)
		}
	}
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, b := range [][]byte{nil, {1}, make([]byte, 11), query(t, "alice.mesh.", dnsmessage.TypeA, func(m *dnsmessage.Message) { m.Response = true })} {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	exchange(t, s, "udp", query(t, "alice.mesh.", dnsmessage.TypeA, nil)) // it is alive
}

// upstream is a resolver that does what it is told with each question.
type upstream struct {
	addr  netip.AddrPort
	mu    sync.Mutex
	asked []string // as they came, with the network
}

// newUpstream starts one; answer changes the right answer, or gives nil for none.
func newUpstream(t *testing.T, answer func(network string, q, right []byte) []byte) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", loopback.String())
	if err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	up := &upstream{addr: netip.MustParseAddrPort(l.Addr().String())}
	reply := func(network string, b []byte) []byte {
		var m dnsmessage.Message
		if err := m.Unpack(b); err != nil {
			t.Errorf("upstream got %x: %v", b, err)
			return nil
		}
		up.mu.Lock()
		up.asked = append(up.asked, network+" "+m.Questions[0].Name.String())
		up.mu.Unlock()
		m.Response, m.Additionals = true, nil
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 1234},
			Body:   &dnsmessage.AResource{A: [4]byte{11, 0, 0, 1}},
		}}
		right, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return answer(network, b, right)
	}
	var all sync.WaitGroup
	all.Go(func() {
		b := make([]byte, 65535)
		for {
			n, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			if a := reply("udp", slices.Clone(b[:n])); a != nil {
				_, _ = u.WriteTo(a, from)
			}
		}
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var length [2]byte
			if _, err := io.ReadFull(c, length[:]); err == nil {
				b := make([]byte, binary.BigEndian.Uint16(length[:]))
				if _, err := io.ReadFull(c, b); err == nil {
					if a := reply("tcp", b); a != nil {
						_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
					}
				}
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); u.Close(); all.Wait() })
	return up
}

func honest(_ string, _, right []byte) []byte { return right }

func rcode(r byte) func(string, []byte, []byte) []byte {
	return func(_ string, _, right []byte) []byte { right[3] = right[3]&0xf0 | r; return right }
}

func TestForward(t *testing.T) {
	t.Parallel()
	const name = "a-rather-long-name-of-many-letters.example.com."
	for _, c := range []struct {
		what string
		ups  []func(network string, q, right []byte) []byte
		want string
	}{
		{"honest", []func(string, []byte, []byte) []byte{honest}, "Success 11.0.0.1"},
		{"says no", []func(string, []byte, []byte) []byte{rcode(3), honest}, "NameError 11.0.0.1"},
		{"first fails", []func(string, []byte, []byte) []byte{rcode(2), honest}, "Success 11.0.0.1"},
		{"first refuses", []func(string, []byte, []byte) []byte{rcode(5), honest}, "Success 11.0.0.1"},
		{"all fail", []func(string, []byte, []byte) []byte{rcode(2), rcode(2)}, "ServerFailure 11.0.0.1"},
		{"first is silent", []func(string, []byte, []byte) []byte{func(string, []byte, []byte) []byte { return nil }, honest}, "Success 11.0.0.1"},
		{"another number comes first, and is no answer", []func(string, []byte, []byte) []byte{
			func(n string, _, right []byte) []byte {
				if n == "udp" {
					right[0] ^= 1
				}
				return right
			}, honest,
		}, "Success 11.0.0.1"},
		{"case of letters lost: asked again over TCP", []func(string, []byte, []byte) []byte{
			func(_ string, _, right []byte) []byte {
				copy(right[12:], strings.ToLower(string(right[12:60])))
				return right
			},
		}, "Success 11.0.0.1"},
		{"another question", []func(string, []byte, []byte) []byte{
			func(_ string, _, right []byte) []byte { right[13] ^= 1; return right },
		}, "ServerFailure "},
		{"no response", []func(string, []byte, []byte) []byte{func(_ string, q, _ []byte) []byte { return q }}, "ServerFailure "},
		{"rubbish", []func(string, []byte, []byte) []byte{func(_ string, q, _ []byte) []byte { return q[:5] }, honest}, "Success 11.0.0.1"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			s := start(t, dns.Config{Names: names{}})
			var to []netip.AddrPort
			var first *upstream
			for _, answer := range c.ups {
				u := newUpstream(t, answer)
				if first == nil {
					first = u
				}
				to = append(to, u.addr)
			}
			s.Forward(to)
			m := exchange(t, s, "udp", query(t, name, dnsmessage.TypeA, edns(1232)))
			if show(m) != c.want {
				t.Errorf("%q, want %q", show(m), c.want)
			}
			if m.Questions[0].Name.String() != name {
				t.Errorf("the question came back as %s", m.Questions[0].Name)
			}
			if len(m.Answers) > 0 && m.Answers[0].Header.TTL != 1234 {
				t.Errorf("ttl %d", m.Answers[0].Header.TTL)
			}
			first.mu.Lock()
			defer first.mu.Unlock()
			if len(first.asked) == 0 || strings.Contains(first.asked[0], name) {
				t.Errorf("asked in the asker's case of letters: %v", first.asked) // by chance once in 2^38
			}
		})
	}
}

// An answer that does not fit a datagram comes whole over TCP, and cut, with a flag, to who can take no more.
func TestTruncated(t *testing.T) {
	t.Parallel()
	big := func(network string, _, right []byte) []byte {
		if network == "udp" {
			right[2] |= 2 // TC
			return right
		}
		var m dnsmessage.Message
		if err := m.Unpack(right); err != nil {
			return nil
		}
		for range 100 {
			m.Answers = append(m.Answers, m.Answers[0])
		}
		b, _ := m.Pack()
		return b
	}
	s := start(t, dns.Config{Names: names{}})
	s.Forward([]netip.AddrPort{newUpstream(t, big).addr})
	for _, c := range []struct {
		network string
		change  func(*dnsmessage.Message)
		whole   bool
	}{{"udp", nil, false}, {"udp", edns(1232), false}, {"udp", edns(16384), true}, {"tcp", nil, true}} {
		m := exchange(t, s, c.network, query(t, "big.example.", dnsmessage.TypeA, c.change))
		if whole := !m.Truncated && len(m.Answers) == 101; whole != c.whole {
			t.Errorf("%+v: truncated %v, %d answers", c, m.Truncated, len(m.Answers))
		}
	}
}

// Learned hears of addresses before the asker does.
func TestLearned(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	learned := map[string]string{}
	s := start(t, dns.Config{Names: names{}, Learned: func(name string, addrs []netip.Addr, ttl time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		learned[name] = addrs[0].String() + " " + ttl.String()
	}})
	s.Forward([]netip.AddrPort{newUpstream(t, honest).addr})
	for name, want := range map[string]string{"www.Example.com.": "11.0.0.1 20m34s", "alice.mesh.": aliceIPv4.String() + " 30s"} {
		exchange(t, s, "udp", query(t, name, dnsmessage.TypeA, nil))
		mu.Lock()
		if got := learned[strings.ToLower(strings.TrimSuffix(name, "."))]; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		mu.Unlock()
	}
}

// The mesh is nobody's else business: no question about it leaves, and an exit's server tells nothing of it.
func TestMeshStays(t *testing.T) {
	t.Parallel()
	up := newUpstream(t, honest)
	s := start(t, dns.Config{})
	s.Forward([]netip.AddrPort{up.addr})
	if m := exchange(t, s, "udp", query(t, "alice.mesh.", dnsmessage.TypeA, nil)); show(m) != "Refused " {
		t.Error(show(m))
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.asked) != 0 {
		t.Errorf("asked %v", up.asked)
	}
}

// A flood of questions that nobody answers is refused at a bound, and the server lives.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := start(t, dns.Config{Names: names{}})
	s.Forward([]netip.AddrPort{newUpstream(t, func(string, []byte, []byte) []byte { return nil }).addr})
	c, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := query(t, "slow.example.", dnsmessage.TypeA, nil)
	for range 400 {
		if _, err := c.Write(q); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	if n, err := c.Read(b); err != nil || n < 12 || b[3]&15 != 2 {
		t.Errorf("%x %v, want SERVFAIL", b[:n], err)
	}
}
