//go:build bench

package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// goal is a ratio of one run that issue and README promise: way to other, of one measure.
type goal struct {
	part, measure, way, other string
	want                      float64 // at least; negative: at most
}

var goals = []goal{
	{"direct", "tcp", "skywire", "wireguard", 2.5},
	{"direct", "tcp back", "skywire", "wireguard", 2.5},
	{"direct", "tcp 4", "skywire", "wireguard", 2.5},
	{"direct", "tcp 4 back", "skywire", "wireguard", 2.5},
	{"direct", "own", "skywire", "wireguard", -0.4},
	{"direct", "cpu", "skywire", "wireguard", -0.4},
	{"direct", "tcp", "chacha", "wireguard", 1.3},
	{"direct", "tcp 4", "chacha", "wireguard", 1.3},
	{"direct", "own", "chacha", "wireguard", 0},
	{"direct", "tcp", "skywire", "copy", 0},
	{"direct", "tcp", "skywire", "nebula", 0},
	{"direct", "udp 64", "skywire", "nebula", 1.2},
	{"direct", "udp 64", "skywire", "wireguard", 1.2},
	{"direct", "udp 64 flood", "skywire", "nebula", 0},
	{"direct", "udp 64 own", "skywire", "nebula", 0},
	{"direct", "udp 1200", "skywire", "nebula", 0},
	{"direct", "ping p50", "skywire", "wireguard", -1},
	{"direct", "busy p99", "skywire", "wireguard", -0.5},
	{"direct", "rss", "skywire", "wireguard", 0},
	{"relay", "tcp", "skywire", "wg routed", 0},
	{"relay", "tcp", "skywire", "wg relay", 0},
	{"relay", "tcp", "skywire", "neb relay", 0},
	{"relay", "own", "skywire", "wg routed", 0},
	{"relay", "hop", "skywire", "wg relay", 0},
	{"relay", "udp 64", "skywire", "neb routed", 1.2},
	{"relay", "udp 64", "skywire", "neb relay", 1.2},
	{"relay", "udp 64", "skywire", "wg routed", 1.2},
	{"relay", "busy p99", "skywire", "wg routed", -0.5},
	{"relay3", "tcp", "skywire", "wg routed", 0},
	{"relay3", "tcp", "skywire", "wg relay", 0},
	{"relay3", "udp 64", "skywire", "wg routed", 0},
	{"cut", "tcp", "skywire", "wireguard", 0},
	{"cut", "tcp", "plain", "wireguard", 0},
	{"cut", "udp 64", "skywire", "nebula", 1.2},
	{"cut", "udp 64", "plain", "nebula", 0},
	{"core", "tcp", "relayed", "direct", 0.8},
	{"core", "tcp 4", "relayed", "direct", 0.8},
	{"core", "udp 64", "relayed", "direct", 0.8},
	{"slow direct", "tcp", "skywire", "wireguard", 0},
	{"slow direct", "tcp back", "skywire", "wireguard", 0},
	{"slow direct", "tcp", "offload", "wireguard", 0},
	{"slow direct", "tcp back", "offload", "wireguard", 0},
	{"slow direct", "tcp", "skywire", "nebula", 0},
	{"slow direct", "tcp back", "skywire", "nebula", 0},
	{"slow direct", "udp 64", "skywire", "nebula", 0},
	{"slow direct", "busy p99", "skywire", "wireguard", 0},
	{"slow relay", "tcp", "skywire", "routed", 0},
	{"slow relay", "tcp", "skywire", "wg relay", 0},
	{"slow relay", "tcp", "offload", "wg relay", 0},
	{"slow relay", "hop", "offload", "wg relay", 0},
	{"slow relay", "udp 64", "offload", "neb relay", 0},
	{"slow relay", "udp 64", "skywire", "routed", 0},
	{"slow relay", "udp 64", "skywire", "neb relay", 0},
}

// scene is when and where something was measured.
type scene struct {
	Time    time.Time `json:"time"`
	Kernel  string    `json:"kernel"`
	CPU     string    `json:"cpu"`
	CPUs    int       `json:"cpus"`
	Load    string    `json:"load"` // at the end
	Rounds  int       `json:"rounds"`
	Seconds int       `json:"seconds"`
}

func sceneNow(rounds, seconds int) scene {
	load, _ := os.ReadFile("/proc/loadavg")
	return scene{
		Time: time.Now().UTC().Truncate(time.Second), Kernel: kernel(), CPU: processor(), CPUs: runtime.NumCPU(),
		Load: strings.TrimSpace(string(load)), Rounds: rounds, Seconds: seconds,
	}
}

func (s scene) String() string {
	return fmt.Sprintf("%s, %d × %s, Linux %s, %d rounds of %d s, load at the end %s. Median [least–most].",
		s.Time.Format("2006-01-02 15:04"), s.CPUs, s.CPU, s.Kernel, s.Rounds, s.Seconds, s.Load)
}

// result is PART.json.
type result struct {
	Part string `json:"part"`
	scene
	Units  map[string]string               `json:"units"`
	Ways   map[string]map[string][]float64 `json:"ways"` // way, measure, rounds
	Ratios []ratio                         `json:"ratios"`
	Notes  []string                        `json:"notes,omitempty"`
}

type ratio struct {
	Measure string    `json:"measure"`
	Way     string    `json:"way"`
	Other   string    `json:"other"`
	Rounds  []float64 `json:"rounds"`
	Median  float64   `json:"median"`
	AtLeast float64   `json:"at_least,omitempty"`
	AtMost  float64   `json:"at_most,omitempty"`
}

// report writes PART.json and PART.md, and prints the latter.
func (b *bench) report() {
	b.t.Helper()
	r := result{
		Part: b.part, scene: sceneNow(b.rounds, b.seconds),
		Units: map[string]string{}, Ways: map[string]map[string][]float64{}, Notes: b.notes,
	}
	for _, m := range measures {
		r.Units[m.name] = m.unit
	}
	for _, y := range b.ways {
		r.Ways[y.name] = y.got
	}
	for _, g := range goals {
		if g.part == b.part {
			r.Ratios = append(r.Ratios, g.ratios(r.Ways)...)
		}
	}
	b.keep(b.part, b.markdown(r), r)
}

// ratios compares two ways round by round; none where one of them was not measured.
func (g goal) ratios(ways map[string]map[string][]float64) []ratio {
	x, y := ways[g.way][g.measure], ways[g.other][g.measure]
	r := ratio{Measure: g.measure, Way: g.way, Other: g.other, AtLeast: max(0, g.want), AtMost: max(0, -g.want)}
	for i := range min(len(x), len(y)) {
		if y[i] > 0 {
			r.Rounds = append(r.Rounds, x[i]/y[i])
		}
	}
	if len(r.Rounds) == 0 {
		return nil
	}
	r.Median = median(r.Rounds)
	return []ratio{r}
}

func (b *bench) markdown(r result) string {
	var s strings.Builder
	fmt.Fprintf(&s, "### %s\n\n%s\n\n", r.Part, r.scene)
	row := func(cells ...string) { fmt.Fprintf(&s, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{""}, []string{"---"}
	for _, y := range b.ways {
		head, rule = append(head, y.name), append(rule, "---")
	}
	row(append(head, "unit")...)
	row(append(rule, "---")...)
	for _, m := range measures {
		cells, some := []string{m.name}, false
		for _, y := range b.ways {
			cells, some = append(cells, spread(y.got[m.name])), some || len(y.got[m.name]) > 0
		}
		if some {
			row(append(cells, m.unit)...)
		}
	}
	if len(r.Ratios) > 0 {
		s.WriteString("\n| ratio | of | to | measured | wanted |\n| --- | --- | --- | --- | --- |\n")
	}
	for _, q := range r.Ratios {
		row(q.Measure, q.Way, q.Other, spread(q.Rounds), q.verdict())
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&s, "\n%s\n", n)
	}
	s.WriteString("\n")
	return s.String()
}

// verdict is the wanted figure and whether it was reached; "-" where there is none.
func (q ratio) verdict() string {
	word := func(ok bool) string {
		if ok {
			return "reached"
		}
		return "**missed**"
	}
	switch {
	case q.AtLeast > 0:
		return fmt.Sprintf("≥ %v, %s", q.AtLeast, word(q.Median >= q.AtLeast))
	case q.AtMost > 0:
		return fmt.Sprintf("≤ %v, %s", q.AtMost, word(q.Median <= q.AtMost))
	}
	return "-"
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// spread is the median with the least and the most.
func spread(v []float64) string {
	switch len(v) {
	case 0:
		return "-"
	case 1:
		return digits(v[0])
	}
	return fmt.Sprintf("%s [%s–%s]", digits(median(v)), digits(slices.Min(v)), digits(slices.Max(v)))
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
