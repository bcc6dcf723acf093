//go:build bench

package main

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// What `make bench` measures with the real binary: the ways from one box to another, each in turn and round after round,
// so that whatever else the machine does meets all of them. Medians count, and of those the ratios within one run: two
// tunnel ends, two TCP ends and iperf3 share the processors. "own" is the time of the tunnel's programs alone, with the
// softirqs that they run: the number that depends least on other load.

// way is one of the ways that are compared.
type way struct {
	name     string
	from, to string // boxes
	addr     string // of the far end on this way
	programs []*lab.Process
	got      map[string][]float64
}

func (y *way) add(measure string, v float64) { y.got[measure] = append(y.got[measure], v) }

// measures are the rows of the table, in their order.
var measures = []struct{ name, unit string }{
	{"tcp", "Gbit/s, 1 stream"},
	{"tcp back", "Gbit/s"},
	{"tcp 4", "Gbit/s, 4 streams"},
	{"tcp 4 back", "Gbit/s"},
	{"cpu", "cpu-s/Gbit, all of the machine"},
	{"own", "cpu-s/Gbit, the tunnel's programs"},
	{"udp loss", "% at 200 Mbit/s, 1,200 bytes"},
	{"udp way", "% of it not lost in iperf3's own socket"},
	{"ping p50", "us"},
	{"ping p99", "us"},
	{"busy p50", "us beside one TCP stream"},
	{"busy p99", "us"},
	{"rss", "MB of the program at the sender after it"},
}

// setting reads a number from the environment.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// TestBenchPeers compares plain veth, wireguard-go and skywire, between neighbours and over one hop.
func TestBenchPeers(t *testing.T) {
	rounds, seconds := setting("SKYWIRE_BENCH_ROUNDS", 5), setting("SKYWIRE_BENCH_SECONDS", 1)
	w := newWorld(t, "bench")
	ways := w.benchWays()
	idle := w.benchIdle(10 * time.Second)
	streams := map[string][]float64{}
	for range rounds {
		for _, y := range ways {
			w.benchWay(y, seconds)
		}
		w.benchStreams(streams, seconds)
	}
	load, _ := os.ReadFile("/proc/loadavg")
	t.Logf("%d rounds of %d s, load at the end %s%s%s", rounds, seconds, load, benchTable(ways), idle)
	for _, r := range [][2]string{{"skywire", "wireguard"}, {"chacha", "wireguard"}, {"sky relay", "wg routed"}} {
		t.Log(benchRatios(ways, r[0], r[1]))
	}
	for _, name := range []string{"node bench", "node bench 1 relay", "socks 1 relay"} {
		t.Logf("%-20s %s Gbit/s", name, spread(streams[name]))
	}
}

// benchWays makes three pairs of boxes: a and b are neighbours, c and d have the hop r between them, e and f are
// neighbours whose processors are told to have no AES, which makes them agree on ChaCha20-Poly1305.
func (w *world) benchWays() []*way {
	w.t.Helper()
	w.boxes("a", "b", "c", "r", "d", "e", "f")
	for _, b := range []string{"e", "f"} {
		w.box[b].Setenv("GODEBUG", "cpu.aes=off")
	}
	w.must(
		w.lab.Wire(w.end("a", "wire", "10.1.0.1/24"), w.end("b", "wire", "10.1.0.2/24")),
		w.lab.Wire(w.end("e", "wire", "10.2.0.1/24"), w.end("f", "wire", "10.2.0.2/24")),
		w.lab.Wire(w.end("c", "wire", "10.3.0.1/24"), w.end("r", "left", "10.3.0.2/24")),
		w.lab.Wire(w.end("r", "right", "10.4.0.2/24"), w.end("d", "wire", "10.4.0.1/24")),
		w.box["r"].Forward(),
		w.box["c"].IP("route add 10.4.0.0/24 via 10.3.0.2"), w.box["d"].IP("route add 10.3.0.0/24 via 10.4.0.2"),
	)
	for _, b := range []string{"b", "d", "f"} {
		_, err := w.box[b].Start("iperf3", "iperf3", "-s", "--forceflush")
		w.must(err)
	}
	n := map[string]*lab.Process{}
	for _, box := range []string{"a", "e", "r"} {
		n[box] = w.node(box)
	}
	n["b"] = w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	n["f"] = w.node("f", "--peer", w.peer("e", "10.2.0.1"))
	n["c"] = w.node("c", "--peer", w.peer("r", "10.3.0.2"))
	n["d"] = w.node("d", "--peer", w.peer("r", "10.4.0.2"))
	w.vpnUp("a", "b", "c", "d", "e", "f")
	ways := []*way{
		{name: "veth", from: "a", to: "b", addr: "10.1.0.2"},
		w.wireguardPair("wireguard", "a", "10.1.0.1", "b", "10.1.0.2"),
		{name: "skywire", from: "a", to: "b", addr: w.address("b"), programs: []*lab.Process{n["a"], n["b"]}},
		{name: "chacha", from: "e", to: "f", addr: w.address("f"), programs: []*lab.Process{n["e"], n["f"]}},
		{name: "routed", from: "c", to: "d", addr: "10.4.0.1"},
		w.wireguardPair("wg routed", "c", "10.3.0.1", "d", "10.4.0.1"),
		{name: "sky relay", from: "c", to: "d", addr: w.address("d"), programs: []*lab.Process{n["c"], n["d"], n["r"]}},
	}
	for _, y := range ways {
		y.got = map[string][]float64{}
		w.pings(y.from, y.addr)
	}
	w.startSocks()
	return ways
}

// wireguardPair builds the runner of .ci/bench once and starts it at both ends.
func (w *world) wireguardPair(name, from, fromAddr, to, toAddr string) *way {
	w.t.Helper()
	path, err := filepath.Abs("../../build/bench/wireguard-go")
	w.must(err)
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "../../.ci/bench"
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		w.t.Fatalf("wireguard-go: %v: %s", err, out)
	}
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		keys[i], err = ecdh.X25519().GenerateKey(rand.Reader)
		w.must(err)
	}
	y := &way{name: name, from: from, to: to, addr: "10.9.0.2"}
	for i, end := range []struct{ box, peer string }{{from, toAddr}, {to, fromAddr}} {
		p, err := w.box[end.box].Start("wireguard", path, "wg0", "51820", hex.EncodeToString(keys[i].Bytes()),
			hex.EncodeToString(keys[1-i].PublicKey().Bytes()), end.peer+":51820")
		w.must(err)
		y.programs = append(y.programs, p)
		w.wait("wg0 of "+end.box, func(context.Context) error {
			return w.alive(p, w.box[end.box].IP("link show dev wg0"))
		})
		w.must(w.box[end.box].IP(fmt.Sprintf("addr add 10.9.0.%d/24 dev wg0", i+1)), w.box[end.box].IP("link set wg0 up"))
	}
	return y
}

// benchWay measures everything once.
func (w *world) benchWay(y *way, seconds int) {
	w.t.Helper()
	machine, own := machineTime(w.t), programTime(w.t, y.programs)
	rate, bits := w.benchIperf(y, seconds)
	y.add("tcp", rate)
	y.add("cpu", (machineTime(w.t)-machine)/bits)
	y.add("own", (programTime(w.t, y.programs)-own)/bits)
	for _, m := range []struct {
		name string
		args []string
	}{{"tcp back", []string{"-R"}}, {"tcp 4", []string{"-P", "4"}}, {"tcp 4 back", []string{"-P", "4", "-R"}}} {
		rate, _ = w.benchIperf(y, seconds, m.args...)
		y.add(m.name, rate)
	}
	w.benchUDP(y, seconds)
	w.benchPing(y, "ping", 1)
	busy := make(chan struct{})
	go func() { // ends below
		defer close(busy)
		_, _ = w.box[y.from].Exec(w.t.Context(), "iperf3", "-c", y.addr, "-t", "2")
	}()
	w.benchPing(y, "busy", 1.5)
	<-busy
	if len(y.programs) > 0 {
		y.add("rss", float64(y.programs[0].RSS())/1e6)
	}
}

type iperfEnd struct {
	Sum, SumReceived struct {
		Bytes         float64
		BitsPerSecond float64 `json:"bits_per_second"`
		LostPackets   float64 `json:"lost_packets"`
		Packets       float64
	}
}

// iperfJSON runs one test against the server that runs in the far box.
func (w *world) iperfJSON(y *way, seconds int, args ...string) iperfEnd {
	w.t.Helper()
	out := w.exec(y.from, "iperf3", append([]string{"-c", y.addr, "-J", "-t", strconv.Itoa(seconds)}, args...)...)
	var r struct {
		Error string
		End   struct {
			Sum         json.RawMessage
			SumReceived json.RawMessage `json:"sum_received"`
		}
	}
	w.must(json.Unmarshal([]byte(out), &r))
	if r.Error != "" {
		w.t.Fatalf("iperf3 %s: %s", y.name, r.Error)
	}
	var e iperfEnd
	if r.End.Sum != nil {
		w.must(json.Unmarshal(r.End.Sum, &e.Sum))
	}
	if r.End.SumReceived != nil {
		w.must(json.Unmarshal(r.End.SumReceived, &e.SumReceived))
	}
	return e
}

// benchIperf returns Gbit/s and Gbit of a TCP test.
func (w *world) benchIperf(y *way, seconds int, args ...string) (rate, bits float64) {
	w.t.Helper()
	e := w.iperfJSON(y, seconds, args...)
	return e.SumReceived.BitsPerSecond / 1e9, e.SumReceived.Bytes * 8 / 1e9
}

// benchUDP tells what the way lost from what iperf3 did not fetch from its own socket in time, which a busy machine
// makes the larger part, without any tunnel too.
func (w *world) benchUDP(y *way, seconds int) {
	w.t.Helper()
	before := w.socketFull(y.to)
	e := w.iperfJSON(y, seconds, "-u", "-b", "200M", "-l", "1200")
	full := w.socketFull(y.to) - before
	y.add("udp loss", e.Sum.LostPackets/e.Sum.Packets*100)
	y.add("udp way", max(0, e.Sum.LostPackets-full)/e.Sum.Packets*100)
}

var rcvbufErrors = regexp.MustCompile(`(?m)^Udp6?RcvbufErrors\s+(\d+)`)

// socketFull counts the datagrams that a box's sockets had no room for. The tunnels' sockets have 4 MB and count too.
func (w *world) socketFull(box string) (n float64) {
	w.t.Helper()
	for _, m := range rcvbufErrors.FindAllStringSubmatch(w.exec(box, "nstat", "-asz"), -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		n += v
	}
	return n
}

var pingTime = regexp.MustCompile(`time=([\d.]+)`)

func (w *world) benchPing(y *way, name string, seconds float64) {
	w.t.Helper()
	count := int(seconds / 0.005)
	out, _ := w.box[y.from].Exec(w.t.Context(), "ping", "-i", "0.005", "-c", strconv.Itoa(count), "-W", "1", y.addr)
	var us []float64
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		us = append(us, v*1000)
	}
	if len(us) < count/2 {
		w.t.Errorf("%s: %d of %d pings answered", y.name, len(us), count)
		return
	}
	slices.Sort(us)
	y.add(name+" p50", us[len(us)/2])
	y.add(name+" p99", us[len(us)*99/100])
}

// machineTime is the busy time of all processors since the start, in seconds.
func machineTime(t testing.TB) float64 {
	t.Helper()
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return ticks(strings.Fields(line), 1, 2, 3, 6, 7) // user, nice, system, irq, softirq
}

// programTime is the processor time of programs, in seconds.
func programTime(t testing.TB, programs []*lab.Process) (sum float64) {
	t.Helper()
	for _, p := range programs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ") // after the name, which may have spaces
		sum += ticks(strings.Fields(rest), 11, 12)
	}
	return sum
}

func ticks(fields []string, which ...int) (sum float64) {
	for _, i := range which {
		v, _ := strconv.ParseFloat(fields[i], 64)
		sum += v / 100 // USER_HZ
	}
	return sum
}
