package tracker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skywire/mesh/app"
	"skywire/mesh/key"
	"skywire/mesh/route"
	"skywire/signal"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func identity(t testing.TB) *key.Private {
	t.Helper()
	p, err := key.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func record(p *key.Private, number uint64, services ...route.Service) []byte {
	return route.Sign(&route.Record{Number: number, Services: services}, p, key.Open())
}

func names(all []Entry) string {
	var words []string
	for _, e := range all {
		words = append(words, e.Name)
	}
	return strings.Join(words, " ")
}

func TestEntriesExpire(t *testing.T) {
	t.Parallel()
	r := NewRegistry(key.Open())
	a, b := identity(t), identity(t)
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	if err := r.Put(start, a.Public(), []Service{{Name: "vpn", Type: "vpn"}, {Name: "web", Type: "http", Port: 80}}); err != nil {
		t.Fatal(err)
	}
	if err := r.PutRecord(at(30*time.Second), record(b, 1, route.Service{Name: "socks", Type: "socks"})); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		after time.Duration
		kind  string
		want  string
	}{
		{time.Minute, "", "web socks vpn"},
		{time.Minute, "socks", "socks"},
		{time.Minute, "no", ""},
		{Life, "", "socks"},
		{30*time.Second + Life, "", ""},
	} {
		if got := names(r.List(at(c.after), c.kind)); got != c.want {
			t.Errorf("after %v, type %q: %q, want %q", c.after, c.kind, got, c.want)
		}
	}
	if e := r.List(at(time.Minute), "http")[0]; e.Key != a.Public() || e.Port != 80 || !e.Seen.Equal(start) || !e.Expires.Equal(at(Life)) {
		t.Errorf("entry %+v", e)
	}
	if r.Expire(at(Life + 30*time.Second)); len(r.nodes) != 0 {
		t.Errorf("%d nodes kept", len(r.nodes))
	}
}

// TestWhoSaysWhat: what a node says itself stands before its record, and both are listed once.
func TestWhoSaysWhat(t *testing.T) {
	t.Parallel()
	r, p, now := NewRegistry(key.Open()), identity(t), time.Now()
	if err := errors.Join(
		r.PutRecord(now, record(p, 1, route.Service{Name: "a", Type: "old"}, route.Service{Name: "b", Type: "x"})),
		r.Put(now, p.Public(), []Service{{Name: "a", Type: "new"}}),
	); err != nil {
		t.Fatal(err)
	}
	if got := r.List(now, ""); len(got) != 2 || got[0].Type != "new" || got[1].Name != "b" {
		t.Errorf("got %+v", got)
	}
	if err := r.Put(now, p.Public(), nil); err != nil || names(r.List(now, "")) != "a b" || r.List(now, "")[0].Type != "old" {
		t.Errorf("withdrawn: %v, %+v", err, r.List(now, ""))
	}
}

func TestRecordsCannotBeReplayedForEver(t *testing.T) {
	t.Parallel()
	r, p, start := NewRegistry(key.Open()), identity(t), time.Now()
	old, fresh := record(p, 1, route.Service{Name: "s"}), record(p, 2, route.Service{Name: "s"})
	for _, c := range []struct {
		after time.Duration
		raw   []byte
		want  error
	}{
		{0, old, nil},
		{time.Hour, old, nil},
		{time.Hour, fresh, nil},
		{time.Hour, old, ErrStale},
		{3 * time.Hour, fresh, nil},
		{3*time.Hour + time.Second, fresh, ErrStale},
		{4 * time.Hour, fresh, ErrStale},
		{4 * time.Hour, record(p, 3), nil},
		{4 * time.Hour, append(fresh[:len(fresh)-1:len(fresh)-1], fresh[len(fresh)-1]^1), route.ErrSignature},
		{4 * time.Hour, []byte("x"), route.ErrFormat},
	} {
		if err := r.PutRecord(start.Add(c.after), c.raw); !errors.Is(err, c.want) {
			t.Errorf("after %v: %v, want %v", c.after, err, c.want)
		}
		r.Expire(start.Add(c.after))
	}
}

func TestServicesOutOfBounds(t *testing.T) {
	t.Parallel()
	many := make([]Service, route.MaxServices+1)
	for i := range many {
		many[i].Name = fmt.Sprint(i)
	}
	for name, s := range map[string][]Service{
		"no name": {{}}, "long name": {{Name: strings.Repeat("n", 64)}}, "escape": {{Name: "a", Meta: "\x1b[2J"}},
		"broken UTF-8": {{Name: "a\xff"}}, "long type": {{Name: "a", Type: strings.Repeat("t", 32)}},
		"twice": {{Name: "a"}, {Name: "a"}}, "many": many,
	} {
		r := NewRegistry(key.Open())
		if err := r.Put(time.Now(), key.Public{1}, s); !errors.Is(err, ErrService) || len(r.nodes) != 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFullRegistry(t *testing.T) {
	t.Parallel()
	r, now := NewRegistry(key.Open()), time.Now()
	put := func(at time.Time, i int) error {
		return r.Put(at, key.Public{byte(i >> 8), byte(i)}, []Service{{Name: "s"}})
	}
	for i := range MaxNodes {
		if err := put(now, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(now, MaxNodes); !errors.Is(err, ErrFull) {
		t.Errorf("one too many: %v", err)
	}
	if err := errors.Join(put(now, 5), put(now.Add(Life), MaxNodes)); err != nil {
		t.Error(err)
	}
}

// fakeNode is the node beside a tracker.
type fakeNode struct {
	streams  chan io.ReadWriteCloser
	peer     key.Public
	services []app.Service
	handler  app.CallHandler
}

func (n *fakeNode) Register(context.Context, app.Registration) error { return nil }
func (n *fakeNode) OnCall(h app.CallHandler) {
	if h != nil {
		n.handler = h
	}
}

func (n *fakeNode) Services(context.Context, string) ([]app.Service, error) { return n.services, nil }

func (n *fakeNode) AcceptStream(ctx context.Context, _ string) (key.Public, io.ReadWriteCloser, error) {
	select {
	case <-ctx.Done():
		return key.Public{}, nil, ctx.Err()
	case rw := <-n.streams:
		return n.peer, rw, nil
	}
}

func TestOverTheMesh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		peer, far := identity(t).Public(), identity(t).Public()
		n := &fakeNode{streams: make(chan io.ReadWriteCloser), peer: peer, services: []app.Service{
			{Name: "exit", Type: "vpn", Key: far, Online: true}, {Name: "gone", Type: "vpn", Key: far},
		}}
		tr, err := New(Config{Network: key.Open(), Log: quiet(), Connect: func(context.Context) (Node, error) { return n, nil }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := tr.Run(ctx); err != nil {
				t.Errorf("run: %v", err)
			}
		})
		dials := 0
		dial := func(context.Context) (*Client, error) {
			if dials++; dials == 1 {
				return nil, errors.New("not yet")
			}
			here, there := net.Pipe()
			n.streams <- there
			return NewClient(here), nil
		}
		announced, withdraw := context.WithCancel(t.Context())
		var announcing sync.WaitGroup
		announcing.Go(func() { Announce(announced, dial, []Service{{Name: "proxy", Type: "socks", Port: 7}}, quiet()) })
		time.Sleep(10 * time.Minute) // many lives: it is renewed
		here, there := net.Pipe()
		n.streams <- there
		c := NewClient(here)
		all, err := c.List(t.Context(), "")
		if err != nil || names(all) != "proxy exit" || all[0].Key != peer || all[0].Port != 7 || all[1].Key != far {
			t.Errorf("list %+v, %v", all, err)
		}
		v, err := n.handler(t.Context(), MethodList, json.RawMessage(`{"type":"vpn"}`))
		if got, ok := v.([]Entry); err != nil || !ok || names(got) != "exit" {
			t.Errorf("app.call: %+v, %v", v, err)
		}
		withdraw()
		announcing.Wait()
		time.Sleep(Life + time.Second)
		if all, err = c.List(t.Context(), "socks"); err != nil || len(all) != 0 {
			t.Errorf("after the end: %+v, %v", all, err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		running.Wait()
	})
}

func listen(t *testing.T) (addr string, tr *Tracker) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tr, err = New(Config{Network: key.Open(), Log: quiet(), Listen: l})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := tr.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return l.Addr().String(), tr
}

func TestOverTCP(t *testing.T) {
	t.Parallel()
	addr, _ := listen(t)
	c, err := DialTCP(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := identity(t)
	if err := c.Put(t.Context(), []Service{{Name: "vpn"}}); !errors.Is(err, signal.ErrRefused) {
		t.Errorf("unsigned: %v", err)
	}
	if err := c.PutRecord(t.Context(), record(p, 1, route.Service{Name: "vpn", Type: "vpn"})); err != nil {
		t.Errorf("signed: %v", err)
	}
	if err := c.PutRecord(t.Context(), bytes.Repeat([]byte{1}, 200)); !errors.Is(err, signal.ErrUsage) {
		t.Errorf("forged: %v", err)
	}
	all, err := c.List(t.Context(), "vpn")
	if err != nil || len(all) != 1 || all[0].Key != p.Public() {
		t.Errorf("list %+v, %v", all, err)
	}
	busy := false
	for range 3 * maxRecords {
		busy = busy || errors.Is(c.PutRecord(t.Context(), record(p, 1)), signal.ErrBusy)
	}
	if !busy {
		t.Error("as many signature checks as somebody likes")
	}
}

// TestBrowsersAreNotServed: a page in a browser can make it speak HTTP to a port on loopback.
func TestBrowsersAreNotServed(t *testing.T) {
	t.Parallel()
	addr, tr := listen(t)
	raw, err := json.Marshal(map[string]any{"method": MethodPut, "id": 1, "params": PutParams{Record: record(identity(t), 1, route.Service{Name: "x"})}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\n\r\n%s\n", raw)
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
		t.Errorf("answered %q", line)
	}
	if all := tr.Registry().List(time.Now(), ""); len(all) != 0 {
		t.Errorf("took %+v", all)
	}
}

// TestSilenceIsNotForEver: deadlines stand from the first moment and after each line.
func TestSilenceIsNotForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer here.Close()
		conn, err := idleListener{oneConn{there}}.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(start) != firstLine {
			t.Errorf("first read: %v after %v", err, time.Since(start))
		}
		if err := conn.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		start = time.Now()
		if _, err := conn.Read(make([]byte, 1)); err == nil || time.Since(start) != idle {
			t.Errorf("later read: %v after %v", err, time.Since(start))
		}
	})
}

type oneConn struct{ net.Conn }

func (o oneConn) Accept() (net.Conn, error) { return o.Conn, nil }
func (o oneConn) Addr() net.Addr            { return o.LocalAddr() }

func TestPages(t *testing.T) {
	t.Parallel()
	total := MaxList + 3
	ask := func(p ListParams, page *[]Entry) error {
		*page = slices.Repeat([]Entry{{Service: Service{Name: "s"}}}, min(MaxList, total-p.Offset))
		return nil
	}
	if all, err := Pages(ask, ""); err != nil || len(all) != total {
		t.Errorf("%d entries, %v", len(all), err)
	}
	endless := func(_ ListParams, page *[]Entry) error {
		*page = slices.Repeat([]Entry{{Service: Service{Name: "s"}}}, MaxList)
		return nil
	}
	if all, err := Pages(endless, ""); err != nil || len(all) != maxPages*MaxList {
		t.Errorf("%d entries, %v", len(all), err)
	}
}
