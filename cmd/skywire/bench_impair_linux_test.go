//go:build bench

package main

import (
	"fmt"
	"testing"
	"time"
)

// TestBenchImpair prints what TestE2EImpair asserts, measured for longer.
func TestBenchImpair(t *testing.T) {
	for _, mtu := range []int{1500, 576} {
		t.Run(fmt.Sprint(mtu), func(t *testing.T) {
			w := newWorld(t, "impair")
			addr := w.impairedPair(mtu)
			race := w.race("a", "b", "10.1.0.2", addr)
			var ratios []float64
			var kernel, mesh float64
			const windows, seconds = 5, 6
			for range windows {
				k, m := race.run(seconds * time.Second)
				kernel, mesh, ratios = kernel+k, mesh+m, append(ratios, m/k)
			}
			t.Logf("underlay of %d: kernel %.1f, mesh %.1f Mbit/s, %d streams each at the same time, ratio %.2f, of windows %s",
				mtu, kernel*8/1e6/(windows*seconds), mesh*8/1e6/(windows*seconds), raceStreams, mesh/kernel, spread(ratios))
		})
	}
}
