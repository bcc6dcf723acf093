package main

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"skywire/mesh/meshtest/emulator"
	"skywire/mesh/node/api"
)

// TestE2EMeasures has two boxes talk over a link of known delay and loss: what node peers and node trace show must be within 20 % of it.
// The emulated link is late when the machine is busy, so it is looked at again, under more traffic, as long as a figure is off.
func TestE2EMeasures(t *testing.T) {
	t.Parallel()
	const loss, looks = 0.1, 6
	way := emulator.Profile{Delay: 20 * time.Millisecond, Loss: loss}
	w := newWorld(t, "measure")
	w.boxes("a", "b")
	_, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), way, way, 3)
	w.must(err)
	w.node("a", "--no-lan")
	w.node("b", "--no-lan", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	for look := 1; ; look++ {
		_, _ = w.box["a"].Exec(t.Context(), "ping", "-i0.004", "-c2000", "-W1", "-q", w.address("b")) // it says that some are lost
		off := w.measured("a", "b", 40, loss)
		if off == nil {
			return
		}
		t.Logf("look %d: %v", look, off)
		if look == looks {
			t.Fatalf("after %d looks: %v", look, off)
		}
	}
}

// measured tells which of the figures of a link are not within 20 % of its round trip in milliseconds and its loss.
func (w *world) measured(a, b string, rtt, loss float64) error {
	w.t.Helper()
	var off []error
	near := func(what string, got, want float64) {
		if got < 0.8*want || got > 1.2*want {
			off = append(off, fmt.Errorf("%s is shown as %.4f, want %.4f", what, got, want))
		}
	}
	for _, box := range []string{a, b} {
		var peers []api.Peer
		w.must(w.box[box].SkywireJSON(w.t.Context(), &peers, "node", "peers"))
		if len(peers) != 1 {
			w.t.Fatalf("%s has %d peers", box, len(peers))
		}
		near(box+": round trip", peers[0].RTT, rtt)
		near(box+": loss", peers[0].Loss, loss)
	}
	var trace api.Trace
	w.must(w.box[a].SkywireJSON(w.t.Context(), &trace, "node", "trace", w.key[b]))
	if len(trace.Hops) != 1 || trace.Hops[0].RTT == nil || trace.Hops[0].LinkRTT == nil {
		w.t.Fatalf("trace: %+v", trace)
	}
	near("trace: round trip", *trace.Hops[0].RTT, rtt)
	near("trace: round trip of the link", *trace.Hops[0].LinkRTT, rtt)
	near("trace: loss of the link", trace.Hops[0].Loss, loss)
	return errors.Join(off...)
}
