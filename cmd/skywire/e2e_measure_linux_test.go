package main

import (
	"encoding/json"
	"testing"
	"time"

	"skywire/mesh/meshtest/emulator"
	"skywire/mesh/node/api"
)

// TestE2EMeasures has two boxes talk over a link of known delay and loss: what node peers and node trace show must be within 20 % of it.
func TestE2EMeasures(t *testing.T) {
	t.Parallel()
	const loss = 0.1
	way := emulator.Profile{Delay: 20 * time.Millisecond, Loss: loss}
	w := newWorld(t, "measure")
	w.boxes("a", "b")
	_, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), way, way, 3)
	w.must(err)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	_, _ = w.box["a"].Exec(t.Context(), "ping", "-i0.004", "-c3000", "-W1", "-q", w.address("b")) // it says that some are lost
	near := func(what string, got, want float64) {
		t.Helper()
		t.Logf("%s: %.4f, set %.4f", what, got, want)
		if got < 0.8*want || got > 1.2*want {
			t.Errorf("%s is shown as %.4f, want %.4f within 20 %%", what, got, want)
		}
	}
	for _, b := range []string{"a", "b"} {
		var peers []api.Peer
		out, err := w.box[b].Skywire(t.Context(), "node", "peers", "--json")
		w.must(err, json.Unmarshal([]byte(out), &peers))
		if len(peers) != 1 {
			t.Fatalf("%s has %d peers", b, len(peers))
		}
		near(b+": round trip", peers[0].RTT, 40)
		near(b+": loss", peers[0].Loss, loss)
	}
	var trace api.Trace
	out, err := w.box["a"].Skywire(t.Context(), "node", "trace", w.key["b"], "--json")
	w.must(err, json.Unmarshal([]byte(out), &trace))
	if len(trace.Hops) != 1 || trace.Hops[0].RTT == nil || trace.Hops[0].LinkRTT == nil {
		t.Fatalf("trace: %s", out)
	}
	near("trace: round trip", *trace.Hops[0].RTT, 40)
	near("trace: round trip of the link", *trace.Hops[0].LinkRTT, 40)
	near("trace: loss of the link", trace.Hops[0].Loss, loss)
}
