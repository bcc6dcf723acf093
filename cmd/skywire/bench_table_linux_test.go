//go:build bench

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"skywire/cmd/internal/lab"
)

// benchIdle says what nodes with a session and nothing to do cost.
func (w *world) benchIdle(d time.Duration) string {
	w.t.Helper()
	p := w.run["r node"]
	before, switches := programTime(w.t, []*lab.Process{p}), w.switches(p)
	select {
	case <-time.After(d):
	case <-w.t.Context().Done():
	}
	busy := (programTime(w.t, []*lab.Process{p}) - before) / d.Seconds() * 100
	return fmt.Sprintf("idle relay with two links: %.2f %% of a processor, %.0f wake-ups/s, %.1f MB\n", busy,
		(w.switches(p)-switches)/d.Seconds(), float64(p.RSS())/1e6)
}

// switches counts how often the threads of a program went to sleep.
func (w *world) switches(p *lab.Process) (sum float64) {
	w.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.PID()))
	w.must(err)
	for _, f := range files {
		b, _ := os.ReadFile(f) // a thread may have ended
		_, rest, ok := strings.Cut(string(b), "\nvoluntary_ctxt_switches:")
		if ok {
			var n float64
			_, _ = fmt.Sscan(rest, &n)
			sum += n
		}
	}
	return sum
}

// startSocks gives box c a proxy whose exit is box d.
func (w *world) startSocks() {
	w.t.Helper()
	w.plain("web")
	w.must(w.lab.Wire(w.end("d", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")))
	w.start("d", "socks", "socks", "server", "--allow", w.key["c"], "--allow-private")
	w.start("c", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["d"])
	l := w.listen("web", "10.50.0.2:7000")
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
	w.wait("the proxy", func(ctx context.Context) error {
		_, err := w.box["c"].Shell(ctx, "ss -Htln sport = :1080 | grep -q .")
		return w.alive(w.run["c socks"], err)
	})
	w.reach("c", "d")
}

// benchStreams measures what ends in the nodes: node bench both ways, and one TCP connection through SOCKS.
func (w *world) benchStreams(into map[string][]float64, seconds int) {
	w.t.Helper()
	for _, pair := range [][3]string{{"node bench", "a", "b"}, {"node bench 1 relay", "c", "d"}} {
		var r struct {
			Send    float64 `json:"send_mbit_s"`
			Receive float64 `json:"receive_mbit_s"`
		}
		w.must(w.box[pair[1]].SkywireJSON(w.t.Context(), &r, "node", "bench", w.key[pair[2]], "-t", fmt.Sprint(seconds)))
		into[pair[0]] = append(into[pair[0]], r.Send/1e3, r.Receive/1e3)
	}
	c := w.dial("c", "127.0.0.1:1080", 1)[0]
	defer c.Close()
	w.must(connectSOCKS(c, "10.50.0.2:7000"))
	block, sent, start := make([]byte, 256<<10), 0, time.Now()
	for time.Since(start) < time.Duration(seconds)*time.Second {
		n, err := c.Write(block)
		w.must(err)
		sent += n
	}
	into["socks 1 relay"] = append(into["socks 1 relay"], float64(sent)*8/time.Since(start).Seconds()/1e9)
}

// benchTable has a row a measure and a column a way: median, least and most.
func benchTable(ways []*way) string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, y := range ways {
		fmt.Fprintf(t, "\t%s", y.name)
	}
	fmt.Fprintln(t)
	for _, m := range measures {
		fmt.Fprint(t, m.name)
		for _, y := range ways {
			fmt.Fprintf(t, "\t%s", spread(y.got[m.name]))
		}
		fmt.Fprintf(t, "\t%s\n", m.unit)
	}
	_ = t.Flush()
	return b.String()
}

// benchRatios compares two ways round by round and gives the medians of what came out.
func benchRatios(ways []*way, one, other string) string {
	find := func(name string) *way {
		return ways[slices.IndexFunc(ways, func(y *way) bool { return y.name == name })]
	}
	x, y := find(one), find(other)
	parts := []string{one + " against " + other + ":"}
	for _, m := range []string{"tcp", "tcp back", "tcp 4", "tcp 4 back", "cpu", "own", "busy p50", "busy p99", "rss"} {
		var r []float64
		for i := range min(len(x.got[m]), len(y.got[m])) {
			r = append(r, x.got[m][i]/y.got[m][i])
		}
		parts = append(parts, fmt.Sprintf("%s %s,", m, spread(r)))
	}
	return strings.Join(parts, " ")
}

// spread is the median with the least and the most.
func spread(v []float64) string {
	if len(v) == 0 {
		return "-"
	}
	s := slices.Sorted(slices.Values(v))
	return fmt.Sprintf("%s [%s-%s]", digits(s[len(s)/2]), digits(s[0]), digits(s[len(s)-1]))
}

// digits has three digits that count.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
