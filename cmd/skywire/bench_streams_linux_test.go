//go:build bench

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"skywire/cmd/internal/lab"
)

// benchIdle says what a node with links and nothing to do costs.
func (b *bench) benchIdle(box string) string {
	b.t.Helper()
	const d = 5 * time.Second
	p := b.run[box+" node"]
	before, switches := programTime(b.t, []*lab.Process{p}), b.switches(p)
	pause(d)
	busy := (programTime(b.t, []*lab.Process{p}) - before) / d.Seconds() * 100
	return fmt.Sprintf("idle relay with two links: %.2f %% of a processor, %.0f wake-ups/s, %.1f MB", busy,
		(b.switches(p)-switches)/d.Seconds(), float64(p.RSS())/1e6)
}

// switches counts how often the threads of a program went to sleep.
func (b *bench) switches(p *lab.Process) (sum float64) {
	b.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.PID()))
	b.must(err)
	for _, f := range files {
		text, _ := os.ReadFile(f) // a thread may have ended
		_, rest, ok := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		if ok {
			var n float64
			_, _ = fmt.Sscan(rest, &n)
			sum += n
		}
	}
	return sum
}

// sinkAddr is where a sink listens behind the exit.
const sinkAddr = "10.50.0.2:7000"

// startSocks gives one box a proxy whose exit is another, with a sink behind it.
func (b *bench) startSocks(from, to string) {
	b.t.Helper()
	b.plain("web")
	b.must(b.lab.Wire(b.end(to, "lan", "10.50.0.1/24"), b.end("web", "eth0", "10.50.0.2/24")))
	b.start(to, "socks", "socks", "server", "--allow", b.key[from], "--allow-private")
	b.start(from, "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", b.key[to])
	l := b.listen("web", sinkAddr)
	go func() { // ends when the listener is closed
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
				_ = c.Close()
			}()
		}
	}()
	b.wait("the proxy", func(ctx context.Context) error {
		_, err := b.box[from].Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return b.alive(b.run[from+" socks"], err)
	})
	b.reach(from, to)
}

// benchStreams measures what ends in the nodes: node bench both ways, and one TCP connection through SOCKS.
func (b *bench) benchStreams(y *way) {
	b.t.Helper()
	var r struct {
		Send    float64 `json:"send_mbit_s"`
		Receive float64 `json:"receive_mbit_s"`
	}
	b.must(b.box[y.from].SkywireJSON(b.t.Context(), &r, "node", "bench", b.key[y.to], "-t", fmt.Sprint(b.seconds)))
	y.add("stream", r.Send/1e3)
	y.add("stream back", r.Receive/1e3)
	if !y.socks {
		return
	}
	c := b.dial(y.from, "127.0.0.1:1080", 1)[0]
	defer c.Close()
	b.must(connectSOCKS(c, sinkAddr))
	block, sent, start := make([]byte, 256<<10), 0, time.Now()
	for time.Since(start) < time.Duration(b.seconds)*time.Second {
		n, err := c.Write(block)
		b.must(err)
		sent += n
	}
	y.add("socks", float64(sent)*8/time.Since(start).Seconds()/1e9)
}
