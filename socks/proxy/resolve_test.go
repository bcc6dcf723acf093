package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a name server's answer to one question; the n-th question for it gets the n-th answer, the last one for ever.
type zone struct {
	rcode dnsmessage.RCode
	addrs []string
	ttl   uint32
	soa   uint32        // of a negative answer: the SOA's minimum, at 10 times that TTL
	cut   bool          // says that the answer is too long for UDP
	wait  chan struct{} // not nil: answers when it is closed
}

// nameServer is a real name server over UDP and TCP.
type nameServer struct {
	mu    sync.Mutex // guards the fields below
	zones map[string][]zone
	asked map[string]int
}

func startServer(t *testing.T, zones map[string][]zone) (*nameServer, *net.Resolver) {
	t.Helper()
	s := &nameServer{zones: zones, asked: make(map[string]int)}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { pc.Close(); ln.Close() })
	wg.Go(func() {
		for {
			b := make([]byte, 1500)
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			wg.Go(func() { _, _ = pc.WriteTo(s.answer(t, b[:n], false), from) })
		}
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				var size [2]byte
				if _, err := io.ReadFull(c, size[:]); err != nil {
					return
				}
				b := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(c, b); err != nil {
					return
				}
				a := s.answer(t, b, true)
				_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			})
		}
	})
	return s, &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		if network[:3] == "tcp" {
			return d.DialContext(ctx, "tcp", ln.Addr().String())
		}
		return d.DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func (s *nameServer) count(q string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[q]
}

func (s *nameServer) answer(t *testing.T, b []byte, tcp bool) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil || len(m.Questions) != 1 {
		t.Errorf("question %x: %v", b, err)
		return nil
	}
	q := m.Questions[0]
	name := q.Name.String() + " " + q.Type.String()
	s.mu.Lock()
	list, i := s.zones[name], s.asked[name]
	s.asked[name]++
	s.mu.Unlock()
	z := zone{rcode: dnsmessage.RCodeNameError}
	if len(list) > 0 {
		z = list[min(i, len(list)-1)]
	}
	if z.wait != nil {
		<-z.wait
	}
	m.Response, m.RecursionAvailable, m.RCode, m.Additionals = true, true, z.rcode, nil
	head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: z.ttl}
	for _, a := range z.addrs {
		addr := netip.MustParseAddr(a)
		var body dnsmessage.ResourceBody = &dnsmessage.AAAAResource{AAAA: addr.As16()}
		if addr.Is4() {
			body = &dnsmessage.AResource{A: addr.As4()}
		}
		m.Answers = append(m.Answers, dnsmessage.Resource{Header: head, Body: body})
	}
	if z.soa > 0 {
		head.TTL = 10 * z.soa
		m.Authorities = append(m.Authorities, dnsmessage.Resource{Header: head, Body: &dnsmessage.SOAResource{NS: q.Name, MBox: q.Name, MinTTL: z.soa}})
	}
	if z.cut && !tcp {
		m.Truncated, m.Answers = true, nil
	}
	out, err := m.Pack()
	if err != nil {
		t.Errorf("answer: %v", err)
	}
	return out
}

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex // guards the field below
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func TestCache(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		zone  []zone
		after time.Duration // since the first question
		asked int           // questions by then
		addr  string        // the second answer
	}{
		{"within the TTL", []zone{{addrs: []string{"1.2.3.4"}, ttl: 60}, {addrs: []string{"1.2.3.5"}}}, 59 * time.Second, 1, "1.2.3.4"},
		{"beyond the TTL", []zone{{addrs: []string{"1.2.3.4"}, ttl: 60}, {addrs: []string{"1.2.3.5"}}}, 60 * time.Second, 2, "1.2.3.5"},
		{"TTL 0", []zone{{addrs: []string{"1.2.3.4"}}, {addrs: []string{"1.2.3.5"}}}, 0, 2, "1.2.3.5"},
		{"a TTL of years", []zone{{addrs: []string{"1.2.3.4"}, ttl: 1 << 30}, {addrs: []string{"1.2.3.5"}}}, mostTTL, 2, "1.2.3.5"},
		{"a negative TTL", []zone{{addrs: []string{"1.2.3.4"}, ttl: 1 << 31}, {addrs: []string{"1.2.3.5"}}}, 0, 2, "1.2.3.5"},
		{"over TCP", []zone{{addrs: []string{"1.2.3.4"}, ttl: 60, cut: true}}, 59 * time.Second, 2, "1.2.3.4"}, // UDP, then TCP
		{"over TCP, beyond", []zone{{addrs: []string{"1.2.3.4"}, ttl: 60, cut: true}}, 60 * time.Second, 4, "1.2.3.4"},
		{"no such name", []zone{{rcode: dnsmessage.RCodeNameError, soa: 30}}, 29 * time.Second, 1, ""},
		{"no such name, beyond", []zone{{rcode: dnsmessage.RCodeNameError, soa: 30}, {addrs: []string{"1.2.3.5"}}}, 30 * time.Second, 2, "1.2.3.5"},
		{"no such name for a day", []zone{{rcode: dnsmessage.RCodeNameError, soa: 86400}, {addrs: []string{"1.2.3.5"}}}, mostNegative, 2, "1.2.3.5"},
		{"no address", []zone{{soa: 30}}, 29 * time.Second, 1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, ask := startServer(t, map[string][]zone{"a.test. TypeA": tt.zone})
			c := &clock{t: time.Unix(1e9, 0)}
			r := newResolver(ask)
			r.now = c.now
			defer r.close()
			if _, err := r.lookup(t.Context(), "A.test.", "ip4"); err != nil && len(tt.zone[0].addrs) > 0 {
				t.Fatal(err)
			}
			c.move(tt.after)
			got, err := r.lookup(t.Context(), "a.TEST.", "ip4")
			var dns *net.DNSError
			if tt.addr == "" && (!errors.As(err, &dns) || !dns.IsNotFound) || tt.addr != "" && (err != nil || got[0].String() != tt.addr) {
				t.Errorf("%v, %v; want %q", got, err, tt.addr)
			}
			if n := s.count("a.test. TypeA"); n != tt.asked {
				t.Errorf("asked %d times, want %d", n, tt.asked)
			}
		})
	}
}

// TestCacheFlight lets many ask at once: one question goes out, and it goes on when the first asker has left.
func TestCacheFlight(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	s, ask := startServer(t, map[string][]zone{"a.test. TypeAAAA": {{addrs: []string{"2600::1"}, ttl: 60, wait: gate}}})
	r := newResolver(ask)
	defer r.close()
	gone, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := r.lookup(gone, "a.test.", "ip6")
		left <- err
	}()
	for s.count("a.test. TypeAAAA") == 0 {
		<-time.After(time.Millisecond)
	}
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if a, err := r.lookup(t.Context(), "a.test.", "ip6"); err != nil || len(a) != 1 || a[0].String() != "2600::1" {
				t.Errorf("%v, %v", a, err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if n := s.count("a.test. TypeAAAA"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestCacheBounded(t *testing.T) {
	t.Parallel()
	_, ask := startServer(t, nil)
	r := newResolver(ask)
	defer r.close()
	far := time.Now().Add(time.Hour)
	for i := range 3 * maxNames {
		r.mu.Lock()
		r.makeRoomLocked()
		r.entries[question{string(binary.BigEndian.AppendUint32(nil, uint32(i))), "ip4"}] = &cached{until: far}
		r.mu.Unlock()
	}
	if n := len(r.entries); n > maxNames {
		t.Errorf("%d entries", n)
	}
	if _, err := r.lookup(t.Context(), "new.test.", "ip4"); err == nil {
		t.Error("a name that nobody has")
	}
	if n := len(r.entries); n > maxNames {
		t.Errorf("%d entries", n)
	}
}

// TestCacheFull has more questions under way than there is room for.
func TestCacheFull(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	_, ask := startServer(t, map[string][]zone{"a.test. TypeA": {{addrs: []string{"1.2.3.4"}, ttl: 60, wait: gate}}})
	r := newResolver(ask)
	defer r.close()
	for i := range maxNames {
		r.entries[question{string(binary.BigEndian.AppendUint32(nil, uint32(i))), "ip4"}] = &cached{done: make(chan struct{})}
	}
	var dns *net.DNSError
	if _, err := r.lookup(t.Context(), "a.test.", "ip4"); !errors.As(err, &dns) || !dns.IsTemporary || len(r.entries) != maxNames {
		t.Errorf("%v, %d entries", err, len(r.entries))
	}
	clear(r.entries)
	for range maxLookups {
		r.run <- struct{}{} // as many lookups
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := r.lookup(ctx, "a.test.", "ip4"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(gate)
	for range maxLookups {
		<-r.run
	}
	if a, err := r.lookup(t.Context(), "a.test.", "ip4"); err != nil || len(a) != 1 {
		t.Errorf("%v, %v", a, err)
	}
}

// TestRebindingCache has a name with a public address first and a private one second, without and with a TTL.
func TestRebindingCache(t *testing.T) {
	t.Parallel()
	touched := target(t, func(*net.TCPConn) { t.Error("the target was touched") })
	port := netip.MustParseAddrPort(touched).Port()
	_, ask := startServer(t, map[string][]zone{
		"rebind.test. TypeA": {{addrs: []string{"192.0.2.1"}}, {addrs: []string{"127.0.0.1"}, ttl: 60}},
		"both.test. TypeA":   {{addrs: []string{"192.0.2.1", "127.0.0.1"}, ttl: 60}},
	})
	r := newResolver(ask)
	defer r.close()
	d := newDialer(r, newPolicy(false, netip.Prefix{}, nil), 0)
	for _, host := range []string{"rebind.test.", "rebind.test.", "rebind.test.", "both.test."} {
		if c, err := d.dial(t.Context(), Header{Host: host, Port: port}); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v, %v", host, c, err)
		}
	}
}
