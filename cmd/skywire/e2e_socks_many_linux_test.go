package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/mesh/meshtest/emulator"
)

// sink accepts and keeps, in a process of its own: the other ends are this one's.
const sink = `
import resource, socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
s = socket.socket(); s.bind(("9.9.9.2", 7002)); s.listen(4096)
kept = []
while True: kept.append(s.accept()[0])
`

// TestE2ESocksMany holds many idle connections and makes new ones as fast as they come: 500 and a second of them, with
// SKYWIRE_E2E=full 10,000 and ten seconds.
func TestE2ESocksMany(t *testing.T) {
	t.Parallel()
	many, span := 500, time.Second
	w := socksWorld{newWorld(t, "sockmany")}
	if full() {
		many, span = min(10_000, (descriptors(t)-500)/2), 10*time.Second
	}
	w.boxes("a", "b")
	w.plain("web")
	w.must(
		w.lab.Wire(w.end("a", "wan", "10.1.0.1/24"), w.end("b", "wan", "10.1.0.2/24")),
		w.lab.Wire(w.end("b", "lan", "9.9.9.1/24"), w.end("web", "eth0", site4+"/24")),
	)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	limit := strconv.Itoa(2 * many)
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--connections", limit, "--per-key", limit)
	w.start("a", "socks", "socks", "client", "--server", w.key["b"], "--connections", limit)
	_, err := w.box["web"].Start("sink", "python3", "-c", sink)
	w.must(err)
	w.oddServer("web", site4+":7000")
	w.wait("a connection", func(ctx context.Context) error {
		_, err := w.box["a"].Shell(ctx, "curl -sS -m 2 -x socks5://127.0.0.1:1080 telnet://"+site4+":7002 </dev/null")
		if err != nil && strings.Contains(err.Error(), "exit status 28") {
			err = nil // connected, and nothing came
		}
		return w.alive(w.run["a socks"], err)
	})
	t.Run("idle", func(t *testing.T) { w.idleConnections(t, many) })
	t.Run("new", func(t *testing.T) { w.newConnections(t, span) })
	w.stopAll("socks", "node")
}

// descriptors is how many a process may have here. A connection takes two in each node.
func descriptors(t *testing.T) int {
	t.Helper()
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return int(min(l.Max, 1<<20))
}

func (w socksWorld) idleConnections(t *testing.T, many int) {
	before := w.rss()
	start := time.Now()
	conns := make([]net.Conn, many)
	slots := make(chan struct{}, 128)
	var wg sync.WaitGroup
	var failed atomic.Int64
	for i := range conns {
		slots <- struct{}{}
		wg.Go(func() { // each asks at once: the client waits ten seconds for a request
			defer func() { <-slots }()
			c, err := w.dialSOCKS(site4 + ":7002")
			if conns[i] = c; err != nil && failed.Add(1) == 1 {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		t.Fatalf("%d of %d connections failed", n, many)
	}
	took := time.Since(start)
	after := w.rss()
	for name := range before {
		t.Logf("%s: %.1f MB, %.1f kB for each of %d idle connections", name, float64(after[name])/1e6, float64(after[name]-before[name])/1e3/float64(many), many)
	}
	t.Logf("opened in %.1f s", took.Seconds())
	for _, c := range conns {
		_ = c.(*net.TCPConn).SetLinger(0) // the sink never ends its direction
		c.Close()
	}
	w.wait("all of them to be gone", func(ctx context.Context) error {
		out, err := w.box["a"].Skywire(ctx, "socks", "status")
		if err == nil && !strings.Contains(out, " 0 connections now;") && !strings.Contains(out, " 1 connections now;") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
}

// dialSOCKS connects to a target over the client of box a.
func (w socksWorld) dialSOCKS(target string) (c net.Conn, err error) {
	err = w.box["a"].Enter(func() (err error) {
		c, err = net.DialTimeout("tcp", "127.0.0.1:1080", 5*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := connectSOCKS(c, target); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// rss is the memory of all processes of the world.
func (w socksWorld) rss() map[string]int64 {
	all := make(map[string]int64)
	for name, p := range w.run {
		all[name] = int64(p.RSS())
	}
	return all
}

// newConnections opens, asks once and closes, from several programs, as often as it goes.
func (w socksWorld) newConnections(t *testing.T, span time.Duration) {
	dialled := make(chan net.Conn, 32)
	start := time.Now()
	var dialers, askers sync.WaitGroup
	for range 4 {
		dialers.Go(func() {
			err := w.box["a"].Enter(func() error {
				for time.Since(start) < span && !t.Failed() {
					c, err := net.DialTimeout("tcp", "127.0.0.1:1080", 5*time.Second)
					if err != nil {
						return err
					}
					dialled <- c
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	var made atomic.Int64
	for range 32 {
		askers.Go(func() {
			for c := range dialled {
				err := connectSOCKS(c, site4+":7000")
				if err == nil {
					err = roundTrip(c)
				}
				if c.Close(); err != nil {
					t.Error(err)
					continue
				}
				made.Add(1)
			}
		})
	}
	dialers.Wait()
	close(dialled)
	askers.Wait()
	took := time.Since(start).Seconds()
	t.Logf("%d connections, each with a byte each way, in %.1f s: %.0f a second", made.Load(), took, float64(made.Load())/took)
}

// roundTrip sends a byte to an echo and waits for it.
func roundTrip(c net.Conn) error {
	if _, err := c.Write([]byte{askEcho, 'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// TestE2ESocksFirstByte checks that an optimistic client saves a round trip, and that plain HTTP does so in any case.
func TestE2ESocksFirstByte(t *testing.T) {
	t.Parallel()
	w := socksWorld{newWorld(t, "sockfirst")}
	w.boxes("a", "b")
	w.plain("web")
	const trip = 200 * time.Millisecond
	half := emulator.Profile{Delay: trip / 2, Queue: 16 << 20}
	_, err := w.lab.BadWire(w.end("a", "wan", "10.1.0.1/24"), w.end("b", "wan", "10.1.0.2/24"), half, half, 1)
	w.must(err, w.lab.Wire(w.end("b", "lan", "9.9.9.1/24", "2a00:9::1/64"), w.end("web", "eth0", site4+"/24", site6+"/64")))
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"])
	w.start("a", "socks", "socks", "client", "--server", w.key["b"])
	w.start("a", "socks2", "socks", "client", "--server", w.key["b"], "--listen", "127.0.0.1:1081", "--optimistic")
	w.siteServer()
	first := func(proxy string) time.Duration {
		var all []time.Duration
		ask := func(ctx context.Context) error {
			out, err := w.box["a"].Exec(ctx, "curl", "-sSf", "-m", "10", "-o", "/dev/null", "-w", "%{time_starttransfer}", "-x", proxy, "http://"+site4+":8080/")
			if err != nil {
				return err
			}
			s, err := strconv.ParseFloat(out, 64)
			all = append(all, time.Duration(s*float64(time.Second)))
			return err
		}
		w.wait("a page over "+proxy, ask)
		for range 5 {
			w.must(ask(t.Context()))
		}
		return slices.Min(all) // a loaded machine adds, and never takes away
	}
	usual, eager, plain := first("socks5://127.0.0.1:1080"), first("socks5://127.0.0.1:1081"), first("http://127.0.0.1:1080")
	t.Logf("first byte at a round trip of %s: %s, optimistic %s, plain HTTP %s", trip, usual, eager, plain)
	if usual < 2*trip {
		t.Errorf("usual: %s is less than two round trips", usual)
	}
	for what, d := range map[string]time.Duration{"optimistic": eager, "plain HTTP": plain} {
		if d < trip || usual-d < trip*8/10 {
			t.Errorf("%s: %s, usual %s: not a round trip of %s less", what, d, usual, trip)
		}
	}
	w.stopAll("socks2", "socks", "node")
}
