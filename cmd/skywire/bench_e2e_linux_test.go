//go:build bench

package main

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"skywire/cmd/internal/lab"
)

// What `make bench-e2e` and `make bench-slow` measure with the real binary: ways from one box to another, each in turn and
// round after round, so that whatever else the machine does meets all of them. Medians count, and of those the ratios
// within one run: two tunnel ends, two TCP ends and iperf3 share the processors. "own" is the time of the tunnel's programs
// alone, with the softirqs that they run: the number that depends least on other load.
//
//	SKYWIRE_BENCH_ONLY      regular expression on PART/WAY: direct/, relay/(skywire|wireguard)
//	SKYWIRE_BENCH_ROUNDS    how often each way is measured (3)
//	SKYWIRE_BENCH_SECONDS   of each TCP test (1)
//	SKYWIRE_BENCH_OUT       folder for PART.md and PART.json (build/bench/results)
//	SKYWIRE_BENCH_PROFILE   folder for profiles of our nodes, WAY-MEASURE-BOX.pprof; figures are then not for comparing

// bench is one part: a world with ways that are measured in turns.
type bench struct {
	*world
	part    string
	slow    bool           // ChaCha20-Poly1305 and nothing that spares work, at all ends
	brief   bool           // TCP and small packets only
	pins    map[string]int // processors of boxes that have one of their own
	ways    []*way
	notes   []string
	ports   int // given to tunnels of others
	rounds  int
	seconds int
}

// TestBenchE2E compares tunnels on the machine as it is.
func TestBenchE2E(t *testing.T) {
	for _, p := range []struct {
		name  string
		build func(*bench)
	}{{"direct", (*bench).direct}, {"relay", (*bench).relay}, {"relay3", (*bench).relay3}, {"cut", (*bench).cut}, {"core", (*bench).core}} {
		t.Run(p.name, func(t *testing.T) { runBench(t, p.name, false, p.build) })
	}
}

// TestBenchSlow has one box with one processor, no offload anywhere, and ChaCha20-Poly1305.
func TestBenchSlow(t *testing.T) {
	t.Run("direct", func(t *testing.T) { runBench(t, "slow direct", true, (*bench).slowDirect) })
	t.Run("relay", func(t *testing.T) { runBench(t, "slow relay", true, (*bench).slowRelay) })
}

func runBench(t *testing.T, part string, slow bool, build func(*bench)) {
	b := &bench{
		world: newWorld(t, "bench"), part: part, slow: slow, pins: map[string]int{},
		rounds: setting("SKYWIRE_BENCH_ROUNDS", 3), seconds: setting("SKYWIRE_BENCH_SECONDS", 1),
	}
	build(b)
	if len(b.ways) == 0 {
		t.Skip("SKYWIRE_BENCH_ONLY wants nothing of this part")
	}
	b.ways = slices.DeleteFunc(b.ways, b.dead)
	for _, y := range b.ways {
		y.small = b.newBlaster(y.from, y.to, netip.MustParseAddr(y.addr), 64)
		y.large = b.newBlaster(y.from, y.to, netip.MustParseAddr(y.addr), 1200)
	}
	for round := range b.rounds {
		for _, y := range b.ways {
			if y.once && round > 0 {
				continue
			}
			b.benchTCP(y)
			b.benchUDP(y)
			b.benchPings(y)
			b.benchRest(y)
		}
	}
	for _, y := range b.ways {
		b.checkRelayed(y)
	}
	b.report()
}

// dead tells whether a way does not come up. Of a tunnel of others that is said and no reason to measure nothing.
func (b *bench) dead(y *way) bool {
	b.t.Helper()
	err := lab.Wait(b.t.Context(), patience, "ping "+y.addr, func(ctx context.Context) error {
		_, err := b.box[y.from].Exec(ctx, "ping", "-c1", "-W1", y.addr)
		return err
	})
	if err != nil && (y.ours || len(y.programs) == 0) {
		b.t.Fatal(err)
	} else if err != nil {
		b.t.Logf("%s left out: %v: %s", y.name, err, y.programs[0].Tail(5))
	}
	return err != nil
}

// add makes a way if it is wanted and all programs that it needs are there.
func (b *bench) add(name string, build func(name string) *way, programs ...string) {
	b.t.Helper()
	if only, err := regexp.Compile(os.Getenv("SKYWIRE_BENCH_ONLY")); err != nil || !only.MatchString(b.part+"/"+name) {
		b.must(err)
		return
	}
	if gone := b.missing(programs...); len(gone) > 0 {
		b.t.Logf("%s left out: %v is missing (.ci/tools bench installs it)", name, gone)
		return
	}
	b.ways = append(b.ways, build(name))
}

// line makes boxes in a row, wired one to the next, that route for each other, with an iperf3 server in the last one.
func (b *bench) line(net string, names ...string) []hop {
	b.t.Helper()
	b.boxes(names...)
	hops := make([]hop, len(names))
	for i, n := range names {
		hops[i].box = n
		if dir := profileDir(); dir != "" {
			b.must(os.MkdirAll(dir, 0o755))
			b.box[n].Setenv("SKYWIRE_PROFILE", dir)
		}
		if b.slow {
			b.box[n].Setenv("GODEBUG", "cpu.aes=off")
		}
		if i == 0 {
			continue
		}
		wire := func(end string) string { return net + "." + string(rune('0'+i)) + end }
		b.must(b.lab.Wire(b.end(names[i-1], "next", wire(".1/24")), b.end(n, "prev", wire(".2/24"))))
		hops[i-1].next, hops[i].prev = wire(".2"), wire(".1")
	}
	for i, n := range names {
		b.must(b.box[n].Forward())
		for wire := 1; wire < len(names); wire++ { // wire w joins boxes w-1 and w
			subnet := net + "." + string(rune('0'+wire)) + ".0/24"
			switch {
			case wire < i:
				b.must(b.box[n].IP("route add " + subnet + " via " + hops[i].prev))
			case wire > i+1:
				b.must(b.box[n].IP("route add " + subnet + " via " + hops[i].next))
			}
		}
	}
	return hops
}

// serve starts what the far box of a line answers with; the box has its final environment by now.
func (b *bench) serve(hops []hop) {
	b.t.Helper()
	to := hops[len(hops)-1].box
	_, err := b.box[to].Start("iperf3", "iperf3", "-s", "--forceflush")
	b.must(err)
	b.wait("iperf3 server", func(ctx context.Context) error {
		_, err := b.box[to].Shell(ctx, "ss -Htln sport = :5201 | grep -q .")
		return err
	})
}

// ends are the first and the last hop of a line as neighbours: what a tunnel sees that others route.
func ends(hops []hop) []hop {
	last := len(hops) - 1
	return []hop{{box: hops[0].box, next: hops[last-1].next}, {box: hops[last].box, prev: hops[1].prev}}
}

// pin gives boxes one processor for whatever runs in them.
func (b *bench) pin(cpu int, boxes ...string) {
	for _, n := range boxes {
		b.pins[n] = cpu
		b.box[n].Wrap("taskset", "-c", string(rune('0'+cpu)))
	}
}

// skywire runs our nodes along hops, each peered to the one before, and the vpn at both ends.
func (b *bench) skywire(name string, hops []hop, plain bool) *way {
	b.t.Helper()
	last := len(hops) - 1
	y := newWay(name, hops[0].box, hops[last].box, "")
	y.ours = true
	for i, h := range hops {
		var args []string
		if i > 0 {
			args = append(args, "--peer", b.peer(hops[i-1].box, h.prev))
		}
		if plain {
			args = append(args, "--plain")
		}
		y.programs = append(y.programs, b.node(h.box, args...))
	}
	var words []string
	if plain {
		words = []string{"--plain"}
	}
	b.vpnUpWith(words, y.from, y.to)
	y.middle = y.programs[1:last]
	y.addr = b.address(y.to)
	return y
}

// checkRelayed fails when the relays of a way of ours did not carry what it is said to have carried.
func (b *bench) checkRelayed(y *way) {
	b.t.Helper()
	if !y.ours {
		return
	}
	for _, p := range y.middle {
		if n := number(b.status(p.Box.Name)["relayed_packets"]); n < 1000 {
			b.t.Errorf("%s: %s relayed %.0f packets: another way was taken", y.name, p.Box.Name, n)
		}
	}
}

// keep writes NAME.md, and v as NAME.json, into the folder of results, and prints the former.
func (w *world) keep(name, md string, v any) {
	w.t.Helper()
	dir := os.Getenv("SKYWIRE_BENCH_OUT")
	if dir == "" {
		dir = "../../build/bench/results"
	}
	w.must(os.MkdirAll(dir, 0o755))
	dir, err := filepath.Abs(dir)
	w.must(err)
	text, err := json.MarshalIndent(v, "", "\t")
	w.must(err)
	path := filepath.Join(dir, slug(name))
	w.must(os.WriteFile(path+".json", append(text, '\n'), 0o644), os.WriteFile(path+".md", []byte(md), 0o644))
	w.t.Logf("%s.md and .json\n%s", path, md)
}
