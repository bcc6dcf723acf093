package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"

	"skywire/cmd/internal/lab"
)

// TestE2EIdleStreams opens proxied connections that then say nothing: what each costs the nodes and the proxies, that
// nothing is left when they close, and that as many again need no more. An exit takes 1,024 of one client.
func TestE2EIdleStreams(t *testing.T) {
	const streams = 1000
	w := newWorld(t, "idle")
	w.chain("a", "b")
	w.plain("web")
	w.must(w.lab.Wire(w.end("b", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")))
	w.reach("a", "b")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--allow-private")
	w.start("a", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"])
	w.oddServer("web", "10.50.0.2:7000")
	w.wait("proxy", func(ctx context.Context) error {
		_, err := w.box["a"].Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return w.alive(w.run["a socks"], err)
	})
	programs := []*lab.Process{w.run["a node"], w.run["b node"], w.run["a socks"], w.run["b socks"]}
	w.echoes(20)
	w.settle(programs)
	before := w.cost(programs)
	var first, second []cost
	for _, c := range []*[]cost{&first, &second} {
		open := w.echoes(streams)
		*c = w.cost(programs)
		for _, o := range open {
			_ = o.Close()
		}
		w.settle(programs)
	}
	after := w.cost(programs)
	for i, p := range programs {
		per := float64(first[i].rss-before[i].rss) / float64(streams)
		t.Logf("%s of %s: %.1f kB a stream; %.1f MB before, %.1f with %d, %.1f after, %.1f with as many again", p.Name, p.Box.Name, per/1e3,
			mb(before[i].rss), mb(first[i].rss), streams, mb(after[i].rss), mb(second[i].rss))
		if per > 20e3 {
			t.Errorf("%s of %s: %.0f bytes a stream", p.Name, p.Box.Name, per)
		}
		if mb(second[i].rss) > 1.2*mb(first[i].rss)+4 {
			t.Errorf("%s of %s grows", p.Name, p.Box.Name)
		}
	}
	w.stopAll("socks", "node")
}

type cost struct {
	rss int64
	fds int
}

func mb(n int64) float64 { return float64(n) / 1e6 }

func (w *world) cost(programs []*lab.Process) (all []cost) {
	w.t.Helper()
	for _, p := range programs {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
		w.must(err)
		all = append(all, cost{int64(p.RSS()), len(fds)})
	}
	return all
}

// settle waits until no program holds more descriptors than one with nothing to do.
func (w *world) settle(programs []*lab.Process) {
	w.t.Helper()
	const idle = 100
	w.wait("descriptors are closed", func(context.Context) error {
		for i, c := range w.cost(programs) {
			if c.fds > idle {
				return fmt.Errorf("%s of %s has %d", programs[i].Name, programs[i].Box.Name, c.fds)
			}
		}
		return nil
	})
}

// echoes opens connections through the proxy, each of which has echoed a byte.
func (w *world) echoes(n int) []io.Closer {
	w.t.Helper()
	var open []io.Closer
	const atOnce = 250
	for len(open) < n {
		conns := w.through("10.50.0.2:7000", min(atOnce, n-len(open)))
		errs := make([]error, len(conns))
		var wg sync.WaitGroup
		for i, c := range conns {
			open = append(open, c)
			wg.Go(func() {
				b := []byte{askEcho, 1}
				if _, errs[i] = c.Write(b); errs[i] == nil {
					_, errs[i] = io.ReadFull(c, b[:1])
				}
			})
		}
		wg.Wait()
		w.must(errs...)
	}
	return open
}
