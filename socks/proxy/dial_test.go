package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"skywire/socks"
)

// fakeNet answers attempts on virtual time.
type fakeNet struct {
	start   time.Time
	answers map[string]fakeAnswer

	mu    sync.Mutex // guards the field below
	tried []fakeTry
}

type fakeAnswer struct {
	after time.Duration
	err   error
}

type fakeTry struct {
	addr     string
	at       time.Duration
	canceled bool
}

func (n *fakeNet) dial(ctx context.Context, addr string) (*net.TCPConn, error) {
	a := netip.MustParseAddrPort(addr).Addr().String()
	n.mu.Lock()
	i := len(n.tried)
	n.tried = append(n.tried, fakeTry{addr: a, at: time.Since(n.start)})
	n.mu.Unlock()
	select {
	case <-time.After(n.answers[a].after):
		return &net.TCPConn{}, n.answers[a].err
	case <-ctx.Done():
		n.mu.Lock()
		n.tried[i].canceled = true
		n.mu.Unlock()
		return nil, ctx.Err()
	}
}

// TestRace is RFC 8305 on virtual time: who is tried when, and who wins.
func TestRace(t *testing.T) {
	t.Parallel()
	const six, six2, four, four2 = "2600::1", "2600::2", "1.1.1.1", "1.1.1.2"
	const never = time.Hour
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	gone := &net.DNSError{Err: "no such host", IsNotFound: true}
	type family struct {
		after time.Duration
		addrs []string
		err   error
	}
	type try struct {
		addr string
		at   int
	}
	tests := []struct {
		name      string
		six, four family
		answers   map[string]fakeAnswer
		tried     []try
		took      int
		err       error
	}{
		{
			"IPv6 first",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {ms(40), nil}},
			[]try{{six, 0}},
			40, nil,
		},
		{
			"IPv6 silent",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {never, nil}, four: {ms(30), nil}},
			[]try{{six, 0}, {four, 250}},
			280, nil,
		},
		{
			"IPv6 refused",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {ms(20), syscall.ECONNREFUSED}, four: {ms(30), nil}},
			[]try{{six, 0}, {four, 20}},
			50, nil,
		},
		{
			"IPv6 slow but first",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {ms(300), nil}, four: {ms(100), nil}},
			[]try{{six, 0}, {four, 250}},
			300, nil,
		},
		{
			"families in turn",
			family{0, []string{six, six2}, nil},
			family{0, []string{four, four2}, nil},
			map[string]fakeAnswer{six: {never, nil}, six2: {never, nil}, four: {never, nil}, four2: {ms(10), nil}},
			[]try{{six, 0}, {four, 250}, {six2, 500}, {four2, 750}},
			760, nil,
		},
		{
			"IPv6 answer a little late",
			family{ms(40), []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {ms(10), nil}},
			[]try{{six, 40}},
			50, nil,
		},
		{
			"IPv6 answer too late",
			family{ms(60), []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{four: {ms(100), nil}, six: {ms(10), nil}},
			[]try{{four, 50}},
			150, nil,
		},
		{
			"IPv6 answer when IPv4 has failed",
			family{ms(900), []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{four: {ms(10), syscall.ECONNREFUSED}, six: {ms(10), nil}},
			[]try{{four, 50}, {six, 900}},
			910, nil,
		},
		{
			"no IPv6",
			family{ms(5), nil, gone},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{four: {ms(10), nil}},
			[]try{{four, 5}},
			15, nil,
		},
		{
			"no IPv4",
			family{0, []string{six}, nil},
			family{ms(500), nil, gone},
			map[string]fakeAnswer{six: {ms(10), nil}},
			[]try{{six, 0}},
			10, nil,
		},
		{"no name", family{0, nil, gone}, family{ms(70), nil, gone}, nil, nil, 70, gone},
		{
			"both refused, the target's word counts",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {0, syscall.ENETUNREACH}, four: {ms(10), syscall.ECONNREFUSED}},
			[]try{{six, 0}, {four, 0}},
			10, syscall.ECONNREFUSED,
		},
		{
			"private ones are not tried",
			family{0, []string{"::1", six}, nil},
			family{0, []string{"127.0.0.1"}, nil},
			map[string]fakeAnswer{six: {ms(10), nil}},
			[]try{{six, 0}},
			10, nil,
		},
		{"nothing but private ones", family{0, []string{"::1"}, nil}, family{0, []string{"10.0.0.1"}, nil}, nil, nil, 0, ErrPolicy},
		{
			"nobody answers",
			family{0, []string{six}, nil},
			family{0, []string{four}, nil},
			map[string]fakeAnswer{six: {never, nil}, four: {never, nil}},
			[]try{{six, 0}, {four, 250}},
			15000, context.DeadlineExceeded,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &fakeNet{start: time.Now(), answers: tt.answers}
				d := newDialer(nil, newPolicy(false, netip.Prefix{}, nil), 0)
				d.open = n.dial
				ctx, cancel := context.WithTimeout(t.Context(), d.timeout)
				racing, stop := context.WithCancel(ctx)
				answers := make(chan found, 2)
				var asked sync.WaitGroup
				defer asked.Wait()
				for _, f := range []struct {
					six bool
					family
				}{{true, tt.six}, {false, tt.four}} {
					var addrs []netip.Addr
					for _, a := range f.addrs {
						addrs = append(addrs, netip.MustParseAddr(a))
					}
					asked.Go(func() {
						time.Sleep(f.after)
						answers <- found{six: f.six, addrs: addrs, err: f.err}
					})
				}
				conn, err := d.race(racing, dest{network: "tcp", name: "a.test", port: 443}, answers)
				took := time.Since(n.start)
				stop()
				synctest.Wait()
				cancel()
				if !errors.Is(err, tt.err) || (conn != nil) != (tt.err == nil) {
					t.Errorf("%v, %v; want %v", conn, err, tt.err)
				}
				if took != ms(tt.took) {
					t.Errorf("took %v, want %d ms", took, tt.took)
				}
				var tried []try
				n.mu.Lock()
				defer n.mu.Unlock()
				for _, f := range n.tried {
					tried = append(tried, try{f.addr, int(f.at.Milliseconds())})
					if a := n.answers[f.addr]; a.after == never && !f.canceled {
						t.Errorf("the attempt at %s goes on", f.addr)
					}
				}
				if !slices.Equal(tried, tt.tried) {
					t.Errorf("tried %v, want %v", tried, tt.tried)
				}
			})
		})
	}
}

// TestRaceBounded has a name with a hundred addresses of which none answers.
func TestRaceBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := &fakeNet{start: time.Now(), answers: map[string]fakeAnswer{}}
		d := newDialer(nil, newPolicy(false, netip.Prefix{}, nil), 0)
		var addrs []netip.Addr
		for i := range 100 {
			a := netip.AddrFrom4([4]byte{1, 1, 1, byte(i)})
			addrs = append(addrs, a)
			n.answers[a.String()] = fakeAnswer{err: syscall.ECONNREFUSED}
		}
		d.open = n.dial
		answers := make(chan found, 2)
		answers <- found{six: true}
		answers <- found{addrs: addrs}
		_, err := d.race(t.Context(), dest{network: "tcp", name: "a.test", port: 443}, answers)
		if !errors.Is(err, syscall.ECONNREFUSED) || len(n.tried) != maxAttempts {
			t.Errorf("%d attempts, %v", len(n.tried), err)
		}
	})
}

// TestRaceKernel connects by name where one family is dead, with real sockets.
func TestRaceKernel(t *testing.T) {
	t.Parallel()
	a := netip.MustParseAddrPort(target(t, echo))
	_, ask := startServer(t, map[string][]zone{
		"a.test. TypeAAAA": {{addrs: []string{"::1"}, ttl: 60}}, // nobody listens there
		"a.test. TypeA":    {{addrs: []string{"127.0.0.1"}, ttl: 60}},
	})
	r := newResolver(ask)
	defer r.close()
	d := newDialer(r, newPolicy(true, netip.Prefix{}, nil), 0)
	for range 2 {
		c, err := d.dial(t.Context(), Header{Host: "a.test.", Port: a.Port(), First: []byte("x")})
		if err != nil {
			t.Fatal(err)
		}
		within(t, c)
		var b [1]byte
		if _, err := c.Read(b[:]); err != nil || b[0] != 'x' {
			t.Errorf("%q, %v", b, err)
		}
	}
	if s := r.counts(); s.asked != 2 || s.hits != 2 {
		t.Errorf("%+v", s)
	}
	_, err := d.dial(t.Context(), Header{Host: "none.test.", Port: a.Port()})
	if v := verdictOf(Header{}, err); v.Code != socks.HostUnreachable {
		t.Errorf("%v: %v", v.Code, err)
	}
}
