package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"skywire/cmd/internal/lab"
)

// TestE2EKill kills every daemon in turn with -9 under traffic, starts it again as a supervisor would, and wants all to
// heal by itself; at the end nothing may be left behind in any box.
func TestE2EKill(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "kill")
	w.diamond()
	before := map[string]string{}
	for _, b := range []string{"a", "b"} {
		before[b] = w.footprint(b)
	}
	daemons := w.everything()
	w.healthy("at the start")
	rounds := 2
	if full() {
		rounds = 10
	}
	for round := range rounds {
		for _, d := range daemons {
			name := d.box + " " + d.what
			load := w.load()
			w.run[name].Kill()
			w.start(d.box, d.what, d.args...)
			start := time.Now()
			w.healthy(fmt.Sprintf("round %d, after %s", round, name))
			t.Logf("round %d: %s killed: healthy after %v", round, name, time.Since(start).Round(time.Millisecond))
			load.Kill()
		}
	}
	w.killVPNForGood()
	w.stopAll("socks", "vpn", "manager", "node")
	for _, b := range []string{"a", "b"} {
		if after := w.footprint(b); after != before[b] {
			t.Errorf("%s is not as it was: %s", b, difference(before[b], after))
		}
		if left := w.sockets(b); len(left) > 0 {
			t.Errorf("%s: left behind: %v", b, left)
		}
	}
	// State files open again: every node starts once more with its old key.
	for _, b := range []string{"a", "b", "r1", "r2", "m"} {
		p := w.node(b)
		if out, err := w.box[b].Skywire(t.Context(), "node", "id"); err != nil || strings.TrimSpace(out) != w.key[b] {
			t.Errorf("%s is now %q: %v", b, out, err)
		}
		w.must(p.Stop(patience))
	}
}

// diamond wires a-r1-b and a-r2-b, and the manager m to both relays; b has a LAN with a web server.
func (w *world) diamond() {
	w.t.Helper()
	w.boxes("a", "b", "r1", "r2", "m")
	w.plain("web")
	w.must(
		w.lab.Wire(w.end("a", "r1", "10.1.1.1/24"), w.end("r1", "a", "10.1.1.2/24")),
		w.lab.Wire(w.end("a", "r2", "10.1.2.1/24"), w.end("r2", "a", "10.1.2.2/24")),
		w.lab.Wire(w.end("b", "r1", "10.2.1.1/24"), w.end("r1", "b", "10.2.1.2/24")),
		w.lab.Wire(w.end("b", "r2", "10.2.2.1/24"), w.end("r2", "b", "10.2.2.2/24")),
		w.lab.Wire(w.end("m", "r1", "10.3.1.1/24"), w.end("r1", "m", "10.3.1.2/24")),
		w.lab.Wire(w.end("m", "r2", "10.3.2.1/24"), w.end("r2", "m", "10.3.2.2/24")),
		w.lab.Wire(w.end("b", "lan", "10.50.0.1/24"), w.end("web", "eth0", "10.50.0.2/24")))
}

type daemon struct {
	box, what string
	args      []string
}

// everything starts all daemons of the diamond and returns how.
func (w *world) everything() []daemon {
	w.t.Helper()
	node := func(box string, args ...string) daemon {
		all := []string{"node", "run", "--name", box, "--listen", "udp://[::]:" + meshPort, "--open"}
		return daemon{box, "node", append(append(all, args...), "--manager", w.key["m"])}
	}
	all := []daemon{
		node("r1"),
		node("r2"),
		node("m", "--peer", w.peer("r1", "10.3.1.2"), "--peer", w.peer("r2", "10.3.2.2")),
		node("b", "--peer", w.peer("r1", "10.2.1.2"), "--peer", w.peer("r2", "10.2.2.2")),
		node("a", "--peer", w.peer("r1", "10.1.1.2"), "--peer", w.peer("r2", "10.1.2.2")),
		{"m", "manager", []string{"manager", "run"}},
		{"b", "vpn", []string{"vpn", "server", "--exit", "--allow-private", "--allow", w.key["a"]}},
		{"a", "vpn", []string{"vpn", "client", "--server", w.key["b"], "--exit"}},
		{"b", "socks", []string{"socks", "server", "--allow", w.key["a"], "--allow-private"}},
		{"a", "socks", []string{"socks", "client", "--listen", "127.0.0.1:1080", "--server", w.key["b"]}},
	}
	for _, d := range all {
		p := w.start(d.box, d.what, d.args...)
		if d.what == "node" {
			w.wait("node of "+d.box, func(ctx context.Context) error {
				_, err := w.box[d.box].Skywire(ctx, "node", "status")
				return w.alive(p, err)
			})
		}
	}
	w.serve("web", "10.50.0.2:8080")
	w.serve("b", "[::]:8080")
	return all
}

// healthy wants ping, vpn, exit, socks and the manager to work.
func (w *world) healthy(when string) {
	w.t.Helper()
	for what, check := range map[string]func(context.Context) error{
		"ping": func(ctx context.Context) error {
			_, err := w.box["a"].Exec(ctx, "ping", "-c1", "-W1", w.meshAddress("b"))
			return err
		},
		"vpn exit": func(ctx context.Context) error { return w.curl(ctx, "http://10.50.0.2:8080/") },
		"socks": func(ctx context.Context) error {
			return w.curl(ctx, "http://10.50.0.2:8080/", "-x", "socks5h://127.0.0.1:1080")
		},
		"manager": func(ctx context.Context) error {
			var nodes []struct{ Online bool }
			if err := w.box["m"].SkywireJSON(ctx, &nodes, "manager", "nodes"); err != nil {
				return err
			}
			n := 0
			for _, x := range nodes {
				if x.Online {
					n++
				}
			}
			if n < 5 {
				return fmt.Errorf("%d nodes online", n)
			}
			return nil
		},
	} {
		w.wait(when+": "+what, check)
	}
}

func (w *world) curl(ctx context.Context, url string, args ...string) error {
	_, err := w.box["a"].Exec(ctx, "curl", append([]string{"-sS", "-f", "-m", "2", url}, args...)...)
	return err
}

// meshAddress is the address of a box, asked once while its node runs.
func (w *world) meshAddress(box string) string {
	w.mu.Lock()
	addr := w.addr[box]
	w.mu.Unlock()
	if addr == "" {
		addr = w.address(box)
		w.mu.Lock()
		w.addr[box] = addr
		w.mu.Unlock()
	}
	return addr
}

// load keeps the vpn busy until it is killed.
func (w *world) load() *lab.Process {
	w.t.Helper()
	p, err := w.box["a"].Start("load", "sh", "-c", "while :; do curl -s -m 2 http://10.50.0.2:8080/ >/dev/null; ping -c20 -i0.01 -W1 -q "+
		w.meshAddress("b")+" >/dev/null; done")
	w.must(err)
	return p
}

// killVPNForGood kills the vpn client of a and starts another mode: what the killed one had set up must be gone by then,
// and after a clean stop (the caller's) the box must be as before.
func (w *world) killVPNForGood() {
	w.t.Helper()
	w.run["a vpn"].Kill()
	p := w.start("a", "vpn", "vpn", "up")
	w.wait("vpn up after a kill", func(ctx context.Context) error {
		_, err := w.box["a"].Exec(ctx, "ping", "-c1", "-W1", w.meshAddress("b"))
		return w.alive(p, err)
	})
	if _, err := w.box["a"].Exec(w.t.Context(), "curl", "-sS", "-m", "1", "http://10.50.0.2:8080/"); err == nil {
		w.t.Error("vpn up leads to the exit's LAN: the killed client's routes still stand")
	}
}

// difference lists the lines that only one of two texts has.
func difference(before, after string) string {
	var out []string
	for _, x := range []struct{ sign, has, not string }{{"-", before, after}, {"+", after, before}} {
		for line := range strings.Lines(x.has) {
			if !strings.Contains(x.not, line) {
				out = append(out, x.sign+strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(out, "\n")
}

// TestE2EManagerDown: without any manager a killed relay forwards again for its old paths, from what it has stored.
func TestE2EManagerDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "alone")
	w.chain("a", "r1", "b")
	w.vpnUp("a", "b")
	addr := w.address("b")
	w.pings("a", addr)
	for range 3 {
		w.run["r1 node"].Kill()
		start := time.Now()
		w.node("r1", "--peer", w.peer("a", "10.1.0.1"))
		w.pings("a", addr)
		t.Logf("relay killed and restarted: %v until the next answer", time.Since(start).Round(time.Millisecond))
	}
}
