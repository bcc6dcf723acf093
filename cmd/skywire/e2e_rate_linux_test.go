package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const (
	rateMemory = 20e6 // what a node may take at full rate, in bytes (DESIGN 12)
	rateSlack  = 10e6 // for a collector that comes late on a busy machine
	rateLoop   = 4e6  // for each loop but the first: its buffers
)

// TestE2EFullRate sends as fast as the machine can, over a relay, and looks at the most memory that a node ever had.
func TestE2EFullRate(t *testing.T) {
	w := newWorld(t, "rate")
	w.chain("a", "r1", "b")
	w.reach("a", "b")
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	for _, args := range [][]string{{"-P", "4"}, {"-P", "4", "-R"}, {"-u", "-b", "0", "-l", "64"}} {
		rate := w.iperf("a", "b", addr, append(args, "-t", "2")...)
		t.Logf("iperf3 %v: %.2f Gbit/s", args, rate/1e9)
	}
	w.checkPeaks("vpn", "a", "r1", "b")
	if _, err := w.box["a"].Skywire(t.Context(), "node", "bench", w.key["b"], "-t", "1"); err != nil {
		t.Error(err)
	}
	w.checkPeaks("streams", "a", "r1", "b")
}

func (w *world) checkPeaks(after string, boxes ...string) {
	w.t.Helper()
	for _, box := range boxes {
		peak := w.peak(box)
		w.t.Logf("after %s: %s had %.1f MB at most", after, box, peak/1e6)
		if limit := rateMemory + rateSlack + rateLoop*float64(len(w.machine(box).Loops)-1); peak > limit {
			w.t.Errorf("more than %.0f MB", limit/1e6)
		}
	}
}

// peak is the most resident memory that the node of a box ever had, in bytes.
func (w *world) peak(box string) float64 {
	w.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.run[box+" node"].PID()))
	w.must(err)
	_, rest, _ := strings.Cut(string(b), "\nVmHWM:")
	var kib float64
	_, err = fmt.Sscan(rest, &kib)
	w.must(err)
	return kib * 1024
}
