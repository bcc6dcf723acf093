package main

import (
	"testing"
	"time"

	"skywire/mesh/meshtest/emulator"
)

// TestE2EStreamLoss: over a long path that loses packets, a stream between nodes that run the vpn goes over to the
// kernel's TCP and leaves quic-go, on a socket over the same wire, behind.
func TestE2EStreamLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "strl")
	way := emulator.Profile{Delay: 50 * time.Millisecond, Loss: 0.01}
	w.boxes("a", "b")
	_, err := w.lab.BadWire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24"), way, way, 1)
	w.must(err)
	w.node("a")
	w.node("b", "--peer", w.peer("a", "10.1.0.1"))
	w.reach("a", "b")
	plain, _ := w.plainQUIC("a", "b", "10.1.0.2", 10*time.Second)
	without, _ := w.streamBench("a", "b", "10")
	w.vpnUp("a", "b")
	w.pings("a", w.address("b"))
	with, back := w.streamBench("a", "b", "15")
	with = (with + back) / 2
	again, _ := w.plainQUIC("a", "b", "10.1.0.2", 10*time.Second)
	t.Logf("quic-go %.1f before, %.1f after", plain, again)
	plain = (plain + again) / 2 // how far slow start got before its first loss makes the difference
	t.Logf("Mbit/s at 100 ms and 1 %% loss: quic-go %.1f, stream %.1f, stream with the vpn at both ends %.1f: %.0f times quic-go",
		plain, without, with, with/plain)
	if with < 10*plain {
		t.Errorf("with the vpn at both ends %.1f Mbit/s, quic-go alone %.1f", with, plain)
	}
}

// streamBench is node bench: Mbit/s there and back, as counted by the receivers.
func (w *world) streamBench(from, to, seconds string) (there, back float64) {
	w.t.Helper()
	var r struct {
		Send    float64 `json:"send_mbit_s"`
		Receive float64 `json:"receive_mbit_s"`
	}
	w.must(w.box[from].SkywireJSON(w.t.Context(), &r, "node", "bench", "-t", seconds, w.key[to]))
	w.t.Logf("%s to %s: %.1f Mbit/s there, %.1f back", from, to, r.Send, r.Receive)
	return r.Send, r.Receive
}
