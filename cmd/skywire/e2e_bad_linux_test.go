package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"skywire/mesh/meshtest/emulator"
)

// TestE2EBadLink puts 100 ms of delay (there and back), 20 ms of jitter and 1 % loss between a relay and the exit.
func TestE2EBadLink(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "bad")
	w.boxes("a", "r1", "b")
	w.must(w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("r1", "prev", "10.1.0.2/24")))
	way := emulator.Profile{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01, Reorder: 0.001, Duplicate: 0.001}
	_, err := w.lab.BadWire(w.end("r1", "next", "10.1.1.1/24"), w.end("b", "prev", "10.1.1.2/24"), way, way, 1)
	w.must(err)
	w.node("a")
	w.node("r1", "--peer", w.peer("a", "10.1.0.1"))
	w.node("b", "--peer", w.peer("r1", "10.1.1.1"))
	w.reach("a", "b")
	w.exitBehind("b")
	w.start("a", "vpn", "vpn", "client", "--server", w.key["b"], "--exit")
	w.start("b", "socks", "socks", "server", "--allow", w.key["a"], "--allow-private")
	w.start("a", "socks", "socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"])
	addr := w.address("b")
	w.pings("a", addr)
	out, _ := w.box["a"].Exec(t.Context(), "ping", "-c100", "-i0.05", "-W3", "-q", addr)
	t.Log(lastLines(out, 2))
	if !strings.Contains(out, "% packet loss") || strings.Contains(out, " 100% packet loss") {
		t.Error(out)
	}
	w.checkWeb("a", "http://10.50.0.2:8080/", "10.50.0.1")
	w.checkWeb("a", "http://["+addr+"]:8080/", w.address("a"))
	w.wait("a page through socks", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "curl", "-sS", "-f", "-m", "10", "-x", "socks5h://127.0.0.1:1080", "http://10.50.0.2:8080/")
		return err
	})
	for name, args := range map[string][]string{"a to b": nil, "b to a": {"-R"}} {
		rate := w.iperf("a", "b", addr, append(args, "-t", "5")...)
		t.Logf("TCP %s over 100 ms and 1 %% loss: %.2f Mbit/s", name, rate/1e6)
		if rate < 0.2e6 {
			t.Errorf("TCP %s: %.2f Mbit/s", name, rate/1e6)
		}
	}
}

// TestE2ESmallMTU runs over a link that carries 576 bytes and says nothing about it.
func TestE2ESmallMTU(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "mtu")
	w.boxes("a", "r1", "b")
	w.must(w.lab.Wire(w.end("a", "next", "10.1.0.1/24"), w.end("r1", "prev", "10.1.0.2/24")))
	small := emulator.Profile{MTU: 576}
	_, err := w.lab.BadWire(w.end("r1", "next", "10.1.1.1/24"), w.end("b", "prev", "10.1.1.2/24"), small, small, 1)
	w.must(err)
	w.node("a")
	w.node("r1", "--peer", w.peer("a", "10.1.0.1"))
	w.node("b", "--peer", w.peer("r1", "10.1.1.1"))
	w.reach("a", "b")
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	w.wait("a packet of 1,280 bytes", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "ping", "-c1", "-W1", "-s", "1232", addr)
		return err
	})
	if rate := w.iperf("a", "b", addr); rate < 1e6 {
		t.Errorf("TCP over an MTU of 576: %.2f Mbit/s", rate/1e6)
	}
}

// TestE2EClockSkew links boxes whose clock since boot is a day apart: only differences of time may count.
func TestE2EClockSkew(t *testing.T) {
	w := newWorld(t, "clock")
	w.boxes("a", "b")
	w.must(w.lab.Wire(w.end("a", "eth0", "10.1.0.1/24"), w.end("b", "eth0", "10.1.0.2/24")))
	w.node("a")
	path, err := builtBinary()
	w.must(err)
	// The wall clock has no namespace; the clocks since boot have.
	p, err := w.box["b"].Start("node", "unshare", "-T", "--boottime", "86400", "--monotonic", "86400", "--fork", "--kill-child", path,
		"node", "run", "--listen", "udp://[::]:"+meshPort, "--open", "--peer", w.peer("a", "10.1.0.1"))
	w.must(err)
	w.run["b node"] = p
	w.wait("b", func(ctx context.Context) error {
		_, err := w.box["b"].Skywire(ctx, "node", "ping", "-c", "1", w.key["a"])
		if err == nil {
			return nil
		}
		return w.alive(p, err)
	})
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
