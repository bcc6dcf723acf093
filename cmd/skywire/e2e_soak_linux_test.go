package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// TestE2ESoak runs everything at once, with links that come and go, and looks whether memory, descriptors and goroutines
// come back to what they were. SKYWIRE_SOAK=1h is the long form.
func TestE2ESoak(t *testing.T) {
	t.Parallel()
	length := 14 * time.Second
	if s := os.Getenv("SKYWIRE_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatalf("SKYWIRE_SOAK: %v", err)
		}
		length = d
	}
	w := newWorld(t, "soak")
	w.diamond()
	w.everything()
	w.oddServer("web", "10.50.0.2:7000")
	w.oddServer("b", "[::]:7000")
	w.reach("a", "b")
	w.wait("the exit", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "ping", "-c1", "-W1", "10.50.0.2")
		return err
	})
	s := &soak{world: w, mesh: w.meshAddress("b"), memory: map[string][]float64{}}
	s.echoUDP()
	s.mix(5 * time.Second) // what is made once is made now
	before := s.settled(nil)
	s.mix(length)
	after := s.settled(before)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		t.Logf("%-10s before %v, after %v, memory meanwhile %s", name, before[name], after[name], s.course(name))
	}
	s.checkMemory()
	s.checkCounts()
}

// soak is traffic of all kinds. Nothing that arrives may be wrong; connections may fail while a link is down.
type soak struct {
	*world
	mesh   string // address of b
	kinds  []*soakKind
	memory map[string][]float64 // MB of a program, sample by sample
}

type soakKind struct {
	name         string
	done, failed atomic.Int64
	last         atomic.Pointer[string] // why the last one failed
}

// mix runs all kinds of traffic for a time and waits until the last of it has ended.
func (s *soak) mix(length time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), length)
	defer cancel()
	var work sync.WaitGroup
	s.kinds = nil
	start := func(name string, workers int, once func(context.Context) error) {
		k := &soakKind{name: name}
		s.kinds = append(s.kinds, k)
		for range workers {
			work.Go(func() { k.run(ctx, once) })
		}
	}
	start("echo through the vpn", 2, func(context.Context) error { return s.echo("10.50.0.2:7000", false) })
	start("echo through socks", 3, func(context.Context) error { return s.echo("10.50.0.2:7000", true) })
	start("download over the mesh", 1, func(context.Context) error { return s.download(net.JoinHostPort(s.mesh, "7000")) })
	start("datagrams", 1, s.datagrams)
	start("ping", 1, func(ctx context.Context) error {
		_, err := s.box["a"].Exec(ctx, "ping", "-q", "-c", "50", "-i", "0.02", "-W", "2", s.mesh)
		return err
	})
	start("node ping", 1, func(ctx context.Context) error {
		_, err := s.box["a"].Skywire(ctx, "node", "ping", "-c", "3", "-i", "0.1", s.key["b"])
		return err
	})
	start("vpn status", 1, func(ctx context.Context) error {
		_, err := s.box["a"].Skywire(ctx, "vpn", "status", "--json")
		<-time.After(300 * time.Millisecond)
		return err
	})
	start("flap", 1, s.flap)
	work.Go(func() { s.sample(ctx, length/16) })
	work.Wait()
}

// run repeats a piece of traffic until the time is over. What that ends does not count.
func (k *soakKind) run(ctx context.Context, once func(context.Context) error) {
	for ctx.Err() == nil {
		switch err := once(ctx); {
		case err == nil:
			k.done.Add(1)
		case ctx.Err() == nil:
			k.failed.Add(1)
			why := err.Error()
			k.last.Store(&why)
			<-time.After(50 * time.Millisecond) // no connection is refused a thousand times a second
		}
	}
}

// connect opens a connection in box a, through its proxy if wanted.
func (s *soak) connect(addr string, proxy bool) (c *net.TCPConn, err error) {
	dial := addr
	if proxy {
		dial = "127.0.0.1:1080"
	}
	err = s.box["a"].Enter(func() error {
		any, err := net.DialTimeout("tcp", dial, 10*time.Second)
		if err == nil {
			c = any.(*net.TCPConn)
		}
		return err
	})
	if err == nil && proxy {
		err = connectSOCKS(c, addr)
	}
	if err != nil {
		if c != nil {
			_ = c.Close()
		}
		return nil, err
	}
	return c, c.SetDeadline(time.Now().Add(patience))
}

// echo sends up to 300 kB and the end, and wants the same back.
func (s *soak) echo(addr string, proxy bool) error {
	c, err := s.connect(addr, proxy)
	if err != nil {
		return err
	}
	defer c.Close()
	want, err := io.ReadAll(known(rand.Int64N(300_000)))
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() {
		_, _ = c.Write([]byte{askEcho})
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	})
	got, err := io.ReadAll(c)
	if err == nil && !bytes.Equal(got, want) {
		s.t.Errorf("echo of %d bytes: %d others came back", len(want), len(got))
	}
	return err
}

// download fetches 2 MB.
func (s *soak) download(addr string) error {
	const size = 2 << 20
	c, err := s.connect(addr, false)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte{askBulk, 0, 0, 0, 0, 0, size >> 16, 0, 0}); err != nil {
		return err
	}
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if want, _ := io.ReadAll(known(size)); !bytes.Equal(got, want) {
		s.t.Errorf("download of %d bytes: %d others came", len(want), len(got))
	}
	return nil
}

const echoPort = "7003"

// echoUDP has b send datagrams back.
func (s *soak) echoUDP() {
	s.t.Helper()
	var l net.PacketConn
	s.must(s.box["b"].Enter(func() (err error) {
		l, err = net.ListenPacket("udp", "[::]:"+echoPort)
		return err
	}))
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = l.WriteTo(buf[:n], from)
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close()
		work.Wait()
	})
}

// datagrams sends a hundred of all sizes and wants that what comes back is one of them.
func (s *soak) datagrams(context.Context) error {
	var c net.Conn
	err := s.box["a"].Enter(func() (err error) {
		c, err = net.Dial("udp", net.JoinHostPort(s.mesh, echoPort))
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	buf, back := make([]byte, 2048), 0
	for range 100 {
		i := rand.IntN(1000)
		if _, err := c.Write(datagram(i)); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // lost while a link is down
		} else if err != nil {
			return err
		}
		if back++; n < 4 || !bytes.Equal(buf[:n], datagram(int(buf[2])<<8|int(buf[3]))) {
			s.t.Errorf("a datagram of %d bytes came back that was not sent", n)
		}
	}
	if back < 50 {
		return fmt.Errorf("%d of 100 came back", back)
	}
	return nil
}

// flap takes one of the two relays' wires away for a second.
func (s *soak) flap(ctx context.Context) error {
	relay, end := []string{"r1", "r2"}[rand.IntN(2)], []string{"a", "b"}[rand.IntN(2)]
	if err := s.box[relay].IP("link set dev " + end + " down"); err != nil {
		return err
	}
	<-time.After(time.Second)
	err := s.box[relay].IP("link set dev " + end + " up")
	select {
	case <-ctx.Done():
	case <-time.After(3 * time.Second):
	}
	return err
}

// holding is what a program holds of what could leak.
type holding struct {
	FDs, Goroutines int
	MB              float64
}

func (h holding) String() string {
	return fmt.Sprintf("%d fds, %d goroutines, %.1f MB", h.FDs, h.Goroutines, h.MB)
}

// settled waits until no program holds more than it did before (or, without a before, until that does not change), and
// returns what they hold.
func (s *soak) settled(before map[string]holding) map[string]holding {
	s.t.Helper()
	var now, last map[string]holding
	err := lab.Wait(s.t.Context(), 2*patience, "what the traffic took is given back", func(ctx context.Context) error {
		last, now = now, s.holdings(ctx)
		limit := before
		if limit == nil {
			limit = last
		}
		for name, h := range now {
			l, ok := limit[name]
			if !ok {
				return errors.New("seen once")
			}
			if h.FDs > l.FDs+4 || h.Goroutines > l.Goroutines+8 {
				return fmt.Errorf("%s has %v, had %v", name, h, l)
			}
		}
		if before == nil {
			select { // a first look says nothing of what is about to end
			case <-time.After(2 * time.Second):
			case <-ctx.Done():
			}
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
	return now
}

func (s *soak) holdings(ctx context.Context) map[string]holding {
	all := map[string]holding{}
	for name, p := range s.run {
		files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
		h := holding{FDs: len(files), MB: float64(p.RSS()) / 1e6}
		if strings.HasSuffix(name, " node") {
			var status struct{ Machine struct{ Goroutines int } }
			if err := p.Box.SkywireJSON(ctx, &status, "node", "status"); err == nil {
				h.Goroutines = status.Machine.Goroutines
			}
		}
		all[name] = h
	}
	return all
}

// sample looks at the memory of all programs every now and then.
func (s *soak) sample(ctx context.Context, every time.Duration) {
	s.memory = map[string][]float64{}
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		for name, p := range s.run {
			s.memory[name] = append(s.memory[name], float64(p.RSS())/1e6)
		}
	}
}

// course is the memory of a program over time, in four figures: the middle of each quarter.
func (s *soak) course(name string) string {
	var parts []string
	for q := range 4 {
		parts = append(parts, fmt.Sprintf("%.1f", s.quarter(name, q)))
	}
	return strings.Join(parts, " → ") + " MB"
}

func (s *soak) quarter(name string, q int) float64 {
	m := s.memory[name]
	part := slices.Clone(m[len(m)*q/4 : len(m)*(q+1)/4])
	if len(part) == 0 {
		return 0
	}
	slices.Sort(part)
	return part[len(part)/2]
}

// checkMemory compares the last quarter with the second: the first still fills caches and tables.
func (s *soak) checkMemory() {
	s.t.Helper()
	for name := range s.memory {
		if early, late := s.quarter(name, 1), s.quarter(name, 3); late > early*1.25+3 {
			s.t.Errorf("%s grows: %s", name, s.course(name))
		}
	}
}

// checkCounts wants that each kind of traffic worked, and failed rarely.
func (s *soak) checkCounts() {
	s.t.Helper()
	for _, k := range s.kinds {
		done, failed, why := k.done.Load(), k.failed.Load(), ""
		if p := k.last.Load(); p != nil {
			why = ", the last: " + *p
		}
		s.t.Logf("%-24s %6d done, %d failed%s", k.name, done, failed, why)
		if done == 0 || failed > 2+(done+failed)/5 {
			s.t.Errorf("%s: %d done, %d failed", k.name, done, failed)
		}
	}
}
