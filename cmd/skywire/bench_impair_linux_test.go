//go:build bench

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestBenchImpair prints what TestE2EImpair asserts, measured for longer.
func TestBenchImpair(t *testing.T) {
	const seconds = 6
	var md strings.Builder
	md.WriteString("| underlay, bytes | kernel, Mbit/s | mesh, Mbit/s | ratio |\n| --- | --- | --- | --- |\n")
	results := map[string][]float64{}
	rounds := setting("SKYWIRE_BENCH_ROUNDS", 3)
	for _, mtu := range []int{1500, 576} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			w := newWorld(t, "impair")
			addr := w.impairedPair(mtu)
			race := w.race("a", "b", "10.1.0.2", addr)
			var kernel, mesh, ratios []float64
			for range rounds {
				k, m := race.run(seconds * time.Second)
				kernel, mesh, ratios = append(kernel, k*8/1e6/seconds), append(mesh, m*8/1e6/seconds), append(ratios, m/k)
			}
			name := fmt.Sprint(mtu)
			results[name+" kernel"], results[name+" mesh"], results[name+" ratio"] = kernel, mesh, ratios
			fmt.Fprintf(&md, "| %d | %s | %s | %s |\n", mtu, spread(kernel), spread(mesh), spread(ratios))
		})
	}
	now := sceneNow(rounds, seconds)
	w := &world{t: t}
	w.keep("impaired", fmt.Sprintf("### impaired\n\n%s Wanted: ≥ 0.85. %d TCP streams (Reno) on each way at the same time, over a link with %s.\n\n%s\n",
		now, raceStreams, "20 ms there and back, up to 2 ms of jitter each way, 1 % loss, 0.5 % reordering, 0.5 % duplication", md.String()), struct {
		scene
		Results map[string][]float64 `json:"results"`
	}{now, results})
}
