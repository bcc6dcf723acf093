//go:build bench

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skywire/cmd/internal/lab"
)

// way is one of the ways from a box to another that are compared.
type way struct {
	name     string
	from, to string // boxes
	addr     string // of the far end on this way
	programs []*lab.Process
	middle   []*lab.Process // those of the boxes between, which are also in programs
	once     bool           // measured in the first round only
	socks    bool           // a proxy at from has its exit at to
	ours     bool           // the programs are our nodes
	small    *blaster       // 64 bytes of UDP payload
	large    *blaster       // 1,200 bytes
	got      map[string][]float64
}

func newWay(name, from, to, addr string) *way {
	return &way{name: name, from: from, to: to, addr: addr, got: map[string][]float64{}}
}

func (y *way) add(measure string, v float64) { y.got[measure] = append(y.got[measure], v) }

// measure is one row of the table.
type measure struct {
	name, unit string
	better     int // 1: more is better, -1: less
}

var measures = []measure{
	{"tcp", "Gbit/s, 1 stream", 1},
	{"tcp back", "Gbit/s, 1 stream", 1},
	{"tcp 4", "Gbit/s, 4 streams", 1},
	{"tcp 4 back", "Gbit/s, 4 streams", 1},
	{"cpu", "cpu-s/Gbit of the whole machine, 1 stream", -1},
	{"own", "cpu-s/Gbit of the tunnel's programs, 1 stream", -1},
	{"hop", "cpu-s/Gbit of the programs between, 1 stream", -1},
	{"udp 64", "kpackets/s at < 1 % lost, 64 bytes", 1},
	{"udp 64 flood", "kpackets/s delivered of a flood", 1},
	{"udp 64 own", "us of the tunnel's programs a packet", -1},
	{"udp 1200", "kpackets/s at < 1 % lost, 1,200 bytes", 1},
	{"udp 1200 flood", "kpackets/s delivered of a flood", 1},
	{"ping p50", "us", -1},
	{"ping p99", "us", -1},
	{"busy p50", "us beside one TCP stream", -1},
	{"busy p99", "us beside one TCP stream", -1},
	{"stream", "Gbit/s, node bench", 1},
	{"stream back", "Gbit/s, node bench", 1},
	{"socks", "Gbit/s, 1 connection through proxy and exit", 1},
	{"rss", "MB of the program at the sender after all that", -1},
}

// setting reads a number from the environment.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// benchTCP measures one and four streams, both ways, and what one costs.
func (b *bench) benchTCP(y *way) {
	b.t.Helper()
	machine, own, middle := machineTime(b.t), programTime(b.t, y.programs), programTime(b.t, y.middle)
	rate, bits, ok := b.benchIperf(y)
	if ok {
		y.add("tcp", rate)
		y.add("cpu", (machineTime(b.t)-machine)/bits)
	}
	if ok && len(y.programs) > 0 {
		y.add("own", (programTime(b.t, y.programs)-own)/bits)
	}
	if ok && len(y.middle) > 0 {
		y.add("hop", (programTime(b.t, y.middle)-middle)/bits)
	}
	for _, m := range []struct {
		name string
		args []string
	}{{"tcp back", []string{"-R"}}, {"tcp 4", []string{"-P", "4"}}, {"tcp 4 back", []string{"-P", "4", "-R"}}} {
		if rate, _, ok := b.benchIperf(y, m.args...); ok {
			y.add(m.name, rate)
		}
	}
	b.profiled(y, "tcp", func() { b.benchIperf(y) })
}

// benchIperf returns Gbit/s and Gbit of a TCP test against the server of the far box. One that fails is tried again: a
// server that has not noticed the end of the test before says it is busy.
func (b *bench) benchIperf(y *way, args ...string) (rate, bits float64, ok bool) {
	b.t.Helper()
	var last string
	for range 3 {
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Duration(b.seconds)*time.Second+15*time.Second)
		out, err := b.box[y.from].Exec(ctx, "iperf3", append([]string{"-c", y.addr, "-J", "-t", strconv.Itoa(b.seconds)}, args...)...)
		cancel()
		var r struct {
			Error string
			End   struct {
				Received struct {
					Bytes float64
					Rate  float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		if err == nil {
			err = json.Unmarshal([]byte(out), &r)
		}
		if e := r.End.Received; err == nil && r.Error == "" && e.Bytes > 0 {
			return e.Rate / 1e9, e.Bytes * 8 / 1e9, true
		}
		last = fmt.Sprint(err, r.Error)
		pause(500 * time.Millisecond)
	}
	b.t.Errorf("iperf3 %v, %s: %s", args, y.name, last)
	return 0, 0, false
}

// benchUDP searches for the packets a second that pass.
func (b *bench) benchUDP(y *way) {
	b.t.Helper()
	best, flood := y.small.search()
	y.add("udp 64", best/1e3)
	y.add("udp 64 flood", flood/1e3)
	if own := programTime(b.t, y.programs); len(y.programs) > 0 {
		offered, _ := y.small.blast(best, ppsRead)
		y.add("udp 64 own", (programTime(b.t, y.programs)-own)*1e6/(offered*ppsRead.Seconds()))
	}
	b.profiled(y, "udp", func() { y.small.blast(0, profileTime) })
	if b.brief {
		return
	}
	best, flood = y.large.search()
	y.add("udp 1200", best/1e3)
	y.add("udp 1200 flood", flood/1e3)
}

// benchPings measures round trips with nothing else on the way and beside a TCP stream.
func (b *bench) benchPings(y *way) {
	b.t.Helper()
	if b.brief {
		return
	}
	b.benchPing(y, "ping", 0.7)
	busy := make(chan struct{})
	go func() { // ends below
		defer close(busy)
		_, _ = b.box[y.from].Exec(b.t.Context(), "iperf3", "-c", y.addr, "-t", "2")
	}()
	b.benchPing(y, "busy", 1.4)
	<-busy
}

// benchRest measures what only our nodes have, and the memory of the program at the sender.
func (b *bench) benchRest(y *way) {
	b.t.Helper()
	if y.ours && !b.brief {
		b.benchStreams(y)
	}
	if len(y.programs) > 0 {
		y.add("rss", float64(y.programs[0].RSS())/1e6)
	}
}

var pingTime = regexp.MustCompile(`time=([\d.]+)`)

func (b *bench) benchPing(y *way, name string, seconds float64) {
	b.t.Helper()
	count := int(seconds / 0.0025)
	out, _ := b.box[y.from].Exec(b.t.Context(), "ping", "-i", "0.0025", "-c", strconv.Itoa(count), "-W", "1", y.addr)
	var us []float64
	for _, m := range pingTime.FindAllStringSubmatch(out, -1) {
		v, _ := strconv.ParseFloat(m[1], 64)
		us = append(us, v*1000)
	}
	if len(us) < count/2 {
		b.t.Logf("%s: %d of %d pings answered", y.name, len(us), count)
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
	fields := strings.Fields(line)
	sum := 0.0
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		v, _ := strconv.ParseFloat(fields[i], 64)
		sum += v / 100 // USER_HZ
	}
	return sum
}

// programTime is the processor time of programs, in seconds: their clocks count nanoseconds where /proc counts ticks.
func programTime(t testing.TB, programs []*lab.Process) (sum float64) {
	t.Helper()
	for _, p := range programs {
		const sched = 2 // CPUCLOCK_SCHED of a whole process: what clock_getcpuclockid makes
		var ts unix.Timespec
		if err := unix.ClockGettime(int32(^p.PID()<<3|sched), &ts); err != nil {
			t.Fatalf("clock of %s in %s: %v", p.Name, p.Box.Name, err)
		}
		sum += time.Duration(ts.Nano()).Seconds()
	}
	return sum
}
